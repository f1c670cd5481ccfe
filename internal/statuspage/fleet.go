// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"cmp"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/problem"
)

// overview is the page of all fleets, in HTML and JSON.
type overview struct {
	*state
	// Total sums up the fleets that are not archived.
	Total  sums    `json:"total"`
	Fleets []fleet `json:"fleets"`

	Archived int      `json:"-"`
	Columns  []column `json:"-"`
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
	// Problematic is the number of devices with problems that are neither lost nor never connected. NeverConnected and Lost
	// count devices in service.
	Problematic    int            `json:"devices_with_problems"`
	NeverConnected int            `json:"devices_never_connected"`
	Lost           int            `json:"devices_lost"`
	Problems       []fleetProblem `json:"problems"`

	devices problem.FleetDevices
}

// fleetProblem is a problem of a fleet as a whole.
type fleetProblem struct {
	Alert    string           `json:"problem"`
	Text     string           `json:"-"`
	Severity problem.Severity `json:"severity"`
	Runbook  string           `json:"runbook_url"`
}

// Path returns the path of the fleet's page, relative to the root.
func (f *fleet) Path() string { return slugPath(f.Slug) }

// ProblemsPath returns the path of the fleet's problems, relative to the root.
func (f *fleet) ProblemsPath() string { return "problems?" + url.Values{"fleet": {f.Slug}}.Encode() }

// sums are sums over devices. Their JSON names correspond to the names of the metrics.
type sums struct {
	Devices   int            `json:"devices"`
	Online    int            `json:"devices_online"`
	Connected int            `json:"devices_connected"`
	Statuses  map[string]int `json:"devices_by_status"`
	// Targeted is the number of devices with a target release, and OnTarget the number of them that run it.
	Targeted int `json:"devices_with_target_release"`
	OnTarget int `json:"devices_on_target_release"`
	Pinned   int `json:"devices_pinned"`
}

// add counts a device.
func (s *sums) add(d *balena.Device) {
	s.Devices++
	s.Online += one(d.Online)
	s.Connected += one(d.Connected())
	s.Targeted += one(d.TargetRelease != 0)
	s.OnTarget += one(d.OnTarget())
	s.Pinned += one(d.PinnedRelease != 0)
	s.Statuses[statusOf(d)]++
}

// one returns 1 for true and 0 for false.
func one(condition bool) int {
	if condition {
		return 1
	}
	return 0
}

// compareBool compares two conditions: false is less than true.
func compareBool(a, b bool) int { return cmp.Compare(one(a), one(b)) }

func (s *sums) addAll(o *sums) {
	s.Devices += o.Devices
	s.Online += o.Online
	s.Connected += o.Connected
	s.Targeted += o.Targeted
	s.OnTarget += o.OnTarget
	s.Pinned += o.Pinned
	for status, n := range o.Statuses {
		s.Statuses[status] += n
	}
}

// fleets returns the fleets of a snapshot for which match returns true, with their sums and problems, in the order of
// their IDs. If match is nil, it returns all fleets.
func (h *handler) fleets(s *balena.Snapshot, match func(*balena.Fleet) bool, now time.Time) []fleet {
	defer h.acquireWalk()()
	all := make([]fleet, 0, len(s.Fleets))
	byID := make(map[int64]*fleet, len(s.Fleets))
	for i := range s.Fleets {
		if f := &s.Fleets[i]; match == nil || match(f) {
			all = append(all, fleet{
				Slug: f.Slug, Name: f.Name, Organization: f.Organization, Archived: f.Archived,
				TracksLatest: f.TracksLatest, TargetRelease: releaseOf(s, f.TargetRelease),
				sums: sums{Statuses: map[string]int{}}, Problems: []fleetProblem{},
			})
			byID[f.ID] = &all[len(all)-1]
		}
	}
	view := h.view(s, now)
	var f *fleet // nil if the fleet does not match
	last := int64(0)
	for d := range s.Devices.All() {
		if d.FleetID != last {
			last, f = d.FleetID, byID[d.FleetID]
		}
		if f == nil {
			continue
		}
		f.add(d)
		if problems := view.Add(&f.devices, d); problems != 0 && !problems.Away() {
			f.Problematic++
		}
	}
	for id, f := range byID {
		f.NeverConnected, f.Lost = f.devices.NeverConnected, f.devices.Lost
		for _, c := range view.Fleet(s.Fleet(id), f.devices) {
			f.Problems = append(f.Problems, fleetProblem{c.Alert, c.Text, c.Severity, h.runbook(c.Alert)})
		}
	}
	return all
}

// fleetOrders are the sort orders of fleets by column. Equal fleets are sorted by slug.
var fleetOrders = map[string]func(a, b *fleet) int{
	"fleet":     func(a, b *fleet) int { return 0 },
	"devices":   func(a, b *fleet) int { return cmp.Compare(b.Devices, a.Devices) },
	"online":    func(a, b *fleet) int { return cmp.Compare(b.Online, a.Online) },
	"connected": func(a, b *fleet) int { return compareParts(a.Connected, a.Devices, b.Connected, b.Devices) },
	"problems": func(a, b *fleet) int {
		return cmp.Or(cmp.Compare(b.Problematic+len(b.Problems), a.Problematic+len(a.Problems)), cmp.Compare(b.Lost, a.Lost))
	},
	"rollout": func(a, b *fleet) int { return compareParts(a.OnTarget, a.Targeted, b.OnTarget, b.Targeted) },
}

// compareParts compares the ratios a/of and b/ofB, in ascending order, with undefined ratios last.
func compareParts(a, of, b, ofB int) int {
	if of == 0 || ofB == 0 {
		return compareBool(of == 0, ofB == 0)
	}
	return cmp.Compare(a*ofB, b*of)
}

// newOverview sums up all fleets, and sorts them. In every order, fleets without devices come after the others, and
// archived fleets come last.
func newOverview(fleets []fleet, order func(a, b *fleet) int, reverse bool) *overview {
	o := &overview{Fleets: fleets, Total: sums{Statuses: map[string]int{}}}
	for i := range fleets {
		if fleets[i].Archived {
			o.Archived++
			continue
		}
		o.Total.addAll(&fleets[i].sums)
	}
	slices.SortFunc(o.Fleets, func(a, b fleet) int {
		c := cmp.Or(order(&a, &b), natural(a.Slug, b.Slug), cmp.Compare(a.Slug, b.Slug))
		if reverse {
			c = -c
		}
		return cmp.Or(compareBool(a.Archived, b.Archived), compareBool(a.Devices == 0, b.Devices == 0), c)
	})
	return o
}

// overview fills the page of all fleets.
func (h *handler) overview(p *page, s *balena.Snapshot) *failure {
	sorting := cmp.Or(p.query.Get("sort"), "fleet")
	name, reverse := strings.CutPrefix(sorting, "-")
	order := fleetOrders[name]
	if order == nil {
		return fail(http.StatusBadRequest, "Invalid sort order",
			"Fleets cannot be sorted by "+name+". Valid columns: "+strings.Join(slices.Sorted(maps.Keys(fleetOrders)), ", ")+".")
	}
	o := newOverview(h.fleets(s, nil, p.now), order, reverse)
	o.state = p.state
	sel := selection{Values: url.Values{}}
	set(sel.Values, "hold", either(p.Held, "1", ""))
	o.Columns = columnsOf(sorting, func(sort string) string {
		return sel.address("sort", either(sort == "fleet", "", sort))
	}, []column{
		{Text: "Fleet", sort: "fleet"},
		{Text: "Devices", sort: "devices", Class: "number"},
		{Text: "Online", sort: "online", Class: "number"},
		{Text: "Connected", sort: "connected", Class: "number"},
		{Text: "Status", Class: "wide"},
		{Text: "Problems", sort: "problems"},
		{Text: "Target release"},
		{Text: "Rollout", sort: "rollout", Class: "wide"},
	})
	p.Content, p.Formats = o, []link{{"JSON", "?format=json"}}
	return nil
}

// column is the header of a column.
type column struct {
	Text, Class string
	// Address is the address of the table sorted by the column; empty if it cannot be sorted by it.
	Address string
	// Sorted is the value of aria-sort: ascending or descending if the table is sorted by the column.
	Sorted string
	sort   string
}

// columnsOf sets the addresses of columns. The column by which the table is sorted links to the reverse order.
func columnsOf(sorting string, address func(sort string) string, columns []column) []column {
	name, reverse := strings.CutPrefix(sorting, "-")
	for i := range columns {
		switch c := &columns[i]; {
		case c.sort != "" && c.sort == name:
			c.Sorted, c.Address = either(reverse, "descending", "ascending"), address(either(reverse, "", "-")+name)
		case c.sort != "":
			c.Address = address(c.sort)
		}
	}
	return columns
}

// release identifies a release. Commit and Version are empty if the API does not return the release.
type release struct {
	ID      int64  `json:"id"`
	Commit  string `json:"commit"`
	Version string `json:"release_version"`
}

// releaseOf returns the release with an ID, nil for 0.
func releaseOf(s *balena.Snapshot, id int64) *release {
	if id == 0 {
		return nil
	}
	r := s.Releases[id]
	return &release{ID: id, Commit: r.Commit, Version: r.Version}
}

// shortCommit is the length of a shortened commit.
const shortCommit = 7

// unknownRelease is the prefix of the text for a release of which only the ID is known.
const unknownRelease = "release "

// String returns the version of the release, otherwise its commit, otherwise its ID.
func (r *release) String() string {
	switch {
	case r == nil:
		return ""
	case r.Version != "":
		return r.Version
	case r.Commit != "":
		return r.Commit[:min(shortCommit, len(r.Commit))]
	}
	return unknownRelease + strconv.FormatInt(r.ID, 10)
}

// statuses are the known values of overall_status from the best to the worst, which is their order in bars. Unrecognized
// values rank just before reduced-functionality.
var statuses = slices.Insert(slices.Clone(balena.DeviceStatuses), slices.Index(balena.DeviceStatuses, "reduced-functionality"), balena.Unknown)

func statusOf(d *balena.Device) string { return cmp.Or(d.Status, balena.Unknown) }

// statusRank returns the index of a status in statuses.
func statusRank(status string) int {
	if i := slices.Index(statuses, status); i >= 0 {
		return i
	}
	return slices.Index(statuses, balena.Unknown)
}

// status is a status and the number of devices with it.
type status struct {
	Name    string
	Devices int
	// From and Width are the position in the bar, in thousandths.
	From, Width float64
}

// Text returns the status in words.
func (s status) Text() string { return statusText(s.Name) }

// Class returns the CSS class of the status.
func (s status) Class() string { return statusClass(s.Name) }

func statusText(name string) string { return strings.ReplaceAll(name, "-", " ") }

func statusClass(name string) string { return statuses[statusRank(name)] }

// barWidth is the width of a bar in units of its viewBox.
const barWidth = 1000

// Bar returns the statuses of devices, from the best to the worst.
func (s *sums) Bar() []status {
	bar := make([]status, 0, len(s.Statuses))
	for name, n := range s.Statuses {
		bar = append(bar, status{Name: name, Devices: n})
	}
	slices.SortFunc(bar, func(a, b status) int {
		return cmp.Or(cmp.Compare(statusRank(a.Name), statusRank(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	from := 0
	for i := range bar {
		bar[i].From = float64(from) * barWidth / float64(s.Devices)
		bar[i].Width = float64(bar[i].Devices) * barWidth / float64(s.Devices)
		from += bar[i].Devices
	}
	return bar
}

// ConnectedPercent returns a percentage, rounded down: 100 means all devices.
func (s *sums) ConnectedPercent() int { return percent(s.Connected, s.Devices) }

// OnTargetPercent returns the progress of the rollout, rounded down.
func (s *sums) OnTargetPercent() int { return percent(s.OnTarget, s.Targeted) }

func percent(part, whole int) int {
	if whole == 0 {
		return 0
	}
	return part * 100 / whole
}

// OtherName returns the fleet's name if it is not the second part of the slug, as with old fleets.
func (f *fleet) OtherName() string {
	if strings.HasSuffix(f.Slug, "/"+f.Name) {
		return ""
	}
	return f.Name
}

// OnTargetWidth returns the progress of the rollout as the width of a bar.
func (s *sums) OnTargetWidth() int { return s.OnTargetPercent() * barWidth / 100 }
