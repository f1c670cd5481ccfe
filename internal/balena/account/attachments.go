// SPDX-License-Identifier: Apache-2.0

package account

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// Services and tags are rows of their own that belong to devices. Like devices, all of them are read in a full refresh,
// and those that changed in an incremental one. Their queries have the same condition as those of the devices, so that
// their number can be compared with the server's count.
//
// The count, the devices and the rows are read at different moments. If one row is deleted and another one is added between
// these moments, the number of rows equals the count, and the snapshot keeps the deleted row until the next refresh. The
// rows are counted after the devices are read: rows are removed far more often than devices come within reach, so an
// earlier count would hide more deletions.

// maxRowsPerDevice is the maximum number of services, or of tags, of a device.
const maxRowsPerDevice = 1000

// attachment is a kind of such rows.
type attachment[R any] struct {
	resource string
	fields   api.Record[R]
	// condition is the condition for the rows to read, existing that for rows that are not marked as deleted; both may be
	// empty.
	condition, existing string
	// device returns the ID of the device of a row.
	device func(*R) int64
	// reset removes all such rows from a device, and apply adds, replaces or deletes one. They may change the slices,
	// which the device does not share. apply returns false for a row that can be
	// applied only when all rows are read, such as a tag with a new key.
	reset func(*balena.Attachments)
	apply func(*balena.Attachments, *R) bool
	// count returns the number of such rows of a device.
	count func(*balena.Device) int
	// Tags have a place by their key. choose determines the keys from all rows, by device, before they are applied.
	// chosen reports whether it would choose the same keys from the rows of the devices. Both are nil for services.
	choose func(map[int64][]R) error
	chosen func(balena.Devices) bool
	// finish sets what follows from all rows of a device, which are known or not.
	finish func(d *balena.Device, known bool)
}

// readServices reads the services of the devices.
func (f *refresh) readServices(ctx context.Context) {
	if !f.config.Services {
		return
	}
	attach(ctx, f, balena.PartServices, &f.parts.services, &f.trust.services, attachment[serviceRow]{
		// The row of a removed image stays, with this status.
		resource: "image_install", existing: "status ne 'deleted'", fields: wanted(f, serviceFields),
		device: func(r *serviceRow) int64 { return r.device },
		reset:  func(a *balena.Attachments) { a.Services = nil },
		apply: func(a *balena.Attachments, r *serviceRow) bool {
			a.Services = slices.DeleteFunc(a.Services, func(s balena.Service) bool { return s.ID == r.ID })
			if r.Status != "deleted" {
				i, _ := slices.BinarySearchFunc(a.Services, r.Service, balena.Service.Compare)
				a.Services = slices.Insert(a.Services, i, r.Service)
			}
			return true
		},
		finish: func(d *balena.Device, known bool) {
			d.Installs = ""
			if known && f.config.ServiceSummary {
				d.Installs = balena.NewInstalls(d.Services())
			}
		},
		count: func(d *balena.Device) int { return len(d.Services()) },
	})
}

// The queries for rows that changed.
const (
	byModifiedAt = iota
	// ofReadDevices reads all rows of the devices that were read. Rows of other devices are those of the last time when all
	// rows were read.
	ofReadDevices
)

// errReadAll marks changes of rows that cannot be used, or that cost more to read than all rows.
var errReadAll = errors.New("all rows are read")

// attach reads the rows as a part of the refresh. The value of the part is the time up to which all their changes are known.
// If it fails, the devices keep their rows until these are too old.
func attach[R any](ctx context.Context, f *refresh, name balena.PartName, last *kept[*horizon], queries *ladder, a attachment[R]) {
	value := part(ctx, f, name, last, 0, func(ctx context.Context) (*horizon, error) {
		if f.snapshot.Devices.Len() == 0 {
			return &horizon{}, nil
		}
		counted, err := api.Count(ctx, f.client, f.after.asked.version, a.resource, api.And(a.condition, a.existing, f.ofDevices()))
		if err != nil {
			return nil, err
		}
		if last.part.Err == nil && last.value != nil && f.mayReadChangesOfRows() {
			upTo, err := a.readChangedRows(ctx, f, *last.value, counted, queries)
			if !errors.Is(err, errReadAll) {
				return upTo, err
			}
		}
		return new(f.after.horizon), a.readAllRows(ctx, f, counted)
	})
	if value == nil {
		f.snapshot.Devices = a.replace(f.snapshot.Devices, nil, false)
	}
}

// mayReadChangesOfRows reports whether reading changes is enough to know the rows of all devices.
func (f *refresh) mayReadChangesOfRows() bool {
	// Rows of devices that are within reach, but not in the snapshot, would make every count differ.
	return f.snapshot.Reading.Kind == balena.Incremental && f.before.horizon.newest != 0 && !f.after.outside
}

// query returns the query for the rows of devices within reach that match a condition. about is their approximate number.
func (a *attachment[R]) query(f *refresh, condition string, about int) api.Query[R] {
	limit := min(2*about, maxRowsPerDevice*f.reachable) + f.config.PageSize
	return query(f, a.resource, a.fields, api.And(a.condition, condition, f.ofDevices()), limit)
}

// ofDevices returns the condition that a row belongs to a device within reach.
func (f *refresh) ofDevices() string { return "device/any(d:" + f.deviceFilter("d/") + ")" }

// readAllRows reads all rows. counted is their number according to the server.
func (a *attachment[R]) readAllRows(ctx context.Context, f *refresh, counted int) error {
	rows := map[int64][]R{}
	err := list(ctx, f, a.query(f, a.existing, counted), func(row *R) error {
		device := a.device(row)
		rows[device] = append(rows[device], *row)
		return nil
	})
	if err != nil {
		return err
	}
	if a.choose != nil {
		if err := a.choose(rows); err != nil {
			return err
		}
	}
	f.snapshot.Devices = a.replace(f.snapshot.Devices, rows, true)
	return nil
}

// replace returns the devices with these rows, by device, instead of all such rows that they have. The rows are known or not.
func (a *attachment[R]) replace(devices balena.Devices, rows map[int64][]R, known bool) balena.Devices {
	var put []*balena.Device
	for d := range devices.All() {
		is := d.Detached()
		a.reset(is.Attachments)
		for i := range rows[d.ID] {
			a.apply(is.Attachments, &rows[d.ID][i])
		}
		if a.finish(is.Compact(), known); !is.Equal(d) {
			put = append(put, is)
		}
	}
	return devices.With(put, nil)
}

// readChangedRows reads the rows that changed with the best query that the server answers, and returns the time up to
// which all changes are then known. known is that time before. readChangedRows returns errReadAll if all rows must be read.
func (a *attachment[R]) readChangedRows(ctx context.Context, f *refresh, known horizon, counted int, queries *ladder) (*horizon, error) {
	for rung := range queries {
		query := &queries[rung]
		if !query.usable(f.snapshot.Time) {
			continue
		}
		var conditions []string
		var renewed []int64
		var upTo horizon
		switch rung {
		case byModifiedAt:
			conditions, renewed, upTo = []string{"modified_at gt " + literal(known.since)}, f.added, f.after.horizon
		case ofReadDevices:
			renewed, upTo = f.reported, known
		}
		if 2*len(renewed) > f.snapshot.Devices.Len() {
			break // reading all rows costs less
		}
		err := a.readRows(ctx, f, conditions, renewed, counted)
		switch {
		case ctx.Err() != nil || api.ProblemOf(err) == api.RateLimited:
			return nil, err
		case err == nil || errors.Is(err, errReadAll):
			query.answered()
			return &upTo, err
		}
		if query.failed(err, f.retry()); query.reason == nil {
			break // the query is tried once more before the next one is used
		}
	}
	return nil, errReadAll
}

// readRows reads the rows that match one of the conditions, and all rows of the renewed devices. It returns errReadAll if
// the number of rows is then not that of the server, because queries for changes do not find rows that were deleted, or if
// a row cannot be applied.
func (a *attachment[R]) readRows(ctx context.Context, f *refresh, conditions []string, renewed []int64, counted int) error {
	about := counted + a.rows(f.snapshot.Devices) // the answer includes known rows that have been marked as deleted
	changed, applied := map[int64]*balena.Device{}, true
	for _, id := range renewed {
		if d := f.snapshot.Devices.Find(id); d != nil {
			changed[id] = d.Detached()
			a.reset(changed[id].Attachments)
		}
	}
	for ids := range slices.Chunk(renewed, idsPerRequest) {
		conditions = append(conditions, api.And(a.existing, api.InIDs("device", ids)))
	}
	for _, condition := range conditions {
		err := list(ctx, f, a.query(f, condition, about), func(row *R) error {
			id := a.device(row)
			if changed[id] == nil {
				d := f.snapshot.Devices.Find(id)
				if d == nil {
					applied = false // its device was added just now, and the server counts it
					return nil
				}
				changed[id] = d.Detached()
			}
			applied = a.apply(changed[id].Attachments, row) && applied
			return nil
		})
		if err != nil {
			return err
		}
	}
	put := slices.SortedFunc(maps.Values(changed), func(a, b *balena.Device) int { return cmp.Compare(a.ID, b.ID) })
	for _, d := range put {
		a.finish(d.Compact(), true)
	}
	devices := f.snapshot.Devices.With(put, nil)
	if !applied || a.rows(devices) != counted || a.chosen != nil && !a.chosen(devices) {
		return errReadAll
	}
	f.snapshot.Devices = devices
	return nil
}

// rows returns the number of rows of the devices.
func (a *attachment[R]) rows(devices balena.Devices) (n int) {
	for d := range devices.All() {
		n += a.count(d)
	}
	return n
}
