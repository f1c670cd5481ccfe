// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// These tests use servers that refuse some queries, and accounts that change while they are read. follower.refresh
// compares each snapshot with that of a new client.

// rename makes a change that the next refresh must find.
func (f *follower) rename(id int) {
	f.Update(func(st *simulator.State) { st.Device(id).Name += "x" })
}

// after calls a function once, right after the answer to a request whose path and query contain a text.
func (f *follower) after(request string, change func(*simulator.State)) {
	next, done := f.wire.next, false
	f.wire.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if !done && strings.Contains(r.URL.String(), request) {
			done = true
			f.Update(change)
		}
	})
}

// If a server refuses only the query for changes, everything is read. One refresh may fail at first, if the refusal looks
// like a failure of the server, and one after each full refresh, when the query is tried again.
func TestServersThatSayNoToTheQuestion(t *testing.T) {
	for i, status := range []int{401, 502, 400, 403, 404, 500, 504} {
		if testing.Short() && i > 1 {
			break
		}
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			f := follow(t, small, fewer)
			f.SetFaults(simulator.Faults{{Resource: "device", Query: "modified_at gt", Status: status, Body: `"no"`}})
			failed, last := 0, false
			for range 20 {
				f.rename(7)
				if _, err := f.client.Fetch(t.Context()); err == nil {
					if s := f.refresh(t); s.Reading.Kind != balena.Full {
						t.Errorf("%+v", s.Reading)
					}
					last = false
					continue
				}
				if last {
					t.Fatal("two refreshes in a row failed")
				}
				failed, last = failed+1, true
				f.ours.advance(time.Minute)
				f.theirs.advance(time.Minute)
			}
			if failed > 3 {
				t.Errorf("%d refreshes failed", failed)
			}
		})
	}
}

// The same applies to services: no part of a refresh fails because of it.
func TestServersThatSayNoToChangesOfServices(t *testing.T) {
	for i, status := range []int{500, 401, 400, 502} {
		if testing.Short() && i > 0 {
			break
		}
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			f := follow(t, small, func(c *account.Config) { c.DeviceTags, c.FleetTags = nil, nil })
			f.SetFaults(simulator.Faults{{Resource: "image_install", Query: "modified_at gt", Status: status, Body: `"no"`}})
			asked := 0
			for range 16 {
				f.Update(func(st *simulator.State) { st.Installs.Get(5).InstallDate++ })
				f.refresh(t)
				for _, what := range f.asked() {
					if what == "image_install changes" {
						asked++
					}
				}
			}
			if asked > 4 {
				t.Errorf("asked %d times within one interval of full refreshes", asked)
			}
		})
	}
}

// If a server, or a proxy in front of it, truncates pages, lists are read to the end: whether the limit was already reached
// in a full refresh or the account grows beyond it later.
func TestShortPagesOfChanges(t *testing.T) {
	const limit = 20
	account := func(devices int) *follower {
		config := simulator.Config{Devices: devices, Fleets: 1, Seed: 1, CloudFields: true}
		f := follow(t, config, fewer, func(c *account.Config) { c.PageSize, c.FullRefreshInterval = 50, 24*time.Hour })
		next := f.wire.next
		top := regexp.MustCompile(`\$top=50\b`)
		f.wire.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.RequestURI = top.ReplaceAllString(r.RequestURI, fmt.Sprint("$$top=", limit))
			next.ServeHTTP(w, r)
		})
		return f
	}
	renameAll := func(st *simulator.State) {
		for _, d := range st.Devices.All() {
			d.Name += "x"
		}
	}
	t.Run("it grows", func(t *testing.T) {
		f := account(limit - 5)
		f.Update(func(st *simulator.State) {
			for range 2 * limit {
				st.AddDevice(simulator.Device{FleetID: 1})
			}
		})
		for range 3 {
			f.refresh(t)
			f.rename(1)
		}
	})
	t.Run("for more than an hour", func(t *testing.T) {
		f := account(10*limit - 1)
		f.Update(func(st *simulator.State) { st.AddDevice(simulator.Device{FleetID: 1}) })
		f.token += "2" // this causes a full refresh
		f.refresh(t)
		for range 65 {
			f.rename(7)
			f.refresh(t)
		}
		f.Update(renameAll)
		f.refresh(t)
		f.Update(func(st *simulator.State) { st.DeleteDevice(7) })
		if s := f.refresh(t); s.Reading.Kind != balena.Incremental {
			t.Errorf("%+v", s.Reading)
		}
	})
}

// The progress of an update depends on the images of the target release. It changes when the fleet gets another target,
// although no row of the device is written.
func TestProgressFollowsTheTarget(t *testing.T) {
	f := follow(t, small, fewer)
	id := 0
	f.Update(func(st *simulator.State) {
		for _, d := range st.Devices.All() {
			installs := st.InstallsOf(d.ID)
			if d.IsConnectedToVPN && d.HeartbeatState == "online" && d.PinnedReleaseID == 0 &&
				len(installs) > 1 && installs[1].ReleaseID == st.Fleet(d.FleetID).TargetReleaseID {
				installs[0].Status, installs[0].DownloadProgress = "Downloading", simulator.N(10)
				id = d.ID
				return
			}
		}
		t.Fatal("no device fits")
	})
	before := f.refresh(t).Devices.Find(int64(id)).UpdateProgress
	for range 3 { // longer than the overlap
		f.rename(200)
		f.refresh(t)
	}
	f.Update(func(st *simulator.State) {
		fleet := st.Fleet(st.Device(id).FleetID)
		for _, r := range st.Releases.All() {
			if r.FleetID == fleet.ID && r.ID != fleet.TargetReleaseID {
				fleet.TargetReleaseID = r.ID
				return
			}
		}
	})
	s := f.refresh(t)
	if after := s.Devices.Find(int64(id)).UpdateProgress; s.Reading.Kind != balena.Incremental || !(before > 10) || after != 10 {
		t.Errorf("a refresh of kind %s; the progress was %v and is %v, want more than 10 and 10", s.Reading.Kind, before, after)
	}
}

// If the target of a fleet is set and reset while devices are read, the devices have the target that was read with the
// fleets.
func TestTargetSetAndSetBack(t *testing.T) {
	f := follow(t, small, fewer)
	id, target := 0, 0
	f.Update(func(st *simulator.State) {
		target = st.Fleet(1).TargetReleaseID
		for _, d := range st.Devices.All() {
			if d.FleetID == 1 && d.PinnedReleaseID == 0 {
				d.Name += "x"
				id = d.ID
				return
			}
		}
	})
	f.after("owns__device", func(st *simulator.State) { st.Fleet(1).TargetReleaseID = target%4 + 1 })
	f.after("/device?", func(st *simulator.State) { st.Fleet(1).TargetReleaseID = target })
	f.ours.advance(time.Minute)
	f.theirs.advance(time.Minute)
	if got := fetch(t, f.client).Devices.Find(int64(id)).TargetRelease; got != int64(target) {
		t.Errorf("the device's target is %d, want the fleet's, %d", got, target)
	}
	f.rename(200)
	f.refresh(t)
}

// A device that moves to another fleet before the ids of its old fleet are listed does not disappear.
func TestMoveWhileIDsAreListed(t *testing.T) {
	f := follow(t, small, fewer)
	f.Update(func(st *simulator.State) {
		for _, d := range st.Devices.All() {
			if d.FleetID == st.Device(7).FleetID && d.ID != 7 {
				st.DeleteDevice(d.ID)
				return
			}
		}
	})
	f.after("modified_at%20gt", func(st *simulator.State) { st.Device(7).FleetID = 1 + st.Device(7).FleetID%2 })
	f.ours.advance(time.Minute)
	f.theirs.advance(time.Minute)
	if s := fetch(t, f.client); s.Devices.Find(7) == nil {
		t.Errorf("device 7 is gone: %+v", s.Reading)
	}
	f.rename(200)
	if s := f.refresh(t); s.Reading.Kind != balena.Incremental {
		t.Errorf("%+v", s.Reading)
	}
}

// A device that is added at the beginning of the list, between the count and the list, does not push the last device out
// of a full page.
func TestMoveInWhileDevicesAreListed(t *testing.T) {
	f := follow(t, small, fewer, func(c *account.Config) { c.PageSize = small.Devices / 7 })
	f.Update(func(st *simulator.State) {
		block := st.AddFleet(simulator.Fleet{Class: "block"})
		st.Device(3).FleetID = block.ID
		st.AddDevice(simulator.Device{FleetID: 1})
	})
	f.refresh(t)
	f.ours.advance(15 * time.Minute)
	f.theirs.advance(15 * time.Minute)
	f.after("owns__device", func(st *simulator.State) { st.Device(3).FleetID = 1 })
	s := fetch(t, f.client)
	if s.Reading.Kind != balena.Full || s.Devices.Len() != small.Devices+1 {
		t.Errorf("%d devices, want %d; %+v", s.Devices.Len(), small.Devices+1, s.Reading)
	}
	f.rename(200)
	if s := f.refresh(t); s.Reading.Kind != balena.Incremental {
		t.Errorf("%+v", s.Reading)
	}
}

// A device whose registration took longer than the overlap is found by the count of its fleet, and causes full refreshes
// only until the next regular one.
func TestDeviceThatTakesLongToBeRegistered(t *testing.T) {
	f := follow(t, small, fewer)
	f.rename(200) // so that the newest change is from now
	f.refresh(t)
	f.Update(func(st *simulator.State) {
		at := simulator.At(f.theirs.Now().Add(-150 * time.Second))
		st.AddDevice(simulator.Device{FleetID: 1, Row: simulator.Row{CreatedAt: at, ModifiedAt: at}})
	})
	whole := 0
	for range 25 {
		f.rename(200)
		if f.refresh(t).Reading.Kind == balena.Full {
			whole++
		}
	}
	if whole > 17 { // one or two of them are due anyway
		t.Errorf("%d of 25 refreshes read everything", whole)
	}
}

// A device that moves to another fleet stays, even if another one is registered in its old fleet: a device that is missing
// from a list of ids is read by its id.
func TestMoveWhileAnotherIsRegistered(t *testing.T) {
	f := follow(t, small, fewer)
	fleet := 0
	f.Update(func(st *simulator.State) { fleet = st.Device(7).FleetID })
	f.after("owns__device", func(st *simulator.State) { st.AddDevice(simulator.Device{FleetID: fleet}) })
	f.after("modified_at%20gt", func(st *simulator.State) { st.Device(7).FleetID = 1 + fleet%2 })
	f.ours.advance(time.Minute)
	f.theirs.advance(time.Minute)
	s := fetch(t, f.client)
	if d := s.Devices.Find(7); d == nil || d.FleetID != int64(1+fleet%2) || s.Reading.Kind != balena.Incremental {
		t.Errorf("device 7 is %+v, want it in fleet %d; %+v", d, 1+fleet%2, s.Reading)
	}
	f.rename(200)
	f.refresh(t)
}

// A device that is added by a transaction that began before the devices were counted does not push the last one out of a
// full page.
func TestMoveInByASlowTransaction(t *testing.T) {
	f := follow(t, small, fewer, func(c *account.Config) { c.PageSize = small.Devices / 7 })
	last := 0
	f.Update(func(st *simulator.State) {
		block := st.AddFleet(simulator.Fleet{Class: "block"})
		st.Device(3).FleetID = block.ID
		last = st.AddDevice(simulator.Device{FleetID: 1}).ID
	})
	f.refresh(t)
	f.ours.advance(15 * time.Minute)
	f.theirs.advance(15 * time.Minute)
	f.after("owns__device", func(st *simulator.State) {
		d := st.Device(3)
		d.FleetID, d.ModifiedAt = 1, simulator.At(f.theirs.Now().Add(-20*time.Second))
	})
	if s := fetch(t, f.client); s.Devices.Find(int64(last)) == nil || s.Reading.Kind != balena.Full {
		t.Errorf("device %d, which nobody touched, is not in the full refresh: %d devices of %d; %+v", last, s.Devices.Len(), small.Devices+1, s.Reading)
	}
}

// A device that is read by its ID has moved to a fleet whose number of devices matched the count until then. The IDs of that
// fleet are listed as well, which shows that another device of it was deleted.
func TestMoveIntoAFleetThatAddedUp(t *testing.T) {
	for _, edition := range simulator.Editions() {
		t.Run(edition, func(t *testing.T) {
			config := small
			config.Edition = simulator.Edition(edition)
			f := follow(t, config, fewer)
			const a, b, gone, leaves, enters = 1, 2, 7, 200, 3
			f.Update(func(st *simulator.State) {
				st.Device(gone).FleetID, st.Device(leaves).FleetID, st.Device(enters).FleetID = a, a, b
			})
			f.refresh(t)
			for range 3 { // longer than the overlap
				f.rename(210)
				f.refresh(t)
			}
			f.asked()
			f.Update(func(st *simulator.State) { st.DeleteDevice(gone) })
			f.after("owns__device", func(st *simulator.State) { st.Device(leaves).FleetID = b })
			f.after("modified_at%20gt", func(st *simulator.State) { st.Device(enters).FleetID = a })
			s := f.refresh(t)
			changes := "device changes"
			if config.Edition == simulator.Cloud {
				changes += " and downloads"
			}
			want := []string{"application", changes, "device ids", "device by id", "device ids", "device by id"}
			asked := f.asked()
			if diff := cmp.Diff(want, asked[:min(len(want), len(asked))]); diff != "" || s.Reading.Kind != balena.Incremental {
				t.Errorf("a refresh of kind %s; requests (-want +got):\n%s", s.Reading.Kind, diff)
			}
		})
	}
}

// Only a count reports that a row was deleted. Another row that is added or removed between two requests of a refresh makes
// up for it. The deleted row stays for that refresh, and the next refresh removes it.
func TestDeletionsThatACountHides(t *testing.T) {
	type change = func(*simulator.State)
	const enters = 3 // a device that enters reach, or leaves it
	const block = 99 // a fleet of class block
	hasService := func(d *balena.Device) bool { return len(d.Services()) > 0 }
	hasTag := func(d *balena.Device) bool {
		return slices.ContainsFunc(d.Tags(), func(t balena.Tag) bool { return t.ID != 0 })
	}
	for name, test := range map[string]struct {
		with func(*account.Config)
		// before changes the account before the refresh, and meanwhile after an answer to the request.
		before    change
		request   string
		meanwhile change
		// stays reports whether device 7 has the deleted row, or is the deleted row.
		stays func(*balena.Device) bool
	}{
		"of a service, while a device with as many enters reach": {
			func(c *account.Config) { c.Services = true },
			func(st *simulator.State) { st.Installs.Delete(st.InstallsOf(7)[0].ID) },
			"/device?", func(st *simulator.State) { st.Device(enters).FleetID = 1 }, hasService,
		},
		"of a service, while another is removed": {
			func(c *account.Config) { c.Services = true },
			func(st *simulator.State) { st.Installs.Delete(st.InstallsOf(7)[0].ID) },
			"image_install/$count", func(st *simulator.State) { st.InstallsOf(8)[0].Status = "deleted" }, hasService,
		},
		"of a tag, while a device with as many enters reach": {
			func(c *account.Config) { c.DeviceTags = []string{"site"} },
			func(st *simulator.State) {
				st.DeviceTags.DeleteFunc(func(t *simulator.DeviceTag) bool { return t.DeviceID == 7 })
			},
			"/device?", func(st *simulator.State) { st.Device(enters).FleetID = 1 }, hasTag,
		},
		"of a tag, while one that was just added is deleted": {
			func(c *account.Config) { c.DeviceTags = []string{"site"} },
			func(st *simulator.State) {
				st.DeviceTags.DeleteFunc(func(t *simulator.DeviceTag) bool { return t.DeviceID == 7 })
				st.DeviceTags.Add(simulator.DeviceTag{DeviceID: 8, Key: "site", Value: "x"})
			},
			"device_tag/$count", func(st *simulator.State) {
				st.DeviceTags.DeleteFunc(func(t *simulator.DeviceTag) bool { return t.DeviceID == 8 })
			}, hasTag,
		},
		"of a device, while another enters the fleet and leaves it": {
			func(*account.Config) {},
			func(st *simulator.State) {
				st.Device(enters).FleetID = st.Device(7).FleetID
				st.DeleteDevice(7)
			},
			"owns__device", func(st *simulator.State) { st.Device(enters).FleetID = block },
			func(d *balena.Device) bool { return d != nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := follow(t, small, fewer, func(c *account.Config) { c.ArchivedFleets, c.ServiceSummary = false, false }, test.with)
			f.Update(func(st *simulator.State) {
				st.Device(enters).FleetID = st.AddFleet(simulator.Fleet{Row: simulator.Row{ID: block}, Class: "block"}).ID
				st.DeviceTags.DeleteFunc(func(*simulator.DeviceTag) bool { return true })
				for _, id := range []int{enters, 7} {
					st.DeviceTags.Add(simulator.DeviceTag{Row: simulator.Row{ModifiedAt: simulator.At(noon.Add(-time.Hour))}, DeviceID: id, Key: "site", Value: "x"})
					for _, install := range st.InstallsOf(id)[1:] {
						st.Installs.Delete(install.ID)
					}
				}
				for _, id := range []int{enters, 7, 8} {
					st.InstallsOf(id)[0].Status = "Running"
				}
			})
			f.refresh(t)
			f.Update(test.before)
			f.rename(200) // the first page of changes ends with a device with a higher id than all others of this test
			f.after(test.request, test.meanwhile)
			if s := f.next(t); !test.stays(s.Devices.Find(7)) || s.Reading.Kind != balena.Incremental {
				t.Errorf("a refresh of kind %s does not have the deleted row any more, which the documentation says that it has", s.Reading.Kind)
			}
			if s := f.refresh(t); s.Reading.Kind != balena.Incremental {
				t.Errorf("the next refresh is of kind %s: %s", s.Reading.Kind, s.Reading.Why)
			}
		})
	}
}

// Whatever limit a server or a proxy has for pages, no rows are lost.
func TestPagesWithALimit(t *testing.T) {
	config := simulator.Config{Devices: 60, Fleets: 5, Seed: 1}
	sim := newSimulator(t, config)
	sim.Update(func(st *simulator.State) {
		for _, d := range st.Devices.All() {
			st.DeviceTags.Add(simulator.DeviceTag{DeviceID: d.ID, Key: "site", Value: "x"})
		}
		for _, fleet := range st.Fleets.All() {
			st.FleetTags.Add(simulator.FleetTag{FleetID: fleet.ID, Key: "team", Value: "x"})
		}
	})
	want := fetchWithParts(t, newClient(t, serve(t, sim), withClock(newClock())))
	top := regexp.MustCompile(`\$top=1000\b`)
	for _, limit := range []int{1, 2, 7, 59, 60, 61, 100} {
		limited := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.RequestURI = top.ReplaceAllString(r.RequestURI, fmt.Sprint("$$top=", limit))
			sim.ServeHTTP(w, r)
		})
		got := fetchWithParts(t, newClient(t, serve(t, limited), withClock(newClock())))
		if diff := cmp.Diff(want, got, sameSnapshot); diff != "" {
			t.Errorf("pages of %d at most (-want +got):\n%.2000s", limit, diff)
		}
	}
}

// During a large rollout, devices create image installs as fast as these are listed. The lists end nevertheless, and the next
// refresh reads the services that they do not contain.
func TestServicesOfALargeRollout(t *testing.T) {
	const page = 100
	for _, edition := range simulator.Editions() {
		for _, rate := range []int{1, 10, page / 2} { // new installs for each request
			t.Run(fmt.Sprintf("%s/%d", edition, rate), func(t *testing.T) {
				config := small
				config.Edition = simulator.Edition(edition)
				f := follow(t, config, pagesOf(page), func(c *account.Config) { c.DeviceTags, c.FleetTags = nil, nil })
				next, device := f.wire.next, 0
				rollout := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					next.ServeHTTP(w, r)
					f.Update(func(st *simulator.State) {
						for range rate {
							device = device%small.Devices + 1
							if installs := st.InstallsOf(device); len(installs) > 0 {
								st.Installs.Add(simulator.Install{
									DeviceID: device, ImageID: installs[0].ImageID, ReleaseID: installs[0].ReleaseID,
									Status: "Downloading", DownloadProgress: simulator.N(1),
								})
							}
						}
					})
				})
				for _, kind := range []balena.Kind{balena.Incremental, balena.Full} {
					if kind == balena.Full {
						f.ours.advance(15 * time.Minute)
						f.theirs.advance(15 * time.Minute)
					}
					f.wire.requests()
					f.wire.next = rollout
					if s := f.next(t); s.Reading.Kind != kind {
						t.Errorf("a refresh of kind %s, want %s: %s", s.Reading.Kind, kind, s.Reading.Why)
					}
					f.wire.next = next
					lists := 0
					for _, r := range f.wire.requests() {
						if r.URL.Path == "/v7/image_install" {
							lists++
						}
					}
					installs := 0
					f.Update(func(st *simulator.State) { installs = st.Installs.Len() })
					// In an incremental refresh, the count requires that all services are read after those that changed.
					if most := 2 * (installs/page + 2); lists > most {
						t.Errorf("a refresh of kind %s with %d requests for %d services, want at most %d", kind, lists, installs, most)
					}
					f.refresh(t)
				}
			})
		}
	}
}

// A slow body of an answer does not look like a clock that was set.
func TestSlowBody(t *testing.T) {
	f := follow(t, small, fewer)
	next, slow := f.wire.next, true
	f.wire.next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if slow && strings.Contains(r.URL.String(), "owns__device") {
			slow = false
			f.ours.advance(31 * time.Second)
			f.theirs.advance(31 * time.Second)
		}
	})
	for range 2 {
		f.ours.advance(time.Minute)
		f.theirs.advance(time.Minute)
		if s := fetch(t, f.client); s.Reading.Kind != balena.Incremental {
			t.Errorf("a refresh of kind %s: %s", s.Reading.Kind, s.Reading.Why)
		}
	}
}

// An account in which nothing is written is not read again and again.
func TestQuietAccount(t *testing.T) {
	f := follow(t, small, fewer)
	for written, newest := range map[int]int{10: 10, 50: 0} { // by one transaction
		f.Update(func(st *simulator.State) {
			for i := range written {
				st.Device(i + 1).Name += "x"
			}
		})
		var read []int
		for range 5 {
			read = append(read, f.refresh(t).Reading.Devices)
		}
		// Devices are read when they change, and once more because of the overlap; then only the newest ones, if they are few.
		if want := []int{read[0], written, newest, newest, newest}; read[0] < written || !slices.Equal(read, want) {
			t.Errorf("%v devices were read by one refresh after the other, want %v", read, want)
		}
	}
}

// If more devices than fit into a URL are downloading when their fleet gets another target, everything is read.
func TestManyDownloadingDevices(t *testing.T) {
	for n, kind := range map[int]balena.Kind{200: balena.Incremental, 201: balena.Full} {
		f := follow(t, simulator.Config{Devices: 300, Fleets: 1, Seed: 1}, fewer)
		f.Update(func(st *simulator.State) {
			for i, d := range st.Devices.All() {
				d.ProvisioningState, d.ProvisioningProgress = "", simulator.Number{}
				if i < n {
					d.IsConnectedToVPN, d.HeartbeatState, d.Status, d.DownloadProgress, d.PinnedReleaseID = true, "online", "Downloading", simulator.N(10), 0
				} else {
					d.Status, d.DownloadProgress = "Idle", simulator.Number{}
					for _, install := range st.InstallsOf(d.ID) {
						install.Status, install.DownloadProgress = "Running", simulator.Number{}
					}
				}
			}
		})
		f.refresh(t)
		f.Update(func(st *simulator.State) { st.Fleet(1).TargetReleaseID = 1 + st.Fleet(1).TargetReleaseID%2 })
		if s := f.refresh(t); s.Reading.Kind != kind {
			t.Errorf("%d devices download: %+v, want a refresh of kind %s", n, s.Reading, kind)
		}
	}
}

// If more fleets than fit into a URL lose a device at once, everything is read.
func TestManyUncertainFleets(t *testing.T) {
	const fleets = 1203
	for n, kind := range map[int]balena.Kind{1000: balena.Incremental, 1201: balena.Full} {
		if testing.Short() && kind == balena.Incremental {
			continue
		}
		f := follow(t, simulator.Config{Devices: fleets, Fleets: fleets, Seed: 1}, fewer)
		f.Update(func(st *simulator.State) {
			for i := range fleets {
				st.Device(i + 1).FleetID = i + 1
			}
		})
		f.refresh(t)
		f.Update(func(st *simulator.State) {
			for i := range n {
				st.DeleteDevice(i + 1)
			}
		})
		if s := f.refresh(t); s.Reading.Kind != kind {
			t.Errorf("%d fleets lost a device: %+v, want a refresh of kind %s", n, s.Reading, kind)
		}
	}
}
