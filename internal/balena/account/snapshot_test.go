// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"encoding/json"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// A row of the recorded dataset, as the server sent it. It is read without any code of the client.
type row map[string]any

// dataset caches the rows of each resource. They are not changed.
var dataset sync.Map

func rows(t *testing.T, resource string) []row {
	t.Helper()
	if known, ok := dataset.Load(resource); ok {
		return known.([]row)
	}
	b, err := os.ReadFile(filepath.Join("../../simulator/testdata/dataset", resource+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ D []row }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(file.D, func(a, b row) int { return int(a.id() - b.id()) })
	dataset.Store(resource, file.D)
	return file.D
}

func (r row) id() int64 { return int64(r["id"].(float64)) }

func (r row) text(key string) string { s, _ := r[key].(string); return s }

func (r row) bool(key string) bool { b, _ := r[key].(bool); return b }

func (r row) number(key string) balena.Number {
	if f, ok := r[key].(float64); ok {
		return balena.Number(f)
	}
	return balena.Null
}

func (r row) date(key string) balena.Instant {
	s, ok := r[key].(string)
	if !ok {
		return 0
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return balena.Instant(at.UnixMilli())
}

// ref returns the id in {"__id": n}.
func (r row) ref(key string) int64 {
	if o, ok := r[key].(map[string]any); ok {
		return int64(o["__id"].(float64))
	}
	return 0
}

// first returns the only element of an expanded property, or an empty row.
func (r row) first(key string) row {
	if a, ok := r[key].([]any); ok && len(a) > 0 {
		return a[0].(map[string]any)
	}
	return row{}
}

// truth returns the snapshot that a client should read from the dataset.
func truth(t *testing.T) *balena.Snapshot {
	want := &balena.Snapshot{Time: noon, APIVersion: balena.V7, Releases: map[int64]balena.Release{}, DeviceTagKeys: []string{"site", "owner"}, FleetTagKeys: []string{"note", "team"}}

	releases := map[int64]balena.Release{}
	newest := map[int64]balena.Release{} // by fleet
	for _, r := range rows(t, "release") {
		release := balena.Release{
			ID: r.id(), Commit: r.text("commit"), Version: r.text("raw_version"), Status: r.text("status"), Final: r.bool("is_final"),
			Invalidated: r.bool("is_invalidated"), Created: r.date("created_at"),
		}
		releases[release.ID] = release
		if fleet := r.ref("belongs_to__application"); release.Created > newest[fleet].Created {
			newest[fleet] = release
		}
	}
	refer := func(id int64) int64 {
		if r, ok := releases[id]; ok {
			want.Releases[id] = r
		}
		return id
	}

	tags := func(resource, owner string, keys ...string) map[int64][]string {
		values := map[int64][]string{}
		for _, r := range rows(t, resource) {
			if i := slices.Index(keys, r.text("tag_key")); i >= 0 {
				id := r.ref(owner)
				if values[id] == nil {
					values[id] = make([]string, len(keys))
				}
				values[id][i] = r.text("value")
			}
		}
		return values
	}

	fleetTags := tags("application_tag", "application", "note", "team")
	known := map[int64]bool{}
	for _, r := range rows(t, "application") {
		if r.text("is_of__class") != "fleet" || r.bool("is_host") {
			continue
		}
		known[r.id()] = true
		target, _ := r.first("should_be_running__release")["id"].(float64)
		want.Fleets = append(want.Fleets, balena.Fleet{
			ID: r.id(), UUID: r.text("uuid"), Name: r.text("app_name"), Slug: r.text("slug"),
			Organization:    r.first("organization").text("handle"),
			DeviceType:      r.first("is_for__device_type").text("slug"),
			CPUArchitecture: r.first("is_for__device_type").first("is_of__cpu_architecture").text("slug"),
			Archived:        r.bool("is_archived"), TracksLatest: r.bool("should_track_latest_release"), Created: r.date("created_at"),
			TargetRelease: refer(int64(target)), LatestRelease: newest[r.id()], Tags: fleetTags[r.id()],
		})
	}

	types := map[int64]string{}
	for _, r := range rows(t, "device_type") {
		types[r.id()] = r.text("slug")
	}
	deviceTags := map[int64][]balena.Tag{}
	for _, r := range rows(t, "device_tag") {
		if i := slices.Index([]string{"site", "owner"}, r.text("tag_key")); i >= 0 {
			id := r.ref("device")
			if deviceTags[id] == nil {
				deviceTags[id] = make([]balena.Tag, 2)
			}
			deviceTags[id][i] = balena.Tag{ID: r.id(), Value: r.text("value")}
		}
	}
	services := map[int64][]balena.Service{}
	for _, r := range rows(t, "image_install") {
		if id := r.ref("device"); r.text("status") != "deleted" {
			services[id] = append(services[id], balena.Service{
				ID: r.id(), Name: r.first("installs__image").first("is_a_build_of__service").text("service_name"),
				Status: r.text("status"), Progress: r.number("download_progress"), Installed: r.date("install_date"), Release: r.ref("is_provided_by__release"),
			})
		}
	}
	for _, of := range services {
		slices.SortStableFunc(of, func(a, b balena.Service) int { return strings.Compare(a.Name+"\x00"+a.Status, b.Name+"\x00"+b.Status) })
	}
	var devices []balena.Device
	installs := func(id int64) balena.Installs { return balena.NewInstalls(services[id]) }
	belongings := func(id int64) *balena.Attachments {
		if services[id] == nil && deviceTags[id] == nil {
			return nil
		}
		return &balena.Attachments{Services: services[id], Tags: deviceTags[id]}
	}
	for _, r := range rows(t, "device") {
		fleet := r.ref("belongs_to__application")
		if !known[fleet] {
			continue
		}
		progress := r.number("overall_progress")
		if progress == r.number("provisioning_progress") {
			progress = balena.Null
		}
		devices = append(devices, balena.Device{
			ID: r.id(), UUID: r.text("uuid"), Name: r.text("device_name"), FleetID: fleet, TypeID: r.ref("is_of__device_type"),
			Status: r.text("overall_status"), HeartbeatState: r.text("api_heartbeat_state"), UpdateStatus: r.text("update_status"),
			Type: types[r.ref("is_of__device_type")], OSVersion: r.text("os_version"), OSVariant: r.text("os_variant"),
			SupervisorVersion: r.text("supervisor_version"),
			Created:           r.date("created_at"), Modified: r.date("modified_at"), LastConnectivity: r.date("last_connectivity_event"),
			HeartbeatChanged: r.date("changed_api_heartbeat_state_on__date"), UpdateChanged: r.date("last_update_status_event"),
			RunningRelease: refer(r.ref("is_running__release")), PinnedRelease: refer(r.ref("is_pinned_on__release")),
			TargetRelease: refer(r.ref("should_be_running__release")), OSTarget: refer(r.ref("should_be_operated_by__release")),
			SupervisorTarget: refer(r.ref("should_be_managed_by__release")),
			UpdateProgress:   progress, CPUUsage: r.number("cpu_usage"), CPUTemperature: r.number("cpu_temp"),
			MemoryUsed: r.number("memory_usage"), MemorySize: r.number("memory_total"),
			StorageUsed: r.number("storage_usage"), StorageSize: r.number("storage_total"),
			Online: r.bool("is_online"), Undervolted: r.bool("is_undervolted"), WebAccessible: r.bool("is_web_accessible"),
			ProvisioningState: r.text("provisioning_state"), ProvisioningProgress: r.number("provisioning_progress"),
			Installs: installs(r.id()), Attachments: belongings(r.id()),
		})
	}
	want.Devices = balena.NewDevices(devices...)

	for _, r := range rows(t, "api_key") {
		if r.date("expiry_date") != 0 {
			want.Keys = append(want.Keys, balena.Key{ID: r.id(), Name: r.text("name"), Expiry: r.date("expiry_date")})
		}
	}
	return want
}

var sameSnapshot = cmp.Options{
	cmpopts.EquateNaNs(), cmpopts.IgnoreUnexported(balena.Fleet{}), cmpopts.IgnoreFields(balena.Snapshot{}, "Parts", "Reading"),
	cmp.Transformer("devices", func(d balena.Devices) []balena.Device { return slices.Collect(values(d)) }),
}

// values yields devices to keep.
func values(d balena.Devices) iter.Seq[balena.Device] {
	return func(yield func(balena.Device) bool) {
		for device := range d.All() {
			if !yield(*device) {
				return
			}
		}
	}
}

func devicesOf(s *balena.Snapshot) []balena.Device { return slices.Collect(values(s.Devices)) }

// The whole content of a real server is read without loss, whatever the page size is.
func TestRecordedAccountOnV7(t *testing.T) {
	want := truth(t)
	online := 0
	for d := range want.Devices.All() {
		if d.Online {
			online++
		}
	}
	if len(want.Fleets) != 13 || want.Devices.Len() != 2004 || online != 1152 {
		t.Fatalf("the dataset holds %d fleets and %d devices, %d online; that is not the recorded account", len(want.Fleets), want.Devices.Len(), online)
	}
	address := serve(t, newSimulator(t, simulator.Config{}))
	for _, size := range []int{1000, 2004, 700, 5000} {
		got := fetchWithParts(t, newClient(t, address, withClock(newClock()), pagesOf(size)))
		if diff := cmp.Diff(want, got, sameSnapshot); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", size, diff)
		}
	}
}

// Version 6 gives the same snapshot. It does not have the time of the last change of the heartbeat, the target
// supervisor, and whether a device is operational whose VPN is switched off.
func TestRecordedAccountOnV6(t *testing.T) {
	want := truth(t)
	want.APIVersion = balena.V6
	withoutVPN := 0
	devices := devicesOf(want)
	for i := range devices {
		d := &devices[i]
		d.HeartbeatChanged, d.SupervisorTarget = 0, 0
		if d.Status == "operational" && !d.Online {
			d.Status = "reduced-functionality"
			withoutVPN++
		}
	}
	want.Devices = balena.NewDevices(devices...)
	if withoutVPN != 10 {
		t.Fatalf("%d devices of the dataset have their VPN switched off, want 10", withoutVPN)
	}
	for name, config := range map[string]simulator.Config{"pinned": {}, "found out": {Versions: []string{"v6"}}} {
		t.Run(name, func(t *testing.T) {
			client := newClient(t, serve(t, newSimulator(t, config)), withClock(newClock()), func(c *account.Config) {
				if name == "pinned" {
					c.Version = balena.V6
				}
			})
			if diff := cmp.Diff(want, fetchWithParts(t, client), sameSnapshot); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Archived fleets and fleets that are not selected are left out together with their devices.
func TestChoiceOfFleets(t *testing.T) {
	address := serve(t, newSimulator(t, simulator.Config{}))
	for name, choose := range map[string]struct {
		config func(*account.Config)
		keeps  func(*balena.Fleet) bool
	}{
		"active":   {func(c *account.Config) { c.ArchivedFleets = false }, func(f *balena.Fleet) bool { return !f.Archived }},
		"included": {including("^(admin/k|zeta/)"), func(f *balena.Fleet) bool { return f.Slug[:7] == "admin/k" || f.Organization == "zeta" }},
		"excluded": {excluding("^admin/"), func(f *balena.Fleet) bool { return f.Organization != "admin" }},
		"both": {
			func(c *account.Config) { including("^admin/")(c); excluding("fleet$")(c) },
			func(f *balena.Fleet) bool {
				return f.Organization == "admin" && f.Slug != "admin/empty-fleet" && f.Slug != "admin/archived-fleet"
			},
		},
		"none": {including("^nobody/"), func(*balena.Fleet) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			all := truth(t)
			var slugs []string
			var uuids []string
			for d := range all.Devices.All() {
				if fleet := all.Fleet(d.FleetID); choose.keeps(fleet) {
					uuids = append(uuids, fleet.Slug+" "+d.UUID)
				}
			}
			for i := range all.Fleets {
				if choose.keeps(&all.Fleets[i]) {
					slugs = append(slugs, all.Fleets[i].Slug)
				}
			}
			got := fetchWithParts(t, newClient(t, address, fewer, choose.config))
			var gotSlugs []string
			var gotUUIDs []string
			for i := range got.Fleets {
				gotSlugs = append(gotSlugs, got.Fleets[i].Slug)
			}
			for d := range got.Devices.All() {
				gotUUIDs = append(gotUUIDs, got.Fleet(d.FleetID).Slug+" "+d.UUID)
			}
			if diff := cmp.Diff(slugs, gotSlugs); diff != "" {
				t.Errorf("fleets (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(uuids, gotUUIDs); diff != "" {
				t.Errorf("devices (-want +got):\n%s", diff)
			}
		})
	}
}

// Fields and lists that are not needed are not read.
func TestFewOptions(t *testing.T) {
	client := newClient(t, serve(t, newSimulator(t, simulator.Config{})), func(c *account.Config) {
		c.Options = account.Options{ArchivedFleets: true, SlowInterval: time.Hour}
	})
	got := fetchWithParts(t, client)
	want := truth(t)
	devices := devicesOf(got)
	for i, w := range devicesOf(want) {
		g := &devices[i]
		bare := balena.Device{
			ID: w.ID, UUID: w.UUID, FleetID: w.FleetID, TypeID: w.TypeID, Modified: w.Modified, Status: w.Status, HeartbeatState: w.HeartbeatState, UpdateStatus: w.UpdateStatus,
			Type: w.Type, OSVersion: w.OSVersion, OSVariant: w.OSVariant, SupervisorVersion: w.SupervisorVersion,
			LastConnectivity: w.LastConnectivity, HeartbeatChanged: w.HeartbeatChanged, Online: w.Online, Undervolted: w.Undervolted,
			RunningRelease: w.RunningRelease, PinnedRelease: w.PinnedRelease, TargetRelease: w.TargetRelease,
			ProvisioningState: w.ProvisioningState, ProvisioningProgress: balena.Null, UpdateProgress: balena.Null, CPUUsage: balena.Null, CPUTemperature: balena.Null,
			MemoryUsed: balena.Null, MemorySize: balena.Null, StorageUsed: balena.Null, StorageSize: balena.Null,
		}
		if diff := cmp.Diff(&bare, g, cmpopts.EquateNaNs()); diff != "" {
			t.Fatalf("device %d (-want +got):\n%s", w.ID, diff)
		}
	}
	if got.Keys != nil {
		t.Errorf("read keys that nobody wanted")
	}
}

// Names may be any text. Invalid Unicode becomes U+FFFD and has no other effect.
func TestHostileNames(t *testing.T) {
	sim := newSimulator(t, simulator.Config{})
	names := map[int]string{
		1: `quote " backslash \ slash / tab` + "\t", 2: "two\nlines", 3: "🚜 \u2028 ☃", 4: "nul \x00 and \x1f", 5: "", 6: string(slices.Repeat([]byte("x"), 10_000)),
	}
	sim.Update(func(st *simulator.State) {
		for id, name := range names {
			st.Device(id).Name = name
		}
		st.Device(7).Name = "broken \xff byte"
	})
	names[7] = "broken \uFFFD byte"
	s := fetchWithParts(t, newClient(t, serve(t, sim)))
	for _, d := range devicesOf(s)[:7] {
		if d.Name != names[int(d.ID)] {
			t.Errorf("device %d is called %q, want %q", d.ID, d.Name, names[int(d.ID)])
		}
	}
}

// During an update, a device has both the old and the new image of a service.
func TestServicesAreInOrder(t *testing.T) {
	sim := newSimulator(t, simulator.Config{})
	day := func(n int) simulator.Time { return simulator.At(noon.AddDate(0, 0, n)) }
	var device int
	sim.Update(func(st *simulator.State) {
		first := st.Installs.Get(1)
		image := first.ImageID
		device = first.DeviceID
		st.Installs.DeleteFunc(func(*simulator.Install) bool { return true })
		for i, install := range []simulator.Install{
			{Status: "Running", InstallDate: day(0)},
			{Status: "Downloading", DownloadProgress: simulator.N(70), InstallDate: day(3)},
			{Status: "Downloading", InstallDate: day(2)},
			{Status: "deleted", InstallDate: day(9)},
		} {
			install.ID, install.DeviceID, install.ImageID = i+1, device, image
			st.Installs.Add(install)
		}
	})
	want := []balena.Service{
		{ID: 2, Name: "main", Status: "Downloading", Progress: 70, Installed: balena.Instant(day(3))},
		{ID: 3, Name: "main", Status: "Downloading", Progress: balena.Null, Installed: balena.Instant(day(2))},
		{ID: 1, Name: "main", Status: "Running", Progress: balena.Null, Installed: balena.Instant(day(0))},
	}
	for d := range fetchWithParts(t, newClient(t, serve(t, sim))).Devices.All() {
		if d.ID != int64(device) {
			if d.Services() != nil {
				t.Errorf("device %d has services", d.ID)
			}
		} else if diff := cmp.Diff(want, d.Services(), cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
