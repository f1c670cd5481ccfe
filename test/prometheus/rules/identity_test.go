// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A target is an exporter, or one of several replicas of an exporter.
type target struct {
	// labels identify the exporter.
	labels, instance string
	// fleets are the exported fleets.
	fleets []string
}

// A trouble returns the samples of a target by the minutes for which it has lasted. NaN means that the sample is missing.
type trouble func(t target, lasts, minute int) map[string]float64

const (
	up, balenaUp, lastSuccess, fleets = "up", "balena_up", "balena_exporter_last_refresh_success_timestamp_seconds", "balena_fleets"

	devices, connected = "balena_fleet_devices", "balena_fleet_devices_connected"
)

func fine(t target, _, minute int) map[string]float64 {
	all := map[string]float64{up: 1, balenaUp: 1, lastSuccess: now(minute), fleets: float64(len(t.fleets))}
	for _, fleet := range t.fleets {
		all[fmt.Sprintf("%s{fleet=%q}", devices, fleet)], all[fmt.Sprintf("%s{fleet=%q}", connected, fleet)] = 10, 10
	}
	return all
}

// vanished is a pod that cannot be scheduled or was deleted: Prometheus has no target.
func vanished(target, int, int) map[string]float64 { return nil }

// crashing is a target that cannot be scraped.
func crashing(target, int, int) map[string]float64 { return map[string]float64{up: 0} }

// refused is an exporter whose token is rejected. It serves its last data for five minutes.
func refused(t target, lasts, minute int) map[string]float64 {
	all := fine(t, 0, minute)
	all[balenaUp], all[lastSuccess] = 0, now(minute-lasts-1)
	if lasts >= 5 {
		maps.DeleteFunc(all, func(name string, _ float64) bool { return strings.Contains(name, "{") })
	}
	return all
}

// restarted is an exporter that was restarted while its token was rejected. It has no data.
func restarted(t target, lasts, minute int) map[string]float64 {
	if lasts >= 5 {
		return map[string]float64{up: 1, balenaUp: 0}
	}
	return refused(t, lasts, minute)
}

// blind is an exporter whose token has lost access to all fleets.
func blind(t target, lasts, minute int) map[string]float64 {
	return fine(target{labels: t.labels}, lasts, minute)
}

// A history is a set of targets, some of which have a trouble for some time.
type history struct {
	targets []target
	// troubled are indexes of targets.
	troubled []int
	trouble  trouble
	// before, lasts and after are in minutes.
	before, lasts, after int
}

func (h history) minutes() int { return h.before + h.lasts + h.after }

func (h history) series() []series {
	values := map[string][]string{}
	for i, t := range h.targets {
		for minute := range h.minutes() {
			state := fine
			lasts := minute - h.before
			if slices.Contains(h.troubled, i) && lasts >= 0 && lasts < h.lasts {
				state = h.trouble
			}
			for name, value := range state(t, lasts, minute) {
				labels := fmt.Sprintf(`{%s,instance=%q`, t.labels, t.instance)
				if metric, more, has := strings.Cut(name, "{"); has {
					name = metric + labels + "," + more
				} else {
					name += labels + "}"
				}
				if values[name] == nil {
					values[name] = slices.Repeat([]string{"_"}, h.minutes())
				}
				if !math.IsNaN(value) {
					values[name][minute] = strconv.FormatFloat(value, 'g', -1, 64)
				}
			}
		}
	}
	var all []series
	for _, name := range slices.Sorted(maps.Keys(values)) {
		for minute := 1; minute < h.minutes(); minute++ {
			if last := values[name][minute-1]; values[name][minute] == "_" && last != "_" && last != "stale" {
				values[name][minute] = "stale"
			}
		}
		all = append(all, series{name, strings.Join(values[name], " ")})
	}
	return all
}

// fired is an alert, and the number of minutes for which it fired.
type fired struct {
	alert, labels string
	minutes       int
}

// test expects that exactly these alerts have fired, each for its number of minutes.
func (h history) test(name string, want ...fired) unitTest {
	all := exprTest{
		Expression: fmt.Sprintf(`count_over_time(ALERTS{alertstate="firing"}[%dm])`, h.minutes()), At: at(h.minutes() - 1),
	}
	for _, f := range want {
		all.Want = append(all.Want, expectedSample{fmt.Sprintf(`{alertname=%q,alertstate="firing",%s}`, f.alert, f.labels), float64(f.minutes)})
	}
	return unitTest{Name: name, Interval: "1m", Series: h.series(), Expressions: []exprTest{all}}
}

const (
	job               = `job="balena-exporter"`
	critical, warning = `,severity="critical"`, `,severity="warning"`

	// Minutes until the alerts fire: lookback of five plus "for" of five; "for" of ten; data of fifteen minutes plus "for" of
	// one; "for" of fifteen.
	downAfter, failingAfter, staleAfter, noneAfter, goneAfter = 9, 10, 16, 15, 15
)

// account returns the labels that identify an exporter.
func account(name string) string { return fmt.Sprintf(`%s,account="iot/%s"`, job, name) }

// troubles are all troubles of an exporter, with the alerts that fire if they last for a number of minutes.
var troubles = []struct {
	name    string
	trouble trouble
	alerts  func(labels string, lasts int) []fired
}{
	{"vanished", vanished, isDown},
	{"crashing", crashing, isDown},
	{"refused", refused, isRefused},
	{"restarted", restarted, isRefused},
	{"blind", blind, func(labels string, lasts int) []fired {
		return []fired{{"BalenaNoFleets", labels + critical, lasts - noneAfter}}
	}},
}

func isDown(labels string, lasts int) []fired {
	return []fired{{"BalenaExporterDown", labels + critical, lasts - downAfter}}
}

func isRefused(labels string, lasts int) []fired {
	return []fired{{"BalenaAPIFailing", labels + warning, lasts - failingAfter}, {"BalenaDataStale", labels + critical, lasts - staleAfter}}
}

// isGone returns the alerts on missing fleets, which last for a day.
func isGone(lasts int, fleets ...string) (alerts []fired) {
	for _, fleet := range fleets {
		alerts = append(alerts, fired{"BalenaFleetGone", fmt.Sprintf(`fleet=%q`, fleet) + warning, min(lasts, day/60-1) - goneAfter})
	}
	return alerts
}

// An installation is a set of exporters, some of which have a trouble.
type installation struct {
	name     string
	targets  []target
	troubled []int
	// alerts returns the expected alerts.
	alerts func(trouble string, alerts func(labels string, lasts int) []fired, lasts int) []fired
}

// installations returns all kinds of installations, with accounts of this name.
func installations(name string) []installation {
	fleets := []string{name + "/pumps", name + "/valves"}
	shard := func(n int) string { return fmt.Sprintf(`%s,shard="%d"`, account(name), n) }
	one := target{account(name), "10.0.0.1:8000", fleets}
	other := target{account(name + "-other"), "10.0.0.2:8000", []string{name + "-other/kiosks"}}
	shards := []target{
		{shard(0), "10.0.0.1:8000", fleets[:1]}, {shard(1), "10.0.0.2:8000", fleets[1:]}, {shard(2), "10.0.0.3:8000", nil},
	}
	again := one
	again.instance = "10.0.0.3:8000"
	ownAlerts := func(labels string) func(string, func(string, int) []fired, int) []fired {
		return func(_ string, alerts func(string, int) []fired, lasts int) []fired { return alerts(labels, lasts) }
	}
	return []installation{
		{"one of two accounts", []target{other, one}, []int{1}, ownAlerts(account(name))},
		{
			"one of two jobs", []target{{`job="` + name + `"`, "10.0.0.1:8000", fleets}, other}, []int{0}, ownAlerts(`job="` + name + `"`),
		},
		{"one of three shards", shards, []int{1}, func(trouble string, alerts func(string, int) []fired, lasts int) []fired {
			if trouble == "blind" { // Another shard has fleets, so those of this shard are missing.
				return isGone(lasts, fleets[1:]...)
			}
			return alerts(shard(1), lasts)
		}},
		{"all shards", shards, []int{0, 1, 2}, func(trouble string, alerts func(string, int) []fired, lasts int) (all []fired) {
			if trouble == "blind" {
				return alerts(account(name), lasts)
			}
			for n := range shards {
				all = append(all, alerts(shard(n), lasts)...)
			}
			return all
		}},
		{"one of two replicas", []target{one, again}, []int{1}, ownAlerts("")},
		{"both replicas", []target{one, again}, []int{0, 1}, ownAlerts(account(name))},
	}
}

// Each exporter with a trouble has an alert that identifies it and lasts as long as the trouble. The others have none.
func TestAlertsIdentifyTheExporter(t *testing.T) {
	const lasts = 40
	for _, kind := range installations("acme") {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			var tests []unitTest
			for _, trouble := range troubles {
				h := history{targets: kind.targets, troubled: kind.troubled, trouble: trouble.trouble, before: 30, lasts: lasts, after: 30}
				tests = append(tests, h.test(kind.name+" "+trouble.name, kind.expected(trouble.name, trouble.alerts, lasts)...))
			}
			run(t, tests)
		})
	}
}

func (i installation) expected(trouble string, alerts func(string, int) []fired, lasts int) []fired {
	if i.name == "one of two replicas" { // the other replica remains
		return nil
	}
	return i.alerts(trouble, alerts, lasts)
}

// Simultaneous troubles for two days, in separate installations: alerts last, and do not hide each other.
func TestAlertsLast(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute of CPU")
	}
	t.Parallel()
	in := map[string][]string{
		"vanished":  {"one of two accounts", "one of three shards", "one of two replicas"},
		"crashing":  {"one of two accounts"},
		"refused":   {"one of two replicas"},
		"restarted": {"one of two accounts"},
		"blind":     {"one of two accounts", "one of three shards"},
	}
	const lasts = 2 * day / 60
	all := history{before: 30, lasts: lasts, after: 30}
	var series []series
	var want []fired
	for _, trouble := range troubles {
		for n, kind := range installations("acme") {
			if !slices.Contains(in[trouble.name], kind.name) {
				continue
			}
			kind = installations(fmt.Sprintf("%s%d", trouble.name, n))[n]
			h := history{targets: kind.targets, troubled: kind.troubled, trouble: trouble.trouble, before: all.before, lasts: lasts, after: all.after}
			series = append(series, h.series()...)
			want = append(want, kind.expected(trouble.name, trouble.alerts, lasts)...)
		}
	}
	test := all.test("all troubles", want...)
	test.Series = series
	run(t, []unitTest{test})
}

// If another exporter takes over the fleets, no alert fires, neither immediately nor a day later.
func TestExportersMove(t *testing.T) {
	t.Parallel()
	all := history{before: 30, lasts: day/60 + 60}
	shard := func(account, n string) string { return account + `,shard="` + n + `"` }
	var series []series
	move := func(from, to []target) {
		series = append(series, history{targets: from, troubled: []int{0, 1, 2}, trouble: vanished, before: all.before, lasts: all.lasts}.series()...)
		began := func(t target, lasts, minute int) map[string]float64 {
			if lasts < all.before+2 {
				return nil
			}
			return fine(t, lasts, minute)
		}
		series = append(series, history{targets: to, troubled: []int{0, 1, 2}, trouble: began, lasts: all.minutes()}.series()...)
	}
	// A job is renamed.
	move([]target{{`job="old"`, "10.0.0.1:8000", []string{"job/pumps"}}}, []target{{`job="new"`, "10.0.0.1:8000", []string{"job/pumps"}}})
	// One exporter becomes three, one of them without fleets; three become one; three become two.
	for name, change := range map[string]struct{ from, to [][]string }{
		"more":  {[][]string{{"more/a", "more/b"}}, [][]string{{"more/a"}, {"more/b"}, nil}},
		"one":   {[][]string{{"one/a"}, {"one/b"}, nil}, [][]string{{"one/a", "one/b"}}},
		"fewer": {[][]string{{"fewer/a"}, {"fewer/b"}, {"fewer/c"}}, [][]string{{"fewer/a", "fewer/c"}, {"fewer/b"}}},
	} {
		targets := func(fleets [][]string, network int) (all []target) {
			for n, some := range fleets {
				labels := account(name)
				if len(fleets) > 1 {
					labels = shard(labels, strconv.Itoa(n))
				}
				all = append(all, target{labels, fmt.Sprintf("10.0.%d.%d:8000", network, n), some})
			}
			return all
		}
		move(targets(change.from, 1), targets(change.to, 2))
	}
	test := all.test("moves")
	test.Series = series
	run(t, []unitTest{test})
}
