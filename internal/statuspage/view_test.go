// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// manyFleets divides devices among fleets. No two devices in a row are alike.
func manyFleets(devices, fleets int) *balena.Snapshot {
	s := &balena.Snapshot{Time: at, Releases: map[int64]balena.Release{1: {ID: 1, Version: "1.0.0"}, 2: {ID: 2, Version: "1.1.0"}}}
	for i := range fleets {
		name := fmt.Sprint("fleet-", i)
		s.Fleets = append(s.Fleets, balena.Fleet{ID: int64(i + 1), Name: name, Slug: "acme/" + name, TargetRelease: 2})
	}
	all := make([]balena.Device, devices)
	for i := range all {
		all[i] = balena.Device{
			ID: int64(i + 1), UUID: fmt.Sprintf("%032d", i), Name: fmt.Sprint("device ", i), Status: statuses[i*7919%len(statuses)], Online: i%3 == 0,
			RunningRelease: int64(1 + i%2), TargetRelease: 2, LastConnectivity: 1e12 + balena.Instant(i*104729%1000003), OSVersion: "balenaOS 6.5.10", FleetID: int64(i%fleets + 1),
		}
	}
	s.Devices = balena.NewDevices(all...)
	return s
}

// TestDevicesAreInOrderWithEachFilter compares the order of random devices, in statuses known and unknown, with the order
// as it is described.
func TestDevicesAreInOrderWithEachFilter(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	states := append([]string{"", "unknown", "on-fire", "asleep"}, statuses...)
	devices := make([]balena.Device, 3000)
	for i := range devices {
		devices[i] = balena.Device{
			ID: int64(i + 1), FleetID: int64(1 + i%2), UUID: fmt.Sprintf("%07d", i), Status: states[random.IntN(len(states))], Online: random.IntN(2) == 0,
			Undervolted: random.IntN(3) == 0, UpdateStatus: []string{"", "done", "rejected", "aborted"}[random.IntN(4)],
			TargetRelease: int64(random.IntN(2)), LastConnectivity: balena.Instant(random.IntN(5)), HeartbeatChanged: balena.Instant(random.IntN(5)),
		}
	}
	s := &balena.Snapshot{Time: at, Fleets: []balena.Fleet{{ID: 1, Slug: "a/b"}, {ID: 2, Slug: "a/c"}}, Devices: balena.NewDevices(devices...)}
	listing := new(views).of(s, time.Minute).listings["a/b"]
	for _, filter := range append(slices.Clone(states), "nothing") {
		var want []*balena.Device
		for d := range s.Devices.All() {
			if d.FleetID == 1 && (filter == "" || statusOf(d) == filter) {
				want = append(want, d)
			}
		}
		slices.SortFunc(want, func(a, b *balena.Device) int {
			return cmp.Or(
				cmp.Compare(badness(statusOf(b)), badness(statusOf(a))),
				cmp.Compare(statusOf(a), statusOf(b)),
				cmp.Compare(defects(b), defects(a)),
				cmp.Compare(a.ConnectivityChanged(), b.ConnectivityChanged()),
				cmp.Compare(a.ID, b.ID),
			)
		})
		if got := listing.in(filter); !slices.Equal(got, want) {
			t.Errorf("status %q: %d devices, want %d, or in another order", filter, len(got), len(want))
		}
	}
}

func TestViewIsMadeOnceARefresh(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var v views
		first, second := twoFleets(), twoFleets()
		a := v.of(first, time.Minute)
		for range 10 {
			<-time.After(59 * time.Second)
			if v.of(first, time.Minute) != a {
				t.Fatal("the same snapshot is summed up again")
			}
		}
		listing := a.listings["acme/green"]
		if first, again := listing.in(""), listing.in(""); &first[0] != &again[0] {
			t.Error("the devices of a fleet are sorted again")
		}
		b := v.of(second, time.Minute)
		if b == a || b.snapshot != second {
			t.Error("a new snapshot is not summed up")
		}
		<-time.After(59 * time.Second)
		if v.get(second, time.Minute) != b {
			t.Error("the view is gone within an interval")
		}
		<-time.After(61 * time.Second)
		v.mutex.Lock()
		defer v.mutex.Unlock()
		if v.newest != nil {
			t.Error("a snapshot that nobody looks at stays in memory")
		}
	})
}

// TestPageCostsItsRows checks that what a page allocates does not grow with the devices of its fleet.
func TestPageCostsItsRows(t *testing.T) {
	var allocations [2]float64
	for i, devices := range []int{1_000, 50_000} {
		s := manyFleets(devices, 1)
		h := NewHandler(options(s, good))
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/fleets/acme/fleet-0?page=1&status=operational", nil)
		allocations[i] = testing.AllocsPerRun(5, func() { h.ServeHTTP(httptest.NewRecorder(), request) })
	}
	if few, many := allocations[0], allocations[1]; many > few*1.1 {
		t.Errorf("%v allocations with 1,000 devices, and %v with 50,000", few, many)
	}
}

// TestReadersAtOnce opens all kinds of pages at once while snapshots follow each other.
func TestReadersAtOnce(t *testing.T) {
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

func TestPagesAtOnceAreLimited(t *testing.T) {
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
		t.Errorf("when the others have left: status %d", w.Code)
	}
}

// deadlineRecorder is a recorder that can be given a deadline, as a connection can.
type deadlineRecorder struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (r *deadlineRecorder) SetWriteDeadline(deadline time.Time) error {
	r.deadline = deadline
	return nil
}

func TestReaderThatStallsIsLetGo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := &deadlineRecorder{ResponseRecorder: httptest.NewRecorder()}
		NewHandler(options(twoFleets(), good)).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/fleets", nil))
		if got, want := w.deadline.Sub(at), 10*time.Second; got != want || w.Code != http.StatusOK {
			t.Errorf("the page may take %v, want %v (status %d)", got, want, w.Code)
		}
	})
}

func TestJSONTellsOfFailedParts(t *testing.T) {
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
			t.Errorf("%s tells %s, want %s", target, got, want)
		}
	}
}

// BenchmarkPages tells what a page costs: the first one after a refresh, which sums up and sorts, and each further one.
func BenchmarkPages(b *testing.B) {
	for _, devices := range []int{1_000, 100_000, 1_000_000} {
		for _, page := range []struct {
			name, target string
			fleets       int
		}{
			{"landing", "/", 1},
			{"overview of 200 fleets", "/fleets", 200},
			{"fleet", "/fleets/acme/fleet-0", 1},
			{"fleet filtered", "/fleets/acme/fleet-0?status=operational", 1},
			{"last page as JSON", "/fleets/acme/fleet-0?format=json&page=1000000", 1},
		} {
			s := manyFleets(devices, page.fleets)
			for _, when := range []string{"first", "next"} {
				b.Run(fmt.Sprintf("devices=%d/%s/%s", devices, page.name, when), func(b *testing.B) {
					current := s
					o := options(nil, good)
					o.Snapshot = func() *balena.Snapshot { return current }
					h := NewHandler(o)
					request := httptest.NewRequestWithContext(b.Context(), http.MethodGet, page.target, nil)
					h.ServeHTTP(httptest.NewRecorder(), request)
					b.ReportAllocs()
					before := cpuTime(b)
					for b.Loop() {
						if when == "first" {
							refreshed := *s
							current = &refreshed
						}
						w := httptest.NewRecorder()
						if h.ServeHTTP(w, request); w.Code != http.StatusOK {
							b.Fatal(w.Code)
						}
						b.ReportMetric(float64(w.Body.Len()), "B/page")
					}
					b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/1e3/float64(b.N), "cpu-ms/op")
				})
			}
		}
	}
}

// cpuTime is how long the process has computed, which others on the machine do not change much.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
