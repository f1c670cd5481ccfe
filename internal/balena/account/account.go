// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"maps"
	"regexp"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// Config says which server to ask, and for what.
type Config struct {
	api.Config
	Options
	// Version pins the version of the API; empty means v7, and v6 where there is no v7.
	Version balena.Version
	// PageSize is how many rows are asked for at a time.
	PageSize int
}

// Options says what to read beside the fleets.
type Options struct {
	// Devices asks for the fields that only metrics of single devices need.
	Devices bool
	// Unneeded are those of [MetricFields] that are not asked for, because no metric needs them.
	Unneeded []string
	// Releases asks for the newest release of each fleet. Those that run or should run are always read.
	Releases bool
	// Services asks for the services on each device.
	Services bool
	// ServiceSummary asks how many services of each release are on each device, and how many of them run.
	ServiceSummary bool
	// Keys asks for the caller's API keys that expire.
	Keys bool
	// Targets asks for what service discovery tells of a device; with Devices, all of it is read anyway.
	Targets bool
	// LocalAddresses asks for the addresses that devices have on their own networks.
	LocalAddresses bool
	// DeviceURLs asks for the domain of public device URLs.
	DeviceURLs bool
	// DeviceTags and FleetTags are the keys of the tags to ask for. One that ends in "*" stands for all keys that begin
	// so, of which there may be TagLimit.
	DeviceTags, FleetTags []string
	TagLimit              int
	// MaintenanceTag is the key of the tag that says that a device or fleet is in maintenance; empty for none.
	MaintenanceTag string
	// Include and Exclude choose fleets by slug; nil for no choice.
	Include, Exclude *regexp.Regexp
	// ArchivedFleets reads archived fleets, too.
	ArchivedFleets bool
	// Shard is the part of the fleets to read.
	Shard balena.Shard
	// Stripes is into how many stripes the devices of snapshots are divided; 0 means one. See [balena.Devices].
	Stripes int
	// SlowInterval is how often to ask for what rarely changes: newest releases, device types, organizations, keys.
	SlowInterval time.Duration
	// FullRefreshInterval is how often everything is read at least; a refresh between asks for what changed. 0 means
	// that every refresh is a full one.
	FullRefreshInterval time.Duration
	// Keep is how long the last data of a part that fails stand in for it.
	Keep time.Duration
}

// Reader reads snapshots of one account. Fetch may be called by one goroutine at a time; the other methods by any.
type Reader struct {
	client *api.Client
	config Config
	state  state
}

// New returns a reader that knows nothing yet. It fails on a CA file that can't be read or holds no certificate.
func New(config Config) (*Reader, error) {
	client, err := api.New(config.Config)
	if err != nil {
		return nil, err
	}
	return &Reader{client: client, config: config}, nil
}

// Close closes idle connections.
func (r *Reader) Close() { r.client.Close() }

// TokenExpiry is when the token in use expires: known of session tokens only, zero otherwise.
func (r *Reader) TokenExpiry() time.Time { return r.client.TokenExpiry() }

// Fetch reads a snapshot: all of it or an error, which is an [*api.Error] or that of a cancelled context.
// Parts beside fleets and devices may fail without failing the whole; see [balena.Snapshot.Parts].
func (r *Reader) Fetch(ctx context.Context) (*balena.Snapshot, error) {
	var snapshot *balena.Snapshot
	var err error
	r.state, snapshot, err = r.next(ctx, r.state)
	return snapshot, err
}

// state is all that one refresh leaves for the next. It is a value: nothing changes what its maps hold once it was
// returned.
type state struct {
	known known
	trust trust
	parts parts
}

// known is the account as the last successful refresh read it.
type known struct {
	devices balena.Devices
	// listed is how many fleets the server listed, chosen or not.
	listed int
	// devicesOf are the numbers of devices by the ID of the fleet, targets the chosen fleets' target releases.
	devicesOf map[int64]int
	targets   map[int64]int64
	typeSlugs map[int64]string
	// horizon is up to when the devices' changes are known.
	horizon horizon
	clock   api.Clock
	// full is when the last full refresh began; zero when there was none.
	full  time.Time
	token uint64 // its fingerprint
	asked dialect
	// outside is set if devices within reach belong to no chosen fleet.
	outside bool
}

// refresh is a refresh under way.
type refresh struct {
	client *api.Client
	config *Config
	// before is what the last refresh left, and after what this one leaves if it succeeds.
	before   known
	after    known
	trust    trust
	parts    parts
	snapshot *balena.Snapshot

	// fleets and typeSlugs find fleets and device types by ID; counted is how many devices the server counts in each
	// chosen fleet, and reachable how many in all that it lists.
	fleets    map[int64]*balena.Fleet
	typeSlugs map[int64]string
	counted   map[int64]int
	reachable int
	// reported are the devices whose rows an incremental refresh read, and added those among them that the refresh before
	// did not know; both in ascending order.
	reported, added []int64
}

// next reads the account once more, given what the last refresh left.
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
	f.snapshot.CloudFields = f.trust.cloud.is(true)
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
	f.readDeviceURLs(ctx)
	return nil
}

// remember completes what the next refresh builds on, and counts what this one changed.
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
	targets := make(map[int64]int64, len(s.Fleets))
	for i := range s.Fleets {
		targets[s.Fleets[i].ID] = s.Fleets[i].TargetRelease
	}
	f.after.devices, f.after.devicesOf, f.after.targets, f.after.typeSlugs = s.Devices, counts, targets, f.typeSlugs
	f.after.full = f.before.full
	if s.Reading.Kind == balena.Full {
		f.after.full = s.Time
	}
}

// kept is the last value of a part of a refresh, and how it was come by.
type kept[T any] struct {
	value T
	at    time.Time
	part  balena.Part
}

// part reads an optional part of the refresh, unless what was read of it last is younger than every. When
// reading fails, the last value stands in until it is too old.
func part[T any](f *refresh, name balena.PartName, last *kept[T], every time.Duration, read func() (T, error)) T {
	now := f.snapshot.Time
	if last.at.IsZero() || last.part.Err != nil || now.Sub(last.at) >= every {
		began := f.client.Now()
		value, err := read()
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
