// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// transport is a function as a transport.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// roundTrip answers every request with status 200 and the body that body returns.
func roundTrip(body func(*http.Request) string) http.RoundTripper {
	return transport(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body(r))), Request: r}, nil
	})
}

// Whatever a server answers, the result of a refresh is an error that names the request, or a snapshot that keeps its
// invariants.
func FuzzDecodeDevices(f *testing.F) {
	for _, body := range []string{
		"", "null", "[]", "{}", `{"d":null}`, `{"d":[]}`, `{"d":[{}]}`, `{"d":[null]}`, `{"d":[{"id":1}]}`, `{"d":[{"id":1,"uuid":null}]}`,
		`{"d":[{"id":1,"uuid":"aa","belongs_to__application":{"__id":7}}]}`,
		`{"d":[{"id":1,"uuid":"aa","belongs_to__application":{"__id":7}},{"id":1,"uuid":"aa","belongs_to__application":{"__id":7}}]}`,
		`{"d":[{"id":1,"uuid":"aa","belongs_to__application":7,"overall_status":"idle","is_online":true,"cpu_usage":1e999}]}`,
		`{"d":[{"id":9223372036854775807,"uuid":"\ud800","device_name":"\u0000","belongs_to__application":{ "__id" : 7 },"os_version":"` + "\xff" + `"}]}`,
		`{"d":[{"id":1,"uuid":"aa","belongs_to__application":{"__id":7},"created_at":"2026-11-22T14:09:34.280Z","modified_at":"0000-00-00T00:00:00.000Z"}]}`,
		`{"d":[{"id":1,"uuid":"aa","belongs_to__application":{"__id":7},"is_running__release":{"__id":[]},"extra":{"d":[[[]]]}}]} `,
		`{"d":[{"id":1,"id":2,"uuid":"aa","uuid":"","belongs_to__application":{"__id":7}}]}x`,
		`{"d":[{"id":1,"uuid":"aa","belongs_to__application":{"__id":7},"is_active":null,"provisioning_state":"OS update failed","provisioning_progress":100}]}`,
		`{"d":[{"id":1,"uuid":"aa","belongs_to__application":{"__id":7},"image_install":[{"status":"Running","is_provided_by__release":{"__id":7}},{"status":null,"is_provided_by__release":null}]}]}`,
		`{"d":[{"id":1,"uuid":"aa","belongs_to__application":{"__id":7},"image_install":[{"is_provided_by__release":{"__id":"x"}}]}]}`,
		`<html>`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		client := newClient(t, "http://balena.test", fewer, through(roundTrip(func(r *http.Request) string {
			switch {
			case !isFirstPage(r):
			case r.URL.Path == "/v7/application" && strings.Contains(r.URL.RawQuery, "owns__device"):
				return `{"d":[{"id":7,"slug":"a/b","is_of__class":"fleet","owns__device":1}]}`
			case r.URL.Path == "/v7/device":
				return body
			}
			return `{"d":[]}`
		})))
		s, err := client.Fetch(context.Background())
		if err != nil {
			if s != nil || api.ProblemOf(err) != api.BadAnswer || !strings.HasPrefix(err.Error(), "GET /v7/device") {
				t.Errorf("snapshot %v, error %v; want none and a bad answer to GET /v7/device", s, err)
			}
			return
		}
		last := int64(0)
		for d := range s.Devices.All() {
			if d.ID <= last || d.UUID == "" || d.FleetID != s.Fleets[0].ID {
				t.Errorf("read the device %+v after id %d", d, last)
			}
			last = d.ID
		}
	})
}
