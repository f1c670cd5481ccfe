// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// manyFleets returns an account whose devices are divided evenly among fleets. Consecutive devices differ.
func manyFleets(devices, fleets int) *balena.Snapshot {
	s := &balena.Snapshot{Time: at, Releases: map[int64]balena.Release{1: {ID: 1, Version: "1.0.0"}, 2: {ID: 2, Version: "1.1.0"}}}
	for i := range fleets {
		name := fmt.Sprint("fleet-", i)
		s.Fleets = append(s.Fleets, balena.Fleet{ID: int64(i + 1), Name: name, Slug: "acme/" + name, TargetRelease: 2})
	}
	all := make([]balena.Device, devices)
	for i := range all {
		all[i] = balena.Device{
			ID: int64(i + 1), UUID: fmt.Sprintf("%032d", i), Name: fmt.Sprint("device ", i), Status: statuses[i*7919%len(statuses)], Online: i%3 == 0,
			RunningRelease: int64(1 + i%2), TargetRelease: 2, LastConnectivity: 1e12 + balena.Instant(i*104729%1000003), OSVersion: "balenaOS 6.5.10", FleetID: int64(i%fleets + 1),
			SupervisorVersion: "17.0.3", Installs: "1 3 2 1 2 3 3 0", MemoryUsed: 500, MemorySize: 1000, StorageUsed: 500, StorageSize: 1000,
		}
	}
	s.Devices = balena.NewDevices(all...)
	return s
}

// recorded returns options with a recorder that has recorded the snapshot.
func recorded(s *balena.Snapshot) Options {
	o := options(s, good)
	o.Recorder = &Recorder{}
	o.Recorder.Record(s, tallies(s))
	return o
}

// tallies sums up the devices of a snapshot by fleet.
func tallies(s *balena.Snapshot) iter.Seq2[int64, *balena.Tally] {
	return func(yield func(int64, *balena.Tally) bool) {
		all := map[int64]*balena.Tally{}
		for _, f := range s.Fleets {
			all[f.ID] = &balena.Tally{}
		}
		for d := range s.Devices.All() {
			all[d.FleetID].Add(d)
		}
		for id, t := range all {
			if !yield(id, t) {
				return
			}
		}
	}
}

// BenchmarkPages measures requests for pages.
func BenchmarkPages(b *testing.B) {
	for _, devices := range []int{1_000, 100_000, 1_000_000} {
		one, many := manyFleets(devices, 1), manyFleets(devices, 200)
		uuid := fmt.Sprintf("%032d", devices-1)
		for _, page := range []struct {
			name, target string
			snapshot     *balena.Snapshot
			code         int
		}{
			{"landing", "/", many, 200},
			{"fleets", "/fleets", many, 200},
			{"fleet", "/fleets/acme/fleet-0", one, 200},
			{"fleet filtered", "/fleets/acme/fleet-0?status=operational&os=balenaOS+6.5.10", one, 200},
			{"fleet by release", "/fleets/acme/fleet-0?sort=-release", one, 200},
			{"last page as JSON", "/fleets/acme/fleet-0?format=json&before=end", one, 200},
			{"10,000 devices as CSV", "/fleets/acme/fleet-0?format=csv&limit=10000", one, 200},
			{"one of 200 fleets", "/fleets/acme/fleet-7", many, 200},
			{"problems", "/problems", many, 200},
			{"device", "/devices/" + uuid, many, 200},
			{"search for a UUID", "/search?q=" + uuid, many, 303},
			{"search for a name", "/search?q=vice+77", many, 200},
			{"search without results", "/search?q=nothing+at+all", many, 200},
		} {
			b.Run(fmt.Sprintf("devices=%d/%s", devices, page.name), func(b *testing.B) {
				h := NewHandler(recorded(page.snapshot))
				request := httptest.NewRequestWithContext(b.Context(), http.MethodGet, page.target, nil)
				b.ReportAllocs()
				before := cpuTime(b)
				for b.Loop() {
					w := httptest.NewRecorder()
					if h.ServeHTTP(w, request); w.Code != page.code {
						b.Fatal(w.Code, w.Body)
					}
					b.ReportMetric(float64(w.Body.Len()), "B/page")
				}
				b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/1e3/float64(b.N), "cpu-ms/op")
			})
		}
	}
}

// BenchmarkRecord measures the recording of a snapshot.
func BenchmarkRecord(b *testing.B) {
	for _, fleets := range []int{1, 200, 10_000} {
		b.Run(fmt.Sprintf("fleets=%d", fleets), func(b *testing.B) {
			s := manyFleets(10*fleets, fleets)
			all := maps.Collect(tallies(s))
			var r Recorder
			b.ReportAllocs()
			for b.Loop() {
				s.Time = s.Time.Add(time.Minute)
				r.Record(s, maps.All(all))
			}
		})
	}
}

// cpuTime returns the CPU time of the process, which depends less on the load of the machine than the elapsed time.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
