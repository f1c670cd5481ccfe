// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// This file defines the faults of requests in histories, except those that clients cannot detect: an empty list of changes,
// services or tags, and two consecutive empty lists of fleets.

// resources are all resources that the client requests.
var resources = []string{"application", "device", "device_type", "release", "image_install", "device_tag", "application_tag", "api_key"}

// newFault returns a random fault of a few requests, or of all requests if it lasts.
func newFault(r *rand.Rand, lasts bool) simulator.Fault {
	f := simulator.Fault{Resource: oneOf(r, append([]string{"", "", "application", "application", "application", "device"}, resources...)...)}
	if !lasts {
		f.Times, f.From = oneOf(r, 1, 1, 1, 2, 3), oneOf(r, 1, 1, 2, 3)
		if f.Resource == "" {
			f.From = 1 + r.IntN(12)
		}
	}
	switch r.IntN(13) {
	case 0, 1:
		f.Status = http.StatusNotFound
	case 2:
		f.Status, f.RetryAfter = http.StatusTooManyRequests, simulator.Duration{Duration: oneOf(r, 0, time.Second, 30*time.Second)}
	case 3:
		f.Status = http.StatusInternalServerError // blank
	case 4:
		f.Status, f.Body = http.StatusInternalServerError, "boom"
	case 5:
		f.Status = oneOf(r, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout)
	case 6:
		f.Resource, f.From, f.Page, f.Status = oneOf(r, "device", "image_install"), 0, 2, http.StatusGatewayTimeout
	case 7:
		f.CutAfter = 1 + r.IntN(400)
	case 8:
		f.Spoil = oneOf(r, simulator.SpoilJSON, simulator.SpoilHTML)
	case 9:
		f.Spoil = oneOf(r, simulator.SpoilPages, simulator.SpoilTwice)
	case 10:
		f.Guest = true
	case 11:
		f.Status = oneOf(r, http.StatusUnauthorized, http.StatusForbidden)
	case 12:
		if lasts {
			f.Spoil = simulator.SpoilHTML
			break
		}
		f.Resource, f.From, f.Times, f.Spoil = "application", 1, 1, simulator.SpoilEmpty
		if r.IntN(2) == 0 {
			// The fault applies to the whole refresh.
			f.Resource, f.Times, f.Spoil = oneOf(r, "device", "image_install", "device_tag", "application_tag"), 0, simulator.SpoilMore
		}
	}
	return f
}

// newLimit returns the fault of a server, or a proxy in front of it, that returns fewer rows than requested.
func newLimit(r *rand.Rand) simulator.Fault {
	return simulator.Fault{Resource: oneOf(r, append([]string{"", "", ""}, resources...)...), MaxRows: oneOf(r, 2, 3, 7, 20)}
}
