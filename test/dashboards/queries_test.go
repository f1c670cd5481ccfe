// SPDX-License-Identifier: Apache-2.0

package dashboards

import (
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"net/http/httptest"
	"net/url"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/version"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	balenaapi "github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// The simulated account. The selected fleet has more devices than a panel may show.
const (
	devices, fleets = 800, 8
	fleetID         = 1
	refreshes       = 15
	interval        = time.Minute
)

// mostSeries is the maximum number of lines, bars or rows of a panel: a hundred devices, which is the highest value of
// the variable, or the states and versions of a fleet.
const mostSeries = 100

// world is an account that was exported for some time: by one exporter, and by two exporters at the same time.
type world struct {
	one, two   *teststorage.TestStorage
	begin, end time.Time
	variables  map[string]string
	// archived is a fleet that is archived.
	archived string
	// devices is the number of devices in fleets that are not archived.
	devices int
	// labels are the labels of each exported metric.
	labels map[string]map[string]bool
}

// simulate exports a simulated account with every kind of trouble. It advances a clock instead of waiting.
func simulate(t *testing.T) *world {
	t.Helper()
	w := &world{one: teststorage.New(t), two: teststorage.New(t), begin: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), labels: map[string]map[string]bool{}}
	var passed atomic.Int64 // time since the beginning
	now := func() time.Time { return w.begin.Add(time.Duration(passed.Load())) }

	sim, err := simulator.New(simulator.Config{Devices: devices, Fleets: fleets, Seed: 1, Edition: simulator.Cloud, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(sim)
	t.Cleanup(api.Close)
	address, err := url.Parse(api.URL)
	if err != nil {
		t.Fatal(err)
	}
	metrics := collector.NewMetrics(func() time.Time { return w.begin.Add(7 * 24 * time.Hour) }, math.MaxInt64)
	client, err := account.New(account.Config{
		Config:   balenaapi.Config{URL: address, Token: balenaapi.StaticToken("token"), Timeout: time.Minute, Now: now, Observe: metrics.ObserveExchange},
		PageSize: 1000,
		Options: account.Options{
			Devices: true, Releases: true, Services: true, ServiceSummary: true, Keys: true, OS: true, Location: true, ArchivedFleets: true, SlowInterval: interval, Keep: time.Hour,
			DeviceTags: []string{"site"}, FleetTags: []string{"site"}, TagLimit: 1, MaintenanceTag: simulator.MaintenanceTag,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)

	var snapshot *balena.Snapshot
	options := collector.DefaultOptions()
	options.Services, options.DeviceTags, options.FleetTags, options.Maintenance = true, true, true, true
	options.Location = true
	version.Version = "0.0.0" // the linker sets it in a real build
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collector.New(func() *balena.Snapshot { return snapshot }, options), metrics, versioncollector.NewCollector("balena_exporter"),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)

	var device string
	sim.Update(func(st *simulator.State) {
		for i, f := range st.Fleets.All() {
			f.IsArchived = i == fleets-1
		}
		st.NewRelease(2, "9.9.9").Status = "failed"
		for _, d := range st.Devices.All() {
			if d.FleetID == fleetID && d.RunningReleaseID != 0 && d.IsConnectedToVPN {
				device = d.UUID
				st.SetDeviceTag(d.ID, "site", "here")
				st.SetDeviceTag(d.ID, simulator.MaintenanceTag, "in repair")
			}
		}
		st.SetFleetTag(fleetID, "site", "there")
	})
	for i := range refreshes {
		sim.Tick()
		sim.Update(func(st *simulator.State) {
			for _, d := range st.Devices.All() {
				if d.UUID != device {
					continue
				}
				// Ticks may have changed it.
				d.IsConnectedToVPN, d.HeartbeatState = true, "online"
				d.Status, d.UpdateStatus, d.DownloadProgress, d.LastUpdateStatusEvent = "Downloading", "downloading", simulator.N(40), st.Now()
				d.UpdateOS(simulator.OSUpdateRunning)
				d.CPUUsage, d.CPUTemp = simulator.N(50), simulator.N(60)
				d.MemoryUsage, d.MemoryTotal, d.StorageUsage, d.StorageTotal = simulator.N(1), simulator.N(2), simulator.N(3), simulator.N(4)
			}
		})
		if i == refreshes/2 {
			sim.Update(func(st *simulator.State) { st.Fleet(fleetID).TargetReleaseID = st.NewRelease(fleetID, "10.0.0").ID })
		}
		sim.SetFaults(nil)
		fails := i > 0 && i%5 == 0
		if fails {
			sim.SetFaults(simulator.Faults{{Resource: "device", Status: 429, RetryAfter: simulator.Duration{Duration: time.Second}}})
		}
		s, err := client.Fetch(t.Context())
		if fails != (err != nil) {
			t.Fatalf("refresh %d: %v", i, err)
		}
		if err == nil {
			snapshot = s
		}
		metrics.ObserveRefresh(s, err, time.Second)
		w.end = now()
		w.scrape(t, registry)
		w.evaluate(t, snapshot.Fleets[fleetID-1].Slug, device)
		w.inside(t, snapshot.Fleets[fleetID-1].Slug, device, i)
		passed.Add(int64(interval))
	}

	n := 0
	archived := map[int64]bool{}
	for _, f := range snapshot.Fleets {
		if f.Archived {
			archived[f.ID], w.archived = true, f.Slug
		}
	}
	for d := range snapshot.Devices.All() {
		if d.FleetID == fleetID {
			n++
		}
		if !archived[d.FleetID] {
			w.devices++
		}
	}
	if w.archived == "" || w.devices == devices {
		t.Fatal("no archived fleet has devices")
	}
	if n <= mostSeries {
		t.Fatalf("the fleet has %d devices, too few to see whether panels show all of them", n)
	}
	w.variables = map[string]string{
		"organization": ".+", "fleet": snapshot.Fleets[fleetID-1].Slug, "device": device, "top": "20", "job": ".+", "instance": ".+", "__rate_interval": "5m",
		"tag": "tag_site", "tag_value": ".*",
	}
	return w
}

// scrape appends the current samples of the exporter.
func (w *world) scrape(t *testing.T, registry *prometheus.Registry) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	samples, err := expfmt.ExtractSamples(&expfmt.DecodeOptions{}, families...)
	if err != nil {
		t.Fatal(err)
	}
	for storage, instances := range map[*teststorage.TestStorage][]string{w.one: {"a:8000"}, w.two: {"a:8000", "b:8000"}} {
		appender := storage.Appender(t.Context())
		for _, instance := range instances {
			// The second exporter is scraped in parts.
			parts := map[string]int{"a:8000": 1, "b:8000": 4}[instance]
			for part := range parts {
				w.append(t, appender, instance, part, parts, samples)
			}
		}
		if err := appender.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// append appends what a part of an exporter exports, and what Prometheus adds of its own.
func (w *world) append(t *testing.T, appender storage.Appender, instance string, part, parts int, samples model.Vector) {
	t.Helper()
	target := labels.FromStrings("job", "balena-exporter", "instance", instance)
	if parts > 1 {
		target = labels.NewBuilder(target).Set("metrics_part", fmt.Sprintf("%d/%d", part, parts)).Labels()
	}
	add := func(metric model.Metric, value model.SampleValue) {
		b := labels.NewBuilder(target)
		for name, value := range metric {
			b.Set(string(name), string(value))
		}
		series := b.Labels()
		if _, err := appender.Append(0, series, w.end.UnixMilli(), float64(value)); err != nil {
			t.Fatal(err)
		}
		known := w.labels[series.Get(model.MetricNameLabel)]
		if known == nil {
			known = map[string]bool{}
			w.labels[series.Get(model.MetricNameLabel)] = known
		}
		series.Range(func(l labels.Label) { known[l.Name] = true })
	}
	for name, value := range map[model.LabelValue]model.SampleValue{"up": 1, "scrape_duration_seconds": 0.1, "scrape_samples_scraped": model.SampleValue(len(samples))} {
		add(model.Metric{model.MetricNameLabel: name}, value)
	}
	for _, s := range samples {
		if s.Metric["uuid"] == "" && part == 0 || s.Metric["uuid"] != "" && int(crc32.ChecksumIEEE([]byte(s.Metric["uuid"])))%parts == part {
			add(s.Metric, s.Value)
		}
	}
}

// evaluate appends the samples of firing alerts and recording rules.
func (w *world) evaluate(t *testing.T, fleet, device string) {
	t.Helper()
	add := func(name string, value float64, own ...string) {
		series := labels.FromStrings(append(own, model.MetricNameLabel, name)...)
		if w.labels[name] == nil {
			w.labels[name] = map[string]bool{}
		}
		series.Range(func(l labels.Label) { w.labels[name][l.Name] = true })
		for _, storage := range []*teststorage.TestStorage{w.one, w.two} {
			appender := storage.Appender(t.Context())
			if _, err := appender.Append(0, series, w.end.UnixMilli(), value); err != nil {
				t.Fatal(err)
			}
			if err := appender.Commit(); err != nil {
				t.Fatal(err)
			}
		}
	}
	firing := func(own ...string) { add("ALERTS", 1, append(own, "alertstate", "firing")...) }
	firing("alertname", "BalenaFleetLargelyOffline", "severity", "critical", "fleet", fleet)
	firing("alertname", "BalenaDeviceOverheating", "severity", "warning", "fleet", fleet, "uuid", device)
	firing("alertname", "BalenaAPIFailing", "severity", "warning", "job", "balena-exporter")
	add("balena:fleet_availability:ratio30d", 0.9, "fleet", fleet)
	add("balena:fleet_reconnected_devices:ratio1h", 0.1, "fleet", fleet)
	add("balena:fleet_devices_by_os_release_age", 5, "fleet", fleet, "age", "less than 90 days")
	add("balena:device_reconnects:count1d", 7, "fleet", fleet, "uuid", device)
}

// inside appends what exporters on the device tell, by the names and labels of node_exporter and cAdvisor. minute counts
// from the first refresh.
func (w *world) inside(t *testing.T, fleet, device string, minute int) {
	t.Helper()
	seconds := float64(60 * minute)
	samples := map[string]float64{
		`up{job="node"}`: 1, `up{job="cadvisor"}`: 1,
		`node_time_seconds{job="node"}`: 1e9 + seconds, `node_boot_time_seconds{job="node"}`: 1e9 - 3600,
		`node_load1{job="node"}`: 0.5, `node_load5{job="node"}`: 0.4, `node_load15{job="node"}`: 0.3,
		`node_memory_MemTotal_bytes{job="node"}`: 4e9, `node_memory_MemAvailable_bytes{job="node"}`: 3e9,
	}
	for _, cpu := range []string{"0", "1"} {
		samples[`node_cpu_seconds_total{job="node",cpu="`+cpu+`",mode="idle"}`] = seconds * 0.9
		samples[`node_cpu_seconds_total{job="node",cpu="`+cpu+`",mode="user"}`] = seconds * 0.1
	}
	for _, system := range []string{`fstype="ext4",mountpoint="/mnt/data"`, `fstype="tmpfs",mountpoint="/run"`} {
		samples[`node_filesystem_avail_bytes{job="node",`+system+`}`] = 5e9
		samples[`node_filesystem_size_bytes{job="node",`+system+`}`] = 16e9
	}
	for _, network := range []string{"eth0", "wwan0", "veth1234", "lo"} {
		samples[`node_network_receive_bytes_total{job="node",device="`+network+`"}`] = seconds * 100
		samples[`node_network_transmit_bytes_total{job="node",device="`+network+`"}`] = seconds * 300
	}
	for _, disk := range []string{"mmcblk0", "zram0"} {
		samples[`node_disk_read_bytes_total{job="node",device="`+disk+`"}`] = seconds * 10
		samples[`node_disk_written_bytes_total{job="node",device="`+disk+`"}`] = seconds * 20
	}
	for _, container := range []string{"main_1_2_c0ffee", "telemetry_3_4_c0ffee", ""} { // one without a name is a control group
		samples[`container_cpu_usage_seconds_total{job="cadvisor",name="`+container+`"}`] = seconds * 0.2
		samples[`container_memory_working_set_bytes{job="cadvisor",name="`+container+`"}`] = 1e8
		samples[`container_start_time_seconds{job="cadvisor",name="`+container+`"}`] = 1e9 + float64(600*(minute/10))
	}
	for _, storage := range []*teststorage.TestStorage{w.one, w.two} {
		appender := storage.Appender(t.Context())
		for name, value := range samples {
			series, err := parser.NewParser(parser.Options{}).ParseMetric(name)
			if err != nil {
				t.Fatal(err)
			}
			b := labels.NewBuilder(series)
			b.Set("fleet", fleet).Set("uuid", device).Set("instance", device+".vpn.example:9100")
			series = b.Labels()
			if _, err := appender.Append(0, series, w.end.UnixMilli(), value); err != nil {
				t.Fatal(err)
			}
			known := w.labels[series.Get(model.MetricNameLabel)]
			if known == nil {
				known = map[string]bool{}
				w.labels[series.Get(model.MetricNameLabel)] = known
			}
			series.Range(func(l labels.Label) { known[l.Name] = true })
		}
		if err := appender.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// ask runs a query as Grafana does, and returns its series sorted.
func (w *world) ask(t *testing.T, storage *teststorage.TestStorage, engine *promql.Engine, q *Query, expr string) promql.Matrix {
	t.Helper()
	var query promql.Query
	var err error
	if q.Range {
		query, err = engine.NewRangeQuery(t.Context(), storage, nil, expr, w.begin.Add(5*interval), w.end, interval)
	} else {
		query, err = engine.NewInstantQuery(t.Context(), storage, nil, expr, w.end)
	}
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	defer query.Close()
	result := query.Exec(t.Context())
	if result.Err != nil {
		t.Fatalf("%s: %v", expr, result.Err)
	}
	if len(result.Warnings) > 0 {
		t.Errorf("%s: %v", expr, result.Warnings)
	}
	var matrix promql.Matrix
	switch value := result.Value.(type) {
	case promql.Matrix:
		matrix = value
	case promql.Vector:
		for _, s := range value {
			matrix = append(matrix, promql.Series{Metric: s.Metric, Floats: []promql.FPoint{{T: s.T, F: s.F}}})
		}
	default:
		t.Fatalf("%s: the answer is a %s", expr, value.Type())
	}
	answer := make(promql.Matrix, len(matrix)) // a copy, because Close reuses the points
	for i, s := range matrix {
		answer[i] = promql.Series{Metric: s.Metric, Floats: slices.Clone(s.Floats)}
	}
	sort.Sort(answer)
	return answer
}

func TestDashboards(t *testing.T) {
	panels := Panels()
	annotations := Annotations()
	w := simulate(t)
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 50_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute})
	t.Cleanup(func() { _ = engine.Close() })
	promQL := parser.NewParser(parser.Options{})

	t.Run("totals", func(t *testing.T) { w.totalsLeaveOutArchivedFleets(t, panels, engine) })
	t.Run("rollouts", func(t *testing.T) { w.rolloutsAreMarked(t, annotations, engine) })
	t.Run("tags", func(t *testing.T) { w.tagsChooseFleets(t, panels, engine) })
	t.Run("disconnected devices", func(t *testing.T) { w.disconnectedDevicesAreNewOrLost(t, panels, engine) })

	for _, p := range slices.Concat(panels, annotations) {
		t.Run(p.String(), func(t *testing.T) {
			variables := maps.Clone(w.variables)
			if p.Dashboard == "balena-fleets" {
				variables["fleet"] = ".+" // all fleets
			}
			answered := map[string]bool{}
			for _, q := range p.Queries {
				expr := q.Fill(variables)
				parsed, err := promQL.ParseExpr(expr)
				if err != nil {
					t.Fatalf("%s: %v", expr, err)
				}
				w.check(t, parsed)

				answer := w.ask(t, w.one, engine, &q, expr)
				if len(answer) == 0 {
					t.Errorf("%s has no answer", expr)
				}
				if p.Type != "" && p.Type != "geomap" && len(answer) > mostSeries { // a map bounds its devices itself
					t.Errorf("%s has %d series, at most %d can be shown", expr, len(answer), mostSeries)
				}
				for _, series := range answer {
					if p.Dashboard == "balena-fleets" && p.Type != "" && series.Metric.Get("fleet") == w.archived {
						t.Errorf("%s includes an archived fleet, which alerts leave out", expr)
					}
					series.Metric.Range(func(l labels.Label) { answered[l.Name] = true })
				}
				for _, label := range q.Labels {
					if !answered[label] {
						t.Errorf("%s has no label %s, but the panel shows it", expr, label)
					}
				}
				if p.Dashboard != "balena-exporter" && p.Type != "" {
					if diff := cmp.Diff(answer, w.ask(t, w.two, engine, &q, expr), cmp.Comparer(labels.Equal)); diff != "" {
						t.Errorf("%s has another result when two exporters are scraped (-one +two):\n%s", expr, diff)
					}
				}
			}
			for _, column := range p.Labels() {
				if !answered[column] {
					t.Errorf("no query has the label %s for a column", column)
				}
			}
		})
	}
}

// totalsLeaveOutArchivedFleets checks that the sums on the dashboard of all fleets leave out archived fleets, like the
// alerts.
func (w *world) totalsLeaveOutArchivedFleets(t *testing.T, panels []Panel, engine *promql.Engine) {
	variables := maps.Clone(w.variables)
	variables["fleet"] = ".+"
	for title, want := range map[string]float64{
		"Devices": float64(w.devices), "Fleets": fleets - 1,
		"Devices by status": float64(w.devices), "OS versions": float64(w.devices), "Device types": float64(w.devices),
	} {
		var got float64
		q := find(t, panels, "balena-fleets", title)
		expr := strings.Replace(q.Fill(variables), "topk(15, ", "topk(1000, ", 1) // the account has more OS versions than the panel shows
		for _, series := range w.ask(t, w.two, engine, q, expr) {
			got += series.Floats[len(series.Floats)-1].F
		}
		if got != want {
			t.Errorf("%s: %v, want %v", title, got, want)
		}
	}
}

// rolloutsAreMarked checks that a new target release is marked once, at the right time, even if several exporters export it.
func (w *world) rolloutsAreMarked(t *testing.T, annotations []Panel, engine *promql.Engine) {
	for _, storage := range []*teststorage.TestStorage{w.one, w.two} {
		q := find(t, annotations, "balena-fleet", "Rollouts")
		answer := w.ask(t, storage, engine, q, q.Fill(w.variables))
		if len(answer) != 1 || answer[0].Metric.Get("release_version") != "10.0.0" {
			t.Fatalf("the marks are %v", answer)
		}
		first := time.UnixMilli(answer[0].Floats[0].T).UTC()
		if added := w.begin.Add(refreshes / 2 * interval); first.Before(added) || first.After(added.Add(2*interval)) {
			t.Errorf("marked from %s, want %s", first, added)
		}
	}
}

// tagsChooseFleets checks that the tag of a fleet, or of a device in it, chooses the fleet, and that all values include fleets
// without tags.
func (w *world) tagsChooseFleets(t *testing.T, panels []Panel, engine *promql.Engine) {
	for _, dashboard := range []string{"balena-fleets", "balena-fleet"} {
		all := fleets
		if dashboard == "balena-fleets" {
			all-- // the archived one
		}
		for value, want := range map[string]int{".*": all, "here": 1, "there": 1, "here|there": 1, "elsewhere": 0, "her": 0} {
			variables := maps.Clone(w.variables)
			variables["tag_value"] = value
			q := find(t, panels, dashboard, "$fleet")
			answer := w.ask(t, w.two, engine, q, q.Fill(variables))
			if len(answer) != want || want == 1 && answer[0].Metric.Get("fleet") != w.variables["fleet"] {
				t.Errorf("%s: the value %s chooses %v, want %d", dashboard, value, answer, want)
			}
		}
	}
}

// disconnectedDevicesAreNewOrLost checks that each disconnected device is in one of the two tables.
func (w *world) disconnectedDevicesAreNewOrLost(t *testing.T, panels []Panel, engine *promql.Engine) {
	const week = 7 * 24 * 3600
	variables := maps.Clone(w.variables)
	variables["top"] = "1000"
	found := map[string]bool{}
	for _, title := range []string{"Newly disconnected", "Lost"} {
		for _, q := range ofTable(t, panels, "balena-fleet", title) {
			for _, series := range w.ask(t, w.one, engine, &q, q.Fill(variables)) {
				uuid, seconds := series.Metric.Get("uuid"), series.Floats[0].F
				if (seconds >= week) != (title == "Lost") || found[uuid] {
					t.Errorf("%s lists %s, disconnected for %v s", title, uuid, seconds)
				}
				found[uuid] = true
			}
		}
	}
	q := Query{Expr: `balena_device_connected{fleet="$fleet"} == 0 and on (uuid) balena_device_connectivity_change_timestamp_seconds`}
	if want := len(w.ask(t, w.one, engine, &q, q.Fill(w.variables))); want == 0 || len(found) != want {
		t.Errorf("%d devices are listed, %d are disconnected", len(found), want)
	}
}

// find returns the only query of a panel that is not a table, or of an annotation.
func find(t *testing.T, panels []Panel, dashboard, title string) *Query {
	t.Helper()
	for _, p := range panels {
		if p.Dashboard == dashboard && p.Title == title && p.Type != "table" {
			return &p.Queries[0]
		}
	}
	t.Fatalf("%s has no panel %s", dashboard, title)
	return nil
}

func ofTable(t *testing.T, panels []Panel, dashboard, title string) []Query {
	t.Helper()
	for _, p := range panels {
		if p.Dashboard == dashboard && p.Title == title && p.Type == "table" {
			return p.Queries
		}
	}
	t.Fatalf("%s has no table %s", dashboard, title)
	return nil
}

// One of two exporters has not refreshed for ten minutes, so its data are the oldest.
func TestAgeOfTheOldestData(t *testing.T) {
	panels := Panels()
	w := &world{end: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), variables: map[string]string{"job": ".+", "instance": ".+"}}
	storage := teststorage.New(t)
	appender := storage.Appender(t.Context())
	for instance, age := range map[string]time.Duration{"a:8000": time.Minute, "b:8000": 10 * time.Minute} {
		series := labels.FromStrings(model.MetricNameLabel, "balena_exporter_last_refresh_success_timestamp_seconds", "job", "balena-exporter", "instance", instance)
		if _, err := appender.Append(0, series, w.end.UnixMilli(), float64(w.end.Add(-age).Unix())); err != nil {
			t.Fatal(err)
		}
	}
	if err := appender.Commit(); err != nil {
		t.Fatal(err)
	}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute})
	t.Cleanup(func() { _ = engine.Close() })
	for _, dashboard := range []string{"balena-fleets", "balena-exporter"} {
		q := find(t, panels, dashboard, "Age of the oldest data")
		if answer := w.ask(t, storage, engine, q, q.Fill(w.variables)); len(answer) != 1 || answer[0].Floats[0].F != 600 {
			t.Errorf("%s: the oldest data are %v s old, want 600", dashboard, answer)
		}
	}
}

// check searches for metrics and labels that are not exported: PromQL does not report them as errors.
func (w *world) check(t *testing.T, expr parser.Expr) {
	t.Helper()
	// below returns all labels of the metrics in an expression.
	below := func(node parser.Node) map[string]bool {
		all := map[string]bool{}
		parser.Inspect(node, func(n parser.Node, _ []parser.Node) error {
			switch n := n.(type) {
			case *parser.VectorSelector:
				maps.Copy(all, w.labels[n.Name])
			case *parser.Call:
				if n.Func.Name == "label_replace" {
					all[n.Args[1].(*parser.StringLiteral).Val] = true
				}
			}
			return nil
		})
		return all
	}
	demand := func(where parser.Node, names ...string) {
		known := below(where)
		for _, name := range names {
			if !known[name] {
				t.Errorf("%s: no metric in it has the label %s", where, name)
			}
		}
	}
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			if w.labels[n.Name] == nil {
				t.Errorf("%s: %s is not exported", n, n.Name)
				return nil
			}
			for _, m := range n.LabelMatchers {
				demand(n, m.Name)
			}
		case *parser.AggregateExpr:
			demand(n.Expr, n.Grouping...)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				demand(n.LHS, n.VectorMatching.MatchingLabels...)
				demand(n.RHS, n.VectorMatching.MatchingLabels...)
				demand(n.RHS, n.VectorMatching.Include...)
			}
		}
		return nil
	})
}
