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
// releases and organizations of the server, even if nothing refers to them.
type facts struct {
	*balena.Snapshot
	types         map[int64]string
	releases      map[int64]releaseFacts
	organizations map[int64]balena.Organization
	// fleetOf maps all devices, in reach or not, to their fleets; services and tags map devices to the number of theirs.
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
	config.Version, config.PageSize, config.FullRefreshInterval, config.UserAgent = version, 1000, 0, truthful
	client, err := newReader(config)
	if err != nil {
		return facts{}, err
	}
	defer client.Close()
	s, err := client.Fetch(context.Background())
	if err != nil {
		s, err = client.Fetch(context.Background()) // again, because some answers must be confirmed by a second refresh
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
			if asksFor(t.config, tag.Key) {
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

// asksFor reports whether the exporter asks for the tags of devices with a key, and counts them.
func asksFor(config account.Config, key string) bool {
	return key == config.MaintenanceTag || slices.ContainsFunc(config.DeviceTags, func(pattern string) bool {
		prefix, open := strings.CutSuffix(pattern, "*")
		return key == pattern || open && strings.HasPrefix(key, prefix)
	})
}

// check returns an error if a snapshot that was read while the account changed is wrong. all holds the facts at each
// moment of the refresh, before is the previous snapshot. A snapshot is correct if
//
//   - it contains each fleet and device that was in reach at all moments, with all attachments that existed at all moments.
//     For a device this applies only if its fleets are those of the snapshot, because a refresh reads the fleets first;
//   - it contains no fleet or device that was in reach at no moment;
//   - each row that was in reach at all moments has the values of one of these moments. Different rows may have the values
//     of different moments;
//   - values that are derived from several rows are derived from the rows in the snapshot.
//
// There is one exclusion. A deleted device, service or tag of the previous snapshot may stay for this refresh if the number
// of such rows at one of the moments is the number of those in the snapshot. The API reports a deletion only by a count, and
// another row that is added or removed during the refresh makes up for it. check returns the number of rows that stayed.
// An undisturbed refresh has none of them.
//
// Parts that failed, and services and tags that are late, are not checked.
func check(s, before *balena.Snapshot, all []facts, late bool) (stayed, error) {
	ok := map[balena.PartName]bool{}
	for _, p := range s.Parts {
		ok[p.Name] = p.Err == nil
	}
	if late {
		ok[balena.PartServices], ok[balena.PartDeviceTags] = false, false
	}
	c := comparison{s: s, before: before, all: all, ok: ok, rows: true}
	for _, f := range all {
		// The facts must have been read with the same version of the API from the same kind of server.
		c.rows = c.rows && f.APIVersion == s.APIVersion
		if f.Devices.Len() > 0 && s.Devices.Len() > 0 && f.APIVersion == s.APIVersion && f.CloudFields != s.CloudFields {
			return stayed{}, fmt.Errorf("the snapshot has the fields of balenaCloud: %t", s.CloudFields)
		}
	}
	for _, check := range []func() error{c.fleets, c.devices, c.belongings, c.releases, c.organizations, c.keys} {
		if err := check(); err != nil {
			return stayed{}, fmt.Errorf("after a disturbed refresh of kind %s: %w", s.Reading.Kind, err)
		}
	}
	return c.stayed, nil
}

// stayed is the number of deleted rows that a refresh left in the snapshot.
type stayed struct{ devices, services, tags int }

func (s *stayed) add(o stayed) {
	s.devices += o.devices
	s.services += o.services
	s.tags += o.tags
}

// maxTags is the number of keys of tags of fleets.
const maxTags = 2

type comparison struct {
	s      *balena.Snapshot
	before *balena.Snapshot // the previous snapshot, or nil
	all    []facts
	ok     map[balena.PartName]bool // the parts that did not fail
	rows   bool                     // the rows can be compared
	stayed stayed
}

// everywhere reports whether a condition holds at all moments, somewhere whether it holds at one of them.
func (c *comparison) everywhere(so func(facts) bool) bool {
	return !c.somewhere(func(f facts) bool { return !so(f) })
}

func (c *comparison) somewhere(so func(facts) bool) bool { return slices.ContainsFunc(c.all, so) }

func (c *comparison) fleets() error {
	for i := range c.all[0].Fleets {
		is := &c.all[0].Fleets[i]
		if c.s.Fleet(is.ID) == nil && c.everywhere(func(f facts) bool { return f.Fleet(is.ID) != nil }) {
			return fmt.Errorf("fleet %d, %s, which existed during the whole refresh, is missing", is.ID, is.Slug)
		}
	}
	for i := range c.s.Fleets {
		is := &c.s.Fleets[i]
		// as reports whether the fleet has the values of one of the moments.
		as := func(so func(was *balena.Fleet) bool) bool {
			return c.somewhere(func(f facts) bool { was := f.Fleet(is.ID); return was != nil && so(was) })
		}
		allAlong := c.everywhere(func(f facts) bool { return f.Fleet(is.ID) != nil })
		switch {
		case !as(func(*balena.Fleet) bool { return true }):
			return fmt.Errorf("fleet %d, %s, never existed", is.ID, is.Slug)
		case !c.rows:
			continue
		case !as(func(was *balena.Fleet) bool { return fleetRow(was) == fleetRow(is) }):
			return fmt.Errorf("fleet %d never was %+v", is.ID, fleetRow(is))
		case !allAlong:
			continue
		case c.ok[balena.PartLatestReleases] && !as(func(was *balena.Fleet) bool { return was.LatestRelease == is.LatestRelease }):
			return fmt.Errorf("the newest release of fleet %s never was %+v", is.Slug, is.LatestRelease)
		}
		for key := range maxTags {
			tag := at(is.Tags, key)
			if c.ok[balena.PartFleetTags] && !as(func(was *balena.Fleet) bool { return at(was.Tags, key) == tag }) {
				return fmt.Errorf("tag %d of fleet %s never was %q", key, is.Slug, tag)
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
	for was := range c.all[0].Devices.All() {
		if c.s.Devices.Find(was.ID) == nil && c.allAlong(was.ID) {
			return fmt.Errorf("device %d, which was in reach during the whole refresh, is missing", was.ID)
		}
	}
	for is := range c.s.Devices.All() {
		fleet := c.s.Fleet(is.FleetID)
		there := c.somewhere(func(f facts) bool { return c.s.Fleet(f.fleetOf[is.ID]) != nil })
		if !there && c.deviceMayStay(is) {
			c.stayed.devices++
			there = true
		}
		switch {
		case !there:
			return fmt.Errorf("device %d never existed", is.ID)
		case fleet == nil:
			return fmt.Errorf("device %d is in fleet %d, which is missing", is.ID, is.FleetID)
		case is.TargetRelease != cmp.Or(is.PinnedRelease, fleet.TargetRelease):
			return fmt.Errorf("device %d should run release %d, is pinned on %d and of a fleet that should run %d",
				is.ID, is.TargetRelease, is.PinnedRelease, fleet.TargetRelease)
		case !c.rows, !c.allAlong(is.ID):
		case !c.somewhere(func(f facts) bool {
			was := f.Devices.Find(is.ID)
			return was != nil && deviceRow(was).Equal(deviceRow(is))
		}):
			return fmt.Errorf("device %d never was\n%+v\nbut\n%s", is.ID, *deviceRow(is), c.was(is.ID))
		case c.ok[balena.PartDeviceTypes] && !c.somewhere(func(f facts) bool { return f.types[is.TypeID] == is.Type }):
			return fmt.Errorf("device %d is of type %q, and never was", is.ID, is.Type)
		}
	}
	return nil
}

// was returns the rows of a device at all moments.
func (c *comparison) was(id int64) string {
	var rows []string
	for _, f := range c.all {
		if d := f.Devices.Find(id); d != nil {
			rows = append(rows, fmt.Sprintf("%+v", *deviceRow(d)))
		}
	}
	return strings.Join(rows, "\n")
}

// mayStay reports whether deleted rows may stay for this refresh. known is the number of rows of their kind in the snapshot,
// and counted returns the number of them at a moment.
func (c *comparison) mayStay(known int, counted func(facts) int) bool {
	return c.s.Reading.Kind == balena.Incremental && len(c.all) > 1 && c.somewhere(func(f facts) bool { return counted(f) == known })
}

// deviceMayStay reports whether a deleted device may stay. The API counts the devices of each fleet.
func (c *comparison) deviceMayStay(d *balena.Device) bool {
	known := 0
	for other := range c.s.Devices.All() {
		if other.FleetID == d.FleetID {
			known++
		}
	}
	return c.stays(d.ID) && c.mayStay(known, func(f facts) (n int) {
		for _, fleet := range f.fleetOf {
			if fleet == d.FleetID {
				n++
			}
		}
		return n
	})
}

// stays reports whether a device was in the previous snapshot.
func (c *comparison) stays(device int64) bool {
	return c.before != nil && c.before.Devices.Find(device) != nil
}

// servicesMayStay and tagsMayStay report whether deleted services and tags may stay. The API counts those of the devices in
// reach.

func (c *comparison) servicesMayStay() bool {
	known := 0
	for d := range c.s.Devices.All() {
		known += len(d.Services())
	}
	return c.mayStay(known, func(f facts) int { return c.inReach(f, f.services) })
}

func (c *comparison) tagsMayStay() bool {
	known := 0
	for d := range c.s.Devices.All() {
		for _, tag := range d.Tags() {
			if tag.ID != 0 {
				known++
			}
		}
	}
	return c.mayStay(known, func(f facts) int { return c.inReach(f, f.tags) })
}

// inReach returns the number of rows that the devices of the snapshot's fleets have at a moment.
func (c *comparison) inReach(f facts, rows map[int64]int) (n int) {
	for device, has := range rows {
		if c.s.Fleet(f.fleetOf[device]) != nil {
			n += has
		}
	}
	return n
}

// allAlong reports whether a device was in reach at all moments, in a fleet of the snapshot.
func (c *comparison) allAlong(device int64) bool {
	return c.everywhere(func(f facts) bool {
		d := f.Devices.Find(device)
		return d != nil && c.s.Fleet(d.FleetID) != nil
	})
}

func (c *comparison) belongings() error {
	servicesMayStay, tagsMayStay := c.servicesMayStay(), c.tagsMayStay()
	for is := range c.s.Devices.All() {
		if !c.allAlong(is.ID) {
			continue
		}
		if c.ok[balena.PartServices] {
			if made := installsOf(is); is.Installs != made {
				return fmt.Errorf("device %d has the services %q, and they make %q", is.ID, is.Installs, made)
			}
			for _, service := range is.Services() {
				as := func(f facts) bool { was, ok := serviceOn(f, is.ID, service.ID); return ok && was == service }
				switch {
				case c.somewhere(as):
				case servicesMayStay && as(facts{Snapshot: c.before}):
					c.stayed.services++
				default:
					return fmt.Errorf("device %d never had a service %+v", is.ID, service)
				}
			}
			for _, service := range c.all[0].Devices.Find(is.ID).Services() {
				has := func(f facts) bool { _, ok := serviceOn(f, is.ID, service.ID); return ok }
				if !has(facts{Snapshot: c.s}) && c.everywhere(has) {
					return fmt.Errorf("device %d has lost service %+v, which existed during the whole refresh", is.ID, service)
				}
			}
		}
		if c.ok[balena.PartDeviceTags] {
			for _, key := range []string{"site", "owner", "owner-2"} {
				tag := tagOf(c.s, is, key)
				as := func(f facts) bool {
					was := f.Devices.Find(is.ID)
					return was != nil && tagOf(f.Snapshot, was, key) == tag
				}
				switch {
				case c.somewhere(as):
				case tagsMayStay && tag != "" && as(facts{Snapshot: c.before}):
					c.stayed.tags++
				default:
					return fmt.Errorf("tag %s of device %d never was %q", key, is.ID, tag)
				}
			}
		}
	}
	return nil
}

// tagOf is the value of a device's tag, empty without one.
func tagOf(s *balena.Snapshot, d *balena.Device, key string) string {
	i := slices.Index(s.DeviceTagKeys, key)
	if i < 0 {
		return ""
	}
	return at(d.Tags(), i).Value
}

// installsOf are the installs that a device's services make.
func installsOf(d *balena.Device) balena.Installs {
	return balena.NewInstalls(func(service func(release int64, status string)) {
		for _, s := range d.Services() {
			service(s.Release, s.Status)
		}
	})
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
	if !c.ok[balena.PartReleases] || !c.rows {
		return nil
	}
	for id, is := range c.s.Releases {
		if !c.somewhere(func(f facts) bool { return f.releases[id] == releaseFacts{is.Version, is.Status, is.Final} }) {
			return fmt.Errorf("release %d never was %+v", id, is)
		}
	}
	// The snapshot must have the releases to which something refers, if they existed at all moments.
	missing := func(ids ...int64) error {
		for _, id := range ids {
			_, there := c.s.Releases[id]
			if id != 0 && !there && c.everywhere(func(f facts) bool { _, ok := f.Releases[id]; return ok }) {
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
	// Of an account without devices nobody knows whether it is one of balenaCloud.
	if !c.ok[balena.PartOrganizations] || c.somewhere(func(f facts) bool { return !f.CloudFields }) {
		return nil
	}
	for _, is := range c.s.Organizations {
		if !c.somewhere(func(f facts) bool { return f.organizations[is.ID] == is }) {
			return fmt.Errorf("organization %d never was %+v", is.ID, is)
		}
	}
	return nil
}

func (c *comparison) keys() error {
	if !c.ok[balena.PartKeys] {
		return nil
	}
	for _, is := range c.s.Keys {
		if !c.somewhere(func(f facts) bool { return slices.Contains(f.Keys, is) }) {
			return fmt.Errorf("API key %+v never existed", is)
		}
	}
	for _, was := range c.all[0].Keys {
		has := func(f facts) bool {
			return slices.ContainsFunc(f.Keys, func(k balena.Key) bool { return k.ID == was.ID })
		}
		if !has(facts{Snapshot: c.s}) && c.everywhere(has) {
			return fmt.Errorf("API key %+v is missing", was)
		}
	}
	return nil
}
