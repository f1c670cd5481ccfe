// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"path"
	"slices"
	"strings"
	"testing"
)

// Dependabot watches every Go module, every npm package, the Dockerfiles and the actions, and only directories that exist.
func TestDependabotKnowsAllModules(t *testing.T) {
	listed := map[string][]string{} // directories by ecosystem
	ecosystem := ""
	for line := range strings.Lines(read(t, ".github/dependabot.yml")) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "- package-ecosystem: "); ok {
			ecosystem = name
		}
		if directory, ok := strings.CutPrefix(line, "- /"); ok {
			listed[ecosystem] = append(listed[ecosystem], "/"+directory)
		}
	}
	for ecosystem, file := range map[string]string{"gomod": "go.mod", "npm": "package.json", "docker": "Dockerfile"} {
		var want []string
		for _, name := range find(t, file) {
			want = append(want, path.Join("/", path.Dir(name)))
		}
		slices.Sort(listed[ecosystem])
		slices.Sort(want)
		for _, directory := range want {
			if !slices.Contains(listed[ecosystem], directory) {
				t.Errorf(".github/dependabot.yml, ecosystem %s: %s is missing", ecosystem, directory)
			}
		}
		for _, directory := range listed[ecosystem] {
			if !slices.Contains(want, directory) {
				t.Errorf(".github/dependabot.yml, ecosystem %s: %s has no %s", ecosystem, directory, file)
			}
		}
	}
	if !slices.Equal(listed["github-actions"], []string{"/"}) {
		t.Errorf(".github/dependabot.yml, ecosystem github-actions: %v, want /", listed["github-actions"])
	}
}
