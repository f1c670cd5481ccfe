// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// The faults of a server that refuses a query: the first refuses the query for changed installs, the next that for devices
// that download, the last all queries for changes.
func refusing(queries ...string) simulator.Faults {
	var faults simulator.Faults
	for _, q := range queries {
		faults = append(faults, simulator.Fault{Resource: "device", Query: q, Status: http.StatusInternalServerError})
	}
	return faults
}

const (
	installsChanged = "i/modified_at gt"
	download        = "i/status eq 'Downloading'"
)

// A server refuses one query for changes after the other, and answers them again later. Every refresh is correct.
func TestLadder(t *testing.T) {
	const (
		quarter = 15 // refreshes between two full ones, and until a query is tried again
		later   = 0  // as many refreshes as necessary
	)
	type step struct {
		refused  simulator.Faults
		n        int // refreshes
		kind     balena.Kind
		mode     balena.Mode
		disabled balena.Disabled
	}
	f := follow(t, small, fewer, withoutSummary, func(c *account.Config) { c.FullRefreshInterval = 15*time.Minute + time.Second })
	n := 0
	change := func() { // each kind of change, except those that the lower rungs do not find
		n++
		f.Update(func(st *simulator.State) {
			st.Device(1 + n%100).Name = "renamed"
			if n%5 == 0 {
				st.DeleteDevice(110 + n)
			}
			installs := st.Installs.All()
			switch i := installs[n/2*7%len(installs)]; i.Status {
			case "Downloading":
				i.Status, i.DownloadProgress = "Running", simulator.Number{}
			default:
				i.Status, i.DownloadProgress = "Downloading", simulator.N(n%100)
			}
		})
	}
	for i, s := range []step{
		{nil, 3, balena.Incremental, balena.DevicesAndInstalls, ""},
		// A single refusal may be chance. After the second one, the same refresh uses the next query.
		{refusing(installsChanged), 1, balena.Full, balena.DevicesAndInstalls, ""},
		{refusing(installsChanged), 4, balena.Incremental, balena.DevicesOnly, ""},
		{refusing(installsChanged, download), 1, balena.Full, balena.DevicesOnly, ""},
		{refusing(installsChanged, download), 3, balena.Full, balena.Everything, balena.Refused},
		// The second query is answered again, which is noticed when it is tried again.
		{refusing(installsChanged), quarter - 4, balena.Full, balena.Everything, balena.Refused},
		{refusing(installsChanged), later, balena.Incremental, balena.DevicesOnly, ""},
		{refusing(installsChanged), 3, balena.Incremental, balena.DevicesOnly, ""},
		// The first query is answered again too.
		{nil, later, balena.Incremental, balena.DevicesAndInstalls, ""},
		{nil, 3, balena.Incremental, balena.DevicesAndInstalls, ""},
	} {
		f.SetFaults(s.refused)
		for begin := n; s.n == later || n < begin+s.n; {
			change()
			r := f.refresh(t).Reading
			if s.n == later && r.Mode != s.mode && n < begin+2*quarter {
				continue
			}
			if r.Kind != s.kind || r.Mode != s.mode || r.Disabled != s.disabled || (r.Reason == nil) != (s.mode == balena.DevicesAndInstalls) {
				t.Errorf("step %d, refresh %d: %+v; want kind %s, mode %s, disabled %q", i, n, r, s.kind, s.mode, s.disabled)
			}
			if s.n == later {
				break
			}
		}
	}
}

// A refused query is tried once between two full refreshes, and the refresh that tries it does not become a full one.
func TestRefusedQuestionIsAskedNowAndThen(t *testing.T) {
	config := small
	config.Edition = simulator.Cloud
	f := follow(t, config, fewer)
	asked, full := 0, 0
	for range 60 {
		if f.refresh(t).Reading.Kind == balena.Full {
			full++
		}
		for _, what := range f.asked() {
			if what == "device changes" {
				asked++
			}
		}
	}
	if asked != 4 || full != 4 {
		t.Errorf("in an hour the query is sent %d times, and there are %d full refreshes; want 4 each", asked, full)
	}
}

// Downloads are followed from beginning to end even if image installs have no modified_at.
func TestDownloadsWithoutModifiedAt(t *testing.T) {
	for _, devices := range []bool{true, false} {
		config := small
		config.Edition = simulator.Cloud
		f := follow(t, config, fewer, func(c *account.Config) { c.Devices, c.FullRefreshInterval = devices, time.Hour })
		var device, fleet, install int
		set := func(st *simulator.State, status string, progress simulator.Number) {
			i := st.Installs.Get(install)
			i.Status, i.DownloadProgress = status, progress
		}
		begin := func(st *simulator.State) {
			for _, d := range st.Devices.All() {
				installs := st.InstallsOf(d.ID)
				if d.IsConnectedToVPN && d.HeartbeatState == "online" && d.Status != "Downloading" && d.ProvisioningProgress == (simulator.Number{}) && len(installs) > 1 {
					device, fleet, install = d.ID, d.FleetID, installs[0].ID
					set(st, "Downloading", simulator.N(3))
					return
				}
			}
			t.Fatal("no device is online")
		}
		for _, step := range []struct {
			name   string
			change func(*simulator.State)
			// changed is the number of devices that differ; progress is set if only the progress differs.
			changed  int
			progress bool
		}{
			{"begins", begin, 1, false},
			{"goes on", func(st *simulator.State) { set(st, "Downloading", simulator.N(50)) }, 1, true},
			{"stands still", func(*simulator.State) {}, 0, false},
			{"another image is done", func(st *simulator.State) {
				for _, i := range st.InstallsOf(device)[1:] {
					i.ReleaseID = 0
				}
			}, -1, true},
			{"another target", func(st *simulator.State) { st.Fleet(fleet).TargetReleaseID = st.Installs.Get(install).ReleaseID }, -1, false},
			{"ends", func(st *simulator.State) { set(st, "Running", simulator.Number{}) }, 1, false},
			{"begins again", func(st *simulator.State) { set(st, "Downloading", simulator.N(3)) }, 1, false},
			{"its row is deleted", func(st *simulator.State) { st.Installs.Delete(install) }, 1, false},
			{"begins on another device", begin, 1, false},
			{"a device without a heartbeat begins", func(st *simulator.State) {
				begin(st)
				st.Device(device).HeartbeatState = "offline"
			}, 1, false},
			{"and goes on", func(st *simulator.State) { set(st, "Downloading", simulator.N(50)) }, 1, true},
			{"and ends", func(st *simulator.State) { set(st, "Running", simulator.Number{}) }, 1, true},
			{"begins on a third device", begin, 1, false},
			{"the device is deleted", func(st *simulator.State) { st.DeleteDevice(device) }, 1, false},
		} {
			f.Update(step.change)
			r := f.refresh(t).Reading
			if r.Kind != balena.Incremental || r.Mode != balena.DevicesOnly {
				t.Errorf("%s: %+v", step.name, r)
			}
			if want := step.changed; want >= 0 && (devices || !step.progress) && r.Changed != want {
				t.Errorf("%s: %d devices changed, want %d", step.name, r.Changed, want)
			}
		}
	}
}

// If more devices end a download at once than can be read by their ids, everything is read, and the server is still
// trusted.
func TestVeryManyDownloadsEnd(t *testing.T) {
	f := follow(t, simulator.Config{Edition: simulator.Cloud, Devices: 2600, Fleets: 3, Seed: 1}, fewer)
	for n := range 4 {
		downloads := 0
		f.Update(func(st *simulator.State) { // one half of the devices begins a download, the other half ends one
			for _, d := range st.Devices.All() {
				installs := st.InstallsOf(d.ID)
				if n == 0 {
					d.IsConnectedToVPN, d.HeartbeatState, d.ProvisioningProgress, d.Status = true, "online", simulator.Number{}, ""
				}
				for _, i := range installs {
					i.Status, i.DownloadProgress = "Running", simulator.Number{}
				}
				if d.ID%2 == n%2 && len(installs) > 0 {
					installs[0].Status, installs[0].DownloadProgress = "Downloading", simulator.N(7)
					downloads++
				}
			}
		})
		if downloads <= 1000 {
			t.Fatalf("only %d devices download", downloads)
		}
		kind := balena.Full
		if n < 2 { // all devices were written at first, and are in the answer once more
			kind = balena.Incremental
		}
		if r := f.refresh(t).Reading; r.Kind != kind || r.Mode != balena.DevicesOnly {
			t.Errorf("%+v, want kind %s", r, kind)
		}
	}
}

// Services and tags without modified_at: the changes that are found at once, and those that only the next full refresh finds.
func TestRowsWithoutModifiedAt(t *testing.T) {
	services := func(c *account.Config) { c.DeviceTags, c.FleetTags = nil, nil }
	tags := func(c *account.Config) { c.Services, c.FleetTags = false, nil }
	online := func(st *simulator.State) *simulator.Device {
		for _, d := range st.Devices.All() {
			if d.IsConnectedToVPN && len(st.InstallsOf(d.ID)) > 0 && st.InstallsOf(d.ID)[0].Status == "Running" {
				return d
			}
		}
		t.Fatal("no device is online")
		return nil
	}
	const changes = "device changes and downloads"
	for name, test := range map[string]struct {
		with   func(*account.Config)
		change func(*simulator.State)
		asked  []string // the devices that were written last are always read
		late   bool     // the next full refresh finds the change
	}{
		"nothing": {services, func(*simulator.State) {}, []string{"application", changes, "image_install/$count", "image_install of devices"}, false},
		"a service, and its device": {services, func(st *simulator.State) {
			d := online(st)
			d.CPUUsage, st.InstallsOf(d.ID)[0].Status = simulator.N(99), "exited"
		}, []string{"application", changes, "image_install/$count", "image_install of devices"}, false},
		"a service takes the place of another, and its device": {services, func(st *simulator.State) {
			d := online(st)
			old := *st.InstallsOf(d.ID)[0]
			st.Installs.Delete(old.ID)
			st.Installs.Add(simulator.Install{DeviceID: d.ID, ImageID: old.ImageID, Status: "Running"})
			d.CPUUsage = simulator.N(99)
		}, []string{"application", changes, "image_install/$count", "image_install of devices"}, false},
		"a download": {services, func(st *simulator.State) {
			i := st.InstallsOf(online(st).ID)[0]
			i.Status, i.DownloadProgress = "Downloading", simulator.N(3)
		}, []string{"application", changes, "image_install/$count", "image_install of devices"}, false},
		"a device comes with services": {services, func(st *simulator.State) {
			d := st.AddDevice(simulator.Device{FleetID: 1})
			st.Installs.Add(simulator.Install{DeviceID: d.ID, ImageID: 1, Status: "Running"})
		}, []string{"application", changes, "image_install/$count", "image_install of devices"}, false},
		"a service alone": {services, func(st *simulator.State) {
			st.InstallsOf(online(st).ID)[0].Status = "exited"
		}, []string{"application", changes, "image_install/$count", "image_install of devices"}, true},
		"an image is removed": {services, func(st *simulator.State) {
			st.InstallsOf(online(st).ID)[0].Status = "deleted"
		}, []string{"application", changes, "image_install/$count", "image_install of devices", "image_install"}, false},
		"a tag, and its device": {tags, func(st *simulator.State) {
			tag := st.DeviceTags.Get(3)
			tag.Value, st.Device(tag.DeviceID).Name = "changed", "renamed"
		}, []string{"application", changes, "device_tag/$count", "device_tag of devices"}, false},
		"a tag alone": {tags, func(st *simulator.State) {
			st.DeviceTags.Get(3).Value = "changed"
		}, []string{"application", changes, "device_tag/$count", "device_tag of devices"}, true},
		"a tag is taken away": {tags, func(st *simulator.State) {
			st.DeviceTags.Delete(3)
		}, []string{"application", changes, "device_tag/$count", "device_tag of devices", "device_tag"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			config := small
			config.Edition = simulator.Cloud
			f := follow(t, config, test.with, func(c *account.Config) { c.Keys = false })
			f.refresh(t) // the first query for rows is refused for the second time
			f.asked()
			f.Update(test.change)
			full := 0
			for refresh := range 15 {
				got := f.next(t)
				if got.Reading.Kind == balena.Full {
					full++
				}
				if refresh == 0 {
					if diff := cmp.Diff(test.asked, f.asked()); diff != "" {
						t.Errorf("requests (-want +got):\n%s", diff)
					}
				}
				late := f.difference(t, got) != ""
				if want := test.late && full == 0; late != want {
					t.Errorf("refresh %d of kind %s: is late: %t, want %t", refresh, got.Reading.Kind, late, want)
				}
			}
			if full == 0 {
				t.Error("there was no full refresh")
			}
		})
	}
}

// Changes that were missed while the server refused the query for changed rows are read when it answers the query again.
func TestRowsAreToldAfterwards(t *testing.T) {
	f := follow(t, small, func(c *account.Config) {
		c.DeviceTags, c.FleetTags, c.FullRefreshInterval = nil, nil, 10*time.Hour
	})
	f.SetFaults(refusing(installsChanged))
	for range 3 {
		f.refresh(t)
	}
	n := 10
	exit := func(st *simulator.State) {
		st.Device(3).Name += "x" // this advances the horizon
		for n++; ; n++ {
			if i := st.InstallsOf(n); st.Device(n) != nil && len(i) > 0 && i[0].Status == "Running" {
				i[0].Status = "exited"
				return
			}
		}
	}
	// The first refusal of a query may be chance: all rows are read.
	f.SetFaults(append(refusing(installsChanged), simulator.Fault{Resource: "image_install", Query: "modified_at gt", Status: http.StatusInternalServerError}))
	f.Update(exit)
	f.refresh(t)
	f.refresh(t)
	for range 3 {
		f.Update(exit)
		if got := f.next(t); got.Reading.Kind != balena.Incremental || f.difference(t, got) == "" {
			t.Errorf("a change that nothing tells of was seen: %+v", got.Reading)
		}
	}
	f.SetFaults(refusing(installsChanged))
	f.ours.advance(time.Hour)
	f.theirs.advance(time.Hour)
	if s := f.refresh(t); s.Reading.Kind != balena.Incremental {
		t.Errorf("%+v", s.Reading)
	}
}
