// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/balena-exporter/balena-exporter"
)

// read returns a file of the repository.
func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// find returns the paths of all files with a name, relative to the root and sorted. It leaves out files that are not part
// of the repository: build results, and the files of Git and npm.
func find(t *testing.T, name string) []string {
	t.Helper()
	var found []string
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "bin", "node_modules", ".build", ".tarballs", ".release"}, d.Name()):
			return fs.SkipDir
		}
		if ok, _ := filepath.Match(name, d.Name()); ok && !d.IsDir() {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
