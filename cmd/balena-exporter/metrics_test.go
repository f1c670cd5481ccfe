// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// TestScrapeWhileTheAPIHangs checks that scrapes before the first refresh have balena_up 0.
func TestScrapeWhileTheAPIHangs(t *testing.T) {
	t.Parallel()
	began, release := make(chan bool, 100), make(chan bool)
	sim := serveAPI(t, smallAccount())
	url, _ := serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began <- true
		select {
		case <-release:
		case <-r.Context().Done():
		}
		sim.ServeHTTP(w, r)
	}))
	e := start(t, url)
	<-began
	f := e.scrape()
	if !f.has("balena_up") || f.value("balena_up") != 0 {
		t.Error("balena_up is not 0")
	}
	if !f.has("balena_exporter_build_info") || !f.has("balena_exporter_refreshes_total") {
		t.Error("metrics of the exporter itself are missing")
	}
	for name := range f {
		if strings.HasPrefix(name, "balena_fleet") || strings.HasPrefix(name, "balena_device") || strings.Contains(name, "last_refresh_success") {
			t.Errorf("%s is exported before there are data", name)
		}
	}
	if a := e.get(e.health + readyPath); a.status != http.StatusOK {
		t.Errorf("the readiness endpoint returned %d without the API", a.status)
	}
	close(release)
	if f := e.waitForUp(1); !f.has("balena_devices_online") {
		t.Error("there are no data")
	}
}

// rows reads a resource of the recorded account.
func rows(t *testing.T, resource string) []map[string]any {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(recordedPath, resource+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		D []map[string]any `json:"d"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	return file.D
}

// TestRecordedFleets compares the metrics with sums that the test computes from the files of the recorded account.
func TestRecordedFleets(t *testing.T) {
	t.Parallel()
	var (
		fleets                              = map[float64]map[string]any{} // by id
		online, devices, onlineByName       = map[string]float64{}, map[string]float64{}, map[string]float64{}
		archived                            = map[string]string{}
		totalOnline, totalDevices, offFleet float64
	)
	for _, row := range rows(t, "application") {
		if row["is_of__class"] != "fleet" || row["is_host"] == true {
			continue
		}
		slug := row["slug"].(string)
		fleets[row["id"].(float64)] = row
		online[slug], devices[slug], archived[slug] = 0, 0, fmt.Sprint(row["is_archived"])
		onlineByName[row["app_name"].(string)] += 0
	}
	for _, row := range rows(t, "device") {
		fleet, ok := fleets[row["belongs_to__application"].(map[string]any)["__id"].(float64)]
		if !ok {
			offFleet++
			continue
		}
		slug := fleet["slug"].(string)
		devices[slug]++
		totalDevices++
		if row["is_online"] == true {
			online[slug]++
			totalOnline++
			onlineByName[fleet["app_name"].(string)]++
		}
	}
	if len(fleets) != 13 || totalDevices != 2004 || totalOnline != 1152 || offFleet != 0 || len(onlineByName) != 11 {
		t.Fatalf("the recorded account has changed: %d fleets with %d names, %v devices, %v online", len(fleets), len(onlineByName), totalDevices, totalOnline)
	}

	for _, version := range []string{"v7", "v6"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			sim := serveRecorded(t, version)
			e := start(t, sim.url)
			f := e.waitForUp(1)
			for name, want := range map[string]map[string]float64{
				"balena_fleet_devices":        devices,
				"balena_fleet_devices_online": online,
			} {
				if diff := cmp.Diff(want, f.valuesBy(name, "fleet")); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
			if diff := cmp.Diff(onlineByName, f.valuesBy("balena_devices_online", "fleet_name")); diff != "" {
				t.Errorf("balena_devices_online (-want +got):\n%s", diff)
			}
			got := map[string]string{}
			for _, m := range f["balena_fleet_info"].GetMetric() {
				got[labelOf(m, "fleet")] = labelOf(m, "archived")
			}
			if diff := cmp.Diff(archived, got); diff != "" {
				t.Errorf("archived fleets (-want +got):\n%s", diff)
			}
			// Each of these families counts every device once.
			for _, name := range []string{"status", "heartbeat_state", "update_status", "device_type", "os_version", "supervisor_version"} {
				if diff := cmp.Diff(positive(devices), positive(f.valuesBy("balena_fleet_devices_by_"+name, "fleet"))); diff != "" {
					t.Errorf("balena_fleet_devices_by_%s (-want +got):\n%s", name, diff)
				}
			}
			if n := len(f["balena_device_info"].GetMetric()); n != 2004 {
				t.Errorf("%d devices in balena_device_info, want 2004", n)
			}
			if f.value("balena_exporter_last_refresh_success_timestamp_seconds") == 0 || f.value("balena_exporter_refreshes_total", "result", "success") != 1 {
				t.Error("the metrics of the exporter itself do not report the refresh")
			}
			for resource, got := range f.valuesBy("balena_api_requests_total", "resource") {
				// The simulator counts requests for a missing version under another resource.
				if want := sim.Requests()[resource]; got != float64(want) && version == "v7" {
					t.Errorf("%v requests for %s are counted, want %d", got, resource, want)
				}
			}
		})
	}
}

// positive returns the values without zeros.
func positive(values map[string]float64) map[string]float64 {
	values = maps.Clone(values)
	maps.DeleteFunc(values, func(_ string, v float64) bool { return v == 0 })
	return values
}

// TestDevicesOnline checks the metric that dashboards of the predecessor of this exporter use. It sums fleets with the same
// name.
func TestDevicesOnline(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, simulator.Config{})
	sim.Update(func(st *simulator.State) {
		for i, name := range []string{"shared", "lonely", "shared", "empty"} {
			fleet := st.AddFleet(simulator.Fleet{AppName: name, Slug: fmt.Sprintf("org%d/%s", i, name)})
			if name == "empty" {
				continue
			}
			for range i + 1 {
				st.AddDevice(simulator.Device{FleetID: fleet.ID, IsConnectedToVPN: true})
			}
			st.AddDevice(simulator.Device{FleetID: fleet.ID})
		}
	})
	e := start(t, sim.url)
	e.waitForUp(1)
	var got []string
	for line := range strings.Lines(e.get(e.url("/metrics")).body) {
		if regexp.MustCompile(`^(# TYPE )?balena_devices_online\b`).MatchString(line) {
			got = append(got, line)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{
		"# TYPE balena_devices_online gauge\n",
		`balena_devices_online{fleet_name="empty"} 0` + "\n",
		`balena_devices_online{fleet_name="lonely"} 2` + "\n",
		`balena_devices_online{fleet_name="shared"} 4` + "\n",
	}, got); diff != "" {
		t.Errorf("balena_devices_online (-want +got):\n%s", diff)
	}
}

func TestRequestsOfARefresh(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		devices, pages int
		fullRefreshes  string
	}{ // the last page of a list is empty
		{0, 0, "0"}, {1, 2, "0"}, {1000, 2, "0"}, {1001, 3, "0"}, {2004, 4, "0"}, // full refreshes only
		{0, 0, "1h"}, {1, 2, "1h"}, {2004, 2, "1h"}, // incremental refreshes read only the newest devices again
	} {
		t.Run(fmt.Sprint(test.devices, " devices, full refreshes ", test.fullRefreshes), func(t *testing.T) {
			t.Parallel()
			sim := serveAPI(t, simulator.Config{Devices: test.devices, Fleets: 3, Seed: 1, CloudFields: true})
			e := start(t, sim.url, "--no-collector.device", "--no-collector.release", "--no-collector.api-key", "--no-collector.os", "--balena.refresh-interval=1",
				"--balena.full-refresh-interval="+test.fullRefreshes)
			e.waitForRefreshes(3, success)
			requests := sim.requests()
			// The first refresh also reads device types. The last refresh may be in progress.
			var began []int
			for i, request := range requests {
				if request.resource == "application" && request.firstPage {
					began = append(began, i)
				}
			}
			if len(began) < 3 {
				t.Fatalf("%d refreshes", len(began))
			}
			want := append([]string{"application", "application"}, slices.Repeat([]string{"device"}, test.pages)...)
			for i := 1; i < len(began)-1; i++ {
				var got []string
				for _, request := range requests[began[i]:began[i+1]] {
					got = append(got, request.resource)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("requests (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestScrapesCauseNoRequests(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, smallAccount())
	e := start(t, sim.url, "--balena.refresh-interval=1h", "--collector.service", "--collector.device.tags=site", "--collector.fleet.tags=site")
	first := e.waitForUp(1)
	before := sim.requests()
	for range 10 {
		f := e.scrape()
		for name := range first {
			if !f.has(name) {
				t.Errorf("%s is missing", name)
			}
		}
	}
	if after := sim.requests(); len(after) != len(before) {
		t.Errorf("scrapes caused %d requests", len(after)-len(before))
	}
}

// TestHostileNames checks that names with any text are exported unchanged and cannot inject samples.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	names := []string{
		`"quoted"`, `back\slash`, `\n is no newline`, "two\nlines", "carriage\rreturn", `ends with \`, "tab\tand nul \x00",
		`{fleet="other"} 1`, "\nbalena_up 1\n", "# HELP balena_up lies", "🚀 fleet of Zoë", " ", strings.Repeat("long ", 2000),
	}
	sim := serveAPI(t, simulator.Config{})
	sim.Update(func(st *simulator.State) {
		for i, name := range names {
			fleet := st.AddFleet(simulator.Fleet{AppName: name, Slug: fmt.Sprintf("org/%d %s", i, name)})
			st.AddDevice(simulator.Device{FleetID: fleet.ID, Name: name, OSVersion: name, OSVariant: name})
		}
	})
	e := start(t, sim.url)
	f := e.waitForUp(1) // parsed strictly by expfmt
	for family, label := range map[string]string{
		"balena_devices_online":              "fleet_name",
		"balena_fleet_info":                  "fleet_name",
		"balena_device_info":                 "device_name",
		"balena_fleet_devices_by_os_version": "os_version",
	} {
		var got []string
		for _, m := range f[family].GetMetric() {
			got = append(got, labelOf(m, label))
		}
		if diff := cmp.Diff(slices.Sorted(slices.Values(names)), slices.Sorted(slices.Values(got))); diff != "" {
			t.Errorf("%s of %s (-want +got):\n%s", label, family, diff)
		}
	}
	for i, name := range names {
		if got := f.value("balena_fleet_devices", "fleet", fmt.Sprintf("org/%d %s", i, name)); got != 1 {
			t.Errorf("%v devices in fleet %.40q, want 1", got, name)
		}
	}
}
