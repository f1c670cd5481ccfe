// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"strconv"
	"strings"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// thousands formats a number with commas as thousands separators.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// moment is a time in the past; the zero value is an unknown time, which is null in JSON.
type moment struct{ at, now time.Time }

func since(t, now time.Time) moment { return moment{t.UTC(), now} }

// instant returns the moment of an instant, 0 for an unknown one.
func instant(i balena.Instant, now time.Time) moment {
	if i == 0 {
		return moment{}
	}
	return since(time.UnixMilli(int64(i)), now)
}

func (m moment) IsZero() bool { return m.at.IsZero() }

// UTC returns the time as text, and Machine in the format of the attribute datetime; empty if it is unknown.
func (m moment) UTC() string     { return m.format("2006-01-02 15:04:05 UTC") }
func (m moment) Machine() string { return m.format(time.RFC3339) }

func (m moment) format(layout string) string {
	if m.IsZero() {
		return ""
	}
	return m.at.Format(layout)
}

// Ago returns the time that has passed since.
func (m moment) Ago() string { return duration(m.age()) }

func (m moment) age() time.Duration { return m.now.Sub(m.at) }

func (m moment) MarshalJSON() ([]byte, error) {
	if m.IsZero() {
		return []byte("null"), nil
	}
	return m.at.MarshalJSON()
}

const day = 24 * time.Hour

// duration formats a duration in the largest unit of which it has at least two, rounded down. Negative durations, which
// differences between the clocks of the API and of the exporter cause, are 0 s.
func duration(d time.Duration) string {
	in := func(unit time.Duration, name string) string {
		return strconv.FormatInt(int64(d/unit), 10) + "\u00a0" + name
	}
	switch {
	case d < 0:
		return "0\u00a0s"
	case d < 2*time.Minute:
		return in(time.Second, "s")
	case d < 2*time.Hour:
		return in(time.Minute, "min")
	case d < 2*day:
		return in(time.Hour, "h")
	}
	return in(day, "d")
}

// decimal formats a number with at most one decimal.
func decimal(v float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
}

// mebibytes formats a size in MiB, or in GiB from 1 GiB on.
func mebibytes(v float64) string {
	if v < 1024 {
		return decimal(v) + "\u00a0MiB"
	}
	return decimal(v/1024) + "\u00a0GiB"
}
