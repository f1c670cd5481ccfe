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
	Line    string     `json:"line"`
	Created *time.Time `json:"created"`
	// Behind is the number of newer releases; see [balena.SystemRelease].
	Behind      int    `json:"releases_behind"`
	Phase       string `json:"phase,omitempty"`
	Supported   bool   `json:"supported"`
	Invalidated bool   `json:"invalidated"`
	KnownIssues bool   `json:"known_issues"`

	age time.Duration
}

// osReleaseOf returns nil if no published release has the version of the device.
func osReleaseOf(s *balena.Snapshot, d *balena.Device, now time.Time) *osRelease {
	r := s.System.OSRelease(balena.OSOf(d))
	if r == nil {
		return nil
	}
	v := &osRelease{
		Line: r.Line, Behind: r.Behind, Phase: r.Phase, Supported: r.Supported(balena.Instant(now.UnixMilli())),
		Invalidated: r.Invalidated, KnownIssues: r.KnownIssues,
	}
	if r.Created != 0 {
		v.Created, _ = instant(r.Created, now)
		v.age = now.Sub(*v.Created)
	}
	return v
}

const month = 365 * day / 12

// String describes the age of the release and its deficiencies.
func (r *osRelease) String() string {
	var parts []string
	if r.Created != nil {
		age := duration(r.age)
		if months := int(r.age / month); months >= 2 {
			age = strconv.Itoa(months) + " months"
		}
		parts = append(parts, age+" old")
	}
	switch {
	case r.Behind == 1:
		parts = append(parts, "1 release behind")
	case r.Behind > 1:
		parts = append(parts, strconv.Itoa(r.Behind)+" releases behind")
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
	return !r.Supported || r.Invalidated || r.Behind > 0 && r.age >= 12*month
}
