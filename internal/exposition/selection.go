// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A Selection selects the text of a page to serve. The zero value selects everything.
//
// A page has sections, each with some pieces of each family; see [Builder.EndSection]. Of n parts, part i has the i-th of n
// equal shares of the sections. Part 0 also has the text that is in no section, and the live part. Each sample of the page is
// in exactly one part.
type Selection struct {
	// Groups are the groups of families to serve, or nil for all.
	Groups []string
	// Part is the number of the part, from 0, among Parts. With Parts of 0 or 1, everything is selected.
	Part, Parts int
}

func (s *Selection) everything() bool { return s.Groups == nil && s.Parts <= 1 }

// has reports whether a group is selected.
func (s *Selection) has(group string) bool {
	return s.Groups == nil || slices.Contains(s.Groups, group)
}

// The parameters of a scrape.
const (
	groupParameter = "collect[]"
	partParameter  = "part"
)

// selection parses the parameters of a scrape.
func (h *handler) selection(query url.Values) (*Selection, error) {
	s := &Selection{Groups: query[groupParameter]}
	groups := append(slices.Clone(h.Groups), LiveGroup)
	for _, group := range s.Groups {
		if !slices.Contains(groups, group) {
			return nil, fmt.Errorf("unknown group %q; valid values of %s: %s", group, groupParameter, strings.Join(groups, ", "))
		}
	}
	parts := query[partParameter]
	if len(parts) == 0 {
		return s, nil
	}
	index, count, found := strings.Cut(parts[0], "/")
	var err, countErr error
	s.Part, err = strconv.Atoi(index)
	s.Parts, countErr = strconv.Atoi(count)
	switch {
	case len(parts) > 1 || !found || err != nil || countErr != nil || s.Parts < 1 || s.Part < 0 || s.Part >= s.Parts:
		return nil, fmt.Errorf("%s must be INDEX/COUNT, such as 0/%d, with INDEX counted from 0", partParameter, max(2, h.Parts))
	case s.Parts > 1 && h.Parts <= 1:
		return nil, fmt.Errorf("the exporter does not divide expositions into parts; start it with --web.parts=%d", s.Parts)
	case max(1, h.Parts)%s.Parts != 0:
		return nil, fmt.Errorf("the exporter runs with --web.parts=%d, which is not divisible by %d", h.Parts, s.Parts)
	}
	return s, nil
}
