package balena

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/http"
	"slices"
)

// A full sweep reads every device. It is what a refresh that reads changes builds on, and is held against.

// sweep reads the devices of all chosen fleets, of which the server counts so many.
func (f *fetch) sweep(ctx context.Context, counted int) error {
	err := f.askForDevices(ctx, counted)
	if f.can.cloud && f.snapshot.Reading.Devices > 0 {
		f.cloudSure = true // be it that a later page failed
	}
	if f.can.cloud && !f.cloudSure && errors.Is(err, errBlank) {
		// The server may not know the fields that only balenaCloud has, or just be in trouble.
		f.can.cloud = false
		if err = f.askForDevices(ctx, counted); err != nil {
			f.can.cloud = true
		}
	}
	return err
}

// fewDevices may disappear from any account while it is read.
const fewDevices = 2

func (f *fetch) askForDevices(ctx context.Context, counted int) error {
	s := f.snapshot
	s.Reading.Devices = 0
	m := merger{old: f.baseline.devices.runs}
	known := cursor{runs: m.old}
	proof := f.newProof()
	devices := 0
	var uuids []uint64 // hashes
	p := pages[Device]{
		resource: "device",
		filter:   f.deviceFilter(),
		fields:   wanted(deviceFields, &f.config.Options, f.can),
		blank:    unknownDevice,
		id:       func(row *Device) int64 { return row.ID },
		each: func(row *Device) error {
			s.Reading.Devices++
			was := known.seek(row.ID)
			chosen, err := f.settle(row, was)
			if err != nil || !chosen {
				return err
			}
			proof.see(was, row)
			devices++
			uuids = append(uuids, maphash.String(uuidSeed, row.UUID))
			if was == nil || !was.Equal(row) {
				was = new(*row) // the row is read over
			}
			m.add(was)
			return nil
		},
		// A page with room left is no end as long as devices are missing: a proxy or a server may have a limit of its
		// own. And as many as were counted are all there are, which saves asking for a page to find it empty; unless
		// something was written since they were counted, for a device may have come then.
		complete: func(roomLeft bool) bool { return devices >= counted && (roomLeft || proof.newest < proof.now) },
	}
	if err := p.read(ctx, f.Client); err != nil {
		return err
	}
	// Devices are deleted and moved while the pages are read. All of them, or more than a few and a tenth,
	// is no coincidence but a list that is not whole.
	if missing := counted - devices; missing == counted || missing > fewDevices+counted/10 {
		return f.untrue("the server counts %d devices and lists %d", counted, devices)
	}
	// A series for each of two devices of one uuid would be the same series twice.
	slices.Sort(uuids)
	for i := 1; i < len(uuids); i++ {
		if uuids[i] == uuids[i-1] {
			return f.untrue("two devices have the same uuid")
		}
	}
	s.Devices = m.devices()
	f.newest = proof.newest
	switch err := proof.verdict(); {
	case err != nil:
		f.distrust = distrust{err: err, until: s.Time.Add(relearn), standsStill: true}
	case f.distrust.standsStill:
		if proof.moved && proof.late == nil && !s.Time.Before(f.distrust.until) {
			f.distrust = distrust{}
		}
	case proof.late != nil:
		f.distrust = distrust{err: proof.late, until: f.untilNextSweep()}
	}
	return nil
}

// uuidSeed makes hashes of uuids which nobody can prepare to be alike.
var uuidSeed = maphash.MakeSeed()

// untrue is the error of a list of devices that can't be true.
func (f *fetch) untrue(format string, args ...any) error {
	return &Error{
		Problem: BadAnswer, Request: "GET /" + string(f.can.version) + "/device", Status: http.StatusOK,
		Err: fmt.Errorf(format, args...),
	}
}

// settle makes a device of the snapshot out of a row, given what was known of it, which may be nil. It returns
// false for a device of no fleet, or of one that was not chosen or not there a moment ago.
func (f *fetch) settle(row, was *Device) (chosen bool, err error) {
	if row.UUID == "" {
		return false, fmt.Errorf("device %d has no uuid", row.ID)
	}
	fleet, ok := f.fleets[row.FleetID]
	if !ok {
		return false, nil
	}
	if was != nil && was.UUID == row.UUID {
		// What both snapshots say in the same words is in memory once.
		row.UUID = was.UUID
		if was.Name == row.Name {
			row.Name = was.Name
		}
		// What belongs to the device is read later, or stands in for what can't be.
		row.Belongings = was.Belongings
	}
	if slug, known := f.deviceTypes.value[row.TypeID]; known {
		row.Type = slug
	} else {
		row.Type = f.typeSlugs[row.TypeID]
	}
	if f.can.version == V6 {
		row.speakV7()
	}
	row.TargetRelease = cmp.Or(row.PinnedRelease, fleet.TargetRelease)
	return true, nil
}
