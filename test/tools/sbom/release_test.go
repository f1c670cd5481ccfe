// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"errors"
	"flag"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
)

var releaseDirectory = flag.String("release", "", "`directory` that make release wrote")

// A release has what is announced, and a bill of materials of each artifact but the chart. Each tarball contains the
// programs of its platform, which are static, the licenses and the notices; the bill of materials has their checksums.
func TestRelease(t *testing.T) {
	if *releaseDirectory == "" {
		t.Skip("make test-artifacts names the directory of a release")
	}
	b, err := os.ReadFile("../../../VERSION")
	if err != nil {
		t.Fatal(err)
	}
	version := strings.TrimSpace(string(b))
	tarballs := map[string]string{ // the platform as Go knows it
		"linux-amd64": "linux/amd64", "linux-arm64": "linux/arm64", "linux-armv7": "linux/arm/7",
		"darwin-amd64": "darwin/amd64", "darwin-arm64": "darwin/arm64", "windows-amd64": "windows/amd64",
	}
	want := []string{"image", "sbom", "sha256sums.txt", "balena-exporter-" + version + ".tgz", "balena-exporter-" + version + ".windows-amd64.zip"}
	for _, architecture := range []string{"amd64", "arm64", "armhf"} {
		want = append(want, "balena-exporter_"+version+"-1_"+architecture+".deb")
	}
	for _, architecture := range []string{"x86_64", "aarch64", "armv7hl"} {
		want = append(want, "balena-exporter-"+version+"-1."+architecture+".rpm")
	}
	for name, platform := range tarballs {
		file := "balena-exporter-" + version + "." + name + ".tar.gz"
		want = append(want, file)
		t.Run(name, func(t *testing.T) { checkTarball(t, file, platform) })
	}
	entries, err := os.ReadDir(*releaseDirectory)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
		if e.Name() == "sbom" || e.Name() == "sha256sums.txt" || strings.HasSuffix(e.Name(), ".tgz") {
			continue
		}
		checksum := find(t, parse(t, sbomOf(e.Name())), e.Name()).PackageChecksums[0].Value
		if e.IsDir() {
			layout, err := readLayout(filepath.Join(*releaseDirectory, e.Name()))
			if err != nil {
				t.Error(err)
			} else if layout.sha256 != checksum || len(layout.programs) != 3 {
				t.Errorf("the bill of materials of the image is of %s, want %s; programs: %d, want 3", checksum, layout.sha256, len(layout.programs))
			}
			continue
		}
		b, err := os.ReadFile(filepath.Join(*releaseDirectory, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if digest(b) != checksum {
			t.Errorf("the bill of materials of %s is of other contents", e.Name())
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the release has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func checkTarball(t *testing.T, name, platform string) {
	document := parse(t, sbomOf(name))
	file, err := os.Open(filepath.Join(*releaseDirectory, name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	uncompressed, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	directory := strings.TrimSuffix(name, ".tar.gz")
	var got []string
	for files := tar.NewReader(uncompressed); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeDir {
			continue
		}
		if path.Dir(header.Name) != directory {
			t.Errorf("%s is not in the directory %s", header.Name, directory)
		}
		base := path.Base(header.Name)
		got = append(got, strings.TrimSuffix(base, ".exe"))
		if !strings.HasPrefix(base, "balena-") {
			continue
		}
		contents, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		if p := find(t, document, base); p.PackageChecksums[0].Value != digest(contents) {
			t.Errorf("the bill of materials has another %s", base)
		}
		build, err := buildinfo.Read(bytes.NewReader(contents))
		if err != nil {
			t.Fatal(err)
		}
		settings := map[string]string{}
		for _, s := range build.Settings {
			settings[s.Key] = s.Value
		}
		if got := path.Join(settings["GOOS"], settings["GOARCH"], settings["GOARM"]); got != platform {
			t.Errorf("%s is for %s, want %s", base, got, platform)
		}
		if settings["CGO_ENABLED"] != "0" || settings["-trimpath"] != "true" || header.Mode != 0o755 {
			t.Errorf("%s has the mode %o and is built with %v", base, header.Mode, settings)
		}
	}
	slices.Sort(got)
	if want := []string{"CHANGELOG.md", "LICENSE", "NOTICE", "README.md", "balena-exporter", "balena-simulator"}; !slices.Equal(got, want) {
		t.Errorf("it contains %v, want %v", got, want)
	}
}

func sbomOf(artifact string) string {
	return filepath.Join(*releaseDirectory, "sbom", artifact+".spdx.json")
}

func parse(t *testing.T, file string) *spdx.Document {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	document, err := json.Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return document
}
