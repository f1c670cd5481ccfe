// SPDX-License-Identifier: Apache-2.0

// Package live holds rules and dashboards against the real thing: a Prometheus that scrapes an exporter that reads a
// simulated API, while everything goes wrong that there is a rule or a panel for.
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

// The scrape jobs: of the exporter, and of what exporters said before the test began.
const (
	job  = "balena-exporter"
	past = "past"
)

// What identifies the exporter in its job, as the chart does it; the labels of alerts on it, and of those on its account.
var (
	ofExporter = model.LabelSet{"account": "test/live", "shard": "0"}
	ofJob      = model.LabelSet{"job": job}.Merge(ofExporter)
	ofAccount  = model.LabelSet{"job": job, "account": ofExporter["account"]}
)

// A pair of Prometheus: one with the rules as they are shipped, but that all alerts wait for longer than a test; and one in
// which alerts wait for no more than a second. Both evaluate all groups as often.
type pair struct{ shipped, hasty *server }

// startPair starts them. The second one has more jobs, if there are any.
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

// awaitAlerts waits until there are exactly these alerts.
func (p *pair) awaitAlerts(t *testing.T, want ...model.LabelSet) {
	t.Helper()
	for _, of := range []struct {
		*server
		state string
	}{{p.shipped, "pending"}, {p.hasty, "firing"}} {
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

// awaitAnswers waits until all shipped rules but these find something, each by its own expression.
func (p *pair) awaitAnswers(t *testing.T, but ...string) {
	t.Helper()
	answered := map[string]bool{}
	eventually(t, func() error {
		rules, err := p.shipped.rules(t)
		if err != nil {
			return err
		}
		var silent []string
		for _, r := range rules {
			name := r.String()
			if r.Health != "ok" || r.LastError != "" {
				return fmt.Errorf("the rule %s is %s: %s", name, r.Health, r.LastError)
			}
			if !answered[name] {
				found, err := p.shipped.instant(t, r.Query)
				if err != nil {
					return err
				}
				answered[name] = len(found) > 0
			}
			if !answered[name] {
				silent = append(silent, name)
			}
		}
		slices.Sort(silent)
		slices.Sort(but)
		if diff := cmp.Diff(but, silent); diff != "" {
			return fmt.Errorf("rules that find nothing (-want +got):\n%s", diff)
		}
		return nil
	})
}

// In one account everything goes wrong that there is an alert for, each trouble in a fleet of its own and all at once;
// then with the API; and at last with the exporter. After each step there are the alerts expected, and no others: the
// same on openBalena and on balenaCloud, where changes are asked for by another question.
func TestFleets(t *testing.T) {
	t.Parallel()
	for _, edition := range simulator.Editions() {
		t.Run(edition, func(t *testing.T) {
			t.Parallel()
			testFleets(t, simulator.Edition(edition))
		})
	}
}

// modes are how changes are asked for.
var modes = map[simulator.Edition]balena.Mode{simulator.OpenBalena: balena.DevicesAndInstalls, simulator.Cloud: balena.DevicesOnly}

func testFleets(t *testing.T, edition simulator.Edition) {
	begin := time.Now()
	sim, err := simulator.New(simulator.Config{Edition: edition, CloudFields: true})
	if err != nil {
		t.Fatal(err)
	}
	var healthy *memory
	sim.Update(func(st *simulator.State) {
		addFleets(st)
		healthy = remember(st)
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
	await(t, p.shipped, "balena:fleet_watched", len(watched))
	await(t, p.hasty, "balena:fleet_watched", len(watched))
	await(t, p.shipped, fmt.Sprintf("balena_exporter_incremental_refresh_mode{mode=%q} == 1", modes[edition]), 1)
	p.awaitAlerts(t)

	// The API wants to be asked less, three times.
	sim.SetFaults(simulator.Faults{{Status: http.StatusTooManyRequests, RetryAfter: simulator.Duration{Duration: time.Second}, Times: 3}})
	want := []model.LabelSet{expect("BalenaAPIRateLimited", ofJob)}
	p.awaitAlerts(t, want...)

	// Everything goes wrong.
	played := make(chan struct{})
	refreshes.atNext(func() { // in the midst of a refresh, a fleet that is deleted would have shrunk first
		sim.Update(func(st *simulator.State) { want = append(want, play(st)...) })
		close(played)
	})
	<-played
	writeToken(t, tokenFile, day)
	failing := simulator.Faults{
		{Resource: "device_type", Status: http.StatusInternalServerError},
		{Resource: "device", Query: "modified_at gt", Status: http.StatusInternalServerError}, // no question for changes is answered
	}
	sim.SetFaults(failing)
	p.reconnect(t, sim)
	want = append(
		want, expect("BalenaAPIKeyExpiring", ofAccount, model.LabelSet{"key_name": keyName}), expect("BalenaTokenExpiring", ofAccount),
		expect("BalenaRefreshPartFailing", ofJob, model.LabelSet{"part": "device_type"}),
		expect("BalenaIncrementalRefreshDisabled", ofJob),
	)
	p.awaitAlerts(t, want...)
	p.awaitAnswers(
		t, "BalenaAPIFailing", "BalenaDataStale", "BalenaExporterDown", "balena:exporter_missing", // which come below and in TestPast
		// Which an account with other fleets does not have, or which fire instead of another alert.
		"BalenaNoFleets", "BalenaFleetLargelyOffline", "balena:condition BalenaFleetLargelyOffline", "balena:fleet_off",
		// Which need exporters on devices, as in TestDevices.
		"BalenaDeviceExporterDown", "balena:condition BalenaDeviceExporterDown", "BalenaDeviceRebooting", "balena:condition BalenaDeviceRebooting", "balena:device_uptime_seconds",
	)
	checkAnnotations(t, p.hasty)
	checkPanels(t, p.hasty, edition, want) // where alerts fire, which panels list

	// The API fails, then it hangs. Alerts on fleets go on meanwhile. That fleets are gone becomes pending, too: only for
	// ten minutes, after which the failure is known not to be theirs, and the alert waits for longer than that.
	down := append(slices.Clone(want), expect("BalenaAPIFailing", ofJob))
	for _, fleet := range watched {
		down = append(down, expect("BalenaFleetGone", model.LabelSet{"fleet": model.LabelValue(fleet.Slug)}))
	}
	for _, fault := range []simulator.Fault{{Status: http.StatusInternalServerError}, {Latency: simulator.Duration{Duration: time.Hour}}} {
		// Between two refreshes: in the midst of one, parts of a refresh that succeeds would fail, which is what the exporter
		// tells until the next success.
		refreshes.atNext(func() { sim.SetFaults(simulator.Faults{fault}) })
		await(t, p.shipped, "balena_fleet_devices", 0)
		await(t, p.shipped, "balena:fleet_paused", len(watched))
		await(t, p.shipped, "balena:fleet_unread", len(watched))
		p.awaitAlerts(t, down...)
		sim.SetFaults(failing)
		api.CloseClientConnections()
		p.awaitAlerts(t, want...)
	}
	checkNames(t, p.shipped, edition, begin)

	// Everything is well again, but for what has to be well for longer.
	sim.SetFaults(nil)
	sim.Update(healthy.restore)
	writeToken(t, tokenFile, 90*day)
	lasting := slices.DeleteFunc(want, func(a model.LabelSet) bool {
		return !slices.Contains([]model.LabelValue{
			"BalenaAPIRateLimited", "BalenaServiceRestarting", "BalenaIncrementalRefreshDisabled", "BalenaInvoicePastDue",
			flapping, "BalenaDeviceOSUpdateFailed", // for the device runs no other version of the OS
		}, a[model.AlertNameLabel])
	})
	p.awaitAlerts(t, lasting...)

	// The exporter is gone. What its alert will find in six minutes, Prometheus can tell now.
	stopExporter()
	await(t, p.shipped, "up == 0", 1)
	rules, err := p.shipped.rules(t)
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
			got, err := p.shipped.at(t, rules[i].Query, time.Now().Add(later))
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%s later %s finds (-want +got, %v):\n%s", later, name, err, diff)
			}
		}
	}
}

// reconnect lets a device reconnect again and again, each time when both have recorded the time before.
func (p *pair) reconnect(t *testing.T, sim *simulator.Simulator) {
	t.Helper()
	for n := range 6 {
		var labels model.LabelSet
		sim.Update(func(st *simulator.State) {
			_, devices, fleet := byName(st, flapping)
			if n > 0 { // the first time was with the other faults
				devices[0].Reconnect(st.Now())
			}
			labels = fleet.Merge(model.LabelSet{"uuid": model.LabelValue(devices[0].UUID)})
		})
		for _, s := range []*server{p.shipped, p.hasty} {
			await(t, s, fmt.Sprintf("balena:device_reconnects:count1h%s >= %d", labels, n+1), 1)
		}
	}
}

// boundary lets something happen between two refreshes.
type boundary struct{ due atomic.Pointer[func()] }

// atNext does something just before the next refresh asks for anything.
func (b *boundary) atNext(do func()) { b.due.Store(&do) }

// before passes requests on. Each refresh begins with the one that counts the fleets' devices.
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

// await waits until a query is answered with so many series.
func await(t *testing.T, p *server, query string, want int) {
	t.Helper()
	eventually(t, func() error {
		got, err := p.instant(t, query)
		if err == nil && len(got) != want {
			err = fmt.Errorf("%s is answered with %d series, not %d", query, len(got), want)
		}
		return err
	})
}

// What was longer ago than a test takes comes out of a target that tells, with timestamps, what an exporter said: one
// that is gone, and one that was restarted while the API was already down.
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

// writeToken writes a session token that expires after so long. It is replaced at once, since it is read each second.
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

// checkAnnotations looks for templates that can't be expanded, and for the names of devices.
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
			t.Errorf("the summary of %s does not name the device: %s", a.Labels, a.Annotations["summary"])
		}
	}
}

// answered reports whether a panel has data here. TestDevices looks at the dashboard of the inside of a device, and an
// openBalena server does not know where devices are.
func answered(panel *dashboards.Panel, edition simulator.Edition) bool {
	return panel.Dashboard != insideDashboard && (panel.Type != "geomap" || edition == simulator.Cloud)
}

// checkPanels asks for everything that dashboards show: of a fleet or of a device, of each that is in trouble until one
// has an answer.
func checkPanels(t *testing.T, p *server, edition simulator.Edition, alerts []model.LabelSet) {
	t.Helper()
	panels, err := dashboards.Panels()
	if err != nil {
		t.Fatal(err)
	}
	var troubles []map[string]string
	for _, a := range alerts {
		if a["fleet"] != "" {
			troubles = append(troubles, map[string]string{
				"organization": ".+", "fleet": string(a["fleet"]), "device": string(a["uuid"]), "top": "20", "job": ".+", "instance": ".+", "__rate_interval": "1m",
				"tag": "tag_site", "tag_value": ".*",
			})
		}
	}
	for _, panel := range panels {
		if !answered(&panel, edition) {
			continue
		}
		t.Run(panel.String(), func(t *testing.T) {
			shown := map[model.LabelName]bool{}
			for _, q := range panel.Queries {
				eventually(t, func() error {
					for _, variables := range troubles {
						if panel.Dashboard == "balena-fleets" {
							variables = maps.Clone(variables)
							variables["fleet"] = ".+" // all of them
						}
						ask := p.instant
						if q.Range {
							ask = p.lately
						}
						answers, err := ask(t, q.Fill(variables))
						if err != nil {
							return err
						}
						has := map[model.LabelName]bool{}
						for _, labels := range answers {
							for label := range labels {
								has[label], shown[label] = true, true
							}
						}
						if len(answers) > 0 && !slices.ContainsFunc(q.Labels, func(label string) bool { return !has[model.LabelName(label)] }) {
							return nil
						}
					}
					return fmt.Errorf("%s has no answer with the labels %q", q.Expr, q.Labels)
				})
			}
			for _, column := range panel.Columns {
				if !shown[model.LabelName(column)] {
					t.Errorf("no query has the label %s for a column", column)
				}
			}
		})
	}
}

// checkNames looks at all queries for metrics and labels that nobody exports.
func checkNames(t *testing.T, p *server, edition simulator.Edition, since time.Time) {
	t.Helper()
	known := readNames(t, p, since)
	// These are recorded when an exporter is down, and where fleets are switched off at night.
	known["balena:exporter_missing"], known["balena:fleet_off"] = set{"__name__": true, "job": true, "account": true, "shard": true}, set{"__name__": true, "fleet": true}
	rules, err := p.rules(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if ofDevices.MatchString(r.Query) {
			continue // which TestDevices looks at
		}
		for _, mistake := range known.check(r.Query) {
			t.Errorf("rule %s: %s", &r, mistake)
		}
	}
	panels, err := dashboards.Panels()
	if err != nil {
		t.Fatal(err)
	}
	for _, panel := range panels {
		if !answered(&panel, edition) {
			continue
		}
		for _, q := range panel.Queries {
			for _, mistake := range known.check(q.Fill(map[string]string{"top": "1", "__rate_interval": "1m", "tag": "tag_site", "tag_value": ".*"})) {
				t.Errorf("%s: %s", &panel, mistake)
			}
		}
	}
}
