// SPDX-License-Identifier: Apache-2.0

package account

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// An incremental refresh reads only devices that changed. They are found by modified_at: a trigger of the server's
// database sets it in every row that is written, to the time at which the transaction began. Deleted devices are found by
// the counts of the fleets: if a count differs, the ids of the fleet's devices are listed, and every device that is only
// in the list, or only in the last snapshot, is read by its id. A device that is in the answer exists, possibly in another
// fleet; a device that is not has been removed. The target release of a device follows from its fleet and needs no query.
//
// There are two queries for changes, the rungs of a ladder. The server computes overall_status and overall_progress from
// the image installs of a device, but they depend on them only during a download. If image installs have no modified_at,
// the second query reads the devices that download. Devices that downloaded at the last refresh are read by their ids.
//
// If the answers are inconsistent, everything is read.

// The queries for devices that changed, in the order of [balena.Modes].
const (
	byDevicesAndInstalls = iota
	byDevices
)

const (
	// idsPerPage is the number of rows per page in a list of ids, whose rows are short.
	idsPerPage = 100_000
	// idsPerRequest is the number of rows that one request reads by their ids. It keeps URLs far below the server's limit
	// of 16 KB. maxByID is the number of such rows beyond which a full refresh costs less.
	idsPerRequest = 200
	maxByID       = 5 * idsPerRequest
)

// inconsistencyError reports that changes are inconsistent.
type inconsistencyError string

func (e inconsistencyError) Error() string { return string(e) }

func isInconsistent(err error) bool {
	_, is := errors.AsType[inconsistencyError](err)
	return is
}

// errVeryMany marks changes that cost more to read than a full refresh.
var errVeryMany = errors.New("everything is read, which costs less")

func veryMany(what string) error { return fmt.Errorf("very many devices %s: %w", what, errVeryMany) }

// changes holds the devices that an incremental refresh has read.
type changes struct {
	previous balena.Devices
	rung     int
	// devices are the devices that were read, by ID; nil for a device that is out of reach.
	devices map[int64]*balena.Device
	// idsListed are the fleets whose devices' IDs were listed.
	idsListed map[int64]bool
	// newest is the newest modified_at.
	newest balena.Instant
	rows   int
}

// readChanges reads the devices that changed since the last refresh with the query of a rung. It returns an
// inconsistencyError if they are inconsistent, errVeryMany if there are too many.
func (f *refresh) readChanges(ctx context.Context, rung int) error {
	b := &f.before
	f.after.outside = b.outside
	c := &changes{previous: b.devices, rung: rung, devices: map[int64]*balena.Device{}, idsListed: map[int64]bool{}, newest: b.horizon.newest}
	retargeted := map[int64]bool{} // fleets with another target
	vanished := false              // a fleet is no longer selected
	for id, target := range b.targets {
		switch fleet := f.fleets[id]; {
		case fleet == nil:
			vanished = true
			// Its devices may still be within reach, and the server's counts may include their services and tags.
			f.after.outside = f.after.outside || !f.filtersFleets()
		case fleet.TargetRelease != target:
			retargeted[id] = true
		}
	}
	condition, err := f.changesCondition(rung, retargeted)
	if err != nil {
		return err
	}
	if err := f.take(ctx, c, condition); err != nil {
		return err
	}
	if err := f.readUnresolved(ctx, c); err != nil {
		return err
	}
	if err := f.merge(c, retargeted, vanished); err != nil {
		return err
	}
	f.snapshot.Reading.Kind, f.snapshot.Reading.Devices = balena.Incremental, c.rows
	f.after.horizon = f.horizonAfter(c.newest)
	return nil
}

// changesCondition returns the condition for the devices that changed.
func (f *refresh) changesCondition(rung int, retargeted map[int64]bool) (string, error) {
	since := literal(f.before.horizon.since)
	if rung == byDevices {
		return "(modified_at gt " + since + " or image_install/any(i:i/status eq 'Downloading'))", nil
	}
	changed := "modified_at gt " + since + " or image_install/any(i:i/modified_at gt " + since + ")"
	// The progress of an update counts the images of the target release while the device downloads.
	var downloading []int64
	if len(retargeted) > 0 {
		for d := range f.before.devices.All() {
			if retargeted[d.FleetID] && d.PinnedRelease == 0 && d.UpdateProgress != balena.Null {
				downloading = append(downloading, d.ID)
			}
		}
	}
	switch {
	case len(downloading) > idsPerRequest:
		return "", veryMany("were downloading when their fleets were given other targets")
	case len(downloading) > 0:
		changed += " or " + api.InIDs("id", downloading)
	}
	return "(" + changed + ")", nil
}

// literal writes a time into a query.
func literal(i balena.Instant) string {
	return "datetime'" + time.UnixMilli(int64(i)).UTC().Format("2006-01-02T15:04:05.000Z") + "'"
}

// take reads the devices that match a condition.
func (f *refresh) take(ctx context.Context, c *changes, condition string) error {
	previous := c.previous.Cursor()
	clock, err := api.List(ctx, f.client, f.devicesWith(condition), func(row *balena.Device) error {
		c.rows++
		was := previous.At(row.ID)
		selected, err := f.settle(row, was)
		if err != nil {
			return err
		}
		switch {
		case !selected:
			c.devices[row.ID] = nil
			f.after.outside = true
			return nil
		case was != nil && was.UUID != row.UUID:
			return inconsistencyError(fmt.Sprintf("device %d has another uuid than before", row.ID))
		}
		c.newest = max(c.newest, row.Modified)
		if was == nil || !was.Equal(row) {
			was = new(*row) // a copy, because api.List reuses row
		}
		c.devices[row.ID] = was
		return nil
	})
	if err == nil && !steady(f.after.clock, clock) {
		// Rows written after the clock was set back have a modified_at that is too old.
		return inconsistencyError("the server's clock was set during the refresh")
	}
	return err
}

// added returns the devices that were not known, by UUID.
func (c *changes) added() (map[string]int64, error) {
	added := map[string]int64{}
	for id, is := range c.devices {
		if is == nil || c.previous.Find(id) != nil {
			continue
		}
		if _, twice := added[is.UUID]; twice {
			return nil, inconsistencyError("two devices that were added have the same uuid")
		}
		added[is.UUID] = id
	}
	return added, nil
}

// readUnresolved reads the unresolved devices by their ids until there are none. A device that was read may have moved to
// another fleet, and the count of that fleet has to be compared again.
func (f *refresh) readUnresolved(ctx context.Context, c *changes) error {
	for asked := 0; ; {
		doubtful, err := f.unresolvedIDs(ctx, c)
		if err != nil || len(doubtful) == 0 {
			return err
		}
		if asked += len(doubtful); asked > maxByID {
			return veryMany("were added or removed, or ended a download, without being reported among the changes")
		}
		for ids := range slices.Chunk(doubtful, idsPerRequest) {
			for _, id := range ids {
				c.devices[id] = nil // unless the answer has it
			}
			if err := f.take(ctx, c, api.InIDs("id", ids)); err != nil {
				return err
			}
		}
	}
}

// unresolvedIDs returns the IDs, in ascending order, of devices that must be read by their ids: those that may have been
// removed, and those whose download may have ended without being reported. Each fleet is listed once.
func (f *refresh) unresolvedIDs(ctx context.Context, c *changes) ([]int64, error) {
	counts := maps.Clone(f.before.devicesOf)
	for id, is := range c.devices {
		if was := c.previous.Find(id); was != nil {
			counts[was.FleetID]--
		}
		if is != nil {
			counts[is.FleetID]++
		}
	}
	var fleets []int64
	for i := range f.snapshot.Fleets {
		if id := f.snapshot.Fleets[i].ID; counts[id] != f.counted[id] && !c.idsListed[id] {
			fleets = append(fleets, id)
		}
	}
	if len(fleets) > maxFleetsInFilter {
		return nil, veryMany("were added or removed, in very many fleets")
	}
	listed, err := f.listIDs(ctx, fleets)
	if err != nil {
		return nil, err
	}
	added, err := c.added()
	if err != nil {
		return nil, err
	}
	doubtful := map[int64]bool{}
	for id := range listed {
		if c.previous.Find(id) == nil && c.devices[id] == nil {
			doubtful[id] = true
		}
	}
	uncertain := map[int64]bool{}
	for _, id := range fleets {
		uncertain[id], c.idsListed[id] = true, true
	}
	for id, is := range c.devices {
		if is != nil && uncertain[is.FleetID] && !listed[id] {
			doubtful[id] = true
		}
	}
	if len(uncertain) > 0 || len(added) > 0 || c.rung == byDevices {
		for d := range c.previous.All() {
			if _, read := c.devices[d.ID]; read {
				continue
			}
			_, twice := added[d.UUID] // the device was registered again
			if twice || uncertain[d.FleetID] && !listed[d.ID] || c.rung == byDevices && mayDownload(d) {
				doubtful[d.ID] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(doubtful)), nil
}

// mayDownload reports whether overall_status or overall_progress of a device may be those of an image that it
// downloads.
func mayDownload(d *balena.Device) bool {
	return d.Status == statusUpdating || d.UpdateProgress != balena.Null
}

// listIDs returns the IDs of all devices of some fleets.
func (f *refresh) listIDs(ctx context.Context, fleets []int64) (map[int64]bool, error) {
	listed := map[int64]bool{}
	if len(fleets) == 0 {
		return listed, nil
	}
	q := f.devicesWith("")
	q.Note = "ids"
	q.Fields, q.Filter, q.PageSize = api.Record[balena.Device]{deviceFields[0].Field}, api.InIDs("belongs_to__application", fleets), idsPerPage
	_, err := api.List(ctx, f.client, q, func(row *balena.Device) error {
		listed[row.ID] = true
		return nil
	})
	return listed, err
}

// merge combines the known devices and those that were read to the devices of the snapshot.
// vanished is set if some of them belong to a fleet that is no longer selected.
func (f *refresh) merge(c *changes, retargeted map[int64]bool, vanished bool) error {
	since := f.before.horizon.since
	added, err := c.added()
	if err != nil {
		return err
	}
	f.added = slices.Sorted(maps.Values(added))
	for id, is := range c.devices {
		if is != nil {
			f.reported = append(f.reported, id)
		}
	}
	slices.Sort(f.reported)
	var put []*balena.Device
	for id, is := range c.devices {
		if is == nil {
			vanished = true
		} else if is != c.previous.Find(id) {
			put = append(put, is)
		}
	}
	for _, run := range c.previous.Runs() {
		if run.Newest <= since && len(retargeted) == 0 && len(added) == 0 {
			continue
		}
		for _, d := range run.Devices {
			is, read := c.devices[d.ID]
			if !read {
				is = d
			}
			if is == nil || f.fleets[is.FleetID] == nil {
				continue
			}
			if _, twice := added[is.UUID]; twice {
				return inconsistencyError(fmt.Sprintf("device %d has the uuid of one that was added", d.ID))
			}
			switch fleet := f.fleets[d.FleetID]; {
			case read:
			case d.Modified > since:
				return inconsistencyError(fmt.Sprintf("device %d changed, and the server does not tell so any more", d.ID))
			case retargeted[d.FleetID] && d.PinnedRelease == 0 && d.TargetRelease != fleet.TargetRelease:
				is = new(*d)
				is.TargetRelease = fleet.TargetRelease
				put = append(put, is)
			}
		}
	}
	slices.SortFunc(put, func(a, b *balena.Device) int { return cmp.Compare(a.ID, b.ID) })
	var gone func(*balena.Device) bool
	if vanished {
		gone = func(d *balena.Device) bool {
			is, read := c.devices[d.ID]
			return read && is == nil || !read && f.fleets[d.FleetID] == nil
		}
	}
	f.snapshot.Devices = c.previous.With(put, gone)
	return nil
}
