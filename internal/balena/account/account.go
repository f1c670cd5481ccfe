// SPDX-License-Identifier: Apache-2.0

package account

import (
	"cmp"
	"context"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// Config configures a Reader.
type Config struct {
	api.Config
	Options
	// Version pins the version of the API; empty means v7, or v6 if the server has no v7.
	Version balena.Version
	// PageSize is the number of rows per page.
	PageSize int
}

// Options selects the fleets, and what to read in addition to them.
type Options struct {
	// Devices reads the fields that no sum over a fleet needs.
	Devices bool
	// Unneeded are those of [MetricFields] that are not asked for, because no metric needs them.
	Unneeded []string
	// Releases reads the newest release of each fleet. Running releases and target releases are always read.
	Releases bool
	// Services reads the services of each device.
	Services bool
	// ServiceSummary asks how many services of each release are on each device, and how many of them run.
	ServiceSummary bool
	// Keys reads the caller's API keys that expire.
	Keys bool
	// OS reads the releases of balenaOS and of the supervisor that the server publishes for the device types in use.
	OS bool
	// Location asks where devices are, which only balenaCloud knows.
	Location bool
	// Targets reads the fields that only service discovery needs. With Devices they are read anyway.
	Targets bool
	// LocalAddresses asks for the addresses that devices have on their own networks.
	LocalAddresses bool
	// DeviceURLs asks for the domain of public device URLs.
	DeviceURLs bool
	// DeviceTags and FleetTags are the keys of the tags to read. One that ends in "*" stands for all keys that begin
	// so, of which there may be TagLimit.
	DeviceTags, FleetTags []string
	TagLimit              int
	// MaintenanceTag is the key of the tag that says that a device or fleet is in maintenance; empty for none.
	MaintenanceTag string
	// Include and Exclude select fleets by slug; nil selects all.
	Include, Exclude *regexp.Regexp
	// ArchivedFleets reads archived fleets too.
	ArchivedFleets bool
	// Shard is the part of the fleets to read.
	Shard balena.Shard
	// Stripes is into how many stripes the devices of snapshots are divided; 0 means one. See [balena.Devices].
	Stripes int
	// SlowInterval is how often to ask for what rarely changes: newest releases, device types, organizations, keys.
	SlowInterval time.Duration
	// FullRefreshInterval is the maximum time between full refreshes. The refreshes between them are incremental. 0 means
	// that every refresh is a full one.
	FullRefreshInterval time.Duration
	// Keep is how long the last data of a failing part are used.
	Keep time.Duration
}

// Reader reads snapshots of one account. Only one goroutine at a time may call Fetch or CountFleets; the other methods are
// safe for concurrent use.
type Reader struct {
	client *api.Client
	config Config
	state  state
}

// New returns a reader without any data. It fails if the CA file cannot be read or holds no certificate.
func New(config Config) (*Reader, error) {
	client, err := api.New(config.Config)
	if err != nil {
		return nil, err
	}
	return &Reader{client: client, config: config}, nil
}

// Close closes idle connections.
func (r *Reader) Close() { r.client.Close() }

// TokenExpiry returns when the current token expires. It is known for session tokens only, and zero otherwise.
func (r *Reader) TokenExpiry() time.Time { return r.client.TokenExpiry() }

// Fetch reads a complete snapshot, or returns an error: an [*api.Error] or that of a canceled context.
// Optional parts may fail without making the refresh fail; see [balena.Snapshot.Parts].
func (r *Reader) Fetch(ctx context.Context) (*balena.Snapshot, error) {
	var snapshot *balena.Snapshot
	var err error
	r.state, snapshot, err = r.next(ctx, r.state)
	return snapshot, err
}

// state is everything that one refresh passes to the next. It is a value: the content of its maps does not change after it
// was returned.
type state struct {
	known known
	trust trust
	parts parts
}

// known is the account as read by the last successful refresh.
type known struct {
	devices balena.Devices
	// fleetCount is the number of fleets that the server listed, selected or not.
	fleetCount int
	// devicesOf is the number of devices by the ID of the fleet.
	devicesOf map[int64]int
	// fleets are the selected fleets, and typeSlugs the slugs of device types, by ID.
	fleets    map[int64]*balena.Fleet
	typeSlugs map[int64]string
	// horizon is the time up to which changes of devices are known.
	horizon horizon
	clock   api.Clock
	// full is the beginning of the last full refresh; zero if there was none.
	full  time.Time
	token uint64 // its fingerprint
	asked dialect
	// outside is set if the queries for devices return devices of fleets that are not selected.
	outside bool
}

// refresh is a refresh in progress.
type refresh struct {
	client *api.Client
	config *Config
	// before is the result of the last refresh, after the result of this one if it succeeds.
	before   known
	after    known
	trust    trust
	parts    parts
	snapshot *balena.Snapshot

	// counted is the server's count of the devices of each selected fleet, reachable that of all listed fleets together.
	counted   map[int64]int
	reachable int
	// reported are the devices whose rows an incremental refresh read, added those of them that the previous refresh did
	// not know; both in ascending order.
	reported, added []int64
}

// next performs a refresh, given the state after the last one.
func (r *Reader) next(ctx context.Context, before state) (state, *balena.Snapshot, error) {
	f := &refresh{
		client: r.client, config: &r.config,
		before: before.known, trust: before.trust, parts: before.parts,
		snapshot: &balena.Snapshot{Time: r.client.Now(), Releases: map[int64]balena.Release{}},
	}
	received := r.client.Received()
	err := f.read(ctx)
	switch {
	case ctx.Err() != nil:
		return before, nil, ctx.Err()
	case err != nil:
		before.trust = f.trust
		return before, nil, err
	}
	f.remember()
	f.snapshot.APIVersion = f.after.asked.version
	f.snapshot.CloudFields = f.trust.cloud.holds(true)
	f.snapshot.Reading.Bytes = r.client.Received() - received
	return state{f.after, f.trust, f.parts}, f.snapshot, nil
}

func (f *refresh) read(ctx context.Context) error {
	token, err := f.client.ReadToken(ctx)
	if err != nil {
		return err
	}
	f.after.token = token
	if err := f.readFleets(ctx); err != nil {
		return err
	}
	if err := f.readDevices(ctx); err != nil {
		return err
	}
	f.readDeviceTypes(ctx)
	f.readOrganizations(ctx)
	f.readReleases(ctx)
	f.readServices(ctx)
	f.readFleetTags(ctx)
	f.readDeviceTags(ctx)
	f.readKeys(ctx)
	f.readSystemReleases(ctx)
	f.readDeviceURLs(ctx)
	return nil
}

// remember completes the state for the next refresh, and counts the changes of this one.
func (f *refresh) remember() {
	s := f.snapshot
	counts := maps.Clone(f.before.devicesOf)
	if counts == nil {
		counts = map[int64]int{}
	}
	for was, is := range s.Devices.Differences(f.before.devices) {
		s.Reading.Changed++
		if was != nil {
			counts[was.FleetID]--
		}
		if is != nil {
			counts[is.FleetID]++
		}
	}
	maps.DeleteFunc(counts, func(_ int64, n int) bool { return n == 0 })
	f.after.devices, f.after.devicesOf, f.after.full = s.Devices, counts, f.before.full
	if s.Reading.Kind == balena.Full {
		f.after.full = s.Time
	}
}

// kept is the last value of a part of a refresh, with its time and origin.
type kept[T any] struct {
	value T
	at    time.Time
	part  balena.Part
	// renew makes the next refresh read the part, however young its value is.
	renew bool
}

// part reads an optional part of the refresh, unless its last value is younger than every. If reading
// fails, the last value is used until it is too old.
func part[T any](
	ctx context.Context, f *refresh, name balena.PartName, last *kept[T], every time.Duration, read func(context.Context) (T, error),
) T {
	now := f.snapshot.Time
	if last.at.IsZero() || last.part.Err != nil || last.renew || now.Sub(last.at) >= every {
		began := f.client.Now()
		value, err := read(ctx)
		last.part = balena.Part{Name: name, Duration: f.client.Now().Sub(began), Err: err}
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

// query returns a query for the rows of a resource that match a filter. A list that is longer than limit cannot be correct; 0
// stands for maxFullPages.
func query[T any](f *refresh, resource string, fields api.Record[T], filter string, limit int) api.Query[T] {
	return api.Query[T]{
		Version: f.after.asked.version, Resource: resource, Fields: fields, Filter: filter, Initial: fields.Null(),
		PageSize: f.config.PageSize, Limit: cmp.Or(limit, maxFullPages*f.config.PageSize),
	}
}

// list calls each for every row of a query. It passes the same variable every time.
func list[T any](ctx context.Context, f *refresh, q api.Query[T], each func(*T) error) error {
	_, err := api.List(ctx, f.client, q, each)
	return err
}

// listSome is list for keys that do not fit into one request. It sends the query for n of them at a time.
func listSome[K, T any](ctx context.Context, f *refresh, keys []K, n int, q func([]K) api.Query[T], each func(*T) error) error {
	for some := range slices.Chunk(keys, n) {
		if err := list(ctx, f, q(some), each); err != nil {
			return err
		}
	}
	return nil
}
