// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A version is a semantic version: major.minor.patch-prerelease+build.
type version struct {
	raw                 string
	major, minor, patch int
	prerelease, build   string
}

// parseVersion parses a version. A part that is not a number is 0, as on the real server.
func parseVersion(raw string) version {
	v := version{raw: raw}
	rest, build, _ := strings.Cut(raw, "+")
	rest, prerelease, _ := strings.Cut(rest, "-")
	v.prerelease, v.build = prerelease, build
	for i, part := range strings.SplitN(rest, ".", 3) {
		n, err := strconv.Atoi(part)
		if err == nil {
			*[]*int{&v.major, &v.minor, &v.patch}[i] = n
		}
	}
	return v
}

// version returns the version object. Its field version has no build. The time of a draft is a number at the end of the
// prerelease.
func (*view) version(r *Release) jsonText {
	v := parseVersion(r.RawVersion)
	words := 0
	if p := parseVersion(r.Semver).prerelease; p != "" {
		words = 1 + strings.Count(p, ".")
	}
	short, _, _ := strings.Cut(v.raw, "+")
	b := appendString([]byte(`{"raw":`), v.raw)
	b = appendParts(append(b, `,"build":`...), v.build, math.MaxInt)
	b = strconv.AppendInt(append(b, `,"major":`...), int64(v.major), 10)
	b = strconv.AppendInt(append(b, `,"minor":`...), int64(v.minor), 10)
	b = strconv.AppendInt(append(b, `,"patch":`...), int64(v.patch), 10)
	b = appendString(append(b, `,"version":`...), short)
	b = appendParts(append(b, `,"prerelease":`...), v.prerelease, words)
	return jsonText(append(b, '}'))
}

// appendParts appends the parts between the dots as an array. The first parts, whose number is words, are strings. Others are
// numbers if possible.
func appendParts(b []byte, s string, words int) []byte {
	b = append(b, '[')
	for i, part := range strings.Split(s, ".") {
		if s == "" {
			break
		}
		if i > 0 {
			b = append(b, ',')
		}
		if _, err := strconv.ParseUint(part, 10, 53); i >= words && err == nil {
			b = append(b, part...)
		} else {
			b = appendString(b, part)
		}
	}
	return append(b, ']')
}

// revision returns the revision, which is null for drafts.
func (*view) revision(r *Release) Number {
	if !r.IsFinal {
		return Number{}
	}
	for part := range strings.SplitSeq(parseVersion(r.RawVersion).build, ".") {
		if digits, ok := strings.CutPrefix(part, "rev"); ok {
			if n, err := strconv.Atoi(digits); err == nil {
				return N(n)
			}
		}
	}
	return N(0)
}

func (*view) releaseType(r *Release) string {
	if r.IsFinal {
		return "final"
	}
	return "draft"
}

// endedAt returns the time when the build ended.
func (*view) endedAt(r *Release) Time {
	if r.Status == "running" {
		return 0
	}
	return r.CreatedAt
}

// composition returns the services of the release, or those of its fleet if it has no images.
func (c *view) composition(r *Release) jsonText {
	var names []string
	add := func(s row) {
		if s, ok := s.(*Service); ok {
			names = append(names, s.Name)
		}
	}
	for _, i := range c.db.imagesOf(r.ID) {
		add(c.db.Services.find(i.(*Image).ServiceID))
	}
	if len(names) == 0 {
		for _, s := range c.db.servicesOf(r.FleetID) {
			add(s)
		}
	}
	// The database sorts keys by length.
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b)) })
	b := []byte(`{"version":"2.1","services":{`)
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, name), `:{}`...)
	}
	return jsonText(append(b, `}}`...))
}

// imageSize returns an invented size in bytes, which is a number in version 6 and a string in version 7.
func (c *view) imageSize(i row) value {
	n := 40e6 + int64(i.meta().ID)*7_654_321%900e6
	if c.v6 {
		return intValue(n)
	}
	return stringValue(strconv.FormatInt(n, 10))
}
