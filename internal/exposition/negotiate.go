// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"net/http"
	"strconv"
	"strings"
)

// prefersGzip reports whether gzip is the best content coding for a request, by
// RFC 9110, section 12.5.3. If the client accepts both equally, gzip is preferred, because
// it needs less CPU than inflating the page. Clients that accept neither, and clients
// without the header, get identity.
//
// Known scrapers: Prometheus sends "gzip", or "identity" with enable_compression
// off; OpenTelemetry's receiver embeds Prometheus' scraper; vmagent sends "gzip" or
// nothing; curl nothing, or "deflate, gzip, br, zstd" with --compressed.
//
// The header Accept need not be read: all known scrapers end it with */* or include
// the text format 0.0.4 (Prometheus 3 adds parameters, such as escaping=allow-utf-8,
// only to formats that are not served here).
func prefersGzip(header http.Header) bool {
	const unlisted = -1
	gzip, identity, other := float64(unlisted), float64(unlisted), float64(unlisted)
	for _, line := range header.Values("Accept-Encoding") {
		for element := range strings.SplitSeq(line, ",") {
			coding, parameters, _ := strings.Cut(element, ";")
			switch strings.ToLower(strings.TrimSpace(coding)) {
			case "gzip", "x-gzip": // equivalent by section 8.4.1.3
				gzip = max(gzip, quality(parameters))
			case "identity":
				identity = quality(parameters)
			case "*":
				other = quality(parameters)
			}
		}
	}
	if gzip == unlisted {
		gzip = other
	}
	return gzip > 0 && gzip >= identity
}

// quality returns the weight among the parameters of a content coding. An invalid
// weight is 0, which means "not acceptable".
func quality(parameters string) float64 {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(parameter, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err == nil && 0 <= q && q <= 1 { // false for NaN
			return q
		}
		return 0
	}
	return 1
}
