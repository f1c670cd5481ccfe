// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"

	ours "github.com/balena-exporter/balena-exporter/deploy/grafana"
)

const module = "github.com/grafana/grafana-foundation-sdk/go"

// Grafana's types reject a field or an option that they do not know, and one that is required and missing.
func TestDashboardsAreWhatGrafanaReads(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	for _, d := range ours.All() {
		for _, mistake := range mistakes(t, data(t, d)) {
			t.Errorf("%s: %s", d.Title, mistake)
		}
	}
}

// The types are strict down to the options of a panel, or the test above would prove nothing.
func TestMistakesAreSeen(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	for name, spoil := range map[string]func(d, panel object){
		"an unknown field of a dashboard": func(d, _ object) { d["colour"] = "red" },
		"an unknown option of a panel":    func(_, panel object) { panel["options"].(object)["colour"] = "red" },
		"a required option left out":      func(_, panel object) { delete(panel["options"].(object), "reduceOptions") },
		"a number for a title":            func(_, panel object) { panel["title"] = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			var d object
			if err := json.Unmarshal(data(t, ours.All()[0]), &d); err != nil {
				t.Fatal(err)
			}
			spoil(d, d["panels"].([]any)[0].(object))
			spoiled, err := json.Marshal(d)
			if err != nil {
				t.Fatal(err)
			}
			if len(mistakes(t, spoiled)) == 0 {
				t.Error("it is not seen")
			}
		})
	}
}

type object = map[string]any

func data(t *testing.T, d *ours.Dashboard) []byte {
	t.Helper()
	b, err := d.JSON()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mistakes reads a dashboard by Grafana's types and returns what they reject.
func mistakes(t *testing.T, data []byte) (list []string) {
	t.Helper()
	var d dashboard.Dashboard //nolint:staticcheck // Grafana 11 reads no newer model
	// An error without a text is none: the types return an empty list of errors for a list of good elements.
	if err := d.UnmarshalJSONStrict(data); err != nil && err.Error() != "" {
		list = strings.Split(err.Error(), "\n")
	}
	return list
}

// Grafana shows a value with an unknown unit, and a color with an unknown name, without any.
func TestUnitsAndColorsExist(t *testing.T) {
	units := unitsOfGrafana(t)
	// The palette that Grafana has names for, its shades, and what is no name.
	color := regexp.MustCompile(`^((super-light-|light-|semi-dark-|dark-)?(red|orange|yellow|green|blue|purple)|text|transparent|#[0-9a-f]{6}|rgba\([0-9, .]+\))$`)
	for _, d := range ours.All() {
		var content any
		if err := json.Unmarshal(data(t, d), &content); err != nil {
			t.Fatal(err)
		}
		walk(content, func(key, value string) {
			switch {
			case key == "unit" && !slices.Contains(units, value):
				t.Errorf("%s has the unit %q, which Grafana does not know", d.Title, value)
			case slices.Contains([]string{"color", "fixedColor", "iconColor"}, key) && !color.MatchString(value):
				t.Errorf("%s has the color %q, which Grafana does not know", d.Title, value)
			}
		})
	}
}

// walk calls f for each text in a decoded JSON value with its key. The properties of overrides have theirs in "id".
func walk(value any, f func(key, value string)) {
	switch value := value.(type) {
	case object:
		for key, v := range value {
			if text, ok := v.(string); ok {
				f(key, text)
			}
			walk(v, f)
		}
		id, _ := value["id"].(string)
		if text, ok := value["value"].(string); ok && id != "" {
			f(id, text)
		}
	case []any:
		for _, v := range value {
			walk(v, f)
		}
	}
}

// unitsOfGrafana reads the constants of the package units, which Go programs cannot list.
func unitsOfGrafana(t *testing.T) (units []string) {
	t.Helper()
	directory, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(directory)), "units", "types_gen.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok {
			unit, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			units = append(units, unit)
		}
		return true
	})
	if !slices.Contains(units, "percentunit") {
		t.Fatalf("these are no units: %q", units)
	}
	return units
}
