// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"cmp"
	"math/bits"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/problem"
)

// A list is created by one walk through the devices of the snapshot. The walk keeps only the devices of the requested
// page, and counts the others. Nothing is kept between requests, and refreshes do nothing for lists.

// list is a page of a list of devices, in HTML and JSON. Its methods are the parts that only the HTML page has.
type list struct {
	// Matching is the number of devices on all pages.
	Matching int `json:"matching_devices"`
	// Next is the address of the next page; empty on the last page.
	Next string   `json:"next,omitempty"`
	List []device `json:"device_list"`
	// Filters are the filters and the sort order, as query parameters.
	Filters url.Values `json:"filters"`

	selection `json:"-"`
	h         *handler
	kind      string  // of the page: fleet, problems or search
	search    *search // nil unless the list has search results
	filters   []*filter
	rows      []row
	before    int // the number of matching devices on previous pages
	// causes counts the listed devices by the problem under which they are listed.
	causes [32]int
}

// row is a device of a list.
type row struct {
	place
	device   *balena.Device
	problems problem.Set
	// cause is the problem under which the device is listed, -1 for none.
	cause int
	found found
}

// walk is the state while a list is created.
type walk struct {
	*list
	s       *balena.Snapshot
	view    *problem.View
	problem int    // the selected one, -1 for none
	column  string // empty for the worst devices or the best matches first
	// bound is the place where the page begins; nil for the first page. order is the order from there: 1 for ascending, -1
	// for descending. A page that ends before a place begins there, in the opposite order.
	bound    *place
	order    int
	backward bool
	current  row      // the device that is visited
	entries  []*entry // of the device, by filter
}

// list returns the list for a selection.
func (h *handler) list(s *balena.Snapshot, sel selection, kind string, now time.Time) *list {
	l := h.visit(s, sel, kind, now)
	l.Filters = l.query("hold", "", "limit", "")
	l.List = make([]device, len(l.rows))
	for i, r := range l.rows {
		l.List[i] = h.newDevice(s, r.device, r.problems, now)
		l.List[i].Found = r.found.String()
	}
	if n := len(l.rows); l.before+n < l.Matching {
		l.Next = l.address("hold", "", "format", "json", "after", l.rows[n-1].place.String())
	}
	return l
}

// visit visits the devices of a snapshot and returns the list with its rows, but without List, Next and Filters.
func (h *handler) visit(s *balena.Snapshot, sel selection, kind string, now time.Time) *list {
	defer h.acquireWalk()()
	for {
		w := h.newWalk(s, sel, kind, now)
		w.run()
		switch {
		case sel.After != nil && len(w.rows) == 0 && w.Matching > 0:
			sel.After, sel.Before = nil, endPlace // all devices after the place were removed: show the last page
		case sel.Before != nil && sel.Before != endPlace && w.before == 0:
			sel.After, sel.Before = nil, nil // few devices are left before the place: show the full first page
		default:
			return w.list
		}
	}
}

func (h *handler) newWalk(s *balena.Snapshot, sel selection, kind string, now time.Time) *walk {
	column, reverse := strings.CutPrefix(sel.Get("sort"), "-")
	filters := newFilters(s, sel)
	w := &walk{
		list: &list{selection: sel, h: h, kind: kind, filters: filters}, s: s, view: h.view(s, now),
		problem: problem.Index(sel.Get("problem")), column: column, order: 1,
		bound: cmp.Or(sel.After, sel.Before), backward: sel.Before != nil, entries: make([]*entry, len(filters)),
	}
	if reverse != w.backward {
		w.order = -1
	}
	if kind == "search" {
		w.search = newSearch(s, sel.Get("q"), h.DeviceNames)
	}
	return w
}

// run visits all devices.
func (w *walk) run() {
	for d := range w.s.Devices.All() {
		// The fleet is checked first, because it excludes most devices.
		if w.fixed != 0 && d.FleetID != w.fixed {
			continue
		}
		r := &w.current
		*r = row{device: d, found: notFound}
		if w.search != nil {
			if r.found = w.search.of(d); r.found == notFound {
				continue
			}
		}
		r.problems = w.view.Device(d)
		if w.kind == "problems" && r.problems == 0 {
			continue
		}
		if w.count() {
			w.Matching++
			w.keep(*r)
		}
	}
	w.cut()
	if w.backward {
		slices.Reverse(w.rows)
		w.before -= len(w.rows)
	}
}

// count counts the current device for the choices that would list it, and reports whether it matches all filters. If it
// does, these are the values of all filters. If exactly one filter excludes it, they are the values of that filter.
func (w *walk) count() bool {
	var missed uint64 // the filters that exclude the device, as bits
	for i, f := range w.filters {
		e := f.of(&w.current)
		w.entries[i] = e
		if !e.matches || i == problemFilter && w.kind == "problems" && w.problem < 0 && w.current.problems.Away() {
			missed |= 1 << i
		}
	}
	if bits.OnesCount64(missed) <= 1 {
		for i, e := range w.entries {
			if missed&^(1<<i) == 0 {
				e.devices++
			}
		}
	}
	return missed == 0
}

// keep adds a device to the rows if it may be on the page.
func (w *walk) keep(r row) {
	r.cause = w.causeOf(r.problems)
	if r.cause >= 0 {
		w.causes[r.cause]++
	}
	r.place = w.placeOf(&r)
	outside := w.bound != nil && (w.bound != endPlace || !w.backward) && w.order*r.compare(w.bound) <= 0
	if outside != w.backward {
		w.before++ // backward, walk subtracts the devices of the page
	}
	if outside {
		return
	}
	if w.rows = append(w.rows, r); len(w.rows) >= 2*w.Limit {
		w.cut()
	}
}

// cut sorts the rows, and drops those that are not on the page.
func (w *walk) cut() {
	slices.SortFunc(w.rows, func(a, b row) int { return w.order * a.compare(&b.place) })
	w.rows = w.rows[:min(len(w.rows), w.Limit)]
}

// causeOf returns the problem under which a device is listed: the selected one, otherwise that it is lost or never
// connected, otherwise the worst; -1 for none.
func (w *walk) causeOf(s problem.Set) int {
	switch {
	case s == 0:
		return -1
	case w.problem >= 0 && s.Has(w.problem):
		return w.problem
	case s.Away():
		return bits.Len32(uint32(s)) - 1
	}
	return bits.TrailingZeros32(uint32(s))
}

// placeOf returns the place of a row of the current device in the list.
func (w *walk) placeOf(r *row) place {
	d := r.device
	p := place{id: d.ID}
	switch w.column {
	case "name":
		p.text = w.h.nameOf(d)
	case "fleet":
		p.text = w.entries[fleetFilter].values[0]
	case "status":
		p.rank, p.text = int64(statusRank(statusOf(d))), statusOf(d)
	case "connectivity":
		p.rank = newestFirst(d.ConnectivityChanged())
	case "release":
		p.text = w.entries[releaseFilter].values[0]
	case "os":
		p.text = osOf(d)
	default:
		if w.search != nil {
			p.rank, p.text = int64(r.found), w.h.nameOf(d)
		} else {
			p.rank = w.worstFirst(r)
		}
	}
	return p
}

// worstFirst ranks devices:
//
//  1. devices with problems, the worst problem first;
//  2. others by status: disconnected, reduced functionality, unrecognized statuses, inactive, post-provisioning,
//     configuring, updating, operational;
//  3. devices not in service, then never connected devices, then lost devices.
//
// Equal devices are sorted by the time of the problem or status, the newest first and unknown times last.
func (w *walk) worstFirst(r *row) int64 {
	const (
		withoutProblem = 32
		away           = 64
		timeBits       = 44
	)
	var class int
	since := r.device.ConnectivityChanged()
	switch {
	case r.cause >= 0:
		class, since = r.cause, problem.Causes[r.cause].Since(r.device)
		if problem.Causes[r.cause].Away {
			class += away
		}
	case !w.view.InService(r.device):
		class = away - 1
	case r.device.NeverConnected():
		class, since = away, r.device.Created
	default:
		class = withoutProblem + len(statuses) - 1 - statusRank(statusOf(r.device))
	}
	return int64(class)<<timeBits + newestFirst(since)
}

// newestFirst ranks times: the newest first, unknown times last.
func newestFirst(i balena.Instant) int64 {
	const farthest = 1 << 43 // milliseconds, in the year 2248
	return farthest - int64(min(max(i, 0), farthest-1))
}

// nameOf returns the name of a device, or its UUID if names are not shown.
func (h *handler) nameOf(d *balena.Device) string {
	return cmp.Or(either(h.DeviceNames, d.Name, ""), d.UUID)
}
