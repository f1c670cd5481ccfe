// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// devicePage is the request of an exporter for a page of devices.
const devicePage = "/v7/device?$select=id,uuid,device_name,overall_status,overall_progress,is_online,is_connected_to_vpn,last_connectivity_event,last_vpn_event," +
	"api_heartbeat_state,changed_api_heartbeat_state_on__date,is_pinned_on__release,should_be_operated_by__release,should_be_managed_by__release,update_status," +
	"last_update_status_event,os_version,os_variant,supervisor_version,cpu_usage,cpu_temp,memory_usage,memory_total,storage_usage,storage_total,is_undervolted," +
	"is_web_accessible,created_at,modified_at,belongs_to__application,is_of__device_type,is_running__release,should_be_running__release" +
	"&$filter=belongs_to__application/any(a:a/is_directly_accessible_by__user/any(dau:1%%20eq%%201))%%20and%%20id%%20gt%%20%d&$orderby=id%%20asc&$top=1000"

// discard is a ResponseWriter that counts bytes.
type discard struct {
	header http.Header
	bytes  int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(b []byte) (int, error) { d.bytes += len(b); return len(b), nil }

var _ io.Writer = (*discard)(nil)

// BenchmarkPages reads all devices in pages of 1000.
func BenchmarkPages(b *testing.B) {
	for _, encoding := range []string{"identity", "gzip"} {
		b.Run(encoding, func(b *testing.B) {
			const devices = 100_000
			sim, err := New(Config{Devices: devices, Fleets: 200, Seed: 1})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				w := &discard{header: make(http.Header)}
				for last := 0; last < devices; last += 1000 {
					r := httptest.NewRequest("GET", fmt.Sprintf(devicePage, last), nil)
					r.Header.Set("Authorization", "Bearer token")
					r.Header.Set("Accept-Encoding", encoding)
					sim.ServeHTTP(w, r)
				}
				b.ReportMetric(float64(w.bytes)/devices, "B/device")
			}
		})
	}
}

// BenchmarkFleets reads all fleets with the number of their devices.
func BenchmarkFleets(b *testing.B) {
	sim, err := New(Config{Devices: 100_000, Fleets: 200, Seed: 1})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r := httptest.NewRequest("GET", "/v7/application?$select=id,slug&$filter=is_directly_accessible_by__user/any(dau:1%20eq%201)"+
			"&$expand=owns__device/$count($filter=is_online%20eq%20true),organization($select=name)&$orderby=id%20asc", nil)
		r.Header.Set("Authorization", "Bearer token")
		sim.ServeHTTP(&discard{header: make(http.Header)}, r)
	}
}

func BenchmarkTick(b *testing.B) {
	sim, err := New(Config{Devices: 100_000, Fleets: 200, Seed: 1})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		sim.Tick()
	}
}

func BenchmarkGenerate(b *testing.B) {
	for b.Loop() {
		generate(100_000, 200, 1, 1_800_000_000_000)
	}
}

// BenchmarkChanges reads the changed devices, which are 1% of all devices, including those with a changed image install.
func BenchmarkChanges(b *testing.B) {
	now := time.UnixMilli(1_800_000_000_000)
	sim, err := New(Config{Devices: 100_000, Fleets: 200, Seed: 1, Now: func() time.Time { return now }})
	if err != nil {
		b.Fatal(err)
	}
	now = now.Add(time.Minute)
	sim.Update(func(st *State) {
		for i := range 1000 {
			if i%2 == 0 {
				st.Device(100*i + 1).CPUUsage = N(101)
			} else if installs := st.InstallsOf(100*i + 1); len(installs) > 0 {
				installs[0].DownloadProgress = N(1)
			}
		}
	})
	changed := strings.Replace(fmt.Sprintf(devicePage, 0), "and%20id", "and%20(modified_at%20gt%20datetime'"+string(appendTime(nil, At(now)-1))+"'"+
		"%20or%20image_install/any(i:i/modified_at%20gt%20datetime'"+string(appendTime(nil, At(now)-1))+"'))%20and%20id", 1)
	b.ReportAllocs()
	for b.Loop() {
		w := &discard{header: make(http.Header)}
		r := httptest.NewRequest("GET", changed, nil)
		r.Header.Set("Authorization", "Bearer token")
		r.Header.Set("Accept-Encoding", "gzip")
		sim.ServeHTTP(w, r)
		b.ReportMetric(float64(w.bytes), "B/response")
	}
}
