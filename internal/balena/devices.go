package balena

import (
	"iter"
	"slices"
	"sort"
)

// Devices are the devices of a snapshot, in ascending order of ID. They lie in runs, and snapshots share the
// runs in which nothing changed, and of others the devices that did not: a refresh costs what changed, in time
// and in memory.
type Devices struct {
	runs []*Run
	n    int
}

// A Run is some devices that follow each other. Nothing changes it: the same pointer is the same devices.
type Run struct {
	Devices  []*Device
	newest   Instant // the newest Modified of the devices
	releases []int64 // those that the devices refer to
}

func newRun(devices []*Device) *Run {
	r := &Run{Devices: devices}
	for _, d := range devices {
		r.newest = max(r.newest, d.Modified)
		for _, id := range [...]int64{d.RunningRelease, d.PinnedRelease, d.TargetRelease, d.OSTarget, d.SupervisorTarget} {
			if id != 0 && !slices.Contains(r.releases, id) { // there are few
				r.releases = append(r.releases, id)
			}
		}
	}
	return r
}

// runLength is how many devices a run has, about: few enough for little to be made anew when one of them
// changes, and enough for what is made of them, text above all, to be worth a piece of its own.
const runLength = 40

// NewDevices returns devices that are in ascending order of ID.
func NewDevices(devices ...Device) Devices {
	var m merger
	for i := range devices {
		m.add(&devices[i])
	}
	return m.devices()
}

// Len is how many devices there are.
func (d Devices) Len() int { return d.n }

// Runs returns the devices run by run.
func (d Devices) Runs() []*Run { return d.runs }

// All yields the devices one by one. They must not be changed.
func (d Devices) All() iter.Seq[*Device] {
	return func(yield func(*Device) bool) {
		for _, run := range d.runs {
			for _, device := range run.Devices {
				if !yield(device) {
					return
				}
			}
		}
	}
}

// Find returns the device of an ID, nil if there is none.
func (d Devices) Find(id int64) *Device {
	run := sort.Search(len(d.runs), func(i int) bool { return d.runs[i].first() > id }) - 1
	if run < 0 {
		return nil
	}
	devices := d.runs[run].Devices
	if i := sort.Search(len(devices), func(i int) bool { return devices[i].ID >= id }); i < len(devices) && devices[i].ID == id {
		return devices[i]
	}
	return nil
}

// Differences yields the devices in which two snapshots differ, as they were and as they are; was is nil for
// those that came, is for those that went. Runs that both share cost nothing.
func (d Devices) Differences(before Devices) iter.Seq2[*Device, *Device] {
	return func(yield func(was, is *Device) bool) {
		old, now := before.runs, d.runs
		var was, is []*Device
		for {
			if len(was) == 0 && len(is) == 0 {
				for len(old) > 0 && len(now) > 0 && old[0] == now[0] {
					old, now = old[1:], now[1:]
				}
			}
			if len(was) == 0 && len(old) > 0 {
				was, old = old[0].Devices, old[1:]
			}
			if len(is) == 0 && len(now) > 0 {
				is, now = now[0].Devices, now[1:]
			}
			more := true
			switch {
			case len(was) == 0 && len(is) == 0:
				return
			case len(is) == 0 || len(was) > 0 && was[0].ID < is[0].ID:
				more, was = yield(was[0], nil), was[1:]
			case len(was) == 0 || is[0].ID < was[0].ID:
				more, is = yield(nil, is[0]), is[1:]
			default:
				if !was[0].Equal(is[0]) {
					more = yield(was[0], is[0])
				}
				was, is = was[1:], is[1:]
			}
			if !more {
				return
			}
		}
	}
}

// with returns the devices with some put in, in place of those of the same ID if there are, and those that
// gone names, if it is not nil, left out. put is in ascending order of ID. What neither concerns is shared.
func (d Devices) with(put []*Device, gone func(*Device) bool) Devices {
	if len(put) == 0 && gone == nil {
		return d
	}
	m := merger{old: d.runs}
	for i, run := range d.runs {
		var concerned []*Device
		concerned, put = d.split(i, put)
		if len(concerned) == 0 && !run.any(gone) {
			m.keep(run)
			continue
		}
		for _, old := range run.Devices {
			for len(concerned) > 0 && concerned[0].ID < old.ID {
				m.add(concerned[0])
				concerned = concerned[1:]
			}
			switch {
			case len(concerned) > 0 && concerned[0].ID == old.ID:
				m.add(old.orEqual(concerned[0]))
				concerned = concerned[1:]
			case gone == nil || !gone(old):
				m.add(old)
			}
		}
		for _, d := range concerned {
			m.add(d)
		}
	}
	for _, d := range put {
		m.add(d)
	}
	return m.devices()
}

// split divides devices, in ascending order of ID, into those that belong before the run behind that of an
// index, and those that don't.
func (d Devices) split(run int, devices []*Device) (before, rest []*Device) {
	if run+1 == len(d.runs) {
		return devices, nil
	}
	next := d.runs[run+1].first()
	n := sort.Search(len(devices), func(i int) bool { return devices[i].ID >= next })
	return devices[:n], devices[n:]
}

func (r *Run) first() int64 { return r.Devices[0].ID }
func (r *Run) last() int64  { return r.Devices[len(r.Devices)-1].ID }

// any tells whether a condition, if there is one, holds for any of the devices.
func (r *Run) any(condition func(*Device) bool) bool {
	if condition == nil {
		return false
	}
	return slices.ContainsFunc(r.Devices, condition)
}

// merger makes runs of devices that come in ascending order of ID, and shares the old run wherever it makes
// the same. To that end it cuts where the old runs are cut. An old run may grow to twice its length before
// it is cut again, and runs that have become short are joined.
type merger struct {
	old  []*Run // those not reached yet, but for the first, from which open may be made anew
	open []*Device
	runs []*Run
	n    int
}

// add adds a device.
func (m *merger) add(d *Device) {
	for len(m.old) > 1 && d.ID >= m.old[1].first() {
		m.close()
		m.old = m.old[1:]
	}
	// Beyond the last old run there is no cut to keep to.
	if len(m.open) >= runLength && (len(m.old) == 0 || len(m.old) == 1 && d.ID > m.old[0].last()) {
		m.close()
		m.old = nil
	}
	m.open = append(m.open, d)
}

// keep adds an old run as it is.
func (m *merger) keep(run *Run) {
	m.close()
	for len(m.old) > 0 && m.old[0].first() <= run.first() {
		m.old = m.old[1:]
	}
	m.emit(run)
}

// close makes runs of the devices that are open.
func (m *merger) close() {
	if len(m.open) == 0 {
		return
	}
	if len(m.old) > 0 && slices.Equal(m.open, m.old[0].Devices) {
		m.emit(m.old[0])
	} else {
		runs := 1
		if len(m.open) > 2*runLength {
			runs = (len(m.open) + runLength - 1) / runLength
		}
		for i := range runs {
			m.emit(newRun(slices.Clone(m.open[i*len(m.open)/runs : (i+1)*len(m.open)/runs])))
		}
	}
	clear(m.open)
	m.open = m.open[:0]
}

func (m *merger) emit(run *Run) {
	m.n += len(run.Devices)
	if n := len(m.runs); n > 0 && len(m.runs[n-1].Devices)+len(run.Devices) <= runLength/2 {
		m.runs[n-1] = newRun(slices.Concat(m.runs[n-1].Devices, run.Devices))
		return
	}
	m.runs = append(m.runs, run)
}

// devices returns what was made. The merger must not be used after that.
func (m *merger) devices() Devices {
	m.close()
	return Devices{runs: m.runs, n: m.n}
}

// orEqual returns the device, if another one is equal to it, and that one otherwise.
func (d *Device) orEqual(o *Device) *Device {
	if d.Equal(o) {
		return d
	}
	return o
}

// Equal tells whether two devices are the same in every field.
func (d *Device) Equal(o *Device) bool {
	return d == o || d.sameRow(o) && d.Modified == o.Modified &&
		d.Status == o.Status && d.Type == o.Type && d.Frozen == o.Frozen &&
		d.TargetRelease == o.TargetRelease && d.OSTarget == o.OSTarget && d.SupervisorTarget == o.SupervisorTarget &&
		sameNumber(d.UpdateProgress, o.UpdateProgress) &&
		slices.EqualFunc(d.Services(), o.Services(), Service.equal) && slices.Equal(d.Tags(), o.Tags())
}

// sameRow tells whether two devices are the same in all that the database holds in the device's own row: a
// change of any of it moves modified_at. What the API computes of other rows as well is left out.
func (d *Device) sameRow(o *Device) bool {
	return d.ID == o.ID && d.UUID == o.UUID && d.Name == o.Name && d.FleetID == o.FleetID && d.TypeID == o.TypeID &&
		d.Online == o.Online && d.HeartbeatState == o.HeartbeatState && d.UpdateStatus == o.UpdateStatus &&
		d.OSVersion == o.OSVersion && d.OSVariant == o.OSVariant && d.SupervisorVersion == o.SupervisorVersion &&
		d.Created == o.Created && d.LastConnectivity == o.LastConnectivity &&
		d.HeartbeatChanged == o.HeartbeatChanged && d.UpdateChanged == o.UpdateChanged &&
		d.RunningRelease == o.RunningRelease && d.PinnedRelease == o.PinnedRelease &&
		sameNumber(d.CPUUsage, o.CPUUsage) && sameNumber(d.CPUTemperature, o.CPUTemperature) &&
		sameNumber(d.MemoryUsed, o.MemoryUsed) && sameNumber(d.MemorySize, o.MemorySize) &&
		sameNumber(d.StorageUsed, o.StorageUsed) && sameNumber(d.StorageSize, o.StorageSize) &&
		d.Undervolted == o.Undervolted && d.WebAccessible == o.WebAccessible
}

func (s Service) equal(o Service) bool {
	return s.ID == o.ID && s.Name == o.Name && s.Status == o.Status && sameNumber(s.Progress, o.Progress) && s.Installed == o.Installed
}

// sameNumber compares numbers of which NaN, null, is one like any other.
func sameNumber(a, b float64) bool { return a == b || a != a && b != b }

// cursor finds devices by ascending ID.
type cursor struct {
	runs []*Run
	rest []*Device
}

// seek returns the device of an ID, nil if there is none. IDs must not descend from call to call.
func (c *cursor) seek(id int64) *Device {
	for len(c.runs) > 0 && c.runs[0].first() <= id {
		c.rest, c.runs = c.runs[0].Devices, c.runs[1:]
	}
	for len(c.rest) > 0 && c.rest[0].ID < id {
		c.rest = c.rest[1:]
	}
	if len(c.rest) > 0 && c.rest[0].ID == id {
		return c.rest[0]
	}
	return nil
}
