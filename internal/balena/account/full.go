// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// A full refresh reads every device. Incremental refreshes build on it.

// readAllDevices reads the devices of all selected fleets. If the list differs from the server's count, it is read once more:
// devices may be deleted or moved while they are read, and a list may be cut off. If it differs again, the refresh
// fails.
func (f *refresh) readAllDevices(ctx context.Context) error {
	f.askCloudAgain(ctx)
	err := f.listDevices(ctx)
	switch {
	case errors.Is(err, api.ErrTooMany):
		// Very many devices may have been added just now, or belong to applications that are not fleets.
		if err := f.countAgain(ctx); err != nil {
			return err
		}
		if f.reachable, err = api.Count(ctx, f.client, f.after.asked.version, "device", f.deviceFilter("")); err != nil {
			return err
		}
		fallthrough
	case isInconsistent(err):
		err = f.listDevices(ctx)
	}
	if isInconsistent(err) {
		return f.badList("device", "%w, twice in a row", err)
	}
	return err
}

// listDevices reads all devices once. It returns an inconsistencyError if the list is incomplete or has a device twice.
func (f *refresh) listDevices(ctx context.Context) error {
	s := f.snapshot
	s.Reading.Devices = 0
	before := f.before.devices
	if before.Len() == 0 {
		before = balena.Striped(f.config.Stripes)
	}
	devices := balena.NewBuilder(before)
	proof := f.newProof()
	listed := map[int64]int{}
	var uuids []uint64 // hashes
	f.after.outside = false
	err := list(ctx, f, f.devicesWith(""), func(row *balena.Device) error {
		s.Reading.Devices++
		was := devices.Known(row.ID)
		is, err := f.settle(row, was)
		if err != nil || is == nil {
			return err
		}
		proof.see(was, is)
		listed[is.FleetID]++
		uuids = append(uuids, maphash.String(uuidSeed, is.UUID))
		devices.Add(is)
		return nil
	})
	if f.after.asked.cloud && s.Reading.Devices > 0 {
		f.trust.cloud.saw(true) // even if a later page failed
	}
	if errors.Is(err, api.ErrEmptyBody) && f.after.asked.cloud && s.Reading.Devices == 0 {
		return f.probeCloud(ctx, err)
	}
	if err != nil {
		return err
	}
	if err := f.isWhole(ctx, listed); err != nil {
		return err
	}
	// Two devices with the same UUID would have the same series.
	slices.Sort(uuids)
	for i := 1; i < len(uuids); i++ {
		if uuids[i] == uuids[i-1] {
			return inconsistencyError("two devices have the same uuid")
		}
	}
	s.Devices = devices.Devices()
	f.after.horizon = f.horizonAfter(proof.newest)
	f.trust.proved(proof, s.Time)
	return nil
}

// uuidSeed is random, so that nobody can prepare UUIDs whose hashes collide.
var uuidSeed = maphash.MakeSeed()

// isWhole compares the number of listed devices of each fleet with the server's count, and returns an
// inconsistencyError if the list is incomplete. The counts were read before the list. If they differ from it, they are read
// again: devices may have been added or removed meanwhile, so a number between both counts is correct.
func (f *refresh) isWhole(ctx context.Context, listed map[int64]int) error {
	differs := func(lists ...map[int64]int) bool {
		for id := range f.after.fleets {
			least, most := lists[0][id], lists[0][id]
			for _, l := range lists {
				least, most = min(least, l[id]), max(most, l[id])
			}
			if n := listed[id]; n < least || n > most {
				return true
			}
		}
		return false
	}
	if !differs(f.counted) {
		return nil
	}
	before := f.counted
	if err := f.countAgain(ctx); err != nil {
		return err
	}
	if !differs(before, f.counted) {
		return nil
	}
	return inconsistencyError(fmt.Sprintf("the server counts %d devices and lists %d", total(f.counted), total(listed)))
}

func total(counts map[int64]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// probeCloud determines why a list was answered with err, an empty 500: because the server lacks the fields that only
// balenaCloud has, or because it fails. If the fields are missing, it reads the list without them.
func (f *refresh) probeCloud(ctx context.Context, err error) error {
	lacks, probeErr := f.lacksCloud(ctx)
	if probeErr != nil || !lacks {
		return err
	}
	f.trust.cloud.saw(false)
	f.trust.cloudAsked = f.snapshot.Time
	if !f.trust.cloud.holds(false) {
		return err
	}
	f.after.asked.cloud = false
	return f.listDevices(ctx)
}

// askCloudAgain checks whether a server that lacked the fields of balenaCloud has them now.
func (f *refresh) askCloudAgain(ctx context.Context) {
	now := f.snapshot.Time
	if !f.trust.cloud.holds(false) || now.Sub(f.trust.cloudAsked) < relearn {
		return
	}
	if lacks, err := f.lacksCloud(ctx); err == nil {
		f.trust.cloud.saw(!lacks)
		if f.trust.cloud.against == 0 { // otherwise the next full refresh checks again
			f.trust.cloudAsked = now
		}
		f.after.asked.cloud = !f.trust.cloud.holds(false)
	}
}

// lacksCloud reads one device without the fields of balenaCloud, and with them: a server that answers only the
// former query lacks them. An error means that the answer is unknown.
func (f *refresh) lacksCloud(ctx context.Context) (lacks bool, err error) {
	ask := func(cloud bool) error {
		before := f.after.asked
		defer func() { f.after.asked = before }()
		f.after.asked.cloud = cloud
		q := f.devicesWith("")
		q.Note, q.PageSize, q.Enough = "probe", 1, 1
		return list(ctx, f, q, func(*balena.Device) error { return nil })
	}
	if err := ask(false); err != nil {
		return false, err
	}
	err = ask(true)
	if errors.Is(err, api.ErrEmptyBody) {
		return true, nil
	}
	return false, err
}
