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
// families in which one of its devices changed are rendered again. Steady families, which rarely change, are rendered
// in long runs, several runs at a time. This makes the page smaller. A change of a single device then costs more, but
// such changes are rare.

// runs renders the devices of a snapshot.
type runs struct {
	page        *exposition.Builder
	columns     []column
	stretches   []stretch[device] // one for each run of a long run
	now, before *view
	places      map[int64]place // places of the runs of the previous snapshot, by the ID of their first device
	long        []int           // number of runs in each long run of the previous snapshot
	// refounded are the fleets in which the lines of devices differ from before, reworded the releases with another commit or
	// version.
	refounded, reworded map[int64]bool

	text []byte
	out  samples // without the labels of the device
}

// column is a family of devices on the page.
type column struct {
	family[device]
	index                     int  // of the family on the page
	changed, changedInLongRun bool // in the current run, in the current long run
}

// place is the position of a run on the previous page: the number of its piece in families that are not steady, and of its
// long run in steady families, both counted from 0.
type place struct {
	run          *balena.Run
	number, long int
}

// newRuns returns a renderer for the devices of a view. before may be nil.
func newRuns(now, before *view, page *exposition.Builder) *runs {
	r := &runs{page: page, now: now}
	// The lines of all devices depend on these fields.
	if before != nil && before.CloudFields == now.CloudFields && before.APIVersion == now.APIVersion &&
		slices.Equal(before.DeviceTagKeys, now.DeviceTagKeys) {
		r.compareWith(before)
	}
	return r
}

// add adds a table. first is the index of its first family on the page.
func (r *runs) add(t *table[device], first int) {
	for i, f := range t.families {
		r.columns = append(r.columns, column{family: f, index: first + i})
	}
	if r.stretches == nil {
		r.stretches = make([]stretch[device], maxLongRun)
		for i := range r.stretches {
			r.stretches[i] = t.newStretch()
		}
	}
}

// compareWith records the runs of the previous snapshot, and the differences in its fleets and releases.
func (r *runs) compareWith(before *view) {
	r.before = before
	r.places = make(map[int64]place)
	for _, stripe := range before.Devices.Stripes() {
		for long := range longRuns(stripe) {
			for _, run := range long {
				r.places[run.Devices[0].ID] = place{run, len(r.places), len(r.long)}
			}
			r.long = append(r.long, len(long))
		}
	}
	r.refounded, r.reworded = map[int64]bool{}, map[int64]bool{}
	for id, was := range r.before.byID {
		if is := r.now.byID[id]; is == nil || is.Slug != was.Slug || is.Archived != was.Archived || is.Maintenance != was.Maintenance {
			r.refounded[id] = true
		}
	}
	for _, releases := range []map[int64]balena.Release{before.Releases, r.now.Releases} {
		for id := range releases {
			was, is := before.Releases[id], r.now.Releases[id]
			if was.Commit != is.Commit || was.Version != is.Version {
				r.reworded[id] = true
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
	for i, stripe := range r.now.Devices.Stripes() {
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
		was, known := -1, 0 // the previous long run of these runs, and how many of them it contained
		for i := range r.columns {
			r.columns[i].changedInLongRun = false
		}
		for i, run := range long {
			devices := stretches[i].subjects[:0]
			for _, d := range run.Devices {
				devices = append(devices, device{d, r.now})
			}
			stretches[i].begin(devices)
			before, ok := r.diff(run)
			if ok && (i == 0 || before.long == was) {
				was = before.long
				known++
			}
			for j := range r.columns {
				c := &r.columns[j]
				if c.steady {
					c.changedInLongRun = c.changedInLongRun || c.changed
				} else {
					r.put(c, ok && !c.changed, before.number, stretches[i:i+1])
				}
			}
		}
		same := known == len(long) && known == r.long[was]
		for j := range r.columns {
			if c := &r.columns[j]; c.steady {
				r.put(c, same && !c.changedInLongRun, was, stretches)
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
// false if the previous page did not have the run, or had it with other devices.
func (r *runs) diff(run *balena.Run) (place, bool) {
	was, known := r.places[run.Devices[0].ID]
	if !known || len(was.run.Devices) != len(run.Devices) {
		return was, false
	}
	for i := range r.columns {
		r.columns[i].changed = false
	}
	if was.run == run && len(r.refounded)+len(r.reworded) == 0 {
		return was, true
	}
	for i, is := range run.Devices {
		was := was.run.Devices[i]
		if is.ID != was.ID || is.FleetID != was.FleetID || is.UUID != was.UUID || r.refounded[is.FleetID] {
			return place{}, false // the labels may differ in all families
		}
		if r.reworded[is.RunningRelease] || r.reworded[is.OSTarget] || r.reworded[is.SupervisorTarget] || !is.Equal(was) {
			r.compare(was, is)
		}
	}
	return was, true
}

// compare marks the families in which a device has changed.
func (r *runs) compare(was, is *balena.Device) {
	before, now := device{was, r.before}, device{is, r.now}
	for i := range r.columns {
		c := &r.columns[i]
		if c.changed {
			continue
		}
		r.out.extra, r.out.text = c.labels, r.out.text[:0]
		c.samples(&before, &r.out)
		n := len(r.out.text)
		c.samples(&now, &r.out)
		c.changed = !bytes.Equal(r.out.text[:n], r.out.text[n:])
	}
}
