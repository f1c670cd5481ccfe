// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"bytes"
	"iter"
	"math"
	"slices"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

// Devices are rendered run by run, in the order of the snapshot. If the previous snapshot has the same run, only the
// families in which one of its devices changed are rendered again. Families whose values rarely change are rendered in
// long runs, several runs at a time. This makes the page smaller. A change of a single device then costs more, but
// such changes are rare.

// runs renders the devices of a snapshot.
type runs struct {
	page              *exposition.Builder
	columns           []column
	stretches         []stretch[device] // one for each run of a long run
	current, previous *view
	places            map[int64]place // places of the runs of the previous snapshot, by the ID of their first device
	long              []int           // number of runs in each long run of the previous snapshot
	// changedFleets are the fleets whose changes affect the lines of their devices. changedReleases are the releases whose
	// commit or version changed.
	changedFleets, changedReleases map[int64]bool
	// changedSystem is set if the releases of balenaOS and of the supervisor changed.
	changedSystem bool

	text []byte
	out  samples // without the labels of the device
}

// column is a family of devices on the page.
type column struct {
	family[device]
	index                     int  // of the family on the page
	changed, changedInLongRun bool // in the current run, in the current long run
}

// place is the position of a run on the previous page: the number of its piece in a family, and the number of its long
// run in a family that is rendered in long runs, both counted from 0.
type place struct {
	run          *balena.Run
	number, long int
}

// newRuns returns a renderer for the devices of a view. previous may be nil.
func newRuns(current, previous *view, page *exposition.Builder) *runs {
	r := &runs{page: page, current: current, stretches: make([]stretch[device], maxLongRun)}
	for i := range r.stretches {
		r.stretches[i].kind = deviceKind
	}
	// The lines of all devices depend on these fields.
	if previous != nil && previous.CloudFields == current.CloudFields && previous.APIVersion == current.APIVersion &&
		slices.Equal(previous.DeviceTagKeys, current.DeviceTagKeys) {
		r.compareWith(previous)
	}
	return r
}

// add adds a table. first is the index of its first family on the page.
func (r *runs) add(t *table[device], first int) {
	for i, f := range t.families {
		r.columns = append(r.columns, column{family: f, index: first + i})
	}
}

// compareWith records the runs of the previous snapshot, and the differences in its fleets and releases.
func (r *runs) compareWith(previous *view) {
	r.previous = previous
	r.places = make(map[int64]place)
	for _, stripe := range previous.Devices.Stripes() {
		for long := range longRuns(stripe) {
			for _, run := range long {
				r.places[run.Devices[0].ID] = place{run, len(r.places), len(r.long)}
			}
			r.long = append(r.long, len(long))
		}
	}
	r.changedFleets, r.changedReleases = map[int64]bool{}, map[int64]bool{}
	r.changedSystem = previous.System != r.current.System
	for id, before := range previous.byID {
		if after := r.current.byID[id]; after == nil || after.Slug != before.Slug || after.Archived != before.Archived || after.Maintenance != before.Maintenance {
			r.changedFleets[id] = true
		}
	}
	for _, releases := range []map[int64]balena.Release{previous.Releases, r.current.Releases} {
		for id := range releases {
			before, after := previous.Releases[id], r.current.Releases[id]
			if before.Commit != after.Commit || before.Version != after.Version {
				r.changedReleases[id] = true
			}
		}
	}
}

const (
	// meanLongRun is the average number of runs in a long run. Twice as many would save another 0.3 % of the bytes.
	meanLongRun = 16
	// maxLongRun bounds the cost of a single change.
	maxLongRun = 8 * meanLongRun
)

// longRuns divides runs into long runs. The beginning of a long run depends only on its first device. Added or removed
// devices therefore do not shift other long runs, as they would if all long runs had the same length.
func longRuns(runs []*balena.Run) iter.Seq[[]*balena.Run] {
	return func(yield func([]*balena.Run) bool) {
		for len(runs) > 0 {
			n := 1
			for n < len(runs) && n < maxLongRun && !beginsLongRun(runs[n]) {
				n++
			}
			if !yield(runs[:n]) {
				return
			}
			runs = runs[n:]
		}
	}
}

func beginsLongRun(run *balena.Run) bool {
	const golden = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio, which spreads close numbers
	return uint64(run.Devices[0].ID)*golden < math.MaxUint64/meanLongRun
}

// render renders the devices.
func (r *runs) render() {
	if len(r.columns) == 0 {
		return
	}
	for i, stripe := range r.current.Devices.Stripes() {
		if i > 0 {
			r.page.EndSection()
		}
		r.renderStripe(stripe)
	}
}

// renderStripe renders the devices of a stripe, which are a section of the page.
func (r *runs) renderStripe(stripe []*balena.Run) {
	for long := range longRuns(stripe) {
		stretches := r.stretches[:len(long)]
		previousLong, found := -1, 0 // the previous long run of these runs, and how many of them it contained
		for i := range r.columns {
			r.columns[i].changedInLongRun = false
		}
		for i, run := range long {
			devices := stretches[i].subjects[:0]
			for _, d := range run.Devices {
				devices = append(devices, device{d, r.current})
			}
			stretches[i].begin(devices)
			previousPlace, ok := r.diff(run)
			if ok && (i == 0 || previousPlace.long == previousLong) {
				previousLong = previousPlace.long
				found++
			}
			for j := range r.columns {
				c := &r.columns[j]
				if c.long {
					c.changedInLongRun = c.changedInLongRun || c.changed
				} else {
					r.put(c, ok && !c.changed, previousPlace.number, stretches[i:i+1])
				}
			}
		}
		same := found == len(long) && found == r.long[previousLong]
		for j := range r.columns {
			if c := &r.columns[j]; c.long {
				r.put(c, same && !c.changedInLongRun, previousLong, stretches)
			}
		}
	}
}

// put adds a piece of a family to the page: if it is unchanged, the piece with this number on the previous page,
// otherwise the lines of the stretches.
func (r *runs) put(c *column, same bool, number int, stretches []stretch[device]) {
	if same {
		r.page.Keep(c.index, number)
		return
	}
	r.text = r.text[:0]
	for i := range stretches {
		r.text = stretches[i].appendLines(r.text, &c.family)
	}
	r.page.Add(c.index, r.text)
}

// diff returns the place of a run on the previous page, and marks the families that have changed since. It returns
// false if the run was not on the previous page, or contained other devices.
func (r *runs) diff(run *balena.Run) (place, bool) {
	previous, found := r.places[run.Devices[0].ID]
	if !found || len(previous.run.Devices) != len(run.Devices) {
		return place{}, false
	}
	for i := range r.columns {
		r.columns[i].changed = false
	}
	if previous.run == run && len(r.changedFleets)+len(r.changedReleases) == 0 && !r.changedSystem {
		return previous, true
	}
	for i, after := range run.Devices {
		before := previous.run.Devices[i]
		if after.ID != before.ID || after.FleetID != before.FleetID || after.UUID != before.UUID || r.changedFleets[after.FleetID] {
			return place{}, false // the labels may differ in all families
		}
		if r.changedSystem || r.changedReleases[after.RunningRelease] || r.changedReleases[after.OSTarget] || r.changedReleases[after.SupervisorTarget] || !after.Equal(before) {
			r.compare(before, after)
		}
	}
	return previous, true
}

// compare marks the families in which a device has changed.
func (r *runs) compare(before, after *balena.Device) {
	previous, current := device{before, r.previous}, device{after, r.current}
	for i := range r.columns {
		c := &r.columns[i]
		if c.changed {
			continue
		}
		r.out.extra, r.out.text = c.own, r.out.text[:0]
		c.samples(&previous, &r.out)
		n := len(r.out.text)
		c.samples(&current, &r.out)
		c.changed = !bytes.Equal(r.out.text[:n], r.out.text[n:])
	}
}
