// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// idServer serves a list of rows that have only an id.
type idServer struct {
	ids []int64
	// limit is the maximum number of rows of a page, whatever is requested; 0 for none.
	limit int
	// answered is called after each answer, with its number.
	answered func(n int)
	queries  []string
}

var idQuery = regexp.MustCompile(`^\$select=id&\$filter=id gt (\d+)(?: and id le (\d+))?&\$orderby=id (asc|desc)&\$top=(\d+)$`)

func (s *idServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := strings.ReplaceAll(r.URL.RawQuery, "%20", " ")
	s.queries = append(s.queries, query)
	asked := idQuery.FindStringSubmatch(query)
	if asked == nil {
		http.Error(w, "unexpected query", http.StatusBadRequest)
		return
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(asked[i], 10, 64)
		return n
	}
	last, end, top := number(1), number(2), int(number(4))
	var rows []string
	for _, id := range s.ids {
		if id > last && (end == 0 || id <= end) {
			rows = append(rows, fmt.Sprintf(`{"id":%d}`, id))
		}
	}
	if asked[3] == "desc" {
		slices.Reverse(rows)
	}
	if s.limit > 0 {
		top = min(top, s.limit)
	}
	w.Header().Set("Date", noon.Add(time.Duration(len(s.queries))*time.Second).Format(http.TimeFormat))
	_, _ = io.WriteString(w, `{"d":[`+strings.Join(rows[:min(top, len(rows))], ",")+"]}")
	if s.answered != nil {
		s.answered(len(s.queries))
	}
}

// add adds rows after all others.
func (s *idServer) add(n int) {
	last := slices.Max(s.ids)
	for range n {
		last++
		s.ids = append(s.ids, last)
	}
}

func (s *idServer) remove(from, to int64) {
	s.ids = slices.DeleteFunc(s.ids, func(id int64) bool { return from <= id && id <= to })
}

// A list contains all rows that exist from its first to its last request. It ends after a bounded number of requests,
// whatever happens to the rows meanwhile.
func TestList(t *testing.T) {
	const pageSize = 10
	for name, test := range map[string]struct {
		rows, limit int
		// answered is called after each answer; may be nil.
		answered func(s *idServer, n int)
		requests int
	}{
		"no rows":              {0, 0, nil, 1},
		"one row":              {1, 0, nil, 2},
		"a page that is full":  {10, 0, nil, 2},
		"one row more":         {11, 0, nil, 3},
		"three pages":          {25, 0, nil, 4},
		"a limit of four rows": {25, 4, nil, 8},
		"a limit of one row":   {25, 1, nil, 26},
		"a limit that changes": {25, 0, func(s *idServer, n int) { s.limit = 1 + n*7%5 }, 7},
		"one row is added for each request": {
			25, 0, func(s *idServer, _ int) { s.add(1) }, 4,
		},
		"two rows are added for each request, to a list of one page": {
			5, 0, func(s *idServer, _ int) { s.add(2) }, 3,
		},
		"as many rows as a page are added for each request": {
			25, 0, func(s *idServer, _ int) { s.add(pageSize) }, 5,
		},
		"more rows than the limit are added for each request": {
			25, 4, func(s *idServer, _ int) { s.add(8) }, 10,
		},
		"the last row is removed once it was read": {
			25, 0, func(s *idServer, n int) {
				if n == 2 {
					s.remove(25, 25)
				}
			}, 5,
		},
		"the last row is removed once it was read, and others are added": {
			25, 0, func(s *idServer, n int) {
				if n == 2 {
					s.add(3)
					s.remove(25, 25)
				}
			}, 5,
		},
		"the rest is removed": {
			25, 0, func(s *idServer, n int) {
				if n == 2 {
					s.remove(11, 25)
				}
			}, 3,
		},
		"rows that were read are removed": {
			25, 0, func(s *idServer, n int) {
				if n == 1 {
					s.remove(1, 9)
				}
			}, 4,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &idServer{limit: test.limit}
			for id := range int64(test.rows) {
				s.ids = append(s.ids, id+1)
			}
			always := map[int64]bool{} // the rows that exist all the time
			for _, id := range s.ids {
				always[id] = true
			}
			s.answered = func(n int) {
				if test.answered != nil {
					test.answered(s, n)
				}
				maps.DeleteFunc(always, func(id int64, _ bool) bool { return !slices.Contains(s.ids, id) })
			}
			server := httptest.NewServer(s)
			defer server.Close()
			address, err := url.Parse(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			client, err := New(Config{URL: address, Token: StaticToken("t"), Timeout: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			var got []int64
			clock, err := List(t.Context(), client, Query[int64]{
				Version: balena.V7, Resource: "device", PageSize: pageSize, Limit: 1000,
				Fields: Record[int64]{ID(func(row *int64) *int64 { return row })},
			}, func(row *int64) error {
				got = append(got, *row)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for id := range always {
				if !slices.Contains(got, id) {
					t.Errorf("row %d is missing", id)
				}
			}
			if sorted := slices.Compact(slices.Sorted(slices.Values(got))); !slices.Equal(got, sorted) {
				t.Errorf("the rows are %v, want each of them once and in ascending order", got)
			}
			if len(s.queries) != test.requests {
				t.Errorf("%d requests, want %d:\n%s", len(s.queries), test.requests, strings.Join(s.queries, "\n"))
			}
			if want := noon.Add(time.Second); !clock.Server.Equal(want) {
				t.Errorf("the clock is %s, want that of the first page, %s", clock.Server, want)
			}
		})
	}
}
