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

// withLinks returns options with relative and absolute links.
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
		warning  []string
		text     string
	}{
		{"up", twoFleets(), good, []string{"up", "2", "3", "2", "2", "1.2.3"}, nil, "Data of 1999-12-31 23:59:26 UTC, 34 s old, refreshed every 60 s."},
		{"the last refresh failed", twoFleets(), failed, []string{"down", "2", "3", "2", "2", "1.2.3"}, []string{"The last refresh failed. These data are 34 s old. status 503 The exporter is retrying now. Runbook"}, "34 s old"},
		{"a part failed", partly, good, []string{"up", "2", "3", "2", "2", "1.2.3"}, []string{"Part of the data could not be read and may be outdated. release: status 500 Runbook"}, ""},
		{"not refreshed yet", nil, Status{}, []string{"starting", "1.2.3"}, nil, "The exporter has just started. The first refresh is running."},
		{"never succeeded", nil, Status{LastError: "status 401", LastErrorTime: at, Next: at.Add(20 * time.Second)}, []string{"down", "1.2.3"}, []string{"The last refresh failed. status 401 The exporter retries in 20 s. Runbook"}, "No refresh has succeeded since the exporter started."},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				// The landing page exists with and without data.
				root := getPage(t, withLinks(c.snapshot, c.status), "/")
				if got := texts(find(root, "dd")); !slices.Equal(got, c.totals) {
					t.Errorf("state %q, want %q", got, c.totals)
				}
				if got := texts(find(root, "section")); !slices.Equal(got, c.warning) {
					t.Errorf("warning %q, want %q", got, c.warning)
				}
				if !strings.Contains(text(root), c.text) {
					t.Errorf("no text %q: %s", c.text, text(root))
				}
				if got := texts(find(root, "title")); !slices.Equal(got, []string{"balena-exporter"}) {
					t.Errorf("title %q", got)
				}
				got := links(root)
				delete(got, "Runbook")
				if held := got["Stop reloading"]; held != "?hold=1" {
					t.Errorf("the link to stop reloading is %q", held)
				}
				delete(got, "Stop reloading")
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
