// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write NOTICE")

// NOTICE names every module that is linked into the binaries, with its license. It contains what the licenses require:
// the text of licenses other than Apache-2.0, and the notices of modules under Apache-2.0.
func TestNotice(t *testing.T) {
	want := notice(t)
	if *update {
		if err := os.WriteFile(filepath.Join(root, "NOTICE"), []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := read(t, "NOTICE"); got != want {
		t.Errorf("NOTICE does not match the modules that are linked into the binaries: run go generate ./test/repository\n%s", firstDifference(got, want))
	}
}

// linked is a module that is linked into a binary.
type linked struct {
	Path, Dir string
	Main      bool

	licenses []string // by their SPDX identifiers
	texts    []string // texts of the licenses, except Apache-2.0
	notice   string
}

func notice(t *testing.T) string {
	t.Helper()
	modules := linkedModules(t)
	var b strings.Builder
	b.WriteString(`balena-exporter
Copyright The balena-exporter Authors

balena-exporter is licensed under the Apache License 2.0; see LICENSE. Its binaries contain the following Go modules.

`)
	modulesOf := map[string][]string{} // by text
	for i := range modules {
		m := &modules[i]
		m.readLicenses(t)
		fmt.Fprintf(&b, "  %-45s %s\n", m.Path, strings.Join(m.licenses, " and "))
		for _, text := range m.texts {
			modulesOf[text] = append(modulesOf[text], m.Path)
		}
	}
	section := func(title, text string) {
		fmt.Fprintf(&b, "\n%s\n%s\n\n%s\n", strings.Repeat("-", 100), title, text)
	}
	for _, m := range modules {
		if m.notice != "" {
			section("Notice of "+m.Path, m.notice)
		}
	}
	var texts []string
	for text := range modulesOf {
		texts = append(texts, text)
	}
	slices.SortFunc(texts, func(a, b string) int { return cmp.Compare(modulesOf[a][0]+a, modulesOf[b][0]+b) })
	for _, text := range texts {
		section("License of "+strings.Join(modulesOf[text], ",\n           "), text)
	}
	return b.String()
}

// linkedModules returns the modules that are linked into a binary on any of the supported systems, sorted.
func linkedModules(t *testing.T) []linked {
	t.Helper()
	byPath := map[string]linked{}
	for _, system := range []string{"linux", "darwin", "windows"} {
		list := exec.CommandContext(t.Context(), "go", "list", "-buildvcs=false", "-deps", "-json=Module", "./cmd/...")
		list.Dir = root
		list.Env = append(os.Environ(), "GOOS="+system, "GOARCH=amd64", "CGO_ENABLED=0")
		packages, err := list.Output()
		if err != nil {
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				err = fmt.Errorf("%w: %s", err, exit.Stderr)
			}
			t.Fatalf("go list: %v", err)
		}
		for decoder := json.NewDecoder(strings.NewReader(string(packages))); ; {
			var p struct{ Module *linked }
			if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if p.Module != nil && !p.Module.Main {
				byPath[p.Module.Path] = *p.Module
			}
		}
	}
	// The standard library has the same license as golang.org/x/sys.
	library := byPath["golang.org/x/sys"]
	library.Path = "Go's standard library"
	byPath[library.Path] = library
	modules := []linked{}
	for _, m := range byPath {
		modules = append(modules, m)
	}
	slices.SortFunc(modules, func(a, b linked) int { return cmp.Compare(strings.ToLower(a.Path), strings.ToLower(b.Path)) })
	return modules
}

// readLicenses reads the license and notice files of a module.
func (m *linked) readLicenses(t *testing.T) {
	t.Helper()
	files, err := os.ReadDir(m.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		kind, _, _ := strings.Cut(strings.ToUpper(f.Name()), ".")
		if f.IsDir() || !slices.Contains([]string{"LICENSE", "COPYING", "NOTICE"}, kind) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(m.Dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Trim(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n")
		if kind == "NOTICE" {
			m.notice = text
			continue
		}
		licenses := identify(text)
		switch {
		case len(licenses) == 0:
			t.Errorf("%s: the license in %s is unknown: check whether the module may be linked, and add the license to identify", m.Path, f.Name())
		case len(licenses) > 1 || licenses[0] != "Apache-2.0":
			m.texts = append(m.texts, text)
		}
		m.licenses = append(m.licenses, licenses...)
	}
	if len(m.licenses) == 0 {
		t.Errorf("%s has no license", m.Path)
	}
}

// identify returns the SPDX identifiers of the permitted licenses in a text.
func identify(text string) []string {
	words := strings.Join(strings.Fields(text), " ")
	var found []string
	for _, known := range []struct{ identifier, phrase string }{
		{"Apache-2.0", "Apache License Version 2.0, January 2004"},
		{"MIT", "Permission is hereby granted, free of charge, to any person obtaining a copy of this software"},
		{"BSD-3-Clause", "may be used to endorse or promote products derived from this software without specific prior written permission"},
	} {
		if strings.Contains(words, known.phrase) {
			found = append(found, known.identifier)
		}
	}
	return found
}

// firstDifference describes the first line in which two texts differ.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d is\n\t%s\nwant\n\t%s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("it has %d lines, want %d", len(g), len(w))
}
