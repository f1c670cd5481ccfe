// SPDX-License-Identifier: Apache-2.0

package balena

import (
	"iter"
	"math"
	"math/bits"
	"slices"
	"sort"
)

// Devices are the devices of a snapshot. They are divided into stripes: one, or more with [Striped]. The stripe of a
// device depends only on its ID and never changes. In a stripe the devices are in ascending order of ID.
//
// A stripe consists of runs. Snapshots share the runs that did not change, and in other runs the devices that did not
// change. The time and memory of a refresh therefore depend on the number of changes.
type Devices struct {
	stripes [][]*Run // empty: one stripe without devices
}

// Striped returns Devices without any device, with a number of stripes. All Devices that are made from them with
// [NewBuilder] and [Devices.With] have the same number of stripes.
func Striped(stripes int) Devices { return Devices{make([][]*Run, max(1, stripes))} }

// MaxStripes is the maximum number of stripes. Stripes cost bytes, because a run cannot extend over several stripes.
const MaxStripes = 64

// stripeOf returns the stripe of the device with an ID. With twice as many stripes, each stripe is divided into two.
func stripeOf(id int64, stripes int) int {
	const golden = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio, which spreads numbers that are close
	stripe, _ := bits.Mul64(uint64(id)*golden, uint64(stripes))
	return int(stripe)
}

// stripe returns the runs of the stripe of the device with an ID.
func (d Devices) stripe(id int64) []*Run {
	if len(d.stripes) == 0 {
		return nil
	}
	return d.stripes[stripeOf(id, len(d.stripes))]
}

// Stripes returns the runs of each stripe. They must not be changed.
func (d Devices) Stripes() [][]*Run { return d.stripes }

// A Run is a sequence of devices. It is immutable: equal pointers are equal devices.
type Run struct {
	Devices []*Device
	// Newest is the newest Modified of the devices.
	Newest Instant
	// Releases are the IDs of the releases to which the devices refer, in no particular order.
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

// runLength is the approximate number of devices of a run. It is small, so that little must be rebuilt when one device
// changes, and large enough for the rendered text of a run to be a piece of its own.
const runLength = 40

// NewDevices returns devices that are in ascending order of ID, in one stripe.
func NewDevices(devices ...Device) Devices {
	b := NewBuilder(Devices{})
	for i := range devices {
		b.Add(&devices[i])
	}
	return b.Devices()
}

// Len returns the number of devices.
func (d Devices) Len() (n int) {
	for _, runs := range d.stripes {
		for _, run := range runs {
			n += len(run.Devices)
		}
	}
	return n
}

// Runs returns the devices run by run, stripe by stripe.
func (d Devices) Runs() []*Run { return slices.Concat(d.stripes...) }

// All yields the devices one by one, stripe by stripe. They must not be changed.
func (d Devices) All() iter.Seq[*Device] {
	return func(yield func(*Device) bool) {
		for _, runs := range d.stripes {
			for _, run := range runs {
				for _, device := range run.Devices {
					if !yield(device) {
						return
					}
				}
			}
		}
	}
}

// Find returns the device with an ID, or nil.
func (d Devices) Find(id int64) *Device {
	runs := d.stripe(id)
	run := sort.Search(len(runs), func(i int) bool { return runs[i].first() > id }) - 1
	if run < 0 {
		return nil
	}
	devices := runs[run].Devices
	if i := sort.Search(len(devices), func(i int) bool { return devices[i].ID >= id }); i < len(devices) && devices[i].ID == id {
		return devices[i]
	}
	return nil
}

// Differences yields the devices in which two snapshots differ, as they were and as they are; was is nil for
// added devices, is for removed ones. Shared runs cost nothing. Unless one of them has no devices, both must have the same
// number of stripes.
func (d Devices) Differences(before Devices) iter.Seq2[*Device, *Device] {
	return func(yield func(was, is *Device) bool) {
		for i := range max(len(d.stripes), len(before.stripes)) {
			var old, now []*Run
			if i < len(before.stripes) {
				old = before.stripes[i]
			}
			if i < len(d.stripes) {
				now = d.stripes[i]
			}
			if !differences(old, now, yield) {
				return
			}
		}
	}
}

// differences yields the devices in which the runs of a stripe differ. It reports whether to go on.
func differences(old, now []*Run, yield func(was, is *Device) bool) bool {
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
			return true
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
			return false
		}
	}
}

// With returns the devices with those of put, which replace devices of the same ID, and without those for which removed,
// if it is not nil, returns true. put is in ascending order of ID, at least within each stripe. Unchanged runs and devices
// are shared.
func (d Devices) With(put []*Device, removed func(*Device) bool) Devices {
	if len(put) == 0 && removed == nil {
		return d
	}
	stripes := Striped(len(d.stripes)).stripes
	copy(stripes, d.stripes)
	puts := make([][]*Device, len(stripes))
	for _, device := range put {
		i := stripeOf(device.ID, len(stripes))
		puts[i] = append(puts[i], device)
	}
	for i, runs := range stripes {
		if len(puts[i]) > 0 || removed != nil {
			stripes[i] = with(runs, puts[i], removed)
		}
	}
	return Devices{stripes}
}

// with is [Devices.With] for the runs of a stripe. A device between two runs is added to the former.
func with(runs []*Run, put []*Device, removed func(*Device) bool) []*Run {
	b := stripeBuilder{old: runs}
	for i, run := range runs {
		next := int64(math.MaxInt64)
		if i+1 < len(runs) {
			next = runs[i+1].first()
		}
		changes := len(put) > 0 && put[0].ID < next || removed != nil && slices.ContainsFunc(run.Devices, removed)
		if !changes {
			b.keep(run)
			continue
		}
		for _, device := range run.Devices {
			for len(put) > 0 && put[0].ID < device.ID {
				b.add(put[0])
				put = put[1:]
			}
			switch {
			case len(put) > 0 && put[0].ID == device.ID:
				if !device.Equal(put[0]) {
					device = put[0]
				}
				put = put[1:]
			case removed != nil && removed(device):
				continue
			}
			b.add(device)
		}
	}
	for _, device := range put {
		b.add(device)
	}
	return b.result()
}

func (r *Run) first() int64 { return r.Devices[0].ID }
func (r *Run) last() int64  { return r.Devices[len(r.Devices)-1].ID }

// Builder builds Devices from devices that are added in ascending order of ID.
type Builder struct{ stripes []stripeBuilder }

// NewBuilder returns a builder that shares the runs of the known devices, and has the same number of stripes.
func NewBuilder(known Devices) *Builder {
	b := &Builder{make([]stripeBuilder, max(1, len(known.stripes)))}
	for i, runs := range known.stripes {
		if b.stripes[i].old = runs; len(runs) > 0 {
			b.stripes[i].rest = runs[0].Devices
		}
	}
	return b
}

// Add adds a device.
func (b *Builder) Add(d *Device) { b.stripes[stripeOf(d.ID, len(b.stripes))].add(d) }

// Known returns the known device with an ID that is higher than those of all added devices, or nil. IDs must not decrease from
// call to call.
func (b *Builder) Known(id int64) *Device {
	s := &b.stripes[stripeOf(id, len(b.stripes))]
	s.advance(id)
	for len(s.rest) > 0 && s.rest[0].ID < id {
		s.rest = s.rest[1:]
	}
	if len(s.rest) == 0 || s.rest[0].ID != id {
		return nil
	}
	return s.rest[0]
}

// Devices returns the result. The builder must not be used afterwards.
func (b *Builder) Devices() Devices {
	d := Striped(len(b.stripes))
	for i := range b.stripes {
		d.stripes[i] = b.stripes[i].result()
	}
	return d
}

// stripeBuilder divides devices, added in ascending order of ID, into runs, and shares the old run if the new one has the
// same devices. It therefore divides at the same places as the old runs. An old run may grow to twice its length before
// it is divided, and runs that have become short are joined.
type stripeBuilder struct {
	old  []*Run    // runs not reached yet; the first one may have the same devices as open
	rest []*Device // of the first of them, not passed by Known
	open []*Device
	runs []*Run
}

// advance goes to the old run to which a device with an ID would belong.
func (b *stripeBuilder) advance(id int64) {
	for len(b.old) > 1 && id >= b.old[1].first() {
		b.close()
		b.old = b.old[1:]
		b.rest = b.old[0].Devices
	}
}

func (b *stripeBuilder) add(d *Device) {
	b.advance(d.ID)
	// After the last old run there is no given place to divide.
	if len(b.open) >= runLength && (len(b.old) == 0 || len(b.old) == 1 && d.ID > b.old[0].last()) {
		b.close()
		b.old = nil
	}
	b.open = append(b.open, d)
}

// keep adds an old run unchanged.
func (b *stripeBuilder) keep(run *Run) {
	b.close()
	for len(b.old) > 0 && b.old[0].first() <= run.first() {
		b.old = b.old[1:]
	}
	b.emit(run)
}

// close divides the open devices into runs.
func (b *stripeBuilder) close() {
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

func (b *stripeBuilder) emit(run *Run) {
	if n := len(b.runs); n > 0 && len(b.runs[n-1].Devices)+len(run.Devices) <= runLength/2 {
		b.runs[n-1] = newRun(slices.Concat(b.runs[n-1].Devices, run.Devices))
		return
	}
	b.runs = append(b.runs, run)
}

// result returns the runs.
func (b *stripeBuilder) result() []*Run {
	b.close()
	return b.runs
}

// Equal reports whether two devices are equal in all fields.
func (d *Device) Equal(o *Device) bool {
	if d == o {
		return true
	}
	if d.Where() != o.Where() || !slices.Equal(d.Services(), o.Services()) || !slices.Equal(d.Tags(), o.Tags()) {
		return false
	}
	one, other := *d, *o
	one.Whereabouts, other.Whereabouts = nil, nil
	one.Attachments, other.Attachments = nil, nil
	return one == other
}
