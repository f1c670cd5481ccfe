// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// large returns a snapshot of 100,000 devices in 200 fleets.
func large() *balena.Snapshot {
	const devices, fleets = 100_000, 200
	s := &balena.Snapshot{Releases: map[int64]balena.Release{}}
	for id := range int64(fleets) {
		s.Fleets = append(s.Fleets, balena.Fleet{ID: id + 1, Slug: fmt.Sprintf("organization/fleet-%d", id+1), Name: fmt.Sprintf("fleet-%d", id+1), Organization: "organization"})
		s.Releases[id+1] = balena.Release{ID: id + 1, Commit: fmt.Sprintf("%032x", id*0x9e3779b97f4a7c1), Version: "1.4.0+rev1"}
	}
	all := make([]balena.Device, devices)
	for i := range all {
		id := int64(i + 1)
		of := 1 + id*31%fleets
		all[i] = balena.Device{
			ID: id, FleetID: of, UUID: fmt.Sprintf("%016x%016x", uint64(id)*0x9e3779b97f4a7c15, uint64(id)*0xc2b2ae3d27d4eb4f), Name: fmt.Sprintf("dark-hail-%d", id),
			Type: "raspberrypi4-64", Status: "operational", HeartbeatState: "online", Online: id%5 > 0, OSVersion: "balenaOS 6.5.10", OSVariant: "prod",
			SupervisorVersion: "17.0.3", RunningRelease: of,
		}
	}
	s.Devices = balena.NewDevices(all...)
	return s
}

// with returns a snapshot in which one percent of the devices, evenly distributed, have changed.
func with(s *balena.Snapshot, change func(*balena.Device)) *balena.Snapshot {
	var put []*balena.Device
	for d := range s.Devices.All() {
		if d.ID*29%100 == 0 {
			other := *d
			change(&other)
			put = append(put, &other)
		}
	}
	next := *s
	next.Devices = s.Devices.With(put, nil)
	return &next
}

// BenchmarkList measures requests for the whole list over a persistent TCP connection. The baseline is static:
// http.ServeContent of the same gzip bytes. Both include the cost of the client.
func BenchmarkList(b *testing.B) {
	h := serve(large(), options())
	recorder := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodGet, "/sd/devices", nil)
	request.Header.Set("Accept-Encoding", "gzip")
	h.ServeHTTP(recorder, request)
	file := recorder.Body.Bytes()
	static := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", "application/json")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
	})
	for name, handler := range map[string]http.Handler{"static": static, "gzip": h} {
		b.Run(name, func(b *testing.B) {
			server := httptest.NewServer(handler)
			defer server.Close()
			b.SetBytes(int64(len(file)))
			b.ReportAllocs()
			for b.Loop() {
				r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, server.URL+"/sd/devices", nil)
				if err != nil {
					b.Fatal(err)
				}
				r.Header.Set("Accept-Encoding", "gzip")
				resp, err := http.DefaultClient.Do(r)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(len(file)) {
					b.Fatalf("read %d bytes of %d: %v", n, len(file), err)
				}
				_ = resp.Body.Close()
			}
		})
	}
}

// BenchmarkRefresh measures the rendering of the whole list.
func BenchmarkRefresh(b *testing.B) {
	s := large()
	for _, test := range []struct {
		name   string
		change func(*balena.Device) // of one device in a hundred; nil for making all of the list
	}{
		{"scratch", nil},
		{"unchanged", func(*balena.Device) {}},
		{"figures", func(d *balena.Device) { d.CPUUsage++ }},
		{"connectivity", func(d *balena.Device) { d.Online = !d.Online }},
	} {
		b.Run(test.name, func(b *testing.B) {
			b.ReportAllocs()
			f := &filter{}
			lists := New(options())
			lists.Refresh(s)
			if test.change == nil {
				for b.Loop() {
					clear(lists.lists)
					lists.list(f)
				}
				list, _ := lists.list(f)
				b.ReportMetric(float64(list.page.TextBytes())/float64(s.Devices.Len()), "text-B/device")
				b.ReportMetric(float64(list.page.CompressedBytes())/float64(s.Devices.Len()), "compressed-B/device")
				return
			}
			lists.list(f)
			next := with(s, test.change)
			for b.Loop() {
				lists.Refresh(next)
				s, next = next, s
			}
		})
	}
}
