// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"
)

// The condition of a disabled alert is removed too, because other rules use it.
func TestDisabledAlertLeavesNothing(t *testing.T) {
	const alert = "BalenaDeviceOverheating"
	rules := func(values string) string { return mustRenderFiles(t, minimal+values)["prometheusrule.yaml"] }
	if text := rules("prometheusRule: {enabled: true}"); !strings.Contains(text, alert) {
		t.Errorf("there is no %s", alert)
	}
	if text := rules("prometheusRule: {enabled: true, overrides: {" + alert + ": {enabled: false}}}"); strings.Contains(text, alert) {
		t.Errorf("%s is disabled, but still present:\n%s", alert, text)
	}
}

// The targets of each release and shard have labels that rules keep. serviceMonitor.account sets the label account.
func TestTargetsHaveTheLabelsOfRules(t *testing.T) {
	const index = "__meta_kubernetes_pod_label_apps_kubernetes_io_pod_index" // of the label apps.kubernetes.io/pod-index
	for values, want := range map[string]string{
		"serviceMonitor: {enabled: true}":            `[{action: replace, targetLabel: account, replacement: iot/metrics}]`,
		"serviceMonitor: {enabled: true}\nshards: 3": `[{action: replace, targetLabel: account, replacement: iot/metrics}, {action: replace, sourceLabels: [` + index + `], targetLabel: shard}]`,
		"serviceMonitor: {enabled: true, account: acme, relabelings: [{action: labeldrop, regex: shard}]}": `[{action: replace, targetLabel: account, replacement: acme}, {action: labeldrop, regex: shard}]`,
	} {
		var relabelings []monitoringv1.RelabelConfig
		if err := yaml.UnmarshalStrict([]byte(want), &relabelings); err != nil {
			t.Fatal(err)
		}
		got := get[*monitoringv1.ServiceMonitor](t, render(t, minimal+values)).Spec.Endpoints[0].RelabelConfigs
		if diff := cmp.Diff(relabelings, got); diff != "" {
			t.Errorf("%s:\n%s", values, diff)
		}
	}
}

// Settings of particular fleets are in the rules, in the same order.
func TestFleetsInRules(t *testing.T) {
	text := mustRenderFiles(t, minimal+`
prometheusRule:
  enabled: true
  excludeFleets: acme/lab-.*
  fleetThresholds:
    - {fleets: acme/kiosk-new, fleetOfflineRatio: 0.7}
    - {fleets: acme/kiosk-.*, fleetOfflineRatio: 0.4, fleetLargelyOfflineRatio: 0.8, fleetShrankRatio: 1}
  offHours:
    - {fleets: acme/kiosk-.*, from: "20:00", to: "05:30"}
    - {fleets: acme/noon, from: "12:09", to: "13:08"}
  thresholds: {exporterJobs: a|b, exporterMissedSeconds: 1209600, watchedKeys: balena-exporter}
`)["prometheusrule.yaml"]
	text = strings.Join(strings.Fields(text), " ")
	for _, want := range []string{
		`group by (job, account, shard, fleet) (balena_fleet_devices{fleet!~"acme/lab-.*"})`,
		`last_over_time(balena:fleet_watched{fleet!~"acme/lab-.*"}[1h])`,
		`>= on (fleet) (0.7 * group by (fleet) (balena:fleet_watched{fleet=~"acme/kiosk-new"}) or 0.4 * group by (fleet) (balena:fleet_watched{fleet=~"acme/kiosk-.*"}) or 0.2 * group by (fleet) (balena:fleet_watched))`,
		`>= on (fleet) (0.8 * group by (fleet) (balena:fleet_watched{fleet=~"acme/kiosk-.*"}) or 0.5 * group by (fleet) (balena:fleet_watched))`,
		`>= on (fleet) (1 * group by (fleet) (balena:fleet_watched{fleet=~"acme/kiosk-.*"}) or 0.1 * group by (fleet) (balena:fleet_watched))`,
		`group by (fleet) (balena:fleet_watched{fleet=~"acme/kiosk-.*"}) and on () (hour() * 60 + minute() >= 1200 or hour() * 60 + minute() < 330) or group by (fleet) (balena:fleet_watched{fleet=~"acme/noon"}) and on () hour() * 60 + minute() >= 729 < 788`,
		`up{job=~"a|b"}`, `last_over_time(balena_up[1209600s])`, `{key_name=~"balena-exporter"}`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no rule has %s", want)
		}
	}
}

// Alerts link to the runbooks of this version, and to Grafana and the balena dashboard if they exist.
func TestLinksOfAlerts(t *testing.T) {
	rules := func(values string) string {
		return mustRenderFiles(t, values)["prometheusrule.yaml"]
	}
	for values, want := range map[string]map[string]bool{
		minimal + "prometheusRule: {enabled: true}": {"dashboard_url: ": false, "balena_url: https://dashboard.balena-cloud.com/devices/{{ $labels.uuid }}/summary": true, "/blob/v" + chartVersion(t) + "/docs/runbooks/": true},
		`balena: {existingSecret: balena-token, apiUrl: "https://api.balena.example.com"}
prometheusRule: {enabled: true, grafanaUrl: "https://grafana.example.com/", runbookBaseUrl: https://runbooks.example.com}`: {
			"dashboard_url: https://grafana.example.com/d/balena-fleet?var-fleet={{ $labels.fleet | urlquery }}": true,
			"dashboard_url: https://grafana.example.com/d/balena-exporter":                                       true,
			"balena_url": false, "runbook_url: https://runbooks.example.com/BalenaFleetGone.md": true,
		},
	} {
		text := strings.Join(strings.Fields(rules(values)), " ")
		for part, contained := range want {
			if strings.Contains(text, part) != contained {
				t.Errorf("%q: rules have %s: %v, want %v", values, part, !contained, contained)
			}
		}
	}
}

// Invalid values of alerts, with a part of the error.
func TestInvalidRules(t *testing.T) {
	for values, want := range map[string]string{
		`overrides: {BalenaFleetGone: {serverity: info}}`:                 "serverity",
		`overrides: {BalenaFleetGone: {for: soon}}`:                       "for",
		`overrides: {BalenaFleetGone: {for: ""}}`:                         "for",
		`offHours: [{fleets: acme/kiosks, from: "25:00", to: "06:00"}]`:   "from",
		`offHours: [{fleets: acme/kiosks, from: "06:00", to: "06:00"}]`:   "prometheusRule.offHours has an entry from 06:00 to 06:00, which is an empty time range",
		`offHours: [{fleets: "", from: "05:00", to: "06:00"}]`:            "fleets",
		`fleetThresholds: [{fleets: acme/kiosks}]`:                        "fleetThresholds",
		`fleetThresholds: [{fleets: acme/kiosks, fleetOfflineRatio: 20}]`: "fleetOfflineRatio",
		`grafanaUrl: grafana.example.com`:                                 "grafanaUrl",
		`maintenanceTag: "repair-*"`:                                      "maintenanceTag",
		`tagLabels: ["site,customer"]`:                                    "tagLabels",
		`pollInterval: daily`:                                             "pollInterval",
	} {
		_, err := renderFiles(loadChart(t), minimal+"prometheusRule: {enabled: true, "+values+"}", releaseOptions)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", values, err, want)
		}
	}
}

// With a long poll interval, devices appear connected for longer, so some alerts have a longer for.
func TestAlertsFollowThePollInterval(t *testing.T) {
	for values, want := range map[string][]string{
		"":                    {"30m", "30m", "[86400s]"},
		"pollInterval: 5m":    {"30m", "30m", "[86400s]"},
		"pollInterval: 1h":    {"5850s", "2h", "[86400s]"},
		"pollInterval: 24h":   {"130050s", "2d", "[172800s]"},
		"pollInterval: 86400": {"130050s", "2d", "[172800s]"},
		"overrides: {BalenaDeviceReducedFunctionality: {for: 1d}}, pollInterval: 24h": {"1d", "2d", "[172800s]"},
		"thresholds: {rolloutSeconds: 1209600}, pollInterval: 24h":                    {"130050s", "2d", "[1209600s]"},
	} {
		spec := get[*monitoringv1.PrometheusRule](t, render(t, minimal+"prometheusRule: {enabled: true, "+values+"}")).Spec
		var got [3]string
		for _, group := range spec.Groups {
			for _, rule := range group.Rules {
				switch {
				case rule.Alert == "BalenaDeviceReducedFunctionality":
					got[0] = string(*rule.For)
				case rule.Alert == "BalenaRolloutNotConverging":
					got[1] = string(*rule.For)
				case rule.Labels["problem"] == "BalenaRolloutNotConverging":
					_, window, _ := strings.Cut(rule.Expr.StrVal, "[")
					got[2] = "[" + strings.SplitAfter(window, "]")[0]
				}
			}
		}
		if diff := cmp.Diff(want, got[:]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", values, diff)
		}
	}
}

func TestThresholdsInRules(t *testing.T) {
	text := mustRenderFiles(t, minimal+`
prometheusRule:
  enabled: true
  thresholds: {deviceLostSeconds: 2592000, rolloutSeconds: 1209600, storageRatio: 0.85, developmentFleets: acme/(lab|.*-dev)}
`)["prometheusrule.yaml"]
	// Numbers are not in exponential notation: 2.592e+06 is not the value of a label, and 1.2096e+06s is not a duration.
	for _, want := range []string{`{seconds="2592000"}`, `[1209600s]`, `> 0.85`, `fleet!~"acme/(lab|.*-dev)"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no rule has %s", want)
		}
	}
}

func TestInvalidThresholds(t *testing.T) {
	for _, threshold := range []string{`developmentFleets: 'a"b'`, `developmentFleets: 'a\.b'`, `deviceLostSeconds: 1.5`, `storageRatio: 90`, `apiFailingFor: soon`} {
		if _, err := renderFiles(loadChart(t), minimal+"prometheusRule: {enabled: true, thresholds: {"+threshold+"}}", releaseOptions); err == nil {
			t.Errorf("%s is accepted", threshold)
		}
	}
}

// The notes describe the metrics and the alert if there are no fleets.
func TestNotesDescribeMissingFleets(t *testing.T) {
	for values, want := range map[string]string{
		"": "the token has no access to any fleet, balena_up is 1 and balena_fleets is 0",
		"fleets: {include: acme/nothing}\nprometheusRule: {enabled: true}": "fleets.include and fleets.exclude exclude all fleets, balena_up is 1 and balena_fleets is 0, " +
			"and there are no metrics of fleets and devices. The alert BalenaNoFleets fires after 15 minutes. The patterns must match the whole slug",
	} {
		if notes := strings.Join(strings.Fields(render(t, minimal+values).notes), " "); !strings.Contains(notes, want) {
			t.Errorf("%s: the notes do not contain %q:\n%s", values, want, notes)
		}
	}
}
