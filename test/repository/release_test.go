// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The notes of a release are what the changelog says about its version. A tag of another version and a version without
// notes are errors.
func TestReleaseNotes(t *testing.T) {
	const changelog = `## Unreleased

* [FEATURE] Later.

## 0.2.0 / 2026-12-01

Some words.

* [CHANGE] One.
* [BUGFIX] Two.

## 0.2.0-rc.1 / 2026-11-30

* [FEATURE] Candidate.

## 0.1.0 / 2026-11-23

## 0.0.1 / 2026-11-22

* [FEATURE] First.
`
	for _, c := range []struct {
		name, version, tag, changelog string
		want, wantErr                 string
	}{
		{"the version's section", "0.2.0", "v0.2.0", changelog, "Some words.\n\n* [CHANGE] One.\n* [BUGFIX] Two.\n", ""},
		{"a release candidate", "0.2.0-rc.1", "v0.2.0-rc.1", changelog, "* [FEATURE] Candidate.\n", ""},
		{"the last section", "0.0.1", "v0.0.1", changelog, "* [FEATURE] First.\n", ""},
		{"another tag", "0.2.0", "v0.1.0", changelog, "", "The tag v0.1.0 is not the version 0.2.0"},
		{"a tag without v", "0.2.0", "0.2.0", changelog, "", "The tag 0.2.0 is not the version 0.2.0"},
		{"no section", "0.3.0", "v0.3.0", changelog, "", "CHANGELOG.md has no notes for 0.3.0"},
		{"an empty section", "0.1.0", "v0.1.0", changelog, "", "CHANGELOG.md has no notes for 0.1.0"},
		{"a version that another one begins with", "0.2", "v0.2", changelog, "", "CHANGELOG.md has no notes for 0.2:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			script, err := filepath.Abs(filepath.Join(root, "test/release/notes.sh"))
			if err != nil {
				t.Fatal(err)
			}
			command := exec.CommandContext(t.Context(), script, c.tag)
			command.Dir = t.TempDir()
			for name, contents := range map[string]string{"VERSION": c.version + "\n", "CHANGELOG.md": c.changelog} {
				if err := os.WriteFile(filepath.Join(command.Dir, name), []byte(contents), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var stderr strings.Builder
			command.Stderr = &stderr
			out, err := command.Output()
			if (err != nil) != (c.wantErr != "") || !strings.Contains(stderr.String(), c.wantErr) {
				t.Errorf("error %v: %q, want %q", err, stderr.String(), c.wantErr)
			}
			if string(out) != c.want {
				t.Errorf("notes\n%s\nwant\n%s", out, c.want)
			}
		})
	}
}

// The commands that the README has for installation and verification are for the version in VERSION.
func TestInstallationIsOfThisVersion(t *testing.T) {
	version := strings.TrimSpace(read(t, "VERSION"))
	_, section, _ := strings.Cut(read(t, "README.md"), "\n## Run it\n")
	section, _, _ = strings.Cut(section, "\n## ")
	named := regexp.MustCompile(`balena-exporter[:_-](\d[^ ]*?)(?:-1[._]|\.linux|[`+"`"+`\n])|refs/tags/v([^'\n]+)`).FindAllStringSubmatch(section, -1)
	for _, m := range named {
		if got := m[1] + m[2]; got != version {
			t.Errorf("README.md installs or verifies %s, VERSION is %s", got, version)
		}
	}
	if len(named) < 6 {
		t.Errorf("README.md names only %d versions: %q", len(named), named)
	}
}
