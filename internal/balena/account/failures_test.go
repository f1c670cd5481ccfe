// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// wantError checks an error completely: kind of failure, status and text.
func wantError(t testing.TB, err error, problem api.Problem, status int, text string) *api.Error {
	t.Helper()
	e, ok := errors.AsType[*api.Error](err)
	if !ok {
		t.Fatalf("the error %v is a %T, want a *api.Error", err, err)
	}
	if e.Problem != problem || api.ProblemOf(err) != problem {
		t.Errorf("the problem is %q, want %q", e.Problem, problem)
	}
	if e.Status != status {
		t.Errorf("the status is %d, want %d", e.Status, status)
	}
	if err.Error() != text {
		t.Errorf("the error says\n\t%s\nwant\n\t%s", err, text)
	}
	return e
}

// Whatever the server does, a failed refresh names the request and the reason in one sentence, and the first refresh after
// the fault succeeds.
func TestFailures(t *testing.T) {
	devices := func(f simulator.Fault) simulator.Faults { f.Resource = "device"; return simulator.Faults{f} }
	fleets := func(f simulator.Fault) simulator.Faults { f.Resource = "application"; return simulator.Faults{f} }
	const perPage = 30 // of small accounts: seven pages
	for name, test := range map[string]struct {
		faults  simulator.Faults
		problem api.Problem
		status  int
		text    string
	}{
		"401": {
			fleets(simulator.Fault{Status: 401}), api.Unauthorized, 401,
			"GET /v7/application page 1: answered 401: the token was not accepted, or the server's database is down",
		},
		"a guest": {
			simulator.Faults{{Guest: true}},
			api.Unauthorized, 401,
			"GET /v7/application page 1: answered 401: the token was not accepted, or the server's database is down",
		},
		"403": {
			fleets(simulator.Fault{Status: 403, Body: "your address\nis   blocked"}), api.BadAnswer, 403,
			"GET /v7/application page 1: answered 403: your address is blocked",
		},
		"404 for devices": {
			devices(simulator.Fault{Status: 404}), api.BadAnswer, 404, "GET /v7/device page 1: answered 404",
		},
		"a long error": {
			fleets(simulator.Fault{Status: 400, Body: strings.Repeat("é", 500)}), api.BadAnswer, 400,
			"GET /v7/application page 1: answered 400: " + strings.Repeat("é", 150) + "…",
		},
		"an error that shows the token": {
			fleets(simulator.Fault{Status: 400, Body: "no such token: " + token}), api.BadAnswer, 400,
			"GET /v7/application page 1: answered 400: a text that repeats the token",
		},
		"an error that shows the token where it is cut": {
			fleets(simulator.Fault{Status: 400, Body: strings.Repeat("x", 180) + token}), api.BadAnswer, 400,
			"GET /v7/application page 1: answered 400: a text that repeats the token",
		},
		"500 with an empty body": {
			fleets(simulator.Fault{Status: 500}), api.Unavailable, 500, "GET /v7/application page 1: answered 500: an empty body",
		},
		"502 with HTML": {
			fleets(simulator.Fault{Status: 502}), api.Unavailable, 502, "GET /v7/application page 1: answered 502: a page of HTML",
		},
		"a page that fails after six good ones": {
			devices(simulator.Fault{Page: 7, Status: 503}), api.Unavailable, 503, "GET /v7/device page 7: answered 503: a page of HTML",
		},
		"a body cut in the middle": {
			devices(simulator.Fault{CutAfter: 500}), api.Unavailable, 0,
			"GET /v7/device page 1: the connection was closed in the middle of the answer",
		},
		"a body cut at once": {
			devices(simulator.Fault{CutAfter: 3}), api.Unavailable, 0,
			"GET /v7/device page 1: the connection was closed in the middle of the answer",
		},
		"a body that never ends": {
			devices(simulator.Fault{Page: 2, Endless: true}), api.BadAnswer, 200, "GET /v7/device page 2: the answer is larger than 1 MiB",
		},
		"half the JSON": {
			devices(simulator.Fault{Spoil: simulator.SpoilJSON}), api.BadAnswer, 200,
			"GET /v7/device page 1: element 16: the answer is cut off: unexpected EOF",
		},
		"HTML with status 200": {
			fleets(simulator.Fault{Spoil: simulator.SpoilHTML}), api.BadAnswer, 200,
			"GET /v7/application page 1: the answer is not JSON: invalid character '<' at start of value",
		},
		"wrong types of fleets": {
			fleets(simulator.Fault{Spoil: simulator.SpoilTypes}), api.BadAnswer, 200,
			`GET /v7/application page 1: element 1: app_name: found a number where a string was expected`,
		},
		"wrong types of devices": {
			devices(simulator.Fault{Spoil: simulator.SpoilTypes}), api.BadAnswer, 200,
			`GET /v7/device page 1: element 1: api_heartbeat_state: found a number where a string was expected`,
		},
		"nulls everywhere in fleets": {
			fleets(simulator.Fault{Spoil: simulator.SpoilNulls}), api.BadAnswer, 200,
			`GET /v7/application page 1: element 1: fleet 1: missing or duplicate slug ""`,
		},
		"nulls everywhere in devices": {
			devices(simulator.Fault{Spoil: simulator.SpoilNulls}), api.BadAnswer, 200,
			"GET /v7/device page 1: element 1: device 1 has no uuid",
		},
		"a fleet without id": {
			fleets(simulator.Fault{Spoil: simulator.SpoilNoIDs}), api.BadAnswer, 200,
			"GET /v7/application page 1: element 7: it has no id (the last was 6)",
		},
		"a device without id": {
			devices(simulator.Fault{Page: 3, Spoil: simulator.SpoilNoIDs}), api.BadAnswer, 200,
			"GET /v7/device page 3: element 30: it has no id (the last was 59)",
		},
		"a repeated fleet": {
			fleets(simulator.Fault{Spoil: simulator.SpoilTwice}), api.BadAnswer, 200,
			"GET /v7/application page 1: element 8: id 1 follows id 7",
		},
		"a repeated device": {
			devices(simulator.Fault{Page: 3, Spoil: simulator.SpoilTwice}), api.BadAnswer, 200,
			"GET /v7/device page 3: element 31: id 31 follows id 60",
		},
		"two last devices": {
			devices(simulator.Fault{Page: 2, Spoil: simulator.SpoilTwice}), api.BadAnswer, 200,
			"GET /v7/device page 2: element 2: the page has more rows than the 1 that were asked for",
		},
		"repeated pages": {
			devices(simulator.Fault{Spoil: simulator.SpoilPages}), api.BadAnswer, 200,
			"GET /v7/device page 3: element 1: id 1 follows id 30",
		},
		"far fewer devices than counted": {
			devices(simulator.Fault{Page: 8, Spoil: simulator.SpoilEmpty}), api.BadAnswer, 200,
			"GET /v7/device: the server counts 210 devices and lists 180, twice in a row",
		},
		"no devices at all": {
			devices(simulator.Fault{Spoil: simulator.SpoilEmpty}), api.BadAnswer, 200,
			"GET /v7/device: the server counts 210 devices and lists 0, twice in a row",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := newSimulator(t, small)
			client := newClient(t, serve(t, sim), fewer, pagesOf(perPage), func(c *account.Config) { c.MaxAnswer = 1 << 20 })
			fetchWithParts(t, client)
			sim.SetFaults(test.faults)
			if test.text != "" {
				wantError(t, fetchError(t, client), test.problem, test.status, test.text)
			} else if n := fetch(t, client).Devices.Len(); n != 180 {
				t.Errorf("read %d devices, want the 180 that are listed", n)
			}
			sim.SetFaults(nil)
			if n := fetchWithParts(t, client).Devices.Len(); n != small.Devices {
				t.Errorf("read %d devices after the trouble, want %d", n, small.Devices)
			}
		})
	}
}

// Faults that the simulator does not have are caused by a handler for all requests.
func TestStrangeAnswers(t *testing.T) {
	body := func(status int, s string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			io.WriteString(w, s)
		}
	}
	zipped := func(status int, b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(status)
			w.Write(b)
		}
	}
	whole := gzipped(t, []byte(`{"d":[]}`+strings.Repeat(" ", 5000)))
	corrupt := bytes.Clone(whole)
	corrupt[len(corrupt)-8] ^= 1 // the checksum
	huge := gzipped(t, bytes.Repeat([]byte(" "), 2<<20))
	const fleet = "GET /v7/application page 1: "
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		problem api.Problem
		status  int
		text    string
	}{
		"nothing":           {body(200, ""), api.BadAnswer, 200, fleet + "the answer is cut off: unexpected EOF"},
		"blanks":            {body(200, " \n"), api.BadAnswer, 200, fleet + "the answer is cut off: unexpected EOF"},
		"null":              {body(200, "null"), api.BadAnswer, 200, fleet + "found null where { was expected"},
		"no envelope":       {body(200, "[]"), api.BadAnswer, 200, fleet + "found [ where { was expected"},
		"an empty object":   {body(200, "{}"), api.BadAnswer, 200, fleet + `the answer is not of the form {"d": …}`},
		"another object":    {body(200, `{"error":"no"}`), api.BadAnswer, 200, fleet + `the answer is not of the form {"d": …}`},
		"a count":           {body(200, `{"d":5}`), api.BadAnswer, 200, fleet + "found number where [ was expected"},
		"an object":         {body(200, `{"d":{}}`), api.BadAnswer, 200, fleet + "found { where [ was expected"},
		"a list of numbers": {body(200, `{"d":[1]}`), api.BadAnswer, 200, fleet + "element 1: found number where { was expected"},
		"a list of nulls":   {body(200, `{"d":[null]}`), api.BadAnswer, 200, fleet + "element 1: found null where { was expected"},
		"an id too large": {
			body(200, `{"d":[{"id":9223372036854775808}]}`), api.BadAnswer, 200,
			fleet + `element 1: id: found a number where an integer was expected`,
		},
		"a negative id":    {body(200, `{"d":[{"id":-1}]}`), api.BadAnswer, 200, fleet + "element 1: it has no id (the last was 0)"},
		"a negative count": {body(200, `{"d":[{"id":1,"owns__device":-1}]}`), api.BadAnswer, 200, fleet + "element 1: owns__device: invalid count -1"},
		"an absurd count":  {body(200, `{"d":[{"id":1,"owns__device":9223372036854775807}]}`), api.BadAnswer, 200, fleet + "element 1: owns__device: invalid count 9223372036854775807"},
		"a bad date": {
			body(200, `{"d":[{"id":1,"created_at":"2026-02-30T00:00:00.000Z"}]}`), api.BadAnswer, 200,
			fleet + `element 1: created_at: found a string where a date was expected`,
		},
		"a number in an expanded field": {
			body(200, `{"d":[{"id":1,"should_be_running__release":[{"commit":12345}]}]}`), api.BadAnswer, 200,
			fleet + `element 1: should_be_running__release: commit: found a number where a string was expected`,
		},
		"an object in a field that is expanded twice": {
			body(200, `{"d":[{"id":1,"is_for__device_type":[{"is_of__cpu_architecture":[{"slug":{}}]}]}]}`), api.BadAnswer, 200,
			fleet + `element 1: is_for__device_type: is_of__cpu_architecture: slug: found an object where a string was expected`,
		},
		"a bad date in an expanded field": {
			body(200, `{"d":[{"id":1,"should_be_running__release":[{"created_at":"yesterday"}]}]}`), api.BadAnswer, 200,
			fleet + `element 1: should_be_running__release: created_at: found a string where a date was expected`,
		},
		"an object for an array": {
			body(200, `{"d":[{"id":1,"should_be_running__release":{}}]}`), api.BadAnswer, 200,
			fleet + `element 1: should_be_running__release: found an object where an array of objects was expected`,
		},
		"two fleets of one slug": {
			body(200, `{"d":[{"id":1,"slug":"a/b","is_of__class":"fleet","owns__device":0},{"id":2,"slug":"a/b"}]}`), api.BadAnswer, 200,
			fleet + `element 2: fleet 2: missing or duplicate slug "a/b"`,
		},
		"what is no fleet":    {body(200, `{"d":[{"id":1,"slug":"a/b","is_of__class":"block","owns__device":0}]}`), api.BadAnswer, 200, fleet + "element 1: a/b is no fleet, and the filter asks for fleets"},
		"a fleet not counted": {body(200, `{"d":[{"id":1,"slug":"a/b","is_of__class":"fleet"}]}`), api.BadAnswer, 200, fleet + "element 1: the devices of fleet a/b are not counted"},
		"more after the end":  {body(200, `{"d":[]}{"d":[]}`), api.BadAnswer, 200, fleet + "text follows the end of the answer"},
		"more in the answer":  {body(200, `{"d":[],"e":1}`), api.BadAnswer, 200, fleet + "found string where } was expected"},
		"the token where an id should be": {
			body(200, `{"d":[{"id":"`+token+`"}]}`), api.BadAnswer, 200, fleet + "element 1: id: found a string where an integer was expected",
		},
		"the token in a slug": {
			body(200, `{"d":[{"id":1,"slug":"`+token+`","is_of__class":"block"}]}`), api.BadAnswer, 200,
			fleet + "the server's answer repeats the token and cannot be shown",
		},
		"204":        {body(204, ""), api.BadAnswer, 204, fleet + "answered 204"},
		"not gzip":   {zipped(200, []byte(`{"d":[]}`+strings.Repeat(" ", 100))), api.BadAnswer, 200, fleet + "the answer claims to be gzip, and is not"},
		"empty gzip": {zipped(200, nil), api.BadAnswer, 200, fleet + "the answer is cut off: unexpected EOF"},
		"a gzip body cut off although the transfer is complete": {
			zipped(200, whole[:len(whole)-20]), api.BadAnswer, 200, fleet + "the answer is cut off: unexpected EOF",
		},
		"a gzip header cut off":     {zipped(200, whole[:5]), api.BadAnswer, 200, fleet + "the answer is cut off: unexpected EOF"},
		"a wrong checksum":          {zipped(200, corrupt), api.BadAnswer, 200, fleet + "gzip: invalid checksum"},
		"a small body that grows":   {zipped(200, huge), api.BadAnswer, 200, fleet + "the answer is larger than 1 MiB"},
		"an error compressed":       {zipped(503, gzipped(t, []byte(`"Not now"`))), api.Unavailable, 503, fleet + `answered 503: "Not now"`},
		"an empty error compressed": {zipped(500, nil), api.Unavailable, 500, fleet + "answered 500: an empty body"},
		"an empty error that was to be longer": {
			func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", "10")
				w.WriteHeader(http.StatusInternalServerError)
				http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}, api.Unavailable, 500, fleet + "answered 500",
		},
		"an error that is not gzip":   {zipped(500, []byte("oh no, not again")), api.Unavailable, 500, fleet + "answered 500"},
		"a redirect to nowhere":       {body(302, ""), api.BadAnswer, 302, fleet + "answered 302"},
		"a connection that is closed": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, api.Unavailable, 0, fleet + "the connection was closed in the middle of the answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := newClient(t, serve(t, test.handler), fewer, func(c *account.Config) { c.MaxAnswer = 1 << 20 })
			wantError(t, fetchError(t, client), test.problem, test.status, test.text)
		})
	}
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return z.Bytes()
}

// The same without compression. The length of the answer is known then, and it ends too soon.
func TestUncompressedAnswers(t *testing.T) {
	sim := newSimulator(t, simulator.Config{})
	client := newClient(t, serve(t, uncompressed(sim)), fewer)
	if n := fetchWithParts(t, client).Devices.Len(); n != 2004 {
		t.Errorf("read %d devices, want 2004", n)
	}
	for _, bytes := range []int{1, 10, 100_000} {
		sim.SetFaults(simulator.Faults{{Resource: "device", CutAfter: bytes}})
		wantError(t, fetchError(t, client), api.Unavailable, 0, "GET /v7/device page 1: the connection was closed in the middle of the answer")
	}
}

// Fields in any order, blanks between them, fields that were not requested and numbers for references are accepted.
func TestOtherWaysToWriteAnAnswer(t *testing.T) {
	client := newClient(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isFirstPage(r) {
			fmt.Fprint(w, `{"d":[]}`)
			return
		}
		switch r.URL.Path {
		case "/v7/application":
			fmt.Fprint(w, "\n{ \"d\" : [ { \"slug\" : \"a/b\", \"is_of__class\":\"fleet\", \"extra\": {\"d\":[1,{}]}, \"owns__device\" : 2, \"id\" : 7, \"organization\":[], \"should_be_running__release\": [ ] } ] }\n")
		case "/v7/device":
			fmt.Fprint(w, `{"d":[{"uuid":"aa","id":1,"belongs_to__application":{ "__id" : 7 },"created_at":"2026-11-22T14:09:34Z","device_name":"\ud800x","cpu_temp":1.5e1},
				{"id":2,"uuid":"b\u0062","belongs_to__application":7,"is_running__release":null}]}`)
		default:
			fmt.Fprint(w, `{"d":[]}`)
		}
	})), fewer)
	s := fetchWithParts(t, client)
	if s.Devices.Len() != 2 || s.Fleets[0].Slug != "a/b" {
		t.Fatalf("read %+v", s)
	}
	first, second := devicesOf(s)[0], devicesOf(s)[1]
	if first.UUID != "aa" || first.Created != balena.Instant(time.Date(2026, 11, 22, 14, 9, 34, 0, time.UTC).UnixMilli()) || first.Name != "\uFFFDx" || first.CPUTemperature != 15 {
		t.Errorf("read %+v", first)
	}
	if second.UUID != "bb" || second.RunningRelease != 0 {
		t.Errorf("read %+v", second)
	}
}

func TestConnectionRefused(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	address := server.Listener.Addr().String()
	server.Close()
	client := newClient(t, "http://"+address)
	wantError(t, fetchError(t, client), api.Unavailable, 0, "GET /v7/application page 1: dial tcp "+address+": connect: connection refused")
}

// The client does not wait for an answer longer than the timeout, even if bytes keep arriving.
func TestTimeout(t *testing.T) {
	for name, fault := range map[string]simulator.Fault{
		"no answer":           {Latency: seconds(3600)},
		"an endless slow one": {Endless: true, Pace: simulator.Duration{Duration: time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := newSimulator(t, small)
			client := newClient(t, serve(t, sim), fewer, func(c *account.Config) { c.Timeout = 100 * time.Millisecond })
			sim.SetFaults(simulator.Faults{fault})
			wantError(t, fetchError(t, client), api.Unavailable, 0, "GET /v7/application page 1: no complete answer within 100ms")
		})
	}
}

// After a 429, no request is sent until the wait is over. The server gives the wait in seconds, as a date, or not at
// all.
func TestRateLimit(t *testing.T) {
	for name, test := range map[string]struct {
		fault simulator.Fault
		wait  time.Duration
	}{
		"seconds":   {simulator.Fault{Status: 429, RetryAfter: seconds(7)}, 7 * time.Second},
		"a date":    {simulator.Fault{Status: 429, RetryAfter: seconds(90), RetryAfterDate: true}, 90 * time.Second},
		"no header": {simulator.Fault{Status: 429}, time.Minute},
		"a day":     {simulator.Fault{Status: 429, RetryAfter: seconds(86400)}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			k := newClock()
			sim := newSimulator(t, simulator.Config{Devices: 210, Fleets: 7, Seed: 1, Now: k.Now})
			sim.SetFaults(simulator.Faults{test.fault})
			client := newClient(t, serve(t, sim), withClock(k), fewer)
			e := wantError(t, fetchError(t, client), api.RateLimited, 429,
				fmt.Sprintf(`GET /v7/application page 1: answered 429: "Too Many Requests", not asking again for %s`, test.wait))
			if e.Wait != test.wait {
				t.Errorf("the wait is %s, want %s", e.Wait, test.wait)
			}
			sim.SetFaults(nil)
			sim.ResetRequests()

			k.advance(test.wait - time.Second)
			e = wantError(t, fetchError(t, client), api.RateLimited, 0,
				"GET /v7/application page 1: not sent: the server requested a pause of another 1s")
			if e.Wait != time.Second {
				t.Errorf("the rest of the wait is %s, want 1s", e.Wait)
			}
			if n := sim.Requests(); len(n) > 0 {
				t.Errorf("sent requests while the server wanted to be left alone: %v", n)
			}
			k.advance(time.Second)
			fetchWithParts(t, client)
		})
	}
}

// A 429 for an optional part does not make the refresh fail, but ends its further requests.
// Whichever part gets the 429, fleets and devices have already been read.
func TestRateLimitOfAPartLeavesFleetsAndDevices(t *testing.T) {
	for _, resource := range []string{"device_type", "release", "image_install", "application_tag", "device_tag", "api_key"} {
		t.Run(resource, func(t *testing.T) {
			sim := newSimulator(t, small)
			sim.SetFaults(simulator.Faults{{Resource: resource, Status: 429, RetryAfter: seconds(600)}})
			s := fetch(t, newClient(t, serve(t, sim)))
			if len(s.Fleets) == 0 || s.Devices.Len() == 0 {
				t.Errorf("read %d fleets and %d devices", len(s.Fleets), s.Devices.Len())
			}
		})
	}
}

func TestRateLimitOfAPart(t *testing.T) {
	k := newClock()
	sim := newSimulator(t, small)
	sim.SetFaults(simulator.Faults{{Resource: "image_install", Status: 429, RetryAfter: seconds(30)}})
	client := newClient(t, serve(t, sim), withClock(k))
	s := fetch(t, client)
	for _, name := range []balena.PartName{balena.PartServices, balena.PartDeviceTags, balena.PartFleetTags, balena.PartKeys} {
		if p := api.ProblemOf(part(t, s, name).Err); p != api.RateLimited {
			t.Errorf("part %s met %q, want %q", name, p, api.RateLimited)
		}
	}
	if n := sim.Requests(); n["device_tag"]+n["application_tag"]+n["api_key"] > 0 {
		t.Errorf("asked on after the 429: %v", n)
	}
	if p := api.ProblemOf(fetchError(t, client)); p != api.RateLimited {
		t.Errorf("the next refresh met %q, want %q", p, api.RateLimited)
	}
}

func TestVersions(t *testing.T) {
	// versions are the API versions of the server, which may change as in an upgrade.
	serving := func(t *testing.T, versions *atomic.Value) (*account.Reader, *sniffer) {
		sim := newSimulator(t, small)
		wire := &sniffer{next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(versions.Load().(string), r.URL.Path[1:3]) {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			sim.ServeHTTP(w, r)
		})}
		return newClient(t, serve(t, wire), fewer), wire
	}
	asked := func(wire *sniffer) string {
		var versions []string
		for _, r := range wire.requests() {
			if v := r.URL.Path[1:3]; len(versions) == 0 || versions[len(versions)-1] != v {
				versions = append(versions, v)
			}
		}
		return strings.Join(versions, " ")
	}
	check := func(t *testing.T, client *account.Reader, wire *sniffer, want balena.Version, requests string) {
		t.Helper()
		if got := fetch(t, client).APIVersion; got != want {
			t.Errorf("read %s, want %s", got, want)
		}
		if got := asked(wire); got != requests {
			t.Errorf("asked %s, want %s", got, requests)
		}
	}

	const onlyV6 = "GET /v7/application: answered 404, while v6 answers: v6 is used once 3 refreshes in a row have seen that"
	t.Run("v7 first, v6 where v7 is missing three times, v7 again once it was there three times", func(t *testing.T) {
		var versions atomic.Value
		versions.Store("v6")
		client, wire := serving(t, &versions)
		check(t, client, wire, balena.V6, "v7 v6")
		check(t, client, wire, balena.V6, "v7 v6")
		versions.Store("v6 v7")
		check(t, client, wire, balena.V6, "v7 v6")
		check(t, client, wire, balena.V6, "v7 v6")
		check(t, client, wire, balena.V7, "v7")
		check(t, client, wire, balena.V7, "v7")
	})
	t.Run("a passing 404 at the start", func(t *testing.T) {
		sim := newSimulator(t, small)
		client := newClient(t, serve(t, sim), fewer)
		sim.SetFaults(simulator.Faults{{Status: 404, Times: 5}})
		if got := fetch(t, client).APIVersion; got != balena.V7 {
			t.Errorf("read %s, want v7", got)
		}
	})
	t.Run("passing 404s later", func(t *testing.T) {
		sim := newSimulator(t, small)
		client := newClient(t, serve(t, sim), fewer)
		fetch(t, client)
		for range 3 {
			for range 2 {
				sim.SetFaults(simulator.Faults{{Resource: "application", Status: 404, Times: 1}})
				wantError(t, fetchError(t, client), api.BadAnswer, 404, onlyV6)
			}
			if got := fetch(t, client).APIVersion; got != balena.V7 {
				t.Errorf("read %s, want v7", got)
			}
		}
	})
	t.Run("v7 goes away, and v6 after it came back", func(t *testing.T) {
		var versions atomic.Value
		versions.Store("v7 v6")
		client, wire := serving(t, &versions)
		check(t, client, wire, balena.V7, "v7")
		versions.Store("v6")
		for range 2 {
			wantError(t, fetchError(t, client), api.BadAnswer, 404, onlyV6)
		}
		wire.requests()
		check(t, client, wire, balena.V6, "v7 v6")
		versions.Store("v7")
		for range 2 {
			wantError(t, fetchError(t, client), api.BadAnswer, 404, "GET /v6/application page 1: answered 404")
		}
		wire.requests()
		check(t, client, wire, balena.V7, "v7")
	})
	t.Run("neither", func(t *testing.T) {
		var versions atomic.Value
		versions.Store("v5")
		client, wire := serving(t, &versions)
		wantError(t, fetchError(t, client), api.BadAnswer, 404,
			"GET /v7/application and /v6/application: answered 404: there is no balena API at this address, check --balena.api-url")
		if got := asked(wire); got != "v7 v6" {
			t.Errorf("asked %s, want v7 v6", got)
		}
		versions.Store("v7")
		check(t, client, wire, balena.V7, "v7")
	})
	t.Run("v7 in trouble while v6 is used", func(t *testing.T) {
		sim := newSimulator(t, simulator.Config{Devices: 10, Fleets: 1, Versions: []string{"v6"}})
		client := newClient(t, serve(t, sim), fewer)
		fetch(t, client)
		sim.SetFaults(simulator.Faults{{Status: 503, Times: 1}})
		if got := fetch(t, client).APIVersion; got != balena.V6 {
			t.Errorf("read %s, want v6", got)
		}
	})
	t.Run("pinned", func(t *testing.T) {
		for _, pinned := range []balena.Version{balena.V6, balena.V7} {
			other := map[balena.Version]string{balena.V6: "v7", balena.V7: "v6"}[pinned]
			client := newClient(t, serve(t, newSimulator(t, simulator.Config{Versions: []string{other}})), func(c *account.Config) { c.Version = pinned })
			wantError(t, fetchError(t, client), api.BadAnswer, 404, fmt.Sprintf("GET /%s/application page 1: answered 404", pinned))
		}
	})
}

// The fields that only balenaCloud has are requested once without success, and again later, because the server may have
// been upgraded.
func TestCloudFieldsOnOpenBalena(t *testing.T) {
	sim := newSimulator(t, simulator.Config{})
	k := newClock()
	client := newClient(t, serve(t, sim), withClock(k), fewer)
	for _, step := range []struct {
		after    time.Duration
		requests int
	}{{0, 3 + 4}, {time.Minute, 4}, {time.Hour - time.Minute - time.Millisecond, 4}, {time.Millisecond, 2 + 4}, {time.Minute, 4}} {
		k.advance(step.after)
		sim.ResetRequests()
		if s := fetch(t, client); s.CloudFields || s.Devices.Len() != 2004 {
			t.Errorf("read %d devices, with the fields of balenaCloud: %t", s.Devices.Len(), s.CloudFields)
		}
		if n := sim.Requests()["device"]; n != step.requests {
			t.Errorf("%s later: %d requests for devices, want %d", step.after, n, step.requests)
		}
	}
}

func TestCloudFieldsOnBalenaCloud(t *testing.T) {
	frozen := func(t *testing.T, s *balena.Snapshot) {
		t.Helper()
		if !s.CloudFields || !devicesOf(s)[4].Frozen || devicesOf(s)[5].Frozen {
			t.Errorf("fields of balenaCloud: %t, frozen: %t and %t; want true, true, false", s.CloudFields, devicesOf(s)[4].Frozen, devicesOf(s)[5].Frozen)
		}
	}
	begin := func(t *testing.T) (*simulator.Simulator, *account.Reader) {
		sim := newSimulator(t, simulator.Config{Devices: 210, Fleets: 7, Seed: 1, CloudFields: true})
		sim.Update(func(st *simulator.State) { st.Device(5).IsFrozen = true })
		return sim, newClient(t, serve(t, sim), fewer, pagesOf(100))
	}
	t.Run("are read", func(t *testing.T) {
		_, client := begin(t)
		frozen(t, fetch(t, client))
	})
	t.Run("are not forgotten when the server fails", func(t *testing.T) {
		sim, client := begin(t)
		frozen(t, fetch(t, client))
		sim.SetFaults(simulator.Faults{{Resource: "device", Status: 500, Times: 1}})
		wantError(t, fetchError(t, client), api.Unavailable, 500, "GET /v7/device page 1: answered 500: an empty body")
		frozen(t, fetch(t, client))
	})
	t.Run("nor when it fails in the first refresh, once a page has come", func(t *testing.T) {
		sim, client := begin(t)
		sim.SetFaults(simulator.Faults{{Resource: "device", Page: 2, Status: 500, Times: 1}})
		wantError(t, fetchError(t, client), api.Unavailable, 500, "GET /v7/device page 2: answered 500: an empty body")
		frozen(t, fetch(t, client))
	})
	t.Run("nor when it fails altogether", func(t *testing.T) {
		sim, client := begin(t)
		sim.SetFaults(simulator.Faults{{Resource: "device", Status: 500}})
		wantError(t, fetchError(t, client), api.Unavailable, 500, "GET /v7/device page 1: answered 500: an empty body")
		sim.SetFaults(nil)
		frozen(t, fetch(t, client))
	})
	t.Run("nor for an error that is no unknown field", func(t *testing.T) {
		sim, client := begin(t)
		sim.SetFaults(simulator.Faults{{Resource: "device", Status: 502, Times: 1}})
		wantError(t, fetchError(t, client), api.Unavailable, 502, "GET /v7/device page 1: answered 502: a page of HTML")
		frozen(t, fetch(t, client))
	})
}

// The failure of a part affects nothing else. Its last data are used for the configured time.
func TestPartsFailAlone(t *testing.T) {
	content := map[balena.PartName]struct {
		resource string
		// slow parts are kept for the slow interval anyway, and become too old only after that.
		slow bool
		of   func(*balena.Snapshot) bool // reports whether the snapshot has the data of the part
	}{
		balena.PartServices:       {"image_install", false, func(s *balena.Snapshot) bool { return devicesOf(s)[1].Services() != nil }},
		balena.PartDeviceTags:     {"device_tag", false, func(s *balena.Snapshot) bool { return devicesOf(s)[1].Tags() != nil }},
		balena.PartFleetTags:      {"application_tag", false, func(s *balena.Snapshot) bool { return s.Fleets[0].Tags != nil }},
		balena.PartKeys:           {"api_key", true, func(s *balena.Snapshot) bool { return len(s.Keys) == 1 }},
		balena.PartLatestReleases: {"application", true, func(s *balena.Snapshot) bool { return s.Fleets[0].LatestRelease.ID == 8 }},
		balena.PartReleases:       {"release", false, func(s *balena.Snapshot) bool { return s.Releases[2].ID == 2 }},
		balena.PartDeviceTypes: {"device_type", true, func(s *balena.Snapshot) bool {
			return devicesOf(s)[0].Type == "raspberrypi3" && devicesOf(s)[3].Type == "raspberrypicm4-ioboard"
		}},
	}
	for name, c := range content {
		t.Run(string(name), func(t *testing.T) {
			sim := newSimulator(t, simulator.Config{})
			sim.Update(func(st *simulator.State) {
				st.Devices.DeleteFunc(func(d *simulator.Device) bool { return d.ID > 20 })
				st.Installs.DeleteFunc(func(i *simulator.Install) bool { return i.DeviceID > 20 })
				st.Device(4).DeviceTypeID = 5 // a type that no fleet has
				r := st.Release(2)
				r.IsFinal = false // so that it is read again
			})
			fault := simulator.Fault{Resource: c.resource, Status: 503}
			if name == balena.PartLatestReleases {
				fault.From, fault.Every = 3, 3 // the first two requests are for the fleets themselves
			}
			k := newClock()
			client := newClient(t, serve(t, sim), withClock(k))
			if s := fetchWithParts(t, client); !c.of(s) {
				t.Fatal("the first snapshot lacks the data")
			}
			if c.slow {
				k.advance(15 * time.Minute)
			} else if name == balena.PartReleases {
				k.advance(15*time.Minute - time.Second) // a refresh just before the draft is read again
				fetchWithParts(t, client)
				k.advance(time.Second)
			}
			check := func(after time.Duration, failed, there bool) {
				t.Helper()
				k.advance(after)
				s := fetch(t, client)
				if c.of(s) != there {
					t.Errorf("%s later: the data are there: %t, want %t", after, !there, there)
				}
				for _, p := range s.Parts {
					if want := failed && p.Name == name; (p.Err != nil) != want {
						t.Errorf("%s later: part %s: %v, want an error: %t", after, p.Name, p.Err, want)
					}
				}
				if s.Devices.Len() != 20 {
					t.Errorf("read %d devices", s.Devices.Len())
				}
			}
			sim.SetFaults(simulator.Faults{fault})
			check(0, true, true)
			if name == balena.PartReleases {
				k.advance(-time.Second)
			}
			check(5*time.Minute, true, true)
			check(time.Millisecond, true, false)
			sim.SetFaults(nil)
			check(time.Minute, false, true)
		})
	}
}

// A part that has never been read is missing.
func TestPartsFailFromTheStart(t *testing.T) {
	sim := newSimulator(t, simulator.Config{})
	var faults simulator.Faults
	for _, resource := range []string{"device_type", "release", "image_install", "device_tag", "application_tag", "api_key"} {
		faults = append(faults, simulator.Fault{Resource: resource, Status: 401})
	}
	sim.SetFaults(faults)
	s := fetch(t, newClient(t, serve(t, sim)))
	if s.Devices.Len() != 2004 || len(s.Fleets) != 13 {
		t.Errorf("read %d devices in %d fleets", s.Devices.Len(), len(s.Fleets))
	}
	failed := map[balena.PartName]bool{}
	for _, p := range s.Parts {
		failed[p.Name] = p.Err != nil
	}
	want := map[balena.PartName]bool{
		balena.PartDeviceTypes: true, balena.PartReleases: true, balena.PartLatestReleases: false, balena.PartServices: true,
		balena.PartDeviceTags: true, balena.PartFleetTags: true, balena.PartKeys: true,
		balena.PartSystemReleases: false,
	}
	if diff := cmp.Diff(want, failed); diff != "" {
		t.Errorf("failed parts (-want +got):\n%s", diff)
	}
	wantError(t, part(t, s, balena.PartKeys).Err, api.Unauthorized, 401,
		"GET /v7/api_key page 1: answered 401: the token was not accepted, or the server's database is down")
}

// If a fleet is deleted between two pages, only its devices disappear. The fleet is so small here that the list
// does not count as incomplete.
func TestFleetDeletedBetweenPages(t *testing.T) {
	sim := newSimulator(t, simulator.Config{})
	size, deleted := 0, 0
	sim.Update(func(st *simulator.State) {
		count := map[int]int{}
		for _, d := range st.Devices.All() {
			count[d.FleetID]++
		}
		for _, f := range st.Fleets.All() {
			if n := count[f.ID]; n > 50 && n < 200 {
				size, deleted = n, f.ID
			}
		}
	})
	if deleted == 0 {
		t.Fatal("the dataset has no fleet of the right size")
	}
	var pages atomic.Int32
	client := newClient(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v7/device" && pages.Add(1) == 3 { // the first request has a field that the server does not know
			sim.Update(func(st *simulator.State) { st.DeleteFleet(deleted) })
		}
		sim.ServeHTTP(w, r)
	})), fewer, pagesOf(500))
	s := fetchWithParts(t, client)
	if n := s.Devices.Len(); n < 2004-size || n >= 2004 {
		t.Errorf("read %d devices, want 2004 without some of the %d that were deleted", n, size)
	}
	if s := fetchWithParts(t, client); len(s.Fleets) != 12 || s.Devices.Len() != 2004-size {
		t.Errorf("read %d devices in %d fleets after that, want %d in 12", s.Devices.Len(), len(s.Fleets), 2004-size)
	}
}

// Devices that are added while the pages are read do not hide others.
func TestDevicesComeAndGoBetweenPages(t *testing.T) {
	sim := newSimulator(t, simulator.Config{})
	var pages atomic.Int32
	client := newClient(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v7/device" && pages.Add(1) == 3 {
			sim.Update(func(st *simulator.State) {
				st.DeleteDevice(1)
				st.DeleteDevice(2000)
				st.AddDevice(simulator.Device{FleetID: 1})
			})
		}
		sim.ServeHTTP(w, r)
	})), fewer, pagesOf(500))
	s := fetchWithParts(t, client)
	if n := s.Devices.Len(); n != 2003 {
		t.Errorf("read %d devices, want 2003: two were deleted, one is new", n)
	}
	last := int64(0)
	for d := range s.Devices.All() {
		if d.ID <= last {
			t.Fatalf("device %d follows %d", d.ID, last)
		}
		last = d.ID
	}
}

// If no fleet is selected, no request for devices is sent.
func TestNoFleetChosen(t *testing.T) {
	sim := newSimulator(t, simulator.Config{})
	s := fetchWithParts(t, newClient(t, serve(t, sim), including("^nobody/")))
	if len(s.Fleets)+s.Devices.Len() > 0 {
		t.Errorf("read %d fleets, %d devices, want none", len(s.Fleets), s.Devices.Len())
	}
	if n := sim.Requests(); n["device"]+n["image_install"]+n["device_tag"] > 0 {
		t.Errorf("asked for what can't be there: %v", n)
	}
}

func TestRedirects(t *testing.T) {
	sim := newSimulator(t, small)
	var strangers atomic.Int32
	stranger := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		strangers.Add(1)
		sim.ServeHTTP(w, r)
	})
	other := serve(t, stranger)
	_, otherPort, err := net.SplitHostPort(strings.TrimPrefix(other, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"another port": other,
		"another name": "http://localhost:" + otherPort,
		"https":        "https://localhost:" + otherPort,
		"ftp":          "ftp://127.0.0.1:" + otherPort,
	} {
		t.Run("to "+name, func(t *testing.T) {
			sim := newSimulator(t, small)
			sim.SetFaults(simulator.Faults{{Redirect: target}})
			wantError(t, fetchError(t, newClient(t, serve(t, sim))), api.BadAnswer, 0,
				"GET /v7/application page 1: refused to follow a redirect to "+target+": check --balena.api-url")
		})
	}
	t.Run("from https to http", func(t *testing.T) {
		sim := newSimulator(t, small)
		sim.SetFaults(simulator.Faults{{Redirect: other}})
		server := start(t, sim, (*httptest.Server).StartTLS)
		client := newClient(t, server.URL, func(c *account.Config) { c.CAFile = caFile(t, server.Certificate().Raw) })
		wantError(t, fetchError(t, client), api.BadAnswer, 0,
			"GET /v7/application page 1: refused to follow a redirect to "+other+": check --balena.api-url")
	})
	if n := strangers.Load(); n > 0 {
		t.Errorf("%d requests reached the other host", n)
	}

	t.Run("within the host", func(t *testing.T) {
		sim := newSimulator(t, small)
		moved := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if path, ok := strings.CutPrefix(r.RequestURI, "/moved"); ok {
				r.RequestURI, r.URL.Path = path, strings.TrimPrefix(r.URL.Path, "/moved")
				sim.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Location", "/moved"+r.RequestURI)
			w.WriteHeader(http.StatusTemporaryRedirect)
		})
		if n := fetchWithParts(t, newClient(t, serve(t, moved))).Devices.Len(); n != small.Devices {
			t.Errorf("read %d devices, want %d", n, small.Devices)
		}
	})
	t.Run("from http to https", func(t *testing.T) {
		secure := start(t, newSimulator(t, small), (*httptest.Server).StartTLS)
		plain := newSimulator(t, small)
		plain.SetFaults(simulator.Faults{{Redirect: secure.URL}})
		client := newClient(t, serve(t, plain), func(c *account.Config) { c.CAFile = caFile(t, secure.Certificate().Raw) })
		if n := fetchWithParts(t, client).Devices.Len(); n != small.Devices {
			t.Errorf("read %d devices, want %d", n, small.Devices)
		}
	})
	t.Run("round and round", func(t *testing.T) {
		sim := newSimulator(t, small)
		address := serve(t, sim)
		sim.SetFaults(simulator.Faults{{Redirect: address}})
		wantError(t, fetchError(t, newClient(t, address)), api.BadAnswer, 0,
			"GET /v7/application page 1: refused to follow a redirect more than 3 times: check --balena.api-url")
		if n := sim.Requests()["application"]; n != 4 {
			t.Errorf("%d requests, want 4", n)
		}
	})
}

// caFile writes certificates to a file and returns its name.
func caFile(t testing.TB, certificates ...[]byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	writeCA(t, name, certificates...)
	return name
}

func writeCA(t testing.TB, name string, certificates ...[]byte) {
	t.Helper()
	var b bytes.Buffer
	for _, c := range certificates {
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// newCertificate returns a self-signed certificate for this machine.
func newCertificate(t testing.TB, serial int64) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: fmt.Sprintf("test %d", serial)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

const unknownCA = "GET /v7/application page 1: tls: failed to verify certificate: x509: certificate signed by unknown authority: " +
	"if the server has a private CA, name its certificate with --balena.ca-file"

// The certificate of a private CA is trusted if the CA file has it. A file that is replaced together with the
// server's certificate is read again: the first refresh with the new certificate fails, the next one succeeds.
func TestPrivateCA(t *testing.T) {
	var current atomic.Pointer[tls.Certificate]
	old, next := newCertificate(t, 1), newCertificate(t, 2)
	current.Store(old)
	server := start(t, newSimulator(t, small), func(s *httptest.Server) {
		s.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil }}
		s.Config.TLSConfig = s.TLS
		s.StartTLS()
		s.TLS.Certificates = nil // httptest adds one of its own
	})

	wantError(t, fetchError(t, newClient(t, server.URL)), api.Unavailable, 0, unknownCA)

	file := caFile(t, old.Certificate[0])
	client := newClient(t, server.URL, fewer, func(c *account.Config) { c.CAFile = file })
	fetchWithParts(t, client)

	current.Store(next)
	server.CloseClientConnections()
	wantError(t, fetchError(t, client), api.Unavailable, 0, unknownCA)
	wantError(t, fetchError(t, client), api.Unavailable, 0, unknownCA) // the file has not been replaced yet
	writeCA(t, file)                                                   // and it is not replaced atomically
	wantError(t, fetchError(t, client), api.Unavailable, 0, unknownCA)
	writeCA(t, file, next.Certificate[0])
	wantError(t, fetchError(t, client), api.Unavailable, 0, unknownCA)
	fetchWithParts(t, client)
}

func TestBadCAFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.pem")
	empty := caFile(t)
	for file, text := range map[string]string{
		missing: "cannot read the CA file: open " + missing + ": no such file or directory",
		empty:   "the CA file " + empty + " holds no PEM certificate",
	} {
		c, err := account.New(account.Config{Config: api.Config{URL: mustParse(t, "https://127.0.0.1"), Token: api.StaticToken(token), CAFile: file}})
		if err == nil || err.Error() != text || c != nil {
			t.Errorf("NewClient returned %v, %v; want the error %q", c, err, text)
		}
	}
}

// If the deadline of the caller's context passes, the error is that of the context, not of the server.
func TestParentDeadline(t *testing.T) {
	sim := newSimulator(t, small)
	sim.SetFaults(simulator.Faults{{Latency: seconds(3600)}})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := newClient(t, serve(t, sim)).Fetch(ctx); !errors.Is(err, context.DeadlineExceeded) || api.ProblemOf(err) != "" {
		t.Errorf("Fetch returned %v, want context.DeadlineExceeded", err)
	}
}

// The default port of a scheme may be written or not, and host names are not case-sensitive.
func TestRedirectsToTheSameHostInOtherWords(t *testing.T) {
	for from, targets := range map[string]map[string]bool{
		"https://balena.test":      {"https://balena.test:443": true, "https://BALENA.test": true, "https://balena.test:8443": false, "https://api.balena.test": false},
		"http://balena.test:80":    {"http://balena.test": true, "https://balena.test": true, "http://balena.test:443": false},
		"https://balena.test:8443": {"https://balena.test": false, "http://balena.test:8443": false},
	} {
		for to, followed := range targets {
			t.Run(from+" to "+to, func(t *testing.T) {
				sent := 0
				client := newClient(t, from, through(transport(func(r *http.Request) (*http.Response, error) {
					sent++
					answer := &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(`{"d":[]}`)), Request: r}
					if sent == 1 {
						answer.StatusCode, answer.Header = http.StatusMovedPermanently, http.Header{"Location": {to + r.URL.RequestURI()}}
					}
					return answer, nil
				})))
				_, err := client.Fetch(context.Background())
				if (err == nil) != followed || (sent > 1) != followed {
					t.Errorf("%d requests, error %v; want the redirect to be followed: %t", sent, err, followed)
				}
			})
		}
	}
}

// However many different words an account has, every device keeps the right one.
func TestManyWords(t *testing.T) {
	const n = 12_000
	var devices strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&devices, `,{"id":%d,"uuid":"u%d","belongs_to__application":{"__id":7},"os_version":"balenaOS %d"}`, i, i, i)
	}
	client := newClient(t, "http://balena.test", fewer, pagesOf(n+1), through(roundTrip(func(r *http.Request) string {
		switch {
		case !isFirstPage(r):
		case r.URL.Path == "/v7/application" && strings.Contains(r.URL.RawQuery, "owns__device"):
			return fmt.Sprintf(`{"d":[{"id":7,"slug":"a/b","is_of__class":"fleet","owns__device":%d}]}`, n)
		case r.URL.Path == "/v7/device":
			return `{"d":[` + devices.String()[1:] + `]}`
		}
		return `{"d":[]}`
	})))
	s := fetchWithParts(t, client)
	if s.Devices.Len() != n {
		t.Fatalf("read %d devices, want %d", s.Devices.Len(), n)
	}
	for d := range s.Devices.All() {
		if d.OSVersion != fmt.Sprintf("balenaOS %d", d.ID) {
			t.Fatalf("device %d runs %q", d.ID, d.OSVersion)
		}
	}
}
