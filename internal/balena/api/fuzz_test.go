// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

// noon is the time of the tests.
var noon = time.Date(2026, time.November, 22, 12, 0, 0, 0, time.UTC)

// A literal is one OData string with the original value, and URL parsers leave it unchanged.
func FuzzLiteral(f *testing.F) {
	for _, s := range []string{"", "site", "it's", "'", "''", "a b&c+d", "100%", "%27", "#?/:@", "größe", "🚜", "\x00\n\x7f\xff", `"\`, "$(),;="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		written := literal(s)
		inner, opened := strings.CutPrefix(written, "'")
		inner, closed := strings.CutSuffix(inner, "'")
		if !opened || !closed {
			t.Fatalf("%q is written %q, without quotes around it", s, written)
		}
		// The server ends the string at the first quote that is not doubled.
		for rest := inner; ; {
			i := strings.IndexByte(rest, '\'')
			if i < 0 {
				break
			}
			if !strings.HasPrefix(rest[i:], "''") {
				t.Fatalf("%q is written %q, which ends early", s, written)
			}
			rest = rest[i+2:]
		}
		read, err := url.PathUnescape(strings.ReplaceAll(inner, "''", "'"))
		if err != nil || read != s {
			t.Errorf("%q is written %q, which is read as %q, %v", s, written, read, err)
		}
		r, err := http.NewRequest(http.MethodGet, "http://balena.test/v7/device_tag?$filter=tag_key%20in%20("+written+")&$top=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := r.URL.RequestURI(), "/v7/device_tag?$filter=tag_key%20in%20("+written+")&$top=1"; got != want {
			t.Errorf("%q is sent as %s, want %s", s, got, want)
		}
		if strings.ContainsAny(written, " &+#?<>\"\\") || strings.IndexFunc(written, func(c rune) bool { return c <= ' ' || c > '~' }) >= 0 {
			t.Errorf("%q is written %q, with characters that mean something in a URL", s, written)
		}
	})
}

// Whatever Retry-After says, the wait is between a second and an hour. A date within that range is obeyed.
func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "-1", "7", " 7 ", "3600", "3601", "99999999999999999999", "1.5", "soon", "Sun, 22 Nov 2026 12:01:30 GMT", "Sun, 22 Nov 2020 12:00:00 GMT"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		wait := retryAfter(header, noon)
		if wait < time.Second || wait > time.Hour {
			t.Fatalf("%q: wait %s, want between a second and an hour", header, wait)
		}
		if n, err := strconv.Atoi(header); err == nil && n >= 1 && n <= 3600 && wait != time.Duration(n)*time.Second {
			t.Errorf("%q: wait %s", header, wait)
		}
		if date, err := http.ParseTime(header); err == nil && date.After(noon) && date.Before(noon.Add(time.Hour)) && wait != date.Sub(noon) {
			t.Errorf("%q: wait %s, want %s", header, wait, date.Sub(noon))
		}
	})
}
