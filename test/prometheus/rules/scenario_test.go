// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// state has the exported series, without labels that scraping adds, and their values by minute. NaN means that the series
// does not exist in this minute.
type state map[string]func(minute int) float64

// constant returns a value that does not change.
func constant(v float64) func(int) float64 { return func(int) float64 { return v } }

// now is the current time.
func now(minute int) float64 { return float64(minute * 60) }

// gone is the value of a series that does not exist.
var gone func(int) float64

// with returns the state with changes.
func (s state) with(others ...state) state {
	s = maps.Clone(s)
	for _, o := range others {
		maps.Copy(s, o)
	}
	return s
}

// scrape is the result of the scrapes of a minute: the state of each target. A failed scrape has no samples, and makes series
// stale. skipped means that Prometheus does not scrape in this minute.
type scrape struct {
	targets map[string]state
	skipped bool
}

// timeline has the scrapes by minute.
type timeline []scrape

func (t timeline) then(minutes int, s scrape) timeline {
	return append(slices.Clone(t), slices.Repeat([]scrape{s}, minutes)...)
}

// from returns a scrape of one exporter.
func from(target string, s state) scrape { return scrape{targets: map[string]state{target: s}} }

// The new pod is scraped in four parts, each a separate target. A rollout may change this too.
const oldPod, newPod = "a", "b"

// partOf returns the part of a series, from 0 to 3. Devices are distributed among the parts, everything else is in part 0.
func partOf(series string) int {
	_, uuid, found := strings.Cut(series, `uuid="`)
	if !found {
		return 0
	}
	uuid, _, _ = strings.Cut(uuid, `"`)
	return int(crc32.ChecksumIEEE([]byte(uuid)) % 4)
}

// started is the state of an exporter before its first refresh.
var started = state{`balena_up{}`: constant(0)}

// disturbances are events that do not affect fleets. Each begins and ends with a scrape of the exporter.
var disturbances = []struct {
	name string
	// of the state before, during and after the disturbance
	of func(state) timeline
}{
	{"a restart", func(s state) timeline {
		return timeline{}.then(3, scrape{}).then(1, from(oldPod, started)).then(1, from(oldPod, s))
	}},
	{"a gap", func(s state) timeline {
		return timeline{}.then(4, scrape{skipped: true}).then(1, from(oldPod, s))
	}},
	{"a rollout", func(s state) timeline {
		return timeline{}.then(2, scrape{}).then(1, from(newPod, started)).then(4, from(newPod, s)).
			then(2, scrape{targets: map[string]state{newPod: s, oldPod: s}}).then(1, from(oldPod, s))
	}},
}

// staleAndPaused is the number of minutes for which the last data are used after the API fails: the maximum staleness of the
// exporter, and the maximum length of a gap.
const staleAndPaused = 5 + 8

// outage is a failure of the API that is longer than the maximum staleness.
func outage(s state) timeline {
	failing := state{`balena_up{}`: constant(0), `balena_exporter_last_refresh_success_timestamp_seconds{}`: constant(0)}
	return timeline{}.then(5, from(oldPod, s.with(failing))).then(30, from(oldPod, failing)).then(1, from(oldPod, s))
}

// series returns the timeline in the format of promtool.
func (t timeline) series() []series {
	values := map[string][]string{}
	for minute, s := range t {
		for target, state := range s.targets {
			for name, value := range state {
				if value == nil || math.IsNaN(value(minute)) {
					continue
				}
				part := ""
				if target == newPod {
					part = fmt.Sprintf(`,metrics_part="%d/4"`, partOf(name))
				}
				name = strings.Replace(name, "}", fmt.Sprintf(`,job="balena-exporter",instance="10.0.0.%d:8000",pod="balena-exporter-%s"%s}`, target[0], target, part), 1)
				name = strings.Replace(name, "{,", "{", 1)
				if values[name] == nil {
					values[name] = make([]string, len(t))
				}
				values[name][minute] = strconv.FormatFloat(value(minute), 'g', -1, 64)
			}
		}
	}
	var all []series
	for _, name := range slices.Sorted(maps.Keys(values)) {
		was := false
		for minute, v := range values[name] {
			switch {
			case v != "":
				was = true
			case was && !t[minute].skipped:
				values[name][minute], was = "stale", false
			default:
				values[name][minute] = "_"
			}
		}
		all = append(all, series{name, strings.Join(values[name], " ")})
	}
	return all
}

func at(minute int) string { return strconv.Itoa(minute) + "m" }

// firesAt expects the alert to fire in this minute.
func (a alert) firesAt(minute int) alertTest {
	annotations := map[string]string{"summary": a.summary, "description": a.description, "runbook_url": runbook(a.name)}
	switch {
	case a.labels["uuid"] != "":
		annotations["balena_url"] = balena + "devices/" + a.labels["uuid"] + "/summary"
	case a.labels["fleet"] != "" && a.labels["problem"] != "":
		annotations["balena_url"] = balena + "fleets/7"
	}
	return alertTest{at(minute), a.name, []expectedAlert{{Labels: a.allLabels(), Annotations: annotations}}}
}

func (a alert) silentAt(minute int) alertTest { return alertTest{at(minute), a.name, nil} }

func (a alert) allLabels() map[string]string {
	all := maps.Clone(a.labels)
	all["severity"] = a.severity
	return all
}

// firesFor expects the alert to fire in each of the last minutes.
func (a alert) firesFor(minutes, until int) exprTest {
	test := exprTest{
		Expression: fmt.Sprintf(`count_over_time(ALERTS{alertname=%q,alertstate="firing"}[%dm])`, a.name, minutes), At: at(until),
	}
	if minutes > 0 {
		labels := a.allLabels()
		labels["alertname"], labels["alertstate"] = a.name, "firing"
		var text []string
		for name, value := range labels {
			text = append(text, fmt.Sprintf("%s=%q", name, value))
		}
		test.Want = []expectedSample{{"{" + strings.Join(text, ",") + "}", float64(minutes)}}
	}
	return test
}

// neverFired expects that an alert has not fired so far.
func neverFired(alert string, until int) exprTest {
	return exprTest{Expression: fmt.Sprintf(`count_over_time(ALERTS{alertname=~%q,alertstate="firing"}[%dm])`, alert, until+1), At: at(until)}
}

// lead is the number of minutes without problems at the beginning.
const lead = 5

// TestAlerts tests each alert of the table in several scenarios.
func TestAlerts(t *testing.T) {
	for _, a := range alerts {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			run(t, a.tests())
		})
	}
}

func (a alert) tests() []unitTest {
	good, bad, nearly := well.with(a.good), well.with(a.good, a.bad), well.with(a.good, a.nearly)
	fires := lead + a.after
	story := func(name string, t timeline, alerts []alertTest, expressions []exprTest) unitTest {
		return unitTest{Name: a.name + " " + name, Interval: "1m", Series: t.series(), Alerts: alerts, Expressions: expressions}
	}
	fine := timeline{}.then(lead, from(oldPod, good))

	tests := []unitTest{
		story("fires", fine.then(a.after+1, from(oldPod, bad)),
			[]alertTest{a.silentAt(fires - 1), a.firesAt(fires)}, nil),
		story("does not fire while "+a.nearlyMeans, fine.then(max(50, a.after+20), from(oldPod, nearly)),
			nil, []exprTest{neverFired(a.name, lead+max(50, a.after+20)-1)}),
		story("resolves", fine.then(a.after+1, from(oldPod, bad)).then(a.resolves+1, from(oldPod, good)),
			[]alertTest{a.silentAt(fires + 1 + a.resolves)}, nil),
	}
	for _, d := range disturbances {
		// The disturbance begins while the alert is pending, or while it is firing.
		t := fine.then(a.after/2, from(oldPod, bad))
		t = append(t, d.of(bad)...)
		for len(t) <= fires {
			t = t.then(1, from(oldPod, bad))
		}
		t = append(t, d.of(bad)...).then(2, from(oldPod, bad))
		last := len(t) - 1
		tests = append(tests, story("survives "+d.name, t,
			[]alertTest{a.silentAt(fires - 1)}, []exprTest{a.firesFor(last-fires+1, last)}))
	}
	if a.kept {
		t := append(fine.then(a.after+1, from(oldPod, bad)), outage(bad)...)
		tests = append(tests, story("stays as it is while the API fails", t,
			nil, []exprTest{a.firesFor(len(t)-fires, len(t)-1)}))
		// The alert does not start if the condition was seen for only one minute.
		brief := nearly
		if a.after > staleAndPaused {
			brief = bad
		}
		t = append(fine.then(1, from(oldPod, brief)), outage(brief)...)
		tests = append(tests, story("does not begin while the API fails", t,
			nil, []exprTest{neverFired(a.name, len(t)-1)}))
	}
	return tests
}

// Without problems of fleets, a short disturbance of the exporter does not fire alerts.
func TestDisturbancesFireNothing(t *testing.T) {
	t.Parallel()
	var tests []unitTest
	for _, d := range disturbances {
		t := timeline{}.then(30, from(oldPod, well))
		for range 3 {
			t = append(t, d.of(well)...).then(5, from(oldPod, well))
		}
		t = t.then(30, from(oldPod, well))
		tests = append(tests, unitTest{
			Name: d.name + " fires nothing", Interval: "1m", Series: t.series(), Expressions: []exprTest{neverFired(".+", len(t)-1)},
		})
	}
	run(t, tests)
}
