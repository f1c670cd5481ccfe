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
	for _, file := range []string{"CONTRIBUTING.md", "README.md", "SECURITY.md", "docs/architecture.md", "docs/data-freshness.md", "docs/failures.md", "docs/glossary.md", "docs/metrics.md", "docs/privacy.md", "docs/releasing.md", "docs/scaling.md", "docs/stability.md"} {
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

// The query in docs/architecture.md selects the fields of a device, in their order.
func TestArchitectureQuotesAQuery(t *testing.T) {
	query := regexp.MustCompile(`(?s)GET /v7/device\?\$select=(.*?)&`).FindStringSubmatch(read(t, "docs/architecture.md"))
	if query == nil {
		t.Fatal("docs/architecture.md has no query for devices")
	}
	selected := strings.Split(strings.Join(strings.Fields(query[1]), ""), ",")
	_, table, _ := strings.Cut(read(t, "internal/balena/account/fields.go"), "\nvar deviceFields = ")
	table, _, _ = strings.Cut(table, "\n}\n")
	table = strings.Replace(table, "api.ID(", `api.To("id", `, 1) // the field whose name is not in the table
	for _, row := range regexp.MustCompile(`api\.To\("(\w+)"(.*)`).FindAllStringSubmatch(table, -1) {
		if len(selected) > 0 && selected[0] == row[1] {
			selected = selected[1:]
		} else if !strings.Contains(row[2], "on: ") {
			t.Errorf("the query in docs/architecture.md lacks %s", row[1])
		}
	}
	if len(selected) > 0 {
		t.Errorf("the query in docs/architecture.md selects %v, which fields.go does not have in this place", selected)
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

// The worked example of CONTRIBUTING.md uses names that the code has: in its Go code, and in the explanations. The names
// that the example introduces are the exception.
func TestContributingNamesExistingCode(t *testing.T) {
	introduced := map[string]bool{"LockedUntil": true, "balena_device_locked_until_timestamp_seconds": true}
	exists := map[string]bool{}
	word := regexp.MustCompile(`\w+`)
	for _, file := range find(t, "*.go") {
		if path.Dir(file) == "test/repository" {
			continue
		}
		for _, name := range word.FindAllString(read(t, file), -1) {
			exists[name] = true
		}
	}
	_, example, _ := strings.Cut(read(t, "CONTRIBUTING.md"), "\n## Add a metric\n")
	example, _, _ = strings.Cut(example, "\n## ")
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```")
	var code []string
	for _, m := range blocks.FindAllStringSubmatch(example, -1) {
		// What a string or a comment says is not code.
		code = append(code, regexp.MustCompile(`".*?"|//.*`).ReplaceAllString(m[1], ""))
	}
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(blocks.ReplaceAllString(example, ""), -1) {
		if !regexp.MustCompile(`^(make|go|--)|/|\.(go|md)$`).MatchString(m[1]) {
			code = append(code, m[1])
		}
	}
	for _, c := range code {
		for _, name := range word.FindAllString(c, -1) {
			if !exists[name] && !introduced[name] {
				t.Errorf("CONTRIBUTING.md uses %s in %q, which the code does not have", name, strings.TrimSpace(c))
			}
		}
	}
	if len(code) < 30 {
		t.Errorf("CONTRIBUTING.md has only %d pieces of code: %q", len(code), code)
	}
}

// The flags that documents name exist. A flag is code that begins with two dashes.
func TestDocumentsNameExistingFlags(t *testing.T) {
	exists := map[string]bool{}
	for _, dir := range []string{"cmd/balena-exporter", "cmd/balena-simulator"} {
		for _, file := range find(t, "*.go") {
			if path.Dir(file) == dir {
				for _, m := range regexp.MustCompile(`[Ff]lag\("([a-z.-]+)"|flag\.\w+\("([a-z-]+)"`).FindAllStringSubmatch(read(t, file), -1) {
					exists[m[1]+m[2]] = true
				}
			}
		}
	}
	// Those of the exporter toolkit and of kingpin, and one of Prometheus.
	for _, name := range []string{"web.listen-address", "web.config.file", "help", "version", "web.enable-remote-write-receiver"} {
		exists[name] = true
	}
	named := 0
	for _, file := range find(t, "*.md") {
		if dir := path.Dir(file); file != "README.md" && file != "CONTRIBUTING.md" && dir != "docs" && dir != "docs/runbooks" {
			continue
		}
		for _, m := range regexp.MustCompile("`--(?:no-|\\[no-\\])?([a-z][a-z.-]*[a-z])[=`]").FindAllStringSubmatch(read(t, file), -1) {
			if named++; !exists[m[1]] {
				t.Errorf("%s names the flag --%s, which does not exist", file, m[1])
			}
		}
	}
	if named < 100 {
		t.Errorf("only %d flags were found in documents", named)
	}
}

// The runbook of a failing part lists every part.
func TestRunbookListsAllParts(t *testing.T) {
	parts := regexp.MustCompile(`(?m)^\tPart\w+ +PartName = "(\w+)"`).FindAllStringSubmatch(read(t, "internal/balena/snapshot.go"), -1)
	for _, part := range parts {
		if !strings.Contains(read(t, "docs/runbooks/BalenaRefreshPartFailing.md"), "`"+part[1]+"`") {
			t.Errorf("docs/runbooks/BalenaRefreshPartFailing.md lacks the part %s", part[1])
		}
	}
	if len(parts) < 9 {
		t.Errorf("only %d parts were found", len(parts))
	}
}
