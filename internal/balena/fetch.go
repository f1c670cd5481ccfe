package balena

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"net/http"
	"slices"
	"time"
)

const (
	// accessible keeps the applications which the token may directly access. Without it a bad token is
	// answered with the public fleets instead of a 401.
	accessible = "is_directly_accessible_by__user/any(dau:1 eq 1)"
	// releasesPerRequest and maxFleetsInFilter keep URLs far below the 16 KB that the server takes. Of
	// more chosen fleets than that, all accessible devices are read and sorted out here.
	releasesPerRequest = 200
	maxFleetsInFilter  = 1200
)

// null is a number that the API does not tell.
var null = math.NaN()

// memory is what a client remembers from one refresh to the next.
type memory struct {
	deviceTypes kept[map[int64]string]
	latest      kept[map[int64]Release]
	keys        kept[[]Key]
	services    kept[[]Service]
	deviceTags  kept[map[int64][]string]
	fleetTags   kept[map[int64][]string]
	releases    kept[map[int64]knownRelease]
	// devices are those that the last refresh read.
	devices []Device
}

// kept is the last value of a part of a refresh, and how it was come by.
type kept[T any] struct {
	value T
	at    time.Time
	part  Part
}

// knownRelease is a release, or the knowledge that the API does not tell of it.
type knownRelease struct {
	Release
	missing bool
	asked   time.Time
}

// Fetch reads a snapshot: all of it or an error, which is an [*Error] or that of a cancelled context.
// Parts beside fleets and devices may fail without failing the whole; see [Snapshot.Parts].
func (c *Client) Fetch(ctx context.Context) (*Snapshot, error) {
	now := c.config.Now()
	if now.Sub(c.learnt) > relearn {
		c.learnt = now
		c.can.version = cmp.Or(c.config.Version, V7)
		c.can.cloud = true
	}
	if err := c.readToken(); err != nil {
		return nil, err
	}

	f := &fetch{Client: c, snapshot: &Snapshot{Time: now, Releases: map[int64]Release{}}}
	if err := f.readFleets(ctx); err != nil {
		return nil, err
	}
	if err := f.readDevices(ctx); err != nil {
		return nil, err
	}
	f.readDeviceTypes(ctx)
	f.readReleases(ctx)
	f.readServices(ctx)
	f.readTags(ctx)
	f.readKeys(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.snapshot.APIVersion = c.can.version
	f.snapshot.CloudFields = c.can.cloud && c.cloudSure
	return f.snapshot, nil
}

// notCounted is the number of devices of a fleet of which the server did not tell it.
const notCounted = -1

// fetch is a refresh under way.
type fetch struct {
	*Client
	snapshot *Snapshot
	// fleetIndex and typeSlugs find fleets and device types by ID.
	fleetIndex map[int64]int32
	typeSlugs  map[int64]string
	// types are the IDs of the device types of the snapshot's devices, in the same order; uuids are hashes
	// of their uuids, in any order.
	types []int64
	uuids []uint64
}

// readFleets reads all fleets in one request, and finds out which version of the API the server has.
func (f *fetch) readFleets(ctx context.Context) error {
	err := f.askForFleets(ctx)
	if f.config.Version != "" || statusOf(err) != http.StatusNotFound {
		return err
	}
	// The other version, then: v6 where there is no v7 yet, v7 where there is no v6 any more.
	was := f.can.version
	f.can.version = V6
	if was == V6 {
		f.can.version = V7
	}
	if err = f.askForFleets(ctx); err != nil {
		f.can.version = was
	}
	if statusOf(err) == http.StatusNotFound {
		return &Error{
			Problem: BadAnswer, Request: "GET /v7/application and /v6/application", Status: http.StatusNotFound,
			Err: errors.New("answered 404: there is no balena API at this address, check --balena.api-url"),
		}
	}
	return err
}

func statusOf(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}

func (f *fetch) askForFleets(ctx context.Context) error {
	s := f.snapshot
	s.Fleets = nil
	f.fleetIndex, f.typeSlugs = map[int64]int32{}, map[int64]string{}

	filter := accessible + " and is_of__class eq 'fleet' and is_host eq false"
	if !f.config.ArchivedFleets {
		filter += " and is_archived eq false"
	}
	fields := wanted(fleetFields, &f.config.Options, f.can)
	r := request{resource: "application", options: fields.options() + "&$filter=" + filter + "&$orderby=id asc"}
	last := int64(0)
	slugs := map[string]bool{}
	return f.get(ctx, r, func(d *decoder) error {
		return decodeAll(d, fields, fleetRow{Fleet: Fleet{counted: notCounted}}, func(row *fleetRow) error {
			if err := ascending(&last, row.ID); err != nil {
				return err
			}
			if row.Slug == "" || slugs[row.Slug] {
				return fmt.Errorf("fleet %d has no slug of its own: %q", row.ID, row.Slug)
			}
			slugs[row.Slug] = true
			if row.class != "fleet" || row.host {
				return fmt.Errorf("%s is no fleet, and the filter asks for fleets", row.Slug)
			}
			if row.counted == notCounted {
				return fmt.Errorf("the devices of fleet %s are not counted", row.Slug)
			}
			f.typeSlugs[row.deviceTypeID] = row.DeviceType
			if !f.chosen(&row.Fleet) {
				return nil
			}
			if row.target.ID != 0 {
				s.Releases[row.target.ID] = row.target
			}
			f.fleetIndex[row.ID] = int32(len(s.Fleets))
			s.Fleets = append(s.Fleets, row.Fleet)
			return nil
		})
	})
}

// chosen tells whether the options choose the fleet.
func (f *fetch) chosen(fleet *Fleet) bool {
	o := &f.config.Options
	return o.Shard.has(fleet.ID) && (o.ArchivedFleets || !fleet.Archived) &&
		(o.Include == nil || o.Include.MatchString(fleet.Slug)) &&
		(o.Exclude == nil || !o.Exclude.MatchString(fleet.Slug))
}

// ascending checks the order that was asked for, which keyset paging depends on: a page that repeats ids,
// or an element without one, can't be true.
func ascending(last *int64, id int64) error {
	switch {
	case id <= 0:
		return fmt.Errorf("it has no id (the last was %d)", *last)
	case id <= *last:
		return fmt.Errorf("id %d follows id %d", id, *last)
	}
	*last = id
	return nil
}

// readDevices reads the devices of all chosen fleets.
func (f *fetch) readDevices(ctx context.Context) error {
	counted := 0
	for i := range f.snapshot.Fleets {
		counted += f.snapshot.Fleets[i].counted
	}
	if counted == 0 {
		f.devices = nil
		return nil
	}
	err := f.askForDevices(ctx, counted)
	if f.can.cloud && len(f.snapshot.Devices) > 0 {
		f.cloudSure = true // be it that a later page failed
	}
	if f.can.cloud && !f.cloudSure && errors.Is(err, errBlank) {
		// The server may not know the fields that only balenaCloud has, or just be in trouble.
		f.can.cloud = false
		if err = f.askForDevices(ctx, counted); err != nil {
			f.can.cloud = true
		}
	}
	if err == nil {
		f.devices = f.snapshot.Devices
	}
	return err
}

// fewDevices may disappear from any account while it is read.
const fewDevices = 2

func (f *fetch) askForDevices(ctx context.Context, counted int) error {
	s := f.snapshot
	f.types, f.uuids = f.types[:0], f.uuids[:0]
	// The count is the server's word and may be anything; the last refresh says what to believe of it.
	known := f.devices
	s.Devices = make([]Device, 0, min(counted, len(known)+f.config.PageSize))
	p := pages[deviceRow]{
		resource: "device",
		filter:   f.deviceFilter(),
		fields:   wanted(deviceFields, &f.config.Options, f.can),
		blank:    unknownDevice,
		id:       func(row *deviceRow) int64 { return row.ID },
		each: func(row *deviceRow) error {
			if row.UUID == "" {
				return fmt.Errorf("device %d has no uuid", row.ID)
			}
			fleet, ok := f.fleetIndex[row.fleetID]
			if !ok {
				return nil // of no fleet, or of one that was not chosen or not there a moment ago
			}
			// What both snapshots say in the same words is in memory once.
			for len(known) > 0 && known[0].ID < row.ID {
				known = known[1:]
			}
			if len(known) > 0 && known[0].UUID == row.UUID {
				row.UUID = known[0].UUID
				if known[0].Name == row.Name {
					row.Name = known[0].Name
				}
			}
			row.Fleet = fleet
			if f.can.version == V6 {
				row.speakV7(s.Fleets[fleet].TargetRelease)
			}
			s.Devices = append(s.Devices, row.Device)
			f.types = append(f.types, row.typeID)
			f.uuids = append(f.uuids, maphash.String(uuidSeed, row.UUID))
			return nil
		},
		// As many as were counted are all there are, which saves asking for a page to find it empty. A
		// short page is no end: a proxy or a server may have a limit of its own.
		complete: func(int) bool { return len(s.Devices) >= counted },
	}
	if err := p.read(ctx, f.Client); err != nil {
		return err
	}
	// Devices are deleted and moved while the pages are read. All of them, or more than a few and a tenth,
	// is no coincidence but a list that is not whole.
	if missing := counted - len(s.Devices); missing == counted || missing > fewDevices+counted/10 {
		return &Error{
			Problem: BadAnswer, Request: "GET /" + string(f.can.version) + "/device", Status: http.StatusOK,
			Err: fmt.Errorf("the server counts %d devices and lists %d", counted, len(s.Devices)),
		}
	}
	// A series for each of two devices of one uuid would be the same series twice.
	slices.Sort(f.uuids)
	for i := 1; i < len(f.uuids); i++ {
		if f.uuids[i] == f.uuids[i-1] {
			return &Error{
				Problem: BadAnswer, Request: "GET /" + string(f.can.version) + "/device", Status: http.StatusOK,
				Err: errors.New("two devices have the same uuid"),
			}
		}
	}
	return nil
}

// uuidSeed makes hashes of uuids which nobody can prepare to be alike.
var uuidSeed = maphash.MakeSeed()

// part reads an optional part of the refresh, unless what was read of it last is younger than every. When
// reading fails, the last value stands in until it is too old.
func part[T any](f *fetch, name PartName, last *kept[T], every time.Duration, read func() (T, error)) T {
	now := f.snapshot.Time
	if last.at.IsZero() || last.part.Err != nil || now.Sub(last.at) >= every {
		began := f.config.Now()
		value, err := read()
		last.part = Part{Name: name, Duration: f.config.Now().Sub(began), Err: err}
		switch {
		case err == nil:
			last.value, last.at = value, now
		case now.Sub(last.at) > every+f.config.Keep:
			var none T
			last.value = none
		}
	}
	f.snapshot.Parts = append(f.snapshot.Parts, last.part)
	return last.value
}
