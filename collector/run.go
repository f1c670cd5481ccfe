package collector

import (
	"bytes"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Devices are rendered run by run, as they lie in a snapshot, and only what changed is: of a run that the
// snapshot before has too, the families in which one of its devices reads otherwise now.

// A Writer takes what [Collector.Render] writes: complete lines of the text format 0.0.4.
type Writer interface {
	// Append adds lines to a family, by its index in [Layout.Headers].
	Append(family int, lines []byte)
	// Run adds a run of devices to all families of the layout that come by runs. before is what the run was
	// called when the snapshot before was written, nil if it wasn't: then all its lines are new. Otherwise
	// those of a family are new if changed says so. lines returns them, valid until the next call.
	Run(key, before any, changed func(family int) bool, lines func(family int) []byte)
}

// Layout says what families there are to write.
type Layout struct {
	// Headers are the lines with which the families begin, in their order. A family without samples has none.
	Headers [][]byte
	// RunsFrom and RunsTo bound the families that come by runs.
	RunsFrom, RunsTo int
}

// Layout returns what families the collector writes.
func (c *Collector) Layout() Layout {
	var l Layout
	for _, g := range c.groups {
		if _, ok := g.(*table[device]); ok && l.RunsTo == 0 {
			l.RunsFrom = len(l.Headers)
		}
		for _, d := range g.descriptions() {
			l.Headers = append(l.Headers, appendHeader(nil, &d))
		}
		if _, ok := g.(*table[device]); ok {
			l.RunsTo = len(l.Headers)
		}
	}
	return l
}

// runs renders the devices of a snapshot.
type runs struct {
	first    int // the index of the first family
	families []family[device]
	stretch  stretch[device]

	now, before *view
	old         map[int64]*balena.Run // by the ID of the first device
	// renamed are the fleets, and reworded the releases, that have other names than before.
	renamed, reworded map[int64]bool

	// changed are the families that changed in the run under way.
	changed []bool
	out     samples // without the device's labels
}

// renderRuns renders the devices. before may be nil.
func renderRuns(tables []*table[device], first int, now, before *view, w Writer) {
	if len(tables) == 0 {
		return
	}
	r := runs{first: first, stretch: tables[0].newStretch(), now: now}
	for _, t := range tables {
		r.families = append(r.families, t.families...)
	}
	r.changed = make([]bool, len(r.families))
	// What all devices' lines depend on.
	if before != nil && before.CloudFields == now.CloudFields && before.APIVersion == now.APIVersion {
		r.compareWith(before)
	}
	var devices []device
	for _, run := range now.Devices.Runs() {
		devices = devices[:0]
		for _, d := range run.Devices {
			devices = append(devices, device{d, now})
		}
		r.stretch.begin(devices)
		if was := r.diff(run); was != nil {
			w.Run(run, was, r.hasChanged, r.lines)
		} else {
			w.Run(run, nil, r.hasChanged, r.lines)
		}
	}
}

// compareWith notes in what the snapshot before differs beside its devices.
func (r *runs) compareWith(before *view) {
	r.before = before
	r.old = make(map[int64]*balena.Run, len(before.Devices.Runs()))
	for _, run := range before.Devices.Runs() {
		r.old[run.Devices[0].ID] = run
	}
	r.renamed, r.reworded = map[int64]bool{}, map[int64]bool{}
	for id, slug := range r.before.slugs {
		if r.now.slugs[id] != slug {
			r.renamed[id] = true
		}
	}
	for _, releases := range []map[int64]Release{before.Releases, r.now.Releases} {
		for id := range releases {
			was, is := before.Releases[id], r.now.Releases[id]
			if was.Commit != is.Commit || was.Version != is.Version {
				r.reworded[id] = true
			}
		}
	}
}

// diff finds out what of the run is to be written anew, and returns the run that it was before; nil if it
// was none.
func (r *runs) diff(run *balena.Run) *balena.Run {
	clear(r.changed)
	was := r.old[run.Devices[0].ID]
	switch {
	case was == nil || len(was.Devices) != len(run.Devices):
		return nil
	case was == run && len(r.renamed)+len(r.reworded) == 0:
		return was
	}
	for i, is := range run.Devices {
		was := was.Devices[i]
		if is.ID != was.ID {
			return nil
		}
		if is.FleetID != was.FleetID || is.UUID != was.UUID || r.renamed[is.FleetID] {
			return nil // it has other labels in all families
		}
		if r.reworded[is.RunningRelease] || r.reworded[is.OSTarget] || r.reworded[is.SupervisorTarget] || !is.Equal(was) {
			r.compare(was, is)
		}
	}
	return was
}

// compare notes the families in which a device reads otherwise than before.
func (r *runs) compare(was, is *Device) {
	before, now := device{was, r.before}, device{is, r.now}
	for i, f := range r.families {
		if r.changed[i] {
			continue
		}
		r.out.extra, r.out.text = f.labels, r.out.text[:0]
		f.samples(&before, &r.out)
		n := len(r.out.text)
		f.samples(&now, &r.out)
		r.changed[i] = !bytes.Equal(r.out.text[:n], r.out.text[n:])
	}
}

func (r *runs) hasChanged(family int) bool { return r.changed[family-r.first] }

// lines writes the run's lines of a family.
func (r *runs) lines(family int) []byte { return r.stretch.lines(&r.families[family-r.first]) }
