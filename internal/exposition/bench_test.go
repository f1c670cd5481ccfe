// SPDX-License-Identifier: Apache-2.0

//go:build unix

package exposition

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// The workload: devices with 26.8 series each in 27 families, about 3 kB of text per
// device, in runs of 40 devices, which is the length that the exporter uses.
const (
	benchFamilies = 27
	benchRun      = 40
	benchParts    = 8
)

var benchSizes = []int{1_000, 10_000, 100_000}

var benchLayout = func() (l Layout) {
	for family := range benchFamilies {
		l = append(l, Family{Header: fmt.Appendf(nil,
			"# HELP device_reading_%d A reading of a device.\n# TYPE device_reading_%d gauge\n", family, family)})
	}
	return l
}()

func benchRuns(devices int) int { return devices / benchRun }

// changes reports whether a family of a run has other values than before.
type changes func(run, family int) bool

func none(int, int) bool { return false }

// some are the changes when one device in a hundred changed: 47 % of the runs have such
// a device, which differs in 6 of 27 families.
func some(run, family int) bool { return run*29%100 < 47 && family%9 < 2 }

// build makes a page of runs, each of which is a piece of each family.
func build(runs int, previous *Page, changed changes, text func(run, family int) []byte) *Page {
	b := NewBuilder(benchLayout, previous)
	for run := range runs {
		if run > 0 && run*benchParts/runs > (run-1)*benchParts/runs {
			b.EndSection()
		}
		for family := range benchFamilies {
			if previous != nil && !changed(run, family) {
				b.Keep(family, run)
			} else {
				b.Add(family, text(run, family))
			}
		}
	}
	return b.Page()
}

func renderRun(text []byte, family, start int, values uint64) []byte {
	names := rand.New(rand.NewPCG(uint64(start), 0))
	random := rand.New(rand.NewPCG(uint64(start), values<<8|uint64(family)))
	for device := start; device < start+benchRun; device++ {
		a, b := names.Uint64(), names.Uint64()
		if family == benchFamilies-1 && device%5 == 0 {
			continue // 13.8
		}
		text = fmt.Appendf(text, "device_reading_%d{fleet=\"organization/fleet-%03d\",uuid=\"%016x%016x\",site=\"building-%d\"} ",
			family, device/500, a, b, device/100)
		switch family % 3 {
		case 0:
			text = fmt.Appendf(text, "%d\n", random.IntN(10)/9) // a state, mostly the same
		case 1:
			text = fmt.Appendf(text, "0.%02d\n", random.IntN(100)) // a ratio
		case 2:
			text = fmt.Appendf(text, "%d\n", random.IntN(1<<13)<<20) // bytes
		}
	}
	return text
}

var benchPages sync.Map // of *Page by number of devices, because building them takes long

// benchPage returns a page as it is after several refreshes: built from previous pages, most
// of whose fragments are kept.
func benchPage(devices int) *Page {
	if page, ok := benchPages.Load(devices); ok {
		return page.(*Page)
	}
	var page *Page
	var text []byte
	for refresh := range uint64(5) {
		page = build(benchRuns(devices), page, some, func(run, family int) []byte {
			text = renderRun(text[:0], family, run*benchRun, refresh)
			return text
		})
	}
	benchPages.Store(devices, page)
	return page
}

// benchHandler serves a page with a typical live part, as the exporter does.
func benchHandler(page *Page) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return NewHandler(HandlerOptions{Page: always(page), Live: registry, Registerer: registry, Parts: benchParts})
}

// BenchmarkScrape measures one scrape over a persistent TCP connection, by a scraper in
// another process. cpu-ms/op is the CPU time of the server alone. The baseline is
// static: http.ServeContent of the same gzip bytes.
//
//	go test -bench 'Scrape/.*/(gzip|static)' ./internal/exposition
func BenchmarkScrape(b *testing.B) {
	for _, devices := range benchSizes {
		b.Run(fmt.Sprintf("devices=%d", devices), func(b *testing.B) {
			ours := benchHandler(benchPage(devices))
			static := func(query string) http.Handler {
				recorder := httptest.NewRecorder()
				request := httptest.NewRequest("GET", "/"+query, nil)
				request.Header.Set("Accept-Encoding", "gzip")
				ours.ServeHTTP(recorder, request)
				file := recorder.Body.Bytes()
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Encoding", "gzip")
					w.Header().Set("Content-Type", contentType)
					http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
				})
			}
			const part = "?part=3/8"
			b.Run("static", func(b *testing.B) { benchmarkScrape(b, static(""), "", "gzip") })
			b.Run("gzip", func(b *testing.B) { benchmarkScrape(b, ours, "", "gzip") })
			b.Run("identity", func(b *testing.B) { benchmarkScrape(b, ours, "", "identity") })
			b.Run("static part", func(b *testing.B) { benchmarkScrape(b, static(part), "", "gzip") })
			b.Run("part", func(b *testing.B) { benchmarkScrape(b, ours, part, "gzip") })
		})
	}
}

func benchmarkScrape(b *testing.B, handler http.Handler, query, acceptEncoding string) {
	server := httptest.NewServer(handler)
	defer server.Close()
	scrape := startScraper(b)
	size := scrape(server.URL+query, acceptEncoding) // connects, and warms up

	runtime.GC()     // removes the garbage of building pages
	b.ReportAllocs() // of this process, and so of the server alone
	b.ResetTimer()
	cpu := cpuTime(b)
	for b.Loop() {
		scrape(server.URL+query, acceptEncoding)
	}
	cpu = cpuTime(b) - cpu
	b.SetBytes(size)
	b.ReportMetric(float64(cpu.Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

// BenchmarkBuild measures building a page without rendering: the text is rendered
// beforehand. With changed=1% one device in a hundred differs from the previous page.
func BenchmarkBuild(b *testing.B) {
	// A few different runs are enough: fragments are compressed independently.
	const different = 50
	var texts [2][different][benchFamilies][]byte
	for values := range texts {
		for run := range different {
			for family := range benchFamilies {
				texts[values][run][family] = renderRun(nil, family, run*benchRun, uint64(values))
			}
		}
	}
	first := func(run, family int) []byte { return texts[0][run%different][family] }
	second := func(run, family int) []byte { return texts[1][run%different][family] }
	for _, devices := range benchSizes {
		runs := benchRuns(devices)
		previous := build(runs, nil, none, first)
		b.Run(fmt.Sprintf("devices=%d", devices), func(b *testing.B) {
			for _, test := range []struct {
				name     string
				previous *Page
				changed  changes
			}{
				{"scratch", nil, none},
				{"changed=1%", previous, some},
				{"unchanged", previous, none},
			} {
				b.Run(test.name, func(b *testing.B) {
					b.ReportAllocs()
					var page *Page
					cpu := cpuTime(b)
					for b.Loop() {
						page = build(runs, test.previous, test.changed, second)
					}
					cpu = cpuTime(b) - cpu
					b.ReportMetric(float64(cpu.Microseconds())/1000/float64(b.N), "cpu-ms/op")
					b.SetBytes(page.TextBytes())
					b.ReportMetric(float64(page.CompressedBytes())/float64(devices), "compressed-B/device")
				})
			}
		})
	}
}

func BenchmarkCombine(b *testing.B) {
	var crc uint32 = 1
	for b.Loop() {
		crc = combine(crc, 0xdeadbeef, 7_000)
	}
}

// cpuTime returns the CPU time this process has used.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		tb.Fatalf("reading the CPU time used: %v", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
