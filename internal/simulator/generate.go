// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"strings"
	"time"
)

// Names in generated accounts. Some contain special characters, because the API accepts any text in names of devices and
// values of tags, and old fleets may have names that are not valid anymore.
var (
	architectures = []string{"aarch64", "amd64", "armv7hf"}

	deviceTypes = []struct {
		slug, name   string
		architecture int // index into architectures
		memory       int // MiB
	}{
		{"raspberrypi4-64", "Raspberry Pi 4 (using 64bit OS)", 0, 3794},
		{"raspberrypi5", "Raspberry Pi 5", 0, 8064},
		{"raspberrypi3", "Raspberry Pi 3", 2, 974},
		{"jetson-nano", "Nvidia Jetson Nano SD-CARD", 0, 3956},
		{"intel-nuc", "Intel NUC", 1, 15892},
		{"generic-amd64", "Generic x86_64 (GPT)", 1, 7820},
		{"fincm3", "Balena Fin (CM3)", 2, 974},
	}

	organizations = []struct{ handle, name string }{
		{"acme", "ACME Robotics"},
		{"zeta", `Žeta "Labs" \ GmbH`},
		{"northwind", "Northwind Farming"},
		{"kite", "Kite & Sons <devices>"},
	}

	fleetNames = []string{
		"greenhouse", "kiosk", "delivery-robots", "cold-chain", "signage", "charging-points", "water-meters", "vision", "gateways", "elevators",
	}

	hostileFleetNames = []string{`Café "Ünï" \ fleet {x}`, "two\nlines", "🚜 tractors"}

	hostileDeviceNames = []string{`Gerät "50" \ ü ☃`, "line one\nline two", "🤖\ttab", `{"json":true}`, " blanks around "}

	serviceNames = []string{"main", "telemetry", "mqtt", "web"}

	osVersions = []struct{ os, supervisor string }{
		{"balenaOS 6.5.10", "17.0.3"},
		{"balenaOS 6.5.10", "17.0.3"},
		{"balenaOS 6.0.13+rev1", "16.12.0"},
		{"balenaOS 5.3.21", "16.1.0"},
		{"balenaOS 2.115.18+rev4", "14.13.14"},
		{"Resin OS 2.0.0+rev5 (prod)", "12.11.0"},
	}

	adjectives = []string{"dark", "pretty", "square", "silent", "quick", "misty", "holy", "young", "broken", "lucky"}
	nouns      = []string{"hail", "frog", "flower", "river", "sun", "leaf", "stone", "owl", "cloud", "field"}

	sites = []string{"berlin", "london", "oslo", "porto", "seattle", "osaka"}
)

const (
	hour = Time(time.Hour / time.Millisecond)
	day  = 24 * hour
)

// generator generates an account.
type generator struct {
	*database
	*rand.Rand
	now      Time
	releases map[int][]*Release // releases that devices can run, by fleet, from the oldest
}

// generate returns an account with the given numbers of devices and fleets.
func generate(devices, fleets int, seed uint64, now Time) *database {
	g := &generator{database: &database{}, Rand: rand.New(rand.NewPCG(seed, 0)), now: now, releases: make(map[int][]*Release)}
	for _, slug := range architectures {
		g.Architectures.insert(&Architecture{Row: g.row(900 * day), Slug: slug})
	}
	for _, t := range deviceTypes {
		g.DeviceTypes.insert(&DeviceType{Row: g.row(900 * day), Slug: t.slug, Name: t.name, ArchitectureID: t.architecture + 1, FamilyID: g.family(t.slug)})
	}
	for _, o := range organizations {
		g.Organizations.insert(&Organization{Row: g.row(800 * day), Name: o.name, Handle: o.handle})
	}
	g.APIKeys.insert(&APIKey{Row: g.row(300 * day), Name: "exporter"})
	g.APIKeys.insert(&APIKey{Row: g.row(60 * day), Name: `ci "deploy" key`, ExpiryDate: now + 30*day})
	g.APIKeys.insert(&APIKey{Row: g.row(400 * day), Name: "old", ExpiryDate: now - 35*day})
	for i := range fleets {
		g.fleet(i)
	}
	if fleets > 0 {
		g.devices(devices, fleets)
	}
	return g.database
}

// row returns the common fields of a row with a random age, up to a day less than the given one.
func (g *generator) row(age Time) Row { return rowAt(g.now - age + Time(g.Int64N(int64(day)))) }

func (g *generator) uuid() string { return fmt.Sprintf("%016x%016x", g.Uint64(), g.Uint64()) }

// hexID returns a pseudorandom UUID or commit hash for a number.
func hexID(n int) string {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	return fmt.Sprintf("%016x%016x", r.Uint64(), r.Uint64())
}

// chance returns true with probability p.
func (g *generator) chance(p float64) bool { return g.Float64() < p }

// fleet adds the i-th fleet with its releases. The first two fleets have the same name in different organizations.
func (g *generator) fleet(i int) {
	f := &Fleet{
		Row: g.row(700 * day), UUID: g.uuid(), Class: "fleet", OrganizationID: 1 + i%len(organizations),
		DeviceTypeID: 1 + g.IntN(len(deviceTypes)), TracksLatest: g.chance(0.9), IsArchived: i > 1 && g.chance(0.03), IsPublic: i == 2,
	}
	name := fleetNames[0]
	if i > 1 {
		name = fleetNames[(i-1)%len(fleetNames)]
		if i > len(fleetNames) {
			name = fmt.Sprintf("%s-%d", name, i)
		}
	}
	f.AppName, f.Slug = name, g.slug(f.OrganizationID, name)
	if i%50 == 3 {
		f.AppName = hostileFleetNames[i/50%len(hostileFleetNames)]
		f.Slug = g.slug(f.OrganizationID, fmt.Sprintf("legacy-%d", i+1))
	}
	g.Fleets.insert(f)
	for _, tag := range []FleetTag{{Key: "env", Value: []string{"prod", "staging"}[i%2]}, {Key: "note", Value: "värde \"quoted\" \\ back\nnewline"}} {
		tag.Row, tag.FleetID = g.row(300*day), f.ID
		g.FleetTags.insert(&tag)
	}
	services := 1 + g.IntN(3)
	for s := range services {
		g.Services.insert(&Service{Row: g.row(600 * day), FleetID: f.ID, Name: serviceNames[s]})
	}
	last := 4 + g.IntN(4)
	for n := range last + 1 {
		g.release(f, n, last)
	}
}

// release adds the n-th release of a fleet. The build of the next-to-last release failed, and the last one is a draft.
func (g *generator) release(f *Fleet, n, last int) {
	r := &Release{
		Row: g.row(Time(last-n+1) * 30 * day), FleetID: f.ID, Commit: g.uuid(), Status: "success", IsFinal: true, IsPassingTests: true,
		Semver: fmt.Sprintf("1.%d.0", n), IsInvalidated: n == 0,
	}
	r.RawVersion = r.Semver
	switch {
	case n == last:
		r.IsFinal, r.RawVersion = false, fmt.Sprintf("%s-%d", r.Semver, r.CreatedAt)
	case n == last-1:
		r.Status = "failed"
	case n%3 == 2:
		r.RawVersion += "+rev1"
	}
	if r.IsFinal {
		r.FinalizedAt = r.CreatedAt
	}
	g.Releases.insert(r)
	g.tag(r, ReleaseTag{Key: "branch", Value: "main"}, ReleaseTag{Key: "built by", Value: `CI of "Zoë"`})
	if r.Status != "success" || !r.IsFinal {
		return
	}
	g.build(r)
	g.releases[f.ID] = append(g.releases[f.ID], r)
	if !r.IsInvalidated {
		f.TargetReleaseID = r.ID
	}
}

// tag adds tags to a release when it was created.
func (g *generator) tag(r *Release, tags ...ReleaseTag) {
	for _, t := range tags {
		t.Row, t.ReleaseID = rowAt(r.CreatedAt), r.ID
		g.ReleaseTags.insert(&t)
	}
}

// images returns the images of a release. It adds them if there are none.
func (db *database) images(r *Release) []*Image {
	if images := db.imagesOf(r.ID); len(images) > 0 {
		return images
	}
	return db.build(r)
}

// build adds an image for each service of the fleet of a release. It adds a service if there is none.
func (db *database) build(r *Release) (images []*Image) {
	services := db.servicesOf(r.FleetID)
	if len(services) == 0 {
		services = []*Service{{Row: rowAt(r.CreatedAt), FleetID: r.FleetID, Name: serviceNames[0]}}
		db.Services.insert(services[0])
	}
	for _, s := range services {
		i := &Image{Row: rowAt(r.CreatedAt), ServiceID: s.ID, ReleaseID: r.ID}
		db.Images.insert(i)
		images = append(images, i)
	}
	return images
}

// devices adds n devices to random fleets. A few fleets are large, many are small, and the fifth is empty.
func (g *generator) devices(n, fleets int) {
	weights, sum := make([]float64, fleets), 0.0
	for i := range weights {
		weights[i] = math.Pow(float64(i+1), -0.7)
		if fleets >= 5 && i == 4 {
			weights[i] = 0
		}
		sum += weights[i]
		weights[i] = sum
	}
	slab := make([]Device, n)
	for i := range slab {
		x := g.Float64() * sum
		d := &slab[i]
		g.device(d, i+1, g.Fleets.rows[sort.SearchFloat64s(weights, x)])
		g.Devices.insert(d)
		g.installs(d)
		if i%3 == 0 {
			g.DeviceTags.insert(&DeviceTag{Row: g.row(100 * day), DeviceID: d.ID, Key: "site", Value: sites[g.IntN(len(sites))]})
		}
		if i%20 == 7 {
			g.DeviceTags.insert(&DeviceTag{Row: g.row(100 * day), DeviceID: d.ID, Key: "owner", Value: `Zoë "Z" \ x`})
		}
	}
}

// device sets the fields of a device in a random state. modified_at is not before the last event.
func (g *generator) device(d *Device, id int, f *Fleet) {
	age := day + Time(g.Int64N(int64(600*day)))
	*d = Device{
		Row: g.row(age), UUID: g.uuid(), FleetID: f.ID, DeviceTypeID: f.DeviceTypeID, HeartbeatState: "unknown",
		Name: adjectives[g.IntN(len(adjectives))] + "-" + nouns[g.IntN(len(nouns))],
	}
	d.ID = id
	if id%1000 == 0 {
		d.UUID += d.UUID[:30] // the long form, 62 digits
	}
	if id%200 == 42 {
		d.Name = hostileDeviceNames[id/200%len(hostileDeviceNames)]
	}
	d.ModifiedAt = g.now - Time(g.Int64N(int64(hour)))
	defer func() {
		d.ModifiedAt = max(d.ModifiedAt, d.CreatedAt, d.LastConnectivityEvent, d.LastVPNEvent, d.HeartbeatChangedOn, d.LastUpdateStatusEvent)
	}()
	switch x := g.Float64(); {
	case x < 0.02: // registered, but never connected
		if g.chance(0.7) {
			d.ProvisioningState, d.ProvisioningProgress = "Provisioning", N(0)
		}
		return
	case x < 0.025:
		d.ProvisioningState, d.ProvisioningProgress = "Post-Provisioning", N(g.IntN(100))
		return
	}
	g.setReportedFields(d)
	since := func(most Time) Time { return max(d.CreatedAt, g.now-Time(g.Int64N(int64(most)))) }
	switch x := g.Float64(); {
	case x < 0.72:
		d.Connect(since(20 * day))
	case x < 0.74: // the VPN is up, and heartbeats are late
		d.Connect(since(20 * day))
		d.heartbeat("timeout", since(hour))
	case x < 0.76: // heartbeats, but no VPN
		d.Connect(since(20 * day))
		d.dropVPN(since(hour))
	case x < 0.78: // heartbeats, and the VPN is disabled
		d.Connect(since(20 * day))
		d.dropVPN(since(hour))
		d.IsVPNDisabled = true
	default:
		d.Connect(d.CreatedAt)
		d.Disconnect(since(min(90*day, g.now-d.CreatedAt)))
		d.ModifiedAt = max(d.LastVPNEvent, d.HeartbeatChangedOn)
	}
	d.Status = "Idle"
	d.IPAddress = fmt.Sprintf("192.168.%d.%d fd00::%x", 1+id%200, 2+id/200%250, id)
	runnable := g.releases[f.ID]
	if len(runnable) == 0 {
		return
	}
	newest := len(runnable) - 1
	d.RunningReleaseID = runnable[newest].ID
	if !g.chance(0.85) {
		d.RunningReleaseID = runnable[g.IntN(len(runnable))].ID
	}
	if g.chance(0.04) {
		d.PinnedReleaseID = runnable[g.IntN(len(runnable))].ID
	}
	if g.chance(0.55) {
		d.setUpdate("done", since(60*day))
	}
	d.IsWebAccessible = g.chance(0.05)
	if g.chance(0.02) {
		d.SupervisorReleaseID = runnable[newest].ID
	}
}

// setReportedFields sets the fields that a device reports after it was provisioned.
func (g *generator) setReportedFields(d *Device) {
	os := osVersions[g.IntN(len(osVersions))]
	d.OSVersion, d.SupervisorVersion, d.OSVariant = os.os, os.supervisor, "prod"
	if g.chance(0.1) {
		d.OSVariant = "dev"
	}
	d.IsUndervolted = g.chance(0.04)
	if strings.HasPrefix(os.os, "Resin") {
		return // old versions do not report hardware figures
	}
	memory := 2000
	if i := d.DeviceTypeID - 1; i < len(deviceTypes) {
		memory = deviceTypes[i].memory
	}
	storage := []int{14000, 28730, 57460}[g.IntN(3)]
	d.CPUUsage, d.CPUTemp = N(5+g.IntN(60)), N(38+g.IntN(40))
	d.MemoryTotal, d.MemoryUsage = N(memory), N(memory/5+g.IntN(memory*7/10))
	d.StorageTotal, d.StorageUsage = N(storage), N(storage/10+g.IntN(storage*8/10))
}

// installs adds the images of the running release to a device.
func (g *generator) installs(d *Device) {
	for _, image := range g.imagesOf(d.RunningReleaseID) {
		status := "Running"
		switch x := g.Float64(); {
		case x < 0.01:
			status = "exited"
		case x < 0.015:
			status = "restarting"
		}
		g.Installs.insert(&Install{
			Row: Row{CreatedAt: d.CreatedAt, ModifiedAt: d.ModifiedAt}, DeviceID: d.ID, ImageID: image.ID,
			ReleaseID: d.RunningReleaseID, Status: status, InstallDate: d.CreatedAt,
		})
	}
}
