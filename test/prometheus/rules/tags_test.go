// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

// taggedRules are the rules of the chart with prometheusRule.tagLabels [site, customer].
const taggedRules = "testdata/tag-labels.yml"

// site and customer are tags of the device and of the fleet.
var (
	site     = state{`balena_device_tags{fleet="acme/pumps",uuid="c0ffee",tag_site="Essen"}`: constant(1)}
	customer = state{`balena_fleet_tags{fleet="acme/pumps",tag_customer="Initech"}`: constant(1)}
)

// Alerts on devices have the tags of the device, alerts on fleets the tags of the fleet. Without tags the labels are empty.
func TestTagLabels(t *testing.T) {
	for _, a := range alerts {
		if a.labels["fleet"] == "" {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			tagged := a
			tagged.labels = labelSet("tag_customer", "Initech")
			if a.labels["uuid"] != "" {
				tagged.labels = labelSet("tag_site", "Essen")
			}
			maps.Copy(tagged.labels, a.labels)
			story := func(name string, want alert, tags ...state) unitTest {
				good, bad := well.with(a.good).with(tags...), well.with(a.good, a.bad).with(tags...)
				if a.name == "BalenaFleetGone" { // its tags disappear with the fleet
					bad = well.with(a.good, a.bad)
				}
				fires := lead + a.after
				t := timeline{}.then(lead, from(oldPod, good)).then(a.after+1, from(oldPod, bad))
				tests := unitTest{Name: a.name + " " + name, Interval: "1m", Alerts: []alertTest{a.silentAt(fires - 1), want.firesAt(fires)}}
				if a.kept {
					t = append(t, outage(bad)...)
					tests.Expressions = []exprTest{want.firesFor(len(t)-fires, len(t)-1)}
				}
				tests.Series = t.series()
				return tests
			}
			other := state{`balena_device_tags{fleet="acme/pumps",uuid="other",tag_site="Ulm"}`: constant(1), `balena_fleet_tags{fleet="acme/valves",tag_customer="Umbrella"}`: constant(1)}
			runFiles(t, taggedRules, []unitTest{story("tagged", tagged, site, customer, other), story("untagged", a), story("tagged are others", a, other)})
		})
	}
}

// If two exporters have different values of a tag while it changes, the rules do not fail, and there is one alert.
func TestTagsThatDiffer(t *testing.T) {
	t.Parallel()
	a := alertOf(t, "BalenaDeviceOverheating")
	changed := state{}
	for name := range site {
		changed[strings.Replace(name, "Essen", "Ulm", 1)] = constant(1)
	}
	bad := well.with(a.bad, customer)
	both := scrape{targets: map[string]state{oldPod: bad.with(site), newPod: bad.with(changed)}}
	runFiles(t, taggedRules, []unitTest{{
		Name: "differ", Interval: "1m", Series: timeline{}.then(30, both).series(),
		Expressions: []exprTest{{fmt.Sprintf("count(ALERTS{alertname=%q, alertstate=\"firing\"})", a.name), at(29), []expectedSample{{"{}", 1}}}},
	}})
}

// The rules with tags do not fire additional alerts.
func TestTagLabelsFireNothingElse(t *testing.T) {
	t.Parallel()
	runFiles(t, taggedRules, []unitTest{{Name: "well", Interval: "1m", Series: timeline{}.then(60, from(oldPod, well.with(site, customer))).series(), Expressions: []exprTest{neverFired(".+", 59)}}})
}
