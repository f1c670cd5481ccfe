// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"fmt"
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
	return jsonText(fmt.Sprintf(`{"raw":%s,"build":%s,"major":%d,"minor":%d,"patch":%d,"version":%s,"prerelease":%s}`,
		appendString(nil, v.raw), parts(v.build, math.MaxInt), v.major, v.minor, v.patch,
		appendString(nil, short), parts(v.prerelease, words)))
}

// parts returns the parts between the dots as an array. The first parts, whose number is words, are strings. Others are numbers
// if possible.
func parts(s string, words int) []byte {
	if s == "" {
		return []byte("[]")
	}
	parts := strings.Split(s, ".")
	for i, part := range parts {
		if _, err := strconv.ParseUint(part, 10, 53); i < words || err != nil {
			parts[i] = string(appendString(nil, part))
		}
	}
	return []byte("[" + strings.Join(parts, ",") + "]")
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
	for _, i := range c.db.imagesOf(r.ID) {
		if s, ok := c.db.Services.find(i.ServiceID).(*Service); ok {
			names = append(names, s.Name)
		}
	}
	if len(names) == 0 {
		for _, s := range c.db.servicesOf(r.FleetID) {
			names = append(names, s.Name)
		}
	}
	// The database sorts keys by length.
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b)) })
	for i, name := range names {
		names[i] = string(append(appendString(nil, name), ":{}"...))
	}
	return jsonText(`{"version":"2.1","services":{` + strings.Join(names, ",") + "}}")
}

// imageSize returns an invented size in bytes, which is a number in version 6 and a string in version 7.
func (c *view) imageSize(i row) value {
	n := 40e6 + int64(i.meta().ID)*7_654_321%900e6
	if c.v6 {
		return intValue(n)
	}
	return stringValue(strconv.FormatInt(n, 10))
}
