// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// What tells that a device is absent on purpose: its account, and tags.

// cloudAccount has three fleets of three organizations on balenaCloud.
var cloudAccount = simulator.Config{Devices: 60, Fleets: 3, Seed: 1, Edition: simulator.Cloud}

func TestOrganizations(t *testing.T) {
	k := newClock()
	config := cloudAccount
	config.Now = k.Now
	sim := newSimulator(t, config)
	sim.Update(func(st *simulator.State) {
		st.FreezeOrganization(2, true)
		st.Organization(3).PastDueInvoiceSince = st.Now()
	})
	client := newClient(t, serve(t, sim), withClock(k), fewer)
	pastDue := balena.Instant(k.Now().UnixMilli())
	want := []balena.Organization{
		{ID: 1, Handle: "acme", Name: "ACME Robotics"},
		{ID: 2, Handle: "zeta", Name: `Žeta "Labs" \ GmbH`, Frozen: true},
		{ID: 3, Handle: "northwind", Name: "Northwind Farming", PastDue: pastDue},
	}
	s := fetchWithParts(t, client)
	if diff := cmp.Diff(want, s.Organizations); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for d := range s.Devices.All() {
		if s.Fleet(d.FleetID).Organization == "zeta" && !d.Frozen {
			t.Errorf("device %d of the frozen organization is not frozen", d.ID)
		}
	}

	// They rarely change.
	sim.Update(func(st *simulator.State) { st.FreezeOrganization(2, false) })
	if !fetchWithParts(t, client).Organizations[1].Frozen {
		t.Error("the organizations were read again before the slow interval was over")
	}
	k.advance(15 * time.Minute)
	if fetchWithParts(t, client).Organizations[1].Frozen {
		t.Error("the organization is frozen still")
	}
}

// A server that refuses to tell of organizations has nothing to tell, and nothing fails. Once it has told of them, a
// refusal is a failure like any other.
func TestOrganizationsThatAreRefused(t *testing.T) {
	k := newClock()
	config := cloudAccount
	config.Now = k.Now
	sim := newSimulator(t, config)
	for _, status := range []int{500, 401, 400} {
		client := newClient(t, serve(t, sim), withClock(k), fewer)
		sim.SetFaults(simulator.Faults{{Resource: "organization", Status: status}})
		if s := fetchWithParts(t, client); s.Organizations != nil || !s.CloudFields {
			t.Errorf("%d: organizations %v, fields of balenaCloud: %t", status, s.Organizations, s.CloudFields)
		}
		sim.SetFaults(nil)
		k.advance(15 * time.Minute)
		if n := len(fetchWithParts(t, client).Organizations); n != 3 {
			t.Errorf("%d: %d organizations once they are told of, want 3", status, n)
		}
		sim.SetFaults(simulator.Faults{{Resource: "organization", Status: status}})
		k.advance(15 * time.Minute)
		s := fetch(t, client)
		if len(s.Organizations) != 3 || !slices.ContainsFunc(s.Parts, func(p balena.Part) bool { return p.Name == balena.PartOrganizations && p.Err != nil }) {
			t.Errorf("%d: %d organizations, parts %v; want the last ones, and a failure", status, len(s.Organizations), s.Parts)
		}
		sim.SetFaults(nil)
	}
}

// openBalena is not asked for organizations.
func TestOrganizationsOfOpenBalena(t *testing.T) {
	sim := newSimulator(t, small)
	if s := fetchWithParts(t, newClient(t, serve(t, sim), fewer)); s.Organizations != nil || sim.Requests()["organization"] != 0 {
		t.Errorf("organizations %v, requests %v", s.Organizations, sim.Requests())
	}
}

// A device is deactivated where the server says that it is not active, and not where it says nothing.
func TestDeactivatedDevices(t *testing.T) {
	for edition, want := range map[simulator.Edition]bool{simulator.Cloud: true, simulator.OpenBalena: false} {
		config := small
		config.Edition = edition
		f := follow(t, config, fewer)
		f.Update(func(st *simulator.State) { st.Device(1).Deactivate(st.Now()) })
		s := f.refresh(t)
		if d := s.Devices.Find(1); d.Deactivated != want || !d.OutOfService() {
			t.Errorf("%s: deactivated %t, out of service %t", edition, d.Deactivated, d.OutOfService())
		}
	}
}

// tagged is a small account that nobody has tagged.
func tagged(t *testing.T, edition simulator.Edition, change ...func(*account.Config)) *follower {
	config := small
	config.Edition = edition
	f := follow(t, config, append([]func(*account.Config){fewer, func(c *account.Config) { c.TagLimit = 3 }}, change...)...)
	f.Update(func(st *simulator.State) {
		st.DeviceTags.DeleteFunc(func(*simulator.DeviceTag) bool { return true })
		st.FleetTags.DeleteFunc(func(t *simulator.FleetTag) bool { return !st.Fleet(t.FleetID).IsForeign })
	})
	f.refresh(t)
	return f
}

// The keys that a pattern finds are exported in alphabetical order behind those that are named before it, until nobody has
// them any more.
func TestTagsByPattern(t *testing.T) {
	for _, edition := range []simulator.Edition{simulator.OpenBalena, simulator.Cloud} {
		t.Run(string(edition), func(t *testing.T) {
			f := tagged(t, edition, func(c *account.Config) { c.DeviceTags, c.FleetTags = []string{"owner", "site-*"}, []string{"*"} })
			for _, step := range []struct {
				change                func(*simulator.State)
				deviceKeys, fleetKeys string
				tags                  []string
			}{
				{func(*simulator.State) {}, "owner", "", nil},
				{func(st *simulator.State) {
					st.SetDeviceTag(2, "site-b", "b")
					st.SetDeviceTag(2, "sitE-c", "not asked for")
					st.SetFleetTag(1, "anything", "x")
				}, "owner site-b", "anything", []string{"", "b"}},
				{func(st *simulator.State) { st.SetDeviceTag(3, "site-a", "a") }, "owner site-a site-b", "anything", []string{"", "", "b"}},
				{func(st *simulator.State) { st.RemoveDeviceTag(3, "site-a") }, "owner site-b", "anything", []string{"", "b"}},
				{func(st *simulator.State) { st.SetDeviceTag(2, "owner", "me") }, "owner site-b", "anything", []string{"me", "b"}},
			} {
				f.Update(func(st *simulator.State) {
					step.change(st)
					for id := range 3 { // so that balenaCloud tells of the tags, too
						st.Device(id + 1).Name += "x"
					}
				})
				s := f.refresh(t)
				if got := strings.Join(s.DeviceTagKeys, " "); got != step.deviceKeys {
					t.Errorf("the keys of devices are %q, want %q", got, step.deviceKeys)
				}
				if got := strings.Join(s.FleetTagKeys, " "); got != step.fleetKeys {
					t.Errorf("the keys of fleets are %q, want %q", got, step.fleetKeys)
				}
				var got []string
				for _, tag := range s.Devices.Find(2).Tags() {
					got = append(got, tag.Value)
				}
				if !slices.Equal(got, step.tags) {
					t.Errorf("the tags of device 2 are %q, want %q", got, step.tags)
				}
			}
		})
	}
}

// More keys than the limit are an error of the part that says what to do, and the last tags stay.
func TestTooManyKeysOfTags(t *testing.T) {
	sim := newSimulator(t, small)
	tag := func(keys ...string) {
		sim.Update(func(st *simulator.State) {
			for _, key := range keys {
				st.SetDeviceTag(2, key, "x")
				st.SetFleetTag(1, key, "x")
			}
		})
	}
	tag("a-1", "a-2", "a-3")
	client := newClient(t, serve(t, sim), fewer, func(c *account.Config) {
		c.TagLimit, c.DeviceTags, c.FleetTags = 3, []string{"a-*", "b"}, []string{"b", "a-*"}
	})
	if s := fetchWithParts(t, client); len(s.DeviceTagKeys) != 4 || len(s.FleetTagKeys) != 4 {
		t.Fatalf("keys %q and %q, want four of each", s.DeviceTagKeys, s.FleetTagKeys)
	}
	tag("a-4")
	s := fetch(t, client)
	for part, flag := range map[balena.PartName]string{balena.PartDeviceTags: "--collector.device.tags", balena.PartFleetTags: "--collector.fleet.tags"} {
		i := slices.IndexFunc(s.Parts, func(p balena.Part) bool { return p.Name == part })
		want := "the patterns of " + flag + " match more than 3 keys; make them narrower, or raise --collector.tag-limit"
		if s.Parts[i].Err == nil || s.Parts[i].Err.Error() != want {
			t.Errorf("%s: %v, want %s", part, s.Parts[i].Err, want)
		}
	}
	if len(s.DeviceTagKeys) != 4 || len(s.Devices.Find(2).Tags()) != 4 || len(s.Fleets[0].Tags) != 4 {
		t.Errorf("the last tags are gone: %q, %v, %q", s.DeviceTagKeys, s.Devices.Find(2).Tags(), s.Fleets[0].Tags)
	}
}

// The maintenance tag is read though nobody exports it, and is exported only where somebody asks for it.
func TestMaintenanceTag(t *testing.T) {
	for _, test := range []struct {
		name         string
		device       []string // tags that are exported
		deviceKeys   []string
		withoutValue bool
	}{
		{"by itself", nil, nil, true},
		{"beside others", []string{"site"}, []string{"site"}, true},
		{"exported, too", []string{"repair", "site"}, []string{"repair", "site"}, false},
		{"by a pattern", []string{"re*"}, []string{"repair"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := tagged(t, simulator.OpenBalena, func(c *account.Config) {
				c.DeviceTags, c.FleetTags, c.MaintenanceTag = test.device, test.device, "repair"
			})
			f.refresh(t)
			f.Update(func(st *simulator.State) {
				st.SetDeviceTag(2, "repair", "2026-12-01")
				st.SetFleetTag(1, "repair", "")
			})
			s := f.refresh(t)
			end := balena.Instant(time.Date(2026, 12, 2, 0, 0, 0, 0, time.UTC).UnixMilli())
			if got := s.Devices.Find(2).Maintenance; got != end {
				t.Errorf("the maintenance of the device ends at %d, want %d", got, end)
			}
			if got := s.Fleets[0].Maintenance; got != balena.Forever {
				t.Errorf("the maintenance of the fleet ends at %d, want never", got)
			}
			if !slices.Equal(s.DeviceTagKeys, test.deviceKeys) || !slices.Equal(s.FleetTagKeys, test.deviceKeys) {
				t.Errorf("keys %q and %q, want %q", s.DeviceTagKeys, s.FleetTagKeys, test.deviceKeys)
			}
			if (s.Fleets[0].Tags == nil) != test.withoutValue {
				t.Errorf("the fleet has the tags %q", s.Fleets[0].Tags)
			}
			f.Update(func(st *simulator.State) {
				st.RemoveDeviceTag(2, "repair")
				st.RemoveFleetTag(1, "repair")
			})
			if s := f.refresh(t); s.Devices.Find(2).Maintenance != 0 || s.Fleets[0].Maintenance != 0 {
				t.Errorf("the maintenance goes on without the tag: %d, %d", s.Devices.Find(2).Maintenance, s.Fleets[0].Maintenance)
			}
		})
	}
}

// A tag with an empty key is a tag like others. Without a maintenance tag, it does not start a maintenance.
func TestTagsWithEmptyKey(t *testing.T) {
	f := tagged(t, simulator.OpenBalena, func(c *account.Config) {
		c.DeviceTags, c.FleetTags = []string{"*"}, []string{"*"}
	})
	f.Update(func(st *simulator.State) {
		st.SetDeviceTag(2, "", "x")
		st.SetFleetTag(1, "", "x")
	})
	s := f.refresh(t)
	if !slices.Contains(s.DeviceTagKeys, "") || !slices.Contains(s.FleetTagKeys, "") {
		t.Errorf("the keys %q and %q lack the empty key", s.DeviceTagKeys, s.FleetTagKeys)
	}
	if device, fleet := s.Devices.Find(2).Maintenance, s.Fleets[0].Maintenance; device != 0 || fleet != 0 {
		t.Errorf("the maintenance of the device ends at %d, that of the fleet at %d, want none", device, fleet)
	}
}

// How many services run is the same whether they are read by themselves or with the devices; and unknown when they can't
// be read.
func TestServiceSummary(t *testing.T) {
	for name, config := range map[string]func(*account.Config){
		"with the devices": fewer,
		"by themselves":    func(c *account.Config) { fewer(c); c.Services = true },
	} {
		t.Run(name, func(t *testing.T) {
			f := follow(t, small, config)
			f.refresh(t)
			var device, target int64
			f.Update(func(st *simulator.State) {
				for _, d := range st.Devices.All() {
					if fleet := st.Fleet(d.FleetID); d.PinnedReleaseID == 0 && fleet.TargetReleaseID == d.RunningReleaseID && len(st.InstallsOf(d.ID)) == 2 {
						device, target = int64(d.ID), int64(d.RunningReleaseID)
					}
				}
				st.SetServices(int(device), "Running")
			})
			running := func() (services, running int) {
				services, running, _ = f.refresh(t).Devices.Find(device).Installs.Of(target)
				return services, running
			}
			if services, n := running(); services != 2 || n != 2 {
				t.Errorf("%d of %d services run, want both", n, services)
			}
			f.Update(func(st *simulator.State) { st.InstallsOf(int(device))[0].Status = "Downloaded" })
			if services, n := running(); services != 2 || n != 1 {
				t.Errorf("%d of %d services run, want one", n, services)
			}
			f.Update(func(st *simulator.State) { st.InstallsOf(int(device))[0].Status = "deleted" })
			if services, n := running(); services != 1 || n != 1 {
				t.Errorf("%d of %d services run, want the other one", n, services)
			}
		})
	}
	k := newClock()
	sim := newSimulator(t, small)
	client := newClient(t, serve(t, sim), withClock(k), func(c *account.Config) { fewer(c); c.Services = true })
	fetchWithParts(t, client)
	sim.SetFaults(simulator.Faults{{Resource: "image_install", Status: 502}})
	k.advance(time.Hour)
	for d := range fetch(t, client).Devices.All() {
		if d.Installs.Known() {
			t.Fatalf("device %d has the services %q, which are too old", d.ID, d.Installs)
		}
	}
}
