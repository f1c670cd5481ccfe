// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// TestPrometheusDiscoversDevices reads the list with the service discovery of Prometheus. Hostile names of devices and values
// of tags must arrive unchanged, and must not become targets or labels.
func TestPrometheusDiscoversDevices(t *testing.T) {
	sim, err := simulator.New(simulator.Config{Tokens: []string{token}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]map[string]string{} // the labels of targets, by instance
	sim.Update(func(state *simulator.State) {
		for i, name := range names {
			fleet := state.AddFleet(simulator.Fleet{AppName: name.called, Slug: fmt.Sprint("acme/", i)})
			device := state.AddDevice(simulator.Device{FleetID: fleet.ID, Name: name.called, UUID: fmt.Sprintf("%032x", i)})
			state.DeviceTags.Add(simulator.DeviceTag{DeviceID: device.ID, Key: "own er", Value: name.called})
			truncated := name.arrives[:min(len(name.arrives), 128)]
			want[device.UUID+".vpn.example:9100"] = map[string]string{
				"uuid": device.UUID, "fleet": fleet.Slug, "name": truncated, "tag": truncated, "instance": device.UUID + ".vpn.example:9100", "job": "devices",
			}
		}
	})
	api := httptest.NewServer(sim)
	t.Cleanup(api.Close)
	exporter := start(t, api.URL, "--web.enable-sd", "--sd.template={uuid}.vpn.example", "--sd.port=9100", "--collector.device.tags=own er")

	root := filepath.Join("..", "..")
	if output, err := exec.CommandContext(t.Context(), "make", "-C", root, "bin/tools/promtool").CombinedOutput(); err != nil {
		t.Fatalf("building promtool: %v\n%s", err, output)
	}
	config := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `scrape_configs:
  - job_name: devices
    http_sd_configs: [{url: %q}]
    relabel_configs:
      - {source_labels: [__meta_balena_device_uuid], target_label: uuid}
      - {source_labels: [__meta_balena_fleet], target_label: fleet}
      - {source_labels: [__meta_balena_device_name], target_label: name}
      - {source_labels: [__meta_balena_device_tagpresent_own_er], regex: "true", action: keep}
      - {source_labels: [__meta_balena_device_tag_own_er], target_label: tag}
`, strings.TrimSuffix(exporter.url, "/metrics")+"/sd/devices"), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool := exec.CommandContext(t.Context(), filepath.Join(root, "bin", "tools", "promtool"), "check", "service-discovery", "--timeout=5s", config, "devices")
	output, err := promtool.Output()
	if err != nil {
		t.Fatalf("promtool check service-discovery: %v\n%s", err, output)
	}
	var found []struct {
		DiscoveredLabels, Labels map[string]string
		Error                    string
	}
	if err := json.Unmarshal(output, &found); err != nil {
		t.Fatalf("output of promtool: %.2000s: %v", output, err)
	}
	got := map[string]map[string]string{}
	for _, target := range found {
		if target.Error != "" {
			t.Errorf("%v: %s", target.DiscoveredLabels, target.Error)
		}
		maps.DeleteFunc(target.Labels, func(name, _ string) bool { return strings.HasPrefix(name, "__") })
		got[target.Labels["instance"]] = target.Labels
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}

// TestScrapeConfigs checks the scrape configurations with promtool. Files to which they refer need not exist.
func TestScrapeConfigs(t *testing.T) {
	root := filepath.Join("..", "..")
	if output, err := exec.CommandContext(t.Context(), "make", "-C", root, "bin/tools/promtool").CombinedOutput(); err != nil {
		t.Fatalf("building promtool: %v\n%s", err, output)
	}
	files, err := filepath.Glob(filepath.Join(root, "deploy", "prometheus", "scrape-configs", "*.yml"))
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, file := range files {
		output, err := exec.CommandContext(t.Context(), filepath.Join(root, "bin", "tools", "promtool"), "check", "config", "--syntax-only", "--lint=all", "--lint-fatal", file).CombinedOutput()
		if err != nil {
			t.Errorf("promtool check config %s: %v\n%s", file, err, output)
		}
	}
}
