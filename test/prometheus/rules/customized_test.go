// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runChanged runs unit tests of rules with replaced texts. Each old text must exist.
func runChanged(t *testing.T, changes map[string]string, tests []unitTest) {
	t.Helper()
	paths, err := filepath.Glob(rulesGlob)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no rules at %s: %v", rulesGlob, err)
	}
	directory := t.TempDir()
	found := map[string]bool{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		changed := string(text)
		for before, after := range changes {
			found[before] = found[before] || strings.Contains(changed, before)
			changed = strings.ReplaceAll(changed, before, after)
		}
		if err := os.WriteFile(filepath.Join(directory, filepath.Base(path)), []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for before := range changes {
		if !found[before] {
			t.Fatalf("no rule has %s", before)
		}
	}
	runFiles(t, filepath.Join(directory, "*.yml"), tests)
}

// offlineDevice returns the series of a device that has been offline for a long time.
func offlineDevice(fleet, uuid string) []series {
	return []series{
		{fmt.Sprintf(`balena_device_connected{fleet=%q,uuid=%q}`, fleet, uuid), "0x1400"},
		{fmt.Sprintf(`balena_device_connectivity_change_timestamp_seconds{fleet=%q,uuid=%q}`, fleet, uuid), "-7200x1400"},
	}
}

// lasting extends series to a day.
func lasting(all []series) []series {
	for i := range all {
		all[i].Values = strings.ReplaceAll(all[i].Values, "x15", "x1400")
	}
	return all
}

// There are no alerts on fleets that are switched off from 22:00 to 06:00 until 06:30, but on other fleets.
func TestOffHours(t *testing.T) {
	t.Parallel()
	test := unitTest{Name: "off hours", Interval: "1m"}
	for _, fleet := range []string{"acme/kiosks", "acme/pumps"} {
		test.Series = append(test.Series, lasting(fleetOf(fleet, 10, 0))...)
	}
	test.Series = append(test.Series, lasting(fleetOf("acme/kiosks-small", 1, 0))...)
	test.Series = append(test.Series, offlineDevice("acme/kiosks-small", "a")...)
	const until = 22*60 + 20
	all := exprTest{Expression: fmt.Sprintf(`count_over_time(ALERTS{alertname!="BalenaExporterDown", alertstate="firing"}[%dm])`, until+1), At: at(until)}
	want := func(alert, labels string, minutes int) {
		all.Want = append(all.Want, expectedSample{fmt.Sprintf(`{alertname=%q, alertstate="firing", problem=%q, %s}`, alert, alert, labels), float64(minutes)})
	}
	// The test begins at midnight.
	const begins, ends = 6*60 + 29 + 5, 22 * 60
	want("BalenaFleetLargelyOffline", `fleet="acme/kiosks", severity="critical"`, ends-begins)
	want("BalenaFleetLargelyOffline", `fleet="acme/pumps", severity="critical"`, until+1-5)
	want("BalenaDeviceOffline", `fleet="acme/kiosks-small", uuid="a", severity="warning"`, ends-begins)
	test.Expressions = []exprTest{all}
	runChanged(t, map[string]string{`balena:fleet_watched{fleet=~""}`: `balena:fleet_watched{fleet=~"acme/kiosks.*"}`}, []unitTest{test})
}

// There are no alerts on an excluded fleet and its devices, even if the fleet disappears.
func TestExcludedFleets(t *testing.T) {
	t.Parallel()
	test := unitTest{Name: "excluded", Interval: "1m"}
	test.Series = append(fleetOf("acme/lab", 10, 0), fleetOf("acme/pumps", 10, 0)...)
	for i := range test.Series {
		test.Series[i].Values += " stale _x40"
		test.Series[i].Series = strings.Replace(test.Series[i].Series, "{", `{job="balena",`, 1)
	}
	test.Series = append(test.Series, offlineDevice("acme/lab", "a")...)
	test.Series = append(test.Series, series{`balena_up{job="balena"}`, "1x60"}, series{`balena_fleets{job="balena"}`, "3x60"})
	test.Expressions = []exprTest{{`group by (alertname, fleet) (count_over_time(ALERTS[1h]))`, at(50), []expectedSample{
		{`{alertname="BalenaFleetLargelyOffline", fleet="acme/pumps"}`, 1},
		{`{alertname="BalenaFleetPartlyOffline", fleet="acme/pumps"}`, 1},
		{`{alertname="BalenaFleetGone", fleet="acme/pumps"}`, 1},
	}}}
	changes := map[string]string{}
	for _, selector := range []string{"balena_fleet_devices{fleet!~%q}", "balena:fleet_watched{fleet!~%q}"} {
		changes[fmt.Sprintf(selector, "")] = fmt.Sprintf(selector, "acme/lab")
	}
	runChanged(t, changes, []unitTest{test})
}

// Thresholds of ratios can differ between fleets.
func TestRatiosByFleet(t *testing.T) {
	t.Parallel()
	test := unitTest{Name: "parts by fleet", Interval: "1m"}
	for fleet, offline := range map[string]int{"acme/lab-1": 8, "acme/lab-2": 7, "acme/pumps": 4, "acme/valves": 3} {
		test.Series = append(test.Series, fleetOf(fleet, 20, 20-offline)...)
	}
	test.Expressions = []exprTest{{`balena:problem`, at(5), []expectedSample{
		{`balena:problem{problem="BalenaFleetPartlyOffline", fleet="acme/lab-1"}`, 0.4}, {`balena:problem{problem="BalenaFleetPartlyOffline", fleet="acme/pumps"}`, 0.2},
	}}}
	runChanged(t, map[string]string{
		`(0.2 * group by (fleet) (balena:fleet_watched))`: `(0.4 * group by (fleet) (balena:fleet_watched{fleet=~"acme/lab-.*"}) or 0.2 * group by (fleet) (balena:fleet_watched))`,
	}, []unitTest{test})
}

// While half of a fleet is offline, only the critical alert fires. At any time, at most one of the two alerts fires.
func TestPartlyAndLargelyOffline(t *testing.T) {
	t.Parallel()
	test := unitTest{Name: "partly and largely", Interval: "1m"}
	test.Series = fleetOf("acme/pumps", 10, 0)
	test.Series[3].Values = "10x4 7x14 4x14 7x14"
	for i := range test.Series[:3] {
		test.Series[i].Values = strings.ReplaceAll(test.Series[i].Values, "x15", "x60")
	}
	for minute, want := range map[int]string{10: "BalenaFleetPartlyOffline", 24: "BalenaFleetPartlyOffline", 25: "BalenaFleetLargelyOffline", 34: "BalenaFleetLargelyOffline", 36: "", 40: "BalenaFleetPartlyOffline"} {
		firing := exprTest{Expression: `count by (alertname) (ALERTS{alertstate="firing", alertname=~"BalenaFleet.*"})`, At: at(minute)}
		if want != "" {
			firing.Want = []expectedSample{{fmt.Sprintf("{alertname=%q}", want), 1}}
		}
		test.Expressions = append(test.Expressions, firing)
	}
	run(t, []unitTest{test})
}

// An exporter without targets counts as missing for a week, in this test for two hours.
func TestExporterIsMissedForATime(t *testing.T) {
	t.Parallel()
	test := unitTest{Name: "missed", Interval: "1m", Series: []series{
		{`balena_up{job="balena",account="acme",shard="1"}`, "1x9 stale"},
		{`balena_fleet_devices{job="balena",account="acme",shard="1",fleet="acme/pumps"}`, "1x9 stale"},
		{`balena_up{job="balena",account="other"}`, "1x200"},
		// The targets of this exporter exist, but were never scraped successfully.
		{`up{job="balena-exporter",account="new"}`, "0x200"},
	}}
	down := func(labels map[string]string, name string) expectedAlert {
		labels["severity"] = "critical"
		return expectedAlert{labels, map[string]string{
			"summary":     name + " is down, or Prometheus does not scrape it.",
			"description": "There has been no sample of balena_up for 10 minutes. There are no data of its fleets and devices, and alerts on them cannot start.",
			"runbook_url": runbook("BalenaExporterDown"),
		}}
	}
	never := down(labelSet("job", "balena-exporter", "account", "new"), "balena-exporter new")
	gone := down(labelSet("job", "balena", "account", "acme", "shard", "1"), "balena acme shard 1")
	for minute, want := range map[int][]expectedAlert{4: nil, 5: {never}, 18: {never}, 19: {never, gone}, 128: {never, gone}, 129: {never}} {
		test.Alerts = append(test.Alerts, alertTest{at(minute), "BalenaExporterDown", want})
	}
	runChanged(t, map[string]string{"604800s": "7200s", "2 * 604800": "2 * 7200"}, []unitTest{test})
}

// An exporter without any successful refresh has no age of its data.
func TestNeverAnyData(t *testing.T) {
	t.Parallel()
	name := "BalenaDataStale"
	run(t, []unitTest{{
		Name: "never any data", Interval: "1m", Series: []series{{`balena_up{job="balena",account="acme"}`, "_x9 0x60"}},
		Alerts: []alertTest{{at(24), name, nil}, {at(25), name, []expectedAlert{{labelSet("job", "balena", "account", "acme", "severity", "critical"), map[string]string{
			"summary":     "balena acme has no fleet data.",
			"description": "The exporter serves data for 5m after the last refresh. After that, fleets and devices have no series. New alerts on them cannot start, and firing alerts end after an hour.",
			"runbook_url": runbook(name),
		}}}}},
	}})
}
