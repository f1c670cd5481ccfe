// SPDX-License-Identifier: Apache-2.0

package balena

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func day(date string) Instant {
	at, err := time.Parse(time.DateOnly, date)
	if err != nil {
		panic(err)
	}
	return Instant(at.UnixMilli())
}

// published has releases of both kinds, in no order.
func published() *SystemReleases {
	return &SystemReleases{
		OS: map[string]*ReleaseHistory{"rpi": NewReleaseHistory([]SystemRelease{
			{Version: "6.6.0", Created: day("2026-10-01")},
			{Version: "6.5.10", Created: day("2026-08-01"), KnownIssues: true},
			{Version: "6.6.1", Created: day("2026-10-20"), Invalidated: true},
			{Version: "2.12.7+rev1.dev", Variant: "dev", Created: day("2018-05-02")},
			{Version: "2.12.7+rev1.prod", Variant: "prod", Created: day("2018-05-01"), Phase: EndOfLifePhase},
			{Version: "2.12.7+rev2.prod", Variant: "prod", Created: day("2018-05-03")},
			{Version: "2.12.7+rev2.dev", Variant: "dev", Created: day("2018-05-03"), Invalidated: true},
			{Version: "2026.1.0", Created: day("2026-01-15"), Invalidated: true},
			{Version: "2026.1.1", Created: day("2026-03-01")},
			{Version: "2026.10.0", Created: day("2026-10-10"), Phase: "next"},
			{Version: "no version"},
		})},
		Supervisor:    map[string]*ReleaseHistory{"aarch64": NewReleaseHistory([]SystemRelease{{Version: "17.1.0"}, {Version: "17.0.3"}})},
		Architectures: map[string]string{"rpi": "aarch64"},
	}
}

// A device is compared with versions of its kind that were not invalidated. Variants of one version count once.
func TestReleasesBehind(t *testing.T) {
	s := published()
	for _, test := range []struct {
		version, variant string
		release          string
		behind           int
	}{
		{"balenaOS 6.6.0", "prod", "6.6.0", 0},
		{"balenaOS 6.6.1", "prod", "6.6.1", 0},
		{"balenaOS 6.5.10", "", "6.5.10", 1},
		{"balenaOS 2.12.7+rev2", "prod", "2.12.7+rev2.prod", 2},
		{"balenaOS 2.12.7+rev2", "dev", "2.12.7+rev2.dev", 2},
		{"Resin OS 2.12.7+rev1 (prod)", Unknown, "2.12.7+rev1.prod", 3},
		{"balenaOS 2.12.7+rev1", "dev", "2.12.7+rev1.dev", 3},
		{"balenaOS 2026.1.0", "prod", "2026.1.0", 2},
		{"balenaOS 2026.1.1", "prod", "2026.1.1", 1},
		{"balenaOS 2026.10.0", "prod", "2026.10.0", 0},
		{"balenaOS 6.6.0+custom", "prod", "6.6.0", 0},
		{"balenaOS 6.5.11", "prod", "", 0},
		{Unknown, Unknown, "", 0},
	} {
		r := s.OSRelease(OS{"rpi", test.version, test.variant})
		switch {
		case r == nil && test.release != "":
			t.Errorf("%s (%s): no release, want %s", test.version, test.variant, test.release)
		case r != nil && (r.Version != test.release || r.Behind != test.behind):
			t.Errorf("%s (%s): release %s, %d behind, want %s, %d", test.version, test.variant, r.Version, r.Behind, test.release, test.behind)
		}
	}
	if r := s.OSRelease(OS{"another", "balenaOS 6.6.0", "prod"}); r != nil {
		t.Errorf("the release of another device type is %v", r)
	}
	for version, behind := range map[string]int{"17.0.3": 1, "v17.1.0": 0} {
		if r := s.SupervisorRelease("rpi", version); r == nil || r.Behind != behind {
			t.Errorf("supervisor %s: %+v, want %d behind", version, r, behind)
		}
	}
	if r := s.SupervisorRelease("another", "17.1.0"); r != nil {
		t.Errorf("the supervisor of another device type is %v", r)
	}
	var nothing *SystemReleases
	if nothing.OSRelease(OS{"rpi", "6.6.0", ""}) != nil || nothing.SupervisorRelease("rpi", "17.1.0") != nil {
		t.Error("there are releases where none are published")
	}
}

// Two host applications may publish one version. The newest release of it counts, in whatever order they are listed.
func TestReleasesWithOneVersion(t *testing.T) {
	older, newer := SystemRelease{Version: "6.6.0", Created: day("2026-10-01")}, SystemRelease{Version: "6.6.0", Created: day("2026-10-02"), Invalidated: true}
	for _, releases := range [][]SystemRelease{{older, newer}, {newer, older}} {
		s := &SystemReleases{OS: map[string]*ReleaseHistory{"rpi": NewReleaseHistory(releases)}}
		if r := s.OSRelease(OS{"rpi", "balenaOS 6.6.0", "prod"}); r.Created != newer.Created || !r.Invalidated || r.Behind != 0 {
			t.Errorf("%+v: the release is %+v", releases, r)
		}
	}
}

// The support of an ESR line ends nine months after its first release, whether or not that was invalidated. A phase decides
// before the time does.
func TestReleaseLines(t *testing.T) {
	type line struct {
		Name, Latest, Phase string
		EndOfLife           Instant
	}
	var got []line
	for _, l := range published().OS["rpi"].Lines {
		got = append(got, line{l.Name, l.Latest.Version, l.Phase, l.EndOfLife})
	}
	want := []line{
		{DefaultLine, "6.6.0", "", 0},
		{"2026.1", "2026.1.1", "", day("2026-10-15")},
		{"2026.10", "2026.10.0", "next", day("2027-07-10")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	for _, test := range []struct {
		version   string
		at        string
		supported bool
	}{
		{"6.5.10", "2040-01-01", true},
		{"2.12.7+rev1.prod", "2018-06-01", false},
		{"2026.1.1", "2026-10-14", true},
		{"2026.1.1", "2026-10-15", false},
		{"2026.10.0", "2028-01-01", true},
	} {
		if r := published().OSRelease(OS{"rpi", test.version, "prod"}); r.Supported(day(test.at)) != test.supported {
			t.Errorf("%s is supported on %s: %t", test.version, test.at, !test.supported)
		}
	}
}

// The phase of an ESR release is its own, otherwise that of the tags: each phase begins with a version and lasts until that of
// the next phase, within a year.
func TestReleasePolicy(t *testing.T) {
	esr := ReleasePolicy{"release-policy": "ESR", "esr-next": "2027.1", "esr-current": "2026.10", "esr-sunset": "2026.7.x"}
	for _, test := range []struct {
		policy             ReleasePolicy
		own, version, want string
	}{
		{esr, "", "2027.1.3", "next"},
		{esr, "", "2026.10.0", "current"},
		{esr, "", "2026.12.0", "current"},
		{esr, "", "2026.7.4", "sunset"},
		{esr, "", "2026.4.9", EndOfLifePhase},
		{esr, "", "2025.10.0", EndOfLifePhase},
		{esr, "sunset", "2026.4.9", "sunset"},
		{esr, "", "6.5.10", ""},
		{esr, "", "no version", ""},
		{ReleasePolicy{}, "", "2026.4.9", ""},
		{ReleasePolicy{}, EndOfLifePhase, "2.12.7", EndOfLifePhase},
		{ReleasePolicy{"esr-next": "soon"}, "", "2026.4.9", ""},
	} {
		if got := test.policy.Phase(test.own, test.version); got != test.want {
			t.Errorf("%+v: the phase of %s is %q, want %q", test.policy, test.version, got, test.want)
		}
	}
}
