// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

const workflow = ".github/workflows/ci.yml"

// The jobs on GitHub make the same targets as .ci/run.
func TestWorkflowMakesWhatCIMakes(t *testing.T) {
	targets := func(file, pattern string) []string {
		var found []string
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(read(t, file), -1) {
			found = append(found, strings.Fields(m[1])...)
		}
		if len(found) < 5 {
			t.Fatalf("%s makes only %v", file, found)
		}
		return found
	}
	whole := targets(".ci/run", `(?m)^section '[^']*' (?:make|newcomer) (.+)$`)
	jobs := targets(workflow, `(?m)^ *- targets: (.+)$`)
	for _, target := range whole {
		if !slices.Contains(jobs, target) {
			t.Errorf("%s lacks %s, which .ci/run makes", workflow, target)
		}
	}
	for _, target := range jobs {
		if !slices.Contains(whole, target) {
			t.Errorf("%s has %s, which .ci/run does not make", workflow, target)
		}
	}
}

// Actions are pinned by the digest of a commit, because a tag can be moved. A comment names the version, for readers and
// Dependabot.
func TestActionsArePinned(t *testing.T) {
	uses := regexp.MustCompile(`uses: +(.+)`).FindAllStringSubmatch(read(t, workflow), -1)
	pinned := regexp.MustCompile(`^[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	for _, u := range uses {
		if !pinned.MatchString(u[1]) {
			t.Errorf("%s: %q is not pinned by a digest with its version", workflow, u[1])
		}
	}
	if len(uses) == 0 {
		t.Errorf("%s uses no action", workflow)
	}
}

// Only jobs that build a container image or run a cluster are privileged.
func TestOnlyTheClusterIsPrivileged(t *testing.T) {
	jobs := regexp.MustCompile(`(?m)^ {2}[a-z]+:\n`).Split(strings.SplitN(read(t, workflow), "\njobs:\n", 2)[1], -1)
	for _, job := range jobs {
		if !strings.Contains(job, "--privileged") {
			continue
		}
		for _, m := range regexp.MustCompile(`- targets: (.+)`).FindAllStringSubmatch(job, -1) {
			if m[1] != "test-image" && m[1] != "e2e" {
				t.Errorf("%s makes %s in a privileged container", workflow, m[1])
			}
		}
	}
}
