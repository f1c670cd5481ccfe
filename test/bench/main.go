// SPDX-License-Identifier: Apache-2.0

//go:build unix

// Bench compares the exporter with baselines: scrapes with a static file, refreshes with reading and
// unzipping the same pages. It prints one table, mostly of ratios, because absolute times depend more on the
// machine than on the code. `make bench` runs it. README.md describes the rows.
//
// Servers run in processes of their own, so that their CPU time does not include that of their clients.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	balenaapi "github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	bin := flag.String("bin", "bin", "directory with the binaries of exporter and simulator")
	only := flag.Bool("only-changes", false, "measure only incremental refreshes")
	sizes := flag.String("devices", "1000,10000,100000", "comma-separated numbers of devices to measure with")
	server := flag.String("prometheus", "", "the binary of a Prometheus server: measure only what it needs")
	serve := flag.String("serve", "", "for internal use: the address of an API whose devices are served")
	flag.Parse()
	if *serve != "" {
		serveScrapes(*serve)
		return
	}

	b := bench{bin: *bin}
	var devices []int
	for s := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			log.Fatalf("-devices: %v", err)
		}
		devices = append(devices, n)
	}
	if *server != "" {
		fmt.Println("| devices | scraped | series of a server | series a device | CPU a scrape | allocated a scrape | memory a series |")
		fmt.Println("|---|---|---|---|---|---|---|")
		for _, n := range devices {
			b.prometheus(*server, n)
		}
		return
	}
	fmt.Printf("%s, %d cores, %s/%s. CPU is the CPU time of the measured process. The ratio compares with the baseline of the row, measured in the same run.\n\n",
		runtime.Version(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	fmt.Println("| devices | what | measured | baseline | ratio | limit |")
	fmt.Println("|---|---|---|---|---|---|")
	for _, n := range devices {
		if !*only {
			b.measure(n)
		}
		for _, edition := range simulator.Editions() {
			b.changes(n, edition)
		}
	}
	if !*only {
		b.start()
	}
}

// must returns a value, or ends the program with an error.
func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

type bench struct {
	bin string
	// last is the CPU time of a refresh per device, in nanoseconds, for the previous number of devices, lastSize.
	last     float64
	lastSize int
}

func row(devices int, what, measured, baseline, ratio, limit string) {
	fmt.Printf("| %d | %s | %s | %s | %s | %s |\n", devices, what, measured, baseline, ratio, limit)
}

func times[T ~int64 | ~uint64 | ~float64](a, b T) string {
	return fmt.Sprintf("%.2f", float64(a)/float64(b))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }

// measure prints the rows for n devices.
func (b *bench) measure(n int) {
	api := b.simulator(n, cached)
	defer api.stop()

	refresh := refreshes(api.url, n)
	baseline := refresh.baseline
	row(n, "decode, CPU", ms(refresh.fetch), ms(baseline)+" (reading and unzipping the same pages)", times(refresh.fetch, baseline), "≤ 4")
	row(n, "decode, objects per device", fmt.Sprintf("%.2f", float64(refresh.objects)/float64(n)), "", "", "≤ 3")
	seriesPerDevice := float64(refresh.samples) / float64(n)
	limit := 7.5 * seriesPerDevice / 13.8
	row(n, fmt.Sprintf("refresh, CPU, %.1f series per device", seriesPerDevice), ms(refresh.whole), ms(baseline), times(refresh.whole, baseline), fmt.Sprintf("≤ %.1f (7.5 × series / 13.8)", limit))
	row(n, "refresh, CPU, nothing changed", ms(refresh.again), ms(baseline), times(refresh.again, baseline), "≤ 5")
	row(n, "exposition", fmt.Sprintf("%.1f MB as text, %.0f B per device", float64(refresh.page.TextBytes())/1e6, float64(refresh.page.TextBytes())/float64(n)),
		fmt.Sprintf("%.1f MB compressed, %.0f B per device", float64(refresh.page.CompressedBytes())/1e6, float64(refresh.page.CompressedBytes())/float64(n)), "", "")
	each := float64(refresh.whole) / float64(n)
	if b.lastSize != 0 {
		row(n, "refresh, CPU per device", fmt.Sprintf("%.2f µs", each/1e3), fmt.Sprintf("%.2f µs with %d", b.last/1e3, b.lastSize), times(each, b.last), "≤ 1.2")
	}
	b.last, b.lastSize = each, n
	page, requests := refresh.page.CompressedBytes(), refresh.requests
	debug.FreeOSMemory()

	scrapes, stop := b.scrapes(api.url)
	exporter, static := scrapes("/exporter", "gzip"), scrapes("/static", "gzip")
	cpuLimit, wallLimit := static.cpu*3/2+1500*time.Microsecond, static.wall*5/4+1500*time.Microsecond
	row(n, "scrape, CPU", ms(exporter.cpu), ms(static.cpu)+" (static file)", times(exporter.cpu, static.cpu), "≤ "+ms(cpuLimit))
	row(n, "scrape, wall", ms(exporter.wall), ms(static.wall)+" (static file)", times(exporter.wall, static.wall), "≤ "+ms(wallLimit))
	row(n, "scrape, allocated", fmt.Sprintf("%.2f MB", float64(exporter.allocated)/1e6), "", "", "≤ 0.5 MB")
	if n <= 100_000 {
		constant := scrapes("/const", "gzip")
		row(n, "a collector of const metrics, CPU", ms(constant.cpu), ms(exporter.cpu)+" (exporter)", times(constant.cpu, exporter.cpu), "≥ 300 for 10,000 or more devices")
	}
	plain := scrapes("/exporter", "identity")
	row(n, "scrape without compression, CPU", ms(plain.cpu), ms(exporter.cpu)+" (compressed)", times(plain.cpu, exporter.cpu), "")
	stop()

	peak := b.exporter(api)
	allowed := 20e6 + float64(page) + 800*float64(n)
	row(n, "peak memory, resident", fmt.Sprintf("%.1f MB", float64(peak)/1e6), fmt.Sprintf("%.1f MB", allowed/1e6), times(float64(peak), allowed), "≤ 1 (20 MB + compressed exposition + 0.8 kB per device)")
	row(n, "API requests per refresh", strconv.Itoa(requests), strconv.Itoa(3+(n+999)/1000), "", "3 + ⌈devices / 1000⌉")
}

// cpu returns the CPU time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		log.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// least returns the least CPU time of a few runs: longer times are caused by the machine.
func least(runs int, f func()) time.Duration {
	best := time.Duration(math.MaxInt64)
	for range runs {
		runtime.GC()
		began := cpu()
		f()
		best = min(best, cpu()-began)
	}
	return best
}

type refreshed struct {
	// baseline is the CPU time of reading and unzipping the same pages, and nothing else.
	baseline, fetch, whole, again time.Duration
	requests                      int
	objects                       uint64
	samples                       int
	page                          *exposition.Page
}

// refreshes measures a refresh of the API's devices, and its baseline.
func refreshes(api string, n int) refreshed {
	// A proxy during the measurement would add its own cost, so the paths are recorded beforehand, with a server that
	// replaces the API.
	var paths []string
	proxy := httputil.NewSingleHostReverseProxy(must(url.Parse(api)))
	spy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.RequestURI)
		proxy.ServeHTTP(w, r)
	}))
	client := newClient(spy.URL)
	fetch(client)
	paths = nil
	fetch(client) // so that later refreshes are typical
	client.Close()
	spy.Close()

	runs := max(3, min(20, 200_000/n))
	read := func() {
		var unzip gzip.Reader
		for _, path := range paths {
			resp := get(api+path, "gzip")
			body := io.Reader(resp.Body)
			if resp.Header.Get("Content-Encoding") == "gzip" { // an empty page is too small to be compressed
				if err := unzip.Reset(resp.Body); err != nil {
					log.Fatalf("%s: %v", path, err)
				}
				body = &unzip
			}
			must(io.Copy(io.Discard, body))
			_ = resp.Body.Close()
		}
	}
	read()
	r := refreshed{baseline: least(runs, read), requests: len(paths)}

	client = newClient(api)
	defer client.Close()
	fetch(client)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fetch(client)
	runtime.ReadMemStats(&after)
	r.objects = after.Mallocs - before.Mallocs
	r.fetch = least(runs, func() { fetch(client) })

	var fleets *collector.Collector
	r.whole = least(runs, func() {
		fleets = collector.New(nil, collector.DefaultOptions()) // renders everything
		r.page = fleets.Render(fetch(client))
	})
	r.again = least(runs, func() { r.page = fleets.Render(fetch(client)) })
	for line := range bytes.Lines(text(r.page)) {
		if line[0] != '#' {
			r.samples++
		}
	}
	return r
}

// handler serves a page together with live metrics.
func handler(page *exposition.Page, live *prometheus.Registry) http.Handler {
	return exposition.NewHandler(exposition.HandlerOptions{Page: func() *exposition.Page { return page }, Live: live})
}

// text returns the exposition of a page, without the metrics of the exporter itself.
func text(page *exposition.Page) []byte {
	answer := httptest.NewRecorder()
	handler(page, prometheus.NewRegistry()).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/", nil))
	return answer.Body.Bytes()
}

func newClient(api string, with ...func(*account.Config)) *account.Reader {
	o := collector.DefaultOptions()
	config := account.Config{
		Config: balenaapi.Config{URL: must(url.Parse(api)), Token: balenaapi.StaticToken("bench"), Timeout: time.Minute, UserAgent: "bench"}, PageSize: 1000,
		Options: account.Options{
			Devices: o.Devices, Releases: o.Releases, ServiceSummary: o.ServiceSummary, Keys: o.Keys, OS: o.OS, ArchivedFleets: true, SlowInterval: time.Hour, Keep: time.Hour,
		},
	}
	for _, w := range with {
		w(&config)
	}
	return must(account.New(config))
}

func fetch(c *account.Reader) *balena.Snapshot { return must(c.Fetch(context.Background())) }

// process is a server in a process of its own.
type process struct {
	*exec.Cmd
	url string
}

func (p *process) stop() {
	_ = p.Process.Signal(syscall.SIGTERM)
	_ = p.Wait()
}

// launch starts a server and waits until it answers requests for path.
func launch(path, url string, cmd *exec.Cmd) *process {
	cmd.Stderr = io.Discard
	if err := cmd.Start(); err != nil {
		log.Fatalf("%v; run make build first", err)
	}
	p := &process{cmd, url}
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(time.Millisecond) {
		resp, err := http.Get(url + path)
		if err == nil {
			_ = resp.Body.Close()
			return p
		}
		if time.Now().After(deadline) {
			log.Fatalf("%s does not answer: %v", cmd.Path, err)
		}
	}
}

// freeAddress returns an address on which no program listens.
func freeAddress() string {
	s := httptest.NewServer(nil)
	defer s.Close()
	return s.Listener.Addr().String()
}

// cached is the flag of the simulator with which repeated answers cost nothing.
const cached = "--cache-answers"

// simulator starts an API with n devices, in fleets of 500.
func (b *bench) simulator(n int, more ...string) *process {
	address := freeAddress()
	args := append([]string{"--listen-address=" + address, fmt.Sprint("--devices=", n), fmt.Sprint("--fleets=", max(1, n/500)), "--tick-interval=0s"}, more...)
	api := launch("/ping", "http://"+address, exec.Command(filepath.Join(b.bin, "balena-simulator"), args...))
	// The account was created just now. Advance the clock, so that nothing changed recently: the client then knows that a
	// full page can be the last one.
	api.post("clock", time.Minute.String())
	return api
}

type scrape struct {
	cpu, wall time.Duration // CPU time of the server; time from the request to the last byte of the answer
	allocated uint64        // by the server
}

// usage holds the resources that a server of scrapes has used, as it reports them.
type usage struct {
	CPU       time.Duration
	Allocated uint64
}

// serveScrapes serves the same devices in the different ways that are compared.
func serveScrapes(api string) {
	s := fetch(newClient(api))
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector.NewMetrics(func() time.Time { return time.Time{} }, time.Hour),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	fleets := collector.New(func() *balena.Snapshot { return s }, collector.DefaultOptions())
	exporter := handler(fleets.Render(s), registry)

	request := httptest.NewRequest(http.MethodGet, "/", nil)
	request.Header.Set("Accept-Encoding", "gzip")
	answer := httptest.NewRecorder()
	exporter.ServeHTTP(answer, request)
	file := answer.Body.String()

	everything := prometheus.NewRegistry()
	everything.MustRegister(fleets)
	mux := http.NewServeMux()
	mux.Handle("/exporter", exporter)
	mux.Handle("/const", promhttp.HandlerFor(everything, promhttp.HandlerOpts{}))
	mux.HandleFunc("/static", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", "text/plain")
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(file))
	})
	mux.HandleFunc("/usage", func(w http.ResponseWriter, _ *http.Request) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		_ = json.NewEncoder(w).Encode(usage{cpu(), m.TotalAlloc})
	})
	log.Fatal(http.ListenAndServe(flag.Arg(0), mux))
}

// scrapes starts a server of scrapes. It returns a function that measures one of the server's paths, and one that stops the
// server.
func (b *bench) scrapes(api string) (measure func(path, encoding string) scrape, stop func()) {
	address := freeAddress()
	p := launch("/usage", "http://"+address, exec.Command(os.Args[0], "-serve", api, address))
	used := func() (u usage) {
		if err := json.Unmarshal([]byte(body(p.url+"/usage")), &u); err != nil {
			log.Fatal(err)
		}
		return u
	}
	buffer := make([]byte, 1<<20)
	scrapeOnce := func(path, encoding string) {
		answer := get(p.url+path, encoding).Body
		for err := error(nil); err == nil; {
			_, err = answer.Read(buffer)
		}
		_ = answer.Close()
	}
	measure = func(path, encoding string) scrape {
		// Several rounds of at least a quarter of a second each; the best one counts.
		scrapeOnce(path, encoding)
		best := scrape{cpu: math.MaxInt64, wall: math.MaxInt64}
		for range 5 {
			before, began, n := used(), time.Now(), 0
			for n < 3 || time.Since(began) < 250*time.Millisecond {
				scrapeOnce(path, encoding)
				n++
			}
			wall, after := time.Since(began)/time.Duration(n), used()
			best.cpu, best.wall = min(best.cpu, (after.CPU-before.CPU)/time.Duration(n)), min(best.wall, wall)
			best.allocated = max(best.allocated, (after.Allocated-before.Allocated)/uint64(n))
			if wall > 2*time.Second {
				break
			}
		}
		return best
	}
	return measure, p.stop
}

// startExporter starts an exporter of an API, and waits until it answers requests for path.
func (b *bench) startExporter(path string, api *process, more ...string) *process {
	address := freeAddress()
	args := append([]string{"--web.listen-address=" + address, "--web.health-listen-address=", "--balena.api-url=" + api.url, "--log.level=error"}, more...)
	cmd := exec.Command(filepath.Join(b.bin, "balena-exporter"), args...)
	cmd.Env = append(os.Environ(), "BALENA_TOKEN=bench")
	return launch(path, "http://"+address, cmd)
}

// exporter runs the exporter for a few refreshes with constant scrapes, and returns its peak memory in bytes.
func (b *bench) exporter(api *process) (peak int64) {
	e := b.startExporter("/-/ready", api, "--balena.refresh-interval=1s", "--balena.max-staleness=10m")
	defer e.stop()
	const enough = 5
	for refreshes := 0; refreshes < enough; time.Sleep(20 * time.Millisecond) {
		_, rest, _ := strings.Cut(body(e.url+"/metrics"), `balena_exporter_refreshes_total{result="success"} `)
		_, _ = fmt.Sscan(rest, &refreshes)
	}
	return memory(e, "VmHWM:")
}

// memory returns a figure of the kernel about the memory of a process, in bytes.
func memory(p *process, name string) (bytes int64) {
	status := must(os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid)))
	_, rest, _ := strings.Cut(string(status), name)
	_, _ = fmt.Sscan(rest, &bytes)
	return bytes * 1024
}

// get requests an address, and leaves the answer in the encoding in which it is sent.
func get(address, encoding string) *http.Response {
	req, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, address, nil)
	req.Header.Set("Authorization", "Bearer bench")
	req.Header.Set("Accept-Encoding", encoding)
	return must(http.DefaultTransport.RoundTrip(req))
}

func body(address string) string {
	resp := get(address, "identity")
	b := must(io.ReadAll(resp.Body))
	_ = resp.Body.Close()
	return string(b)
}

// start measures an exporter without devices.
func (b *bench) start() {
	info := must(os.Stat(filepath.Join(b.bin, "balena-exporter")))
	row(0, "size of the stripped binary", fmt.Sprintf("%.1f MB", float64(info.Size())/1e6), "", "", "≤ 15 MB")

	api := b.simulator(0, cached)
	defer api.stop()
	first := time.Duration(math.MaxInt64)
	var resident int64
	for range 5 {
		began := time.Now()
		e := b.startExporter("/metrics", api)
		first = min(first, time.Since(began))
		resident = memory(e, "VmRSS:")
		e.stop()
	}
	row(0, "memory, resident, idle", fmt.Sprintf("%.1f MB", float64(resident)/1e6), "", "", "≤ 16 MB")
	row(0, "time to the first answer", ms(first), "", "", "≤ 50 ms")
}
