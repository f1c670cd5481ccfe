// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"testing"
	"time"
)

// The token is revoked, which the metrics show. Then it is replaced in its Secret, and the exporter uses the new token without a
// restart.
func TestTokenRotation(t *testing.T) {
	s := begin(t, "rotation", small)
	s.tokenSecret("balena-token", token)
	s.install("balena-exporter")
	pod := s.pod("balena-exporter")
	s.scraped("balena-exporter", 1)
	start := time.Now()

	s.token = "token-after-the-rotation"
	s.control("tokens", `["`+s.token+`"]`)
	s.eventually("the old token is refused", func() error { return s.is(`sum(balena_up{$namespace})`, 0) })

	// The README of the chart promises this within two minutes and one interval.
	const promised = 2*time.Minute + time.Second
	s.tokenSecret("balena-token", s.token)
	s.within(promised, "the new token is in use", func() error { return s.is(`sum(balena_up{$namespace})`, 1) })

	s.scraped("balena-exporter", 1)
	s.allScrapesSince(start, pod)
	s.undisturbed("balena-exporter", pod)
}
