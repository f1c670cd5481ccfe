// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The drawing in docs/architecture.md has an arrow for each import between packages of the project, and no
// other arrow. It does not show the programs in test and deploy, nor imports in tests.
func TestDrawingShowsTheImports(t *testing.T) {
	drawn, imported := arrows(t), imports(t)
	for arrow := range imported {
		if !drawn[arrow] {
			t.Errorf("the drawing in docs/architecture.md lacks the arrow %s: %s imports it", arrow, imported[arrow])
		}
	}
	for arrow := range drawn {
		if imported[arrow] == "" {
			t.Errorf("the drawing in docs/architecture.md has the arrow %s, but there is no such import", arrow)
		}
	}
	if len(imported) < 10 {
		t.Errorf("only %d imports were found: %v", len(imported), imported)
	}
}

// The drawing and the table have the same packages.
func TestDrawingAndTableHaveTheSamePackages(t *testing.T) {
	drawn := map[string]bool{}
	for arrow := range arrows(t) {
		from, to, _ := strings.Cut(arrow, " -> ")
		drawn[from], drawn[to] = true, true
	}
	described := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| \\[`([^`]+)`\\]\\(([^)]+)\\) \\|").FindAllStringSubmatch(read(t, "docs/architecture.md"), -1) {
		described[row[1]] = true
		if want := "../" + row[1]; row[2] != want {
			t.Errorf("the table's link of %s leads to %s, want %s", row[1], row[2], want)
		}
	}
	for name := range drawn {
		if !described[name] {
			t.Errorf("the table in docs/architecture.md lacks the package %s, which is in the drawing", name)
		}
	}
	for name := range described {
		// The program of the simulator imports the simulator, so both are in the drawing too.
		if !drawn[name] {
			t.Errorf("the drawing in docs/architecture.md lacks the package %s, which is in the table", name)
		}
	}
}

// arrows returns the arrows of the Mermaid drawing in docs/architecture.md as "from -> to", with the paths of the packages.
func arrows(t *testing.T) map[string]bool {
	t.Helper()
	drawing := regexp.MustCompile("(?s)```mermaid\n(.*?)```").FindStringSubmatch(read(t, "docs/architecture.md"))
	if drawing == nil {
		t.Fatal("docs/architecture.md has no drawing")
	}
	names := map[string]string{}
	for _, node := range regexp.MustCompile(`(\w+)\["([^"<]+)`).FindAllStringSubmatch(drawing[1], -1) {
		names[node[1]] = node[2]
	}
	found := map[string]bool{}
	for line := range strings.Lines(drawing[1]) {
		from, to, ok := strings.Cut(strings.TrimSpace(line), " --> ")
		if !ok {
			continue
		}
		for target := range strings.SplitSeq(to, " & ") {
			if names[from] == "" || names[target] == "" {
				t.Fatalf("the arrow %q leads to or from a box without a name", strings.TrimSpace(line))
			}
			found[names[from]+" -> "+names[target]] = true
		}
	}
	return found
}

// imports returns the imports between packages of the project as "from -> to", each with a file that has the import.
func imports(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, name := range find(t, "*.go") {
		from := path.Dir(name)
		top, _, _ := strings.Cut(from, "/")
		if strings.HasSuffix(name, "_test.go") || top == "test" || top == "deploy" {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if to, ok := strings.CutPrefix(imported, module+"/"); ok {
				found[from+" -> "+to] = name
			}
		}
	}
	return found
}
