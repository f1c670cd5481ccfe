// SPDX-License-Identifier: Apache-2.0

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
	defer func() {
		reading.Mode, reading.Distrust = f.mode()
		if reading.Mode == balena.Everything && reading.Distrust != nil {
			reading.Disabled = disabledBy(reading.Distrust)
		}
	}()
	if len(f.snapshot.Fleets) == 0 || f.nothingCounted() && f.before.devices.Len() == 0 {
		return nil
	}
	if reading.Why = f.whyFull(); reading.Why != "" {
		return f.readAll(ctx)
	}
	return f.readIncrementally(ctx)
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
	return f.before.full.IsZero() || f.snapshot.Time.Sub(f.before.full) >= f.config.FullRefreshInterval
}

// whyFull returns why all devices are to be read, empty when it is enough to read those that changed.
func (f *refresh) whyFull() string {
	b := &f.before
	switch {
	case f.config.FullRefreshInterval == 0:
		return "incremental refreshes are off"
	case b.full.IsZero():
		return "first refresh"
	case !f.trust.changes.asks(f.snapshot.Time):
		return f.trust.changes.reason.Error()
	case !f.trust.devices.asks(f.snapshot.Time):
		return f.trust.devices.reason().Error()
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

// readIncrementally reads the devices that changed by the best question that the server answers, and all devices where
// none will do.
func (f *refresh) readIncrementally(ctx context.Context) error {
	var failed error
	for rung := range f.trust.devices {
		question := &f.trust.devices[rung]
		if !question.asks(f.snapshot.Time) {
			continue
		}
		err := f.readChanged(ctx, rung)
		problem := api.ProblemOf(err)
		switch {
		case ctx.Err() != nil || problem == api.RateLimited:
			return err
		case problem == 0 || isInconsistent(err): // an answer, be it that it is of no use
			question.answered()
			return f.orReadAll(ctx, err)
		}
		question.failed(err, f.retry())
		// A server in trouble is not asked for more, but once more. One that goes on failing may be able to list devices
		// and not to find those that changed, or not want the token to look at image installs.
		trouble := problem == api.Unavailable && !errors.Is(err, api.ErrBlank) || problem == api.Unauthorized
		if trouble && question.failures == 1 && failed == nil {
			return err
		}
		failed = err
		if question.reason == nil {
			break // it is asked once more before the next question is
		}
	}
	f.snapshot.Reading.Why = failed.Error()
	return f.readAll(ctx)
}

// orReadAll reads all devices if the changes that were read are of no use, for a reason that is nil if they are.
func (f *refresh) orReadAll(ctx context.Context, reason error) error {
	switch {
	case reason == nil:
		f.trust.changes.answered()
		return nil
	case !errors.Is(reason, errVeryMany):
		f.trust.changes.failed(reason, f.retry())
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
		row.Attachments, row.Maintenance = was.Attachments, was.Maintenance
		if f.config.Services {
			row.Installs = was.Installs
		}
	}
	if slug, known := f.parts.deviceTypes.value[row.TypeID]; known {
		row.Type = slug
	} else {
		row.Type = f.typeSlugs[row.TypeID]
	}
	if f.after.asked.version == balena.V6 {
		inWordsOfV7(row)
	}
	if row.UpdateProgress == row.ProvisioningProgress {
		row.UpdateProgress = balena.Null // it is not that of the application
	}
	row.TargetRelease = cmp.Or(row.PinnedRelease, fleet.TargetRelease)
	return true, nil
}
