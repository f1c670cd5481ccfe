// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"strconv"
	"strings"
	"time"
)

// thousands formats a number with commas as thousands separators.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// moment is a formatted time in the past; the zero value is an unknown time.
type moment struct {
	// UTC is the time as text, and Machine in the format of the attribute datetime.
	UTC, Machine string
	// Ago is the time that has passed since.
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
