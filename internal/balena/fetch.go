package balena

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// accessible keeps the applications which the token may directly access. Without it a bad token is
	// answered with the public fleets instead of a 401.
	accessible = "is_directly_accessible_by__user/any(dau:1 eq 1)"
	// releasesPerRequest and maxFleetsInFilter keep URLs far below the 16 KB that the server takes. Of
	// more chosen fleets than that, all accessible devices are read and sorted out here.
	releasesPerRequest = 200
	maxFleetsInFilter  = 800
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
	f.readDeviceTypes(ctx)
	if err := f.readDevices(ctx); err != nil {
		return nil, err
	}
	f.readReleases(ctx)
	f.readServices(ctx)
	f.readTags(ctx)
	f.readKeys(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.snapshot.APIVersion = c.can.version
	f.snapshot.CloudFields = c.can.cloud
	return f.snapshot, nil
}

// fetch is a refresh under way.
type fetch struct {
	*Client
	snapshot *Snapshot
	// fleetIndex and typeSlugs find fleets and device types by ID.
	fleetIndex map[int64]int32
	typeSlugs  map[int64]string
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
	if f.config.Shard.divided() {
		for i := range fields {
			if fields[i].expand == countDevices {
				fields[i].expand += "($filter=" + f.config.Shard.filter("") + ")"
			}
		}
	}
	r := request{resource: "application", options: fields.options() + "&$filter=" + filter + "&$orderby=id asc"}
	last := int64(0)
	slugs := map[string]bool{}
	return f.get(ctx, r, func(d *decoder) error {
		return decodeAll(d, fields, fleetRow{}, func(row *fleetRow) error {
			if err := ascending(&last, row.ID); err != nil {
				return err
			}
			if row.Slug == "" || slugs[row.Slug] {
				return fmt.Errorf("fleet %d has no slug of its own: %q", row.ID, row.Slug)
			}
			slugs[row.Slug] = true
			f.typeSlugs[row.deviceTypeID] = row.DeviceType
			if row.class != "fleet" || row.host || !f.chosen(&row.Fleet) {
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
	return (o.ArchivedFleets || !fleet.Archived) &&
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

func (f *fetch) askForDevices(ctx context.Context, counted int) error {
	s := f.snapshot
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
			row.Type = f.typeSlugs[row.typeID]
			if f.can.version == V6 {
				row.speakV7(s.Fleets[fleet].TargetRelease)
			}
			s.Devices = append(s.Devices, row.Device)
			return nil
		},
		// As many as were counted are all there are, which saves asking for a page to find it empty. A
		// short page is no end: a proxy or a server may have a limit of its own.
		complete: func(int) bool { return len(s.Devices) >= counted },
	}
	if err := p.read(ctx, f.Client); err != nil {
		return err
	}
	// Devices are deleted and moved while the pages are read. More than a tenth is no coincidence but a
	// list that is not whole.
	if missing := counted - len(s.Devices); missing > 10+counted/10 {
		return &Error{
			Problem: BadAnswer, Request: "GET /" + string(f.can.version) + "/device", Status: http.StatusOK,
			Err: fmt.Errorf("the server counts %d devices and lists %d", counted, len(s.Devices)),
		}
	}
	return nil
}

// deviceFilter returns the condition for the devices to read.
func (f *fetch) deviceFilter() string {
	chosen := f.chosenDevices("")
	if !f.filtersFleets() {
		chosen = append([]string{"belongs_to__application/any(a:a/" + accessible + ")"}, chosen...)
	}
	return strings.Join(chosen, " and ")
}

// ofDevices narrows a filter of something that belongs to devices to those that are read.
func (f *fetch) ofDevices(filter string) string {
	chosen := f.chosenDevices("d/")
	if len(chosen) == 0 {
		return filter
	}
	return filter + " and device/any(d:" + strings.Join(chosen, " and ") + ")"
}

// chosenDevices returns the conditions that the options put on devices, with path before the names of fields.
func (f *fetch) chosenDevices(path string) []string {
	var conditions []string
	if f.filtersFleets() {
		ids := make([]int64, len(f.snapshot.Fleets))
		for i := range f.snapshot.Fleets {
			ids[i] = f.snapshot.Fleets[i].ID
		}
		conditions = append(conditions, path+"belongs_to__application in ("+list(ids)+")")
	}
	if f.config.Shard.divided() {
		conditions = append(conditions, f.config.Shard.filter(path))
	}
	return conditions
}

// filtersFleets tells whether devices are asked for by fleet: when fleets are left out, and those that are
// left fit into a URL.
func (f *fetch) filtersFleets() bool {
	o := &f.config.Options
	all := o.Include == nil && o.Exclude == nil && o.ArchivedFleets
	return !all && len(f.snapshot.Fleets) <= maxFleetsInFilter
}

func list(ids []int64) string {
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(id, 10))
	}
	return b.String()
}

// pages reads a resource page by page, in ascending order of id, each page beginning behind the last id
// seen. Rows that come and go meanwhile can neither hide others nor show them twice.
type pages[T any] struct {
	resource string
	filter   string
	fields   record[T]
	blank    T
	id       func(*T) int64
	each     func(*T) error
	// complete tells after a page of so many rows whether that was all; an empty page always is the end.
	complete func(rows int) bool
}

func (p *pages[T]) read(ctx context.Context, c *Client) error {
	options := p.fields.options()
	last := int64(0)
	for n := 1; ; n++ {
		rows := 0
		r := request{
			resource: p.resource,
			options:  fmt.Sprintf("%s&$filter=%s and id gt %d&$orderby=id asc&$top=%d", options, p.filter, last, c.config.PageSize),
			note:     fmt.Sprintf("page %d", n),
		}
		err := c.get(ctx, r, func(d *decoder) error {
			return decodeAll(d, p.fields, p.blank, func(row *T) error {
				if err := ascending(&last, p.id(row)); err != nil {
					return err
				}
				rows++
				return p.each(row)
			})
		})
		if err != nil {
			return err
		}
		if rows == 0 || p.complete(rows) {
			return nil
		}
	}
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

// readDeviceTypes reads the slugs of device types. Those of the fleets are known already; a device may
// be of another.
func (f *fetch) readDeviceTypes(ctx context.Context) {
	slugs := part(f, PartDeviceTypes, &f.deviceTypes, f.config.SlowInterval, func() (map[int64]string, error) {
		fields := wanted(deviceTypeFields, &f.config.Options, f.can)
		slugs := map[int64]string{}
		r := request{resource: "device_type", options: fields.options() + "&$orderby=id asc"}
		return slugs, f.get(ctx, r, func(d *decoder) error {
			return decodeAll(d, fields, deviceTypeRow{}, func(row *deviceTypeRow) error {
				slugs[row.id] = row.slug
				return nil
			})
		})
	})
	maps.Copy(f.typeSlugs, slugs)
}

// readReleases reads the releases which devices refer to, by ID and only those that are not known yet, and
// the newest release of each fleet.
func (f *fetch) readReleases(ctx context.Context) {
	if !f.config.Releases && !f.config.Devices {
		return
	}
	known := part(f, PartReleases, &f.releases, 0, func() (map[int64]knownRelease, error) {
		return f.askForReleases(ctx)
	})
	for id, r := range known {
		if !r.missing {
			f.snapshot.Releases[id] = r.Release
		}
	}
	if !f.config.Releases {
		return
	}
	latest := part(f, PartLatestReleases, &f.latest, f.config.SlowInterval, func() (map[int64]Release, error) {
		return f.askForLatestReleases(ctx)
	})
	for i := range f.snapshot.Fleets {
		fleet := &f.snapshot.Fleets[i]
		fleet.LatestRelease = latest[fleet.ID]
	}
}

// askForReleases returns every release that is referred to and that the fleets did not bring along. Those
// already known are not asked for, unless they may have changed: a draft is given another version when it
// is finalized, and one that was missing may have come within the token's reach.
func (f *fetch) askForReleases(ctx context.Context) (map[int64]knownRelease, error) {
	now := f.snapshot.Time
	found := map[int64]knownRelease{}
	var unknown []int64
	need := func(id int64) {
		if _, ok := found[id]; ok || id == 0 || f.snapshot.Releases[id].ID != 0 {
			return
		}
		r, ok := f.releases.value[id]
		if ok && (r.Final || now.Sub(r.asked) < f.config.SlowInterval) {
			found[id] = r
			return
		}
		found[id] = knownRelease{missing: true, asked: now}
		unknown = append(unknown, id)
	}
	for i := range f.snapshot.Devices {
		d := &f.snapshot.Devices[i]
		need(d.RunningRelease)
		need(d.PinnedRelease)
		need(d.TargetRelease)
		need(d.OSTarget)
		need(d.SupervisorTarget)
	}
	slices.Sort(unknown)

	fields := wanted(releaseFields, &f.config.Options, f.can)
	for ids := range slices.Chunk(unknown, releasesPerRequest) {
		r := request{resource: "release", options: fields.options() + "&$filter=id in (" + list(ids) + ")&$orderby=id asc"}
		err := f.get(ctx, r, func(d *decoder) error {
			return decodeAll(d, fields, Release{}, func(row *Release) error {
				found[row.ID] = knownRelease{Release: *row, asked: now}
				return nil
			})
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// askForLatestReleases returns the newest release of every fleet, by the fleet's ID.
func (f *fetch) askForLatestReleases(ctx context.Context) (map[int64]Release, error) {
	fields := wanted(latestReleaseFields, &f.config.Options, f.can)
	latest := map[int64]Release{}
	r := request{
		resource: "application", note: "newest releases",
		options: fields.options() + "&$filter=" + accessible + " and is_of__class eq 'fleet' and is_host eq false&$orderby=id asc",
	}
	return latest, f.get(ctx, r, func(d *decoder) error {
		return decodeAll(d, fields, latestRow{}, func(row *latestRow) error {
			latest[row.id] = row.latest
			return nil
		})
	})
}

// readServices reads what is installed on the devices.
func (f *fetch) readServices(ctx context.Context) {
	if !f.config.Services {
		return
	}
	f.snapshot.Services = part(f, PartServices, &f.services, 0, func() ([]Service, error) {
		if len(f.snapshot.Devices) == 0 {
			return nil, nil
		}
		services := make([]Service, 0, len(f.services.value))
		p := pages[serviceRow]{
			resource: "image_install",
			filter:   f.ofDevices("status ne 'deleted'"),
			fields:   wanted(serviceFields, &f.config.Options, f.can),
			blank:    serviceRow{Service: Service{Progress: null}},
			id:       func(row *serviceRow) int64 { return row.id },
			each: func(row *serviceRow) error {
				services = append(services, row.Service)
				return nil
			},
			complete: f.lastPage,
		}
		err := p.read(ctx, f.Client)
		return merge(services), err
	})
}

// lastPage tells that a page is the last from its having room left.
func (f *fetch) lastPage(rows int) bool { return rows < f.config.PageSize }

// merge sorts services and makes one of those that differ in nothing but the image: while a device
// updates, the old and the new image of a service are both there, mostly in different states.
func merge(services []Service) []Service {
	slices.SortFunc(services, func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.DeviceID, b.DeviceID), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Status, b.Status))
	})
	merged := services[:0]
	for _, s := range services {
		if n := len(merged); n > 0 && merged[n-1].DeviceID == s.DeviceID && merged[n-1].Name == s.Name && merged[n-1].Status == s.Status {
			last := &merged[n-1]
			last.Installed = max(last.Installed, s.Installed)
			if math.IsNaN(last.Progress) || s.Progress > last.Progress {
				last.Progress = s.Progress
			}
			continue
		}
		merged = append(merged, s)
	}
	return merged
}

// readTags reads the tags that were asked for.
func (f *fetch) readTags(ctx context.Context) {
	if keys := f.config.FleetTags; len(keys) > 0 {
		tags := part(f, PartFleetTags, &f.fleetTags, 0, func() (map[int64][]string, error) {
			return f.askForTags(ctx, "application_tag", "application", inList("tag_key", keys), keys)
		})
		for i := range f.snapshot.Fleets {
			f.snapshot.Fleets[i].Tags = tags[f.snapshot.Fleets[i].ID]
		}
	}
	if keys := f.config.DeviceTags; len(keys) > 0 {
		tags := part(f, PartDeviceTags, &f.deviceTags, 0, func() (map[int64][]string, error) {
			if len(f.snapshot.Devices) == 0 {
				return nil, nil
			}
			return f.askForTags(ctx, "device_tag", "device", f.ofDevices(inList("tag_key", keys)), keys)
		})
		for i := range f.snapshot.Devices {
			f.snapshot.Devices[i].Tags = tags[f.snapshot.Devices[i].ID]
		}
	}
}

// askForTags returns the values of the tags of keys, in their order, by the ID of what they belong to.
func (f *fetch) askForTags(ctx context.Context, resource, owner, filter string, keys []string) (map[int64][]string, error) {
	tags := map[int64][]string{}
	p := pages[tagRow]{
		resource: resource,
		filter:   filter,
		fields:   wanted(tagFields(owner), &f.config.Options, f.can),
		id:       func(row *tagRow) int64 { return row.id },
		each: func(row *tagRow) error {
			i := slices.Index(keys, row.key)
			if i < 0 {
				return nil
			}
			if tags[row.owner] == nil {
				tags[row.owner] = make([]string, len(keys))
			}
			tags[row.owner][i] = row.value
			return nil
		},
		complete: f.lastPage,
	}
	return tags, p.read(ctx, f.Client)
}

// inList is the condition that a field has one of some values.
func inList(field string, values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = literal(v)
	}
	return field + " in (" + strings.Join(quoted, ",") + ")"
}

// literal writes a string into a query: quotes doubled, and everything encoded that a URL can't hold or
// that means something else there. What OData means something by must stay as it is, even in a string.
func literal(s string) string {
	const plain = "-_.~!*()/:,;=@$'"
	var b strings.Builder
	b.WriteByte('\'')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\'':
			b.WriteString("''")
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(plain, c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

// readKeys reads which of the caller's named API keys expire when.
func (f *fetch) readKeys(ctx context.Context) {
	if !f.config.Keys {
		return
	}
	f.snapshot.Keys = part(f, PartKeys, &f.keys, f.config.SlowInterval, func() ([]Key, error) {
		fields := wanted(keyFields, &f.config.Options, f.can)
		var keys []Key
		r := request{
			resource: "api_key",
			options:  fields.options() + "&$filter=name ne null and expiry_date ne null&$orderby=id asc",
		}
		err := f.get(ctx, r, func(d *decoder) error {
			return decodeAll(d, fields, Key{}, func(row *Key) error {
				keys = append(keys, *row)
				return nil
			})
		})
		return keys, err
	})
}
