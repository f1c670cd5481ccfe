// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/rulefmt"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/deploy/grafana"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

var update = flag.Bool("update", false, "write docs/needed-metrics.md")

// TestNeededMetricsAreDocumented compares docs/needed-metrics.md, which lists the metrics that alerts and dashboards need.
func TestNeededMetricsAreDocumented(t *testing.T) {
	choosable := map[string]bool{}
	for _, d := range collector.Catalog() {
		choosable[d.Name] = d.ScrapeGroup() != exposition.LiveGroup
	}
	rules := readRules(t)
	b := bytes.NewBufferString(`# Metrics that alerts and dashboards need

An alert or a panel has no data without the metrics in its queries. This page lists the metrics that ` + "`--collector.metric-allowlist` and\n`--collector.metric-denylist`" + ` can leave out, see [scaling](scaling.md#choosing-metrics). It is generated.

## Alerts

All alerts on fleets and devices need ` + "`balena_fleet_devices` and `balena_fleet_info`" + ` in addition.

| Alert | Metrics |
|---|---|
`)
	for _, alert := range rules {
		if alert.Alert != "" {
			fmt.Fprintf(b, "| [%s](runbooks/%s.md) | %s |\n", alert.Alert, alert.Alert, list(choosable, needed(rules, alert.Alert, alert.Expr)))
		}
	}
	b.WriteString("\n## Dashboards\n\n| Dashboard | Metrics |\n|---|---|\n")
	for _, d := range grafana.All() {
		families := map[string]bool{}
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				maps.Copy(families, needed(rules, "", target.Expr))
			}
		}
		fmt.Fprintf(b, "| %s | %s |\n", strings.TrimPrefix(d.Title, "balena / "), list(choosable, families))
	}
	file := filepath.Join(root, "docs", "needed-metrics.md")
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(file); err != nil || !bytes.Equal(text, b.Bytes()) {
		t.Errorf("docs/needed-metrics.md is not up to date (%v); run make generate", err)
	}
}

var metricName = regexp.MustCompile(`balena[_:][a-z0-9_:]+`)

// needed returns the families in an expression, and in the rules that record the metrics in it. Conditions are followed only
// for the problem of the alert; rules that all alerts share are not followed.
func needed(rules []rulefmt.Rule, problem, expr string) map[string]bool {
	families := map[string]bool{}
	seen := map[string]bool{"balena:fleet_watched": true, "balena:fleet_off": true}
	var follow func(expr string)
	follow = func(expr string) {
		for _, name := range metricName.FindAllString(expr, -1) {
			if seen[name] {
				continue
			}
			seen[name] = true
			if !strings.Contains(name, ":") {
				families[name] = true
				continue
			}
			if name == "balena:problem" || name == "balena:problem_devices:count_avg1h" {
				name = "balena:condition"
			}
			for _, rule := range rules {
				if rule.Record == name && rule.Labels["problem"] == condition(name, problem) {
					follow(rule.Expr)
				}
			}
		}
	}
	follow(expr)
	return families
}

// condition returns the problem of the recording rule to follow: that of the alert for conditions, empty for other rules.
func condition(record, problem string) string {
	if record == "balena:condition" {
		return problem
	}
	return ""
}

func list(choosable, families map[string]bool) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if choosable[name] {
			names = append(names, "`"+name+"`")
		}
	}
	if names == nil {
		return "–"
	}
	return strings.Join(names, ", ")
}
