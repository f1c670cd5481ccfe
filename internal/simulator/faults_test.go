// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// outcome is the result of a request without retries and redirects.
type outcome struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
}

// getGzip sends a request that accepts compressed responses.
func getGzip(t *testing.T, ctx context.Context, url string) outcome {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer token")
	r.Header.Set("Accept-Encoding", "gzip")
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if res.Header.Get("Content-Encoding") == "gzip" && err == nil {
		z, zerr := gzip.NewReader(bytes.NewReader(body))
		if zerr != nil {
			t.Fatal(zerr)
		}
		body, err = io.ReadAll(z)
	}
	return outcome{res.StatusCode, res.Header, string(body), err}
}

func TestFaults(t *testing.T) {
	const devices = "/v7/device?$select=id,device_name,is_online,belongs_to__application,cpu_temp&$filter=id%20in%20(1,2)&$orderby=id%20asc"
	const healthy = `{"d":[{"id":1,"device_name":"a","is_online":true,"belongs_to__application":{"__id":1},"cpu_temp":50},` +
		`{"id":2,"device_name":"O'Brien & co","is_online":true,"belongs_to__application":{"__id":1},"cpu_temp":0}]}`
	sim, srv := newSimulator(t, Config{}, smallAccount)
	for _, test := range []struct {
		name   string
		fault  Fault
		status int // 200 if none is given
		header map[string]string
		body   string
	}{
		{name: "none", body: healthy},
		{name: "of another resource", fault: Fault{Resource: "release", Status: 500}, body: healthy},
		{name: "latency", fault: Fault{Latency: Duration{time.Microsecond}}, body: healthy},
		{name: "500", fault: Fault{Status: 500}, status: 500},
		{name: "401", fault: Fault{Status: 401}, status: 401},
		{name: "404", fault: Fault{Resource: "device", Status: 404}, status: 404},
		{
			name: "429 with seconds", fault: Fault{Status: 429, RetryAfter: Duration{7 * time.Second}}, status: 429,
			header: map[string]string{"Retry-After": "7", "Content-Type": contentTypeJSON}, body: `"Too Many Requests"`,
		},
		{
			name: "429 with a date", fault: Fault{Status: 429, RetryAfter: Duration{time.Hour}, RetryAfterDate: true}, status: 429,
			header: map[string]string{"Retry-After": "Mon, 01 Mar 2027 13:00:00 GMT"}, body: `"Too Many Requests"`,
		},
		{name: "502 with HTML", fault: Fault{Status: 502}, status: 502, header: map[string]string{"Content-Type": contentTypeHTML}, body: bodies[502].body},
		{name: "a given body", fault: Fault{Status: 503, Body: "maintenance"}, status: 503, body: "maintenance"},
		{name: "redirect", fault: Fault{Redirect: "http://elsewhere.test/"}, status: 302, header: map[string]string{"Location": "http://elsewhere.test" + devices}},
		{name: "permanent redirect", fault: Fault{Redirect: "http://elsewhere.test", Status: 301}, status: 301, header: map[string]string{"Location": "http://elsewhere.test" + devices}},
		{name: "guest", fault: Fault{Guest: true}, status: 401},
		{name: "half of the JSON", fault: Fault{Spoil: SpoilJSON}, body: healthy[:len(healthy)/2]},
		{name: "HTML", fault: Fault{Spoil: SpoilHTML}, header: map[string]string{"Content-Type": contentTypeHTML}, body: "<!DOCTYPE html><html><body><h1>Sign in</h1></body></html>"},
		{name: "wrong types", fault: Fault{Spoil: SpoilTypes}, body: `{"d":[{"belongs_to__application":true,"cpu_temp":"n50","device_name":1,"id":"n1","is_online":[true]},` +
			`{"belongs_to__application":true,"cpu_temp":"n0","device_name":12,"id":"n2","is_online":[true]}]}`},
		{name: "nulls", fault: Fault{Spoil: SpoilNulls}, body: `{"d":[{"belongs_to__application":null,"cpu_temp":null,"device_name":null,"id":1,"is_online":null},` +
			`{"belongs_to__application":null,"cpu_temp":null,"device_name":null,"id":2,"is_online":null}]}`},
		{name: "a missing id", fault: Fault{Spoil: SpoilNoIDs}, body: `{"d":[{"belongs_to__application":{"__id":1},"cpu_temp":50,"device_name":"a","id":1,"is_online":true},` +
			`{"belongs_to__application":{"__id":1},"cpu_temp":0,"device_name":"O'Brien \u0026 co","is_online":true}]}`},
		{name: "a repeated id", fault: Fault{Spoil: SpoilTwice}, body: `{"d":[{"belongs_to__application":{"__id":1},"cpu_temp":50,"device_name":"a","id":1,"is_online":true},` +
			`{"belongs_to__application":{"__id":1},"cpu_temp":0,"device_name":"O'Brien \u0026 co","id":2,"is_online":true},` +
			`{"belongs_to__application":{"__id":1},"cpu_temp":50,"device_name":"a","id":1,"is_online":true}]}`},
		{name: "no rows", fault: Fault{Spoil: SpoilEmpty}, body: `{"d":[]}`},
		{name: "slow", fault: Fault{Pace: Duration{time.Microsecond}}, body: healthy},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := test.fault.Validate(); err != nil {
				t.Fatal(err)
			}
			sim.SetFaults(Faults{test.fault})
			got := getGzip(t, t.Context(), srv.URL+devices)
			if test.status == 0 {
				test.status = 200
			}
			if got.err != nil || got.status != test.status || got.body != test.body {
				t.Errorf("%d %s (%v)\nwant %d %s", got.status, got.body, got.err, test.status, test.body)
			}
			for key, want := range test.header {
				if got.header.Get(key) != want {
					t.Errorf("%s: %q, want %q", key, got.header.Get(key), want)
				}
			}
		})
	}
}

func TestGuestFault(t *testing.T) {
	sim, srv := newSimulator(t, Config{}, smallAccount)
	sim.SetFaults(Faults{{Resource: "application", Guest: true}})
	if got := getGzip(t, t.Context(), srv.URL+"/v7/application?$select=id"); got.body != `{"d":[{"id":2}]}` {
		t.Errorf("%d %s, want the public fleet", got.status, got.body)
	}
}

func TestWhichRequestsFail(t *testing.T) {
	sim, srv := newSimulator(t, Config{}, smallAccount)
	page := func(after int) string {
		return fmt.Sprintf("/v7/device?$select=id&$filter=id%%20gt%%20%d&$orderby=id%%20asc&$top=1", after)
	}
	for _, test := range []struct {
		name    string
		faults  Faults
		targets []string // or page 1 to 5
		want    []int
	}{
		{name: "all", faults: Faults{{Status: 500}}, want: []int{500, 500, 500, 500, 500}},
		{name: "from the third", faults: Faults{{Status: 500, From: 3}}, want: []int{200, 200, 500, 500, 500}},
		{name: "the third only", faults: Faults{{Status: 500, From: 3, Times: 1}}, want: []int{200, 200, 500, 200, 200}},
		{name: "every other", faults: Faults{{Status: 500, Every: 2}}, want: []int{500, 200, 500, 200, 500}},
		{name: "every other from the second", faults: Faults{{Status: 500, From: 2, Every: 2}}, want: []int{200, 500, 200, 500, 200}},
		{name: "the first two", faults: Faults{{Status: 500, Times: 2}}, want: []int{500, 500, 200, 200, 200}},
		{name: "one after the other", faults: Faults{{Status: 500, Times: 1}, {Status: 429, From: 2, Times: 1}}, want: []int{500, 200, 429, 200, 200}},
		{name: "page 3", faults: Faults{{Status: 500, Page: 3}}, want: []int{200, 200, 500, 200, 200}},
		{name: "page 2 of two readings", faults: Faults{{Status: 500, Page: 2}}, targets: []string{page(0), page(1), page(0), page(1), page(2)}, want: []int{200, 500, 200, 500, 200}},
		{
			name: "page 2 of a list with other conditions", faults: Faults{{Status: 500, Page: 2}},
			targets: []string{
				"/v7/device?$select=id&$filter=is_online%20eq%20true%20and%20id%20gt%200&$orderby=id%20asc&$top=1",
				"/v7/device?$select=id&$filter=is_online%20eq%20true%20and%20id%20gt%201&$orderby=id%20asc&$top=1",
				"/v7/device?$select=id&$filter=is_online+eq+true+and+id+gt+2&$orderby=id+asc&$top=1",
			},
			want: []int{200, 500, 200},
		},
		{
			name: "by resource", faults: Faults{{Status: 500, Resource: "application"}, {Status: 502, Resource: "device"}},
			targets: []string{"/v7/application", "/v7/device", "/v6/release", "/ping"}, want: []int{500, 502, 200, 200},
		},
		{
			name: "by query", faults: Faults{{Status: 400, Query: "modified_at gt datetime'20", From: 2}},
			targets: []string{
				"/v7/device?$filter=modified_at%20gt%20datetime'2027-01-01'",
				"/v7/device?$select=modified_at",
				"/v7/device?$filter=(modified_at+gt+datetime'2027-01-01')",
				"/v6/image_install?$filter=modified_at%20gt%20datetime'2027-01-01'%20and%20id%20gt%205",
				"/v6/image_install?$filter=id%20gt%205",
			},
			want: []int{200, 200, 400, 400, 200},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			sim.SetFaults(test.faults)
			if test.targets == nil {
				test.targets = []string{page(0), page(1), page(2), page(3), page(4)}
			}
			var got []int
			for _, target := range test.targets {
				got = append(got, getGzip(t, t.Context(), srv.URL+target).status)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("statuses (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRepeatedPages(t *testing.T) {
	sim, srv := newSimulator(t, Config{}, smallAccount)
	sim.SetFaults(Faults{{Spoil: SpoilPages}})
	for _, after := range []int{0, 2, 2000} {
		got := getGzip(t, t.Context(), fmt.Sprintf("%s/v7/device?$select=id&$filter=is_host%%20eq%%20false%%20or%%20id%%20gt%%20%d&$orderby=id%%20asc&$top=2", srv.URL, after))
		if got.status != 500 {
			t.Errorf("the status of an unknown field is %d, want 500: %s", got.status, got.body)
		}
		got = getGzip(t, t.Context(), fmt.Sprintf("%s/v7/device?$select=id&$filter=id%%20gt%%20%d&$orderby=id%%20asc&$top=2", srv.URL, after))
		if got.body != `{"d":[{"id":1},{"id":2}]}` {
			t.Errorf("the page after %d is %s, want the first page", after, got.body)
		}
		got = getGzip(t, t.Context(), fmt.Sprintf("%s/v7/device?$select=id&$filter=is_online%%20eq%%20true%%20and%%20id%%20gt%%20%d&$orderby=id%%20asc&$top=2", srv.URL, after))
		if got.body != `{"d":[{"id":1},{"id":2}]}` {
			t.Errorf("the page after %d of a list with another condition is %s, want the first page", after, got.body)
		}
	}
}

// TestLimitedLists checks that the limit of rows applies regardless of $top, but not to counts and expanded rows.
func TestLimitedLists(t *testing.T) {
	sim, srv := newSimulator(t, Config{}, smallAccount)
	sim.SetFaults(Faults{{MaxRows: 2}})
	for target, want := range map[string]string{
		"device?$select=id&$orderby=id%20asc":                               `{"d":[{"id":1},{"id":2}]}`,
		"device?$select=id&$orderby=id%20asc&$top=1000":                     `{"d":[{"id":1},{"id":2}]}`,
		"device?$top=1000&$select=id&$orderby=id%20asc":                     `{"d":[{"id":1},{"id":2}]}`,
		"device?$select=id&$orderby=id%20asc&$top=1":                        `{"d":[{"id":1}]}`,
		"device?$select=id&$filter=id%20gt%202&$orderby=id%20asc&$top=1000": `{"d":[{"id":3},{"id":4}]}`,
		"device/$count":                                                            `{"d":4}`,
		"device/$count?$filter=id%20gt%201":                                        `{"d":3}`,
		"application(1)?$select=slug&$expand=owns__device/$count":                  `{"d":[{"owns__device":3,"slug":"org/one"}]}`,
		"application(1)?$select=id&$expand=owns__device($select=id;$top=3)":        `{"d":[{"owns__device":[{"id":1},{"id":2},{"id":3}],"id":1}]}`,
		"application(1)?$select=id&$expand=owns__device($select=id;$top=3)&$top=9": `{"d":[{"owns__device":[{"id":1},{"id":2},{"id":3}],"id":1}]}`,
	} {
		if got := getGzip(t, t.Context(), srv.URL+"/v7/"+target); got.body != want {
			t.Errorf("%s: %d %s, want %s", target, got.status, got.body, want)
		}
	}
}

// TestEndlessLists checks that an endless list begins with the real rows, and continues with full pages of invented rows.
func TestEndlessLists(t *testing.T) {
	sim, srv := newSimulator(t, Config{}, smallAccount)
	sim.SetFaults(Faults{{Spoil: SpoilMore}})
	const page = "device?$select=id,uuid,modified_at&$filter=id%%20gt%%20%d&$orderby=id%%20asc&$top=3"
	_, first := get(t, srv, "/v7/"+fmt.Sprintf(page, 0))
	if !strings.Contains(first, `"id":3`) || strings.Contains(first, "2099") {
		t.Errorf("the first page is %s", first)
	}
	if _, got := get(t, srv, "/v7/"+fmt.Sprintf(page, 3)); !strings.Contains(got, `"id":4`) || strings.Contains(got, "2099") {
		t.Errorf("the last page of real rows is %s", got)
	}
	uuids := map[string]bool{}
	for _, last := range []int{4, firstInvented + 2, firstInvented + 5, firstInvented + 7000} {
		_, got := get(t, srv, "/v7/"+fmt.Sprintf(page, last))
		var decoded struct {
			D []struct {
				ID         int
				UUID       string
				ModifiedAt time.Time `json:"modified_at"`
			}
		}
		if err := json.Unmarshal([]byte(got), &decoded); err != nil || len(decoded.D) != 3 {
			t.Fatalf("page after %d: %s (%v)", last, got, err)
		}
		for i, row := range decoded.D {
			if row.ID != max(last+1, firstInvented)+i || uuids[row.UUID] || row.ModifiedAt.Year() != 2099 {
				t.Errorf("page after %d: %+v", last, row)
			}
			uuids[row.UUID] = true
		}
	}
	for _, whole := range []string{"/v7/device?$select=id&$filter=id%20eq%207000", "/v7/device/$count"} {
		if _, got := get(t, srv, whole); got != `{"d":[]}` && got != `{"d":4}` {
			t.Errorf("%s: %s", whole, got)
		}
	}
}

// TestHappened checks the counts of failed requests. Requests to the handler of Faultless are not counted.
func TestHappened(t *testing.T) {
	sim, srv := newSimulator(t, Config{}, smallAccount)
	faultless := httptest.NewServer(sim.Faultless())
	t.Cleanup(faultless.Close)
	sim.SetFaults(Faults{{Resource: "device", Times: 2, Status: 503}, {Resource: "release", Status: 500}})
	sim.ResetRequests()
	for range 3 {
		if got := getGzip(t, t.Context(), faultless.URL+"/v7/device/$count"); got.status != 200 || got.body != `{"d":4}` {
			t.Errorf("%d %s, want the response without faults", got.status, got.body)
		}
		getGzip(t, t.Context(), srv.URL+"/v7/device")
	}
	if got := sim.Happened(); !slices.Equal(got, []int{2, 0}) {
		t.Errorf("the numbers of failed requests are %v, want 2 and 0", got)
	}
	if got := sim.Requests(); got["device"] != 3 {
		t.Errorf("the numbers of requests are %v, want 3 for device", got)
	}
}

// TestCutBodies checks the length of cut bodies, with and without compression.
func TestCutBodies(t *testing.T) {
	sim, srv := newSimulator(t, Config{Devices: 50, Fleets: 1}, nil)
	sim.SetFaults(Faults{{CutAfter: 100}})
	for _, target := range []string{"/v7/device", "/v7/device?$select=id"} {
		got := getGzip(t, t.Context(), srv.URL+target)
		if !errors.Is(got.err, io.ErrUnexpectedEOF) || len(got.body) != 100 {
			t.Errorf("%s: %d bytes and error %v, want 100 and an unexpected EOF", target, len(got.body), got.err)
		}
	}
	sim.SetFaults(Faults{{CutAfter: 1 << 20}})
	if got := getGzip(t, t.Context(), srv.URL+"/v7/device"); got.err != nil || !json.Valid([]byte(got.body)) {
		t.Errorf("a body shorter than the limit: %v", got.err)
	}
}

// TestEndlessBodies checks that an endless body begins with the real rows and continues until the client disconnects.
func TestEndlessBodies(t *testing.T) {
	sim, srv := newSimulator(t, Config{}, smallAccount)
	for _, f := range []Fault{{Endless: true}, {Endless: true, Pace: Duration{time.Millisecond}}} {
		sim.SetFaults(Faults{f})
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/v7/device?$select=id&$orderby=id%20asc", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer token")
		res, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		const enough = 10 * chunk
		body := make([]byte, enough)
		if _, err := io.ReadFull(res.Body, body); err != nil {
			t.Errorf("%+v: the body ends: %v", f, err)
		}
		if want := `{"d":[{"id":1},{"id":2},{"id":3},{"id":4`; strings.TrimRight(string(body), " ") != want {
			t.Errorf("%+v: body %q, want %q and spaces", f, body, want)
		}
		cancel()
		res.Body.Close()
	}
}

func TestParseFault(t *testing.T) {
	for _, test := range []struct {
		text string
		want Fault
	}{
		{"status=500", Fault{Status: 500}},
		{"resource=device,status=429,retry_after=7s,retry_after_date,every=3", Fault{Resource: "device", Status: 429, RetryAfter: Duration{7 * time.Second}, RetryAfterDate: true, Every: 3}},
		{"latency=7,retry_after=0.5", Fault{Latency: Duration{7 * time.Second}, RetryAfter: Duration{time.Second / 2}}},
		{"endless=true,pace=1s,from=2,times=1,page=4", Fault{Endless: true, Pace: Duration{time.Second}, From: 2, Times: 1, Page: 4}},
		{"redirect=http://elsewhere.test:8080/x,guest", Fault{Redirect: "http://elsewhere.test:8080/x", Guest: true}},
		{"spoil=nulls,cut_after=10,latency=1.5s,body=maintenance", Fault{Spoil: SpoilNulls, CutAfter: 10, Latency: Duration{1500 * time.Millisecond}, Body: "maintenance"}},
	} {
		got, err := ParseFault(test.text)
		if err != nil || got != test.want {
			t.Errorf("%s: %+v, %v; want %+v", test.text, got, err, test.want)
		}
	}
	for _, text := range []string{"", "status=lots", "stattus=500", "status=42", "latency=soon", "latency=-1s", "spoil=milk", "resource=devices", "page=-1"} {
		if f, err := ParseFault(text); err == nil || !strings.Contains(err.Error(), "fault "+fmt.Sprintf("%q", text)) {
			t.Errorf("%q: %+v, error %v; want an error that contains the fault", text, f, err)
		}
	}
}
