// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// readAll returns the rows of all resources.
func readAll(t *testing.T, sim *Simulator) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for name := range openSchema {
		r := httptest.NewRequest(http.MethodGet, "/v7/"+name+"?$orderby=id%20asc", nil)
		r.Header.Set("Authorization", "Bearer token")
		w := httptest.NewRecorder()
		sim.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d", name, w.Code)
		}
		all[name] = w.Body.String()
	}
	return all
}

func TestSeed(t *testing.T) {
	accountAfterTicks := func(seed uint64) map[string]string {
		clock := newClock()
		sim, err := New(Config{Devices: 300, Fleets: 7, Seed: seed, Now: clock.now})
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			clock.advance(time.Minute)
			sim.Tick()
		}
		return readAll(t, sim)
	}
	one, again, other := accountAfterTicks(1), accountAfterTicks(1), accountAfterTicks(2)
	if diff := cmp.Diff(one, again); diff != "" {
		t.Errorf("two accounts with the same seed differ:\n%.1000s", diff)
	}
	if one["device"] == other["device"] {
		t.Error("two accounts with different seeds are equal")
	}
}

// TestDatasetIsNotChanged checks that simulators can share a dataset.
func TestDatasetIsNotChanged(t *testing.T) {
	ds := loadDataset(t)
	sim, err := New(Config{Dataset: ds, Now: newClock().now})
	if err != nil {
		t.Fatal(err)
	}
	before := readAll(t, sim)
	sim.Update(func(st *State) { st.Device(1).Name = "x"; st.DeleteFleet(2) })
	sim.Tick()
	sim, err = New(Config{Dataset: ds, Now: newClock().now})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, readAll(t, sim)); diff != "" {
		t.Errorf("the dataset changed:\n%.1000s", diff)
	}
}

func TestGeneratedAccount(t *testing.T) {
	const devices, fleets = 2000, 20
	sim, srv := newSimulator(t, Config{Devices: devices, Fleets: fleets, Seed: 1}, nil)
	count := func(target string) int {
		status, body := get(t, srv, "/v7/"+target)
		var decoded struct{ D int }
		if err := json.Unmarshal([]byte(body), &decoded); err != nil || status != 200 {
			t.Fatalf("%s: %d %s", target, status, body)
		}
		return decoded.D
	}
	for _, test := range []struct {
		target   string
		min, max int
	}{
		{"application/$count", fleets, fleets},
		{"device/$count", devices, devices},
		{"device/$count?$filter=is_online%20eq%20true", devices * 60 / 100, devices * 85 / 100},
		{"device/$count?$filter=overall_status%20eq%20'operational'", devices / 2, devices},
		{"device/$count?$filter=overall_status%20eq%20'disconnected'", devices / 10, devices / 2},
		{"device/$count?$filter=overall_status%20eq%20'reduced-functionality'", 1, devices / 10},
		{"device/$count?$filter=overall_status%20eq%20'configuring'", 1, devices / 10},
		{"device/$count?$filter=overall_status%20eq%20'post-provisioning'", 1, devices / 10},
		{"device/$count?$filter=is_pinned_on__release%20ne%20null", 1, devices / 10},
		{"device/$count?$filter=is_running__release%20ne%20should_be_running__release", 1, devices / 3},
		{"device/$count?$filter=contains(device_name,'%22')", 1, devices / 10},
		{"device/$count?$filter=contains(device_name,'%0A')", 1, devices / 10},
		{"image_install/$count", devices / 2, devices * 3},
		{"device_tag/$count", 1, devices},
		{"application/$count?$filter=app_name%20eq%20'greenhouse'", 2, 2},
		{"application/$count?$filter=contains(app_name,'%5C')", 1, fleets},
		{"application/$count?$filter=owns__device/$count%20eq%200", 1, 1},
		{"release/$count?$filter=status%20eq%20'failed'", fleets, fleets},
		{"api_key/$count?$filter=expiry_date%20ne%20null", 1, 3},
	} {
		if n := count(test.target); n < test.min || n > test.max {
			t.Errorf("%s is %d, want %d to %d", test.target, n, test.min, test.max)
		}
	}
	// Ticks do not change the proportion of online devices.
	online := count("device/$count?$filter=is_online%20eq%20true")
	for range 100 {
		sim.Tick()
	}
	if n := count("device/$count?$filter=is_online%20eq%20true"); n < online*8/10 || n > online*12/10 {
		t.Errorf("%d devices are online after 100 ticks, and %d before", n, online)
	}
}

func TestEmptyAccounts(t *testing.T) {
	for _, cfg := range []Config{{}, {Fleets: 1}, {Devices: 3, Fleets: 0}} {
		sim, srv := newSimulator(t, cfg, nil)
		sim.Tick()
		if _, body := get(t, srv, "/v7/device"); body != `{"d":[]}` {
			t.Errorf("%d devices in %d fleets: %s", cfg.Devices, cfg.Fleets, body)
		}
	}
	if _, err := New(Config{Devices: -1}); err == nil {
		t.Error("a negative number of devices is accepted")
	}
}

// TestRollout checks the states of devices during the rollout of a release.
func TestRollout(t *testing.T) {
	clock := newClock()
	sim, _ := newSimulator(t, Config{Dataset: loadDataset(t), Seed: 1, Now: clock.now}, nil)
	var release int
	sim.Update(func(st *State) {
		release = st.NewRelease(1, "3.0.0").ID
		st.Fleet(1).TargetReleaseID = release
	})
	// The states that occurred, and the sequence of states of each device.
	seen := make(map[string]bool)
	chains := make(map[int][]string)
	for range 120 {
		clock.advance(time.Minute)
		sim.Tick()
		sim.mu.RLock()
		for _, d := range sim.database.Devices.rows {
			if d.FleetID != 1 || d.PinnedReleaseID != 0 {
				continue
			}
			seen[d.UpdateStatus] = true
			if chain := chains[d.ID]; len(chain) == 0 || chain[len(chain)-1] != d.UpdateStatus {
				chains[d.ID] = append(chain, d.UpdateStatus)
			}
		}
		sim.mu.RUnlock()
	}
	for _, status := range []string{"downloading", "downloaded", "applying changes", "done", "rejected", "aborted"} {
		if !seen[status] {
			t.Errorf("no device had the status %s, only %v", status, slices.Sorted(maps.Keys(seen)))
		}
	}
	updated := 0
	for _, chain := range chains {
		if strings.Contains(strings.Join(chain, ","), "downloading,downloaded,applying changes,done") {
			updated++
		}
	}
	sim.mu.RLock()
	defer sim.mu.RUnlock()
	behind := 0
	for _, d := range sim.database.Devices.rows {
		if d.FleetID != 1 || d.PinnedReleaseID != 0 {
			continue
		}
		if d.HeartbeatState == "online" && d.RunningReleaseID != release {
			behind++
		}
		if d.RunningReleaseID != release {
			continue
		}
		for _, i := range sim.database.installsOf(d.ID) {
			if (i.ReleaseID == release) == (i.Status == "deleted") {
				t.Errorf("device %d runs the release, but image install %d of release %d is %s", d.ID, i.ID, i.ReleaseID, i.Status)
			}
		}
	}
	if updated < 300 || behind > 30 {
		t.Errorf("%d devices had all states, want at least 300; %d online devices have not finished the update, want at most 30", updated, behind)
	}
}

// TestModifiedAtShowsChanges checks that a tick sets modified_at of changed rows only, and that modified_at of a device is not
// before its events.
func TestModifiedAtShowsChanges(t *testing.T) {
	clock := newClock()
	sim, _ := newSimulator(t, Config{Devices: 500, Fleets: 10, Seed: 1, Now: clock.now}, nil)
	check := func() {
		t.Helper()
		for _, d := range sim.database.Devices.rows {
			for what, at := range map[string]Time{
				"created_at": d.CreatedAt, "last_connectivity_event": d.LastConnectivityEvent, "last_vpn_event": d.LastVPNEvent,
				"changed_api_heartbeat_state_on__date": d.HeartbeatChangedOn, "last_update_status_event": d.LastUpdateStatusEvent,
			} {
				if d.ModifiedAt < at || at > At(clock.now()) {
					t.Fatalf("device %d: modified_at is %v, %s %v, and it is %v", d.ID, d.ModifiedAt.Time(), what, at.Time(), clock.now())
				}
			}
		}
		for _, r := range slices.Concat(rowsOfTable(&sim.database.Installs), rowsOfTable(&sim.database.DeviceTags), rowsOfTable(&sim.database.Fleets)) {
			if m := r.meta(); m.ModifiedAt < m.CreatedAt || m.ModifiedAt > At(clock.now()) {
				t.Fatalf("%T %d: modified_at is %v, created_at %v, and it is %v", r, m.ID, m.ModifiedAt.Time(), m.CreatedAt.Time(), clock.now())
			}
		}
	}
	check()
	devices, installs := 0, 0
	for range 100 {
		before := sim.database.clone()
		clock.advance(time.Minute)
		sim.Tick()
		check()
		now := At(clock.now())
		devices += countChanged(t, now, &before.Devices, &sim.database.Devices)
		installs += countChanged(t, now, &before.Installs, &sim.database.Installs)
		countChanged(t, now, &before.Fleets, &sim.database.Fleets)
		countChanged(t, now, &before.Releases, &sim.database.Releases)
	}
	if devices < 1000 || installs < 1000 {
		t.Errorf("%d changes of devices and %d of installs are too few for this test", devices, installs)
	}
}

func rowsOfTable[R comparable, P rowPointer[R]](table *Table[R, P]) []row {
	rows := make([]row, table.Len())
	for i := range rows {
		rows[i] = table.at(i)
	}
	return rows
}

// countChanged returns the number of rows that were added or changed, and checks modified_at of all rows.
func countChanged[R comparable, P rowPointer[R]](t *testing.T, now Time, before, after *Table[R, P]) int {
	t.Helper()
	n := 0
	for _, p := range after.rows {
		old, _ := before.find(p.meta().ID).(P)
		changed := old == nil || *old != *p
		if changed {
			n++
		}
		if changed != (p.meta().ModifiedAt == now) {
			t.Fatalf("changed: %t, at %v, modified_at is %v: %+v", changed, now.Time(), p.meta().ModifiedAt.Time(), *p)
		}
	}
	return n
}

// TestHardwareFiguresAreKept checks that hardware figures do not change when a device disconnects.
func TestHardwareFiguresAreKept(t *testing.T) {
	sim, srv := newSimulator(t, Config{}, smallAccount)
	sim.Update(func(st *State) { st.Device(1).Disconnect(st.Now()) })
	if _, body := get(t, srv, "/v7/device(1)?$select=cpu_temp,overall_status"); body != `{"d":[{"cpu_temp":50,"overall_status":"disconnected"}]}` {
		t.Error(body)
	}
}

// TestConcurrentUse calls all methods concurrently, for the race detector, and checks that updates are atomic.
func TestConcurrentUse(t *testing.T) {
	sim, srv := newSimulator(t, Config{Devices: 200, Fleets: 4, Seed: 1, CacheResponses: true}, nil)
	var wg sync.WaitGroup
	repeat := func(f func(i int)) {
		wg.Go(func() {
			for i := range 20 {
				f(i)
			}
		})
	}
	repeat(func(int) { sim.Tick() })
	repeat(func(i int) {
		sim.Update(func(st *State) {
			st.Device(i + 1).FleetID = 1
			st.AddDevice(Device{FleetID: 2})
			st.DeleteDevice(200 - i)
		})
	})
	repeat(func(i int) {
		sim.SetFaults(Faults{{Resource: "release", Status: 500, From: i}})
		sim.SetTokens("token", "another")
		sim.Requests()
	})
	for range 2 {
		repeat(func(int) {
			// Each update adds one device and removes one.
			if _, body := get(t, srv, "/v7/device/$count"); body != `{"d":200}` {
				t.Errorf("the number of devices during updates is %s", body)
			}
			get(t, srv, "/v7/application?$expand=owns__device/$count($filter=overall_status%20eq%20'updating')")
			get(t, srv, "/v7/device?$select=id,overall_status&$filter=image_install/any(i:i/status%20eq%20'Running')")
			get(t, srv, "/v7/release")
		})
	}
	wg.Wait()
}
