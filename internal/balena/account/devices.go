// SPDX-License-Identifier: Apache-2.0

package account

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// maxFleetsInFilter keeps URLs far below the server's limit of 16 KB. If more fleets are selected, all
// accessible devices are read and filtered here.
const maxFleetsInFilter = 1200

// readDevices reads the devices of all selected fleets: those that changed, or all.
func (f *refresh) readDevices(ctx context.Context) error {
	reading := &f.snapshot.Reading
	reading.Kind = balena.Full
	defer func() {
		reading.Mode, reading.Reason = f.mode()
		if reading.Mode == balena.Everything && reading.Reason != nil {
			reading.Disabled = disabledBy(reading.Reason)
		}
	}()
	if len(f.snapshot.Fleets) == 0 || total(f.counted) == 0 && f.before.devices.Len() == 0 {
		return nil // There is no fleet, or no device now nor before: nothing has to be read.
	}
	if reading.Why = f.whyFull(); reading.Why != "" {
		return f.readAllDevices(ctx)
	}
	return f.readChangedDevices(ctx)
}

// whyFull returns the reason why all devices must be read, or "" if reading the changed devices is enough.
func (f *refresh) whyFull() string {
	b := &f.before
	switch {
	case f.config.FullRefreshInterval == 0:
		return "incremental refreshes are off"
	case b.full.IsZero():
		return "first refresh"
	case f.trust.modifiedAtErr != nil:
		return f.trust.modifiedAtErr.Error()
	case !f.trust.consistency.usable(f.snapshot.Time):
		return f.trust.consistency.reason.Error()
	case !f.trust.devices.usable(f.snapshot.Time):
		return f.trust.devices.reason().Error()
	case f.snapshot.Time.Sub(b.full) >= f.config.FullRefreshInterval:
		return "full refresh due"
	case b.horizon.newest == 0:
		return "no device was known"
	case b.token != f.after.token:
		return "token changed"
	case b.asked != f.after.asked:
		return "the server is asked for other fields"
	case f.after.clock.Server.IsZero():
		return errNoDate.Error()
	case drifted(b.clock, f.after.clock):
		return "the server's clock was set" // this hides changes
	}
	for i := range f.snapshot.Fleets {
		// The devices of a fleet that comes within reach have not changed.
		fleet := &f.snapshot.Fleets[i]
		if _, known := b.fleets[fleet.ID]; !known && f.counted[fleet.ID] > 0 {
			return "a fleet with devices was added: " + fleet.Slug
		}
	}
	return ""
}

// readChangedDevices reads the devices that changed with the best query that the server answers, or all devices if it
// answers none:
//
//	the query is                what follows                         if it was so in the last refresh, too
//	answered                    the changes are used, or everything is read if they cannot be used
//	canceled, or rate limited   the refresh fails                    the refresh fails
//	unavailable, unauthorized   the refresh fails                    the next query is used
//	refused                     everything is read                   the next query is used
//
// A failing server may be able to list all devices, but not to search for changes, or the token may have no access to image
// installs. After the last query, or if another query has failed in this refresh, everything is read.
func (f *refresh) readChangedDevices(ctx context.Context) error {
	var failed error // set by the first query below, because whyFull has found one that may be used
	for rung := range f.trust.devices {
		query := &f.trust.devices[rung]
		if !query.usable(f.snapshot.Time) {
			continue
		}
		err := f.readChanges(ctx, rung)
		problem := api.ProblemOf(err)
		switch {
		case ctx.Err() != nil || problem == api.RateLimited:
			return err
		case problem == "" || isInconsistent(err):
			query.answered()
			return f.orReadAllDevices(ctx, err)
		}
		query.failed(err, f.retry())
		temporary := problem == api.Unavailable && !errors.Is(err, api.ErrEmptyBody) || problem == api.Unauthorized
		if temporary && query.failures == 1 && failed == nil {
			return err
		}
		if failed = err; query.reason == nil {
			break
		}
	}
	f.snapshot.Reading.Why = failed.Error()
	return f.readAllDevices(ctx)
}

// orReadAllDevices reads all devices if the changes cannot be used. reason is nil if they can.
func (f *refresh) orReadAllDevices(ctx context.Context, reason error) error {
	switch {
	case reason == nil:
		f.trust.consistency.answered()
		return nil
	case !errors.Is(reason, errVeryMany):
		f.trust.consistency.failed(reason, f.retry())
	}
	f.snapshot.Reading.Why = reason.Error()
	return f.readAllDevices(ctx)
}

// deviceFilter returns the condition for the devices to read, with path before the names of fields.
func (f *refresh) deviceFilter(path string) string {
	if !f.filtersFleets() {
		return path + "belongs_to__application/any(a:a/" + accessible + ")"
	}
	return api.InIDs(path+"belongs_to__application", slices.Sorted(maps.Keys(f.after.fleets)))
}

// filtersFleets reports whether queries for devices name the fleets: if some fleets are left out, and the remaining
// ones fit into a URL.
func (f *refresh) filtersFleets() bool {
	o := &f.config.Options
	all := o.Include == nil && o.Exclude == nil && o.ArchivedFleets && !o.Shard.Divided()
	return !all && len(f.snapshot.Fleets) <= maxFleetsInFilter
}

// devicesWith returns the query for devices within reach that match a condition; empty for all.
func (f *refresh) devicesWith(condition string) api.Query[balena.Device] {
	// The number of devices may double during the query.
	q := query(f, "device", wanted(f, deviceFields), api.And(f.deviceFilter(""), condition), 2*f.reachable+f.config.PageSize)
	q.Initial = nullDevice // fields that are not requested are null, too
	return q
}

// settle completes a row as a device of the snapshot. was is the device in the previous snapshot, or nil. If both are
// equal, settle returns was. It returns nil, and remembers that there are devices outside, for a device without a fleet, or of a
// fleet that is not selected or was not listed.
func (f *refresh) settle(row, was *balena.Device) (*balena.Device, error) {
	if row.UUID == "" {
		return nil, fmt.Errorf("device %d has no uuid", row.ID)
	}
	fleet, ok := f.after.fleets[row.FleetID]
	if !ok {
		f.after.outside = true
		return nil, nil
	}
	if was != nil && was.UUID == row.UUID {
		// Equal texts of both snapshots share their memory.
		row.UUID = was.UUID
		if was.Name == row.Name {
			row.Name = was.Name
		}
		// Attachments are read later. If that fails, these are used.
		row.Attachments, row.Maintenance = was.Attachments, was.Maintenance
		if f.config.Services {
			row.Installs = was.Installs
		}
	}
	if slug, known := f.parts.deviceTypes.value[row.TypeID]; known {
		row.Type = slug
	} else {
		row.Type = f.after.typeSlugs[row.TypeID]
	}
	if f.after.asked.version == balena.V6 {
		inWordsOfV7(row)
	}
	if row.UpdateProgress == row.ProvisioningProgress {
		row.UpdateProgress = balena.Null // it is not that of the application
	}
	row.TargetRelease = cmp.Or(row.PinnedRelease, fleet.TargetRelease)
	if was != nil && was.Equal(row) {
		return was, nil
	}
	return new(*row), nil // a copy, because api.List reuses row
}
