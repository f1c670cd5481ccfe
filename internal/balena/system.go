// SPDX-License-Identifier: Apache-2.0

package balena

import (
	"cmp"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena/osversion"
)

// SystemReleases are the releases of balenaOS and of the supervisor that the server publishes, for the device types that
// were requested. They are immutable. A nil pointer has no releases.
type SystemReleases struct {
	// OS are the releases of balenaOS by device type, Supervisor those of the supervisor by CPU architecture.
	OS, Supervisor map[string]*ReleaseHistory
	// Architectures are the CPU architectures by device type.
	Architectures map[string]string
}

// OSRelease returns the release of balenaOS that devices run, or nil if no release has their version.
func (s *SystemReleases) OSRelease(os OS) *SystemRelease {
	if s == nil {
		return nil
	}
	return s.OS[os.Type].find(os.Version, os.Variant)
}

// SupervisorRelease returns the release of the supervisor with a version for a device type, or nil if there is none.
func (s *SystemReleases) SupervisorRelease(deviceType, version string) *SystemRelease {
	if s == nil {
		return nil
	}
	return s.Supervisor[s.Architectures[deviceType]].find(version, "")
}

// Equal reports whether the releases are the same.
func (s *SystemReleases) Equal(o *SystemReleases) bool { return s == o || reflect.DeepEqual(s, o) }

// SystemRelease is a final, successful release of balenaOS or of the supervisor. The comments name the fields of the
// resource "release".
type SystemRelease struct {
	Version     string  // raw_version, such as "6.5.10", "2.12.7+rev1.prod" or "2026.7.1"
	Variant     string  // variant: "prod", "dev", or empty for a release that is both
	Phase       string  // phase: next, current, sunset, end-of-life, or empty
	Created     Instant // created_at
	Invalidated bool    // is_invalidated: somebody has withdrawn the release
	KnownIssues bool    // known_issue_list is not empty

	// Line is the name of the line of releases to which this one belongs: [DefaultLine], or that of an ESR line.
	Line string
	// EndOfLife is when the support of the line ends, 0 if no end is known.
	EndOfLife Instant
	// Behind is the number of newer versions that were not invalidated. An ESR release is compared with ESR releases only,
	// any other release with those of the default line only.
	Behind int

	parsed osversion.Version
}

// DefaultLine is the name of the line of releases that are not ESR releases.
const DefaultLine = "default"

// EndOfLifePhase is the phase of a release that is no longer supported.
const EndOfLifePhase = "end-of-life"

// Supported reports whether the release is supported at a time. The phase decides; without one, the end of the line does.
func (r *SystemRelease) Supported(at Instant) bool {
	if r.Phase != "" {
		return r.Phase != EndOfLifePhase
	}
	return r.EndOfLife == 0 || at < r.EndOfLife
}

// ReleaseLine is a line of releases. Patches of a version of balenaOS with extended support (ESR) are a line, named
// by year and month; all other releases are the default line.
type ReleaseLine struct {
	Name string
	// Latest is the release with the highest version that was not invalidated, nil if all were.
	Latest *SystemRelease
	// EndOfLife is when the support of the line ends, 0 for the default line.
	EndOfLife Instant
	// Phase is the phase of the newest release of the line.
	Phase string
}

// Supported reports whether the line is supported at a time.
func (l *ReleaseLine) Supported(at Instant) bool {
	return (&SystemRelease{Phase: l.Phase, EndOfLife: l.EndOfLife}).Supported(at)
}

// esrSupport is how many months ESR releases are supported. Source: balena's documentation, "Extended Support Release".
const esrSupport = 9

// ReleaseHistory are the releases of balenaOS for a device type, or of the supervisor for a CPU architecture.
type ReleaseHistory struct {
	// Lines are in ascending order of their versions.
	Lines     []ReleaseLine
	byVersion map[build]*SystemRelease
}

// build identifies a release of balenaOS: early versions have one release for each variant.
type build struct {
	version osversion.Version
	variant string
}

// NewReleaseHistory returns the history of releases, in any order. Releases whose version cannot be parsed are ignored.
func NewReleaseHistory(releases []SystemRelease) *ReleaseHistory {
	h := &ReleaseHistory{byVersion: map[build]*SystemRelease{}}
	var sorted []*SystemRelease
	for i := range releases {
		r := releases[i]
		parsed, ok := osversion.Parse(r.Version)
		if !ok {
			continue
		}
		r.parsed, r.Line = parsed, parsed.Line()
		sorted = append(sorted, &r)
	}
	slices.SortFunc(sorted, func(a, b *SystemRelease) int {
		return cmp.Or(a.parsed.Compare(b.parsed), cmp.Compare(a.Created, b.Created), cmp.Compare(a.Version, b.Version))
	})
	for _, r := range sorted { // of several releases with one version, the newest
		h.byVersion[build{r.parsed.Key(), r.Variant}] = r
	}
	h.addLines(sorted)
	countBehind(sorted)
	return h
}

// addLines adds the lines of releases in ascending order of version.
func (h *ReleaseHistory) addLines(sorted []*SystemRelease) {
	for _, r := range sorted {
		l := h.Line(r.Line)
		if l == nil {
			h.Lines = append(h.Lines, ReleaseLine{Name: r.Line})
			l = &h.Lines[len(h.Lines)-1]
		}
		l.Phase = r.Phase
		if !r.Invalidated {
			l.Latest = r
		}
		if r.parsed.ESR() && r.Created != 0 {
			if end := addMonths(r.Created, esrSupport); l.EndOfLife == 0 || end < l.EndOfLife {
				l.EndOfLife = end
			}
		}
	}
	for _, r := range sorted {
		r.EndOfLife = h.Line(r.Line).EndOfLife
	}
}

func addMonths(at Instant, months int) Instant {
	return Instant(time.UnixMilli(int64(at)).UTC().AddDate(0, months, 0).UnixMilli())
}

// countBehind sets Behind of releases in ascending order of version.
func countBehind(sorted []*SystemRelease) {
	var newer [2]int // versions that are not invalidated, of the default line and of the ESR lines
	var last [2]osversion.Version
	for _, r := range slices.Backward(sorted) {
		kind := 0
		if r.parsed.ESR() {
			kind = 1
		}
		r.Behind = newer[kind]
		switch key := r.parsed.Key(); {
		case newer[kind] > 0 && key == last[kind]:
			r.Behind-- // the last one is another variant of this version
		case !r.Invalidated:
			newer[kind]++
			last[kind] = key
		}
	}
}

// find returns the release with a version as a device reports it, or nil. It tries the
// releases of the version in this order: the reported variant, both variants, prod, dev.
func (h *ReleaseHistory) find(version, variant string) *SystemRelease {
	if h == nil {
		return nil
	}
	parsed, ok := osversion.Parse(version)
	if !ok {
		return nil
	}
	for _, v := range [...]string{variant, "", "prod", "dev"} {
		if r := h.byVersion[build{parsed.Key(), v}]; r != nil {
			return r
		}
	}
	return nil
}

// Line returns the line with a name, or nil.
func (h *ReleaseHistory) Line(name string) *ReleaseLine {
	for i := range h.Lines {
		if h.Lines[i].Name == name {
			return &h.Lines[i]
		}
	}
	return nil
}

// ReleasePolicy is what the tags of a host application define about its releases: the values of [ReleasePolicyTags] by key.
type ReleasePolicy map[string]string

// The keys of the tags of a [ReleasePolicy]. The value of release-policy is "esr" if there are ESR releases. The others have
// the oldest version of their phase, such as "2026.7".
const (
	tagPolicy  = "release-policy"
	tagNext    = "esr-next"
	tagCurrent = "esr-current"
	tagSunset  = "esr-sunset"
)

// ReleasePolicyTags are the keys of the tags of a [ReleasePolicy].
var ReleasePolicyTags = []string{tagCurrent, tagNext, tagSunset, tagPolicy}

// Phase returns the phase of a release: its own, otherwise the one that the policy has for its version, empty if there is
// none. With the policy for ESR, an ESR release outside of all phases has reached its end of life.
func (p ReleasePolicy) Phase(own, version string) string {
	parsed, ok := osversion.Parse(version)
	if own != "" || !ok || !parsed.ESR() {
		return own
	}
	for _, phase := range [...]struct{ name, tag string }{{"next", tagNext}, {"current", tagCurrent}, {"sunset", tagSunset}} {
		if since(parsed, p[phase.tag]) {
			return phase.name
		}
	}
	if strings.EqualFold(p[tagPolicy], "esr") {
		return EndOfLifePhase
	}
	return ""
}

// since reports whether a version is in the range "^from": of the same year, and of the same month or a later one.
func since(v osversion.Version, from string) bool {
	year, rest, _ := strings.Cut(from, ".")
	month, _, _ := strings.Cut(rest, ".")
	y, err := strconv.ParseUint(year, 10, 32)
	if err != nil {
		return false
	}
	m, err := strconv.ParseUint(month, 10, 32)
	return err == nil && v.Major == y && v.Minor >= m
}
