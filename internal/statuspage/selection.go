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

// selection holds the query parameters of a list: which devices it shows, and in which order. A device must match all
// filters; an empty filter is not set.
type selection struct {
	// Fleet is a slug, Problem the name of an alert, Release the displayed name of a release, Rollout an element of
	// rollouts. Tags have the form KEY=VALUE.
	Fleet, Problem, Status, Release, Rollout, OS string
	Tags                                         []string
	// Search is the searched text.
	Search string
	// Sort is the column to sort by, with a leading minus sign for the reverse order; empty for the worst devices first.
	Sort string
	// After and Before are the places before the first and after the last device of the page; at most one is set.
	After, Before *place
	// Limit is the number of devices on a page.
	Limit int
	// Hold stops the page from reloading itself.
	Hold bool

	// fixed is the fleet of a fleet page, which is not a query parameter.
	fixed string
}

// DevicesPerPage is the number of devices on a page. Requests for JSON or CSV may have a limit of up to maxLimit.
const (
	DevicesPerPage = 100
	maxLimit       = 10_000
)

// maxSearch is the maximum length of a searched text in bytes.
const maxSearch = 200

// rollouts are the values of the filter for rollout states. A device may have several states.
var rollouts = []string{"off target", "on target", "pinned"}

// columns are the columns by which a list can be sorted.
var columns = []string{"name", "fleet", "status", "connectivity", "release", "os"}

// parseSelection parses a query. Its errors are shown to users.
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
		return s, fmt.Errorf("unknown problem %s", s.Problem)
	}
	if s.Rollout != "" && !slices.Contains(rollouts, s.Rollout) {
		return s, fmt.Errorf("unknown rollout state %s, valid states: %s", s.Rollout, strings.Join(rollouts, ", "))
	}
	if column := strings.TrimPrefix(s.Sort, "-"); s.Sort != "" && !slices.Contains(columns, column) {
		return s, fmt.Errorf("lists cannot be sorted by %s, valid columns: %s", column, strings.Join(columns, ", "))
	}
	if len(s.Search) > maxSearch {
		return s, fmt.Errorf("the search text is longer than %d bytes", maxSearch)
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
		return s, errors.New("the parameters after and before cannot be combined")
	}
	return s, cmp.Or(errs[0], errs[1])
}

// query returns the query parameters of the selection.
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

// address returns the address of the first page of a changed selection, relative to the page.
func (s selection) address(change func(*selection)) string {
	s.After, s.Before = nil, nil
	change(&s)
	return "?" + s.query().Encode()
}

// formatAddress returns the address of the selection in another format.
func (s selection) formatAddress(format string, limit int) string {
	s.Limit, s.Hold = limit, false
	q := s.query()
	q.Set("format", format)
	return "?" + q.Encode()
}

// filtered reports whether any filter is set.
func (s *selection) filtered() bool {
	return s.Problem != "" || s.Status != "" || s.Release != "" || s.Rollout != "" || s.OS != "" || len(s.Tags) > 0 || s.Fleet != s.fixed
}

// tag returns the value of the filter for a tag.
func (s *selection) tag(key string) (value string, ok bool) {
	for _, tag := range s.Tags {
		if value, ok := strings.CutPrefix(tag, key+"="); ok {
			return value, true
		}
	}
	return "", false
}

// place is the place of a device in a list: the value by which the list is sorted, and the device's ID. Pages begin and
// end at places, not after a number of devices, so that an added, removed or changed device does not move other devices
// to another page.
type place struct {
	rank int64
	text string
	id   int64
}

// end is the text form of endPlace, the place after all devices.
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
	return nil, errors.New("invalid parameter after or before; begin with the first page")
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

// natural compares texts in natural order: it ignores the case of ASCII letters and compares numbers by value, so that
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

// digits splits off the digits at the beginning of a text, without leading zeros.
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
