// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// An Edition is a kind of simulated server. The editions differ in their fields: openBalena has created_at and
// modified_at in every resource, balenaCloud has only the fields that it declares.
type Edition string

// The editions.
const (
	OpenBalena Edition = "openbalena"
	Cloud      Edition = "cloud"
)

// Editions returns the names of all editions.
func Editions() []string { return []string{string(OpenBalena), string(Cloud)} }

func (e Edition) schema() schema {
	if e == Cloud {
		return cloudSchema()
	}
	return openSchema
}

// A declaration declares a field in a model. Type is a type of the model, "reference" for a foreign key, or "navigation" for
// the reverse of a foreign key.
type declaration struct {
	Type   string `json:"type"`
	Null   bool   `json:"null"`
	Target string `json:"target,omitempty"`
}

//go:embed cloudmodel.json
var cloudModelJSON []byte

// cloudModel holds the fields that balenaCloud declares for its resources, with the type names of the model. cloudSynonyms maps
// other names of resources to their names in cloudModel.
var cloudModel, cloudSynonyms = func() (map[string]map[string]declaration, map[string]string) {
	var file struct {
		Resources map[string]map[string]declaration
		Synonyms  map[string]string
	}
	if err := json.Unmarshal(cloudModelJSON, &file); err != nil {
		panic(err) // the file is part of the program
	}
	return file.Resources, file.Synonyms
}()

var cloudSchema = sync.OnceValue(func() schema {
	s := newSchema()
	for name, declared := range cloudModel {
		r := s[name]
		r.fields = slices.DeleteFunc(r.fields, func(f *field) bool {
			_, ok := declared[f.name]
			return !ok && f.only != onlyV6
		})
		maps.DeleteFunc(r.navs, func(name string, _ navigation) bool { _, ok := declared[name]; return !ok })
		maps.DeleteFunc(r.byName, func(name string, f *field) bool { return !slices.Contains(r.fields, f) })
		for _, name := range slices.Sorted(maps.Keys(declared)) {
			d := declared[name]
			_, exists := r.navs[name]
			switch {
			case r.byName[name] != nil, d.Type == "navigation" && exists:
			case d.Type == "navigation":
				r.navs[name] = navigation{target: d.Target}
			case r.synonyms[name] != "":
				f := *r.byName[r.synonyms[name]]
				f.name, f.key = name, append(appendString(nil, name), ':')
				r.byName[name] = &f
			default: // declared but not simulated: always null
				f := null(name)
				r.fields, r.byName[name] = append(r.fields, f), f
				if d.Type == "reference" {
					r.navs[name] = navigation{target: d.Target}
				}
			}
		}
	}
	return s
})

// model returns the fields of all resources in version 7.
func (e Edition) model() map[string]map[string]declaration {
	s := e.schema()
	model := make(map[string]map[string]declaration, len(s))
	for resource, r := range s {
		fields := make(map[string]declaration)
		for name, nav := range r.navs {
			fields[name] = declaration{Type: "navigation", Target: nav.target}
		}
		for name, f := range r.byName {
			if f.only == onlyV6 || f.only == onlyCloud && e != Cloud {
				delete(fields, name)
				continue
			}
			fields[name] = declaration{Type: f.kind.String(), Target: f.target}
		}
		if e == Cloud { // the types are those that balenaCloud declares
			for name := range fields {
				fields[name] = cloudModel[r.name][name]
			}
		}
		model[resource] = fields
	}
	return model
}

func (k kind) String() string {
	return [...]string{"Null", "Boolean", "Integer", "Text", "Date Time", "reference", "Interval", "JSON"}[k]
}

// DeviceURLsBase is the domain of public device URLs.
const DeviceURLsBase = "balena-devices.com"

const cloudConfig = `{"deployment":null,"deviceUrlsBase":"` + DeviceURLsBase + `","adminUrl":"https://admin.balena-cloud.com",` +
	`"gitServerUrl":"git.balena-cloud.com","DEVICE_ONLINE_ICON":"","DEVICE_OFFLINE_ICON":"","signupCodeRequired":false,` +
	`"supportedSocialProviders":["google","github"],"deviceTypes":[]}`

// osOrganization is the id of the organization of published applications. It has no row, because only members can read an
// organization.
const osOrganization = 9999

// A publishedRelease is a release of the host OS or supervisor.
type publishedRelease struct {
	version     string
	variant     string // of an early release, which has a release per variant
	age         Time
	failed      bool
	invalidated bool
	draft       bool
	phase       string
	knownIssues string
	base        string // the version on which an ESR release is based
	old         bool   // the version is only in the tags of the release
}

// The releases of the host OS of each device type, by line, and of the supervisor, from the oldest. Some devices on balenaCloud
// run cloudVersions, of which the last is a custom build.
var (
	defaultLine = []publishedRelease{
		{version: "2.58.3+rev1", age: 1800 * day, old: true},
		{version: "2.88.4+rev1", variant: "dev", age: 1300 * day},
		{version: "2.88.4+rev1", variant: "prod", age: 1300 * day},
		{version: "2.115.18+rev4", age: 1100 * day, phase: "end-of-life"},
		{version: "5.3.21", age: 640 * day},
		{version: "6.0.13+rev1", age: 480 * day},
		{version: "6.1.2", age: 400 * day, invalidated: true, knownIssues: "Wi-Fi does not come back after the access point restarts."},
		{version: "6.5.10", age: 120 * day, knownIssues: "The hostname of new devices is not announced."},
		{version: "6.5.11", age: 100 * day, failed: true},
		{version: "6.6.0", age: 40 * day},
		{version: "6.7.0", age: 3 * day, draft: true},
	}
	esrLine = []publishedRelease{
		{version: "2026.1.5", age: 300 * day, base: "6.0.24"},
		{version: "2026.4.2", age: 210 * day, base: "6.3.12"},
		{version: "2026.7.0", age: 130 * day, base: "6.5.8", invalidated: true},
		{version: "2026.7.1", age: 120 * day, base: "6.5.10"},
		{version: "2026.10.0", age: 30 * day, base: "6.6.0"},
		{version: "2026.10.1", age: 2 * day, base: "6.6.2", draft: true},
	}
	esrTags = []FleetTag{
		{Key: "release-policy", Value: "esr"},
		{Key: "esr-next", Value: "2026.10"},
		{Key: "esr-current", Value: "2026.7"},
		{Key: "esr-sunset", Value: "2026.4"},
	}
	cloudVersions = []struct{ os, supervisor string }{
		{"balenaOS 6.6.0", "17.1.0"},
		{"balenaOS 6.1.2", "16.12.9"},
		{"balenaOS 2.88.4+rev1", "12.11.0"},
		{"balenaOS 2026.10.0", "17.1.0"},
		{"balenaOS 2026.7.1", "17.0.3"},
		{"balenaOS 2026.1.5", "17.0.3"},
		{"balenaOS 6.6.1+custom", "17.1.1"},
	}
	supervisors = []publishedRelease{
		{version: "12.11.0", age: 1700 * day},
		{version: "14.13.14", age: 1000 * day},
		{version: "16.1.0", age: 600 * day},
		{version: "16.12.0", age: 420 * day},
		{version: "16.12.9", age: 390 * day, invalidated: true, knownIssues: "Services with a health check restart endlessly."},
		{version: "17.0.3", age: 200 * day},
		{version: "17.1.0", age: 60 * day},
		{version: "17.2.0", age: 5 * day, draft: true},
	}
)

// addCloud adds the data that only balenaCloud has: published applications and, in a generated account, values of its fields.
func addCloud(db *database, cfg *Config, now Time) {
	g := &generator{database: db, Rand: rand.New(rand.NewPCG(cfg.Seed, cloudStream)), now: now}
	known := make(map[string]bool) // slugs in the dataset
	for _, f := range db.Fleets.rows {
		known[f.Slug] = true
		f.IsForeign = f.IsPublic && db.Organizations.find(f.OrganizationID) == nil
	}
	hosts := make(map[int]map[string]int) // releases by device type and version
	for _, t := range slices.Clone(db.DeviceTypes.rows) {
		hosts[t.ID] = g.publish(known, Fleet{AppName: t.Slug, DeviceTypeID: t.ID, IsHost: true}, defaultLine, FleetTag{Key: "release-policy", Value: "default"})
		g.publish(known, Fleet{AppName: t.Slug + "-esr", DeviceTypeID: t.ID, IsHost: true}, esrLine, esrTags...)
	}
	managed := make(map[int]map[string]int) // releases by architecture and version
	for _, t := range db.DeviceTypes.rows {
		if a, ok := db.Architectures.find(t.ArchitectureID).(*Architecture); ok && managed[a.ID] == nil {
			managed[a.ID] = g.publish(known, Fleet{AppName: a.Slug + "-supervisor", DeviceTypeID: t.ID}, supervisors)
		}
	}
	if cfg.Dataset != nil {
		return
	}
	for _, o := range db.Organizations.rows {
		if o.ID == len(organizations) {
			o.PastDueInvoiceSince = now - 12*day
		}
	}
	for i, f := range db.Fleets.rows {
		if !f.IsForeign && i%5 == 1 {
			f.SupportUntil = now + 3*day
		}
	}
	for _, d := range db.Devices.rows {
		d.OSReleaseID, d.SupervisorReleaseID = 0, 0
		if t, ok := db.DeviceTypes.find(d.DeviceTypeID).(*DeviceType); ok && d.OSVersion != "" {
			g.setCloudFields(d, hosts[t.ID], managed[t.ArchitectureID])
		}
	}
	g.addFrozenOrganization()
	db.Devices.forget()
}

// cloudStream is the random stream for values that only balenaCloud has. Other values are the same in both editions.
const cloudStream = 1 << 63

// publish adds a public application with its releases, unless the dataset contains it. It returns the ids of the releases by
// version.
func (g *generator) publish(known map[string]bool, f Fleet, releases []publishedRelease, tags ...FleetTag) map[string]int {
	f.Slug = "balena_os/" + f.AppName
	if known[f.Slug] {
		return nil
	}
	f.Row = g.row(1900 * day)
	f.UUID, f.Class, f.OrganizationID = g.uuid(), "app", osOrganization
	f.TracksLatest, f.IsPublic, f.IsForeign = true, true, true
	g.Fleets.insert(&f)
	for _, t := range tags {
		t.Row, t.FleetID = g.row(300*day), f.ID
		g.FleetTags.insert(&t)
	}
	ids := make(map[string]int, len(releases))
	for _, p := range releases {
		r := &Release{
			Row: g.row(p.age + day), FleetID: f.ID, Commit: g.uuid(), RawVersion: p.version, Status: "success",
			Phase: p.phase, KnownIssues: p.knownIssues, IsFinal: !p.draft, IsInvalidated: p.invalidated, IsPassingTests: true,
		}
		var releaseTags []ReleaseTag
		switch {
		case p.variant != "":
			r.RawVersion, r.Variant = p.version+"."+p.variant, p.variant
		case p.old:
			r.RawVersion = "0.0.0-" + strconv.FormatInt(int64(r.CreatedAt), 10)
			releaseTags = []ReleaseTag{{Key: "variant", Value: "production"}, {Key: "version", Value: p.version}}
		case p.draft:
			r.RawVersion = p.version + "-" + strconv.FormatInt(int64(r.CreatedAt), 10)
		}
		if p.base != "" {
			releaseTags = append(releaseTags, ReleaseTag{Key: "meta-balena-base", Value: p.base})
		}
		v := parseVersion(r.RawVersion)
		r.Semver = fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch)
		if p.failed {
			r.Status = "failed"
		}
		if r.IsFinal {
			r.FinalizedAt = r.CreatedAt
		}
		g.Releases.insert(r)
		if r.IsFinal && !p.failed && !p.invalidated {
			f.TargetReleaseID = r.ID
		}
		g.tag(r, releaseTags...)
		ids[p.version] = r.ID
	}
	return ids
}

// cities are the locations of generated devices.
var cities = []struct {
	name                string
	latitude, longitude float64
}{
	{"Berlin, Germany", 52.52, 13.40},
	{"London, United Kingdom", 51.51, -0.13},
	{"Oslo, Norway", 59.91, 10.75},
	{"Porto, Portugal", 41.15, -8.61},
	{"Seattle, United States", 47.61, -122.33},
	{"Osaka, Japan", 34.69, 135.50},
}

// setCloudFields sets the fields of a provisioned device that only balenaCloud has, and its target releases of the host OS and
// the supervisor.
func (g *generator) setCloudFields(d *Device, hosts, supervisors map[string]int) {
	if id := hosts[strings.TrimPrefix(d.OSVersion, "balenaOS ")]; id != 0 && g.chance(0.6) {
		d.OSReleaseID = id
	}
	if g.chance(0.02) {
		d.SupervisorReleaseID = supervisors["17.1.0"]
	}
	if g.chance(0.7) {
		city := cities[g.IntN(len(cities))]
		degrees := func(near float64) string { return strconv.FormatFloat(near+g.Float64()/10-0.05, 'f', 4, 64) }
		d.Location, d.Latitude, d.Longitude = city.name, degrees(city.latitude), degrees(city.longitude)
		if g.chance(0.1) {
			d.CustomLatitude, d.CustomLongitude = degrees(city.latitude), degrees(city.longitude)
		}
	}
	if g.chance(0.02) {
		d.SupportUntil = g.now + 1 + Time(g.Int64N(int64(7*day)))
	}
	if x := g.Float64(); x < 0.015 {
		d.IsInactive, d.IsFrozen = x < 0.01, x >= 0.01
		at := max(d.CreatedAt, d.LastVPNEvent, d.HeartbeatChangedOn, g.now-Time(g.Int64N(int64(2*day))))
		d.Disconnect(at)
		d.ModifiedAt = max(d.ModifiedAt, at)
	}
	if g.chance(0.25) {
		v := cloudVersions[g.IntN(len(cloudVersions))]
		d.OSVersion, d.SupervisorVersion = v.os, v.supervisor
	}
}

// Probabilities, per tick, of events in accounts on balenaCloud.
const (
	chanceInvoiceDue  = 0.0005 // an invoice of an organization becomes overdue
	chanceFreeze      = 0.002  // an organization with an overdue invoice is frozen
	chancePaid        = 0.01   // an overdue invoice is paid
	chanceActivation  = 0.05   // a device is deactivated or activated
	chanceSupport     = 0.05   // access of support to a device is granted or revoked
	supportAccessTime = day
)

// changeAccount changes invoices, activates and deactivates devices, and grants and revokes access of support.
func (s *step) changeAccount() {
	s.Organizations.each(s.now, func(o *Organization) {
		switch {
		case o.Handle == dormant: // stays frozen
		case o.PastDueInvoiceSince == 0:
			if s.chance(chanceInvoiceDue) {
				o.PastDueInvoiceSince = s.now
			}
		case s.chance(chancePaid):
			o.PastDueInvoiceSince = 0
			if o.IsFrozen {
				s.freeze(o, false, s.now)
			}
		case !o.IsFrozen && s.chance(chanceFreeze):
			s.freeze(o, true, s.now)
		}
	})
	if s.Devices.Len() == 0 {
		return
	}
	if d := s.randomDevice(); s.chance(chanceActivation) && !d.IsFrozen {
		if d.IsInactive = !d.IsInactive; d.IsInactive {
			d.Disconnect(s.now)
		}
		d.ModifiedAt = s.now
	}
	if d := s.randomDevice(); s.chance(chanceSupport) {
		if d.SupportUntil > s.now {
			d.SupportUntil = 0
		} else {
			d.SupportUntil = s.now + supportAccessTime
		}
		d.ModifiedAt = s.now
	}
}

// freeze freezes or unfreezes an organization with all its devices. Frozen devices are disconnected, because the API rejects
// their requests.
func (db *database) freeze(o *Organization, frozen bool, now Time) {
	o.IsFrozen = frozen
	db.Devices.each(now, func(d *Device) {
		f, ok := db.Fleets.find(d.FleetID).(*Fleet)
		if !ok || f.OrganizationID != o.ID || d.IsFrozen == frozen {
			return
		}
		if d.IsFrozen = frozen; frozen {
			d.Disconnect(now)
		}
	})
}
