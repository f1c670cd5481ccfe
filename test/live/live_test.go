// SPDX-License-Identifier: Apache-2.0

// Package live tests rules and dashboards with Prometheus, which scrapes an exporter that reads a simulated API. The tests
// cause a fault for each alert and panel.
package live

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
	"github.com/balena-exporter/balena-exporter/test/dashboards"
)

// The scrape jobs: the exporter, and samples from before the start of the test.
const (
	job  = "balena-exporter"
	past = "past"
)

// Labels that identify the exporter, as in the chart, and the labels of alerts on the exporter and on its account.
var (
	ofExporter = model.LabelSet{"account": "test/live", "shard": "0"}
	ofJob      = model.LabelSet{"job": job}.Merge(ofExporter)
	ofAccount  = model.LabelSet{"job": job, "account": ofExporter["account"]}
)

// A pair is two Prometheus servers with the shipped rules and short intervals. In pending, the "for" of all alerts is longer
// than a test. In firing, it is one second.
type pair struct{ pending, firing *server }

// startPair starts a pair. The second server also has the additional jobs.
func startPair(t *testing.T, targets map[string]string, jobs ...object) *pair {
	t.Helper()
	shipped, err := filepath.Abs(filepath.Join(root, "deploy", "prometheus", "rules"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(shipped, "*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no rules in %s: %v", shipped, err)
	}
	waits := regexp.MustCompile(`(?m)^( +for:) \w+$`)
	intervals := regexp.MustCompile(`(?m)^ +interval: \w+
`)
	start := func(wait string, jobs ...object) *server {
		dir := t.TempDir()
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text = intervals.ReplaceAll(waits.ReplaceAll(text, []byte("$1 "+wait)), nil)
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return startPrometheus(t, dir+"/*.yml", targets, jobs...)
	}
	return &pair{start("3h"), start("1s", jobs...)}
}

// awaitAlerts waits until exactly these alerts are pending or firing.
func (p *pair) awaitAlerts(t *testing.T, want ...model.LabelSet) {
	t.Helper()
	for _, of := range []struct {
		*server
		state string
	}{{p.pending, "pending"}, {p.firing, "firing"}} {
		eventually(t, func() error {
			alerts, err := of.alerts(t)
			if err != nil {
				return err
			}
			wanted, got := map[string]bool{}, map[string]bool{}
			for _, a := range want {
				wanted[a.String()+" "+of.state] = true
			}
			for _, a := range alerts {
				if a.Labels["severity"] == "" {
					return fmt.Errorf("%s has no severity", a.Labels)
				}
				delete(a.Labels, "severity")
				got[a.Labels.String()+" "+a.State] = true
			}
			if diff := cmp.Diff(wanted, got); diff != "" {
				return fmt.Errorf("alerts (-want +got):\n%s", diff)
			}
			return nil
		})
	}
}

// awaitResults waits until the expressions of all rules except these have had a result.
func (p *pair) awaitResults(t *testing.T, except ...string) {
	t.Helper()
	hadResult := map[string]bool{}
	eventually(t, func() error {
		rules, err := p.pending.rules(t)
		if err != nil {
			return err
		}
		var empty []string
		for _, r := range rules {
			name := r.String()
			if r.Health != "ok" || r.LastError != "" {
				return fmt.Errorf("the rule %s is %s: %s", name, r.Health, r.LastError)
			}
			if !hadResult[name] {
				found, err := p.pending.instant(t, r.Query)
				if err != nil {
					return err
				}
				hadResult[name] = len(found) > 0
			}
			if !hadResult[name] {
				empty = append(empty, name)
			}
		}
		slices.Sort(empty)
		empty = slices.Compact(empty) // several rules may record the same metric
		slices.Sort(except)
		if diff := cmp.Diff(except, empty); diff != "" {
			return fmt.Errorf("rules without a result (-want +got):\n%s", diff)
		}
		return nil
	})
}

// TestFleets causes the faults of all alerts on fleets and devices at once, each in a separate fleet, then faults of the API,
// and finally stops the exporter. After each step, exactly the expected alerts must be present. The test runs on openBalena
// and on balenaCloud, which have different queries for changes.
func TestFleets(t *testing.T) {
	t.Parallel()
	for _, edition := range simulator.Editions() {
		t.Run(edition, func(t *testing.T) {
			t.Parallel()
			testFleets(t, simulator.Edition(edition))
		})
	}
}

// modes are the modes of incremental refreshes.
var modes = map[simulator.Edition]balena.Mode{simulator.OpenBalena: balena.DevicesAndInstalls, simulator.Cloud: balena.DevicesOnly}

func testFleets(t *testing.T, edition simulator.Edition) {
	begin := time.Now()
	sim, err := simulator.New(simulator.Config{Edition: edition, CloudFields: true})
	if err != nil {
		t.Fatal(err)
	}
	var healthy *backup
	sim.Update(func(st *simulator.State) {
		addFleets(st, edition)
		healthy = newBackup(st)
	})
	var refreshes boundary
	api := httptest.NewServer(refreshes.before(sim))
	t.Cleanup(api.Close)
	tokenFile := filepath.Join(t.TempDir(), "token")
	writeToken(t, tokenFile, 90*day)
	var location []string
	if edition == simulator.Cloud {
		location = []string{"--collector.device.location"}
	}
	exporter, stopExporter := startExporter(t, api.URL, tokenFile, location...)
	p := startPair(t, map[string]string{job: exporter})

	// A healthy account.
	watched := slices.DeleteFunc(slices.Clone(healthy.fleets), func(f simulator.Fleet) bool { return f.IsArchived || f.IsForeign })
	await(t, p.pending, "balena:fleet_watched", len(watched))
	await(t, p.firing, "balena:fleet_watched", len(watched))
	await(t, p.pending, fmt.Sprintf("balena_exporter_incremental_refresh_mode{mode=%q} == 1", modes[edition]), 1)
	p.awaitAlerts(t)

	// The API limits the rate of three requests.
	sim.SetFaults(simulator.Faults{{Status: http.StatusTooManyRequests, RetryAfter: simulator.Duration{Duration: time.Second}, Times: 3}})
	want := []model.LabelSet{expect("BalenaAPIRateLimited", ofJob)}
	p.awaitAlerts(t, want...)

	// All faults of fleets and devices occur.
	played := make(chan struct{})
	refreshes.atNext(func() { // if a fleet is deleted during a refresh, BalenaFleetShrank may fire first
		sim.Update(func(st *simulator.State) { want = append(want, play(st, edition)...) })
		close(played)
	})
	<-played
	writeToken(t, tokenFile, day)
	failing := simulator.Faults{
		{Resource: "device_type", Status: http.StatusInternalServerError},
		{Resource: "device", Query: "modified_at gt", Status: http.StatusInternalServerError}, // all queries for changes fail
	}
	sim.SetFaults(failing)
	p.reconnect(t, sim)
	want = append(
		want, expect("BalenaAPIKeyExpiring", ofAccount, model.LabelSet{"key_name": keyName}), expect("BalenaTokenExpiring", ofAccount),
		expect("BalenaRefreshPartFailing", ofJob, model.LabelSet{"part": "device_type"}),
		expect("BalenaIncrementalRefreshDisabled", ofJob),
	)
	p.awaitAlerts(t, want...)
	without := []string{
		"BalenaAPIFailing", "BalenaDataStale", "BalenaExporterDown", "balena:exporter_missing", // tested below and in TestPast
		// These do not occur in an account with other fleets, or replace another alert.
		"BalenaNoFleets", "BalenaFleetLargelyOffline", "balena:condition BalenaFleetLargelyOffline", "balena:fleet_off",
		// These need exporters on devices; see TestDevices.
		"BalenaDeviceExporterDown", "balena:condition BalenaDeviceExporterDown", "BalenaDeviceRebooting", "balena:condition BalenaDeviceRebooting", "balena:device_uptime_seconds",
	}
	if edition == simulator.OpenBalena {
		without = append(without, "BalenaOSUnsupported", "balena:condition BalenaOSUnsupported", "BalenaOSInvalidated", "balena:condition BalenaOSInvalidated", "balena:fleet_devices_by_os_release_age")
	}
	p.awaitResults(t, without...)
	checkAnnotations(t, p.firing)
	checkPanels(t, p.firing, edition, want) // panels list firing alerts

	// The API fails, then it hangs. Alerts on fleets continue. BalenaFleetGone becomes pending for ten minutes, which is less
	// than its "for".
	down := append(slices.Clone(want), expect("BalenaAPIFailing", ofJob))
	for _, fleet := range watched {
		down = append(down, expect("BalenaFleetGone", model.LabelSet{"fleet": model.LabelValue(fleet.Slug)}))
	}
	for _, fault := range []simulator.Fault{{Status: http.StatusInternalServerError}, {Latency: simulator.Duration{Duration: time.Hour}}} {
		// The fault begins between two refreshes. If it began during a refresh, parts of a successful refresh might fail, and
		// would be reported until the next success.
		refreshes.atNext(func() { sim.SetFaults(simulator.Faults{fault}) })
		await(t, p.pending, "balena_fleet_devices", 0)
		await(t, p.pending, "balena:fleet_paused", len(watched))
		await(t, p.pending, "balena:fleet_unread", len(watched))
		p.awaitAlerts(t, down...)
		sim.SetFaults(failing)
		api.CloseClientConnections()
		p.awaitAlerts(t, want...)
	}
	checkNames(t, p.pending, edition, begin)

	// All faults end. Some alerts end only later.
	sim.SetFaults(nil)
	sim.Update(healthy.restore)
	writeToken(t, tokenFile, 90*day)
	lasting := slices.DeleteFunc(want, func(a model.LabelSet) bool {
		return !slices.Contains([]model.LabelValue{
			"BalenaAPIRateLimited", "BalenaServiceRestarting", "BalenaIncrementalRefreshDisabled", "BalenaInvoicePastDue",
			flapping, "BalenaDeviceOSUpdateFailed", // ends only when the device runs another OS version
		}, a[model.AlertNameLabel])
	})
	p.awaitAlerts(t, lasting...)

	// The exporter stops. Prometheus evaluates its alerts at times in the future.
	stopExporter()
	await(t, p.pending, "up == 0", 1)
	rules, err := p.pending.rules(t)
	if err != nil {
		t.Fatal(err)
	}
	for name, wanted := range map[string]map[time.Duration][]model.LabelSet{
		"balena:exporter_missing": {time.Minute: nil, 6 * time.Minute: {ofJob}, 25 * time.Hour: {ofJob}, 8 * day: nil},
		"BalenaExporterDown":      {time.Minute: nil, 8 * day: {{}}},
	} {
		i := slices.IndexFunc(rules, func(r rule) bool { return r.Name == name })
		if i < 0 {
			t.Fatalf("there is no rule %s", name)
		}
		for later, want := range wanted {
			got, err := p.pending.at(t, rules[i].Query, time.Now().Add(later))
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%s later, result of %s (-want +got, %v):\n%s", later, name, err, diff)
			}
		}
	}
}

// reconnect reconnects a device several times. It waits until both servers have recorded each reconnect.
func (p *pair) reconnect(t *testing.T, sim *simulator.Simulator) {
	t.Helper()
	for n := range 6 {
		var labels model.LabelSet
		sim.Update(func(st *simulator.State) {
			_, devices, fleet := byName(st, flapping)
			if n > 0 { // play causes the first reconnect
				devices[0].Reconnect(st.Now())
			}
			labels = fleet.Merge(model.LabelSet{"uuid": model.LabelValue(devices[0].UUID)})
		})
		for _, s := range []*server{p.pending, p.firing} {
			await(t, s, fmt.Sprintf("balena:device_reconnects:count1h%s >= %d", labels, n+1), 1)
		}
	}
}

// boundary calls a function between two refreshes.
type boundary struct{ due atomic.Pointer[func()] }

// atNext calls a function just before the first request of the next refresh.
func (b *boundary) atNext(do func()) { b.due.Store(&do) }

// before forwards requests. The first request of each refresh counts the devices of fleets.
func (b *boundary) before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.RawQuery, "owns__device/$count") {
			if do := b.due.Swap(nil); do != nil {
				(*do)()
			}
		}
		next.ServeHTTP(w, r)
	})
}

// await waits until a query returns a number of series.
func await(t *testing.T, p *server, query string, want int) {
	t.Helper()
	eventually(t, func() error {
		got, err := p.instant(t, query)
		if err == nil && len(got) != want {
			err = fmt.Errorf("%s returns %d series, want %d", query, len(got), want)
		}
		return err
	})
}

// TestPast tests alerts that need older samples. A target serves samples with timestamps of two exporters: one that has
// disappeared, and one that was restarted while the API was failing.
func TestPast(t *testing.T) {
	t.Parallel()
	sim, err := simulator.New(simulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	sim.SetFaults(simulator.Faults{{Status: http.StatusInternalServerError}})
	api := httptest.NewServer(sim)
	t.Cleanup(api.Close)
	tokenFile := filepath.Join(t.TempDir(), "token")
	writeToken(t, tokenFile, 90*day)
	restarted, _ := startExporter(t, api.URL, tokenFile)

	ago := time.Now().Add(-20 * time.Minute)
	before := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		for _, of := range []model.LabelSet{{"job": "gone"}, ofJob} {
			_, _ = fmt.Fprintf(w, "balena_up%s 1 %d\n", of, ago.UnixMilli())
			_, _ = fmt.Fprintf(w, "balena_exporter_last_refresh_success_timestamp_seconds%s %s %d\n", of, unix(ago), ago.UnixMilli())
		}
	}))
	t.Cleanup(before.Close)

	p := startPair(t, map[string]string{job: restarted, past: strings.TrimPrefix(before.URL, "http://")})
	p.awaitAlerts(
		t, expect("BalenaExporterDown", model.LabelSet{"job": "gone"}), expect("BalenaAPIFailing", ofJob), expect("BalenaDataStale", ofJob),
	)
}

// writeToken writes a session token with an expiry. It replaces the file atomically, because the exporter reads it every
// second.
func writeToken(t *testing.T, path string, expires time.Duration) {
	t.Helper()
	claims := fmt.Sprintf(`{"exp":%d}`, time.Now().Add(expires).Unix())
	token := "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2lnbmF0dXJl"
	if err := os.WriteFile(path+".new", []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// checkAnnotations checks that templates were expanded, and that summaries contain the names of devices.
func checkAnnotations(t *testing.T, p *server) {
	t.Helper()
	alerts, err := p.alerts(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range alerts {
		for name, text := range a.Annotations {
			if strings.Contains(string(text), "<error") || strings.Contains(string(text), "no value") {
				t.Errorf("the %s of %s: %s", name, a.Labels, text)
			}
		}
		uuid, ok := a.Labels["uuid"]
		if ok && !regexp.MustCompile(` device-\d+ \(`+string(uuid)+`\) `).MatchString(string(a.Annotations["summary"])) {
			t.Errorf("the summary of %s does not contain the name of the device: %s", a.Labels, a.Annotations["summary"])
		}
	}
}

// ofCloud matches the queries for data that openBalena does not have: locations of devices and published releases of balenaOS
// and of the supervisor.
var ofCloud = regexp.MustCompile(`\bbalena(_device_latitude_|_os_|_device_os_(line|release)|_fleet_devices_os_(outdated|unsupported|invalidated)|_device_supervisor_update_available|:fleet_devices_by_os_release_age)`)

// withData returns the queries of a panel that have data in this test. TestDevices tests the metrics of exporters on devices.
func withData(panel *dashboards.Panel, edition simulator.Edition) []dashboards.Query {
	if panel.Dashboard == insideDashboard {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(panel.Queries), func(q dashboards.Query) bool { return edition == simulator.OpenBalena && ofCloud.MatchString(q.Expr) })
}

// checkPanels checks that all queries of dashboards with data have results for at least one fleet or device with an alert.
func checkPanels(t *testing.T, p *server, edition simulator.Edition, alerts []model.LabelSet) {
	t.Helper()
	panels := dashboards.Panels()
	var candidates []map[string]string
	for _, a := range alerts {
		if a["fleet"] != "" {
			candidates = append(candidates, map[string]string{
				"organization": ".+", "fleet": string(a["fleet"]), "device": string(a["uuid"]), "top": "20", "job": ".+", "instance": ".+", "__rate_interval": "1m",
				"tag": "tag_site", "tag_value": ".*",
			})
		}
	}
	for _, panel := range panels {
		queries := withData(&panel, edition)
		if len(queries) == 0 {
			continue
		}
		t.Run(panel.String(), func(t *testing.T) {
			shown := map[model.LabelName]bool{}
			for _, q := range queries {
				eventually(t, func() error {
					for _, variables := range candidates {
						if panel.Dashboard == "balena-fleets" {
							variables = maps.Clone(variables)
							variables["fleet"] = ".+" // all fleets
						}
						query := p.instant
						if q.Range {
							query = p.lately
						}
						result, err := query(t, q.Fill(variables))
						if err != nil {
							return err
						}
						has := map[model.LabelName]bool{}
						for _, labels := range result {
							for label := range labels {
								has[label], shown[label] = true, true
							}
						}
						if len(result) > 0 && !slices.ContainsFunc(q.Labels, func(label string) bool { return !has[model.LabelName(label)] }) {
							return nil
						}
					}
					return fmt.Errorf("%s has no result with the labels %q", q.Expr, q.Labels)
				})
			}
			if len(queries) < len(panel.Queries) {
				return
			}
			for _, column := range panel.Labels() {
				if !shown[model.LabelName(column)] {
					t.Errorf("no query has the label %s for a column", column)
				}
			}
		})
	}
}

// checkNames checks that all metrics and labels in queries exist.
func checkNames(t *testing.T, p *server, edition simulator.Edition, since time.Time) {
	t.Helper()
	known := readNames(t, p, since)
	// These are recorded only if an exporter is down, or if fleets are switched off at times.
	known["balena:exporter_missing"], known["balena:fleet_off"] = set{"__name__": true, "job": true, "account": true, "shard": true}, set{"__name__": true, "fleet": true}
	rules, err := p.rules(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if ofDevices.MatchString(r.Query) || edition == simulator.OpenBalena && ofCloud.MatchString(r.Query) {
			continue // tested by TestDevices, and on balenaCloud
		}
		for _, mistake := range known.check(r.Query) {
			t.Errorf("rule %s: %s", &r, mistake)
		}
	}
	panels := dashboards.Panels()
	for _, panel := range panels {
		for _, q := range withData(&panel, edition) {
			for _, mistake := range known.check(q.Fill(map[string]string{"top": "1", "__rate_interval": "1m", "tag": "tag_site", "tag_value": ".*"})) {
				t.Errorf("%s: %s", &panel, mistake)
			}
		}
	}
}
