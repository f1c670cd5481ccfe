// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/balena-exporter/balena-exporter/collector"
)

func readRules(t *testing.T) []rulefmt.Rule {
	t.Helper()
	paths, err := filepath.Glob(rulesGlob)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no rules at %s: %v", rulesGlob, err)
	}
	var rules []rulefmt.Rule
	for _, path := range paths {
		groups, errs := rulefmt.ParseFile(path, false, model.LegacyValidation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
		for _, err := range errs {
			t.Fatal(err)
		}
		for _, group := range groups.Groups {
			rules = append(rules, group.Rules...)
		}
	}
	return rules
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// names returns the names of all alerts.
func names(rules []rulefmt.Rule) []string {
	var names []string
	for _, rule := range rules {
		if rule.Alert != "" {
			names = append(names, rule.Alert)
		}
	}
	slices.Sort(names)
	return names
}

// testedElsewhere are alerts that are not in the table, with the files of their tests.
var testedElsewhere = map[string]string{"BalenaExporterDown": "exporter_down_test.yml", "BalenaDeviceRebooting": "rebooting_test.yml"}

func TestEveryAlertIsTested(t *testing.T) {
	tested := slices.Collect(maps.Keys(testedElsewhere))
	for _, a := range alerts {
		tested = append(tested, a.name)
	}
	slices.Sort(tested)
	if diff := cmp.Diff(names(readRules(t)), tested); diff != "" {
		t.Errorf("alerts (-) and tests (+):\n%s", diff)
	}
	for alert, file := range testedElsewhere {
		if !strings.Contains(readFile(t, "test/prometheus/rules/"+file), `alertname="`+alert+`"`) {
			t.Errorf("%s does not test %s", file, alert)
		}
	}
}

func TestEveryAlertIsComplete(t *testing.T) {
	for _, rule := range readRules(t) {
		if rule.Alert == "" {
			continue
		}
		if severity := rule.Labels["severity"]; !slices.Contains([]string{"critical", "warning", "info"}, severity) {
			t.Errorf("%s has the severity %q", rule.Alert, severity)
		}
		for _, name := range []string{"summary", "description"} {
			if text := rule.Annotations[name]; !strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "}}") {
				t.Errorf("the %s of %s is not a sentence: %q", name, rule.Alert, text)
			}
		}
		if url := rule.Annotations["runbook_url"]; url != runbook(rule.Alert) {
			t.Errorf("the runbook of %s is %s", rule.Alert, url)
		}
		if rule.For == 0 {
			t.Errorf("%s has no for", rule.Alert)
		}
	}
}

// TestEveryConditionHasItsAlert finds conditions without an alert, and alerts without their condition.
func TestEveryConditionHasItsAlert(t *testing.T) {
	rules := readRules(t)
	for _, rule := range rules {
		if rule.Record != "balena:condition" {
			continue
		}
		problem := rule.Labels["problem"]
		i := slices.IndexFunc(rules, func(r rulefmt.Rule) bool { return r.Alert == problem })
		if i < 0 {
			t.Errorf("there is no alert %s", problem)
		} else if want := fmt.Sprintf("balena:problem{problem=%q}", problem); !strings.HasPrefix(strings.TrimPrefix(rules[i].Expr, "sum by (organization, problem) ("), want) {
			t.Errorf("%s has the expression %s", problem, rules[i].Expr)
		}
	}
}

func TestEveryAlertHasItsRunbook(t *testing.T) {
	paths, err := filepath.Glob(root + "/docs/runbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var runbooks []string
	for _, path := range paths {
		runbooks = append(runbooks, strings.TrimSuffix(filepath.Base(path), ".md"))
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(append(names(readRules(t)), outdated.name))), runbooks); diff != "" {
		t.Fatalf("alerts (-) and runbooks (+):\n%s", diff)
	}
	for _, name := range runbooks {
		text := readFile(t, "docs/runbooks/"+name+".md")
		last := -1
		for _, heading := range []string{"# " + name + "\n", "\n## What to look at\n", "\n## What to do\n", "\n## How to silence\n"} {
			i := strings.Index(text, heading)
			if i <= last {
				t.Errorf("%s.md does not have %q at the expected place", name, strings.TrimSpace(heading))
			}
			last = i
		}
		for _, link := range regexp.MustCompile(`\]\((\w+)\.md\)`).FindAllStringSubmatch(text, -1) {
			if !slices.Contains(runbooks, link[1]) {
				t.Errorf("%s.md links to %s.md", name, link[1])
			}
		}
		for _, value := range regexp.MustCompile(`prometheusRule\.thresholds\.(\w+)`).FindAllStringSubmatch(text, -1) {
			if !strings.Contains(readFile(t, "charts/balena-exporter/values.yaml"), "\n    "+value[1]+": ") {
				t.Errorf("%s.md contains an unknown value: %s", name, value[0])
			}
		}
	}
}

// TestDataFreshnessMatchesTheRules compares the durations of alerts in the document with those in the rules.
func TestDataFreshnessMatchesTheRules(t *testing.T) {
	type row struct{ Alert, For string }
	var want, got []row
	for _, rule := range readRules(t) {
		if rule.Alert != "" {
			want = append(want, row{rule.Alert, rule.For.String()})
		}
	}
	want = append(want, row{outdated.name, fmt.Sprint(outdated.after, "m")})
	for _, cells := range regexp.MustCompile(`(?m)^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \|[^|]*\| (\w+) \| [^|]+ \|$`).FindAllStringSubmatch(readFile(t, "docs/data-freshness.md"), -1) {
		if cells[1] != cells[2] {
			t.Errorf("%s links to the runbook of %s", cells[1], cells[2])
		}
		got = append(got, row{cells[1], cells[3]})
	}
	byName := func(a, b row) int { return strings.Compare(a.Alert, b.Alert) }
	slices.SortFunc(want, byName)
	slices.SortFunc(got, byName)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rules (-) and docs/data-freshness.md (+):\n%s", diff)
	}
}

// TestQueriesUseExistingNames finds unknown metrics and labels, which are not errors in PromQL.
func TestQueriesUseExistingNames(t *testing.T) {
	// exists has the labels of each metric, except those of recorded metrics and alerts, which are not checked.
	identity := []string{"job", "account", "shard"}
	exists := map[string][]string{"ALERTS": nil, "up": identity}
	// Metrics of Prometheus for targets on devices, and of node_exporter.
	for _, name := range []string{"up", "node_time_seconds", "node_boot_time_seconds"} {
		exists[name] = append(slices.Clone(identity), "fleet", "uuid")
	}
	for _, d := range collector.Catalog() {
		exists[d.Name] = append(slices.Clone(identity), d.Labels...)
	}
	rules := readRules(t)
	queries := map[string][]string{}
	for _, rule := range rules {
		if rule.Record != "" {
			exists[rule.Record] = nil
		}
		queries["rule "+rule.Alert+rule.Record+rule.Labels["problem"]] = []string{rule.Expr}
	}
	for _, name := range names(rules) {
		for _, block := range regexp.MustCompile("(?s)```promql\n(.*?)```").FindAllStringSubmatch(readFile(t, "docs/runbooks/"+name+".md"), -1) {
			queries[name+".md"] = append(queries[name+".md"], block[1])
		}
		if len(queries[name+".md"]) == 0 {
			t.Errorf("%s.md has no query", name)
		}
	}
	for place, texts := range queries {
		for _, text := range texts {
			expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
			if err != nil {
				t.Errorf("%s: %v", place, err)
				continue
			}
			parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
				selector, ok := node.(*parser.VectorSelector)
				if !ok {
					return nil
				}
				known, ok := exists[selector.Name]
				if !ok {
					t.Errorf("%s: unknown metric %s", place, selector.Name)
				}
				for _, matcher := range selector.LabelMatchers {
					if matcher.Name != model.MetricNameLabel && known != nil && !slices.Contains(known, matcher.Name) {
						t.Errorf("%s: %s has no label %s", place, selector.Name, matcher.Name)
					}
				}
				return nil
			})
		}
	}
	for _, a := range alerts {
		for _, s := range []state{well, a.good, a.bad, a.nearly} {
			for text := range s {
				metric, err := parser.NewParser(parser.Options{}).ParseMetric(text)
				if err != nil {
					t.Fatal(err)
				}
				known, ok := exists[metric.Get(model.MetricNameLabel)]
				if !ok {
					t.Errorf("the test of %s: unknown metric %s", a.name, metric)
				}
				metric.Range(func(l labels.Label) {
					if l.Name != model.MetricNameLabel && !slices.Contains(known, l.Name) {
						t.Errorf("the test of %s: %s has no label %s", a.name, metric, l.Name)
					}
				})
			}
		}
	}
}
