// SPDX-License-Identifier: Apache-2.0

// Package rules tests the alert rules with promtool, and compares the documentation with them.
package rules

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const (
	root      = "../../.."
	rulesGlob = root + "/deploy/prometheus/rules/*.yml"
	promtool  = root + "/bin/tools/promtool"
	// balena is the URL of the balena dashboard.
	balena = "https://dashboard.balena-cloud.com/"
)

// runbook returns the URL of the runbook of an alert, for this version.
func runbook(alert string) string {
	version, err := os.ReadFile(root + "/VERSION")
	if err != nil {
		panic(err)
	}
	return "https://github.com/balena-exporter/balena-exporter/blob/v" + strings.TrimSpace(string(version)) + "/docs/runbooks/" + alert + ".md"
}

// The format of unit tests of promtool. JSON is valid YAML.
type (
	unitTests struct {
		RuleFiles          []string `json:"rule_files"`
		EvaluationInterval string   `json:"evaluation_interval"`
		// GroupOrder is the order in which groups are evaluated at the same time; without it, the order is random.
		GroupOrder []string   `json:"group_eval_order"`
		Tests      []unitTest `json:"tests"`
	}
	unitTest struct {
		Name        string      `json:"name"`
		Interval    string      `json:"interval"`
		Series      []series    `json:"input_series"`
		Alerts      []alertTest `json:"alert_rule_test,omitempty"`
		Expressions []exprTest  `json:"promql_expr_test,omitempty"`
	}
	series struct {
		Series string `json:"series"`
		Values string `json:"values"`
	}
	alertTest struct {
		At    string          `json:"eval_time"`
		Alert string          `json:"alertname"`
		Want  []expectedAlert `json:"exp_alerts"`
	}
	expectedAlert struct {
		Labels      map[string]string `json:"exp_labels"`
		Annotations map[string]string `json:"exp_annotations"`
	}
	exprTest struct {
		Expression string           `json:"expr"`
		At         string           `json:"eval_time"`
		Want       []expectedSample `json:"exp_samples"`
	}
	expectedSample struct {
		Labels string  `json:"labels"`
		Value  float64 `json:"value"`
	}
)

// groups are the groups of rules, each behind those that record what it uses.
var groups = []string{"balena-exporter", "balena-fleets", "balena-availability"}

// run runs unit tests of the rules with promtool.
func run(t *testing.T, tests []unitTest) {
	t.Helper()
	runFiles(t, rulesGlob, tests)
}

func runFiles(t *testing.T, glob string, tests []unitTest) {
	t.Helper()
	rules, err := filepath.Glob(glob)
	if err != nil || len(rules) == 0 {
		t.Fatalf("no rules at %s: %v", glob, err)
	}
	for i := range rules {
		if rules[i], err = filepath.Abs(rules[i]); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.MarshalIndent(unitTests{RuleFiles: rules, EvaluationInterval: "1m", GroupOrder: groups, Tests: tests}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "tests.yml")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	runFile(t, path)
}

func runFile(t *testing.T, path string) {
	t.Helper()
	if err := buildPromtool(); err != nil {
		t.Fatal(err)
	}
	output, err := exec.CommandContext(t.Context(), promtool, "test", "rules", "--diff", path).CombinedOutput()
	if err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, output)
	}
}

var buildPromtool = sync.OnceValue(func() error {
	output, err := exec.Command("make", "-C", root, "bin/tools/promtool").CombinedOutput()
	if err != nil {
		return &buildError{err, string(output)}
	}
	return nil
})

type buildError struct {
	err    error
	output string
}

func (e *buildError) Error() string { return "building promtool: " + e.err.Error() + "\n" + e.output }

func TestPromtoolCheckRules(t *testing.T) {
	if err := buildPromtool(); err != nil {
		t.Fatal(err)
	}
	rules, err := filepath.Glob(rulesGlob)
	if err != nil {
		t.Fatal(err)
	}
	output, err := exec.CommandContext(t.Context(), promtool, append([]string{"check", "rules", "--lint=all", "--lint-fatal"}, rules...)...).CombinedOutput()
	if err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, output)
	}
}

// TestFiles runs the unit tests in YAML files, which test combinations of rules.
func TestFiles(t *testing.T) {
	files, err := filepath.Glob("*_test.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(file, "_test.yml"), func(t *testing.T) {
			t.Parallel()
			runFile(t, file)
		})
	}
}
