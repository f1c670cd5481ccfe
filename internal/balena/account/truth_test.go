// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// listing is a server with one fleet that reports a count of devices, and lists devices with the given UUIDs.
func listing(counted int, uuids ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rows := ""
		switch {
		case !isFirstPage(r):
		case strings.HasPrefix(r.URL.Path, "/v7/application"):
			rows = fmt.Sprintf(`{"id":1,"slug":"a/b","is_of__class":"fleet","owns__device":%d}`, counted)
		case r.URL.Path == "/v7/device":
			for i, uuid := range uuids {
				rows += fmt.Sprintf(`,{"id":%d,"uuid":%q,"belongs_to__application":{"__id":1}}`, i+1, uuid)
			}
			rows = strings.TrimPrefix(rows, ",")
		}
		_, _ = fmt.Fprintf(w, `{"d":[%s]}`, rows)
	})
}

func uuids(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%032x", i)
	}
	return list
}

// A server whose list differs from its count repeatedly is not trusted, whether the list is too short or too long.
func TestDevicesDifferFromTheCount(t *testing.T) {
	for _, test := range []struct {
		counted, listed int
	}{
		{0, 0}, {1, 1}, {30, 30}, {1, 0}, {11, 0}, {3, 1}, {1000, 999}, {1000, 900}, {2, 3}, {3, 1000},
	} {
		t.Run(fmt.Sprintf("%d of %d", test.listed, test.counted), func(t *testing.T) {
			client := newClient(t, serve(t, listing(test.counted, uuids(test.listed)...)))
			if test.counted == test.listed {
				if s := fetch(t, client); s.Devices.Len() != test.listed {
					t.Errorf("read %d devices, want %d", s.Devices.Len(), test.listed)
				}
				return
			}
			wantError(t, fetchError(t, client), api.BadAnswer, 200,
				fmt.Sprintf("GET /v7/device: the server counts %d devices and lists %d, twice in a row", test.counted, test.listed))
		})
	}
}

// A list has no more rows than possible, a page no more than requested, and no list takes thousands of requests.
func TestListsAreBounded(t *testing.T) {
	for name, test := range map[string]struct {
		rows int // per page
		last int // the id of the last row
		want string
	}{
		"a list without an end":       {10, 9999, "GET /v7/device page 3: element 7: the list has more rows than there can be: more than 16"},
		"a page beyond the last row":  {10, 12, "GET /v7/device page 3: element 3: id 13 is higher than 12, the highest that was asked for"},
		"a page that is too long":     {11, 9999, "GET /v7/device page 1: element 11: the page has more rows than the 10 that were asked for"},
		"pages that are much too few": {1, 9999, "GET /v7/device page 18: element 1: the list has more rows than there can be: more than 16"},
	} {
		t.Run(name, func(t *testing.T) {
			id := 0
			client := newClient(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasSuffix(r.URL.Path, "/$count"):
					_, _ = fmt.Fprint(w, `{"d":3}`)
					return
				case !strings.HasPrefix(r.URL.Path, "/v7/device"):
					listing(3).ServeHTTP(w, r)
					return
				}
				if strings.Contains(r.URL.RawQuery, "desc") {
					_, _ = fmt.Fprintf(w, `{"d":[{"id":%d,"uuid":"last","belongs_to__application":{"__id":1}}]}`, test.last)
					return
				}
				var rows []string
				for range test.rows {
					id++
					rows = append(rows, fmt.Sprintf(`{"id":%d,"uuid":"u%d","belongs_to__application":{"__id":1},"modified_at":"2099-01-01T00:00:00.000Z"}`, id, id))
				}
				_, _ = fmt.Fprintf(w, `{"d":[%s]}`, strings.Join(rows, ","))
			})), pagesOf(10))
			wantError(t, fetchError(t, client), api.BadAnswer, 200, test.want)
		})
	}
}

// One empty list of fleets does not prove that there are none. Two do.
func TestAccountThatIsEmpty(t *testing.T) {
	sim := newSimulator(t, small)
	client := newClient(t, serve(t, sim), fewer)
	fetch(t, client)
	sim.SetFaults(simulator.Faults{{Resource: "application", Spoil: simulator.SpoilEmpty}})
	wantError(t, fetchError(t, client), api.BadAnswer, 200,
		"GET /v7/application: the server lists no fleet, and listed 7 before: the next refresh believes it")
	if s := fetch(t, client); len(s.Fleets)+s.Devices.Len() != 0 {
		t.Errorf("%d fleets and %d devices, want none", len(s.Fleets), s.Devices.Len())
	}
	sim.SetFaults(nil)
	if s := fetch(t, client); len(s.Fleets) != 7 {
		t.Errorf("%d fleets, want 7", len(s.Fleets))
	}
	sim.SetFaults(simulator.Faults{{Resource: "application", Spoil: simulator.SpoilEmpty, Times: 1}})
	fetchError(t, client)
	fetch(t, client) // a fleet undoes the doubt
	sim.SetFaults(simulator.Faults{{Resource: "application", Spoil: simulator.SpoilEmpty, Times: 1}})
	fetchError(t, client)
}

func TestTwoDevicesOfOneUUID(t *testing.T) {
	client := newClient(t, serve(t, listing(3, "aa", "bb", "aa")))
	wantError(t, fetchError(t, client), api.BadAnswer, 200, "GET /v7/device: two devices have the same uuid, twice in a row")
}

// A server whose fleets have not been read is not known to have any.
func TestCloudFieldsOfNoDevices(t *testing.T) {
	if s := fetch(t, newClient(t, serve(t, listing(0)))); s.CloudFields {
		t.Error("the server is taken for balenaCloud")
	}
}

// Even if the token is short, text of the server that contains it is not shown, but text of the exporter is.
func TestShortTokensAreKeptSecret(t *testing.T) {
	said := func(h http.HandlerFunc) error {
		return fetchError(t, newClient(t, serve(t, h), func(c *account.Config) { c.Token = api.StaticToken("t0k") }))
	}
	wantError(t, said(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, `{"d":[{"id":1,"slug":"t0k","is_of__class":"app"}]}`)
	}),
		api.BadAnswer, 200, "GET /v7/application page 1: the server's answer repeats the token and cannot be shown")
	wantError(t, said(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://t0k.test/", http.StatusFound)
	}),
		api.BadAnswer, 0, "GET /v7/application page 1: the server's answer repeats the token and cannot be shown: check --balena.api-url")
	wantError(t, said(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no t0k", http.StatusBadRequest) }),
		api.BadAnswer, 400, "GET /v7/application page 1: answered 400: a text that repeats the token")
}
