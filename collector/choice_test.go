// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// scrapePart returns the text of a page for the parameters of a scrape.
func scrapePart(t *testing.T, c *collector.Collector, page *exposition.Page, parts int, query string) string {
	t.Helper()
	handler := exposition.NewHandler(exposition.HandlerOptions{Page: func() *exposition.Page { return page }, Groups: c.ScrapeGroups(), Parts: parts})
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics?"+query, nil))
	if recorder.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", query, recorder.Code, recorder.Body)
	}
	return recorder.Body.String()
}

// sampleLines returns the samples of a text in order. It checks that each family has its header once, before its samples.
func sampleLines(t *testing.T, text string) (lines []string) {
	t.Helper()
	parse(t, text)
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

// TestPartsOfAnAccountThatChanges checks that the parts of a page contain all of its samples once, and that devices stay in
// their part, while devices are changed, added and removed. It checks groups, too.
func TestPartsOfAnAccountThatChanges(t *testing.T) {
	o := allGroups()
	for _, stripes := range []int{1, 2, 6, 64} {
		a := newAPI(t, simulator.Config{Devices: 300, Fleets: 3, Seed: 1}, o, func(c *account.Config) { c.Stripes = stripes })
		c := collector.New(nil, o)
		place := map[string]int{} // the part of each device, by UUID
		for step := range 5 {
			a.Update(func(st *simulator.State) {
				for id := 10 * step; id < 10*step+7; id++ {
					st.DeleteDevice(id)
					st.AddDevice(simulator.Device{FleetID: 1 + id%3})
				}
			})
			page := c.Render(a.fetch(t))
			whole := sampleLines(t, serve(page))
			for parts := 1; parts <= stripes; parts++ {
				if stripes%parts != 0 {
					continue
				}
				var all []string
				for part := range parts {
					lines := sampleLines(t, scrapePart(t, c, page, stripes, fmt.Sprintf("part=%d/%d", part, parts)))
					for _, line := range lines {
						_, uuid, found := strings.Cut(line, `uuid="`)
						if uuid, _, _ = strings.Cut(uuid, `"`); found && parts == stripes {
							if was, known := place[uuid]; known && was != part {
								t.Fatalf("%d parts: device %s was in part %d and is in %d", parts, uuid, was, part)
							}
							place[uuid] = part
						}
					}
					all = append(all, lines...)
				}
				if slices.Sort(all); !slices.Equal(all, whole) {
					t.Fatalf("step %d: %d parts of %d have %d samples, and the page has %d", step, parts, stripes, len(all), len(whole))
				}
			}
			var all []string
			for _, group := range c.ScrapeGroups() {
				all = append(all, sampleLines(t, scrapePart(t, c, page, stripes, "collect[]="+group))...)
			}
			if slices.Sort(all); !slices.Equal(all, whole) {
				t.Fatalf("the groups have %d samples, and the page has %d", len(all), len(whole))
			}
		}
	}
}

func TestScrapeGroups(t *testing.T) {
	want := []string{"fleet", "organization", "tag", "maintenance", "release", "service", "os", "device", "key"}
	if got := of(nil, allGroups()).ScrapeGroups(); !slices.Equal(got, want) {
		t.Errorf("the groups are %q, want %q", got, want)
	}
}

// TestExportedFamilies checks that other families do not change if some are not exported.
func TestExportedFamilies(t *testing.T) {
	s := newAPI(t, simulator.Config{Devices: 50, Fleets: 2, Seed: 1}, allGroups()).fetch(t)
	o := allGroups()
	o.Exported = func(family string) bool {
		return !strings.HasPrefix(family, "balena_device_memory") && family != "balena_fleet_devices" && !strings.Contains(family, "service")
	}
	var want []string
	for _, line := range sampleLines(t, text(s, allGroups())) {
		family, _, _ := strings.Cut(strings.ReplaceAll(line, "{", " "), " ")
		if o.Exported(family) {
			want = append(want, line)
		}
	}
	if got := sampleLines(t, text(s, o)); !slices.Equal(got, want) {
		t.Errorf("got %d samples, want %d", len(got), len(want))
	}
}

// TestTrimmedOptions checks that data are not requested if no exported family needs them.
func TestTrimmedOptions(t *testing.T) {
	only := func(families ...string) collector.Options {
		o := allGroups()
		o.Exported = func(family string) bool { return slices.Contains(families, family) }
		return o.Trimmed()
	}
	if o := allGroups().Trimmed(); !o.Devices || !o.Releases || !o.Services || !o.Keys || !o.DeviceTags || !o.FleetTags || !o.ServiceSummary {
		t.Errorf("with all metrics: %+v", o)
	}
	if o := only("balena_fleet_devices"); o.Devices || o.Releases || o.Services || o.Keys || o.DeviceTags || o.FleetTags || o.ServiceSummary {
		t.Errorf("with a metric of fleets alone: %+v", o)
	}
	for family, on := range map[string]func(collector.Options) bool{
		"balena_device_online":                    func(o collector.Options) bool { return o.Devices },
		"balena_fleet_latest_release_info":        func(o collector.Options) bool { return o.Releases },
		"balena_device_service_status":            func(o collector.Options) bool { return o.Services },
		"balena_fleet_devices_by_service_status":  func(o collector.Options) bool { return o.Services },
		"balena_api_key_expiry_timestamp_seconds": func(o collector.Options) bool { return o.Keys },
		"balena_device_services_running":          func(o collector.Options) bool { return o.ServiceSummary },
		"balena_device_tags":                      func(o collector.Options) bool { return o.DeviceTags },
		"balena_fleet_tags":                       func(o collector.Options) bool { return o.FleetTags },
	} {
		if !on(only(family)) {
			t.Errorf("no data are requested for %s", family)
		}
	}
	for _, d := range collector.Catalog() {
		var exported []string
		for e := range collector.New(nil, only(d.Name)).Descriptions() {
			exported = append(exported, e.Name)
		}
		if d.ScrapeGroup() != exposition.LiveGroup && !slices.Equal(exported, []string{d.Name}) {
			t.Errorf("with %s alone, %q are exported", d.Name, exported)
		}
	}
	got := only("balena_device_online", "balena_device_cpu_usage_ratio").Unneeded([]string{"cpu_usage", "cpu_temp", "memory_usage"})
	if want := []string{"cpu_temp", "memory_usage"}; !slices.Equal(got, want) {
		t.Errorf("the fields %q are not needed, want %q", got, want)
	}
	// Each field that is read only for metrics is the source of a metric.
	if left := allGroups().Unneeded(account.MetricFields()); len(left) > 0 {
		t.Errorf("the fields %q are not the source of a family", left)
	}
}

// TestUnneededFieldsAreNotRead checks that fields are not requested if no family needs them, and that other metrics do not change.
func TestUnneededFieldsAreNotRead(t *testing.T) {
	o := allGroups()
	o.Exported = func(family string) bool {
		return !strings.Contains(family, "memory") && !strings.Contains(family, "storage")
	}
	unneeded := o.Unneeded(account.MetricFields())
	a := newAPI(t, simulator.Config{Devices: 50, Fleets: 2, Seed: 1}, o, func(c *account.Config) { c.Unneeded = unneeded })
	s := a.fetch(t)
	for d := range s.Devices.All() {
		if d.MemoryUsed != balena.Null || d.MemorySize != balena.Null || d.StorageUsed != balena.Null || d.StorageSize != balena.Null {
			t.Fatalf("device %s: memory and storage were read", d.UUID)
		}
	}
	all := newAPI(t, simulator.Config{Devices: 50, Fleets: 2, Seed: 1}, o).fetch(t)
	if got, want := text(s, o), text(all, o); got != want {
		t.Errorf("without the fields (-) and with them (+):\n%s", lineDiff(got, want))
	}
}
