// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"strconv"
	"strings"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// osRelease is the published release of balenaOS that a device runs.
type osRelease struct {
	Line    string `json:"line"`
	Created moment `json:"created"`
	// Behind is the number of newer releases; see [balena.SystemRelease].
	Behind      int    `json:"releases_behind"`
	Phase       string `json:"phase,omitempty"`
	Supported   bool   `json:"supported"`
	Invalidated bool   `json:"invalidated"`
	KnownIssues bool   `json:"known_issues"`
}

// osReleaseOf returns nil if no published release has the version of the device.
func osReleaseOf(s *balena.Snapshot, d *balena.Device, now time.Time) *osRelease {
	r := s.System.OSRelease(balena.OSOf(d))
	if r == nil {
		return nil
	}
	return &osRelease{
		Line: r.Line, Created: instant(r.Created, now), Behind: r.Behind, Phase: r.Phase,
		Supported: r.Supported(balena.Instant(now.UnixMilli())), Invalidated: r.Invalidated, KnownIssues: r.KnownIssues,
	}
}

const month = 365 * day / 12

// String describes the age of the release and its deficiencies.
func (r *osRelease) String() string {
	var parts []string
	if !r.Created.IsZero() {
		age := r.Created.Ago()
		if months := int(r.Created.age() / month); months >= 2 {
			age = strconv.Itoa(months) + " months"
		}
		parts = append(parts, age+" old")
	}
	if r.Behind > 0 {
		parts = append(parts, strconv.Itoa(r.Behind)+either(r.Behind == 1, " release", " releases")+" behind")
	}
	if !r.Supported {
		parts = append(parts, "no longer supported")
	}
	if r.Invalidated {
		parts = append(parts, "invalidated")
	}
	if r.KnownIssues {
		parts = append(parts, "known issues")
	}
	return strings.Join(parts, ", ")
}

// remarkable reports whether a list mentions the release: it is not supported, was invalidated, or is a year old although
// there are newer ones.
func (r *osRelease) remarkable() bool {
	return !r.Supported || r.Invalidated || r.Behind > 0 && r.Created.age() >= 12*month
}
