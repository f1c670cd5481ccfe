// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// withLinks are options as the exporter gives them, with links of both kinds.
func withLinks(s *balena.Snapshot, status Status) Options {
	o := options(s, status)
	o.Version = "1.2.3"
	o.Links = []Link{
		{Text: "Fleets", Address: "/fleets", About: "All fleets"},
		{Text: "Metrics", Address: "/a:b/metrics"}, // a relative "a:b" would be of the scheme a
		{Text: "Documentation", Address: "https://example.com/#readme"},
	}
	return o
}

func TestLandingPage(t *testing.T) {
	failed := Status{LastSuccess: at.Add(-34 * time.Second), LastError: "status 503", LastErrorTime: at.Add(-10 * time.Second)}
	partly := twoFleets()
	partly.Parts = []balena.Part{{Name: balena.PartReleases, Err: errors.New("status 500")}}
	for _, c := range []struct {
		name     string
		snapshot *balena.Snapshot
		status   Status
		totals   []string
		trouble  []string
		says     string
	}{
		{"up", twoFleets(), good, []string{"up", "2", "3", "2", "2", "1.2.3"}, nil, "Data of 1999-12-31 23:59:26 UTC, 34 s old, refreshed every 60 s."},
		{"the last refresh failed", twoFleets(), failed, []string{"down", "2", "3", "2", "2", "1.2.3"}, []string{"The last refresh failed. These data are 34 s old. status 503 The exporter is trying again now. What to check"}, "34 s old"},
		{"a part failed", partly, good, []string{"up", "2", "3", "2", "2", "1.2.3"}, []string{"Part of the data could not be read and may be old. release: status 500 What to check"}, ""},
		{"not refreshed yet", nil, Status{}, []string{"starting", "1.2.3"}, nil, "The exporter has just started, and the first data are on their way."},
		{"never succeeded", nil, Status{LastError: "status 401", LastErrorTime: at, Next: at.Add(20 * time.Second)}, []string{"down", "1.2.3"}, []string{"The last refresh failed. status 401 The exporter tries again in 20 s. What to check"}, "No refresh has succeeded since the exporter started."},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				// A page of its own is what an orchestrator or a person looks for, with data or without.
				root := getPage(t, withLinks(c.snapshot, c.status), "/")
				if got := texts(find(root, "dd")); !slices.Equal(got, c.totals) {
					t.Errorf("state %q, want %q", got, c.totals)
				}
				if got := texts(find(root, "section")); !slices.Equal(got, c.trouble) {
					t.Errorf("trouble %q, want %q", got, c.trouble)
				}
				if !strings.Contains(text(root), c.says) {
					t.Errorf("does not say %q: %s", c.says, text(root))
				}
				if got := texts(find(root, "title")); !slices.Equal(got, []string{"balena-exporter"}) {
					t.Errorf("title %q", got)
				}
				got := links(root)
				delete(got, "What to check")
				if held := got["Hold it still"]; held != "?hold=1" {
					t.Errorf("the page cannot be held still: %q", held)
				}
				delete(got, "Hold it still")
				want := map[string]string{"Problems": "./problems", "Fleets": "./fleets", "Metrics": "./a:b/metrics", "Documentation": "https://example.com/#readme"}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("links (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestNothingBesideTheLandingPage(t *testing.T) {
	for target, code := range map[string]int{"/favicon.ico": http.StatusNotFound, "/index.html": http.StatusNotFound} {
		if w := get(t, options(twoFleets(), good), target); w.Code != code {
			t.Errorf("%s: status %d, want %d", target, w.Code, code)
		}
	}
}
