// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// This file measures the cost of the metrics of an account for a Prometheus server. `make bench-prometheus` runs it.

// minimal is the profile with this name in docs/scaling.md.
const minimal = "balena_fleet_(info|devices|devices_connected|devices_by_status)|balena_device_(info|connected|status)"

// ways are the scrape configurations that are compared.
var ways = []struct {
	name    string
	args    []string
	servers int
	parts   int
}{
	{"all metrics", nil, 1, 1},
	{"profile minimal", []string{"--collector.metric-allowlist=" + minimal}, 1, 1},
	{"without metrics of devices", []string{"--no-collector.device"}, 1, 1},
	{"8 parts, one server", []string{"--web.parts=8"}, 1, 8},
	{"8 parts, two servers, each", []string{"--web.parts=8"}, 2, 8},
}

// prometheus measures the resources of Prometheus servers for n devices.
func (b *bench) prometheus(binary string, n int) {
	api := b.simulator(n, cached)
	defer api.stop()
	for _, way := range ways {
		exporter := b.startExporter("/-/ready", api, way.args...)
		for !strings.Contains(body(exporter.url+"/metrics"), "\nbalena_up 1\n") {
			time.Sleep(50 * time.Millisecond)
		}
		var servers []*server
		for i := range way.servers {
			var parts []string
			for part := i; part < way.parts; part += way.servers {
				parts = append(parts, fmt.Sprintf("%d/%d", part, way.parts))
			}
			servers = append(servers, startPrometheus(binary, strings.TrimPrefix(exporter.url, "http://"), parts, max(5*time.Second, time.Duration(n/4000)*time.Second)))
		}
		var sum load
		for _, s := range servers {
			l := s.measure()
			sum.series += l.series
			sum.cpu += l.cpu
			sum.allocated += l.allocated
			sum.memory += l.memory
		}
		of := int64(len(servers))
		fmt.Printf("| %d | %s | %d | %.1f | %s | %.1f MB | %.2f kB |\n", n, way.name, sum.series/of, float64(sum.series)/float64(n),
			ms(sum.cpu/time.Duration(of)), float64(sum.allocated/of)/1e6, float64(sum.memory)/float64(sum.series)/1e3)
		for _, s := range servers {
			s.stop()
			_ = os.RemoveAll(s.directory)
		}
		exporter.stop()
	}
}

// load holds the resources that a Prometheus server used.
type load struct {
	series    int64
	cpu       time.Duration // per scrape of all its targets
	allocated int64         // bytes per such scrape
	memory    int64         // bytes of the heap
}

type server struct {
	*process
	directory string
	targets   int64
}

// startPrometheus starts a Prometheus server that scrapes parts of an exporter.
func startPrometheus(binary, exporter string, parts []string, interval time.Duration) *server {
	directory := must(os.MkdirTemp("", "balena-exporter-bench"))
	var config strings.Builder
	fmt.Fprintf(&config, "global: {scrape_interval: %s, scrape_timeout: %s}\nscrape_configs:\n", interval, interval)
	for _, part := range parts {
		fmt.Fprintf(&config, "  - {job_name: '%s', params: {part: ['%s']}, static_configs: [{targets: ['%s'], labels: {metrics_part: '%s'}}]}\n", part, part, exporter, part)
	}
	file := filepath.Join(directory, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		log.Fatal(err)
	}
	address := freeAddress()
	cmd := exec.Command(binary, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(directory, "data"), "--web.listen-address="+address, "--log.level=error")
	return &server{launch("/-/ready", "http://"+address, cmd), directory, int64(len(parts))}
}

// value returns the sum of the samples of a family in the server's own metrics.
func value(text, family string) (sum float64) {
	for line := range strings.Lines(text) {
		if rest, found := strings.CutPrefix(line, family); found && strings.ContainsAny(rest[:1], " {") {
			var v float64
			_, _ = fmt.Sscan(rest[strings.LastIndex(rest, " ")+1:], &v)
			sum += v
		}
	}
	return sum
}

// measure waits for a few scrapes after the first ones, and returns their cost.
func (s *server) measure() load {
	const first, more = 2, 3
	scrapes := func(n int64) string {
		for {
			text := body(s.url + "/metrics")
			if value(text, "prometheus_target_interval_length_seconds_count") >= float64(n*s.targets) {
				return text
			}
			time.Sleep(time.Second)
		}
	}
	before, after := scrapes(first), scrapes(first+more)
	rise := func(family string) float64 { return (value(after, family) - value(before, family)) / more }
	_ = body(s.url + "/debug/pprof/heap?gc=1")
	return load{
		series: int64(value(after, "prometheus_tsdb_head_series")),
		cpu:    time.Duration(rise("process_cpu_seconds_total") * 1e9), allocated: int64(rise("go_memstats_alloc_bytes_total")),
		memory: int64(value(body(s.url+"/metrics"), "go_memstats_heap_alloc_bytes")),
	}
}
