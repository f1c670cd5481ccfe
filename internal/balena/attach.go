package balena

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
)

// Services and tags are rows of their own that belong to devices. They are read as the devices are: all of them
// in a full sweep, and those that changed in between.

// attachment is a kind of such rows.
type attachment[R any] struct {
	resource string
	// filter is the condition for the rows that there are, changed for those of which changes are to be told;
	// it may be empty.
	filter, changed string
	fields          record[R]
	blank           R
	// row returns the ID of a row and that of the device it belongs to.
	row func(*R) (id, device int64)
	// gone tells of a row that changed whether it is none that there is any more; nil for never.
	gone func(*R) bool
	// own gives rows of their own, to change, to a device's belongings; clear takes all away, and put puts one in or
	// out.
	own, clear func(*Belongings)
	put        func(*Belongings, *R)
	// count is how many rows a device has.
	count func(*Device) int
}

// attached is what a client remembers of such rows beside those that its devices have.
type attached struct {
	// newest is the time up to which changes are known, by the server's clock.
	newest Instant
	// strays are the IDs of rows of devices that are not in the snapshot.
	strays map[int64]bool
	// failed is set if the last question for changes failed, and refused if the server does not take it: it is asked
	// again only after the next full sweep.
	failed, refused bool
}

// attach reads the rows as a part of the refresh. When that fails, the devices keep those they have until they
// are too old.
func attach[R any](ctx context.Context, f *fetch, name PartName, last *kept[*attached], a attachment[R]) {
	value := part(f, name, last, 0, func() (*attached, error) {
		s := f.snapshot
		if s.Devices.Len() == 0 {
			return &attached{}, nil
		}
		known := last.value
		failed, refused := false, known != nil && known.refused && s.Reading.Kind == Changes
		if last.part.Err == nil && f.mayAttachChanges(known) {
			now, devices, err := a.readChanges(ctx, f, known)
			if ctx.Err() != nil || problemOf(err) == RateLimited {
				return nil, err
			}
			if now != nil {
				s.Devices = devices
				return now, nil
			}
			failed = err != nil
			refused = failed && (known.failed || errors.Is(err, errBlank) || statusOf(err) == http.StatusBadRequest)
		}
		now, devices, err := a.readAll(ctx, f)
		if err != nil {
			return nil, err
		}
		now.failed, now.refused = failed, refused
		s.Devices = devices
		return now, nil
	})
	if value != nil {
		return
	}
	var put []*Device
	for d := range f.snapshot.Devices.All() {
		if a.count(d) > 0 {
			bare := d.withOwnBelongings()
			a.clear(bare.Belongings)
			put = append(put, bare.tidy())
		}
	}
	f.snapshot.Devices = f.snapshot.Devices.with(put, nil)
}

// withOwnBelongings returns a device like this one, with belongings to change.
func (d *Device) withOwnBelongings() *Device {
	d, b := new(*d), new(Belongings)
	if d.Belongings != nil {
		*b = *d.Belongings
	}
	d.Belongings = b
	return d
}

// tidy makes nothing of belongings that are none, and returns the device.
func (d *Device) tidy() *Device {
	if len(d.Services()) == 0 && len(d.Tags()) == 0 {
		d.Belongings = nil
	}
	return d
}

// mayAttachChanges tells whether changes are enough to know rows of which so much was known, nil for nothing.
func (f *fetch) mayAttachChanges(known *attached) bool {
	if known == nil || known.newest == 0 || known.refused || f.snapshot.Reading.Kind == Full {
		return false
	}
	// Rows of a device that went out of reach are still counted, unless they are asked for by fleet.
	counted := !f.went || f.filtersFleets()
	return len(f.came) <= maxByID && counted // of more that came, the rows of all are read
}

// readAll reads all rows, and returns the devices with them.
func (a *attachment[R]) readAll(ctx context.Context, f *fetch) (*attached, Devices, error) {
	now := &attached{newest: f.newest, strays: map[int64]bool{}}
	rows := map[int64][]R{}
	err := a.read(ctx, f, a.filter, func(row *R) {
		_, device := a.row(row)
		rows[device] = append(rows[device], *row)
	})
	if err != nil {
		return nil, Devices{}, err
	}
	var put []*Device
	for d := range f.snapshot.Devices.All() {
		is := d.withOwnBelongings()
		a.clear(is.Belongings)
		for i := range rows[d.ID] {
			a.put(is.Belongings, &rows[d.ID][i])
		}
		delete(rows, d.ID)
		if !is.Equal(d) {
			put = append(put, is.tidy())
		}
	}
	for _, left := range rows {
		for i := range left {
			id, _ := a.row(&left[i])
			now.strays[id] = true
		}
	}
	return now, f.snapshot.Devices.with(put, nil), nil
}

// readChanges reads the rows that changed since they were read last, and returns the devices with them; nothing
// when that does not make as many rows as there are.
func (a *attachment[R]) readChanges(ctx context.Context, f *fetch, known *attached) (*attached, Devices, error) {
	now := &attached{newest: f.newest, strays: map[int64]bool{}}
	for id := range known.strays {
		now.strays[id] = true
	}
	filter := "modified_at gt " + (known.newest - overlap).literal()
	if len(f.came) > 0 {
		filter = "(" + filter + " or device in (" + list(f.came) + "))"
	}
	if a.changed != "" {
		filter = a.changed + " and " + filter
	}
	changed := map[int64]*Device{}
	err := a.read(ctx, f, filter, func(row *R) {
		id, device := a.row(row)
		d := changed[device]
		if d == nil {
			was := f.snapshot.Devices.Find(device)
			if was == nil {
				if a.gone != nil && a.gone(row) {
					delete(now.strays, id)
				} else {
					now.strays[id] = true
				}
				return
			}
			d = was.withOwnBelongings()
			a.own(d.Belongings)
			changed[device] = d
		}
		delete(now.strays, id) // its device may have come just now
		a.put(d.Belongings, row)
	})
	if err != nil {
		return nil, Devices{}, err
	}
	put := slices.SortedFunc(maps.Values(changed), func(a, b *Device) int { return cmp.Compare(a.ID, b.ID) })
	for _, d := range put {
		d.tidy()
	}
	devices := f.snapshot.Devices.with(put, nil)

	// Rows that were deleted outright are not told of.
	counted, err := f.count(ctx, a.resource, a.filter)
	if err != nil {
		return nil, Devices{}, err
	}
	n := len(now.strays)
	for d := range devices.All() {
		n += a.count(d)
	}
	if n != counted {
		return nil, Devices{}, nil
	}
	return now, devices, nil
}

// read reads the rows of a condition page by page.
func (a *attachment[R]) read(ctx context.Context, f *fetch, filter string, each func(*R)) error {
	p := pages[R]{
		resource: a.resource,
		filter:   filter,
		fields:   a.fields,
		blank:    a.blank,
		id: func(row *R) int64 {
			id, _ := a.row(row)
			return id
		},
		each: func(row *R) error {
			each(row)
			return nil
		},
	}
	return p.read(ctx, f.Client)
}
