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

// Causes, Statuses and Releases are the choices of the filters with links.
func (l *list) Causes() []choice   { return l.filters[problemFilter].Choices() }
func (l *list) Statuses() []choice { return l.filters[statusFilter].Choices() }
func (l *list) Releases() []choice { return l.filters[releaseFilter].Choices() }

// Menus returns the filters with a menu, which may have many values.
func (l *list) Menus() []*filter {
	return slices.DeleteFunc(slices.Clone(l.filters), func(f *filter) bool {
		return f.Text == "" || f.Name == "fleet" && !l.WithFleet()
	})
}

// HiddenFields returns the parameters that the form of the menus passes on.
func (l *list) HiddenFields() (fields []hiddenField) {
	for _, name := range []string{"status", "problem", "sort", "q", "hold"} {
		if value := l.Get(name); value != "" {
			fields = append(fields, hiddenField{name, value})
		}
	}
	return fields
}

// All returns the address of the list without filters; empty if there are no filters.
func (l *list) All() string {
	q := l.query()
	if !filtered(q) {
		return ""
	}
	for _, name := range filterNames {
		q.Del(name)
	}
	return "?" + q.Encode()
}

// Columns returns the headers of the columns.
func (l *list) Columns() []column {
	columns := []column{
		{Text: "Device", sort: "name"},
		{Text: "Fleet", sort: "fleet"},
		{Text: "Status", sort: "status"},
		{Text: "Connectivity", sort: "connectivity"},
		{Text: "Release", sort: "release"},
		{Text: "OS", sort: "os"},
		{Text: "Problems"},
	}
	if !l.WithFleet() {
		columns = slices.Delete(columns, 1, 2)
	}
	return columnsOf(l.Get("sort"), func(sort string) string { return l.address("sort", sort) }, columns)
}

// PageLinks returns the links to other pages, none if there is only one page.
func (l *list) PageLinks() (links []link) {
	n := len(l.rows)
	if n > 0 && l.before > 0 {
		links = append(links, link{"First", l.address()},
			link{"Previous", l.address("before", l.rows[0].place.String())})
	}
	if n > 0 && l.before+n < l.Matching {
		links = append(links, link{"Next", l.address("after", l.rows[n-1].place.String())},
			link{"Last", l.address("before", end)})
	}
	return links
}

// Groups returns the devices by problem if they are sorted by problem.
func (l *list) Groups() []group {
	if l.kind != "problems" || l.Get("sort") != "" {
		return []group{{List: l.List}}
	}
	var groups []group
	for i, r := range l.rows {
		if i == 0 || r.cause != l.rows[i-1].cause {
			cause := &problem.Causes[r.cause]
			groups = append(groups, group{Cause: cause, Runbook: l.h.runbook(cause.Alert), Devices: l.causes[r.cause]})
		}
		g := &groups[len(groups)-1]
		g.List = append(g.List, l.List[i])
	}
	return groups
}

// First returns the number of the first listed device, counted from 1.
func (l *list) First() int { return min(l.before+1, l.Matching) }

// Last returns the number of the last listed device.
func (l *list) Last() int { return l.before + len(l.List) }

// WithFleet reports whether the list has the column Fleet.
func (l *list) WithFleet() bool { return l.kind != "fleet" }

// Order describes the sort order.
func (l *list) Order() string {
	name, reverse := strings.CutPrefix(l.Get("sort"), "-")
	switch {
	case name == "" && l.kind == "search":
		return "best match first"
	case name == "":
		return "worst first"
	}
	return "sorted by " + name + either(reverse, ", descending", "")
}

// Noun describes the listed devices.
func (l *list) Noun() string {
	noun := either(l.Matching == 1, "device", "devices")
	if status := l.Get("status"); status != "" {
		noun = statusText(status) + " " + noun
	}
	if i := problem.Index(l.Get("problem")); i >= 0 {
		noun += " with the problem “" + problem.Causes[i].Text + "”"
	}
	return noun
}

// fillList adds the list of a fleet, or of all fleets if it is 0. If the request is invalid, it returns a failure.
func (h *handler) fillList(p *page, s *balena.Snapshot, fleet int64) *failure {
	sel, err := parseSelection(p.query, fleet)
	if err != nil {
		return fail(http.StatusBadRequest, "Invalid request", "The address is invalid: "+err.Error()+".")
	}
	if sel.menus = p.query.Get("format") == ""; sel.menus && sel.Limit >= DevicesPerPage {
		sel.Limit = DevicesPerPage
		sel.Del("limit")
	}
	if p.Kind == "search" {
		if p.Query = sel.Get("q"); p.Query == "" {
			return nil
		}
	}
	p.List = h.list(s, sel, p.Kind, p.now)
	p.Formats = []link{
		{"JSON", p.List.formatAddress("json", "")},
		{"CSV", p.List.formatAddress("csv", strconv.Itoa(maxLimit))},
	}
	return nil
}

// fleetPage is the page of a fleet, in HTML and JSON.
type fleetPage struct {
	*state
	fleet
	*list
	History *history `json:"-"`
	// Dashboard is the address of the fleet's Grafana dashboard.
	Dashboard string `json:"dashboard_url,omitempty"`
}

// FleetProblems returns the problems of the fleet as a whole.
func (p *fleetPage) FleetProblems() []fleetProblem { return p.fleet.Problems }

// fleet fills the page of a fleet.
func (h *handler) fleet(p *page, s *balena.Snapshot) *failure {
	i := slices.IndexFunc(s.Fleets, func(f balena.Fleet) bool { return f.Slug == p.slug })
	if i < 0 {
		return fail(http.StatusNotFound, "No such fleet",
			"The exporter does not read a fleet with this slug. The fleet may have been renamed or removed, or the token has no access to it.")
	}
	id := s.Fleets[i].ID
	if failed := h.fillList(p, s, id); failed != nil {
		return failed
	}
	p.Content = &fleetPage{
		state: p.state, fleet: h.fleets(s, func(f *balena.Fleet) bool { return f.ID == id }, p.now)[0],
		list: p.List, History: h.Recorder.history(id),
		Dashboard: h.dashboard("balena-fleet", url.Values{"var-fleet": {p.slug}}),
	}
	return nil
}

// problemsPage is the page of problems, in HTML and JSON.
type problemsPage struct {
	*state
	// Causes are the problems of devices, including lost and never connected devices.
	Causes []causeCount `json:"problems"`
	// Fleets are the fleets with problems as a whole.
	Fleets []fleet `json:"fleets"`
	*list
}

// causeCount is the number of devices with a problem.
type causeCount struct {
	Alert    string           `json:"problem"`
	Severity problem.Severity `json:"severity"`
	Devices  int              `json:"devices"`
}

// problems fills the page of problems.
func (h *handler) problems(p *page, s *balena.Snapshot) *failure {
	if failed := h.fillList(p, s, 0); failed != nil {
		return failed
	}
	content := &problemsPage{state: p.state, list: p.List, Causes: []causeCount{}, Fleets: []fleet{}}
	counts := p.List.filters[problemFilter].counts()
	for _, c := range problem.Causes {
		if n := counts[c.Alert]; n > 0 {
			content.Causes = append(content.Causes, causeCount{c.Alert, c.Severity, n})
		}
	}
	if !filtered(p.List.query("fleet", "")) && p.List.before == 0 {
		content.Fleets = h.fleetsWithProblems(s, p.List.Get("fleet"), p.now)
	}
	p.Content = content
	return nil
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
	*state
	Query string `json:"query"`
	// Fleets are the fleets whose slug or name matches.
	Fleets []foundFleet `json:"fleets"`
	*list
}

type foundFleet struct {
	Slug string `json:"fleet"`
	Name string `json:"fleet_name"`
	Path string `json:"-"`
}

// maxFleets is the maximum number of fleets in search results.
const maxFleets = 50

// search fills the page of search results.
func (h *handler) search(p *page, s *balena.Snapshot) *failure {
	if failed := h.fillList(p, s, 0); failed != nil {
		return failed
	}
	content := &searchPage{Query: p.Query, Fleets: []foundFleet{}, list: &list{List: []device{}}}
	p.Content = content
	if p.Query == "" {
		return nil
	}
	content.state, content.list = p.state, p.List
	for i := range s.Fleets {
		if f := &s.Fleets[i]; p.List.search.fleets[f.ID] && len(content.Fleets) < maxFleets {
			content.Fleets = append(content.Fleets, foundFleet{f.Slug, f.Name, slugPath(f.Slug)})
		}
	}
	slices.SortFunc(content.Fleets, func(a, b foundFleet) int { return natural(a.Slug, b.Slug) })
	if !filtered(p.List.Values) && p.query.Get("format") == "" {
		p.redirect = content.onlyResult()
	}
	return nil
}

// onlyResult returns the path of the only result; empty if there are no results or several.
func (p *searchPage) onlyResult() string {
	switch {
	case len(p.Fleets) == 0 && p.Matching == 1:
		return p.List[0].Path()
	case len(p.Fleets) == 1 && p.Matching == 0:
		return p.Fleets[0].Path
	case p.Matching > 0 && len(p.List) > 0 && p.List[0].Found == byIdentity.String() && (len(p.List) == 1 || p.List[1].Found != byIdentity.String()) && p.List[0].UUID == p.Query:
		return p.List[0].Path() // the UUID is unique
	}
	return ""
}

// sendCSV sends the devices of a page as CSV. The header X-Total-Count is the number of devices on all pages.
func (l *list) sendCSV(w http.ResponseWriter) {
	header := w.Header()
	header.Set("Content-Type", "text/csv; charset=utf-8; header=present")
	header.Set("Content-Disposition", `attachment; filename="devices.csv"`)
	header.Set("X-Total-Count", strconv.Itoa(l.Matching))
	out := csv.NewWriter(w)
	_ = out.Write([]string{
		"uuid", "device_name", "fleet", "status", "connected", "connectivity_change", "release", "target_release", "release_pinned",
		"device_type", "os_version", "os_variant", "supervisor_version", "update_status", "problems",
	})
	for i := range l.List {
		d := &l.List[i]
		names := make([]string, len(d.Problems))
		for i, p := range d.Problems {
			names[i] = p.Alert
		}
		row := []string{
			d.UUID, d.Name, d.Fleet, d.Status, strconv.FormatBool(d.Connected), d.Since.Machine(), d.Release.String(), d.TargetRelease.String(),
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
