// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

func including(pattern string) func(*account.Config) {
	return func(c *account.Config) { c.Include = regexp.MustCompile(pattern) }
}

func excluding(pattern string) func(*account.Config) {
	return func(c *account.Config) { c.Exclude = regexp.MustCompile(pattern) }
}

// A full refresh sends one request for every thousand fleets and devices, and one more for the end of each of the two
// lists.
func TestRequestsOfASteadyRefresh(t *testing.T) {
	for _, test := range []struct {
		devices, requests int
		config            func(*account.Config)
	}{
		{0, 0, fewer},
		{1, 2, fewer},
		{999, 2, fewer},
		{1000, 2, fewer},
		{1001, 3, fewer},
		{2000, 3, fewer},
		{2004, 4, fewer},
		{1001, 3, func(c *account.Config) { fewer(c); c.ArchivedFleets = false }},
		{1001, 3, func(c *account.Config) { fewer(c); including(".")(c) }},
		{1001, 3, func(c *account.Config) { fewer(c); excluding("^nobody/")(c) }},
		{1001, 0, func(c *account.Config) { fewer(c); excluding(".")(c) }},
	} {
		for _, version := range []balena.Version{balena.V7, balena.V6} {
			if version == balena.V6 && test.devices != 1001 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", version, test.devices), func(t *testing.T) {
				k := newClock()
				sim := newSimulator(t, simulator.Config{Devices: test.devices, Fleets: 7, Seed: 1, Now: k.Now})
				sim.Update(func(st *simulator.State) { // a quiet account: no drafts, no archived fleets
					for _, r := range st.Releases.All() {
						r.IsFinal = true
					}
					for _, f := range st.Fleets.All() {
						f.IsArchived = false
					}
				})
				client := newClient(t, serve(t, sim), withClock(k), test.config, func(c *account.Config) { c.Version = version })
				fetchWithParts(t, client)
				want := map[string]int{"application": 2}
				if test.requests > 0 {
					want["device"] = test.requests
				}
				for range 2 {
					sim.ResetRequests()
					k.advance(time.Minute)
					s := fetchWithParts(t, client)
					if test.requests > 0 && s.Devices.Len() != test.devices {
						t.Errorf("read %d devices, want %d", s.Devices.Len(), test.devices)
					}
					if diff := cmp.Diff(want, sim.Requests()); diff != "" {
						t.Errorf("requests (-want +got):\n%s", diff)
					}
				}
			})
		}
	}
}

// The first refresh sends more requests: device types, releases, newest releases, keys and host applications once each, and on openBalena
// for devices twice with unknown fields, and once without them to determine the cause.
func TestRequestsOfTheFirstRefresh(t *testing.T) {
	sim := newSimulator(t, simulator.Config{})
	client := newClient(t, serve(t, sim), fewer)
	fetchWithParts(t, client)
	want := map[string]int{"application": 2 + 2 + 1, "device": 3 + 4, "device_type": 2, "release": 1, "api_key": 2}
	if diff := cmp.Diff(want, sim.Requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// Services and tags are read page by page in every refresh.
func TestRequestsForServicesAndTags(t *testing.T) {
	sim := newSimulator(t, simulator.Config{})
	client := newClient(t, serve(t, sim))
	fetchWithParts(t, client)
	sim.ResetRequests()
	fetchWithParts(t, client)
	// 4,457 installs that are not deleted, 1,200 tags of devices and 26 of fleets.
	want := map[string]int{"application": 2, "device": 4, "image_install": 7, "device_tag": 4, "application_tag": 2}
	if diff := cmp.Diff(want, sim.Requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// Data that rarely change are read again after the slow interval, and no sooner.
func TestSlowParts(t *testing.T) {
	sim := newSimulator(t, simulator.Config{})
	k := newClock()
	client := newClient(t, serve(t, sim), withClock(k), fewer)
	fetchWithParts(t, client)

	sim.ResetRequests()
	sim.Update(func(st *simulator.State) { st.NewRelease(1, "9.9.9").CreatedAt = simulator.At(noon.AddDate(1, 0, 0)) })
	k.advance(15*time.Minute - time.Millisecond)
	if v := fetchWithParts(t, client).Fleets[0].LatestRelease.Version; v == "9.9.9" {
		t.Error("the newest release was asked for again before the slow interval was over")
	}
	k.advance(time.Millisecond)
	if v := fetchWithParts(t, client).Fleets[0].LatestRelease.Version; v != "9.9.9" {
		t.Errorf("the newest release is %q after the slow interval, want 9.9.9", v)
	}
	want := map[string]int{"application": 2*2 + 2, "device": 2 * 4, "device_type": 2, "api_key": 2, "release": 1}
	if diff := cmp.Diff(want, sim.Requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// Releases are read when they are new, with the slow interval again while they may still change, and final ones again in a
// full refresh.
func TestWhenReleasesAreRead(t *testing.T) {
	k := newClock()
	sim := newSimulator(t, simulator.Config{Now: k.Now})
	wire := &sniffer{next: sim}
	client := newClient(t, serve(t, wire), withClock(k), fewer, func(c *account.Config) { c.FullRefreshInterval = time.Hour })
	asked := func() (releases []string) {
		t.Helper()
		fetchWithParts(t, client)
		for _, r := range wire.requests() {
			if ids, ok := strings.CutPrefix(r.RequestURI, "/v7/release?$select=id,commit,raw_version,is_final,is_invalidated,status,created_at&$filter=id%20in%20("); ok {
				if ids, ok := strings.CutSuffix(ids, ")%20and%20id%20gt%200&$orderby=id%20asc&$top=1000"); ok { // the first page
					releases = append(releases, ids)
				}
			} else if strings.Contains(r.RequestURI, "/release?") {
				t.Errorf("asked for releases by %s", r.RequestURI)
			}
		}
		return releases
	}

	// The rest of the 23 releases in use are read together with the fleets whose targets they are.
	if first := asked(); len(first) != 1 || strings.Count(first[0], ",") != 23-12-1 {
		t.Fatalf("the first refresh asked for the releases %q, want 11 in one request", first)
	}
	if again := asked(); again != nil {
		t.Errorf("asked again for the releases %q", again)
	}
	var draft, final *simulator.Release
	sim.Update(func(st *simulator.State) {
		final, draft = st.NewRelease(1, "8.0.0"), st.NewRelease(1, "8.1.0-1795355694988")
		draft.IsFinal = false
		st.Device(1).RunningReleaseID = final.ID
		st.Device(2).RunningReleaseID = draft.ID
		st.Device(3).RunningReleaseID = 4711 // of another account, or deleted
	})
	if news := asked(); len(news) != 1 || news[0] != fmt.Sprintf("%d,%d,4711", final.ID, draft.ID) {
		t.Errorf("asked for the releases %q, want the three new ones", news)
	}
	k.advance(15*time.Minute - time.Millisecond)
	if again := asked(); again != nil {
		t.Errorf("asked for the releases %q before the slow interval was over", again)
	}
	sim.Update(func(st *simulator.State) {
		r := st.Release(draft.ID)
		r.RawVersion, r.IsFinal = "8.1.0", true
	})
	k.advance(time.Millisecond)
	if changed := asked(); len(changed) != 1 || changed[0] != fmt.Sprintf("%d,4711", draft.ID) {
		t.Errorf("asked for the releases %q, want the draft and the missing one", changed)
	}
	s := fetchWithParts(t, client)
	if v := s.Releases[int64(draft.ID)].Version; v != "8.1.0" {
		t.Errorf("the draft has version %q after it was finalized, want 8.1.0", v)
	}
	if r, ok := s.Releases[4711]; ok {
		t.Errorf("made up the release %+v", r)
	}

	sim.Update(func(st *simulator.State) { st.Release(final.ID).RawVersion = "8.0.1" })
	k.advance(time.Hour - 15*time.Minute)
	if all := asked(); len(all) != 1 || strings.Count(all[0], ",") != 11+3-1 {
		t.Errorf("a full refresh asked for the releases %q, want 14 in one request", all)
	}
	if s := fetchWithParts(t, client); s.Releases[int64(final.ID)].Version != "8.0.1" {
		t.Errorf("the release that was given another version is %+v", s.Releases[int64(final.ID)])
	}
}

// More releases than fit into one URL are read by several requests.
func TestManyReleases(t *testing.T) {
	sim := newSimulator(t, simulator.Config{})
	sim.Update(func(st *simulator.State) {
		for id := 1; id <= 450; id++ {
			st.Device(id).RunningReleaseID = st.NewRelease(1, fmt.Sprintf("3.0.%d", id)).ID
		}
	})
	s := fetchWithParts(t, newClient(t, serve(t, sim), fewer))
	if n := sim.Requests()["release"]; n != 3 {
		t.Errorf("%d requests for some 460 releases, want 3", n)
	}
	for _, d := range devicesOf(s)[:450] {
		if s.Releases[d.RunningRelease].Version != fmt.Sprintf("3.0.%d", d.ID) {
			t.Errorf("device %d runs %+v", d.ID, s.Releases[d.RunningRelease])
		}
	}
}

// So many selected fleets do not fit into a URL: all devices are read and filtered by the client.
func TestManyChosenFleets(t *testing.T) {
	sim := newSimulator(t, simulator.Config{Devices: 1500, Fleets: 1300, Seed: 1})
	for pattern, filtered := range map[string]bool{"[02468]$": true, ".": false} {
		wire := &sniffer{next: sim}
		s := fetchWithParts(t, newClient(t, serve(t, wire), fewer, including(pattern)))
		want := 0
		sim.Update(func(st *simulator.State) {
			for _, d := range st.Devices.All() {
				if regexp.MustCompile(pattern).MatchString(st.Fleet(d.FleetID).Slug) {
					want++
				}
			}
		})
		if s.Devices.Len() != want {
			t.Errorf("%q: read %d devices, want %d", pattern, s.Devices.Len(), want)
		}
		for _, r := range wire.requests() {
			if strings.HasPrefix(r.RequestURI, "/v7/device?") && strings.Contains(r.RequestURI, "belongs_to__application%20in%20(") != filtered {
				t.Errorf("%q: filter of %.300s, want fleets listed: %t", pattern, r.RequestURI, filtered)
			}
		}
	}
}

// These are all requests that are ever sent. A query is literal except for blanks. A field that is not selected here is not
// read.
func TestQueriesOnTheWire(t *testing.T) {
	const (
		fleets = "&$filter=is_directly_accessible_by__user/any(dau:1%20eq%201)%20and%20is_of__class%20eq%20'fleet'%20and%20is_host%20eq%20false"
		fleet  = "id,uuid,app_name,slug,is_of__class,is_host,is_archived,should_track_latest_release,created_at" +
			"&$expand=owns__device/$count,organization($select=handle),is_for__device_type($select=id,slug;$expand=is_of__cpu_architecture($select=slug))," +
			"should_be_running__release($select=id,commit,raw_version,is_final,is_invalidated,status,created_at)"
		figures = "overall_progress,provisioning_progress,last_update_status_event,cpu_usage,cpu_temp,memory_usage,memory_total,storage_usage,storage_total,is_web_accessible,should_be_operated_by__release"
		device7 = "id,uuid,device_name,belongs_to__application,is_of__device_type,overall_status,is_online,api_heartbeat_state,changed_api_heartbeat_state_on__date," +
			"last_connectivity_event,update_status,os_version,os_variant,supervisor_version,is_undervolted,is_frozen,is_active,provisioning_state," +
			"is_running__release,is_pinned_on__release," + figures + ",should_be_managed_by__release,created_at,modified_at"
		device6 = "id,uuid,device_name,belongs_to__application,is_of__device_type,overall_status,is_online,api_heartbeat_state," +
			"last_connectivity_event,update_status,os_version,os_variant,supervisor_version,is_undervolted,is_frozen,is_active,provisioning_state," +
			"is_running__release,should_be_running__release," + figures + ",created_at,modified_at"
		installs = "&$expand=image_install($select=status,is_provided_by__release;$filter=status%20ne%20'deleted')"
		payers   = "organization?$select=id,handle,name,is_frozen,has_past_due_invoice_since__date&$filter=handle%20in%20"
		page     = "%20and%20id%20gt%20N&$orderby=id%20asc&$top=1500"
		reach    = "belongs_to__application/any(a:a/is_directly_accessible_by__user/any(dau:1%20eq%201))"
		ofReach  = "device/any(d:d/" + reach + ")"
		devices  = "&$filter=" + reach + page
		some     = "&$filter=belongs_to__application%20in%20(2,3,13)" + page
		types    = "device_type?$select=id,slug&$filter=id%20gt%20N&$orderby=id%20asc&$top=1500"
		latest   = "application?$select=id&$expand=owns__release($select=id,commit,raw_version,is_final,is_invalidated,status,created_at;$top=1;$orderby=created_at%20desc,id%20desc)" + fleets + page
		services = "image_install?$select=id,device,status,download_progress,is_provided_by__release,install_date" +
			"&$expand=installs__image($select=id;$expand=is_a_build_of__service($select=service_name))&$filter=status%20ne%20'deleted'%20and%20" + ofReach + page
		existing = "/$count?$filter=status%20ne%20'deleted'%20and%20" + ofReach
		hosts    = "application?$select=id,is_host&$expand=is_for__device_type($select=slug;$expand=is_of__cpu_architecture($select=slug))&$filter=is_host%20eq%20true%20and%20is_for__device_type%20in%20"
		keys     = "api_key?$select=id,name,expiry_date&$filter=name%20ne%20null%20and%20expiry_date%20ne%20null" + page
	)
	for name, test := range map[string]struct {
		config func(*account.Config)
		want   []string
	}{
		"v7, everything": {
			func(*account.Config) {},
			[]string{
				"/v7/application?$select=" + fleet + fleets + page,
				"/v7/device?$select=" + device7 + devices,
				"/v7/" + types,
				"/v7/" + payers + "('acme','admin','zeta')" + page,
				"/v7/release?$select=id,commit,raw_version,is_final,is_invalidated,status,created_at&$filter=id%20in%20(2,10,18,31,34,42,50,58,66,82,90)" + page,
				"/v7/" + latest,
				"/v7/image_install" + existing,
				"/v7/" + services,
				"/v7/application_tag?$select=id,application,tag_key,value&$filter=tag_key%20in%20('note','team')%20and%20application%20in%20(1,2,3,4,5,6,7,8,9,10,13,14,15)" + page,
				"/v7/device_tag/$count?$filter=tag_key%20in%20('site','owner')%20and%20" + ofReach,
				"/v7/device_tag?$select=id,device,tag_key,value&$filter=tag_key%20in%20('site','owner')%20and%20" + ofReach + page,
				"/v7/" + keys,
				"/v7/" + hosts + "(1,2,3,4,6,7,8,10)" + page,
			},
		},
		"v6, chosen fleets": {
			func(c *account.Config) {
				fewer(c)
				including("kiosk|one-dev")(c)
				excluding("^acme/")(c)
				c.Version, c.ArchivedFleets, c.Keys, c.Releases = balena.V6, false, false, false
			},
			[]string{
				"/v6/application?$select=" + fleet + fleets + page,
				"/v6/device?$select=" + device6 + installs + some,
				"/v6/" + types,
				"/v6/" + payers + "('admin','zeta')" + page,
				"/v6/release?$select=id,commit,raw_version,is_final,is_invalidated,status,created_at&$filter=id%20in%20(10,18)" + page,
				"/v6/" + hosts + "(6,7,10)" + page,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			wire := &sniffer{next: newSimulator(t, simulator.Config{CloudFields: true})}
			fetchWithParts(t, newClient(t, serve(t, wire), pagesOf(1500), test.config))
			// The pages of a list differ only in the ids between which they are. The second page is the last row.
			var got []string
			behind := regexp.MustCompile(`id%20gt%20\d+(%20and%20id%20le%20\d+)?`)
			for _, r := range wire.requests() {
				uri := behind.ReplaceAllString(r.RequestURI, "id%20gt%20N")
				if list, last := strings.CutSuffix(uri, "id%20desc&$top=1"); last {
					uri = list + "id%20asc&$top=1500"
				}
				got = append(got, uri)
				if r.Method != http.MethodGet {
					t.Errorf("%s %s: want nothing but GET", r.Method, r.RequestURI)
				}
				header := http.Header{
					"Authorization": {"Bearer " + token}, "Accept": {"application/json"}, "Accept-Encoding": {"gzip"},
					"User-Agent": {"balena-exporter/test"},
				}
				if diff := cmp.Diff(header, r.Header); diff != "" {
					t.Errorf("header (-want +got):\n%s", diff)
				}
				if r.ContentLength != 0 {
					t.Errorf("%s has a body", r.RequestURI)
				}
			}
			if diff := cmp.Diff(test.want, slices.Compact(got)); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

// Keys of tags may be any text and reach the server unchanged.
func TestTagKeysOnTheWire(t *testing.T) {
	keys := map[string]string{
		"site": `'site'`, "it's": `'it''s'`, "''": `''''''`, "a/b": `'a/b'`, "a b": `'a%20b'`, "a&b": `'a%26b'`, "a+b": `'a%2Bb'`, "100%": `'100%25'`, "%2F": `'%252F'`,
		"#1": `'%231'`, "what?": `'what%3F'`, "(x);$y,z:=": `'(x);$y,z:='`, `"q"\`: `'%22q%22%5C'`, "größe": `'gr%C3%B6%C3%9Fe'`, "🚜": `'%F0%9F%9A%9C'`, "a\nb": `'a%0Ab'`,
	}
	for key, literal := range keys {
		t.Run(key, func(t *testing.T) {
			sim := newSimulator(t, small)
			sim.Update(func(st *simulator.State) {
				st.DeviceTags.Add(simulator.DeviceTag{DeviceID: 7, Key: key, Value: "of a device"})
				st.FleetTags.Add(simulator.FleetTag{FleetID: 1, Key: key, Value: "of a fleet"})
				st.DeviceTags.Add(simulator.DeviceTag{DeviceID: 8, Key: key + "x", Value: "of another key"})
			})
			wire := &sniffer{next: sim}
			s := fetchWithParts(t, newClient(t, serve(t, wire), fewer, func(c *account.Config) {
				c.DeviceTags, c.FleetTags = []string{"unused", key}, []string{key}
			}))
			if got := s.Devices.Find(7).Tags(); len(got) != 2 || got[0] != (balena.Tag{}) || got[1].Value != "of a device" {
				t.Errorf("tags of the device: %+v, want the second of two", got)
			}
			if got, want := s.Fleets[0].Tags, []string{"of a fleet"}; !slices.Equal(got, want) {
				t.Errorf("tags of the fleet: %q, want %q", got, want)
			}
			if got := s.Devices.Find(8).Tags(); got != nil && key != "site" {
				t.Errorf("tags of a device that has none: %+v", got)
			}
			for _, r := range wire.requests() {
				if strings.Contains(r.RequestURI, "_tag?") && !strings.Contains(r.RequestURI, literal+")%20and%20") {
					t.Errorf("sent %s, want the key as %s", r.RequestURI, literal)
				}
			}
		})
	}
}

// The URL of the API may have a path, with or without a slash at its end.
func TestAddressWithAPath(t *testing.T) {
	sim := newSimulator(t, small)
	wire := &sniffer{next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RequestURI = strings.TrimPrefix(r.RequestURI, "/balena")
		r.URL.Path = strings.TrimPrefix(r.URL.Path, "/balena")
		sim.ServeHTTP(w, r)
	})}
	for _, path := range []string{"/balena", "/balena/"} {
		fetchWithParts(t, newClient(t, serve(t, wire)+path, fewer))
		for _, r := range wire.requests() {
			if strings.Contains(r.RequestURI, "//") {
				t.Errorf("asked for %s", r.RequestURI)
			}
		}
	}
}

// One connection is used for a whole refresh, and for the next one.
func TestConnectionsAreReused(t *testing.T) {
	var connections atomic.Int32
	sim := newSimulator(t, small)
	server := start(t, sim, func(s *httptest.Server) {
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				connections.Add(1)
			}
		}
		s.Start()
	})
	client := newClient(t, server.URL)
	fetchWithParts(t, client)
	fetchWithParts(t, client)
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections for two refreshes, want 1", n)
	}
}

// A client that keeps an idle connection as long as the server sometimes gets a reset.
func TestIdleConnectionsAreGivenUpFirst(t *testing.T) {
	if api.IdleTimeout >= simulator.IdleTimeout {
		t.Errorf("the client keeps idle connections for %s, the server for %s", api.IdleTimeout, simulator.IdleTimeout)
	}
}

// Every request is observed with its resource, status, and bytes as transferred.
func TestExchanges(t *testing.T) {
	sim := newSimulator(t, simulator.Config{})
	var sent atomic.Int64
	address := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sim.ServeHTTP(countingWriter{w, &sent}, r)
	}))
	k := newClock()
	var seen []api.Exchange
	client := newClient(t, address, withClock(k), fewer, func(c *account.Config) {
		c.Observe = func(e api.Exchange) { seen = append(seen, e) }
	})
	summary := func() (told []string) {
		for _, e := range seen {
			told = append(told, fmt.Sprintf("%s %d", e.Resource, e.Status))
		}
		return told
	}
	fetchWithParts(t, client)
	want := []string{
		"application 200", "application 200", "device 500", "device 200", "device 500", "device 200", "device 200", "device 200", "device 200",
		"device_type 200", "device_type 200", "release 200", "application 200", "application 200", "api_key 200", "api_key 200", "application 200",
	}
	if diff := cmp.Diff(want, summary()); diff != "" {
		t.Errorf("exchanges (-want +got):\n%s", diff)
	}
	var bytes int64
	for _, e := range seen {
		bytes += e.Bytes
	}
	if bytes != sent.Load() || bytes == 0 {
		t.Errorf("%d bytes were told of, %d sent", bytes, sent.Load())
	}

	// An incomplete answer has no status. A request that was not sent is not observed.
	seen = nil
	sim.SetFaults(simulator.Faults{{Resource: "device", CutAfter: 500}})
	fetchError(t, client)
	sim.SetFaults(simulator.Faults{{Status: 429, RetryAfter: seconds(60)}})
	fetchError(t, client)
	fetchError(t, client)
	want = []string{"application 200", "application 200", "device 0", "application 429"}
	if diff := cmp.Diff(want, summary()); diff != "" {
		t.Errorf("exchanges of failed refreshes (-want +got):\n%s", diff)
	}
}

// countingWriter counts the bytes of a body as transferred.
type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (w countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.n.Add(int64(n))
	return n, err
}

// Unwrap allows the simulator to flush.
func (w countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// The snapshots of two refreshes share no data that the second one changes.
func TestSnapshotsAreImmutable(t *testing.T) {
	sim := newSimulator(t, simulator.Config{Now: func() time.Time { return noon }})
	client := newClient(t, serve(t, sim), withClock(newClock()))
	first := fetchWithParts(t, client)
	sim.Update(func(st *simulator.State) {
		st.RenameFleet(1, "renamed")
		for _, d := range st.Devices.All() {
			d.Name, d.IsConnectedToVPN = "renamed", false
		}
		for _, tag := range st.DeviceTags.All() {
			tag.Value = "changed"
		}
		for _, i := range st.Installs.All() {
			i.Status = "exited"
		}
		st.DeleteFleet(2)
	})
	fetchWithParts(t, client)
	if diff := cmp.Diff(truth(t), first, sameSnapshot); diff != "" {
		t.Errorf("the next refresh changed the first snapshot (-before +after):\n%s", diff)
	}
}

func TestCancellation(t *testing.T) {
	for name, resource := range map[string]string{"fleets": "application", "devices": "device", "a part": "image_install"} {
		for _, where := range []string{"before the answer", "in the middle of it"} {
			t.Run(name+" "+where, func(t *testing.T) {
				sim := newSimulator(t, simulator.Config{CloudFields: true})
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				address := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !strings.HasPrefix(r.URL.Path, "/v7/"+resource) || r.URL.Path == "/v7/device_type" {
						sim.ServeHTTP(w, r)
						return
					}
					if where == "in the middle of it" {
						fmt.Fprint(w, `{"d":[{"id":1,`)
						http.NewResponseController(w).Flush()
					}
					cancel()
					<-r.Context().Done() // when the client has disconnected
				}))
				client := newClient(t, address, func(c *account.Config) { c.Timeout = time.Hour })
				s, err := client.Fetch(ctx)
				if err != context.Canceled || s != nil { //nolint:errorlint // it must not be wrapped
					t.Errorf("Fetch returned %v, %v; want nil, context.Canceled", s, err)
				}
			})
		}
	}
}

func seconds(n int) simulator.Duration {
	return simulator.Duration{Duration: time.Duration(n) * time.Second}
}
