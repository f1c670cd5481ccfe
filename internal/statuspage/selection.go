// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/problem"
)

// selection is which devices a list shows and in which order: what its address says. Filters combine; an empty one is
// not set.
type selection struct {
	// Fleet is a slug, Problem the name of an alert, Release a release as it is shown, Rollout one of rollouts, Tags are
	// KEY=VALUE.
	Fleet, Problem, Status, Release, Rollout, OS string
	Tags                                         []string
	// Search is what is searched for.
	Search string
	// Sort is the column to sort by, behind a minus sign for the reverse; empty for the worst first.
	Sort string
	// After and Before are where the page begins or ends.
	After, Before *place
	// Limit is how many devices a page lists.
	Limit int
	// Hold keeps the page from renewing itself.
	Hold bool

	// fixed is the fleet of a page that lists one, which is no part of the query.
	fixed string
}

// DevicesPerPage is how many devices a page lists: enough to see what is wrong, few enough for a phone. A request for JSON
// or CSV may ask for as many as maxLimit.
const (
	DevicesPerPage = 100
	maxLimit       = 10_000
)

// maxSearch bounds what may be searched for, in bytes.
const maxSearch = 200

// rollouts are the states of a rollout by which devices can be filtered. A device may be in several.
var rollouts = []string{"off target", "on target", "pinned"}

// columns are the columns that a list can be sorted by.
var columns = []string{"name", "fleet", "status", "connectivity", "release", "os"}

// parseSelection reads a query. Its errors are for people.
func parseSelection(query url.Values, fleet string) (selection, error) {
	s := selection{
		Fleet: query.Get("fleet"), Problem: query.Get("problem"), Status: query.Get("status"), Release: query.Get("release"),
		Rollout: query.Get("rollout"), OS: query.Get("os"),
		Search: strings.TrimSpace(query.Get("q")), Sort: query.Get("sort"), Hold: query.Get("hold") != "", Limit: DevicesPerPage, fixed: fleet,
	}
	for _, tag := range query["tag"] {
		if tag != "" {
			s.Tags = append(s.Tags, tag)
		}
	}
	if fleet != "" {
		s.Fleet = fleet
	}
	if s.Problem != "" && problem.Index(s.Problem) < 0 {
		return s, fmt.Errorf("there is no problem of the name %s", s.Problem)
	}
	if s.Rollout != "" && !slices.Contains(rollouts, s.Rollout) {
		return s, fmt.Errorf("there is no state of a rollout %s; there are %s", s.Rollout, strings.Join(rollouts, ", "))
	}
	if column := strings.TrimPrefix(s.Sort, "-"); s.Sort != "" && !slices.Contains(columns, column) {
		return s, fmt.Errorf("there is no column %s; a list can be sorted by %s", column, strings.Join(columns, ", "))
	}
	if len(s.Search) > maxSearch {
		return s, fmt.Errorf("a search may be %d bytes long", maxSearch)
	}
	if text := query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxLimit {
			return s, fmt.Errorf("the limit must be from 1 to %d", maxLimit)
		}
		s.Limit = n
	}
	var errs [2]error
	s.After, errs[0] = parsePlace(query.Get("after"))
	s.Before, errs[1] = parsePlace(query.Get("before"))
	if s.After != nil && s.Before != nil {
		return s, errors.New("a page begins after a device or ends before one, not both")
	}
	return s, cmp.Or(errs[0], errs[1])
}

// query returns the query that means the selection.
func (s *selection) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"problem": s.Problem, "status": s.Status, "release": s.Release, "rollout": s.Rollout, "os": s.OS, "q": s.Search, "sort": s.Sort} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if s.Fleet != "" && s.fixed == "" {
		q.Set("fleet", s.Fleet)
	}
	if len(s.Tags) > 0 {
		q["tag"] = s.Tags
	}
	if s.After != nil {
		q.Set("after", s.After.String())
	}
	if s.Before != nil {
		q.Set("before", s.Before.String())
	}
	if s.Limit != DevicesPerPage {
		q.Set("limit", strconv.Itoa(s.Limit))
	}
	if s.Hold {
		q.Set("hold", "1")
	}
	return q
}

// address is where the selection is, changed in some way, relative to the page.
func (s selection) address(change func(*selection)) string {
	s.After, s.Before = nil, nil
	change(&s)
	return "?" + s.query().Encode()
}

// as is where the selection is in another format.
func (s selection) as(format string, limit int) string {
	s.Limit, s.Hold = limit, false
	q := s.query()
	q.Set("format", format)
	return "?" + q.Encode()
}

// filtered tells whether the list leaves devices out that the page could show.
func (s *selection) filtered() bool {
	return s.Problem != "" || s.Status != "" || s.Release != "" || s.Rollout != "" || s.OS != "" || len(s.Tags) > 0 || s.Fleet != s.fixed
}

// tag is the value of a tag that is chosen.
func (s *selection) tag(key string) (value string, chosen bool) {
	for _, tag := range s.Tags {
		if value, ok := strings.CutPrefix(tag, key+"="); ok {
			return value, true
		}
	}
	return "", false
}

// place is the place of a device in a list: by what the list is sorted by, and by the device's ID. Pages begin and end at
// places, and not after a number of devices: those that are added, removed or changed elsewhere move no other device from
// page to page.
type place struct {
	rank int64
	text string
	id   int64
}

// end is the place behind all devices.
const end = "end"

var endPlace = &place{rank: 1<<63 - 1, id: 1<<63 - 1}

func (p *place) String() string {
	if *p == *endPlace {
		return end
	}
	return fmt.Sprintf("%d.%d.%s", p.rank, p.id, p.text)
}

func parsePlace(text string) (*place, error) {
	switch text {
	case "":
		return nil, nil
	case end:
		return endPlace, nil
	}
	parts := strings.SplitN(text, ".", 3)
	if len(parts) == 3 {
		rank, e1 := strconv.ParseInt(parts[0], 10, 64)
		id, e2 := strconv.ParseInt(parts[1], 10, 64)
		if e1 == nil && e2 == nil {
			return &place{rank, parts[2], id}, nil
		}
	}
	return nil, errors.New("this address names no place in the list; begin with its first page")
}

// compare compares places in ascending order.
func (p *place) compare(o *place) int {
	switch {
	case p.rank != o.rank:
		return cmp.Compare(p.rank, o.rank)
	case p.text != o.text:
		if c := natural(p.text, o.text); c != 0 {
			return c
		}
		return cmp.Compare(p.text, o.text)
	}
	return cmp.Compare(p.id, o.id)
}

// natural compares texts as people do: without regard to the case of ASCII letters, and numbers by their value, so that
// 6.5.10 comes after 6.5.9.
func natural(a, b string) int {
	for a != "" && b != "" {
		if isDigit(a[0]) && isDigit(b[0]) {
			var m, n string
			m, a = digits(a)
			n, b = digits(b)
			if c := cmp.Or(cmp.Compare(len(m), len(n)), cmp.Compare(m, n)); c != 0 {
				return c
			}
			continue
		}
		if c := cmp.Compare(lower(a[0]), lower(b[0])); c != 0 {
			return c
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// digits takes the digits at the beginning of a text, without leading zeros.
func digits(s string) (number, rest string) {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return strings.TrimLeft(s[:n], "0"), s[n:]
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
