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
	// slotPatience is how long a scrape waits for a slot: half of Prometheus' default
	// timeout for a whole scrape.
	slotPatience = 5 * time.Second

	// slotStall is how long a scraper may take nothing while others wait. In that
	// time it is to take writeBytes: 256 kbit/s.
	slotStall = 2 * time.Second

	// slotCheck is how often those who wait look for scrapers that stall.
	slotCheck = slotStall / 8
)

// Slots bound how many scrapes are served at once. A scraper keeps its slot as long
// as it takes its answer, or nobody waits. When somebody does, a scraper that stalls
// gives way, as does one of an address that has more slots than the one that waits.
type slots struct {
	limit int

	mutex   sync.Mutex
	held    []*slot // limit at most
	waiting []*slot // limit at most, in the order in which they came
}

// A slot is held by a scrape, or waited for. A nil slot is that of a handler
// without a limit.
type slot struct {
	address string // of the scraper, as far as addresses are told apart
	ctx     context.Context
	cancel  context.CancelCauseFunc
	granted chan struct{} // closed when the slot is held
	refused chan struct{} // closed when there is no hope of one

	progress atomic.Pointer[time.Time] // when the scraper took something last; nil before sending
	givesWay bool                      // it was told to end
}

// acquire returns a slot, or nil when there is none in time. The context of the
// slot, derived from ctx, is done when the scrape is to end.
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
			return me // granted just now
		}
		me.cancel(nil)
		return nil
	}
}

// queue lets a scrape wait for a slot, or refuses that. Where there are too many who
// wait, one gives way of the address that has the most.
func (s *slots) queue(me *slot) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if len(s.waiting) >= s.limit {
		asked := map[string]int{me.address: 1}
		for _, other := range slices.Concat(s.held, s.waiting) {
			asked[other.address]++
		}
		last := slices.MaxFunc(s.waiting, func(a, b *slot) int { return cmp.Compare(asked[a.address], asked[b.address]) })
		if asked[last.address] <= asked[me.address] {
			return false
		}
		s.waiting = without(s.waiting, last)
		close(last.refused)
	}
	s.waiting = append(s.waiting, me)
	s.settle()
	return true
}

// leave ends waiting, and reports whether the slot was granted meanwhile.
func (s *slots) leave(me *slot) (granted bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.waiting = without(s.waiting, me)
	return slices.Contains(s.held, me)
}

// release gives a slot back.
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

// settle grants the slots that are free, and has as many scrapes give way as there
// are others to take their slots.
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
		case free > 0: // once those that give way have ended
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

// inTurn returns those who wait in the order in which they get slots: those of the
// address with the fewest first.
func inTurn(waiting []*slot, shares map[string]int) []*slot {
	turn := map[*slot]int{}
	had := map[string]int{}
	for _, w := range waiting {
		turn[w] = shares[w.address] + had[w.address]
		had[w.address]++
	}
	return slices.SortedStableFunc(slices.Values(waiting), func(a, b *slot) int { return cmp.Compare(turn[a], turn[b]) })
}

// victim returns the scrape that is to give way to one whose address has a share of
// the slots with it, or nil if there is none: one that stalls, or one of an address
// with a larger share; of these the one that has not taken anything for the longest.
func (s *slots) victim(shares map[string]int, share int) *slot {
	var victim *slot
	var worst [3]int64
	for _, other := range s.held {
		took := other.progress.Load()
		if took == nil || other.givesWay {
			continue // It has not begun, and will not be long.
		}
		idle := time.Since(*took)
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

// progressed notes that the scraper took something.
func (s *slot) progressed() {
	if s != nil {
		now := time.Now()
		s.progress.Store(&now)
	}
}

func without(list []*slot, one *slot) []*slot {
	return slices.DeleteFunc(list, func(other *slot) bool { return other == one })
}

// addressOf returns what scrapers are told apart by: an IPv4 address, or an IPv6
// network of 64 bits, of which anybody has all addresses.
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
