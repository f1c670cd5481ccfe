// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Links in documents lead to existing files and headings of the repository.
func TestLinksLeadToFilesAndHeadings(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	code := regexp.MustCompile("(?s)```.*?```")
	count := 0
	for _, file := range []string{"CONTRIBUTING.md", "README.md", "SECURITY.md", "docs/architecture.md", "docs/failures.md", "docs/glossary.md", "docs/privacy.md", "docs/releasing.md", "docs/stability.md"} {
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(read(t, file), ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			count++
			target, heading, _ := strings.Cut(m[1], "#")
			if target == "" {
				target = file
			} else {
				target = path.Join(path.Dir(file), target)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: the link %s leads to no file", file, m[1])
			} else if heading != "" && !headings(t, target)[heading] {
				t.Errorf("%s: the link %s leads to no heading", file, m[1])
			}
		}
	}
	if count < 10 {
		t.Errorf("only %d links were found", count)
	}
}

// The sample of /metrics in README.md consists of lines of the collector's golden files.
func TestSampleIsFromGoldenFiles(t *testing.T) {
	sample := regexp.MustCompile("(?s)```text\n(.*?)```").FindStringSubmatch(read(t, "README.md"))
	if sample == nil {
		t.Fatal("README.md has no sample")
	}
	var golden strings.Builder
	for _, name := range []string{"exporter", "fleets.v7", "devices.v7", "releases.v7"} {
		golden.WriteString(read(t, "collector/testdata/"+name+".txt"))
	}
	for line := range strings.Lines(sample[1]) {
		if !strings.Contains(golden.String(), "\n"+line) {
			t.Errorf("README.md: no golden file has the line %s", line)
		}
	}
}

// headings returns the anchors of the headings of a document, as GitHub forms them.
func headings(t *testing.T, file string) map[string]bool {
	t.Helper()
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(read(t, file), -1) {
		kept := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(m[1]), "")
		anchors[strings.ReplaceAll(kept, " ", "-")] = true
	}
	return anchors
}

// The Go code in docs/architecture.md is part of the packages that it explains.
func TestArchitectureQuotesTheCode(t *testing.T) {
	var code strings.Builder
	for _, file := range find(t, "*.go") {
		for line := range strings.Lines(read(t, file)) {
			code.WriteString(strings.TrimSpace(line) + "\n")
		}
	}
	quotes := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(read(t, "docs/architecture.md"), -1)
	for _, quote := range quotes {
		for line := range strings.Lines(quote[1]) {
			for part := range strings.SplitSeq(strings.TrimSpace(line), "…") {
				if !strings.Contains(code.String(), part) {
					t.Errorf("docs/architecture.md quotes code that does not exist: %s", part)
				}
			}
		}
	}
	if len(quotes) < 3 {
		t.Errorf("docs/architecture.md quotes code only %d times", len(quotes))
	}
}

// Tests and make targets that CONTRIBUTING.md names exist.
func TestContributingNamesExistingTestsAndTargets(t *testing.T) {
	var tests strings.Builder
	for _, file := range find(t, "*_test.go") {
		tests.WriteString(read(t, file))
	}
	text := read(t, "CONTRIBUTING.md")
	for _, m := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(text, -1) {
		if !strings.Contains(tests.String(), "func "+m[1]+"(") {
			t.Errorf("CONTRIBUTING.md names the test %s, which does not exist", m[1])
		}
	}
	for _, m := range regexp.MustCompile("(?m)(?:^|`)make ([a-z -]+[a-z])").FindAllStringSubmatch(text, -1) {
		for target := range strings.FieldsSeq(m[1]) {
			if !regexp.MustCompile(`(?m)^` + target + `:`).MatchString(read(t, "Makefile")) {
				t.Errorf("CONTRIBUTING.md names make %s, which does not exist", target)
			}
		}
	}
}
