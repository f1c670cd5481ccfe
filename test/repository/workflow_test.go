// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"path"
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
	pinned := regexp.MustCompile(`^[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	digests := map[string]string{} // by action
	for _, file := range find(t, "*.yml") {
		if path.Dir(file) != ".github/workflows" {
			continue
		}
		uses := regexp.MustCompile(`uses: +(.+)`).FindAllStringSubmatch(read(t, file), -1)
		for _, u := range uses {
			if !pinned.MatchString(u[1]) {
				t.Errorf("%s: %q is not pinned by a digest with its version", file, u[1])
			}
			action, digest, _ := strings.Cut(u[1], "@")
			if before := digests[action]; before != "" && before != digest {
				t.Errorf("%s: %s is pinned to %s and elsewhere to %s", file, action, digest, before)
			}
			digests[action] = digest
		}
		if len(uses) == 0 {
			t.Errorf("%s uses no action", file)
		}
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
			if !slices.Contains([]string{"test-image", "release test-release", "e2e"}, m[1]) {
				t.Errorf("%s makes %s in a privileged container", workflow, m[1])
			}
		}
	}
}

// Each job of the release workflow has only the rights that it needs. The privileged one may write nothing.
func TestReleaseHasFewRights(t *testing.T) {
	const release = ".github/workflows/release.yml"
	head, body, _ := strings.Cut(read(t, release), "\njobs:\n")
	if !strings.Contains(head, "\npermissions: {}\n") {
		t.Errorf("%s gives rights to all jobs", release)
	}
	want := map[string]string{
		"build":    "contents: read",
		"publish":  "contents: read, id-token: write, packages: write",
		"announce": "contents: write",
	}
	names := regexp.MustCompile(`(?m)^ {2}([a-z]+):\n`)
	jobs := names.Split(body, -1)[1:]
	for i, name := range names.FindAllStringSubmatch(body, -1) {
		var rights []string
		if block := regexp.MustCompile(`(?m)^ {4}permissions:\n((?: {6}.+\n)+)`).FindStringSubmatch(jobs[i]); block != nil {
			for line := range strings.Lines(block[1]) {
				rights = append(rights, strings.TrimSpace(line))
			}
		}
		if got := strings.Join(rights, ", "); got != want[name[1]] {
			t.Errorf("%s: the job %s may %q, want %q", release, name[1], got, want[name[1]])
		}
		if strings.Contains(jobs[i], "--privileged") && name[1] != "build" {
			t.Errorf("%s: the job %s is privileged", release, name[1])
		}
		if strings.Contains(jobs[i], "actions/checkout@") && !strings.Contains(jobs[i], "persist-credentials: false") {
			t.Errorf("%s: the job %s keeps the credentials of the checkout", release, name[1])
		}
	}
	if len(jobs) != len(want) {
		t.Errorf("%s has %d jobs, want %d", release, len(jobs), len(want))
	}
	for _, target := range []string{"make release", "make publish"} {
		if !strings.Contains(body, "run: "+target) {
			t.Errorf("%s does not run %s", release, target)
		}
	}
}
