// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"net/http"
	"testing"
)

func TestPrefersGzip(t *testing.T) {
	for _, test := range []struct {
		accept []string // lines of Accept-Encoding
		want   bool
		why    string
	}{
		{nil, false, "curl, and vmagent with disable_compression"},
		{[]string{"gzip"}, true, "Prometheus, vmagent, OpenTelemetry"},
		{[]string{"identity"}, false, "Prometheus with enable_compression: false"},
		{[]string{"zstd,gzip;q=0.9"}, true, "zstd is not offered"},
		{[]string{"deflate, gzip, br, zstd"}, true, "curl --compressed"},
		{[]string{"gzip, deflate"}, true, "Python's requests"},
		{[]string{"GZIP"}, true, "codings are case-insensitive"},
		{[]string{"x-gzip"}, true, "the old name"},
		{[]string{"br", "gzip"}, true, "several lines are one list"},
		{[]string{"gzip;q=1.0"}, true, ""},
		{[]string{"gzip ; q=0.001"}, true, "white space around the semicolon"},
		{[]string{"gzip;Q=0.5"}, true, ""},
		{[]string{"gzip;q=0"}, false, "refused"},
		{[]string{"gzip;q=0.000"}, false, "refused"},
		{[]string{"gzip;q=0, *"}, false, "a refusal by name is stronger than *"},
		{[]string{"*"}, true, "anything"},
		{[]string{"*;q=0"}, false, "nothing at all: identity, rather than 406"},
		{[]string{"identity;q=0"}, false, "nothing that is served: identity, rather than 406"},
		{[]string{"identity;q=0, gzip;q=0"}, false, "likewise"},
		{[]string{"identity, gzip"}, true, "no preference"},
		{[]string{"identity, gzip;q=0.5"}, false, "prefers identity"},
		{[]string{"identity;q=0.5, gzip"}, true, "prefers gzip"},
		{[]string{"identity, *;q=0.5"}, false, "prefers identity to all others"},
		{[]string{"gzip;q=nonsense"}, false, "not understood"},
		{[]string{"gzip;q=NaN"}, false, "not understood"},
		{[]string{"gzip;q=2"}, false, "out of range"},
		{[]string{"gzip;q=-1"}, false, "out of range"},
		{[]string{"notgzip"}, false, "another coding"},
		{[]string{""}, false, "an empty list wants identity"},
		{[]string{" , ,gzip"}, true, "empty elements are skipped"},
	} {
		header := http.Header{"Accept-Encoding": test.accept}
		if got := prefersGzip(header); got != test.want {
			t.Errorf("Accept-Encoding %q: gzip %v, want %v (%s)", test.accept, got, test.want, test.why)
		}
	}
}
