// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena/account"
)

// With a server that answers anything in any order, the numbers of requests and rows stay bounded, and snapshots keep their
// invariants.
func FuzzAdversary(f *testing.F) {
	for _, script := range []string{"", "\x00", "\x01\x02\x03", "\x05\x05\x05\x05", "abcdefghijklmnop", "\xff\xfe\xfd\xfc", strings.Repeat("\x02", 30), "\x07\x01\x06\x03\x04"} {
		f.Add([]byte(script))
	}
	const (
		pageSize = 5
		counted  = 12 // maximum number of devices in each of two fleets
		// The sum of the limits of all lists, each of which may be read twice. Later refreshes read less.
		maxRequests = 20_000
	)
	behind := regexp.MustCompile(`id%20gt%20(\d+)`)
	f.Fuzz(func(t *testing.T, script []byte) {
		requests, rows := 0, 0
		next := func() int { // the next value of the script; after its end, always the same
			if len(script) == 0 {
				return 0
			}
			return int(script[requests%len(script)])
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests++
			what := next()
			if strings.HasSuffix(r.URL.Path, "/$count") {
				_, _ = fmt.Fprintf(w, `{"d":%d}`, what)
				return
			}
			id := 0
			if m := behind.FindStringSubmatch(r.URL.RawQuery); m != nil {
				id, _ = strconv.Atoi(m[1])
			}
			n := pageSize
			switch what % 16 {
			case 0, 1, 2, 3:
				n = 0
			case 4:
				n = pageSize + 1
			case 5:
				w.WriteHeader([]int{400, 401, 404, 500, 502, 503}[what/16%6])
				return
			case 6:
				_, _ = fmt.Fprint(w, `{"d":[{"id":1`)
				return
			case 7, 8:
				n = 1
			}
			list := make([]string, 0, n)
			for range n {
				id += 1 + what/64
				rows++
				list = append(list, fmt.Sprintf(
					`{"id":%d,"uuid":"u%d","slug":"a/f%d","is_of__class":"fleet","owns__device":%d,"belongs_to__application":{"__id":%d},"device":{"__id":%d},"status":"Running","tag_key":"site","value":"x","modified_at":"20%02d-01-01T00:00:00.000Z"}`,
					id, id%(what+1), id, what%counted, 1+what%3, 1+what%5, what%100))
			}
			_, _ = fmt.Fprintf(w, `{"d":[%s]}`, strings.Join(list, ","))
		}))
		defer server.Close()
		k := newClock()
		client := newClient(t, server.URL, withClock(k), pagesOf(pageSize), func(c *account.Config) { c.FullRefreshInterval = time.Hour })
		for range 3 {
			requests, rows = 0, 0
			s, err := client.Fetch(t.Context())
			if requests > maxRequests || rows > maxRequests*pageSize {
				t.Fatalf("a refresh took %d requests and %d rows; it ended in %v", requests, rows, err)
			}
			if err == nil {
				last, uuids := int64(0), map[string]bool{}
				for d := range s.Devices.All() {
					if d.ID <= last || d.UUID == "" || uuids[d.UUID] || s.Fleet(d.FleetID) == nil {
						t.Errorf("device %+v behind id %d", d, last)
					}
					last, uuids[d.UUID] = d.ID, true
				}
			}
			k.advance(time.Minute)
		}
	})
}
