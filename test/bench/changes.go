// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	balenaapi "github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// minute is the refresh interval for which the measurements are valid.
const minute = time.Minute

// modes are the modes of incremental refreshes by edition.
var modes = map[string]balena.Mode{string(simulator.OpenBalena): balena.DevicesAndInstalls, string(simulator.Cloud): balena.DevicesOnly}

// exporter reads and renders snapshots, as the exporter does.
type exporter struct {
	client   *account.Reader
	fleets   *collector.Collector
	snapshot *balena.Snapshot
	page     *exposition.Page
	requests int
}

func newExporter(api string, now func() time.Time, fullRefreshes time.Duration) *exporter {
	e := &exporter{fleets: collector.New(nil, collector.DefaultOptions())}
	e.client = newClient(api, func(c *account.Config) {
		c.Now, c.FullRefreshInterval = now, fullRefreshes
		c.Observe = func(balenaapi.Exchange) { e.requests++ }
	})
	return e
}

// cost is the cost of a refresh.
type cost struct {
	cpu, server time.Duration
	bytes       int64
	requests    int
	allocated   uint64
}

// refresh performs one refresh. In its cost, cpu is the CPU time of this process, server that of the API's process.
func (e *exporter) refresh(api *process) cost {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	e.requests = 0
	server, began := api.cpu(), cpu()
	s := fetch(e.client)
	e.page = e.fleets.Render(s)
	c := cost{cpu: cpu() - began, server: api.cpu() - server, bytes: s.Reading.Bytes, requests: e.requests}
	runtime.ReadMemStats(&after)
	c.allocated = after.TotalAlloc - before.TotalAlloc
	e.snapshot = s
	return c
}

// checksumOf returns the checksum of the exposition of a page, without the metrics of the exporter itself. It does not keep the
// text, which takes gigabytes for a million devices.
func checksumOf(page *exposition.Page) uint32 {
	w := &checksum{}
	handler(page, prometheus.NewRegistry()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	return w.crc
}

type checksum struct{ crc uint32 }

func (c *checksum) Header() http.Header { return http.Header{} }
func (c *checksum) WriteHeader(int)     {}
func (c *checksum) Write(p []byte) (int, error) {
	c.crc = crc32.Update(c.crc, crc32.IEEETable, p)
	return len(p), nil
}

// changes compares incremental refreshes, after a minute of changes, with full refreshes, for an edition of the server.
func (b *bench) changes(n int, edition string) {
	api := b.simulator(n, "--edition="+edition)
	at := time.Now()
	// Both use the same clock, because the time since which devices are disconnected depends on it.
	now := func() time.Time { return at }
	changes, full := newExporter(api.url, now, 24*time.Hour), newExporter(api.url, now, 0)
	changes.refresh(api)
	full.refresh(api)
	// With the cloud edition, the exporter needs two refreshes to find the query for changes that the server accepts.
	for changes.snapshot.Reading.Mode != modes[edition] {
		at = at.Add(minute)
		api.post("clock", minute.String())
		changes.refresh(api)
		if at.After(time.Now().Add(10 * minute)) {
			log.Fatalf("the mode of incremental refreshes is %s, want %s", changes.snapshot.Reading.Mode, modes[edition])
		}
	}
	ahead := time.Until(at).Round(minute)
	for _, percent := range []int{0, 1, 10, 100} {
		var least, leastFull cost
		// The rounds for all percentages together take less than an hour. After an hour, the client would test the server again.
		rounds := max(3, min(12, 400_000/n))
		for round := range rounds {
			ahead += minute
			at = time.Now().Add(ahead)
			api.post("clock", minute.String())
			api.post("change", n*percent/100)
			c, f := changes.refresh(api), full.refresh(api)
			if changes.snapshot.Reading.Kind != balena.Incremental {
				log.Fatalf("%d %% changed: a refresh of kind %s", percent, changes.snapshot.Reading.Kind)
			}
			// Skip the first round: because of the overlap it reads some changes of the previous percentage again.
			if round == 1 {
				least, leastFull = c, f
			} else if round > 1 {
				least.atMost(c)
				leastFull.atMost(f)
			}
		}
		least.server /= time.Duration(rounds - 1)
		leastFull.server /= time.Duration(rounds - 1)
		if checksumOf(changes.page) != checksumOf(full.page) {
			log.Fatalf("%d %% changed: the expositions differ", percent)
		}
		what := fmt.Sprintf("%s, %d %% changed, ", edition, percent)
		limit := func(s string) string {
			if percent > 1 || n < 100_000 {
				return "" // the limit is for many devices with few changes
			}
			return s
		}
		row(n, what+"bytes", fmt.Sprintf("%.1f kB", float64(least.bytes)/1e3), fmt.Sprintf("%.1f kB (full refresh)", float64(leastFull.bytes)/1e3),
			times(least.bytes, leastFull.bytes), limit("≤ 0.03"))
		row(n, what+"API requests", fmt.Sprint(least.requests), fmt.Sprint(leastFull.requests), "", "")
		row(n, what+"CPU of the API", ms(least.server), ms(leastFull.server), times(least.server, leastFull.server), limit("≤ 0.1"))
		row(n, what+"CPU", ms(least.cpu), ms(leastFull.cpu), times(least.cpu, leastFull.cpu), limit("≤ 0.25"))
		row(n, what+"allocated", fmt.Sprintf("%.1f MB", float64(least.allocated)/1e6), fmt.Sprintf("%.1f MB", float64(leastFull.allocated)/1e6),
			times(least.allocated, leastFull.allocated), "")
	}
	changes.client.Close()
	full.client.Close()
	api.stop()
}

// atMost keeps the lower of each figure, except that it adds up the server's time, which the kernel reports in large steps.
func (c *cost) atMost(o cost) {
	c.cpu, c.server, c.bytes = min(c.cpu, o.cpu), c.server+o.server, min(c.bytes, o.bytes)
	c.requests, c.allocated = min(c.requests, o.requests), min(c.allocated, o.allocated)
}

// post controls the simulator.
func (p *process) post(path string, body any) {
	b := must(json.Marshal(body))
	resp := must(http.Post(p.url+"/simulator/"+path, "application/json", bytes.NewReader(b)))
	output, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusNoContent {
		log.Fatalf("POST %s: %s", path, output)
	}
}

// cpu returns the CPU time that the process has used, with the kernel's precision of 10 ms.
func (p *process) cpu() time.Duration {
	stat := must(os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid)))
	// User and system time are fields 12 and 13 after the name, which is in parentheses and may contain any characters.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var user, system int64
	_, _ = fmt.Sscan(fields[11], &user)
	_, _ = fmt.Sscan(fields[12], &system)
	const tick = 10 * time.Millisecond
	return time.Duration(user+system) * tick
}
