// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// 20,000 devices run with the default resources of the chart.
func TestTwentyThousandDevices(t *testing.T) {
	const devices, refreshes = 20_000, 4
	s := begin(t, "scale", account{Devices: devices, Fleets: 40})
	s.tokenSecret("balena-token", token)
	s.install("balena-exporter", map[string]any{
		"balena":         map[string]any{"refreshInterval": "10s"},
		"serviceMonitor": map[string]any{"interval": "10s"},
	})
	pod := s.pod("balena-exporter")
	s.scraped("balena-exporter", 1)
	start := time.Now()
	if err := s.is(`count(balena_device_info{$namespace})`, devices); err != nil {
		t.Error(err)
	}

	s.within(3*time.Minute, "a few refreshes", func() error {
		values, err := s.query("", fmt.Sprintf(`changes(balena_exporter_last_refresh_success_timestamp_seconds{$namespace}[%ds]) >= %d`, int(time.Since(start).Seconds())+1, refreshes))
		if err == nil && len(values) == 0 {
			err = fmt.Errorf("not yet %d", refreshes)
		}
		return err
	})
	s.allScrapesSince(start, pod)
	s.undisturbed("balena-exporter", pod)

	for _, figure := range []struct{ what, expression string }{
		{"samples a scrape", `max(scrape_samples_scraped{$namespace})`},
		{"seconds a scrape, at most", fmt.Sprintf(`max(max_over_time(scrape_duration_seconds{$namespace}[%ds]))`, int(time.Since(start).Seconds()))},
		{"bytes of memory, at most", `max(max_over_time(process_resident_memory_bytes{$namespace}[5m]))`},
		{"bytes of memory that Go may use", `max(go_gc_gomemlimit_bytes{$namespace})`},
		{"seconds of CPU a second", `sum(rate(process_cpu_seconds_total{$namespace}[40s]))`},
	} {
		values, err := s.query("", figure.expression)
		if err != nil {
			t.Error(err)
			continue
		}
		t.Logf("%s: %v", figure.what, values[""])
	}
	if n := s.throttled(pod); n > 0 {
		t.Errorf("the container was throttled in %d periods", n)
	}
}

// throttled returns the number of periods in which the kernel throttled the container.
func (s *story) throttled(pod corev1.Pod) int {
	s.Helper()
	process := s.process(pod)
	group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", process))
	if err != nil {
		s.Fatal(err)
	}
	for line := range strings.Lines(string(group)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		root, controllers := cgroupRoot, strings.Split(fields[1], ",")
		if cgroupV1() {
			if !slices.Contains(controllers, "cpu") {
				continue
			}
			root = filepath.Join(cgroupRoot, "cpu")
		}
		file, err := os.Open(filepath.Join(root, fields[2], "cpu.stat"))
		if err != nil {
			s.Fatal(err)
		}
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if value, ok := strings.CutPrefix(lines.Text(), "nr_throttled "); ok {
				n, err := strconv.Atoi(value)
				if err != nil {
					s.Fatal(err)
				}
				return n
			}
		}
	}
	s.Fatalf("no nr_throttled for process %d in %s", process, group)
	return 0
}
