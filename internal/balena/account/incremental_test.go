// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// follower is a client that reads an account repeatedly.
type follower struct {
	*simulator.Simulator
	wire   *sniffer
	client *account.Reader
	// ours and theirs are the clocks of client and server.
	ours, theirs *clock
	token        string
	changes      []func(*account.Config)
}

// follow returns a follower after a full refresh that uses the best query for changes that the server answers: at once on
// openBalena, and on balenaCloud after the first query was refused twice.
func follow(t *testing.T, config simulator.Config, changes ...func(*account.Config)) *follower {
	f := &follower{ours: newClock(), theirs: newClock(), token: token, changes: changes}
	config.Now = f.theirs.Now
	config.Tokens = []string{token, token + "2"}
	f.Simulator = newSimulator(t, config)
	f.wire = &sniffer{next: f.Simulator}
	f.client = f.newClient(t, serve(t, f.wire))
	kinds := []balena.Kind{balena.Full, balena.Incremental}
	if config.Edition == simulator.Cloud {
		kinds = []balena.Kind{balena.Full, balena.Full, balena.Incremental}
	}
	for _, kind := range kinds {
		if s := f.refresh(t); s.Reading.Kind != kind {
			t.Fatalf("a refresh of kind %s, want %s: %v", s.Reading.Kind, kind, s.Reading.Reason)
		}
	}
	f.wire.requests()
	return f
}

func (f *follower) newClient(t *testing.T, address string) *account.Reader {
	return newClient(t, address, append([]func(*account.Config){withClock(f.ours), func(c *account.Config) {
		c.Token = func(context.Context) (string, error) { return f.token, nil }
		c.FullRefreshInterval = 15 * time.Minute
		c.SlowInterval = 24 * time.Hour
	}}, f.changes...)...)
}

// refresh refreshes a minute later, and compares the snapshot with that of a new client.
func (f *follower) refresh(t *testing.T) *balena.Snapshot {
	t.Helper()
	got := f.next(t)
	if diff := f.difference(t, got); diff != "" {
		t.Errorf("a client that knows nothing (-) and one that follows (+) read:\n%.2000s", diff)
	}
	return got
}

// next refreshes a minute later.
func (f *follower) next(t *testing.T) *balena.Snapshot {
	t.Helper()
	f.ours.advance(time.Minute)
	f.theirs.advance(time.Minute)
	return fetchWithParts(t, f.client)
}

// difference compares a snapshot with that of a new client.
func (f *follower) difference(t *testing.T, got *balena.Snapshot) string {
	t.Helper()
	server := httptest.NewServer(f.Simulator)
	defer server.Close()
	faults := f.Faults()
	f.SetFaults(nil)
	defer f.SetFaults(faults)
	want := fetchWithParts(t, f.newClient(t, server.URL))
	return cmp.Diff(want, got, sameSnapshot)
}

// asked returns the lists and counts that were requested since its last call, by their content.
func (f *follower) asked() []string {
	var asked []string
	for _, r := range f.wire.requests() {
		what := strings.TrimPrefix(r.URL.Path, "/v7/")
		switch query := r.URL.RawQuery; {
		case strings.HasSuffix(what, "/$count"):
		case strings.Contains(query, "i/status%20eq"):
			what += " changes and downloads"
		case strings.Contains(query, "modified_at%20gt"):
			what += " changes"
		case strings.Contains(strings.ReplaceAll(query, "=", "%20"), "%20device%20in%20("):
			what += " of devices"
		case strings.HasPrefix(query, "$select=id&$filter"):
			what += " ids"
		case strings.Contains(query, "id%20in%20("):
			what += " by id"
		}
		asked = append(asked, what)
	}
	return slices.Compact(asked) // the pages of a list
}

func TestWhatIsAskedForChanges(t *testing.T) {
	services := func(c *account.Config) { c.DeviceTags, c.FleetTags = nil, nil }
	tags := func(c *account.Config) { c.Services, c.FleetTags = false, nil }
	full := []string{"application", "device"}
	changes := []string{"application", "device changes"}
	for name, test := range map[string]struct {
		with   func(*account.Config)
		change func(*follower, *simulator.State)
		kind   balena.Kind
		asked  []string
		// changed is the number of devices that changed.
		changed int
	}{
		"nothing": {fewer, func(*follower, *simulator.State) {}, balena.Incremental, changes, 0},
		"a device is renamed": {fewer, func(_ *follower, st *simulator.State) {
			st.Device(7).Name = "renamed"
		}, balena.Incremental, changes, 1},
		"a device comes": {fewer, func(_ *follower, st *simulator.State) {
			st.AddDevice(simulator.Device{FleetID: 1})
		}, balena.Incremental, changes, 1},
		"a device goes": {fewer, func(_ *follower, st *simulator.State) {
			st.DeleteDevice(7)
		}, balena.Incremental, []string{"application", "device changes", "device ids", "device by id"}, 1},
		"a device comes and one goes": {fewer, func(_ *follower, st *simulator.State) {
			st.AddDevice(simulator.Device{FleetID: st.Device(7).FleetID})
			st.DeleteDevice(7)
		}, balena.Incremental, []string{"application", "device changes", "device ids", "device by id"}, 2},
		"a device moves": {fewer, func(_ *follower, st *simulator.State) {
			st.Device(7).FleetID = 1 + st.Device(7).FleetID%2
		}, balena.Incremental, changes, 1},
		"an update is seen on an image only": {fewer, func(_ *follower, st *simulator.State) {
			for _, d := range st.Devices.All() {
				if installs := st.InstallsOf(d.ID); d.IsConnectedToVPN && d.HeartbeatState == "online" && len(installs) > 0 {
					installs[0].Status, installs[0].DownloadProgress = "Downloading", simulator.N(3)
					return
				}
			}
			t.Fatal("no device is online")
		}, balena.Incremental, changes, 1},
		"a fleet is given another target": {fewer, func(_ *follower, st *simulator.State) {
			st.Fleet(1).TargetReleaseID = 1
		}, balena.Incremental, []string{"application", "device changes", "release by id"}, -1},
		"a fleet is renamed": {fewer, func(_ *follower, st *simulator.State) {
			st.RenameFleet(1, "renamed")
		}, balena.Incremental, changes, 0},
		"an empty fleet comes": {fewer, func(_ *follower, st *simulator.State) {
			st.AddFleet(simulator.Fleet{AppName: "new"})
		}, balena.Incremental, changes, 0},
		"a fleet goes": {fewer, func(_ *follower, st *simulator.State) {
			st.DeleteFleet(2)
		}, balena.Incremental, changes, -1},
		"a commit comes late": {fewer, func(f *follower, st *simulator.State) {
			d := st.Device(7)
			d.Name, d.ModifiedAt = "renamed", simulator.At(f.theirs.Now().Add(-59*time.Second))
		}, balena.Incremental, changes, 1},

		"a service changes": {services, func(_ *follower, st *simulator.State) {
			st.Installs.Get(5).Status = "exited"
		}, balena.Incremental, append(changes, "image_install/$count", "image_install changes"), 1},
		"an image is removed": {services, func(_ *follower, st *simulator.State) {
			st.Installs.Get(5).Status = "deleted"
		}, balena.Incremental, append(changes, "image_install/$count", "image_install changes"), 1},
		"an image's row is deleted": {services, func(_ *follower, st *simulator.State) {
			st.Installs.Delete(5)
		}, balena.Incremental, append(changes, "image_install/$count", "image_install changes", "image_install"), 1},
		"a tag changes": {tags, func(_ *follower, st *simulator.State) {
			st.DeviceTags.Get(3).Value = "changed"
		}, balena.Incremental, append(changes, "device_tag/$count", "device_tag changes"), 1},
		"a tag is taken away": {tags, func(_ *follower, st *simulator.State) {
			st.DeviceTags.Delete(3)
		}, balena.Incremental, append(changes, "device_tag/$count", "device_tag changes", "device_tag"), 1},

		"the token is another": {fewer, func(f *follower, _ *simulator.State) {
			f.token += "2"
		}, balena.Full, full, 0},
		"the server's clock is put back": {fewer, func(f *follower, _ *simulator.State) {
			f.theirs.advance(-time.Hour)
		}, balena.Full, full, 0},
		"the server's clock is put forward": {fewer, func(f *follower, _ *simulator.State) {
			f.theirs.advance(31 * time.Second)
		}, balena.Full, full, 0},
		"the server's clock wavers": {fewer, func(f *follower, st *simulator.State) {
			f.theirs.advance(-29 * time.Second)
			st.Device(7).Name = "renamed"
		}, balena.Incremental, changes, 1},
		"a fleet comes within reach with its devices": {fewer, func(_ *follower, st *simulator.State) {
			st.Fleet(1).Class = "fleet"
		}, balena.Full, append(full, "release by id"), -1},
		"rows are not told of any more": {fewer, func(f *follower, st *simulator.State) {
			// The database is restored to its state of an hour ago.
			back := func(t *simulator.Time) { *t = min(*t, simulator.At(noon.Add(-time.Hour))) }
			for _, d := range st.Devices.All() {
				back(&d.ModifiedAt)
				back(&d.LastConnectivityEvent)
				back(&d.HeartbeatChangedOn)
				back(&d.LastUpdateStatusEvent)
			}
			for _, i := range st.Installs.All() {
				back(&i.ModifiedAt)
			}
		}, balena.Full, append(changes, "device"), -1},
		"a uuid is another": {fewer, func(_ *follower, st *simulator.State) {
			st.Device(7).UUID = "another"
		}, balena.Full, append(changes, "device"), 1},
		"it is time": {fewer, func(f *follower, _ *simulator.State) {
			f.ours.advance(14 * time.Minute)
			f.theirs.advance(14 * time.Minute)
		}, balena.Full, full, 0},
	} {
		for _, edition := range simulator.Editions() {
			t.Run(name+", "+edition, func(t *testing.T) {
				asked := slices.Clone(test.asked)
				if edition == string(simulator.Cloud) {
					if strings.Contains(strings.Join(asked, " "), "_") {
						t.Skip("what is asked for of services and tags is another test")
					}
					if i := slices.Index(asked, "device changes"); i >= 0 {
						asked[i] += " and downloads"
					}
				}
				config := small
				config.Edition = simulator.Edition(edition)
				f := follow(t, config, test.with, func(c *account.Config) { c.Keys, c.OS, c.SlowInterval = false, false, 24*time.Hour })
				if strings.Contains(name, "within reach") {
					f.Update(func(st *simulator.State) { st.Fleet(1).Class = "app" })
					f.refresh(t)
					f.asked()
				}
				f.Update(func(st *simulator.State) { test.change(f, st) })
				s := f.refresh(t)
				if s.Reading.Kind != test.kind || s.Reading.Disabled != "" {
					t.Errorf("a refresh of kind %s, want %s; disabled: %v", s.Reading.Kind, test.kind, s.Reading.Reason)
				}
				if diff := cmp.Diff(asked, f.asked()); diff != "" {
					t.Errorf("requests (-want +got):\n%s", diff)
				}
				if n := s.Reading.Changed; n != test.changed && (test.changed >= 0 || n == 0) {
					t.Errorf("%d devices changed, want %d (-1: some)", n, test.changed)
				}
				// The next refresh continues from it.
				f.Update(func(st *simulator.State) { st.Device(8).Name = "renamed" })
				if s := f.refresh(t); s.Reading.Kind != balena.Incremental || s.Reading.Changed != 1 {
					t.Errorf("the next one is of kind %s, and %d devices changed; want changes, 1", s.Reading.Kind, s.Reading.Changed)
				}
			})
		}
	}
}

// Ids are listed only for fleets whose counts differ.
func TestIDsOfFleetsInDoubt(t *testing.T) {
	f := follow(t, small, fewer)
	fleet := 0
	f.Update(func(st *simulator.State) {
		fleet = st.Device(7).FleetID
		st.DeleteDevice(7)
	})
	f.refresh(t)
	requests := f.wire.requests()
	i := slices.IndexFunc(requests, func(r *http.Request) bool { return strings.HasPrefix(r.URL.RawQuery, "$select=id&") })
	if want := "$select=id&$filter=belongs_to__application%20in%20(" + strconv.Itoa(fleet) + ")%20and%20id%20gt%200&$orderby=id%20asc&$top=100000"; i < 0 || requests[i].URL.RawQuery != want {
		t.Errorf("requests %v, want one of them %s", requests, want)
	}
}

// With zero, every refresh is a full one.
func TestNoChangesWanted(t *testing.T) {
	sim := newSimulator(t, small)
	client := newClient(t, serve(t, sim), fewer)
	for range 3 {
		if s := fetch(t, client); s.Reading.Kind != balena.Full || s.Reading.Devices != small.Devices || s.Reading.Reason != nil {
			t.Errorf("%+v", s.Reading)
		}
	}
}

// These are the reasons for disabling incremental refreshes.
func TestDistrust(t *testing.T) {
	t.Run("no Date", func(t *testing.T) {
		sim := newSimulator(t, small)
		client := newClient(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sim.ServeHTTP(dateless{w}, r)
		})), fewer, func(c *account.Config) { c.FullRefreshInterval = time.Hour })
		for range 3 {
			if s := fetch(t, client); s.Reading.Kind != balena.Full || s.Reading.Reason == nil {
				t.Errorf("%+v", s.Reading)
			}
		}
	})
	t.Run("a device's clock is ahead", func(t *testing.T) {
		f := follow(t, small, fewer)
		f.Update(func(st *simulator.State) { st.Device(7).LastConnectivityEvent = simulator.At(noon.AddDate(20, 0, 0)) })
		f.ours.advance(15 * time.Minute)
		f.theirs.advance(15 * time.Minute)
		f.refresh(t) // a full refresh
		if s := f.refresh(t); s.Reading.Kind != balena.Incremental {
			t.Errorf("%+v", s.Reading)
		}
	})
	t.Run("services are refused", func(t *testing.T) {
		f := follow(t, small, func(c *account.Config) { c.DeviceTags, c.FleetTags = nil, nil })
		f.SetFaults(simulator.Faults{{Resource: "image_install", Query: "modified_at gt", Status: 400}})
		refused := 0
		for range 5 {
			f.Update(func(st *simulator.State) { st.Installs.Get(5).InstallDate++ })
			f.refresh(t) // no part may fail
			for _, what := range f.asked() {
				if what == "image_install changes" {
					refused++
				}
			}
		}
		if refused != 2 { // the first refusal may have been a failure
			t.Errorf("asked %d times for what is refused, want twice until the next full refresh", refused)
		}
	})
	t.Run("trouble once and twice", func(t *testing.T) {
		f := follow(t, small, fewer)
		trouble := simulator.Faults{{Resource: "device", Query: "modified_at gt", Status: 502}}
		f.SetFaults(trouble)
		if err := fetchError(t, f.client); api.ProblemOf(err) != api.Unavailable {
			t.Errorf("%v", err)
		}
		if s := f.refresh(t); s.Reading.Kind != balena.Full || s.Reading.Reason == nil {
			t.Errorf("%+v", s.Reading)
		}
		f.SetFaults(nil)
		f.ours.advance(15 * time.Minute)
		f.theirs.advance(15 * time.Minute)
		f.refresh(t) // a full refresh is due
		if s := f.refresh(t); s.Reading.Kind != balena.Incremental || s.Reading.Reason != nil {
			t.Errorf("%+v", s.Reading)
		}
	})
}

// dateless is an answer without the header Date.
type dateless struct{ http.ResponseWriter }

func (d dateless) WriteHeader(status int) {
	d.Header()["Date"] = nil
	d.ResponseWriter.WriteHeader(status)
}
