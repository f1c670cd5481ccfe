// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// roundTripper answers every request.
type roundTripper struct{}

func (roundTripper) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}

// Plain HTTP goes to this machine only: credentials and contents would travel in the clear.
func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	for url, allowed := range map[string]bool{
		"https://ghcr.io/v2/":             true,
		"https://10.0.0.1/v2/":            true,
		"http://127.0.0.1:5000/v2/":       true,
		"http://[::1]:5000/v2/":           true,
		"http://localhost:5000/v2/":       true,
		"http://10.0.0.1:5000/v2/":        false,
		"http://registry.local:5000/v2/":  false,
		"http://localhost.example.com/v2": false,
	} {
		response, err := encrypted{roundTripper{}}.RoundTrip(httptest.NewRequest(http.MethodGet, url, nil))
		if err == nil {
			_ = response.Body.Close()
		}
		if (err == nil) != allowed {
			t.Errorf("%s: %v, allowed is %v", url, err, allowed)
		}
	}
}
