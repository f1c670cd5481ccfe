// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// overview is all fleets, and the JSON of /fleets.
type overview struct {
	Total  sums    `json:"total"`
	Fleets []fleet `json:"fleets"`
}

// fleet is a fleet with the sums over its devices.
type fleet struct {
	Slug         string `json:"fleet"`
	Name         string `json:"fleet_name"`
	Organization string `json:"organization"`
	Archived     bool   `json:"archived"`
	TracksLatest bool   `json:"tracks_latest_release"`
	// TargetRelease is nil for a fleet without one.
	TargetRelease *release `json:"target_release"`
	sums
}

// Path is the way to the fleet's page from the overview.
func (f *fleet) Path() string { return slugPath(f.Slug) }

// sums are sums over devices. Their names in JSON are those of the metrics.
type sums struct {
	Devices   int            `json:"devices"`
	Online    int            `json:"devices_online"`
	Connected int            `json:"devices_connected"`
	Statuses  map[string]int `json:"devices_by_status"`
	// Targeted are the devices that should run a release, and OnTarget those of them that do.
	Targeted int `json:"devices_with_target_release"`
	OnTarget int `json:"devices_on_target_release"`
	Pinned   int `json:"devices_pinned"`
}

// sumsOf returns the sums of a tally that are shown.
func sumsOf(t *balena.Tally) sums {
	statuses := map[string]int(t.ByStatus)
	if statuses == nil {
		statuses = map[string]int{}
	}
	return sums{
		Devices: t.Devices, Online: t.Online, Connected: t.Connected, Statuses: statuses,
		Targeted: t.Targeted, OnTarget: t.OnTarget, Pinned: t.Pinned,
	}
}

// newOverview sums up all fleets. Fleets come in the order of their slugs, so that each is where it was
// yesterday; archived ones come last.
func newOverview(listings map[string]*listing) *overview {
	o := &overview{Fleets: make([]fleet, 0, len(listings))}
	var total balena.Tally
	for _, l := range listings {
		o.Fleets = append(o.Fleets, l.fleet)
		total.AddAll(&l.tally)
	}
	o.Total = sumsOf(&total)
	slices.SortFunc(o.Fleets, func(a, b fleet) int {
		return cmp.Or(compareBool(a.Archived, b.Archived), cmp.Compare(a.Slug, b.Slug))
	})
	return o
}

// newFleet returns a fleet without its sums.
func newFleet(s *balena.Snapshot, f *balena.Fleet) fleet {
	return fleet{
		Slug: f.Slug, Name: f.Name, Organization: f.Organization, Archived: f.Archived, TracksLatest: f.TracksLatest,
		TargetRelease: releaseOf(s, f.TargetRelease),
	}
}

// release is a release by its names. Both are empty for one that the API does not tell of.
type release struct {
	ID      int64  `json:"id"`
	Commit  string `json:"commit"`
	Version string `json:"release_version"`
}

// releaseOf returns a release by its ID, nil for 0.
func releaseOf(s *balena.Snapshot, id int64) *release {
	if id == 0 {
		return nil
	}
	r := s.Releases[id]
	return &release{ID: id, Commit: r.Commit, Version: r.Version}
}

// shortCommit is how much of a commit tells releases apart for people.
const shortCommit = 7

// String is the release's version, else its commit, else its number.
func (r *release) String() string {
	switch {
	case r == nil:
		return ""
	case r.Version != "":
		return r.Version
	case r.Commit != "":
		return r.Commit[:min(shortCommit, len(r.Commit))]
	}
	return "release " + strconv.FormatInt(r.ID, 10)
}

// statuses are the known values of overall_status from the best to the worst, which is the order of the bars. One that is not
// known comes before reduced functionality: nobody can tell whether it is good.
var statuses = slices.Insert(slices.Clone(balena.DeviceStatuses), slices.Index(balena.DeviceStatuses, "reduced-functionality"), balena.Unknown)

func statusOf(d *balena.Device) string { return cmp.Or(d.Status, balena.Unknown) }

// badness is the place of a status in statuses.
func badness(status string) int {
	if i := slices.Index(statuses, status); i >= 0 {
		return i
	}
	return slices.Index(statuses, balena.Unknown)
}

// status is a number of devices in a status.
type status struct {
	Name    string
	Devices int
	// From and Width are its part of the bar, in thousandths.
	From, Width float64
}

// Text is the status in words.
func (s status) Text() string { return statusText(s.Name) }

// Class is the status as a class of the style sheet, which has one for those that are not known.
func (s status) Class() string { return statusClass(s.Name) }

func statusText(name string) string { return strings.ReplaceAll(name, "-", " ") }

func statusClass(name string) string { return statuses[badness(name)] }

// barWidth is the width of a bar in its own units.
const barWidth = 1000

// Bar returns the statuses that devices are in, from the best to the worst.
func (s *sums) Bar() []status {
	bar := make([]status, 0, len(s.Statuses))
	for name, n := range s.Statuses {
		bar = append(bar, status{Name: name, Devices: n})
	}
	slices.SortFunc(bar, func(a, b status) int {
		return cmp.Or(cmp.Compare(badness(a.Name), badness(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	from := 0
	for i := range bar {
		bar[i].From = float64(from) * barWidth / float64(s.Devices)
		bar[i].Width = float64(bar[i].Devices) * barWidth / float64(s.Devices)
		from += bar[i].Devices
	}
	return bar
}

// ConnectedPercent and OnTargetPercent are rounded down: all means all.
func (s *sums) ConnectedPercent() int { return percent(s.Connected, s.Devices) }

// OnTargetPercent is how far the rollout is.
func (s *sums) OnTargetPercent() int { return percent(s.OnTarget, s.Targeted) }

func percent(part, whole int) int {
	if whole == 0 {
		return 0
	}
	return part * 100 / whole
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// OtherName is the fleet's name where it is not the slug's second half, as that of an old fleet.
func (f *fleet) OtherName() string {
	if strings.HasSuffix(f.Slug, "/"+f.Name) {
		return ""
	}
	return f.Name
}

// OnTargetWidth is the part of the bar that is rolled out.
func (s *sums) OnTargetWidth() int { return s.OnTargetPercent() * barWidth / 100 }
