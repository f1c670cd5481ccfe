// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// slotPatience is the maximum time that a scrape waits for a slot: half of Prometheus'
	// default timeout for a whole scrape.
	slotPatience = 5 * time.Second

	// slotStall is how long a scraper may read nothing while others wait. It must read
	// writeBytes in that time: 256 kbit/s.
	slotStall = 2 * time.Second

	// slotCheck is how often waiting scrapes look for scrapers that stall.
	slotCheck = slotStall / 8
)

// slots limit the number of scrapes served at once. While no scrape waits, every scraper
// keeps its slot. When a scrape waits, a scraper that stalls gives way to it, and so does
// a scraper of an address that holds more slots than that of the waiting scrape.
type slots struct {
	limit int

	mutex   sync.Mutex
	held    []*slot // limit at most
	waiting []*slot // limit at most, in order of arrival
}

// A slot belongs to a scrape that holds it or waits for it. In a handler without a
// limit it is nil.
type slot struct {
	address string // of the scraper; see addressOf
	ctx     context.Context
	cancel  context.CancelCauseFunc
	granted chan struct{} // closed when the slot is granted
	refused chan struct{} // closed when the scrape may no longer wait

	progress atomic.Pointer[time.Time] // when the scraper last read something; nil before sending
	givesWay bool                      // the scrape was canceled in favor of another
}

// acquire returns a slot, or nil if none becomes free in time. The context of the
// slot, derived from ctx, is done when the scrape must end.
func (s *slots) acquire(ctx context.Context, remote string) *slot {
	me := &slot{address: addressOf(remote), granted: make(chan struct{}), refused: make(chan struct{})}
	me.ctx, me.cancel = context.WithCancelCause(ctx)
	if !s.queue(me) {
		me.cancel(nil)
		return nil
	}
	patience := time.NewTimer(slotPatience)
	defer patience.Stop()
	check := time.NewTicker(slotCheck)
	defer check.Stop()
	for {
		select {
		case <-me.granted:
			return me
		case <-me.refused:
		case <-patience.C:
		case <-ctx.Done():
		case <-check.C:
			s.makeRoom()
			continue
		}
		if s.leave(me) {
			return me // granted at the last moment
		}
		me.cancel(nil)
		return nil
	}
}

// queue adds a scrape to those that wait for a slot, and reports whether it may wait. If
// the queue is full, a scrape of the address with the most scrapes is removed from it.
func (s *slots) queue(me *slot) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if len(s.waiting) >= s.limit {
		scrapes := map[string]int{me.address: 1}
		for _, other := range slices.Concat(s.held, s.waiting) {
			scrapes[other.address]++
		}
		last := slices.MaxFunc(s.waiting, func(a, b *slot) int { return cmp.Compare(scrapes[a.address], scrapes[b.address]) })
		if scrapes[last.address] <= scrapes[me.address] {
			return false
		}
		s.waiting = without(s.waiting, last)
		close(last.refused)
	}
	s.waiting = append(s.waiting, me)
	s.settle()
	return true
}

// leave ends waiting, and reports whether the slot has been granted meanwhile.
func (s *slots) leave(me *slot) (granted bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.waiting = without(s.waiting, me)
	return slices.Contains(s.held, me)
}

// release returns a slot.
func (s *slots) release(me *slot) {
	me.cancel(nil)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.held = without(s.held, me)
	s.settle()
}

func (s *slots) makeRoom() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.settle()
}

// settle grants the free slots, and ends one scrape for each further waiting scrape that
// is entitled to its slot.
func (s *slots) settle() {
	shares := map[string]int{} // slots held by an address
	free := s.limit
	for _, other := range s.held {
		if !other.givesWay {
			shares[other.address]++
			free--
		}
	}
	for _, next := range inTurn(s.waiting, shares) {
		shares[next.address]++
		switch {
		case len(s.held) < s.limit:
			s.waiting = without(s.waiting, next)
			s.held = append(s.held, next)
			close(next.granted)
		case free > 0: // granted once the scrapes that give way have ended
		default:
			victim := s.victim(shares, shares[next.address])
			if victim == nil {
				return
			}
			victim.givesWay = true
			victim.cancel(errGaveWay)
			shares[victim.address]--
			free++
		}
		free--
	}
}

// inTurn returns the waiting scrapes in the order in which they get slots: first those of
// the address with the fewest slots.
func inTurn(waiting []*slot, shares map[string]int) []*slot {
	turn := map[*slot]int{}
	earlier := map[string]int{} // waiting scrapes of an address so far
	for _, w := range waiting {
		turn[w] = shares[w.address] + earlier[w.address]
		earlier[w.address]++
	}
	return slices.SortedStableFunc(slices.Values(waiting), func(a, b *slot) int { return cmp.Compare(turn[a], turn[b]) })
}

// victim returns the scrape that gives way to a waiting scrape, or nil if there is none.
// share is the number of slots that the address of the waiting scrape would hold. A scrape
// gives way if it stalls, or if its address holds more than share slots. Of several, the
// one that has read nothing for the longest gives way.
func (s *slots) victim(shares map[string]int, share int) *slot {
	var victim *slot
	var worst [3]int64
	for _, other := range s.held {
		progress := other.progress.Load()
		if progress == nil || other.givesWay {
			continue // It has not begun to send, or ends already.
		}
		idle := time.Since(*progress)
		stalls := int64(0)
		if idle >= slotStall {
			stalls = 1
		}
		if stalls == 0 && shares[other.address] <= share {
			continue
		}
		if rank := [3]int64{stalls, int64(shares[other.address]), int64(idle)}; victim == nil || slices.Compare(rank[:], worst[:]) > 0 {
			victim, worst = other, rank
		}
	}
	return victim
}

// progressed records that the scraper has read something.
func (s *slot) progressed() {
	if s != nil {
		now := time.Now()
		s.progress.Store(&now)
	}
}

// without removes a slot from a list.
func without(list []*slot, removed *slot) []*slot {
	return slices.DeleteFunc(list, func(other *slot) bool { return other == removed })
}

// addressOf returns the address by which scrapers are distinguished: an IPv4 address, or
// an IPv6 network of 64 bits, because one host can use all addresses of such a network.
func addressOf(remote string) string {
	a, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	address := a.Addr().Unmap().WithZone("")
	if address.Is4() {
		return address.String()
	}
	network, _ := address.Prefix(64)
	return network.String()
}
