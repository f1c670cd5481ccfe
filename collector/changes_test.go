// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// The exported series of a device depend only on its current row. These tests change a device, refresh, and check
// which series were added and removed.

// smallAccount returns an account with two fleets with two releases each, and three devices in the first fleet.
func smallAccount(t *testing.T, o collector.Options) *api {
	a := newAPI(t, simulator.Config{}, o)
	a.Update(func(st *simulator.State) {
		st.Organizations.Add(simulator.Organization{Name: "Org", Handle: "org"})
		st.Architectures.Add(simulator.Architecture{Slug: "aarch64"})
		st.DeviceTypes.Add(simulator.DeviceType{Slug: "raspberrypi4-64", Name: "Pi", ArchitectureID: 1})
		for f := 1; f <= 2; f++ {
			st.AddFleet(simulator.Fleet{AppName: fmt.Sprint("fleet", f), Slug: fmt.Sprint("org/fleet", f)})
			for r := 1; r <= 2; r++ {
				st.NewRelease(f, fmt.Sprintf("%d.%d.0", f, r))
			}
			st.Fleet(f).TargetReleaseID = 2*f - 1
		}
		for range 3 {
			d := st.AddDevice(simulator.Device{FleetID: 1, RunningReleaseID: 1, OSVersion: "balenaOS 6.5.10", OSVariant: "prod", SupervisorVersion: "17.0.3"})
			d.IsConnectedToVPN, d.HeartbeatState = true, "online"
			d.LastConnectivityEvent, d.HeartbeatChangedOn = simulator.At(now), simulator.At(now)
			d.CPUUsage, d.CPUTemp = simulator.N(42), simulator.N(61)
			d.MemoryUsage, d.MemoryTotal, d.StorageUsage, d.StorageTotal = simulator.N(100), simulator.N(2000), simulator.N(300), simulator.N(4000)
		}
	})
	return a
}

// difference returns the series that a change removed and added, with their values.
func difference(before, after map[string]float64) (removed, added map[string]float64) {
	removed, added = map[string]float64{}, map[string]float64{}
	for s, v := range before {
		if w, ok := after[s]; !ok || w != v {
			removed[s] = v
		}
	}
	for s, v := range after {
		if w, ok := before[s]; !ok || w != v {
			added[s] = v
		}
	}
	return removed, added
}

// names returns the families of series.
func names(series map[string]float64) []string {
	found := map[string]bool{}
	for s := range series {
		name, _, _ := strings.Cut(s, "{")
		found[name] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// change returns the effect of a change of the account on the exposition.
func change(t *testing.T, a *api, o collector.Options, f func(*simulator.State)) (removed, added map[string]float64) {
	t.Helper()
	before := samples(gather(t, a.fetch(t), o))
	a.Update(f)
	return difference(before, samples(gather(t, a.fetch(t), o)))
}

func TestDeviceThatGoesOfflineLosesItsHardwareFigures(t *testing.T) {
	o := collector.DefaultOptions()
	a := smallAccount(t, o)
	removed, added := change(t, a, o, func(st *simulator.State) {
		d := st.Device(2)
		d.IsConnectedToVPN, d.HeartbeatState = false, "offline" // the API keeps cpu_usage and the others
	})
	want := []string{
		"balena_device_connected", "balena_device_cpu_temperature_celsius", "balena_device_cpu_usage_ratio", "balena_device_heartbeat_state",
		"balena_device_memory_size_bytes", "balena_device_memory_used_bytes", "balena_device_online", "balena_device_status",
		"balena_device_storage_size_bytes", "balena_device_storage_used_bytes", "balena_device_undervolted",
		"balena_devices_online", "balena_fleet_devices_by_heartbeat_state", "balena_fleet_devices_by_status",
		"balena_fleet_devices_connected", "balena_fleet_devices_in_service_connected", "balena_fleet_devices_online",
	}
	if diff := cmp.Diff(want, names(removed)); diff != "" {
		t.Errorf("these series changed or were removed:\n%s", diff)
	}
	for s := range added {
		for _, hardware := range []string{"cpu", "memory", "storage", "undervolted"} {
			if strings.HasPrefix(s, "balena_device_"+hardware) {
				t.Errorf("%s still exists", s)
			}
		}
	}
}

func TestDeletedDeviceDisappears(t *testing.T) {
	o := collector.DefaultOptions()
	a := smallAccount(t, o)
	var uuid string
	removed, added := change(t, a, o, func(st *simulator.State) {
		uuid = st.Device(2).UUID
		st.DeleteDevice(2)
	})
	for s := range added {
		if strings.Contains(s, uuid) {
			t.Errorf("%s was added", s)
		}
	}
	if removed[series("balena_device_online", "fleet", "org/fleet1", "uuid", uuid)] != 1 {
		t.Error("the device still exists")
	}
	if n := added[series("balena_fleet_devices", "fleet", "org/fleet1")]; n != 2 {
		t.Errorf("the fleet has %v devices, want 2", n)
	}
}

func TestRenamedDeviceChangesOnlyItsInfo(t *testing.T) {
	o := collector.DefaultOptions()
	a := smallAccount(t, o)
	removed, added := change(t, a, o, func(st *simulator.State) { st.Device(2).Name = "renamed" })
	if want := []string{"balena_device_info"}; !slices.Equal(names(removed), want) || !slices.Equal(names(added), want) {
		t.Errorf("removed: %v\nadded: %v", names(removed), names(added))
	}

	o.DeviceNames = false
	removed, added = change(t, a, o, func(st *simulator.State) { st.Device(2).Name = "renamed again" })
	if len(removed)+len(added) != 0 {
		t.Errorf("without names, removed: %v\nadded: %v", names(removed), names(added))
	}
}

func TestMovedDeviceLeavesNoSeriesBehind(t *testing.T) {
	o := collector.DefaultOptions()
	a := smallAccount(t, o)
	var uuid string
	removed, added := change(t, a, o, func(st *simulator.State) {
		st.Device(2).FleetID = 2
		uuid = st.Device(2).UUID
	})
	after := samples(gather(t, a.fetch(t), o))
	for s := range after {
		if strings.Contains(s, `uuid="`+uuid) && strings.Contains(s, "org/fleet1") {
			t.Errorf("%s still exists in the old fleet", s)
		}
	}
	if removed[series("balena_device_online", "fleet", "org/fleet1", "uuid", uuid)] != 1 || added[series("balena_device_online", "fleet", "org/fleet2", "uuid", uuid)] != 1 {
		t.Error("the device is not in the new fleet")
	}
	if n := added[series("balena_fleet_devices", "fleet", "org/fleet2")]; n != 1 {
		t.Errorf("the new fleet has %v devices, want 1", n)
	}
}

func TestUnknownStatesAreExported(t *testing.T) {
	o := allGroups()
	s := &balena.Snapshot{
		Time:   now,
		Fleets: []balena.Fleet{{ID: 1, Slug: "org/fleet", Name: "fleet", LatestRelease: balena.Release{ID: 1, Status: "exploded"}}},
		Devices: balena.NewDevices(balena.Device{
			ID: 1, FleetID: 1, UUID: "u", Status: "dreaming", HeartbeatState: "irregular", UpdateStatus: "pondering",
			Attachments: &balena.Attachments{Services: []balena.Service{{Name: "main", Status: "Levitating"}}},
		}),
	}
	got := samples(gather(t, s, o))
	for _, want := range []string{
		series("balena_fleet_devices_by_status", "fleet", "org/fleet", "status", "dreaming"),
		series("balena_fleet_devices_by_heartbeat_state", "fleet", "org/fleet", "state", "irregular"),
		series("balena_fleet_devices_by_update_status", "fleet", "org/fleet", "update_status", "pondering"),
		series("balena_fleet_latest_release_status", "fleet", "org/fleet", "status", "exploded"),
		series("balena_fleet_devices_by_service_status", "fleet", "org/fleet", "service_name", "main", "status", "Levitating"),
		series("balena_device_status", "fleet", "org/fleet", "uuid", "u", "status", "dreaming"),
		series("balena_device_heartbeat_state", "fleet", "org/fleet", "uuid", "u", "state", "irregular"),
		series("balena_device_update_status", "fleet", "org/fleet", "uuid", "u", "update_status", "pondering"),
		series("balena_device_service_status", "fleet", "org/fleet", "uuid", "u", "service_name", "main", "status", "Levitating"),
	} {
		if got[want] != 1 {
			t.Errorf("%s is %v, want 1", want, got[want])
		}
	}
	if n, ok := got[series("balena_fleet_devices_by_status", "fleet", "org/fleet", "status", "operational")]; !ok || n != 0 {
		t.Error("a known state without devices is not 0")
	}
}

// TestRollout checks the metrics of rollouts from a new target release until the last device runs it. One device rejects it.
func TestRollout(t *testing.T) {
	o := allGroups()
	a := smallAccount(t, o)

	type progress struct {
		target            string // release_version
		onTarget          float64
		status            map[string]float64 // devices by update_status, without zeros
		byRelease         map[string]float64
		downloadProgress  float64 // of device 1
		servicesOnDevice1 []string
	}
	look := func() progress {
		p := progress{status: map[string]float64{}, byRelease: map[string]float64{}}
		for _, f := range gather(t, a.fetch(t), o) {
			for _, m := range f.Metric {
				label := map[string]string{}
				for _, l := range m.Label {
					label[l.GetName()] = l.GetValue()
				}
				if label["fleet"] != "org/fleet1" {
					continue
				}
				value := m.GetGauge().GetValue()
				switch f.GetName() {
				case "balena_fleet_target_release_info":
					p.target = label["release_version"]
				case "balena_fleet_devices_on_target_release":
					p.onTarget = value
				case "balena_fleet_devices_by_update_status":
					if value > 0 {
						p.status[label["update_status"]] = value
					}
				case "balena_fleet_devices_by_release":
					p.byRelease[label["release_version"]] = value
				case "balena_device_update_progress_ratio":
					p.downloadProgress = value
				case "balena_device_service_status":
					p.servicesOnDevice1 = append(p.servicesOnDevice1, label["service_name"]+" "+label["status"])
				}
			}
		}
		return p
	}
	expect := func(step string, want progress) {
		t.Helper()
		if diff := cmp.Diff(want, look(), cmp.AllowUnexported(progress{})); diff != "" {
			t.Errorf("%s:\n%s", step, diff)
		}
	}

	a.Update(func(st *simulator.State) {
		st.Services.Add(simulator.Service{FleetID: 1, Name: "main"})
		for r := 1; r <= 2; r++ {
			st.Images.Add(simulator.Image{ServiceID: 1, ReleaseID: r})
		}
		st.Installs.Add(simulator.Install{DeviceID: 1, ImageID: 1, ReleaseID: 1, Status: "Running"})
	})
	expect("before", progress{
		target: "1.1.0", onTarget: 3, status: map[string]float64{"none": 3}, byRelease: map[string]float64{"1.1.0": 3},
		servicesOnDevice1: []string{"main Running"},
	})

	a.Update(func(st *simulator.State) { st.Fleet(1).TargetReleaseID = 2 })
	expect("a new target", progress{
		target: "1.2.0", onTarget: 0, status: map[string]float64{"none": 3}, byRelease: map[string]float64{"1.1.0": 3},
		servicesOnDevice1: []string{"main Running"},
	})

	a.Update(func(st *simulator.State) {
		d := st.Device(1)
		d.UpdateStatus, d.Status, d.DownloadProgress = "downloading", "Downloading", simulator.N(50)
		st.Installs.Add(simulator.Install{DeviceID: 1, ImageID: 2, ReleaseID: 2, Status: "Downloading", DownloadProgress: simulator.N(50)})
	})
	expect("one downloads", progress{
		target: "1.2.0", onTarget: 0, status: map[string]float64{"none": 2, "downloading": 1}, byRelease: map[string]float64{"1.1.0": 3},
		downloadProgress: 0.5, servicesOnDevice1: []string{"main Downloading", "main Running"},
	})

	a.Update(func(st *simulator.State) {
		d := st.Device(1)
		d.UpdateStatus, d.Status, d.DownloadProgress = "applying changes", "Idle", simulator.Number{}
		for _, i := range st.InstallsOf(1) {
			if i.ImageID == 2 {
				i.Status, i.DownloadProgress = "Downloaded", simulator.Number{}
			}
		}
		st.Device(2).UpdateStatus = "rejected"
	})
	expect("it applies, another rejects", progress{
		target: "1.2.0", onTarget: 0, status: map[string]float64{"none": 1, "applying changes": 1, "rejected": 1}, byRelease: map[string]float64{"1.1.0": 3},
		servicesOnDevice1: []string{"main Downloaded", "main Running"},
	})

	a.Update(func(st *simulator.State) {
		for id := 1; id <= 3; id += 2 {
			d := st.Device(id)
			d.UpdateStatus, d.RunningReleaseID = "done", 2
		}
		for _, i := range st.InstallsOf(1) {
			if i.ImageID == 2 {
				i.Status = "Running"
			} else {
				i.Status = "deleted"
			}
		}
	})
	expect("two are done, one is not", progress{
		target: "1.2.0", onTarget: 2, status: map[string]float64{"done": 2, "rejected": 1}, byRelease: map[string]float64{"1.1.0": 1, "1.2.0": 2},
		servicesOnDevice1: []string{"main Running"},
	})
}

func TestReleasesBeyondTheLimitAreSummed(t *testing.T) {
	o := collector.DefaultOptions()
	o.ReleaseLimit = 2
	s := &balena.Snapshot{Time: now, Fleets: []balena.Fleet{{ID: 1, Slug: "org/fleet"}}, Releases: map[int64]balena.Release{}}
	var devices []balena.Device
	for r := int64(1); r <= 4; r++ {
		s.Releases[r] = balena.Release{ID: r, Commit: fmt.Sprint("c", r), Version: fmt.Sprint(r)}
		for range r { // release r runs on r devices
			id := int64(len(devices) + 1)
			devices = append(devices, balena.Device{ID: id, FleetID: 1, UUID: fmt.Sprint(id), RunningRelease: r})
		}
	}
	devices = append(devices, balena.Device{ID: 99, FleetID: 1, UUID: "99", RunningRelease: 77}) // an unknown release
	s.Devices = balena.NewDevices(devices...)
	got := map[string]float64{}
	for name, v := range samples(gather(t, s, o)) {
		if strings.HasPrefix(name, "balena_fleet_devices_by_release{") {
			got[name] = v
		}
	}
	want := map[string]float64{
		series("balena_fleet_devices_by_release", "fleet", "org/fleet", "commit", "c4", "release_version", "4"):        4,
		series("balena_fleet_devices_by_release", "fleet", "org/fleet", "commit", "c3", "release_version", "3"):        3,
		series("balena_fleet_devices_by_release", "fleet", "org/fleet", "commit", "other", "release_version", "other"): 4,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPendingUpdatesOfHostOSAndSupervisor(t *testing.T) {
	releases := map[int64]balena.Release{1: {ID: 1, Version: "6.5.10"}, 2: {ID: 2, Version: "17.0.3"}}
	for _, test := range []struct {
		name           string
		device         balena.Device
		os, supervisor string // "" for no sample
	}{
		{"no targets", balena.Device{OSVersion: "balenaOS 6.5.10"}, "0", "0"},
		{"there already", balena.Device{OSTarget: 1, OSVersion: "balenaOS 6.5.10", SupervisorTarget: 2, SupervisorVersion: "17.0.3"}, "0", "0"},
		{"there already, in old words", balena.Device{OSTarget: 1, OSVersion: "Resin OS 6.5.10 (prod)"}, "0", "0"},
		{"not yet", balena.Device{OSTarget: 1, OSVersion: "balenaOS 6.0.13+rev1", SupervisorTarget: 2, SupervisorVersion: "16.12.0"}, "1", "1"},
		{"versions never reported", balena.Device{OSTarget: 1, SupervisorTarget: 2}, "1", "1"},
		{"an unknown target", balena.Device{OSTarget: 9, OSVersion: "balenaOS 6.5.10", SupervisorTarget: 9}, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.device.ID, test.device.FleetID, test.device.UUID = 1, 1, "u"
			s := &balena.Snapshot{Time: now, Fleets: []balena.Fleet{{ID: 1, Slug: "f"}}, Releases: releases, Devices: balena.NewDevices(test.device)}
			found := samples(gather(t, s, collector.DefaultOptions()))
			for family, want := range map[string]string{"balena_device_os_update_pending": test.os, "balena_device_supervisor_update_pending": test.supervisor} {
				got := ""
				if v, ok := found[series(family, "fleet", "f", "uuid", "u")]; ok {
					got = fmt.Sprint(v)
				}
				if got != want {
					t.Errorf("%s is %q, want %q", family, got, want)
				}
			}
		})
	}
}

func TestTags(t *testing.T) {
	o := collector.Options{DeviceTags: true}
	long := strings.Repeat("ü", 200)
	s := &balena.Snapshot{
		Time: now, Fleets: []balena.Fleet{{ID: 1, Slug: "f"}}, DeviceTagKeys: []string{"site", "cost-center", "cost center", "ünïcode", "long"},
		Devices: balena.NewDevices(
			balena.Device{ID: 1, FleetID: 1, UUID: "tagged", Attachments: &balena.Attachments{Tags: []balena.Tag{{ID: 1, Value: "A"}, {Value: "1"}, {Value: "2"}, {Value: "x"}, {Value: long}}}},
			balena.Device{ID: 2, FleetID: 1, UUID: "untagged"},
			balena.Device{ID: 3, FleetID: 1, UUID: "in maintenance", Attachments: &balena.Attachments{Tags: []balena.Tag{{}, {}, {}, {}, {}, {ID: 2, Value: "now"}}}},
		),
	}
	got := map[string]float64{}
	for name, v := range samples(gather(t, s, o)) {
		if strings.HasPrefix(name, "balena_device_tags{") {
			got[name] = v
		}
	}
	want := map[string]float64{series("balena_device_tags", "fleet", "f", "uuid", "tagged",
		"tag_site", "A", "tag_cost_center", "1", "tag_cost_center_2", "2", "tag__n_code", "x", "tag_long", strings.Repeat("ü", 128)): 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestKeysWithTheSameName(t *testing.T) {
	s := &balena.Snapshot{Time: now, Keys: []balena.Key{{ID: 1, Name: "ci", Expiry: 9000}, {ID: 2, Name: "ci", Expiry: 5000}, {ID: 3, Name: "me", Expiry: 7000}}}
	want := map[string]float64{
		series("balena_api_key_expiry_timestamp_seconds", "key_name", "ci"): 5,
		series("balena_api_key_expiry_timestamp_seconds", "key_name", "me"): 7,
	}
	if diff := cmp.Diff(want, samples(gather(t, s, collector.DefaultOptions()))); diff != "" {
		t.Error(diff)
	}
}

// FuzzNames checks that the exposition is valid and contains the same name for any name.
func FuzzNames(f *testing.F) {
	for _, h := range hostile {
		f.Add(h)
	}
	o := collector.Options{Devices: true, DeviceNames: true}
	f.Fuzz(func(t *testing.T, name string) {
		s := &balena.Snapshot{
			Time: now, Fleets: []balena.Fleet{{ID: 1, Slug: "org/fleet"}},
			Devices: balena.NewDevices(balena.Device{ID: 1, FleetID: 1, UUID: "u", Name: name}),
		}
		for _, family := range parse(t, text(s, o)) {
			if family.GetName() != "balena_device_info" {
				continue
			}
			for _, l := range family.Metric[0].Label {
				if l.GetName() == "device_name" && l.GetValue() != strings.ToValidUTF8(name, "\uFFFD") {
					t.Errorf("%q was exported as %q", name, l.GetValue())
				}
			}
			return
		}
		t.Error("balena_device_info is missing")
	})
}

// TestServicesWithoutName checks that there are no duplicate series of services without a name and services named unknown.
func TestServicesWithoutName(t *testing.T) {
	none := balena.Null
	s := withDevice(balena.Device{ID: 1, FleetID: 1, UUID: "u", Attachments: &balena.Attachments{Services: []balena.Service{
		{ID: 1, Name: "", Status: "", Installed: 1000, Progress: none},
		{ID: 2, Name: "", Status: "Running", Installed: 2000, Progress: none},
		{ID: 3, Name: "main", Status: "", Installed: 9000, Progress: 10},
		{ID: 4, Name: "main", Status: "unknown", Installed: 8000, Progress: 30},
		{ID: 5, Name: "unknown", Status: "Running", Installed: 3000, Progress: 20},
		{ID: 6, Name: "unknown", Status: "unknown", Installed: 1000, Progress: none},
	}}})
	got := map[string]float64{}
	for name, v := range samples(parse(t, text(s, allGroups()))) {
		if strings.Contains(name, "_service_") && !strings.Contains(name, "_in_service") && v != 0 {
			got[name] = v
		}
	}
	on := func(family string, labels ...string) string {
		return series(family, append(labels, "fleet", "f", "uuid", "u")...)
	}
	want := map[string]float64{
		on("balena_device_service_status", "service_name", "main", "status", "unknown"):                                1,
		on("balena_device_service_status", "service_name", "unknown", "status", "unknown"):                             1,
		on("balena_device_service_status", "service_name", "unknown", "status", "Running"):                             1,
		on("balena_device_service_install_timestamp_seconds", "service_name", "main"):                                  9,
		on("balena_device_service_install_timestamp_seconds", "service_name", "unknown"):                               3,
		on("balena_device_service_download_progress_ratio", "service_name", "main"):                                    0.3,
		on("balena_device_service_download_progress_ratio", "service_name", "unknown"):                                 0.2,
		series("balena_fleet_devices_by_service_status", "fleet", "f", "service_name", "main", "status", "unknown"):    1,
		series("balena_fleet_devices_by_service_status", "fleet", "f", "service_name", "unknown", "status", "unknown"): 1,
		series("balena_fleet_devices_by_service_status", "fleet", "f", "service_name", "unknown", "status", "Running"): 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(samples(gather(t, s, allGroups())), samples(parse(t, text(s, allGroups())))); diff != "" {
		t.Errorf("gathered (-) and rendered (+) differ:\n%s", diff)
	}
}

// TestRenamedRelease checks the samples of devices after only a release to which they refer has changed.
func TestRenamedRelease(t *testing.T) {
	for name, test := range map[string]struct {
		device balena.Device
		family string
	}{
		"the one that runs":       {balena.Device{RunningRelease: 1}, "balena_device_release_info"},
		"the host OS's target":    {balena.Device{OSTarget: 1, OSVersion: "balenaOS 1.0.0"}, "balena_device_os_update_pending"},
		"the supervisor's target": {balena.Device{SupervisorTarget: 1, SupervisorVersion: "1.0.0"}, "balena_device_supervisor_update_pending"},
	} {
		t.Run(name, func(t *testing.T) {
			test.device.ID, test.device.FleetID, test.device.UUID = 1, 1, "u"
			before := withDevice(test.device)
			before.Releases = map[int64]balena.Release{1: {ID: 1, Version: "1.0.0"}}
			after := *before
			after.Releases = map[int64]balena.Release{1: {ID: 1, Version: "1.0.1"}}

			c := collector.New(nil, collector.DefaultOptions())
			was, is := serve(c.Render(before)), serve(c.Render(&after))
			if diff := cmp.Diff(text(&after, collector.DefaultOptions()), is); diff != "" {
				t.Errorf("rendered from scratch (-) and after another snapshot (+):\n%s", diff)
			}
			_, added := difference(samples(parse(t, was)), samples(parse(t, is)))
			if !slices.Contains(names(added), test.family) {
				t.Errorf("%s did not change, but these families did: %v", test.family, names(added))
			}
		})
	}
}

// TestPagesOfALargeAccountThatChanges compares pages that reuse the previous page with pages rendered from scratch, while
// devices are changed, added and removed.
func TestPagesOfALargeAccountThatChanges(t *testing.T) {
	const devices = 3000
	o := collector.DefaultOptions()
	a := newAPI(t, simulator.Config{Devices: devices, Fleets: 3}, o)
	c := collector.New(nil, o)
	random := rand.New(rand.NewPCG(1, 2))
	some := func(st *simulator.State, n int, f func(*simulator.Device)) {
		for from := 1 + random.IntN(devices-n); n > 0; n-- {
			if d := st.Device(from + n); d != nil {
				f(d)
			}
		}
	}
	for i, step := range []struct {
		what   string
		change func(*simulator.State)
	}{
		{"the first page", func(*simulator.State) {}},
		{"nothing", func(*simulator.State) {}},
		{"a name", func(st *simulator.State) { some(st, 1, func(d *simulator.Device) { d.Name = "renamed" }) }},
		{"a reading", func(st *simulator.State) { some(st, 3, func(d *simulator.Device) { d.CPUUsage = simulator.N(77) }) }},
		{"another version of the OS for some", func(st *simulator.State) {
			some(st, 100, func(d *simulator.Device) { d.OSVersion = "balenaOS 9.9.9" })
		}},
		{"a new device", func(st *simulator.State) { st.AddDevice(simulator.Device{FleetID: 1}) }},
		{"many new devices", func(st *simulator.State) {
			for range 150 {
				st.AddDevice(simulator.Device{FleetID: 2})
			}
		}},
		{"a device removed", func(st *simulator.State) { some(st, 1, func(d *simulator.Device) { st.DeleteDevice(d.ID) }) }},
		{"many devices removed", func(st *simulator.State) { some(st, 170, func(d *simulator.Device) { st.DeleteDevice(d.ID) }) }},
		{"the newest devices removed", func(st *simulator.State) {
			for id := devices + 151; id > devices-90; id-- {
				st.DeleteDevice(id)
			}
		}},
		{"a device in another fleet", func(st *simulator.State) { some(st, 1, func(d *simulator.Device) { d.FleetID = 1 + d.FleetID%3 }) }},
	} {
		a.Update(step.change)
		s := a.fetch(t)
		if got, want := serve(c.Render(s)), text(s, o); got != want {
			t.Fatalf("%d, %s: rendered from scratch (-) and after another snapshot (+):\n%.2000s", i, step.what, lineDiff(want, got))
		}
	}
}
