// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// onlySystems reads as little as possible besides system releases.
func onlySystems(c *account.Config) {
	fewer(c)
	c.Keys, c.Releases = false, false
}

// newPublisher returns a server with a few devices of the type raspberrypi4-64, and its clock. It publishes releases as
// balenaCloud does.
func newPublisher(t *testing.T, k *clock) *simulator.Simulator {
	t.Helper()
	sim := newSimulator(t, simulator.Config{Devices: 20, Fleets: 1, Seed: 1, Edition: simulator.Cloud, Now: k.Now})
	sim.Update(func(st *simulator.State) {
		for _, d := range st.Devices.All() {
			d.DeviceTypeID = st.Devices.All()[0].DeviceTypeID
		}
	})
	return sim
}

// latestReleases returns the version of the latest release of each line, by device type or CPU architecture.
func latestReleases(s *balena.SystemReleases) map[string]string {
	latest := map[string]string{}
	if s == nil {
		return latest
	}
	for _, histories := range []map[string]*balena.ReleaseHistory{s.OS, s.Supervisor} {
		for of, history := range histories {
			for _, line := range history.Lines {
				if line.Latest != nil {
					latest[of+" "+line.Name] = line.Latest.Version
				}
			}
		}
	}
	return latest
}

// Releases are read for the types of devices in use and their CPU architectures only. Drafts, failed builds and releases
// before 1.0.0 are not read.
func TestSystemReleases(t *testing.T) {
	k := newClock()
	s := fetchWithParts(t, newClient(t, serve(t, newPublisher(t, k)), withClock(k), onlySystems))
	want := map[string]string{
		"fincm3 default": "6.6.0", "fincm3 2026.1": "2026.1.5", "fincm3 2026.4": "2026.4.2", "fincm3 2026.7": "2026.7.1",
		"fincm3 2026.10": "2026.10.0", "armv7hf default": "17.1.0",
	}
	if diff := cmp.Diff(want, latestReleases(s.System)); diff != "" {
		t.Errorf("latest releases (-want +got):\n%s", diff)
	}
	if r := s.System.OSRelease(balena.OS{Type: "fincm3", Version: "balenaOS 2026.1.5", Variant: "prod"}); r.Phase != balena.EndOfLifePhase {
		t.Errorf("the phase of a release older than those of the tags is %q", r.Phase)
	}
}

// The releases are read again after four slow intervals. If nothing changed, the snapshot has the same pointer.
func TestSystemReleasesAreReadRarely(t *testing.T) {
	k := newClock()
	sim := newPublisher(t, k)
	client := newClient(t, serve(t, sim), withClock(k), onlySystems)
	first := fetchWithParts(t, client).System
	sim.Update(func(st *simulator.State) {
		for _, r := range st.Releases.All() {
			if r.RawVersion == "6.6.0" {
				r.IsInvalidated = true
			}
		}
	})
	k.advance(time.Hour - time.Second)
	if s := fetchWithParts(t, client); s.System != first {
		t.Errorf("read again after %s", time.Hour-time.Second)
	}
	k.advance(time.Second)
	second := fetchWithParts(t, client).System
	if got := latestReleases(second)["fincm3 default"]; got != "6.5.10" {
		t.Errorf("the latest release is %s after 6.6.0 was invalidated", got)
	}
	k.advance(time.Hour)
	if third := fetchWithParts(t, client).System; third != second {
		t.Error("another pointer for the same releases")
	}
}

// A device of another type makes the next refresh read its releases, and they end with the last device of the type.
func TestSystemReleasesFollowDeviceTypes(t *testing.T) {
	k := newClock()
	sim := newPublisher(t, k)
	client := newClient(t, serve(t, sim), withClock(k), onlySystems)
	fetchWithParts(t, client)
	retype := func(slug string) {
		sim.Update(func(st *simulator.State) {
			for _, dt := range st.DeviceTypes.All() {
				if dt.Slug == slug {
					st.Devices.All()[3].DeviceTypeID = dt.ID
				}
			}
		})
		k.advance(time.Minute)
	}
	retype("raspberrypi5")
	if got := latestReleases(fetchWithParts(t, client).System); got["raspberrypi5 default"] != "6.6.0" || got["aarch64 default"] != "17.1.0" || got["fincm3 default"] == "" {
		t.Errorf("latest releases after a device of another type was added: %v", got)
	}
	retype("fincm3")
	if got := latestReleases(fetchWithParts(t, client).System); got["raspberrypi5 default"] != "" || got["aarch64 default"] != "" || got["fincm3 default"] == "" {
		t.Errorf("latest releases after the last device of a type was removed: %v", got)
	}
}

// A server without host applications is asked once per interval, with one request. That is not an error.
func TestNoSystemReleases(t *testing.T) {
	for _, version := range []balena.Version{balena.V7, balena.V6} {
		t.Run(string(version), func(t *testing.T) {
			sim := newSimulator(t, simulator.Config{})
			wire := &sniffer{next: sim}
			s := fetchWithParts(t, newClient(t, serve(t, wire), onlySystems, func(c *account.Config) { c.Version = version }))
			if s.System != nil {
				t.Errorf("read releases: %v", latestReleases(s.System))
			}
			asked := 0
			for _, r := range wire.requests() {
				if strings.Contains(r.URL.RawQuery, "is_host%20eq%20true") {
					asked++
				}
			}
			if asked != 1 {
				t.Errorf("%d requests for host applications, want 1", asked)
			}
		})
	}
}

// A server that refuses a query for system releases three times in a row has none. Until then the part fails. If the server
// answered before, the last releases are kept as long as those of any part.
func TestSystemReleasesFail(t *testing.T) {
	for name, test := range map[string]struct {
		fault simulator.Fault
		err   string
	}{
		"the applications are refused": {simulator.Fault{Resource: "application", Query: "is_host eq true", Status: http.StatusInternalServerError}, "GET /v7/application of system applications page 1"},
		"the releases are refused":     {simulator.Fault{Resource: "release", Query: "semver_major", Status: http.StatusUnauthorized}, "GET /v7/release of system applications page 1"},
		"the tags are refused":         {simulator.Fault{Resource: "application_tag", Query: "esr-next", Status: http.StatusUnauthorized}, "GET /v7/application_tag of system applications page 1"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newClock()
			sim := newPublisher(t, k)
			sim.SetFaults(simulator.Faults{test.fault})
			client := newClient(t, serve(t, sim), withClock(k), onlySystems)
			for range 2 {
				if s := fetch(t, client); part(t, s, balena.PartSystemReleases).Err == nil {
					t.Error("a refusal is believed at once")
				}
				k.advance(time.Minute)
			}
			if s := fetchWithParts(t, client); s.System != nil {
				t.Errorf("read releases: %v", latestReleases(s.System))
			}
			sim.SetFaults(nil)
			k.advance(time.Hour)
			releases := fetchWithParts(t, client).System
			if releases == nil {
				t.Fatal("no releases once the server answers")
			}
			sim.SetFaults(simulator.Faults{test.fault})
			k.advance(time.Hour)
			s := fetch(t, client)
			if err := part(t, s, balena.PartSystemReleases).Err; err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("the error is %v, want one of %s", err, test.err)
			}
			if s.System != releases {
				t.Error("the releases of before are not kept")
			}
			k.advance(5*time.Minute + time.Second)
			if s := fetch(t, client); s.System != nil || part(t, s, balena.PartSystemReleases).Err == nil {
				t.Error("the releases are kept for ever")
			}
			fetchWithParts(t, client)
		})
	}
}

// An empty list of host applications after a list of some is not believed before the last releases are too old.
func TestHostApplicationsVanish(t *testing.T) {
	k := newClock()
	sim := newPublisher(t, k)
	client := newClient(t, serve(t, sim), withClock(k), onlySystems)
	releases := fetchWithParts(t, client).System
	sim.Update(func(st *simulator.State) {
		for _, f := range st.Fleets.All() {
			f.IsHost = false
		}
	})
	k.advance(time.Hour)
	s := fetch(t, client)
	wantError(t, part(t, s, balena.PartSystemReleases).Err, api.BadAnswer, 200, "GET /v7/application: the server lists no host application, and listed some before")
	if s.System != releases {
		t.Error("the releases of before are not kept")
	}
	k.advance(5*time.Minute + time.Second)
	fetch(t, client)
	k.advance(time.Minute)
	if s := fetchWithParts(t, client); s.System != nil {
		t.Error("an empty list is never believed")
	}
}
