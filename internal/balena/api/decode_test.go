// SPDX-License-Identifier: Apache-2.0

package api

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// A date is read with any offset and any precision, and is kept in milliseconds. Any other text is an error.
func TestInstant(t *testing.T) {
	const bad = balena.Instant(-1)
	afternoon := balena.Instant(time.Date(2026, time.November, 22, 14, 9, 34, 0, time.UTC).UnixMilli())
	for text, want := range map[string]balena.Instant{
		"2026-11-22T14:09:34.280Z":      afternoon + 280, // the format of the API
		"2026-11-22T14:09:34Z":          afternoon,
		"2026-11-22T14:09:34.28Z":       afternoon + 280,
		"2026-11-22T14:09:34,280Z":      afternoon + 280,
		"2026-11-22T14:09:34.280999Z":   afternoon + 280,
		"2026-11-22T15:09:34.280+01:00": afternoon + 280,
		"1970-01-01T00:00:00.000Z":      0,
		"1970-01-01T00:00:00.001Z":      1,
		"2024-02-29T23:59:59.999Z":      1709251199999,
		"2000-02-29T00:00:00.000Z":      951782400000,
		"0000-01-01T00:00:00.000Z":      -62167219200000,
		"9999-12-31T23:59:59.999Z":      253402300799999,
		"1900-02-29T00:00:00.000Z":      bad,
		"2026-02-29T00:00:00.000Z":      bad,
		"2026-04-31T00:00:00.000Z":      bad,
		"2026-13-01T00:00:00.000Z":      bad,
		"2026-00-11T00:00:00.000Z":      bad,
		"2026-11-00T00:00:00.000Z":      bad,
		"2026-11-22T24:00:00.000Z":      bad,
		"2026-11-22T23:59:60.000Z":      bad,
		"2026/11/22T14:09:34.280Z":      bad,
		"2026-11-22":                    bad,
		"null":                          bad,
		"":                              bad,
	} {
		got, err := new(Decoder).Instant(jsontext.Value(`"` + text + `"`))
		switch {
		case want == bad && err == nil:
			t.Errorf("%q is read as %d, want an error", text, got)
		case want != bad && (err != nil || got != want):
			t.Errorf("%q is read as %d, error %v, want %d", text, got, err, want)
		}
	}
}
