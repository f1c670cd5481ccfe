// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"strconv"
	"strings"
	"time"
)

// Numbers and times as people read them.

// thousands writes a number with a comma between each three digits.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// moment is a time in the past; the zero value is one that is not known.
type moment struct {
	// UTC is the time itself, and Machine the same for machines.
	UTC, Machine string
	// Ago is how long ago it was.
	Ago string
}

func since(t, now time.Time) moment {
	if t.IsZero() {
		return moment{}
	}
	t = t.UTC()
	return moment{UTC: t.Format("2006-01-02 15:04:05 UTC"), Machine: t.Format(time.RFC3339), Ago: duration(now.Sub(t))}
}

const day = 24 * time.Hour

// duration writes a duration in its largest unit of which there are at least two, rounded down. The
// clocks of the API and of the exporter may differ a little: what lies in the future is now.
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

// decimal writes a number with one digit behind the point at most.
func decimal(v float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
}

// mebibytes writes a size in MiB, or in GiB where it is one or more.
func mebibytes(v float64) string {
	if v < 1024 {
		return decimal(v) + "\u00a0MiB"
	}
	return decimal(v/1024) + "\u00a0GiB"
}
