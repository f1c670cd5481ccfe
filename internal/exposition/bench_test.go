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

// The workload: devices with 13.8 series each in 14 families, rendered in runs of a
// thousand, about 1.9 kB of text a device.
const (
	benchFamilies = 14
	benchRun      = 1000
)

var benchSizes = []int{1_000, 10_000, 100_000}

// fill renders all devices, of which runs in changed have other values.
func fill(b *Builder, devices int, changed func(run int) bool) {
	var text []byte
	for start := 0; start < devices; start += benchRun {
		values := uint64(1)
		if changed(start / benchRun) {
			values = 2
		}
		for family := range benchFamilies {
			text = renderRun(text[:0], family, start, values)
			b.Append(family, text)
		}
	}
}

func renderRun(text []byte, family, start int, values uint64) []byte {
	if start == 0 {
		text = fmt.Appendf(text, "# HELP device_reading_%d A reading of a device.\n# TYPE device_reading_%d gauge\n", family, family)
	}
	names := rand.New(rand.NewPCG(uint64(start), 0))
	random := rand.New(rand.NewPCG(uint64(start), values<<8|uint64(family)))
	for device := start; device < start+benchRun; device++ {
		a, b := names.Uint64(), names.Uint64()
		if family == benchFamilies-1 && device%5 == 0 {
			continue // 13.8
		}
		text = fmt.Appendf(text, "device_reading_%d{fleet=\"organisation/fleet-%03d\",uuid=\"%016x%016x\",site=\"building-%d\"} ",
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

func none(int) bool { return false }

var benchPages sync.Map // of *Page by number of devices, as building them takes long

func benchPage(devices int) *Page {
	if page, ok := benchPages.Load(devices); ok {
		return page.(*Page)
	}
	b := NewBuilder(benchFamilies, nil)
	fill(b, devices, none)
	page := b.Page()
	benchPages.Store(devices, page)
	return page
}

// benchHandler serves a page as the exporter does: with a usual live part.
func benchHandler(page *Page) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return NewHandler(HandlerOptions{Page: always(page), Live: registry, Registerer: registry})
}

// BenchmarkScrape measures one scrape over a TCP connection that is kept, by a
// scraper in another process. cpu-ms/op is the server's alone. The bar is
// static: http.ServeContent of the same gzip bytes.
//
//	go test -bench 'Scrape/.*/(gzip|static)' ./internal/exposition
func BenchmarkScrape(b *testing.B) {
	for _, devices := range benchSizes {
		b.Run(fmt.Sprintf("devices=%d", devices), func(b *testing.B) {
			ours := benchHandler(benchPage(devices))
			recorder := httptest.NewRecorder()
			request := httptest.NewRequest("GET", "/", nil)
			request.Header.Set("Accept-Encoding", "gzip")
			ours.ServeHTTP(recorder, request)
			file := recorder.Body.Bytes()
			static := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				w.Header().Set("Content-Type", contentType)
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
			})
			b.Run("static", func(b *testing.B) { benchmarkScrape(b, static, "gzip") })
			b.Run("gzip", func(b *testing.B) { benchmarkScrape(b, ours, "gzip") })
			b.Run("identity", func(b *testing.B) { benchmarkScrape(b, ours, "identity") })
		})
	}
}

func benchmarkScrape(b *testing.B, handler http.Handler, acceptEncoding string) {
	server := httptest.NewServer(handler)
	defer server.Close()
	scrape := startScraper(b)
	size := scrape(server.URL, acceptEncoding) // connects, and warms up

	runtime.GC()     // the garbage of making pages is nobody's in particular
	b.ReportAllocs() // of this process, so of the server alone
	b.ResetTimer()
	cpu := cpuTime(b)
	for b.Loop() {
		scrape(server.URL, acceptEncoding)
	}
	cpu = cpuTime(b) - cpu
	b.SetBytes(size)
	b.ReportMetric(float64(cpu.Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

// BenchmarkBuild measures making a page, without rendering: the text is rendered
// beforehand. With changed=1% all values of every hundredth run of a thousand
// devices are different from the previous page's.
func BenchmarkBuild(b *testing.B) {
	for _, devices := range benchSizes {
		var chunks [][]byte
		var size int64
		// Few different runs are enough: no fragment sees another.
		const different = 10
		for run := range min(different, devices/benchRun) {
			for family := range benchFamilies {
				chunks = append(chunks, renderRun(nil, family, run*benchRun, 1))
			}
		}
		other := make([][]byte, benchFamilies)
		for family := range other {
			other[family] = renderRun(nil, family, 0, 2)
		}
		build := func(previous *Page, changed func(run int) bool) *Page {
			builder := NewBuilder(benchFamilies, previous)
			size = 0
			for run := range devices / benchRun {
				for family := range benchFamilies {
					text := chunks[run%different*benchFamilies+family]
					if changed(run) {
						text = other[family]
					}
					builder.Append(family, text)
					size += int64(len(text))
				}
			}
			return builder.Page()
		}
		first := build(nil, none)
		b.Run(fmt.Sprintf("devices=%d", devices), func(b *testing.B) {
			for _, test := range []struct {
				name     string
				previous *Page
				changed  func(run int) bool
			}{
				{"scratch", nil, none},
				{"changed=1%", first, func(run int) bool { return run%100 == 0 }},
				{"unchanged", first, none},
			} {
				b.Run(test.name, func(b *testing.B) {
					b.ReportAllocs()
					var page *Page
					cpu := cpuTime(b)
					for b.Loop() {
						page = build(test.previous, test.changed)
					}
					cpu = cpuTime(b) - cpu
					b.ReportMetric(float64(cpu.Microseconds())/1000/float64(b.N), "cpu-ms/op")
					b.SetBytes(size)
					b.ReportMetric(float64(page.CompressedBytes())/float64(devices), "compressed-B/device")
				})
			}
		})
	}
}

func BenchmarkCombine(b *testing.B) {
	var crc uint32 = 1
	for b.Loop() {
		crc = combine(crc, 0xdeadbeef, 135_000)
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
