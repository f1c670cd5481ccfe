package balena

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
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
	baseline    baseline
	distrust    distrust
	doubtful    bool // the last changes that were asked for could not be read, or did not add up
	deviceTypes kept[map[int64]string]
	latest      kept[map[int64]Release]
	keys        kept[[]Key]
	services    kept[*attached]
	deviceTags  kept[*attached]
	fleetTags   kept[map[int64][]string]
	releases    kept[map[int64]knownRelease]
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

	before := c.memory
	c.bytes = 0
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
		c.memory = before // of parts that belong to no snapshot
		return nil, err
	}
	f.remember()
	f.snapshot.APIVersion = c.can.version
	f.snapshot.CloudFields = c.can.cloud && c.cloudSure
	f.snapshot.Reading.Bytes = c.bytes
	return f.snapshot, nil
}

// notCounted is the number of devices of a fleet of which the server did not tell it.
const notCounted = -1

// fetch is a refresh under way.
type fetch struct {
	*Client
	snapshot *Snapshot
	// fleets and typeSlugs find fleets and device types by ID.
	fleets    map[int64]*Fleet
	typeSlugs map[int64]string
	// theirs and ours are what the server's clock and ours said when the fleets were there; theirs is zero
	// when the server did not tell.
	theirs, ours time.Time
	// newest is the time up to which the server's changes are known, by the server's clock.
	newest Instant
	// came are the devices that the refresh before did not know, and went is set if it knew some that are no
	// more, unless all are read.
	came []int64
	went bool
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

func problemOf(err error) Problem {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Problem
	}
	return 0
}

func (f *fetch) askForFleets(ctx context.Context) error {
	s := f.snapshot
	s.Fleets = nil
	f.typeSlugs = map[int64]string{}

	filter := accessible + " and is_of__class eq 'fleet' and is_host eq false"
	if !f.config.ArchivedFleets {
		filter += " and is_archived eq false"
	}
	fields := wanted(fleetFields, &f.config.Options, f.can)
	r := request{resource: "application", options: fields.options() + "&$filter=" + filter + "&$orderby=id asc"}
	last := int64(0)
	slugs := map[string]bool{}
	err := f.get(ctx, r, func(d *decoder) error {
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
			s.Fleets = append(s.Fleets, row.Fleet)
			return nil
		})
	})
	f.theirs, f.ours = f.date, f.config.Now()
	f.fleets = make(map[int64]*Fleet, len(s.Fleets))
	for i := range s.Fleets {
		f.fleets[s.Fleets[i].ID] = &s.Fleets[i]
	}
	return err
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
