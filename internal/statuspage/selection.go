// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/problem"
)

// selection holds the query parameters of a list: which devices it shows, and in which order. A device must match all
// filters.
type selection struct {
	// Values are the valid parameters that are not empty, apart from the places. The fleet is a slug, the problem the name
	// of an alert, the release its displayed name, the rollout an element of rollouts. Tags have the form KEY=VALUE. The
	// column to sort by has a leading minus sign for the reverse order; without it, the worst devices come first.
	url.Values
	// After and Before are the places before the first and after the last device of the page; at most one is set.
	After, Before *place
	// Limit is the number of devices on a page.
	Limit int
	// fixed is the ID of the fleet of a fleet page, which is not a query parameter.
	fixed int64
	// menus is set if the values of tags are counted for menus.
	menus bool
}

// DevicesPerPage is the number of devices on a page. Requests for JSON or CSV may have a limit of up to maxLimit.
const (
	DevicesPerPage = 100
	maxLimit       = 10_000
)

// maxSearch is the maximum length of a searched text in bytes.
const maxSearch = 200

// columns are the columns by which a list can be sorted.
var columns = []string{"name", "fleet", "status", "connectivity", "release", "os"}

// filterNames are the parameters of filters.
var filterNames = []string{"fleet", "problem", "status", "release", "rollout", "os", "tag"}

// parseSelection parses the query of a list of all fleets, or of one. Its errors are shown to users.
func parseSelection(query url.Values, fleet int64) (selection, error) {
	s := selection{Values: url.Values{}, Limit: DevicesPerPage, fixed: fleet}
	for _, name := range append([]string{"sort", "limit"}, filterNames...) {
		set(s.Values, name, query.Get(name))
	}
	set(s.Values, "q", strings.TrimSpace(query.Get("q")))
	set(s.Values, "hold", either(query.Get("hold") != "", "1", ""))
	tags := slices.DeleteFunc(slices.Clone(query["tag"]), func(tag string) bool { return tag == "" })
	if len(tags) > 0 {
		s.Values["tag"] = tags
	}
	if fleet != 0 {
		s.Del("fleet")
	}
	if name := s.Get("problem"); name != "" && problem.Index(name) < 0 {
		return s, fmt.Errorf("unknown problem %s", name)
	}
	if state := s.Get("rollout"); state != "" && !slices.Contains(rollouts, state) {
		return s, fmt.Errorf("unknown rollout state %s, valid states: %s", state, strings.Join(rollouts, ", "))
	}
	if column := strings.TrimPrefix(s.Get("sort"), "-"); s.Has("sort") && !slices.Contains(columns, column) {
		return s, fmt.Errorf("lists cannot be sorted by %s, valid columns: %s", column, strings.Join(columns, ", "))
	}
	if len(s.Get("q")) > maxSearch {
		return s, fmt.Errorf("the search text is longer than %d bytes", maxSearch)
	}
	if s.Has("limit") {
		n, err := strconv.Atoi(s.Get("limit"))
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

// set sets a parameter. An empty value removes it.
func set(query url.Values, name, value string) {
	query.Set(name, value)
	if value == "" {
		query.Del(name)
	}
}

// query returns the parameters of the first page of a changed selection. The changes are names and values.
func (s selection) query(changes ...string) url.Values {
	s.Values = maps.Clone(s.Values)
	for change := range slices.Chunk(changes, 2) {
		set(s.Values, change[0], change[1])
	}
	return s.Values
}

// address returns the address of the first page of a changed selection, relative to the page.
func (s selection) address(changes ...string) string { return "?" + s.query(changes...).Encode() }

// formatAddress returns the address of the selection in another format.
func (s selection) formatAddress(format, limit string) string {
	return s.address("hold", "", "limit", limit, "format", format,
		"after", s.After.String(), "before", s.Before.String())
}

// filtered reports whether parameters contain a filter.
func filtered(query url.Values) bool { return slices.ContainsFunc(filterNames, query.Has) }

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

// String returns the text form of a place, empty for nil.
func (p *place) String() string {
	switch {
	case p == nil:
		return ""
	case *p == *endPlace:
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
	case p.text != o.text: // natural is slow
		return cmp.Or(natural(p.text, o.text), cmp.Compare(p.text, o.text))
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
