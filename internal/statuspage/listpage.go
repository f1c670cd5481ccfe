// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"cmp"
	"encoding/csv"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/problem"
)

// listPage is a page of a list of devices, in HTML and JSON.
type listPage struct {
	// Matching is the number of devices on all pages.
	Matching int `json:"matching_devices"`
	// Next is the address of the next page; empty on the last page.
	Next string   `json:"next,omitempty"`
	List []device `json:"device_list"`
	// Filters are the filters and the sort order, as query parameters.
	Filters url.Values `json:"filters"`

	selection `json:"-"`
	first     int
	kind      kind
	Statuses  []choice `json:"-"`
	Causes    []choice `json:"-"`
	// Menus are the menus of the filter form, and HiddenFields its hidden fields.
	Menus        []menu        `json:"-"`
	HiddenFields []hiddenField `json:"-"`
	Columns      []column      `json:"-"`
	Groups       []group       `json:"-"`
	Releases     []choice      `json:"-"`
	PageLinks    []link        `json:"-"`
	// All is the address of the list without filters; empty if there are no filters.
	All string `json:"-"`
}

// choice is a value of a filter that a user can select.
type choice struct {
	Text    string
	Address string
	Class   string // CSS class of the icon
	Value   string
	Devices int
	Current bool
}

// menu is a filter with a menu of values.
type menu struct {
	Name, Text string
	Values     []choice
}

// hiddenField is a parameter that a form passes on.
type hiddenField struct{ Name, Value string }

// group holds the devices of the page with the same problem. If the list is not grouped, there is one group without a
// problem.
type group struct {
	Cause   *problem.Cause
	Runbook string
	// Devices is the number of devices on all pages.
	Devices int
	List    []device
}

// link is a link of a page.
type link struct{ Text, Address string }

// maxChoices is the maximum number of values in a menu. The values with the most devices are listed.
const maxChoices = 100

func (h *handler) newListPage(s *balena.Snapshot, l *list, now time.Time) *listPage {
	p := &listPage{Matching: l.matching, selection: l.selection, first: l.before, kind: l.kind, List: make([]device, len(l.rows))}
	filters := l.selection
	filters.After, filters.Before, filters.Hold, filters.Limit = nil, nil, false, DevicesPerPage
	p.Filters = filters.query()
	for i, r := range l.rows {
		p.List[i] = h.newDevice(s, r.device, now)
		if l.kind == searchResults {
			p.List[i].Found = r.found.String()
		}
	}
	if n := len(l.rows); l.before+n < l.matching {
		last := l.rows[n-1].place
		next := l.selection
		next.After, next.Before = &last, nil
		p.Next = next.formatAddress("json", l.Limit)
	}
	return p
}

// addControls adds the parts that only the HTML page has: filters, column headers, groups and links to other pages.
func (h *handler) addControls(p *listPage, s *balena.Snapshot, l *list) {
	p.addStatusChoices(l)
	p.addCauseChoices(l)
	h.addMenus(p, s, l)
	p.PageLinks = pageLinksOf(l)
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

func (p *listPage) addStatusChoices(l *list) {
	p.Statuses = choicesOf(l.counts.statuses.by(func(name string) string { return name }), l.Status)
	for i := range p.Statuses {
		c := &p.Statuses[i]
		c.Text, c.Class = statusText(c.Value), statusClass(c.Value)
		c.Address = l.address(func(s *selection) { s.Status = c.toggled() })
	}
	slices.SortFunc(p.Statuses, func(a, b choice) int {
		return cmp.Or(cmp.Compare(statusRank(b.Value), statusRank(a.Value)), cmp.Compare(a.Value, b.Value))
	})
}

// toggled returns the value that the link of the choice sets. The link of the current choice removes the filter.
func (c *choice) toggled() string { return either(c.Current, "", c.Value) }

func (p *listPage) addCauseChoices(l *list) {
	for i, cause := range problem.Causes {
		n, current := l.counts.problems[i], cause.Alert == l.Problem
		if n == 0 && !current {
			continue
		}
		c := choice{Text: cause.Text, Class: string(cause.Severity), Value: cause.Alert, Devices: n, Current: current}
		c.Address = l.address(func(s *selection) { s.Problem = c.toggled() })
		p.Causes = append(p.Causes, c)
	}
}

// addMenus adds the filters that may have many values.
func (h *handler) addMenus(p *listPage, s *balena.Snapshot, l *list) {
	if l.fixed == "" {
		p.addMenu("fleet", "Fleet", l.Fleet, l.counts.fleets.by(func(id int64) string { return s.Fleet(id).Slug }))
	}
	releases := l.counts.releases.by(func(id int64) string { return cmp.Or(releaseOf(s, id).String(), noRelease) })
	p.addMenu("release", "Release", l.Release, releases)
	if l.kind == fleetDevices {
		p.Releases = choicesOf(releases, l.Release)
		for i := range p.Releases {
			c := &p.Releases[i]
			c.Address = l.address(func(s *selection) { s.Release = c.toggled() })
		}
	}
	states := map[string]int{}
	for i, n := range l.counts.rollouts {
		if n > 0 {
			states[rollouts[i]] = n
		}
	}
	p.addMenu("rollout", "Rollout", l.Rollout, states)
	p.addMenu("os", "OS", l.OS, l.counts.systems.by(func(os string) string { return os }))
	for i := range l.counts.tags {
		key := s.DeviceTagKeys[i]
		current := ""
		if value, ok := l.tag(key); ok {
			current = key + "=" + value
		}
		p.addMenu("tag", key, current, l.counts.tags[i].by(func(value string) string { return key + "=" + value }))
		values := p.Menus[len(p.Menus)-1].Values
		for j := range values {
			values[j].Text = strings.TrimPrefix(values[j].Text, key+"=")
		}
	}
	for _, f := range []hiddenField{{"status", l.Status}, {"problem", l.Problem}, {"sort", l.Sort}, {"q", l.Search}, {"hold", either(l.Hold, "1", "")}} {
		if f.Value != "" {
			p.HiddenFields = append(p.HiddenFields, f)
		}
	}
}

func (p *listPage) addMenu(name, text, current string, counts map[string]int) {
	p.Menus = append(p.Menus, menu{name, text, choicesOf(counts, current)})
}

// choicesOf returns the values with the most devices, and the current value, in reverse natural order.
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

// pageLinksOf returns the links to other pages, none if there is only one page.
func pageLinksOf(l *list) []link {
	n := len(l.rows)
	if n == 0 || n == l.matching {
		return nil
	}
	var links []link
	if l.before > 0 {
		first := l.rows[0].place
		links = append(links, link{"First", l.address(func(*selection) {})},
			link{"Previous", l.address(func(s *selection) { s.Before = &first })})
	}
	if l.before+n < l.matching {
		last := l.rows[n-1].place
		links = append(links, link{"Next", l.address(func(s *selection) { s.After = &last })},
			link{"Last", l.address(func(s *selection) { s.Before = endPlace })})
	}
	return links
}

// groupsOf groups the devices of a page by problem if they are sorted by problem.
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

// First returns the number of the first listed device, counted from 1.
func (p *listPage) First() int { return min(p.first+1, p.Matching) }

// Last returns the number of the last listed device.
func (p *listPage) Last() int { return p.first + len(p.List) }

// WithFleet reports whether the list has the column Fleet.
func (p *listPage) WithFleet() bool { return p.kind != fleetDevices }

// Order describes the sort order.
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

// Noun describes the listed devices.
func (p *listPage) Noun() string {
	noun := either(p.Matching == 1, "device", "devices")
	if p.Status != "" {
		noun = statusText(p.Status) + " " + noun
	}
	if i := problem.Index(p.Problem); i >= 0 {
		noun += " with the problem “" + problem.Causes[i].Text + "”"
	}
	return noun
}

// parseRequest returns the selection of a request. If the request is invalid, it sends a response and returns false.
func (h *handler) parseRequest(w http.ResponseWriter, r *http.Request, p *page, fleet string) (selection, bool) {
	sel, err := parseSelection(r.URL.Query(), fleet)
	if err == nil && sel.Limit != DevicesPerPage && r.URL.Query().Get("format") == "" {
		sel.Limit = min(sel.Limit, DevicesPerPage)
	}
	if err != nil {
		h.fail(w, r, http.StatusBadRequest, p, "Invalid request", "The address is invalid: "+err.Error()+".")
		return sel, false
	}
	return sel, true
}

// fleetPage is the page of a fleet, in HTML and JSON.
type fleetPage struct {
	fleet
	*listPage
	History *history `json:"-"`
	// Dashboard is the address of the fleet's Grafana dashboard.
	Dashboard string `json:"dashboard_url,omitempty"`
}

// FleetProblems returns the problems of the fleet as a whole.
func (p *fleetPage) FleetProblems() []fleetProblem { return p.fleet.Problems }

func (h *handler) fleetPageOf(w http.ResponseWriter, r *http.Request) {
	slug := slugOf(r.PathValue("slug"))
	p, s, ok := h.open(w, r, slug, "")
	if !ok {
		return
	}
	i := slices.IndexFunc(s.Fleets, func(f balena.Fleet) bool { return f.Slug == slug })
	if i < 0 {
		h.fail(w, r, http.StatusNotFound, p, "No such fleet", "The exporter does not read a fleet with this slug. The fleet may have been renamed or removed, or the token has no access to it.")
		return
	}
	sel, ok := h.parseRequest(w, r, p, slug)
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
		h.addControls(p.List, s, l)
		p.Fleet.History = h.Recorder.history(id)
	}
	h.sendList(w, r, p, l, struct {
		state
		*fleetPage
	}{h.state(s, p.now), p.Fleet})
}

// problemsPage is the page of problems, in HTML and JSON.
type problemsPage struct {
	// Causes are the problems of devices, including lost and never connected devices.
	Causes []causeCount `json:"problems"`
	// Fleets are the fleets with problems as a whole.
	Fleets []fleet `json:"fleets"`
	*listPage
}

// causeCount is the number of devices with a problem.
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
	sel, ok := h.parseRequest(w, r, p, "")
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
		p.Problems.Fleets = h.fleetsWithProblems(s, l.Fleet, p.now)
	}
	h.addControls(p.List, s, l)
	h.sendList(w, r, p, l, struct {
		state
		*problemsPage
	}{h.state(s, p.now), p.Problems})
}

// fleetsWithProblems returns the fleets with problems as a whole, the worst first.
func (h *handler) fleetsWithProblems(s *balena.Snapshot, slug string, now time.Time) []fleet {
	fleets := slices.DeleteFunc(h.fleets(s, nil, now), func(f fleet) bool {
		return len(f.Problems) == 0 || slug != "" && f.Slug != slug
	})
	worst := func(f fleet) int {
		return slices.Index([]problem.Severity{problem.Critical, problem.Warning, problem.Info}, f.Problems[0].Severity)
	}
	slices.SortFunc(fleets, func(a, b fleet) int { return cmp.Or(cmp.Compare(worst(a), worst(b)), natural(a.Slug, b.Slug)) })
	return fleets
}

// searchPage is the page of search results, in HTML and JSON.
type searchPage struct {
	Query string `json:"query"`
	// Fleets are the fleets whose slug or name matches.
	Fleets []foundFleet `json:"fleets"`
	*listPage
}

type foundFleet struct {
	Slug string `json:"fleet"`
	Name string `json:"fleet_name"`
	Path string `json:"-"`
}

// maxFleets is the maximum number of fleets in search results.
const maxFleets = 50

func (h *handler) searchPageOf(w http.ResponseWriter, r *http.Request) {
	p, s, ok := h.open(w, r, "Search", "search")
	if !ok {
		return
	}
	sel, ok := h.parseRequest(w, r, p, "")
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
	if path := p.Search.onlyResult(); path != "" && !sel.filtered() && r.URL.Query().Get("format") == "" {
		redirect(w, http.StatusSeeOther, path)
		return
	}
	h.addControls(p.List, s, l)
	h.sendList(w, r, p, l, struct {
		state
		*searchPage
	}{h.state(s, p.now), p.Search})
}

// onlyResult returns the path of the only result; empty if there are no results or several.
func (p *searchPage) onlyResult() string {
	switch {
	case len(p.Fleets) == 0 && p.Matching == 1:
		return p.List[0].Path
	case len(p.Fleets) == 1 && p.Matching == 0:
		return p.Fleets[0].Path
	case p.Matching > 0 && len(p.List) > 0 && p.List[0].Found == byIdentity.String() && (len(p.List) == 1 || p.List[1].Found != byIdentity.String()) && p.List[0].UUID == p.Query:
		return p.List[0].Path // the UUID is unique
	}
	return ""
}

// sendList sends a list of devices as CSV, HTML or JSON.
func (h *handler) sendList(w http.ResponseWriter, r *http.Request, p *page, l *list, data any) {
	if r.URL.Query().Get("format") == "csv" {
		h.sendCSV(w, p.List)
		return
	}
	p.Formats = []link{{"JSON", l.formatAddress("json", DevicesPerPage)}, {"CSV", l.formatAddress("csv", maxLimit)}}
	h.send(w, r, http.StatusOK, p, data)
}

// sendCSV sends the devices of a page as CSV. The header X-Total-Count is the number of devices on all pages.
func (h *handler) sendCSV(w http.ResponseWriter, p *listPage) {
	header := w.Header()
	header.Set("Content-Type", "text/csv; charset=utf-8; header=present")
	header.Set("Content-Disposition", `attachment; filename="devices.csv"`)
	header.Set("X-Total-Count", strconv.Itoa(p.Matching))
	out := csv.NewWriter(w)
	_ = out.Write([]string{
		"uuid", "device_name", "fleet", "status", "connected", "connectivity_change", "release", "target_release", "release_pinned",
		"device_type", "os_version", "os_variant", "supervisor_version", "update_status", "problems",
	})
	for i := range p.List {
		d := &p.List[i]
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

// cell escapes a text that a spreadsheet would interpret as a formula.
func cell(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}
