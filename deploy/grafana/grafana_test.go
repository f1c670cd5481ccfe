// SPDX-License-Identifier: Apache-2.0

package grafana

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

const directory = "../../charts/balena-exporter/files/dashboards"

func TestFilesAreGeneratedFromHere(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(directory, "*"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, d := range All() {
		file := filepath.Join(directory, d.FileName())
		want[file] = true
		generated, err := d.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if there, err := os.ReadFile(file); err != nil || !bytes.Equal(there, generated) {
			t.Errorf("%s is not what this package generates (%v); run go generate ./deploy/grafana", file, err)
		}
	}
	for _, file := range files {
		if !want[file] {
			t.Errorf("%s is not a generated dashboard; run go generate ./deploy/grafana", file)
		}
	}
}

func TestPanelsFillTheGridAndDoNotOverlap(t *testing.T) {
	for _, d := range All() {
		cells := map[[2]int]string{}
		height := 0
		ids := map[int]bool{}
		for _, p := range d.Panels {
			if ids[p.ID] {
				t.Errorf("%s: two panels have the id %d", d.Title, p.ID)
			}
			ids[p.ID] = true
			height = max(height, p.Position.Y+p.Position.Height)
			for x := p.Position.X; x < p.Position.X+p.Position.Width; x++ {
				for y := p.Position.Y; y < p.Position.Y+p.Position.Height; y++ {
					if other, taken := cells[[2]int{x, y}]; taken {
						t.Errorf("%s: panels %q and %q overlap", d.Title, other, p.Title)
					}
					cells[[2]int{x, y}] = p.Title
				}
			}
		}
		if len(cells) != gridWidth*height {
			t.Errorf("%s: the panels take %d cells of %d", d.Title, len(cells), gridWidth*height)
		}
	}
}

func TestPanelsExplainThemselves(t *testing.T) {
	for _, d := range All() {
		if d.Description == "" {
			t.Errorf("%s: no description", d.Title)
		}
		for _, p := range d.Panels {
			if p.Type == "row" {
				continue
			}
			if !strings.HasSuffix(p.Description, ".") {
				t.Errorf("%s, %s: the description %q is not a sentence", d.Title, p.Title, p.Description)
			}
			if _, hasUnit := p.FieldConfig.Defaults["unit"]; !hasUnit && p.Type != "table" && p.Type != "geomap" && p.Type != "state-timeline" {
				t.Errorf("%s, %s: no unit", d.Title, p.Title)
			}
			for _, target := range p.Targets {
				if target.Instant == target.Range {
					t.Errorf("%s, %s: query %s is both or neither of instant and range", d.Title, p.Title, target.RefID)
				}
			}
		}
	}
}

func TestEveryStateHasAColor(t *testing.T) {
	for _, test := range []struct {
		states []string
		colors []seriesColor
	}{
		{balena.DeviceStatuses, statusColors},
		{balena.HeartbeatStates, heartbeatColors},
		{balena.UpdateStatuses, updateColors},
	} {
		if len(test.colors) != len(test.states) {
			t.Errorf("%d colors for the states %q", len(test.colors), test.states)
		}
	}
}

// TestEveryAgeHasAColor compares the ages with those that the alert rules record.
func TestEveryAgeHasAColor(t *testing.T) {
	rules, err := os.ReadFile("../prometheus/rules/balena-fleets.yml")
	if err != nil {
		t.Fatal(err)
	}
	var recorded, colored []string
	for _, m := range regexp.MustCompile(`(?m)^ +age: (.+)$`).FindAllStringSubmatch(string(rules), -1) {
		recorded = append(recorded, m[1])
	}
	for _, c := range ageColors {
		colored = append(colored, c.name)
	}
	if !slices.Equal(colored, recorded) {
		t.Errorf("the ages %q have colors, the rules record %q", colored, recorded)
	}
}

// TestVariablesAndLinksLeadSomewhere finds misspelled variables, and links to dashboards or variables that do not exist.
func TestVariablesAndLinksLeadSomewhere(t *testing.T) {
	byUID := map[string][]string{}
	for _, d := range All() {
		for _, v := range d.Templating.List {
			byUID[d.UID] = append(byUID[d.UID], v.Name)
		}
	}
	used := regexp.MustCompile(`\$\{?([a-z]\w*)`)
	dashboard := regexp.MustCompile(`/d/([\w-]+)\?([^"]*)`)
	passed := regexp.MustCompile(`var-(\w+)=`)
	for _, d := range All() {
		data, err := d.JSON()
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, m := range used.FindAllStringSubmatch(string(data), -1) {
			found[m[1]] = true
			if !slices.Contains(byUID[d.UID], m[1]) {
				t.Errorf("%s uses the undefined variable %s", d.Title, m[1])
			}
		}
		for _, v := range byUID[d.UID] {
			if !found[v] {
				t.Errorf("%s does not use its variable %s", d.Title, v)
			}
		}
		for _, m := range dashboard.FindAllStringSubmatch(string(data), -1) {
			variables, ok := byUID[m[1]]
			if !ok {
				t.Errorf("%s links to %s, which is not a dashboard", d.Title, m[1])
			}
			for _, v := range passed.FindAllStringSubmatch(m[2], -1) {
				if !slices.Contains(variables, v[1]) {
					t.Errorf("%s passes the variable %s to %s, which does not define it", d.Title, v[1], m[1])
				}
			}
		}
	}
}

// TestTerms checks that the README and the descriptions of panels use the same definition of each term.
func TestTerms(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, definition := range []string{connectedMeans, onlineMeans, operationalMeans, lostMeans, inServiceMeans, inUseMeans, healthyMeans, availableMeans, onTargetMeans} {
		if !strings.Contains(string(readme), "\n* "+definition+"\n") {
			t.Errorf("README.md does not define %q", definition)
		}
		term, _, _ := strings.Cut(definition, ":")
		for _, d := range All() {
			for _, p := range d.Panels {
				if p.Title == term && p.Type == "stat" && !strings.Contains(p.Description, definition) {
					t.Errorf("%s, %s: the description %q does not contain %q", d.Title, p.Title, p.Description, definition)
				}
				if strings.Contains(p.Description, "devices in use") && p.Type == "stat" && !strings.Contains(p.Description, inUseMeans) {
					t.Errorf("%s, %s: the description does not define which devices are in use", d.Title, p.Title)
				}
			}
		}
	}
}

// TestAnnotations checks that every dashboard has firing alerts as annotations, and dashboards of fleets and devices also
// have changes of the target release.
func TestAnnotations(t *testing.T) {
	for _, d := range All() {
		var names []string
		for _, a := range d.Annotations.List[1:] { // after the built-in annotation
			names = append(names, a.(*Annotation).Name)
		}
		want := []string{"Firing alerts", "Rollouts"}
		if d.UID == "balena-exporter" {
			want = want[:1]
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s has the annotations %q, want %q", d.Title, names, want)
		}
	}
}

// TestDeviceVariable checks the names and UUIDs that the regular expression extracts from query results.
func TestDeviceVariable(t *testing.T) {
	var v struct{ Regex string }
	data, err := json.Marshal(deviceVariable)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	// Go accepts the JavaScript syntax of named groups.
	re := regexp.MustCompile(strings.Trim(v.Regex, "/"))
	for result, want := range map[string][]string{
		`{device_name="dark-owl",uuid="c0ffee"} 1 1700000000000`:           {"dark-owl", "c0ffee"},
		`{uuid="c0ffee"} 1 1700000000000`:                                  {"", "c0ffee"},
		`{device_name="",uuid="x" "two` + "\n" + `lines",uuid="c0ffee"} 1`: {`",uuid="x" "two` + "\nlines", "c0ffee"},
	} {
		if got := re.FindStringSubmatch(result); !slices.Equal(got[1:], want) {
			t.Errorf("%s: name and UUID %q, want %q", result, got[1:], want)
		}
	}
}
