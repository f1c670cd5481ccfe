package account

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// maxFleetsInFilter keeps URLs far below the 16 KB that the server takes. Of more chosen fleets than that, all
// accessible devices are read and sorted out here.
const maxFleetsInFilter = 1200

// readDevices reads the devices of all chosen fleets: those that changed, or all.
func (f *refresh) readDevices(ctx context.Context) error {
	reading := &f.snapshot.Reading
	reading.Kind = balena.Full
	if len(f.snapshot.Fleets) == 0 || f.nothingCounted() && f.before.devices.Len() == 0 {
		return nil
	}
	var err error
	if reading.Why = f.whyFull(); reading.Why != "" {
		err = f.readAll(ctx)
	} else if err = f.readChanges(ctx); err == nil {
		f.trust.changes.answered()
	} else {
		err = f.readAllInstead(ctx, err)
	}
	if err != nil {
		return err
	}
	switch {
	case f.config.FullSweepInterval == 0:
	case f.trust.changes.reason != nil: // until the server has proved otherwise
		reading.Distrust = f.trust.changes.reason
	case f.after.clock.Server.IsZero():
		reading.Distrust = errNoDate
	}
	return nil
}

func (f *refresh) nothingCounted() bool {
	for _, n := range f.counted {
		if n > 0 {
			return false
		}
	}
	return true
}

// fullIsDue reports whether a full refresh is due, whatever the server says.
func (f *refresh) fullIsDue() bool {
	return f.before.full.IsZero() || f.snapshot.Time.Sub(f.before.full) >= f.config.FullSweepInterval
}

// whyFull returns why all devices are to be read, empty when it is enough to read those that changed.
func (f *refresh) whyFull() string {
	b := &f.before
	switch {
	case f.config.FullSweepInterval == 0:
		return "incremental refreshes are off"
	case b.full.IsZero():
		return "first refresh"
	case !f.trust.changes.asks(f.snapshot.Time):
		return f.trust.changes.reason.Error()
	case f.fullIsDue():
		return "full refresh due"
	case b.horizon.newest == 0:
		return "no device was known"
	case b.token != f.after.token:
		return "token changed"
	case b.asked != f.after.asked:
		return "the server is asked for other fields"
	case f.after.clock.Server.IsZero():
		return errNoDate.Error()
	case !f.clockIsSteady():
		return "the server's clock was set" // which hides what changed since
	}
	for i := range f.snapshot.Fleets {
		// The devices of a fleet that comes within reach have not changed for that.
		fleet := &f.snapshot.Fleets[i]
		if _, known := b.targets[fleet.ID]; !known && f.counted[fleet.ID] > 0 {
			return "a fleet with devices was added: " + fleet.Slug
		}
	}
	return ""
}

// readAllInstead reads all devices after those that changed could not be read, unless the reason for that forbids
// it too.
func (f *refresh) readAllInstead(ctx context.Context, reason error) error {
	problem := api.ProblemOf(reason)
	if ctx.Err() != nil || problem == api.RateLimited {
		return reason
	}
	f.trust.changes.failed(reason, f.retry())
	// A server in trouble is not asked for more, but once more. One that goes on failing may be able to list
	// devices and not to find those that changed, or not want the token to look at image installs.
	trouble := problem == api.Unavailable && !errors.Is(reason, api.ErrBlank) || problem == api.Unauthorized
	if trouble && f.trust.changes.failures == 1 {
		return reason
	}
	f.snapshot.Reading.Why = reason.Error()
	return f.readAll(ctx)
}

// deviceFilter is the condition for the devices to read, with path before the names of a device's fields.
func (f *refresh) deviceFilter(path string) string {
	if !f.filtersFleets() {
		return path + "belongs_to__application/any(a:a/" + accessible + ")"
	}
	ids := make([]int64, len(f.snapshot.Fleets))
	for i := range f.snapshot.Fleets {
		ids[i] = f.snapshot.Fleets[i].ID
	}
	return api.InIDs(path+"belongs_to__application", ids)
}

// filtersFleets reports whether devices are asked for by fleet: when fleets are left out, and those that are
// left fit into a URL.
func (f *refresh) filtersFleets() bool {
	o := &f.config.Options
	all := o.Include == nil && o.Exclude == nil && o.ArchivedFleets && !o.Shard.Divided()
	return !all && len(f.snapshot.Fleets) <= maxFleetsInFilter
}

// devicesWith asks for devices within reach for which a condition holds; empty for all.
func (f *refresh) devicesWith(condition string) api.Query[balena.Device] {
	return api.Query[balena.Device]{
		Version: f.after.asked.version, Resource: "device",
		Fields: wanted(f, deviceFields), Filter: api.And(f.deviceFilter(""), condition), Blank: unknownDevice,
		ID:       func(row *balena.Device) int64 { return row.ID },
		PageSize: f.config.PageSize,
		// As many may be added while they are read as there are; more is no account but a server that makes them up.
		Limit: 2*f.reachable + f.config.PageSize,
	}
}

// settle makes a device of the snapshot out of a row, given what was known of it, which may be nil. It returns
// false for a device of no fleet, or of one that was not chosen or not there a moment ago.
func (f *refresh) settle(row, was *balena.Device) (chosen bool, err error) {
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
		// What is attached to the device is read later, or stands in for what can't be.
		row.Attachments = was.Attachments
	}
	if slug, known := f.parts.deviceTypes.value[row.TypeID]; known {
		row.Type = slug
	} else {
		row.Type = f.typeSlugs[row.TypeID]
	}
	if f.after.asked.version == balena.V6 {
		inWordsOfV7(row)
	}
	row.TargetRelease = cmp.Or(row.PinnedRelease, fleet.TargetRelease)
	return true, nil
}
