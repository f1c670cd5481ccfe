// SPDX-License-Identifier: Apache-2.0

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
	Devices []*Device
	// Newest is the newest Modified of the devices.
	Newest Instant
	// Releases are the IDs of the releases that the devices refer to, in no order.
	Releases []int64
}

func newRun(devices []*Device) *Run {
	r := &Run{Devices: devices}
	for _, d := range devices {
		r.Newest = max(r.Newest, d.Modified)
		for _, id := range [...]int64{d.RunningRelease, d.PinnedRelease, d.TargetRelease, d.OSTarget, d.SupervisorTarget} {
			if id != 0 && !slices.Contains(r.Releases, id) { // there are few
				r.Releases = append(r.Releases, id)
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
	var b Builder
	for i := range devices {
		b.Add(&devices[i])
	}
	return b.Devices()
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

// With returns the devices with some put in, in place of those of the same ID if there are, and those that
// gone names, if it is not nil, left out. put is in ascending order of ID. What neither concerns is shared.
func (d Devices) With(put []*Device, gone func(*Device) bool) Devices {
	if len(put) == 0 && gone == nil {
		return d
	}
	b := NewBuilder(d)
	for i, run := range d.runs {
		var concerned []*Device
		concerned, put = d.split(i, put)
		if len(concerned) == 0 && !run.any(gone) {
			b.keep(run)
			continue
		}
		for _, old := range run.Devices {
			for len(concerned) > 0 && concerned[0].ID < old.ID {
				b.Add(concerned[0])
				concerned = concerned[1:]
			}
			switch {
			case len(concerned) > 0 && concerned[0].ID == old.ID:
				b.Add(old.orEqual(concerned[0]))
				concerned = concerned[1:]
			case gone == nil || !gone(old):
				b.Add(old)
			}
		}
		for _, d := range concerned {
			b.Add(d)
		}
	}
	for _, d := range put {
		b.Add(d)
	}
	return b.Devices()
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

// Builder makes runs of devices that come in ascending order of ID, and shares the old run wherever it makes
// the same. To that end it cuts where the old runs are cut. An old run may grow to twice its length before
// it is cut again, and runs that have become short are joined.
type Builder struct {
	old  []*Run // those not reached yet, but for the first, from which open may be made anew
	open []*Device
	runs []*Run
	n    int
}

// NewBuilder returns a builder that shares the runs of devices that were known.
func NewBuilder(known Devices) *Builder { return &Builder{old: known.runs} }

// Add adds a device.
func (b *Builder) Add(d *Device) {
	for len(b.old) > 1 && d.ID >= b.old[1].first() {
		b.close()
		b.old = b.old[1:]
	}
	// Beyond the last old run there is no cut to keep to.
	if len(b.open) >= runLength && (len(b.old) == 0 || len(b.old) == 1 && d.ID > b.old[0].last()) {
		b.close()
		b.old = nil
	}
	b.open = append(b.open, d)
}

// keep adds an old run as it is.
func (b *Builder) keep(run *Run) {
	b.close()
	for len(b.old) > 0 && b.old[0].first() <= run.first() {
		b.old = b.old[1:]
	}
	b.emit(run)
}

// close makes runs of the devices that are open.
func (b *Builder) close() {
	if len(b.open) == 0 {
		return
	}
	if len(b.old) > 0 && slices.Equal(b.open, b.old[0].Devices) {
		b.emit(b.old[0])
	} else {
		runs := 1
		if len(b.open) > 2*runLength {
			runs = (len(b.open) + runLength - 1) / runLength
		}
		for i := range runs {
			b.emit(newRun(slices.Clone(b.open[i*len(b.open)/runs : (i+1)*len(b.open)/runs])))
		}
	}
	clear(b.open)
	b.open = b.open[:0]
}

func (b *Builder) emit(run *Run) {
	b.n += len(run.Devices)
	if n := len(b.runs); n > 0 && len(b.runs[n-1].Devices)+len(run.Devices) <= runLength/2 {
		b.runs[n-1] = newRun(slices.Concat(b.runs[n-1].Devices, run.Devices))
		return
	}
	b.runs = append(b.runs, run)
}

// Devices returns what was made. The builder must not be used after that.
func (b *Builder) Devices() Devices {
	b.close()
	return Devices{runs: b.runs, n: b.n}
}

// orEqual returns the device, if another one is equal to it, and that one otherwise.
func (d *Device) orEqual(o *Device) *Device {
	if d.Equal(o) {
		return d
	}
	return o
}

// Equal reports whether two devices are the same in every field.
func (d *Device) Equal(o *Device) bool {
	if d == o {
		return true
	}
	if !slices.Equal(d.Services(), o.Services()) || !slices.Equal(d.Tags(), o.Tags()) {
		return false
	}
	one, other := *d, *o
	one.Attachments, other.Attachments = nil, nil
	return one == other
}

// Cursor finds devices by ascending ID.
type Cursor struct {
	runs []*Run
	rest []*Device
}

// Cursor returns a cursor that stands before the first device.
func (d Devices) Cursor() *Cursor { return &Cursor{runs: d.runs} }

// At returns the device of an ID, nil if there is none. IDs must not descend from call to call.
func (c *Cursor) At(id int64) *Device {
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
