// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"cmp"
	"encoding/csv"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/problem"
)

// listPage is a page of devices, and its JSON: of a fleet, of devices with problems, or of what was found.
type listPage struct {
	// Matching is how many devices there are on all pages.
	Matching int `json:"matching_devices"`
	// Next is where the next page is; empty on the last one.
	Next string   `json:"next,omitempty"`
	List []device `json:"device_list"`
	// Filters are those of the list, and its order, as they stand in the address.
	Filters url.Values `json:"filters"`

	selection `json:"-"`
	first     int
	kind      kind
	Statuses  []choice `json:"-"`
	Causes    []choice `json:"-"`
	// Narrow are the choices of the form, and Kept what the form has to keep.
	Narrow   []menu      `json:"-"`
	Kept     []keptField `json:"-"`
	Columns  []column    `json:"-"`
	Groups   []group     `json:"-"`
	Releases []choice    `json:"-"`
	Turns    []link      `json:"-"`
	// All is where the list is without filters; empty where there are none.
	All string `json:"-"`
}

// choice is a filter that can be chosen.
type choice struct {
	Text    string
	Address string
	Class   string // of the mark before it
	Value   string
	Devices int
	Current bool
}

// menu is a filter of which one value can be chosen from a list.
type menu struct {
	Name, Text string
	Values     []choice
}

// keptField is a filter that a form keeps.
type keptField struct{ Name, Value string }

// group is devices of the page that have the same problem; the only one, without a problem, where they are not grouped.
type group struct {
	Cause   *problem.Cause
	Runbook string
	// Devices is how many there are on all pages.
	Devices int
	List    []device
}

// link is a link of a page.
type link struct{ Text, Address string }

// maxChoices is how many values of a filter are offered: those of most devices.
const maxChoices = 100

func (h *handler) newListPage(s *balena.Snapshot, l *list, now time.Time) *listPage {
	p := &listPage{Matching: l.matching, selection: l.selection, first: l.before, kind: l.kind, List: make([]device, len(l.rows))}
	filters := l.selection
	filters.After, filters.Before, filters.Hold, filters.Limit = nil, nil, false, DevicesPerPage
	p.Filters = filters.query()
	for i, r := range l.rows {
		p.List[i] = h.newDevice(s, r.device, now)
		p.List[i].Found = r.found.String()
		if l.kind != searchResults {
			p.List[i].Found = ""
		}
	}
	if n := len(l.rows); l.before+n < l.matching {
		last := l.rows[n-1].place
		next := l.selection
		next.After, next.Before = &last, nil
		p.Next = next.as("json", l.Limit)
	}
	return p
}

// offer adds what only the page of HTML has: choices, heads of columns, groups and the ways to other pages.
func (h *handler) offer(p *listPage, s *balena.Snapshot, l *list) {
	p.offerStatuses(l)
	p.offerCauses(l)
	h.offerMenus(p, s, l)
	p.Turns = turnsOf(l)
	p.Groups = h.groupsOf(p, l)
	if l.filtered() {
		p.All = l.address(func(s *selection) {
			s.Problem, s.Status, s.Release, s.Rollout, s.OS, s.Tags, s.Fleet = "", "", "", "", "", nil, s.fixed
		})
	}
	columns := []column{{Text: "Device", sort: "name"}}
	if l.kind != fleetDevices {
		columns = append(columns, column{Text: "Fleet", sort: "fleet"})
	}
	columns = append(columns, column{Text: "Status", sort: "status"}, column{Text: "Connectivity", sort: "connectivity"},
		column{Text: "Release", sort: "release"}, column{Text: "OS", sort: "os"}, column{Text: "Problems"})
	p.Columns = columnsOf(l.Sort, "", func(sort string) string {
		return l.address(func(s *selection) { s.Sort = sort })
	}, columns)
}

func (p *listPage) offerStatuses(l *list) {
	names := make([]string, 0, len(l.counts.statuses.counts)+1)
	for name := range l.counts.statuses.counts {
		names = append(names, name)
	}
	if l.Status != "" && !slices.Contains(names, l.Status) {
		names = append(names, l.Status)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(badness(b), badness(a)), cmp.Compare(a, b))
	})
	for _, name := range names {
		current := name == l.Status
		c := choice{Text: statusText(name), Class: statusClass(name), Value: name, Current: current}
		if n := l.counts.statuses.counts[name]; n != nil {
			c.Devices = *n
		}
		c.Address = l.address(func(s *selection) { s.Status = chosen(current, name) })
		p.Statuses = append(p.Statuses, c)
	}
}

// chosen is the value that a choice stands for: what is chosen already can be given up.
func chosen(current bool, value string) string {
	if current {
		return ""
	}
	return value
}

func (p *listPage) offerCauses(l *list) {
	for i, cause := range problem.Causes {
		n, current := l.counts.problems[i], cause.Alert == l.Problem
		if n == 0 && !current {
			continue
		}
		p.Causes = append(p.Causes, choice{
			Text: cause.Text, Class: string(cause.Severity), Value: cause.Alert, Devices: n, Current: current,
			Address: l.address(func(s *selection) { s.Problem = chosen(current, cause.Alert) }),
		})
	}
}

// offerMenus offers the filters that may have many values.
func (h *handler) offerMenus(p *listPage, s *balena.Snapshot, l *list) {
	if l.fixed == "" {
		fleets := map[string]int{}
		for id, n := range l.counts.fleets.counts {
			fleets[s.Fleet(id).Slug] += *n
		}
		p.offerMenu("fleet", "Fleet", l.Fleet, fleets)
	}
	releases := map[string]int{}
	for id, n := range l.counts.releases.counts {
		releases[cmp.Or(releaseOf(s, id).String(), noRelease)] += *n
	}
	p.offerMenu("release", "Release", l.Release, releases)
	if l.kind == fleetDevices {
		p.Releases = choicesOf(releases, l.Release)
		for i := range p.Releases {
			c := &p.Releases[i]
			c.Address = l.address(func(s *selection) { s.Release = chosen(c.Current, c.Value) })
		}
	}
	states := map[string]int{}
	for i, n := range l.counts.rollouts {
		if n > 0 {
			states[rollouts[i]] = n
		}
	}
	p.offerMenu("rollout", "Rollout", l.Rollout, states)
	systems := map[string]int{}
	for os, n := range l.counts.systems.counts {
		systems[os] += *n
	}
	p.offerMenu("os", "OS", l.OS, systems)
	for i := range l.counts.tags {
		values := map[string]int{}
		for value, n := range l.counts.tags[i].counts {
			values[s.DeviceTagKeys[i]+"="+value] += *n
		}
		current := ""
		if value, ok := l.tag(s.DeviceTagKeys[i]); ok {
			current = s.DeviceTagKeys[i] + "=" + value
		}
		p.offerMenu("tag", s.DeviceTagKeys[i], current, values)
		if m := &p.Narrow[len(p.Narrow)-1]; m.Text == s.DeviceTagKeys[i] {
			for j := range m.Values {
				m.Values[j].Text = strings.TrimPrefix(m.Values[j].Text, s.DeviceTagKeys[i]+"=")
			}
		}
	}
	for _, f := range []keptField{{"status", l.Status}, {"problem", l.Problem}, {"sort", l.Sort}, {"q", l.Search}, {"hold", either(l.Hold, "1", "")}} {
		if f.Value != "" {
			p.Kept = append(p.Kept, f)
		}
	}
}

func (p *listPage) offerMenu(name, text, current string, counts map[string]int) {
	p.Narrow = append(p.Narrow, menu{name, text, choicesOf(counts, current)})
}

// choicesOf returns the values of most devices in natural order, and the one that is chosen.
func choicesOf(counts map[string]int, current string) []choice {
	all := make([]choice, 0, len(counts)+1)
	for value, n := range counts {
		all = append(all, choice{Text: value, Value: value, Devices: n, Current: value == current})
	}
	if _, known := counts[current]; current != "" && !known {
		all = append(all, choice{Text: current, Value: current, Current: true})
	}
	if len(all) > maxChoices {
		slices.SortFunc(all, func(a, b choice) int {
			return cmp.Or(compareBool(!a.Current, !b.Current), cmp.Compare(b.Devices, a.Devices), cmp.Compare(a.Value, b.Value))
		})
		all = all[:maxChoices]
	}
	slices.SortFunc(all, func(a, b choice) int { return cmp.Or(natural(b.Value, a.Value), cmp.Compare(b.Value, a.Value)) })
	return all
}

// turnsOf are the ways to the other pages; none where there is but one.
func turnsOf(l *list) []link {
	n := len(l.rows)
	if n == 0 || n == l.matching {
		return nil
	}
	var turns []link
	if l.before > 0 {
		first := l.rows[0].place
		turns = append(turns, link{"First", l.address(func(*selection) {})},
			link{"Previous", l.address(func(s *selection) { s.Before = &first })})
	}
	if l.before+n < l.matching {
		last := l.rows[n-1].place
		turns = append(turns, link{"Next", l.address(func(s *selection) { s.After = &last })},
			link{"Last", l.address(func(s *selection) { s.Before = endPlace })})
	}
	return turns
}

// groupsOf divides the devices of a page by problems, if that is how they are sorted.
func (h *handler) groupsOf(p *listPage, l *list) []group {
	if l.kind != problems || l.Sort != "" {
		return []group{{List: p.List}}
	}
	var groups []group
	last := -1
	for i, r := range l.rows {
		if i == 0 || r.cause != last {
			last = r.cause
			cause := &problem.Causes[last]
			groups = append(groups, group{Cause: cause, Runbook: h.runbook(cause.Alert), Devices: l.counts.causes[last]})
		}
		g := &groups[len(groups)-1]
		g.List = append(g.List, p.List[i])
	}
	return groups
}

// First and Last are the numbers of the devices that are listed.
func (p *listPage) First() int { return min(p.first+1, p.Matching) }

// Last is the number of the last device that is listed.
func (p *listPage) Last() int { return p.first + len(p.List) }

// WithFleet tells whether the list has a column of fleets.
func (p *listPage) WithFleet() bool { return p.kind != fleetDevices }

// Order says how the devices are sorted.
func (p *listPage) Order() string {
	name, reverse := strings.CutPrefix(p.Sort, "-")
	switch {
	case p.Sort == "" && p.kind == searchResults:
		return "best match first"
	case p.Sort == "":
		return "worst first"
	case reverse:
		return "sorted by " + name + ", descending"
	}
	return "sorted by " + name
}

// Noun is what the list is of, with the filters that are in words.
func (p *listPage) Noun() string {
	noun := either(p.Matching == 1, "device", "devices")
	if p.Status != "" {
		noun += " " + statusText(p.Status)
	}
	if i := problem.Index(p.Problem); i >= 0 {
		noun += " with the problem “" + problem.Causes[i].Text + "”"
	}
	return noun
}

// selected reads which devices a request asks for. It answers requests that make no sense, and returns false.
func (h *handler) selected(w http.ResponseWriter, r *http.Request, p *page, fleet string) (selection, bool) {
	sel, err := parseSelection(r.URL.Query(), fleet)
	if err == nil && sel.Limit != DevicesPerPage && r.URL.Query().Get("format") == "" {
		sel.Limit = min(sel.Limit, DevicesPerPage)
	}
	if err != nil {
		p.Title = "No such list"
		h.fail(w, r, http.StatusBadRequest, p, "The address asks for something that is not there: "+err.Error()+".")
		return sel, false
	}
	return sel, true
}

// fleetPage is the page of a fleet, and its JSON.
type fleetPage struct {
	fleet
	*listPage
	History *history `json:"-"`
	// Dashboard is the address of the fleet's dashboard of Grafana.
	Dashboard string `json:"dashboard_url,omitempty"`
}

// FleetProblems are those of the fleet as a whole.
func (p *fleetPage) FleetProblems() []fleetProblem { return p.fleet.Problems }

func (h *handler) fleetPageOf(w http.ResponseWriter, r *http.Request) {
	slug := slugOf(r.PathValue("slug"))
	p := h.page(r, slug)
	s := h.Snapshot()
	if s == nil {
		h.noData(w, r, p)
		return
	}
	h.describe(p, s)
	i := slices.IndexFunc(s.Fleets, func(f balena.Fleet) bool { return f.Slug == slug })
	if i < 0 {
		p.Title = "No such fleet"
		h.fail(w, r, http.StatusNotFound, p, "The token may see no fleet of this name, or the fleet has been renamed or removed.")
		return
	}
	sel, ok := h.selected(w, r, p, slug)
	if !ok {
		return
	}
	html := r.URL.Query().Get("format") == ""
	l := h.list(s, sel, fleetDevices, html, p.now)
	p.List = h.newListPage(s, l, p.now)
	id := s.Fleets[i].ID
	p.Fleet = &fleetPage{
		fleet:    h.fleets(s, func(f *balena.Fleet) bool { return f.ID == id }, p.now)[0],
		listPage: p.List, Dashboard: h.fleetDashboard(slug),
	}
	if html {
		h.offer(p.List, s, l)
		p.Fleet.History = h.Recorder.history(id)
	}
	h.sendList(w, r, p, l, struct {
		state
		*fleetPage
	}{h.state(s, p.now), p.Fleet})
}

// problemsPage is what is wrong anywhere, and its JSON.
type problemsPage struct {
	// Causes are the problems that devices have, away or not.
	Causes []causeCount `json:"problems"`
	// Fleets are those that have problems as a whole.
	Fleets []fleet `json:"fleets"`
	*listPage
}

// causeCount is how many devices have a problem.
type causeCount struct {
	Alert    string           `json:"problem"`
	Severity problem.Severity `json:"severity"`
	Devices  int              `json:"devices"`
}

func (h *handler) problemsPageOf(w http.ResponseWriter, r *http.Request) {
	p, s, ok := h.open(w, r, "Problems", "problems")
	if !ok {
		return
	}
	sel, ok := h.selected(w, r, p, "")
	if !ok {
		return
	}
	l := h.list(s, sel, problems, true, p.now)
	p.List = h.newListPage(s, l, p.now)
	p.Problems = &problemsPage{listPage: p.List, Causes: []causeCount{}, Fleets: []fleet{}}
	for i, c := range problem.Causes {
		if n := l.counts.problems[i]; n > 0 {
			p.Problems.Causes = append(p.Problems.Causes, causeCount{c.Alert, c.Severity, n})
		}
	}
	if l.Problem == "" && l.Status == "" && l.Release == "" && l.Rollout == "" && l.OS == "" && len(l.Tags) == 0 && l.before == 0 {
		p.Problems.Fleets = h.fleetsInTrouble(s, l.Fleet, p.now)
	}
	h.offer(p.List, s, l)
	h.sendList(w, r, p, l, struct {
		state
		*problemsPage
	}{h.state(s, p.now), p.Problems})
}

// fleetsInTrouble returns the fleets that have problems as a whole, the worst first.
func (h *handler) fleetsInTrouble(s *balena.Snapshot, slug string, now time.Time) []fleet {
	fleets := slices.DeleteFunc(h.fleets(s, nil, now), func(f fleet) bool {
		return len(f.Problems) == 0 || slug != "" && f.Slug != slug
	})
	worst := func(f fleet) int {
		return slices.Index([]problem.Severity{problem.Critical, problem.Warning, problem.Info}, f.Problems[0].Severity)
	}
	slices.SortFunc(fleets, func(a, b fleet) int { return cmp.Or(cmp.Compare(worst(a), worst(b)), natural(a.Slug, b.Slug)) })
	return fleets
}

// searchPage is what was found, and its JSON.
type searchPage struct {
	Query string `json:"query"`
	// Fleets are the ways to the fleets of such a name.
	Fleets []foundFleet `json:"fleets"`
	*listPage
}

type foundFleet struct {
	Slug string `json:"fleet"`
	Name string `json:"fleet_name"`
	Path string `json:"-"`
}

// maxFleets is how many fleets a search lists.
const maxFleets = 50

func (h *handler) searchPageOf(w http.ResponseWriter, r *http.Request) {
	p, s, ok := h.open(w, r, "Search", "search")
	if !ok {
		return
	}
	sel, ok := h.selected(w, r, p, "")
	if !ok {
		return
	}
	p.Query = sel.Search
	p.Search = &searchPage{Query: sel.Search, Fleets: []foundFleet{}}
	if sel.Search == "" {
		p.Search.listPage = &listPage{List: []device{}}
		h.send(w, r, http.StatusOK, p, p.Search)
		return
	}
	l := h.list(s, sel, searchResults, true, p.now)
	p.List = h.newListPage(s, l, p.now)
	p.Search.listPage = p.List
	search := newSearch(s, sel.Search, false)
	for i := range s.Fleets {
		if f := &s.Fleets[i]; search.fleets[f.ID] && len(p.Search.Fleets) < maxFleets {
			p.Search.Fleets = append(p.Search.Fleets, foundFleet{f.Slug, f.Name, slugPath(f.Slug)})
		}
	}
	slices.SortFunc(p.Search.Fleets, func(a, b foundFleet) int { return natural(a.Slug, b.Slug) })
	if to := p.Search.only(); to != "" && !sel.filtered() && r.URL.Query().Get("format") == "" {
		// http.Redirect would make the path absolute.
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	h.offer(p.List, s, l)
	h.sendList(w, r, p, l, struct {
		state
		*searchPage
	}{h.state(s, p.now), p.Search})
}

// only is the way to the only result; empty if there are none or more.
func (p *searchPage) only() string {
	switch {
	case len(p.Fleets) == 0 && p.Matching == 1:
		return p.List[0].Path
	case len(p.Fleets) == 1 && p.Matching == 0:
		return p.Fleets[0].Path
	case p.Matching > 0 && len(p.List) > 0 && p.List[0].Found == byIdentity.String() && (len(p.List) == 1 || p.List[1].Found != byIdentity.String()) && p.List[0].UUID == p.Query:
		return p.List[0].Path // nothing else has this UUID
	}
	return ""
}

// sendList sends a page of devices as CSV, or as [handler.send] does.
func (h *handler) sendList(w http.ResponseWriter, r *http.Request, p *page, l *list, data any) {
	if r.URL.Query().Get("format") == "csv" {
		h.sendCSV(w, p.List)
		return
	}
	p.Formats = []link{{"JSON", l.as("json", DevicesPerPage)}, {"CSV", l.as("csv", maxLimit)}}
	h.send(w, r, http.StatusOK, p, data)
}

// sendCSV sends the devices of a page as CSV. How many devices there are on all pages is in the header X-Total-Count.
func (h *handler) sendCSV(w http.ResponseWriter, p *listPage) {
	header := w.Header()
	header.Set("Content-Type", "text/csv; charset=utf-8; header=present")
	header.Set("Content-Disposition", `attachment; filename="devices.csv"`)
	header.Set("X-Total-Count", strconv.Itoa(p.Matching))
	writeCSV(w, p.List)
}

func writeCSV(w io.Writer, devices []device) {
	out := csv.NewWriter(w)
	_ = out.Write([]string{
		"uuid", "device_name", "fleet", "status", "connected", "connectivity_change", "release", "target_release", "release_pinned",
		"device_type", "os_version", "os_variant", "supervisor_version", "update_status", "problems",
	})
	for i := range devices {
		d := &devices[i]
		var changed string
		if d.ConnectivityChange != nil {
			changed = d.ConnectivityChange.Format(time.RFC3339)
		}
		names := make([]string, len(d.Problems))
		for i, p := range d.Problems {
			names[i] = p.Alert
		}
		row := []string{
			d.UUID, d.Name, d.Fleet, d.Status, strconv.FormatBool(d.Connected), changed, d.Release.String(), d.TargetRelease.String(),
			strconv.FormatBool(d.Pinned), d.Type, d.OSVersion, d.OSVariant, d.SupervisorVersion, d.UpdateStatus, strings.Join(names, " "),
		}
		for i := range row {
			row[i] = cell(row[i])
		}
		_ = out.Write(row)
	}
	out.Flush()
}

// cell is a text as it may stand in a table: a spreadsheet would take one that begins with one of these for a formula.
func cell(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}
