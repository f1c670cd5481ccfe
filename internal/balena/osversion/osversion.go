// SPDX-License-Identifier: Apache-2.0

// Package osversion parses and compares the versions of balenaOS and of the supervisor as devices and releases spell
// them: "balenaOS 6.5.10", "Resin OS 2.0.0+rev5 (prod)", "2.12.7+rev1.prod", "2022.01.0".
//
// It accepts the same texts as the npm package balena-semver and orders them in the same way, so that the exporter agrees
// with balena's dashboard and CLI. testdata/balena-semver.json holds what that package says. The differences are in texts
// that no device reports: a text of more than 1024 bytes is not a version, numbers above 2⁵³ in a prerelease are compared
// exactly, while JavaScript rounds them, and all revisions above 2⁵³-1 count as this one.
package osversion

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Version is a parsed version. Two versions are equal with == if and only if Compare returns 0.
type Version struct {
	Major, Minor, Patch uint64 // at most 2⁵³-1
	Prerelease          string // the part after "-", such as "beta.8", or empty
	Revision            uint64 // N of "+revN", or 0
	Dev                 bool   // whether the text says that it is the development variant; os_variant may say so too
}

const (
	// maxText bounds the work for a text, in bytes. All versions that are known have less than 50.
	maxText = 1024
	// maxLength is the limit of npm's semver, in characters after the rewriting.
	maxLength = 256
	// integerBits limits numbers to JavaScript's Number.MAX_SAFE_INTEGER, as npm's semver does for major, minor and patch.
	integerBits = 53
)

// rewritings turn the spellings of balena into those of semantic versioning, one after another. They have the order of
// balena-semver, on which odd texts depend. Those with (?s)^(.*? change only the first place that matches. The classes
// name both cases of letters, because (?i) would also match U+017F and U+212A, which JavaScript does not.
var rewritings = []struct {
	pattern     *regexp.Regexp
	replacement string
}{
	{regexp.MustCompile(`(?s)^(.*?\d\.\d+\.\d+)_(\w)`), "$1+$2"},                                                    // 1.2.3_rev1
	{regexp.MustCompile(`(?s)^(.*?\.\d+)\.rev`), "$1+rev"},                                                          // 1.2.3.rev1
	{regexp.MustCompile(`(?s)^(.*?\d\.\d+\.\d+)\.([Dd][Ee][Vv]\b|[Pp][Rr][Oo][Dd]\b)`), "$1+$2"},                    // 1.2.3.dev
	{regexp.MustCompile(`(?s)^(.*?\d\.\d+\.\d+(?:[-.][0-9A-Za-z]+)*) \(([0-9A-Za-z]+)\)`), "$1+$2"},                 // 1.2.3 (dev)
	{regexp.MustCompile(`(?s)^(.*?\d\.\d+\.\d+(?:[-.+][0-9A-Za-z]+)*) \(([0-9A-Za-z]+)\)`), "$1.$2"},                // 1.2.3+rev1 (dev)
	{regexp.MustCompile(`(?s)^(.*?\D)0+([1-9])`), "$1$2"},                                                           // 2022.01.0
	{regexp.MustCompile(`([Rr][Ee][Ss][Ii][Nn]|[Bb][Aa][Ll][Ee][Nn][Aa])` + space + `*[Oo][Ss]` + space + `*`), ""}, // balenaOS 1.2.3
	{regexp.MustCompile(space + `+\(\w+\)$`), ""},                                                                   // 1.2.3  (my_build)
	{regexp.MustCompile(`^v`), ""},                                                                                  // v1.2.3
}

// space matches what JavaScript takes for white space.
const space = `[\t-\r\pZ\x{FEFF}]`

func isSpace(r rune) bool { return r == 0xFEFF || r != 0x85 && unicode.IsSpace(r) }

// semantic is the grammar of https://semver.org with an optional v in front, as npm's semver reads it.
var semantic = regexp.MustCompile(`^v?(` + number + `)\.(` + number + `)\.(` + number + `)` +
	`(?:-(` + identifier + `(?:\.` + identifier + `)*))?(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?$`)

const (
	number     = `0|[1-9]\d*`
	identifier = `(?:` + number + `|\d*[A-Za-z-][0-9A-Za-z-]*)`
)

// Parse returns the version in a text, and whether there is one.
func Parse(text string) (v Version, ok bool) {
	text = strings.TrimFunc(text, isSpace)
	if len(text) > maxText {
		return Version{}, false
	}
	for _, r := range rewritings {
		text = r.pattern.ReplaceAllString(text, r.replacement)
	}
	if utf8.RuneCountInString(text) > maxLength {
		return Version{}, false
	}
	return parse(strings.TrimFunc(text, isSpace))
}

// parse parses a semantic version.
func parse(text string) (v Version, ok bool) {
	parts := semantic.FindStringSubmatch(text)
	if parts == nil {
		return Version{}, false
	}
	for i, n := range []*uint64{&v.Major, &v.Minor, &v.Patch} {
		var err error
		if *n, err = strconv.ParseUint(parts[1+i], 10, integerBits); err != nil {
			return Version{}, false
		}
	}
	v.Prerelease = parts[4]
	build := strings.Split(parts[5], ".")
	v.Dev = slices.Contains(build, "dev")
	if i := slices.IndexFunc(build, isRevision); i >= 0 {
		v.Revision, _ = strconv.ParseUint(build[i][len("rev"):], 10, integerBits) // the maximum if it is out of range
	}
	return v, true
}

func isRevision(s string) bool {
	digits, ok := strings.CutPrefix(s, "rev")
	return ok && isNumber(digits)
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// Compare returns -1 if v is older than o, 1 if it is newer, and 0 if they are equal. A development variant comes before
// the production variant. The result says nothing about versions of different lines, because an ESR version has the number
// of a year.
func (v Version) Compare(o Version) int {
	return cmp.Or(
		cmp.Compare(v.Major, o.Major),
		cmp.Compare(v.Minor, o.Minor),
		cmp.Compare(v.Patch, o.Patch),
		comparePrereleases(v.Prerelease, o.Prerelease),
		cmp.Compare(v.Revision, o.Revision),
		compareBools(o.Dev, v.Dev),
	)
}

// comparePrereleases orders as semantic versioning does: no prerelease is the newest.
func comparePrereleases(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == "":
		return 1
	case b == "":
		return -1
	}
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), compareIdentifiers)
}

// compareIdentifiers orders numbers before other identifiers. Numbers have no leading zeros.
func compareIdentifiers(a, b string) int {
	if isNumber(a) && isNumber(b) {
		return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
	}
	return cmp.Or(compareBools(isNumber(b), isNumber(a)), strings.Compare(a, b))
}

// compareBools orders false before true.
func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// Key returns v without the variant. It identifies the release that a device runs, whatever the spelling: the key of
// "balenaOS 2.12.7+rev1" is the key of "2.12.7+rev1.prod".
func (v Version) Key() Version {
	v.Dev = false
	return v
}

// ESR reports whether the version is one of balenaOS with extended support, which has the form year.month.patch. balena's
// SDK tells these by the same limit.
func (v Version) ESR() bool { return v.Major > 2000 }

// Line returns what versions of one line have in common: "2026.7" for the ESR version 2026.7.1, "default" for versions
// that are not ESR.
func (v Version) Line() string {
	if v.ESR() {
		return fmt.Sprintf("%d.%d", v.Major, v.Minor)
	}
	return "default"
}

// String returns the version as a semantic version, such as "2.12.7-beta.1+rev1.dev".
func (v Version) String() string {
	s := fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch)
	if v.Prerelease != "" {
		s += "-" + v.Prerelease
	}
	var build []string
	if v.Revision != 0 {
		build = append(build, fmt.Sprintf("rev%d", v.Revision))
	}
	if v.Dev {
		build = append(build, "dev")
	}
	if build != nil {
		s += "+" + strings.Join(build, ".")
	}
	return s
}
