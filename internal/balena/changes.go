package balena

import (
	"context"
	"fmt"
	"maps"
	"math"
	"time"
)

// Between full sweeps a refresh asks only for devices that changed. The server tells them by modified_at,
// which a trigger of its database sets on every row that is written, to the time at which the transaction
// began. Devices that went it does not tell; they show in the counts of the fleets, and then in the list of
// ids. What follows from the fleet, a device's target release, needs no asking.
//
// Wherever the answers don't fit together, the refresh becomes a full sweep.

const (
	// overlap, in milliseconds, is how long a transaction may take until its rows are seen: each refresh asks
	// for so much of the time before the newest change as well. The server stops statements after 60 s.
	overlap = Instant(60_000)
	// idsPerPage is how many ids are asked for at a time: there is little to a row of them.
	idsPerPage = 100_000
	// maxByID is how many devices are asked for by their ids at most, which keeps URLs far below the 16 KB that
	// the server takes.
	maxByID = 200
)

// baseline is what a refresh that reads changes builds on: what the last refresh knew.
type baseline struct {
	devices Devices
	// counts are the numbers of devices by the ID of the fleet, targets the fleets' target releases.
	counts    map[int64]int
	targets   map[int64]int64
	typeSlugs map[int64]string
	// newest is the time up to which changes are known, by the server's clock: 0 when nothing is.
	newest Instant
	// theirs and ours are what the server's clock and ours said.
	theirs, ours time.Time
	// swept is when the last full sweep began.
	swept time.Time
	token string
	can   capabilities
}

// readChanges reads the devices that changed since the last refresh. An error of type odd says that they don't
// add up.
func (f *fetch) readChanges(ctx context.Context) error {
	b := &f.baseline
	c := changes{fleets: f.fleets, retargeted: map[int64]bool{}, since: b.newest - overlap}
	for id, target := range b.targets {
		fleet := f.fleets[id]
		if fleet == nil {
			c.vanished = true
		} else if fleet.TargetRelease != target {
			c.retargeted[id] = true
		}
	}
	question, err := f.changesQuestion(&c)
	if err != nil {
		return err
	}
	newest := b.newest
	counts := maps.Clone(b.counts)
	known := cursor{runs: b.devices.runs}
	came := map[string]bool{}
	rows := 0
	p := pages[Device]{
		resource: "device",
		filter:   question,
		fields:   wanted(deviceFields, &f.config.Options, f.can),
		blank:    unknownDevice,
		id:       func(row *Device) int64 { return row.ID },
		each: func(row *Device) error {
			rows++
			was := known.seek(row.ID)
			chosen, err := f.settle(row, was)
			if err != nil {
				return err
			}
			if was != nil {
				counts[was.FleetID]--
			}
			if !chosen {
				if was != nil {
					c.left = append(c.left, row.ID)
				}
				return nil
			}
			counts[row.FleetID]++
			newest = max(newest, row.Modified)
			if was == nil {
				f.came = append(f.came, row.ID)
				came[row.UUID] = true
			} else if was.UUID != row.UUID {
				return odd(fmt.Sprintf("device %d has another uuid than before", row.ID))
			}
			if was == nil || !was.Equal(row) {
				was = new(*row) // the row is read over
			}
			c.read = append(c.read, was)
			return nil
		},
	}
	if err := p.read(ctx, f.Client); err != nil {
		return err
	}
	if len(came) < len(f.came) {
		return odd("two devices that came have the same uuid")
	}
	c.came = came
	if err := f.listUncertain(ctx, &c, counts); err != nil {
		return err
	}
	devices, err := c.merge(b.devices)
	if err != nil {
		return err
	}
	f.went = b.devices.Len()+len(f.came) > devices.Len()
	f.snapshot.Devices = devices
	f.snapshot.Reading.Kind, f.snapshot.Reading.Devices = Changes, rows
	f.newest = newest
	return nil
}

// changesQuestion is the condition for the devices that changed.
func (f *fetch) changesQuestion(c *changes) (string, error) {
	since := c.since.literal()
	changed := "modified_at gt " + since + " or image_install/any(i:i/modified_at gt " + since + ")"
	// How far a device is with an update counts the images of its target release, and is told while it downloads.
	var downloading []int64
	if len(c.retargeted) > 0 {
		for d := range f.baseline.devices.All() {
			if c.retargeted[d.FleetID] && d.PinnedRelease == 0 && !math.IsNaN(d.UpdateProgress) {
				downloading = append(downloading, d.ID)
			}
		}
	}
	switch {
	case len(downloading) > maxByID:
		return "", odd("very many devices were downloading when their fleets were given other targets")
	case len(downloading) > 0:
		changed += " or id in (" + list(downloading) + ")"
	}
	return f.deviceFilter() + " and (" + changed + ")", nil
}

// listUncertain asks for the ids of the devices of those fleets whose number of devices is not as counted.
func (f *fetch) listUncertain(ctx context.Context, c *changes, counts map[int64]int) error {
	var uncertain []int64
	counted := 0
	for i := range f.snapshot.Fleets {
		if fleet := &f.snapshot.Fleets[i]; counts[fleet.ID] != fleet.counted {
			uncertain = append(uncertain, fleet.ID)
			counted += fleet.counted
			c.went += max(counts[fleet.ID]-fleet.counted, 0)
		}
	}
	if len(uncertain) == 0 {
		return nil
	}
	if len(uncertain) > maxFleetsInFilter {
		return odd("devices went or came in very many fleets")
	}
	c.uncertain, c.listed = map[int64]bool{}, map[int64]bool{}
	for _, fleet := range uncertain {
		c.uncertain[fleet] = true
	}
	p := pages[int64]{
		resource: "device",
		filter:   inFleets("", uncertain),
		fields:   record[int64]{{name: "id", set: into((*decoder).integer, func(id *int64) *int64 { return id })}},
		id:       func(id *int64) int64 { return *id },
		each: func(id *int64) error {
			c.listed[*id] = true
			return nil
		},
		complete: func(roomLeft bool) bool { return roomLeft && len(c.listed) >= counted },
		size:     idsPerPage,
	}
	return p.read(ctx, f.Client)
}

// remember keeps what the next refresh builds on, and counts what this one changed.
func (f *fetch) remember() {
	s, b := f.snapshot, &f.baseline
	counts := maps.Clone(b.counts)
	if counts == nil {
		counts = map[int64]int{}
	}
	for was, is := range s.Devices.Differences(b.devices) {
		s.Reading.Changed++
		if was != nil {
			counts[was.FleetID]--
		}
		if is != nil {
			counts[is.FleetID]++
		}
	}
	maps.DeleteFunc(counts, func(_ int64, n int) bool { return n == 0 })
	swept := s.Time
	if s.Reading.Kind == Changes {
		swept = b.swept
	}
	*b = baseline{
		devices: s.Devices, newest: f.newest, theirs: f.theirs, ours: f.ours, swept: swept,
		counts: counts, targets: map[int64]int64{}, typeSlugs: f.typeSlugs, token: f.token, can: f.can,
	}
	for i := range s.Fleets {
		b.targets[s.Fleets[i].ID] = s.Fleets[i].TargetRelease
	}
}

// odd is why changes don't add up.
type odd string

func (o odd) Error() string { return string(o) }

// changes is what is known to have changed since the devices were read last.
type changes struct {
	// read are the devices that were read, in ascending order of ID; came are the uuids of those among them
	// that were not known.
	read []*Device
	came map[string]bool
	// left are the IDs of devices that were read and are of no chosen fleet any more.
	left []int64
	// fleets are the chosen fleets by ID, retargeted those of them that have another target release.
	fleets     map[int64]*Fleet
	retargeted map[int64]bool
	// vanished is set if a fleet is not among them any more.
	vanished bool
	// uncertain are the fleets of which devices went or came unnoticed; listed has the IDs of all devices
	// that they have. went is how many devices went, by the fleets' counts.
	uncertain, listed map[int64]bool
	went              int
	// since is the time of which the server told every change.
	since Instant
}

// merge applies the changes to the devices that were known. An error of type odd says that they don't add up.
func (c *changes) merge(known Devices) (Devices, error) {
	gone := map[int64]bool{}
	for _, id := range c.left {
		gone[id] = true
	}
	// What concerns devices that were not read.
	others := len(c.came)+len(c.left)+len(c.retargeted)+len(c.uncertain) > 0 || c.vanished
	var put []*Device
	missing := 0
	rest := c.read
	for i, run := range known.runs {
		var read []*Device
		read, rest = known.split(i, rest)
		if len(read) == 0 && !others && run.newest <= c.since {
			continue
		}
		for _, d := range run.Devices {
			for len(read) > 0 && read[0].ID < d.ID {
				put, read = append(put, read[0]), read[1:]
			}
			now, told := d, len(read) > 0 && read[0].ID == d.ID
			if told {
				now, read = read[0], read[1:]
			}
			fleet := c.fleets[now.FleetID]
			switch {
			case gone[d.ID]:
			case fleet == nil:
				gone[d.ID] = true
			case c.uncertain[now.FleetID] && !c.listed[d.ID]:
				gone[d.ID] = true
				missing++
			case c.came[d.UUID]:
				return Devices{}, odd(fmt.Sprintf("device %d has the uuid of one that came", d.ID))
			case told:
				if now != d {
					put = append(put, now)
				}
			case d.Modified > c.since:
				return Devices{}, odd(fmt.Sprintf("device %d changed, and the server does not tell so any more", d.ID))
			case c.retargeted[d.FleetID] && d.PinnedRelease == 0 && d.TargetRelease != fleet.TargetRelease:
				now = new(*d)
				now.TargetRelease = fleet.TargetRelease
				put = append(put, now)
			}
		}
		put = append(put, read...)
	}
	put = append(put, rest...)
	if missing > c.went { // one of them may have moved to another fleet just now
		return Devices{}, odd(fmt.Sprintf("%d devices are missing, of which %d went by the count", missing, c.went))
	}
	var isGone func(*Device) bool
	if len(gone) > 0 {
		isGone = func(d *Device) bool { return gone[d.ID] }
	}
	devices := known.with(put, isGone)
	for id := range c.listed {
		if devices.Find(id) == nil {
			return Devices{}, odd(fmt.Sprintf("device %d came, and the server does not tell so", id))
		}
	}
	return devices, nil
}

// literal writes a time into a query.
func (i Instant) literal() string {
	return "datetime'" + time.UnixMilli(int64(i)).UTC().Format("2006-01-02T15:04:05.000Z") + "'"
}
