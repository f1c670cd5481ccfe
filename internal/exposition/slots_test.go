// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// read requests a page, reads the answer at once, and returns how long that took.
func read(t *testing.T, c net.Conn) (status int, body []byte, took time.Duration) {
	t.Helper()
	began := time.Now()
	ask(t, c)
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err = io.ReadAll(response.Body); err != nil {
		t.Error(err)
	}
	return response.StatusCode, body, time.Since(began)
}

// A scraper that reads nothing gives way when another scraper waits, and not before.
func TestAStalledScraperGivesWay(t *testing.T) {
	page := largePages(1, pageBytes)[0]
	want := text(t, page)
	synctest.Test(t, func(t *testing.T) {
		const limit = 3
		metrics := prometheus.NewRegistry()
		dial, ended := pipeServer(t, NewHandler(HandlerOptions{Page: always(page), MaxRequests: limit, Registerer: metrics}))
		for range limit - 1 {
			ask(t, dial())
		}
		// A scraper that reads its answer slowly keeps its slot.
		slow := make(chan error, 1)
		go func() {
			body, _, err := readSlowly(t, dial(), slotStall/16)
			if err == nil && gunzip(t, body) != want {
				err = fmt.Errorf("%d bytes that are not the page", len(body))
			}
			slow <- err
		}()
		time.Sleep(slotStall / 2) //nolint:forbidigo // the time of synctest
		if len(ended) > 0 {
			t.Fatal("a scrape ended although no other scrape waited")
		}
		status, body, took := read(t, dial())
		if status != 200 || gunzip(t, body) != want {
			t.Errorf("the waiting scraper got status %d and %d bytes", status, len(body))
		}
		if took < slotStall/2 || took > slotStall/2+slotCheck {
			t.Errorf("it waited %s, want until others had stalled for %s", took, slotStall)
		}
		if err := <-slow; err != nil {
			t.Errorf("the one that was slow: %v", err)
		}
		if got := errorCounts(t, metrics)["sending"]; got != 1 {
			t.Errorf("%v scrapers were disconnected, want 1", got)
		}
	})
}

// If all scrapers read their answers, those beyond the limit wait for slotPatience and are then refused.
func TestScrapersThatProgressKeepTheirSlots(t *testing.T) {
	page := largePages(1, pageBytes)[0]
	synctest.Test(t, func(t *testing.T) {
		dial, _ := pipeServer(t, NewHandler(HandlerOptions{Page: always(page), MaxRequests: 1}))
		slow := make(chan error, 1)
		go func() {
			_, _, err := readSlowly(t, dial(), slotStall/16)
			slow <- err
		}()
		synctest.Wait()
		if status, _, took := read(t, dial()); status != 503 || took != slotPatience {
			t.Errorf("status %d after %s, want 503 after %s", status, took, slotPatience)
		}
		if err := <-slow; err != nil {
			t.Errorf("the one that was slow: %v", err)
		}
	})
}

// One address with many stalled scrapers, and ever new ones, takes no slots from other addresses.
func TestAnAddressHasOnlyItsShare(t *testing.T) {
	page := largePages(1, pageBytes)[0]
	want := text(t, page)
	synctest.Test(t, func(t *testing.T) {
		const limit = 40
		dial, _ := pipeServerFrom(t, NewHandler(HandlerOptions{Page: always(page), MaxRequests: limit}))
		for range 10 {
			for range 2 * limit {
				ask(t, dial("192.0.2.1:1"))
			}
			synctest.Wait()
			for _, address := range []string{"192.0.2.2:1", "192.0.2.3:1"} {
				status, body, took := read(t, dial(address))
				if status != 200 || gunzip(t, body) != want || took != 0 {
					t.Errorf("%s: status %d, %d bytes after %s, want the page at once", address, status, len(body), took)
				}
			}
			time.Sleep(slotStall / 4) //nolint:forbidigo // the time of synctest
		}
	})
}

// fill requests slots for scrapes of the addresses, one after the other. Each channel receives the slot, or nil when the
// scrape is refused.
func fill(t *testing.T, s *slots, addresses ...string) (got []chan *slot) {
	for _, address := range addresses {
		ended := make(chan *slot, 1)
		go func() { ended <- s.acquire(t.Context(), address) }()
		synctest.Wait()
		got = append(got, ended)
	}
	return got
}

// state returns the state of each request for a slot: h holds a slot, w waits, r was refused, g gives way.
func state(s *slots, got []chan *slot) (states string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, ended := range got {
		select {
		case answer := <-ended:
			switch {
			case answer == nil:
				states += "r"
			case answer.canceled:
				states += "g"
			default:
				states += "h"
			}
			ended <- answer
		default:
			states += "w"
		}
	}
	return states
}

// A free slot goes to the address that holds the fewest slots. The places in the queue are limited and shared in the
// same way.
func TestSlotsAreShared(t *testing.T) {
	a, b, c, d := "192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1"
	for name, test := range map[string]struct {
		asks    []string
		sending bool // the scrapes that hold slots have begun to send
		want    string
		freed   string // states after the first scrape has returned its slot
	}{
		"enough for all":              {[]string{a, a, a}, true, "hhh", "hhh"},
		"one address waits for its":   {[]string{a, a, a, a, a}, true, "hhhww", "hhhhw"},
		"another one has its share":   {[]string{a, a, a, b}, true, "ghhw", "ghhh"},
		"no more than its share":      {[]string{a, a, b, b, b}, true, "hhhww", "hhhhw"},
		"each has one":                {[]string{a, b, c, d}, true, "hhhw", "hhhh"},
		"before anything is sent":     {[]string{a, a, a, b}, false, "hhhw", "hhhh"},
		"the fewest first":            {[]string{a, b, c, b, d}, false, "hhhww", "hhhwh"},
		"too many wait":               {[]string{a, a, a, a, a, a, a}, true, "hhhwwwr", "hhhhwwr"},
		"too many of an address wait": {[]string{a, a, a, a, a, a, b}, true, "ghhrwww", "ghhrwwh"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &slots{limit: 3}
				var got []chan *slot
				for _, address := range test.asks {
					got = append(got, fill(t, s, address)...)
					for _, slot := range s.held {
						if test.sending && slot.progress.Load() == nil {
							slot.progressed()
						}
					}
				}
				if got := state(s, got); got != test.want {
					t.Errorf("the states are %s, want %s", got, test.want)
				}
				first := <-got[0]
				s.release(first)
				synctest.Wait()
				got[0] <- first
				if got := state(s, got); got != test.freed {
					t.Errorf("when the first has ended, the states are %s, want %s", got, test.freed)
				}
				time.Sleep(2 * slotPatience) //nolint:forbidigo // the time of synctest
				s.mutex.Lock()
				waiting, held := len(s.waiting), slices.Clone(s.held)
				s.mutex.Unlock()
				if waiting > 0 {
					t.Errorf("%d still wait", waiting)
				}
				for _, slot := range held {
					s.release(slot)
				}
			})
		})
	}
}

func TestAScraperThatDisconnectsStopsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slots{limit: 1}
		slot := s.acquire(t.Context(), "a")
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		began := time.Now()
		if other := s.acquire(ctx, "a"); other != nil || time.Since(began) != time.Second || len(s.waiting) != 0 {
			t.Errorf("it got %v after %s, %d wait", other, time.Since(began), len(s.waiting))
		}
		s.release(slot)
		if len(s.held) != 0 {
			t.Errorf("%d slots are held", len(s.held))
		}
	})
}

func TestAddresses(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:9090":              "192.0.2.1",
		"[::ffff:192.0.2.1]:9090":     "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:1":    "2001:db8:1:2::/64",
		"[2001:db8:1:2::9]:2":         "2001:db8:1:2::/64",
		"[2001:db8:1:3::9]:2":         "2001:db8:1:3::/64",
		"[fe80::1%eth0]:1":            "fe80::/64",
		"@":                           "@",
		"/run/balena-exporter.socket": "/run/balena-exporter.socket",
	} {
		if got := addressOf(remote); got != want {
			t.Errorf("%s has the address %s, want %s", remote, got, want)
		}
	}
}
