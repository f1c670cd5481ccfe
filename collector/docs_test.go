// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/balena-exporter/balena-exporter/collector"
)

const catalogFile = "../docs/metrics.md"

// TestCatalogIsDocumented compares the tables of docs/metrics.md with the code; -update writes them.
func TestCatalogIsDocumented(t *testing.T) {
	documented, err := os.ReadFile(catalogFile)
	if err != nil {
		t.Fatal(err)
	}
	table := regexp.MustCompile(`(?s)(<!-- table: ([^>]+) -->\n).*?(<!-- end -->)`)
	found := map[string]bool{}
	got := table.ReplaceAllStringFunc(string(documented), func(part string) string {
		m := table.FindStringSubmatch(part)
		found[m[2]] = true
		return m[1] + markdown(m[2]) + m[3]
	})
	for _, d := range collector.Catalog() {
		if !found[d.Group] {
			t.Errorf("%s has no table for the group %s", catalogFile, d.Group)
			found[d.Group] = true
		}
	}
	golden(t, catalogFile, got)
}

// TestEveryFamilyHasASampleInAGoldenFile checks that the golden files contain all families.
func TestEveryFamilyHasASampleInAGoldenFile(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	found := map[string]bool{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			name, _, _ := strings.Cut(line, " ")
			name, _, _ = strings.Cut(name, "{")
			found[strings.TrimSuffix(name, "_count")] = true // of a histogram
		}
	}
	for _, d := range collector.Catalog() {
		if !found[d.Name] {
			t.Errorf("%s is documented, but has no sample in any golden file", d.Name)
		}
	}
}

// TestDocumentedMetricsExist checks that the metrics in the documentation exist.
func TestDocumentedMetricsExist(t *testing.T) {
	known := map[string]bool{"balena_exporter_build_info": true}
	for _, d := range collector.Catalog() {
		known[d.Name] = true
		if d.Type == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				known[d.Name+suffix] = true
			}
		}
	}
	name := regexp.MustCompile(`\bbalena_[a-z0-9_]*[a-z0-9]\b`)
	for _, file := range []string{catalogFile, "../README.md", "../docs/scaling.md"} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range name.FindAllString(string(content), -1) {
			if !known[m] && !strings.HasPrefix(m, "balena_exporter_web") {
				t.Errorf("%s contains %s, which does not exist", file, m)
			}
		}
	}
}

// markdown returns a group of the catalog as a table.
func markdown(group string) string {
	var b strings.Builder
	b.WriteString("| metric | labels | meaning | source | series |\n|---|---|---|---|---|\n")
	for _, d := range collector.Catalog() {
		if d.Group != group {
			continue
		}
		name := "`" + d.Name + "`"
		if d.Type != "gauge" {
			name += " (" + d.Type + ")"
		}
		labels := "–"
		if len(d.Labels) > 0 {
			labels = strings.ReplaceAll("`"+strings.Join(d.Labels, "`, `")+"`", "`tag__`", "`tag_…`")
		}
		meaning := d.Help
		if d.Only != "" {
			meaning += " **Only on " + d.Only + ".**"
		}
		source := "the exporter"
		if d.Source != "" {
			source = "`" + d.Source + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, labels, meaning, source, d.Series)
	}
	return b.String()
}
