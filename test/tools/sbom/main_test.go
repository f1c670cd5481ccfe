// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/spdx/tools-golang/spdx"
)

const epoch = "1790000000" // 2026-09-21 14:13:20 UTC

// A document names the artifact, the program in it, and each module that is linked into that, with its version, hash and
// license. The program is the one that runs this test.
func TestDocumentNamesWhatIsLinked(t *testing.T) {
	self := executable(t)
	build, err := buildinfo.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	d := documentOf(t, artifactFile(t), self)
	if d.CreationInfo.Created != "2026-09-21T14:13:20Z" {
		t.Errorf("created %s", d.CreationInfo.Created)
	}
	if len(d.Packages) != 3+len(build.Deps) {
		t.Errorf("%d packages, want the artifact, the program, Go's standard library and %d modules", len(d.Packages), len(build.Deps))
	}
	if p := find(t, d, "thing.tar.gz"); p.PackageChecksums[0].Value != digest([]byte("an archive")) || p.PrimaryPackagePurpose != "ARCHIVE" {
		t.Errorf("the artifact is %+v", p)
	}
	if p := find(t, d, "stdlib"); p.PackageVersion != strings.TrimPrefix(build.GoVersion, "go") || p.PackageLicenseDeclared != "BSD-3-Clause" {
		t.Errorf("the standard library is %+v", p)
	}
	for _, m := range build.Deps {
		p := find(t, d, m.Path)
		if p.PackageVersion != m.Version || p.PackageSourceInfo != "go.sum "+m.Sum || p.PackageLicenseDeclared != "Apache-2.0 AND MIT" ||
			p.PackageExternalReferences[0].Locator != "pkg:golang/"+m.Path+"@"+m.Version {
			t.Errorf("%s %s is %+v", m.Path, m.Version, p)
		}
		linked := false
		for _, r := range d.Relationships {
			linked = linked || r.Relationship == "STATIC_LINK" && r.RefB.ElementRefID == p.PackageSPDXIdentifier
		}
		if !linked {
			t.Errorf("nothing links %s", m.Path)
		}
	}
}

// The same artifact gives the same bytes.
func TestDocumentIsReproducible(t *testing.T) {
	artifact, notice := artifactFile(t), noticeFile(t)
	var written [2][]byte
	for i := range written {
		file := filepath.Join(t.TempDir(), "one.json")
		if err := write(file, "1.2.3", notice, epoch, artifact, []string{executable(t)}); err != nil {
			t.Fatal(err)
		}
		var err error
		if written[i], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(written[0], written[1]) {
		t.Error("two documents of one artifact differ")
	}
}

// The document of an OCI layout has the programs of all its platforms. Modules that they share are there once.
func TestImagesOfAllPlatforms(t *testing.T) {
	layout, index := ociLayout(t)
	d := documentOf(t, layout)
	var platforms []string
	seen := map[string]int{}
	for _, p := range d.Packages {
		seen[p.PackageName]++
		if p.PackageComment != "" {
			platforms = append(platforms, p.PackageComment)
		}
	}
	if got, want := strings.Join(platforms, " "), "In the image for linux/amd64. In the image for linux/arm/v7."; got != want {
		t.Errorf("platforms %q, want %q", got, want)
	}
	if p := find(t, d, "image"); p.PackageChecksums[0].Value != index || p.PrimaryPackagePurpose != "CONTAINER" {
		t.Errorf("the image is %+v, want the digest %s", p, index)
	}
	if seen["thing"] != 2 || seen["stdlib"] != 1 {
		t.Errorf("the program is there %d times and the standard library %d times, want 2 and 1", seen["thing"], seen["stdlib"])
	}
}

// What cannot be described is an error that names it.
func TestErrors(t *testing.T) {
	artifact, self, notice := artifactFile(t), executable(t), noticeFile(t)
	text := filepath.Join(t.TempDir(), "text")
	save(t, text, []byte("no program"))
	noTable := filepath.Join(t.TempDir(), "NOTICE")
	save(t, noTable, []byte("nothing"))
	oneLess := filepath.Join(t.TempDir(), "NOTICE")
	b, err := os.ReadFile(notice)
	if err != nil {
		t.Fatal(err)
	}
	save(t, oneLess, bytes.Replace(b, []byte("github.com/spdx/tools-golang"), []byte("github.com/another/module"), 1))
	changed, _ := ociLayout(t)
	blobs, err := filepath.Glob(filepath.Join(changed, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, blob := range blobs {
		save(t, blob, []byte("{}"))
	}
	for _, c := range []struct {
		name, notice, epoch, artifact string
		programs                      []string
		want                          string
	}{
		{"no program", notice, epoch, artifact, nil, "contains no program"},
		{"not a Go program", notice, epoch, artifact, []string{text}, "text: unrecognized file format"},
		{"a module without a license", oneLess, epoch, artifact, []string{self}, "NOTICE does not have the license of github.com/spdx/tools-golang"},
		{"no table of licenses", noTable, epoch, artifact, []string{self}, "has no table of modules"},
		{"no time", notice, "", artifact, []string{self}, "SOURCE_DATE_EPOCH is not a number of seconds"},
		{"a changed image", notice, epoch, changed, nil, "has other contents than its name says"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := write(filepath.Join(t.TempDir(), "one.json"), "1.2.3", c.notice, c.epoch, c.artifact, c.programs)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func documentOf(t *testing.T, artifact string, programs ...string) *spdx.Document {
	t.Helper()
	file := filepath.Join(t.TempDir(), "one.json")
	if err := write(file, "1.2.3", noticeFile(t), epoch, artifact, programs); err != nil {
		t.Fatal(err)
	}
	return parse(t, file)
}

func find(t *testing.T, d *spdx.Document, name string) *spdx.Package {
	t.Helper()
	for _, p := range d.Packages {
		if p.PackageName == name {
			return p
		}
	}
	t.Fatalf("%s has no package %s", d.DocumentName, name)
	return nil
}

func executable(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

func save(t *testing.T, file string, contents []byte) {
	t.Helper()
	if err := os.WriteFile(file, contents, 0o600); err != nil {
		t.Fatal(err)
	}
}

func artifactFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "thing.tar.gz")
	save(t, file, []byte("an archive"))
	return file
}

// noticeFile writes a NOTICE with the modules of the program that runs this test.
func noticeFile(t *testing.T) string {
	t.Helper()
	build, err := buildinfo.ReadFile(executable(t))
	if err != nil {
		t.Fatal(err)
	}
	text := "thing\n\n  Go's standard library                         BSD-3-Clause\n"
	for _, m := range build.Deps {
		text += fmt.Sprintf("  %-45s Apache-2.0 and MIT\n", m.Path)
	}
	file := filepath.Join(t.TempDir(), "NOTICE")
	save(t, file, []byte(text))
	return file
}

// ociLayout writes an OCI layout with the program that runs this test as /bin/thing, for two platforms, and returns the
// digest of its index.
func ociLayout(t *testing.T) (directory, digest string) {
	t.Helper()
	self, err := os.ReadFile(executable(t))
	if err != nil {
		t.Fatal(err)
	}
	var content bytes.Buffer
	files := tar.NewWriter(&content)
	for name, contents := range map[string][]byte{"bin/thing": self, "LICENSE": []byte("text")} {
		if err := files.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(contents)), Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write(contents); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content.Bytes())), nil }
	layer, err := tarball.LayerFromOpener(opener, tarball.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	index := v1.ImageIndex(empty.Index)
	for _, platform := range []*v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm", Variant: "v7"}} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	directory = filepath.Join(t.TempDir(), "image")
	if _, err := layout.Write(directory, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index})); err != nil {
		t.Fatal(err)
	}
	hash, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return directory, hash.Hex
}
