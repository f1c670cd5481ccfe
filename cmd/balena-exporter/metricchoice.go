// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"slices"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

// metrics returns a function that selects families by the allowlist and the denylist, or nil if both are empty.
func (c *checker) metrics(allowed, denied []string) func(family string) bool {
	if len(allowed)+len(denied) == 0 {
		return nil
	}
	families := selectable()
	patterns := func(flag string, texts []string) (list []*regexp.Regexp) {
		for _, text := range texts {
			pattern := c.pattern(flag, text)
			if pattern != nil && !slices.ContainsFunc(families, pattern.MatchString) {
				c.fail("%s is %q, which matches no metric; the most similar name is %s", flag, text, nearest(text, families))
			}
			list = append(list, pattern)
		}
		return list
	}
	allow, deny := patterns("--collector.metric-allowlist", allowed), patterns("--collector.metric-denylist", denied)
	if len(c.mistakes) > 0 {
		return nil
	}
	matched := func(list []*regexp.Regexp, family string) bool {
		return slices.ContainsFunc(list, func(p *regexp.Regexp) bool { return p.MatchString(family) })
	}
	return func(family string) bool {
		return (len(allow) == 0 || matched(allow, family)) && !matched(deny, family)
	}
}

// selectable returns the names of the families that the lists can select.
func selectable() (names []string) {
	for _, d := range collector.Catalog() {
		if d.ScrapeGroup() != exposition.LiveGroup {
			names = append(names, d.Name)
		}
	}
	return names
}

// nearest returns the name with the smallest edit distance to a text.
func nearest(text string, names []string) string {
	return slices.MinFunc(names, func(a, b string) int { return edits(text, a) - edits(text, b) })
}

// edits returns the edit distance of a and b: the number of bytes to insert, delete or replace.
func edits(a, b string) int {
	row := make([]int, len(b)+1) // distances between a prefix of a and all prefixes of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
