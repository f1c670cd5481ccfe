// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// recordAt records a fleet of ten devices at a point in time.
func recordAt(r *Recorder, then time.Time, connected, onTarget int) *balena.Snapshot {
	s := &balena.Snapshot{Time: then, Fleets: []balena.Fleet{{ID: 1, Slug: "a/b"}}}
	r.Record(s, maps.All(map[int64]*balena.Tally{1: {Devices: 10, Connected: connected, Targeted: 10, OnTarget: onTarget}}))
	return s
}

func TestHistory(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := &Recorder{}
		s := recordAt(r, at.Add(-30*time.Minute), 10, 0)
		o := options(s, good)
		o.Recorder = r
		s.Devices = balena.NewDevices(balena.Device{ID: 1, FleetID: 1, UUID: "c0ffee", Status: "operational", Online: true})
		if n := len(find(getPage(t, o, "/fleets/a/b"), "figure")); n > 0 {
			t.Error("a single point is drawn")
		}
		recordAt(r, at.Add(-26*time.Minute), 5, 0) // of a slot, the last one counts
		recordAt(r, at.Add(-25*time.Minute), 6, 0)
		recordAt(r, at.Add(-5*time.Minute), 8, 10) // behind a gap
		recordAt(r, at.Add(-20*time.Minute), 0, 0) // the clock was set back: not recorded
		recordAt(r, at, 9, 10)
		figure := find(getPage(t, o, "/fleets/a/b"), "figure")[0]
		var got []string
		for _, line := range find(figure, "polyline") {
			got = append(got, attribute(line, "class")+" "+attribute(line, "points"))
		}
		want := []string{
			"connected-line 137,20.0 138,16.0", "connected-line 142,8.0 143,4.0",
			"target-line 137,40.0 138,40.0", "target-line 142,0.0 143,0.0",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("curves (-want +got):\n%s", diff)
		}
		svg := find(figure, "svg")[0]
		if got, want := attribute(svg, "aria-label"), "Connected: 90 % now, minimum 50 % at 23:30 UTC. On target release: 100 % now, minimum 0 % at 23:30 UTC."; got != want || attribute(svg, "role") != "img" {
			t.Errorf("text alternative %q, want %q", got, want)
		}
		if got, want := text(figure), "Connected 90 %, minimum 50 % at 23:30 On target release 100 %, minimum 0 % at 23:30 Since 1999-12-31 23:30:00 UTC. The history covers at most 12 hours, and begins when the exporter starts."; got != want {
			t.Errorf("caption %q, want %q", got, want)
		}
	})
}

// TestHistoryIsBounded checks that only the last 12 hours are kept.
func TestHistoryIsBounded(t *testing.T) {
	r := &Recorder{}
	for i := range 7 * 24 * 60 {
		recordAt(r, at.Add(time.Duration(i)*time.Minute), 10-i%2, 10)
	}
	h := r.history(1)
	if got, want := h.Since.Machine(), "2000-01-07T12:00:00Z"; got != want {
		t.Errorf("the history begins at %s, want %s", got, want)
	}
	if n := strings.Count(h.Curves[0].Lines[0], " ") + 1; n != slots || len(h.Curves[0].Lines) != 1 {
		t.Errorf("%d points in %d lines, want %d in one", n, len(h.Curves[0].Lines), slots)
	}
}

// TestHistoryOfFleets checks removed fleets, fleets without devices, and pages without a recorder.
func TestHistoryOfFleets(t *testing.T) {
	r := &Recorder{}
	for i := range 3 {
		s := &balena.Snapshot{Time: at.Add(time.Duration(i) * 5 * time.Minute), Fleets: []balena.Fleet{{ID: 1}, {ID: 2}}}
		all := map[int64]*balena.Tally{1: {}, 2: {Devices: 4, Connected: 2}}
		if i == 2 {
			delete(all, 2)
		}
		r.Record(s, maps.All(all))
	}
	if h := r.history(1); h != nil {
		t.Errorf("a fleet without devices has the history %+v", h)
	}
	if h := r.history(2); h != nil || slices.Contains(slices.Collect(maps.Keys(r.fleets)), 2) {
		t.Errorf("a removed fleet has the history %+v", h)
	}
	if (*Recorder)(nil).history(1) != nil {
		t.Error("without a recorder there is a history")
	}
}

// TestSumsAreThoseOfTheMetrics compares the sums over a fleet with the tally from which its metrics are made.
func TestSumsAreThoseOfTheMetrics(t *testing.T) {
	s := randomAccount(500, 7)
	h := NewHandler(options(s, good)).(*handler)
	fleets := h.fleets(s, nil, at)
	for id, tally := range tallies(s) {
		i := slices.IndexFunc(s.Fleets, func(f balena.Fleet) bool { return f.ID == id })
		want := sums{
			Devices: tally.Devices, Online: tally.Online, Connected: tally.Connected, Statuses: tally.ByStatus,
			Targeted: tally.Targeted, OnTarget: tally.OnTarget, Pinned: tally.Pinned,
		}
		if diff := cmp.Diff(want, fleets[i].sums); diff != "" {
			t.Errorf("%s (-tally +page):\n%s", s.Fleets[i].Slug, diff)
		}
	}
}

// TestRecorderIsSmall checks that a recorded fleet takes less than two kilobytes.
func TestRecorderIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(ring{}); size > 2048 {
		t.Errorf("%d bytes per fleet", size)
	}
}
