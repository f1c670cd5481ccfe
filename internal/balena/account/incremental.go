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
// the counts of the fleets: if a count differs, the ids of the fleet's devices are listed. A device that is only in the
// list, or only in the last snapshot, is unresolved (see changes.unresolved for all cases) and read by its id. If the
// answer has the device, it exists, possibly in another fleet; otherwise it was removed. The target release of a device is
// its pin, which is in its row, or that of its fleet.
//
// There are two queries for changes, the rungs of a ladder. The server computes overall_status and overall_progress of a
// device from its image installs during a download, and from nothing else of them. If image installs have no modified_at,
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

// inconsistencyError reports that answers of the server contradict each other, or what is known.
type inconsistencyError string

func (e inconsistencyError) Error() string { return string(e) }

func isInconsistent(err error) bool {
	_, is := errors.AsType[inconsistencyError](err)
	return is
}

// errVeryMany marks changes that cost more to read than a full refresh.
var errVeryMany = errors.New("everything is read, which costs less")

func veryMany(what string) error { return fmt.Errorf("very many devices %s: %w", what, errVeryMany) }

// changes are the devices that an incremental refresh has read so far. All others are as they were in the previous snapshot.
type changes struct {
	previous balena.Devices
	// answers are what the server said about devices, by ID: a present device, or nil for an absent one. It returned an absent
	// device with a fleet that is not selected, or did not return it when it was read by its id.
	answers map[int64]*balena.Device
	// newest is the newest modified_at.
	newest balena.Instant
	rows   int
}

// unread reports whether the server has said nothing about a device.
func (c *changes) unread(id int64) bool {
	_, read := c.answers[id]
	return !read
}

// present and absent report what the server has said about a device. Both return false for a device that is unread.
func (c *changes) present(id int64) bool { return c.answers[id] != nil }
func (c *changes) absent(id int64) bool  { return !c.unread(id) && !c.present(id) }

// readChanges reads the devices that changed since the last refresh with the query of a rung. It returns an
// inconsistencyError if they are inconsistent, errVeryMany if there are too many.
func (f *refresh) readChanges(ctx context.Context, rung int) error {
	b := &f.before
	f.after.outside = b.outside
	retargeted := map[int64]bool{} // fleets with another target
	vanished := false              // a fleet is no longer selected
	for id, was := range b.fleets {
		switch fleet := f.after.fleets[id]; {
		case fleet == nil:
			vanished = true
			// Its devices may still be within reach, and the server's counts may include their services and tags.
			f.after.outside = f.after.outside || !f.filtersFleets()
		case fleet.TargetRelease != was.TargetRelease:
			retargeted[id] = true
		}
	}
	condition, err := f.changesCondition(rung, retargeted)
	if err != nil {
		return err
	}
	c := &changes{previous: b.devices, answers: map[int64]*balena.Device{}, newest: b.horizon.newest}
	if err := f.take(ctx, c, condition); err != nil {
		return err
	}
	added, err := f.readUnresolved(ctx, c, rung)
	if err != nil {
		return err
	}
	if err := c.validate(f.after.fleets, b.horizon.since, added); err != nil {
		return err
	}
	f.snapshot.Devices = c.merge(f.after.fleets, retargeted, vanished)
	f.snapshot.Reading.Kind, f.snapshot.Reading.Devices = balena.Incremental, c.rows
	f.after.horizon = f.horizonAfter(c.newest)
	for id, is := range c.answers {
		if is != nil {
			f.reported = append(f.reported, id)
		}
	}
	slices.Sort(f.reported)
	f.added = slices.Sorted(maps.Values(added))
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
	clock, err := api.List(ctx, f.client, f.devicesWith(condition), func(row *balena.Device) error {
		c.rows++
		was := c.previous.Find(row.ID)
		is, err := f.settle(row, was)
		if err != nil {
			return err
		}
		c.answers[row.ID] = is
		if is == nil {
			return nil
		}
		if was != nil && was.UUID != is.UUID {
			return inconsistencyError(fmt.Sprintf("device %d has another uuid than before", is.ID))
		}
		c.newest = max(c.newest, is.Modified)
		return nil
	})
	if err == nil && drifted(f.after.clock, clock) {
		// Rows written after the clock was set back have a modified_at that is too old.
		return inconsistencyError("the server's clock was set during the refresh")
	}
	return err
}

// readUnresolved reads the unresolved devices by their ids until there are none. A device that was read may have moved to
// another fleet, and the count of that fleet has to be compared again. The ids of each fleet are listed once.
// readUnresolved returns the added devices.
func (f *refresh) readUnresolved(ctx context.Context, c *changes, rung int) (added map[string]int64, err error) {
	listed := map[int64]bool{}
	for asked := 0; ; {
		fleets := f.wrongCounts(c)
		maps.DeleteFunc(fleets, func(id int64, _ bool) bool { return listed[id] })
		maps.Copy(listed, fleets)
		ids, err := f.listIDs(ctx, slices.Sorted(maps.Keys(fleets)))
		if err != nil {
			return nil, err
		}
		if added, err = c.added(); err != nil {
			return nil, err
		}
		unresolved := c.unresolved(fleets, ids, added, rung)
		if len(unresolved) == 0 {
			return added, nil
		}
		if asked += len(unresolved); asked > maxByID {
			return nil, veryMany("were added or removed, or ended a download, without being reported among the changes")
		}
		for some := range slices.Chunk(unresolved, idsPerRequest) {
			for _, id := range some {
				c.answers[id] = nil // unless the answer has it
			}
			if err := f.take(ctx, c, api.InIDs("id", some)); err != nil {
				return nil, err
			}
		}
	}
}

// wrongCounts returns the selected fleets that have another number of devices than the server counts.
func (f *refresh) wrongCounts(c *changes) map[int64]bool {
	fleets, counts := map[int64]bool{}, maps.Clone(f.before.devicesOf)
	for id, is := range c.answers {
		if was := c.previous.Find(id); was != nil {
			counts[was.FleetID]--
		}
		if is != nil {
			counts[is.FleetID]++
		}
	}
	for id, n := range f.counted {
		if counts[id] != n {
			fleets[id] = true
		}
	}
	return fleets
}

// listIDs returns the IDs of all devices of some fleets.
func (f *refresh) listIDs(ctx context.Context, fleets []int64) (map[int64]bool, error) {
	if len(fleets) > maxFleetsInFilter {
		return nil, veryMany("were added or removed, in very many fleets")
	}
	ids := map[int64]bool{}
	if len(fleets) == 0 {
		return ids, nil
	}
	q := f.devicesWith("")
	q.Note = "ids"
	q.Fields, q.Filter, q.PageSize = api.Record[balena.Device]{deviceFields[0].Field}, api.InIDs("belongs_to__application", fleets), idsPerPage
	return ids, list(ctx, f, q, func(row *balena.Device) error {
		ids[row.ID] = true
		return nil
	})
}

// unresolved returns the IDs, in ascending order, of the devices that must be read by their ids:
//
//   - devices of the fleets whose IDs were listed that are only in the list, or not in it;
//   - a known device whose uuid an added one has, because it was registered again;
//   - with the query byDevices, a device whose download may have ended.
func (c *changes) unresolved(fleets, ids map[int64]bool, added map[string]int64, rung int) []int64 {
	unresolved := map[int64]bool{}
	missing := func(d *balena.Device) bool { return fleets[d.FleetID] && !ids[d.ID] }
	for id := range ids {
		if !c.present(id) && c.previous.Find(id) == nil {
			unresolved[id] = true
		}
	}
	for id, is := range c.answers {
		if is != nil && missing(is) {
			unresolved[id] = true
		}
	}
	if len(fleets) > 0 || len(added) > 0 || rung == byDevices {
		for d := range c.previous.All() {
			_, again := added[d.UUID]
			if c.unread(d.ID) && (again || missing(d) || rung == byDevices && mayDownload(d)) {
				unresolved[d.ID] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(unresolved))
}

// mayDownload reports whether overall_status or overall_progress of a device may be those of an image that it
// downloads.
func mayDownload(d *balena.Device) bool {
	return d.Status == statusUpdating || d.UpdateProgress != balena.Null
}

// added returns the devices that were not known, by UUID.
func (c *changes) added() (map[string]int64, error) {
	added := map[string]int64{}
	for id, is := range c.answers {
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

// validate returns an inconsistencyError if the changes contradict the known devices of the fleets, whose changes are
// known up to since.
func (c *changes) validate(fleets map[int64]*balena.Fleet, since balena.Instant, added map[string]int64) error {
	for _, run := range c.previous.Runs() {
		if run.Newest <= since && len(added) == 0 {
			continue
		}
		for _, d := range run.Devices {
			is := cmp.Or(c.answers[d.ID], d)
			if c.absent(d.ID) || fleets[is.FleetID] == nil {
				continue
			}
			if _, twice := added[is.UUID]; twice {
				return inconsistencyError(fmt.Sprintf("device %d has the uuid of one that was added", d.ID))
			}
			if c.unread(d.ID) && d.Modified > since {
				return inconsistencyError(fmt.Sprintf("device %d changed, and the query for changes no longer returns it", d.ID))
			}
		}
	}
	return nil
}

// merge returns the devices of the snapshot: the previous ones with the changes, and with the targets of the retargeted
// fleets. vanished is set if some of them belong to a fleet that is no longer selected.
func (c *changes) merge(fleets map[int64]*balena.Fleet, retargeted map[int64]bool, vanished bool) balena.Devices {
	var put []*balena.Device
	removed := vanished
	for id, is := range c.answers {
		switch {
		case is == nil:
			removed = true
		case is != c.previous.Find(id):
			put = append(put, is)
		}
	}
	if len(retargeted) > 0 {
		for d := range c.previous.All() {
			if retargeted[d.FleetID] && d.PinnedRelease == 0 && c.unread(d.ID) {
				is := new(*d)
				is.TargetRelease = fleets[d.FleetID].TargetRelease
				put = append(put, is)
			}
		}
	}
	slices.SortFunc(put, func(a, b *balena.Device) int { return cmp.Compare(a.ID, b.ID) })
	var gone func(*balena.Device) bool
	if removed {
		gone = func(d *balena.Device) bool { return c.absent(d.ID) || fleets[d.FleetID] == nil }
	}
	return c.previous.With(put, gone)
}
