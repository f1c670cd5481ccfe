// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// facts are the true state of the account at a moment: the snapshot of a new client without faults, and all device types,
// releases and organizations of the server, including unused ones.
type facts struct {
	*balena.Snapshot
	types         map[int64]string
	releases      map[int64]releaseFacts
	organizations map[int64]balena.Organization
	// fleetOf maps all devices, in reach or not, to their fleets. services and tags map them to numbers of services and tags.
	fleetOf        map[int64]int64
	services, tags map[int64]int
}

type releaseFacts struct {
	version, status string
	final           bool
}

// observe returns the current facts, as read with a version of the API.
func (t *replay) observe(version balena.Version) (facts, error) {
	config := t.config
	config.Version, config.PageSize, config.FullRefreshInterval, config.UserAgent = version, 1000, 0, referenceAgent
	client, err := newReader(config)
	if err != nil {
		return facts{}, err
	}
	defer client.Close()
	s, err := client.Fetch(context.Background())
	if err != nil {
		s, err = client.Fetch(context.Background()) // some responses must be confirmed by a second refresh
	}
	if err == nil {
		err = failure(s)
	}
	if err != nil {
		return facts{}, fmt.Errorf("the reference client fails: %w", err)
	}
	f := facts{
		Snapshot: s, types: map[int64]string{}, releases: map[int64]releaseFacts{}, organizations: map[int64]balena.Organization{},
		fleetOf: map[int64]int64{}, services: map[int64]int{}, tags: map[int64]int{},
	}
	t.sim.Update(func(st *simulator.State) {
		for _, dt := range st.DeviceTypes.All() {
			f.types[int64(dt.ID)] = dt.Slug
		}
		for _, d := range st.Devices.All() {
			f.fleetOf[int64(d.ID)] = int64(d.FleetID)
		}
		for _, i := range st.Installs.All() {
			if i.Status != "deleted" {
				f.services[int64(i.DeviceID)]++
			}
		}
		for _, tag := range st.DeviceTags.All() {
			if requestsTag(t.config, tag.Key) {
				f.tags[int64(tag.DeviceID)]++
			}
		}
		for _, r := range st.Releases.All() {
			f.releases[int64(r.ID)] = releaseFacts{r.RawVersion, r.Status, r.IsFinal}
		}
		for _, o := range st.Organizations.All() {
			f.organizations[int64(o.ID)] = balena.Organization{
				ID: int64(o.ID), Handle: o.Handle, Name: o.Name, Frozen: o.IsFrozen, PastDue: balena.Instant(o.PastDueInvoiceSince),
			}
		}
	})
	return f, nil
}

// requestsTag reports whether the exporter requests the device tags with a key.
func requestsTag(config account.Config, key string) bool {
	return key == config.MaintenanceTag || slices.ContainsFunc(config.DeviceTags, func(pattern string) bool {
		prefix, open := strings.CutSuffix(pattern, "*")
		return key == pattern || open && strings.HasPrefix(key, prefix)
	})
}

// check returns an error if a snapshot that was read while the account changed is not correct. all contains the facts at each
// moment of the refresh, and before is the previous snapshot. A snapshot is correct if
//
//   - it contains each fleet and device that was in reach at all moments, with all attachments that existed at all moments.
//     For a device this applies only if its fleets are those of the snapshot, because a refresh reads the fleets first;
//   - it contains no fleet or device that was in reach at no moment;
//   - each row that was in reach at all moments has the values of one of these moments. Different rows may have the values
//     of different moments;
//   - values that are derived from several rows are derived from the rows in the snapshot.
//
// There is one exception. A deleted device, service or tag of the previous snapshot may remain for this refresh if the number of
// such rows in the snapshot is their number at one of the moments. The API reports a deletion only by a count, which does not
// change if another row is added during the refresh. check returns the number of remaining rows. After an undisturbed refresh,
// no deleted rows remain.
//
// Parts that failed, and services and tags that are late, are not checked.
func check(s, before *balena.Snapshot, all []facts, late bool) (remaining, error) {
	ok := map[balena.PartName]bool{}
	for _, p := range s.Parts {
		ok[p.Name] = p.Err == nil
	}
	if late {
		ok[balena.PartServices], ok[balena.PartDeviceTags] = false, false
	}
	c := comparison{s: s, before: before, all: all, succeeded: ok, comparable: true}
	for _, f := range all {
		// The facts must have been read with the same version of the API from the same kind of server.
		c.comparable = c.comparable && f.APIVersion == s.APIVersion
		if f.Devices.Len() > 0 && s.Devices.Len() > 0 && f.APIVersion == s.APIVersion && f.CloudFields != s.CloudFields {
			return remaining{}, fmt.Errorf("the snapshot has the fields of balenaCloud: %t", s.CloudFields)
		}
	}
	for _, check := range []func() error{c.fleets, c.devices, c.attachments, c.releases, c.organizations, c.keys} {
		if err := check(); err != nil {
			return remaining{}, fmt.Errorf("after a disturbed refresh of kind %s: %w", s.Reading.Kind, err)
		}
	}
	return c.remaining, nil
}

// remaining is the number of deleted rows that remain in a snapshot.
type remaining struct{ devices, services, tags int }

func (s *remaining) add(o remaining) {
	s.devices += o.devices
	s.services += o.services
	s.tags += o.tags
}

// maxTags is the number of keys of tags of fleets.
const maxTags = 2

type comparison struct {
	s          *balena.Snapshot
	before     *balena.Snapshot // the previous snapshot, or nil
	all        []facts
	succeeded  map[balena.PartName]bool // the parts that did not fail
	comparable bool                     // the rows can be compared
	remaining  remaining
}

// always reports whether a condition is true at all moments, and sometimes whether it is true at one of them.
func (c *comparison) always(condition func(facts) bool) bool {
	return !c.sometimes(func(f facts) bool { return !condition(f) })
}

func (c *comparison) sometimes(condition func(facts) bool) bool {
	return slices.ContainsFunc(c.all, condition)
}

func (c *comparison) fleets() error {
	for i := range c.all[0].Fleets {
		want := &c.all[0].Fleets[i]
		if c.s.Fleet(want.ID) == nil && c.always(func(f facts) bool { return f.Fleet(want.ID) != nil }) {
			return fmt.Errorf("fleet %d, %s, which existed during the whole refresh, is missing", want.ID, want.Slug)
		}
	}
	for i := range c.s.Fleets {
		got := &c.s.Fleets[i]
		// matches reports whether a condition is true for the fleet at one of the moments.
		matches := func(condition func(want *balena.Fleet) bool) bool {
			return c.sometimes(func(f facts) bool { want := f.Fleet(got.ID); return want != nil && condition(want) })
		}
		inReach := c.always(func(f facts) bool { return f.Fleet(got.ID) != nil })
		switch {
		case !matches(func(*balena.Fleet) bool { return true }):
			return fmt.Errorf("fleet %d, %s, never existed", got.ID, got.Slug)
		case !c.comparable:
			continue
		case !matches(func(want *balena.Fleet) bool { return fleetRow(want) == fleetRow(got) }):
			return fmt.Errorf("fleet %d had the values %+v at no moment", got.ID, fleetRow(got))
		case !inReach:
			continue
		case c.succeeded[balena.PartLatestReleases] && !matches(func(want *balena.Fleet) bool { return want.LatestRelease == got.LatestRelease }):
			return fmt.Errorf("the latest release of fleet %s was %+v at no moment", got.Slug, got.LatestRelease)
		}
		for key := range maxTags {
			tag := at(got.Tags, key)
			if c.succeeded[balena.PartFleetTags] && !matches(func(want *balena.Fleet) bool { return at(want.Tags, key) == tag }) {
				return fmt.Errorf("tag %d of fleet %s was %q at no moment", key, got.Slug, tag)
			}
		}
	}
	return nil
}

// at returns the value at an index, or the zero value.
func at[T any](values []T, i int) (v T) {
	if i < len(values) {
		v = values[i]
	}
	return v
}

// fleetRow returns the values of a fleet that come from one row.
func fleetRow(f *balena.Fleet) (row struct {
	uuid, name, slug, organization, deviceType, architecture string
	archived, tracksLatest                                   bool
	created                                                  balena.Instant
	target                                                   int64
},
) {
	row.uuid, row.name, row.slug, row.organization = f.UUID, f.Name, f.Slug, f.Organization
	row.deviceType, row.architecture = f.DeviceType, f.CPUArchitecture
	row.archived, row.tracksLatest, row.created, row.target = f.Archived, f.TracksLatest, f.Created, f.TargetRelease
	return row
}

// deviceRow returns the values of a device that come from one row.
func deviceRow(d *balena.Device) *balena.Device {
	row := *d
	row.Type, row.TargetRelease, row.Attachments, row.Installs, row.Maintenance = "", 0, nil, "", 0
	if row.PinnedRelease != 0 {
		row.TargetRelease = row.PinnedRelease
	}
	return &row
}

func (c *comparison) devices() error {
	for want := range c.all[0].Devices.All() {
		if c.s.Devices.Find(want.ID) == nil && c.alwaysInReach(want.ID) {
			return fmt.Errorf("device %d, which was in reach during the whole refresh, is missing", want.ID)
		}
	}
	for got := range c.s.Devices.All() {
		fleet := c.s.Fleet(got.FleetID)
		exists := c.sometimes(func(f facts) bool { return c.s.Fleet(f.fleetOf[got.ID]) != nil })
		if !exists && c.deviceMayRemain(got) {
			c.remaining.devices++
			exists = true
		}
		switch {
		case !exists:
			return fmt.Errorf("device %d never existed", got.ID)
		case fleet == nil:
			return fmt.Errorf("device %d is in fleet %d, which is missing", got.ID, got.FleetID)
		case got.TargetRelease != cmp.Or(got.PinnedRelease, fleet.TargetRelease):
			return fmt.Errorf("the target release of device %d is %d, but it is pinned to %d, and the target release of its fleet is %d",
				got.ID, got.TargetRelease, got.PinnedRelease, fleet.TargetRelease)
		case !c.comparable, !c.alwaysInReach(got.ID):
		case !c.sometimes(func(f facts) bool {
			want := f.Devices.Find(got.ID)
			return want != nil && deviceRow(want).Equal(deviceRow(got))
		}):
			return fmt.Errorf("device %d had the following values at no moment:\n%+v\nIts values were:\n%s", got.ID, *deviceRow(got), c.deviceRows(got.ID))
		case c.succeeded[balena.PartDeviceTypes] && !c.sometimes(func(f facts) bool { return f.types[got.TypeID] == got.Type }):
			return fmt.Errorf("device %d had the type %q at no moment", got.ID, got.Type)
		}
	}
	return nil
}

// deviceRows returns the rows of a device at all moments.
func (c *comparison) deviceRows(id int64) string {
	var rows []string
	for _, f := range c.all {
		if d := f.Devices.Find(id); d != nil {
			rows = append(rows, fmt.Sprintf("%+v", *deviceRow(d)))
		}
	}
	return strings.Join(rows, "\n")
}

// mayRemain reports whether deleted rows may remain for this refresh. count is the number of such rows in the snapshot, and
// counted returns their number at a moment.
func (c *comparison) mayRemain(count int, counted func(facts) int) bool {
	return c.s.Reading.Kind == balena.Incremental && len(c.all) > 1 && c.sometimes(func(f facts) bool { return counted(f) == count })
}

// deviceMayRemain reports whether a deleted device may remain. The API counts the devices of each fleet.
func (c *comparison) deviceMayRemain(d *balena.Device) bool {
	count := 0
	for other := range c.s.Devices.All() {
		if other.FleetID == d.FleetID {
			count++
		}
	}
	return c.inPrevious(d.ID) && c.mayRemain(count, func(f facts) (n int) {
		for _, fleet := range f.fleetOf {
			if fleet == d.FleetID {
				n++
			}
		}
		return n
	})
}

// inPrevious reports whether a device is in the previous snapshot.
func (c *comparison) inPrevious(device int64) bool {
	return c.before != nil && c.before.Devices.Find(device) != nil
}

// servicesMayRemain and tagsMayRemain report whether deleted services and tags may remain. The API counts those of the devices
// in reach.

func (c *comparison) servicesMayRemain() bool {
	count := 0
	for d := range c.s.Devices.All() {
		count += len(d.Services())
	}
	return c.mayRemain(count, func(f facts) int { return c.inReach(f, f.services) })
}

func (c *comparison) tagsMayRemain() bool {
	count := 0
	for d := range c.s.Devices.All() {
		for _, tag := range d.Tags() {
			if tag.ID != 0 {
				count++
			}
		}
	}
	return c.mayRemain(count, func(f facts) int { return c.inReach(f, f.tags) })
}

// inReach returns the number of rows of the devices in the fleets of the snapshot at a moment.
func (c *comparison) inReach(f facts, rows map[int64]int) (n int) {
	for device, number := range rows {
		if c.s.Fleet(f.fleetOf[device]) != nil {
			n += number
		}
	}
	return n
}

// alwaysInReach reports whether a device was in reach at all moments, in a fleet of the snapshot.
func (c *comparison) alwaysInReach(device int64) bool {
	return c.always(func(f facts) bool {
		d := f.Devices.Find(device)
		return d != nil && c.s.Fleet(d.FleetID) != nil
	})
}

func (c *comparison) attachments() error {
	servicesMayRemain, tagsMayRemain := c.servicesMayRemain(), c.tagsMayRemain()
	for got := range c.s.Devices.All() {
		if !c.alwaysInReach(got.ID) {
			continue
		}
		if c.succeeded[balena.PartServices] {
			if want := installsOf(got); got.Installs != want {
				return fmt.Errorf("the summary of services of device %d is %q, want %q", got.ID, got.Installs, want)
			}
			for _, service := range got.Services() {
				matches := func(f facts) bool { want, ok := serviceOn(f, got.ID, service.ID); return ok && want == service }
				switch {
				case c.sometimes(matches):
				case servicesMayRemain && matches(facts{Snapshot: c.before}):
					c.remaining.services++
				default:
					return fmt.Errorf("device %d had the service %+v at no moment", got.ID, service)
				}
			}
			for _, service := range c.all[0].Devices.Find(got.ID).Services() {
				exists := func(f facts) bool { _, ok := serviceOn(f, got.ID, service.ID); return ok }
				if !exists(facts{Snapshot: c.s}) && c.always(exists) {
					return fmt.Errorf("service %+v of device %d, which existed during the whole refresh, is missing", service, got.ID)
				}
			}
		}
		if c.succeeded[balena.PartDeviceTags] {
			for _, key := range []string{"site", "owner", "owner-2"} {
				tag := tagOf(c.s, got, key)
				matches := func(f facts) bool {
					want := f.Devices.Find(got.ID)
					return want != nil && tagOf(f.Snapshot, want, key) == tag
				}
				switch {
				case c.sometimes(matches):
				case tagsMayRemain && tag != "" && matches(facts{Snapshot: c.before}):
					c.remaining.tags++
				default:
					return fmt.Errorf("tag %s of device %d was %q at no moment", key, got.ID, tag)
				}
			}
		}
	}
	return nil
}

// tagOf returns the value of a tag of a device, or "".
func tagOf(s *balena.Snapshot, d *balena.Device, key string) string {
	i := slices.Index(s.DeviceTagKeys, key)
	if i < 0 {
		return ""
	}
	return at(d.Tags(), i).Value
}

// installsOf returns the summary of the services of a device.
func installsOf(d *balena.Device) balena.Installs {
	return balena.NewInstalls(d.Services())
}

func serviceOn(f facts, device, id int64) (balena.Service, bool) {
	d := f.Devices.Find(device)
	if d == nil {
		return balena.Service{}, false
	}
	i := slices.IndexFunc(d.Services(), func(s balena.Service) bool { return s.ID == id })
	if i < 0 {
		return balena.Service{}, false
	}
	return d.Services()[i], true
}

func (c *comparison) releases() error {
	if !c.succeeded[balena.PartReleases] || !c.comparable {
		return nil
	}
	for id, got := range c.s.Releases {
		if !c.sometimes(func(f facts) bool { return f.releases[id] == releaseFacts{got.Version, got.Status, got.Final} }) {
			return fmt.Errorf("release %d had the values %+v at no moment", id, got)
		}
	}
	// The snapshot must have the used releases that existed at all moments.
	missing := func(ids ...int64) error {
		for _, id := range ids {
			_, exists := c.s.Releases[id]
			if id != 0 && !exists && c.always(func(f facts) bool { _, ok := f.Releases[id]; return ok }) {
				return fmt.Errorf("release %d is missing", id)
			}
		}
		return nil
	}
	for i := range c.s.Fleets {
		if err := missing(c.s.Fleets[i].TargetRelease); err != nil {
			return err
		}
	}
	for d := range c.s.Devices.All() {
		if err := missing(d.RunningRelease, d.PinnedRelease, d.OSTarget, d.SupervisorTarget); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) organizations() error {
	// Without devices, clients cannot detect balenaCloud.
	if !c.succeeded[balena.PartOrganizations] || c.sometimes(func(f facts) bool { return !f.CloudFields }) {
		return nil
	}
	for _, got := range c.s.Organizations {
		if !c.sometimes(func(f facts) bool { return f.organizations[got.ID] == got }) {
			return fmt.Errorf("organization %d had the values %+v at no moment", got.ID, got)
		}
	}
	return nil
}

func (c *comparison) keys() error {
	if !c.succeeded[balena.PartKeys] {
		return nil
	}
	for _, got := range c.s.Keys {
		if !c.sometimes(func(f facts) bool { return slices.Contains(f.Keys, got) }) {
			return fmt.Errorf("API key %+v never existed", got)
		}
	}
	for _, want := range c.all[0].Keys {
		exists := func(f facts) bool {
			return slices.ContainsFunc(f.Keys, func(k balena.Key) bool { return k.ID == want.ID })
		}
		if !exists(facts{Snapshot: c.s}) && c.always(exists) {
			return fmt.Errorf("API key %+v is missing", want)
		}
	}
	return nil
}
