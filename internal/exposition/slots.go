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
	// slotPatience is the maximum time that a scrape waits for a slot, which is half of the
	// default scrape timeout of Prometheus.
	slotPatience = 5 * time.Second

	// slotStall is the time in which a scraper must read writeBytes (256 kbit/s) while others
	// wait.
	slotStall = 2 * time.Second

	// slotCheck is the interval at which waiting scrapes search for scrapers that stall.
	slotCheck = slotStall / 8
)

// slots limits the number of concurrent scrapes. If a scrape waits for a slot, a scrape is
// canceled if its scraper stalls, or if its address holds more slots than that of the waiting
// scrape.
type slots struct {
	limit int

	mutex   sync.Mutex
	held    []*slot // at most limit
	waiting []*slot // at most limit, in order of arrival
}

// A slot belongs to a scrape that holds it or waits for it.
type slot struct {
	address string          // of the scraper; see addressOf
	ctx     context.Context // canceled when the scrape must end, or may no longer wait
	cancel  context.CancelCauseFunc
	granted chan struct{} // closed when the slot is granted

	progress atomic.Pointer[time.Time] // when the scraper last read data. nil before sending
	canceled bool                      // the scrape must end because its slot is needed
}

// acquire returns a slot, or nil if no slot becomes free in time. The context of the slot
// is canceled when the scrape must end.
func (s *slots) acquire(ctx context.Context, remote string) *slot {
	current := &slot{address: addressOf(remote), granted: make(chan struct{})}
	current.ctx, current.cancel = context.WithCancelCause(ctx)
	if s.queue(current) && s.wait(current) {
		return current
	}
	current.cancel(nil)
	return nil
}

// wait waits for a slot, and reports whether it was granted.
func (s *slots) wait(current *slot) bool {
	ctx, stop := context.WithTimeout(current.ctx, slotPatience)
	defer stop()
	check := time.NewTicker(slotCheck)
	defer check.Stop()
	for {
		select {
		case <-current.granted:
			return true
		case <-check.C:
			s.reassign()
		case <-ctx.Done():
			return s.dequeue(current)
		}
	}
}

// queue adds a scrape to the queue for slots and returns true. If the queue is full, it
// removes a scrape of the address with the most scrapes, or returns false.
func (s *slots) queue(current *slot) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if len(s.waiting) >= s.limit {
		scrapes := map[string]int{current.address: 1}
		for _, other := range slices.Concat(s.held, s.waiting) {
			scrapes[other.address]++
		}
		last := slices.MaxFunc(s.waiting, func(a, b *slot) int { return cmp.Compare(scrapes[a.address], scrapes[b.address]) })
		if scrapes[last.address] <= scrapes[current.address] {
			return false
		}
		s.waiting = without(s.waiting, last)
		last.cancel(nil)
	}
	s.waiting = append(s.waiting, current)
	s.assign()
	return true
}

// dequeue removes a scrape from the queue. It reports whether the slot was granted.
func (s *slots) dequeue(current *slot) (granted bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.waiting = without(s.waiting, current)
	return slices.Contains(s.held, current)
}

// release returns a slot.
func (s *slots) release(current *slot) {
	current.cancel(nil)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.held = without(s.held, current)
	s.assign()
}

func (s *slots) reassign() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.assign()
}

// assign grants free slots to waiting scrapes. For each further waiting scrape, it cancels a
// scrape whose slot the waiting scrape may have.
func (s *slots) assign() {
	shares := map[string]int{} // slots held by an address
	free := s.limit
	for _, other := range s.held {
		if !other.canceled {
			shares[other.address]++
			free--
		}
	}
	for _, next := range byShare(s.waiting, shares) {
		shares[next.address]++
		switch {
		case len(s.held) < s.limit:
			s.waiting = without(s.waiting, next)
			s.held = append(s.held, next)
			close(next.granted)
		case free > 0: // granted after canceled scrapes have ended
		default:
			other := s.scrapeToCancel(shares, shares[next.address])
			if other == nil {
				return
			}
			other.canceled = true
			other.cancel(errSlotNeeded)
			shares[other.address]--
			free++
		}
		free--
	}
}

// byShare returns the waiting scrapes in the order in which they get slots: first those of
// the address with the fewest slots.
func byShare(waiting []*slot, shares map[string]int) []*slot {
	turn := map[*slot]int{}
	earlier := map[string]int{} // number of earlier waiting scrapes of an address
	for _, w := range waiting {
		turn[w] = shares[w.address] + earlier[w.address]
		earlier[w.address]++
	}
	return slices.SortedStableFunc(slices.Values(waiting), func(a, b *slot) int { return cmp.Compare(turn[a], turn[b]) })
}

// scrapeToCancel returns the scrape to cancel for a waiting scrape, or nil if there is none.
// share is the number of slots that the address of the waiting scrape would hold. A scrape
// can be canceled if it stalls, or if its address holds more than share slots. Of several
// ones, those that stall, those of the address with the most slots, and those that have read
// no data for the longest time are preferred, in this order.
func (s *slots) scrapeToCancel(shares map[string]int, share int) *slot {
	var found *slot
	var worst [3]int64
	for _, other := range s.held {
		progress := other.progress.Load()
		if progress == nil || other.canceled {
			continue // It has not begun to send, or is already canceled.
		}
		idle := time.Since(*progress)
		stalls := int64(0)
		if idle >= slotStall {
			stalls = 1
		}
		if stalls == 0 && shares[other.address] <= share {
			continue
		}
		if rank := [3]int64{stalls, int64(shares[other.address]), int64(idle)}; found == nil || slices.Compare(rank[:], worst[:]) > 0 {
			found, worst = other, rank
		}
	}
	return found
}

// progressed records that the scraper has read data.
func (s *slot) progressed() {
	now := time.Now()
	s.progress.Store(&now)
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
