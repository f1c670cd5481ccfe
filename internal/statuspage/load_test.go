// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// TestPageCostsItsRows checks that the allocations for a page do not depend on the size of its fleet.
func TestPageCostsItsRows(t *testing.T) {
	var allocations [2]float64
	for i, devices := range []int{1_000, 50_000} {
		h := NewHandler(recorded(manyFleets(devices, 1)))
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/fleets/acme/fleet-0?status=operational", nil)
		allocations[i] = testing.AllocsPerRun(5, func() { h.ServeHTTP(httptest.NewRecorder(), request) })
	}
	if few, many := allocations[0], allocations[1]; many > few*1.1 {
		t.Errorf("%v allocations with 1,000 devices, and %v with 50,000", few, many)
	}
}

// TestConcurrentReaders requests all kinds of pages concurrently while snapshots change.
func TestConcurrentReaders(t *testing.T) {
	var current atomic.Pointer[balena.Snapshot]
	current.Store(manyFleets(1000, 2))
	o := options(nil, good)
	o.Snapshot = current.Load
	h := NewHandler(o)
	var readers sync.WaitGroup
	for _, target := range []string{"/", "/fleets", "/fleets/acme/fleet-0", "/fleets/acme/fleet-1?status=operational", "/fleets?format=json", "/fleets/acme/fleet-0?format=json&page=5"} {
		for range 2 {
			readers.Go(func() {
				for range 20 {
					w := httptest.NewRecorder()
					h.ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, target, nil))
					if w.Code != http.StatusOK {
						t.Errorf("%s: status %d", target, w.Code)
					}
				}
			})
		}
	}
	for range 10 {
		current.Store(manyFleets(1000, 2))
	}
	readers.Wait()
}

func TestConcurrentRequestsAreLimited(t *testing.T) {
	leave, entered := make(chan struct{}), make(chan struct{})
	var slow atomic.Bool
	slow.Store(true)
	o := options(nil, good)
	o.Snapshot = func() *balena.Snapshot {
		if slow.Load() {
			entered <- struct{}{}
			<-leave
		}
		return twoFleets()
	}
	h := NewHandler(o)
	open := func(target string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, target, nil))
		return w
	}
	var readers sync.WaitGroup
	for i := range maxPages {
		readers.Go(func() {
			if w := open([]string{"/", "/fleets", "/fleets/acme/green?format=json"}[i%3]); w.Code != http.StatusOK {
				t.Errorf("a page within the limit: status %d", w.Code)
			}
		})
		<-entered
	}
	slow.Store(false)
	for _, target := range []string{"/", "/fleets", "/fleets/acme/green"} {
		if w := open(target); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "20 pages") {
			t.Errorf("%s beyond the limit: status %d, Retry-After %q, %s", target, w.Code, w.Header().Get("Retry-After"), w.Body)
		}
	}
	close(leave)
	readers.Wait()
	if w := open("/fleets"); w.Code != http.StatusOK {
		t.Errorf("after the other requests: status %d", w.Code)
	}
}

// TestConcurrentWalksAreLimited checks that pages with a walk through the devices wait for a slot, and other pages do not.
func TestConcurrentWalksAreLimited(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := NewHandler(options(twoFleets(), good)).(*handler)
		for range maxWalks {
			h.walks <- struct{}{}
		}
		var done atomic.Int32
		open := func(target string) {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
			done.Add(1)
		}
		for _, target := range []string{"/", "/fleets", "/fleets/acme/green", "/problems", "/search?q=a", "/devices/aaaaaaaaaaaa"} {
			go open(target)
		}
		open("/search")
		synctest.Wait()
		if n := done.Load(); n != 1 {
			t.Errorf("%d pages do not wait, want 1", n)
		}
		<-h.walks
		synctest.Wait()
		if n := done.Load(); n != 7 {
			t.Errorf("%d pages were served with one slot, want 7", n)
		}
	})
}

// deadlineRecorder is a recorder with a write deadline.
type deadlineRecorder struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (r *deadlineRecorder) SetWriteDeadline(deadline time.Time) error {
	r.deadline = deadline
	return nil
}

func TestWriteDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := &deadlineRecorder{ResponseRecorder: httptest.NewRecorder()}
		NewHandler(options(twoFleets(), good)).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/fleets", nil))
		if got, want := w.deadline.Sub(at), 10*time.Second; got != want || w.Code != http.StatusOK {
			t.Errorf("the page may take %v, want %v (status %d)", got, want, w.Code)
		}
	})
}

func TestFailedPartsInJSON(t *testing.T) {
	s := twoFleets()
	s.Parts = []balena.Part{{Name: balena.PartDeviceTypes}, {Name: balena.PartReleases, Err: errors.New("status 500")}, {Name: balena.PartKeys, Err: errors.New("status 403")}}
	for _, target := range []string{"/fleets?format=json", "/fleets/acme/green?format=json"} {
		var answer struct {
			Up    bool                           `json:"up"`
			Parts []struct{ Part, Error string } `json:"failed_parts"`
		}
		if err := json.Unmarshal(get(t, options(s, good), target).Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprint(answer.Up, answer.Parts), "true [{release status 500} {api_key status 403}]"; got != want {
			t.Errorf("%s reports %s, want %s", target, got, want)
		}
	}
}
