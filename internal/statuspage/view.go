// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// A view is what the pages show of one snapshot: the sums, and the devices of each fleet in order. It is made
// at most once a refresh, and only when somebody opens a page, so that a page costs its rows and not the
// devices of the account. It holds one pointer a device.
type view struct {
	snapshot *balena.Snapshot
	made     sync.Once
	overview *overview
	listings map[string]*listing // by slug
}

// views holds the view of the newest snapshot that a page was made of.
type views struct {
	mutex  sync.Mutex
	newest *view
	// forgetting takes the view away when no page was opened for an interval. Otherwise a snapshot that
	// nobody looks at any more would stay in memory.
	forgetting *time.Timer
}

// of returns the view of a snapshot. Requests that come while it is made wait for it.
func (v *views) of(s *balena.Snapshot, keep time.Duration) *view {
	w := v.get(s, keep)
	w.made.Do(w.compute)
	return w
}

func (v *views) get(s *balena.Snapshot, keep time.Duration) *view {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if v.newest == nil || v.newest.snapshot != s {
		v.newest = &view{snapshot: s}
	}
	if v.forgetting == nil {
		v.forgetting = time.AfterFunc(keep, v.forget)
	} else {
		v.forgetting.Reset(keep)
	}
	return v.newest
}

func (v *views) forget() {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.newest = nil
}

// compute sums up all devices and divides them by fleets.
func (v *view) compute() {
	s := v.snapshot
	v.listings = make(map[string]*listing, len(s.Fleets))
	byID := make(map[int64]*listing, len(s.Fleets))
	for i := range s.Fleets {
		l := &listing{fleet: newFleet(s, &s.Fleets[i])}
		byID[s.Fleets[i].ID], v.listings[l.Slug] = l, l
	}
	for d := range s.Devices.All() {
		l := byID[d.FleetID]
		l.tally.Add(d)
		l.devices = append(l.devices, d)
	}
	for _, l := range v.listings {
		l.sums = sumsOf(&l.tally)
	}
	v.overview = newOverview(v.listings)
}

// listing is a fleet with its devices.
type listing struct {
	fleet
	tally  balena.Tally
	sorted sync.Once
	// devices are in ascending order of ID, and worst first once sorted.
	devices []*balena.Device
	// order is the statuses that the devices are in, in the order of the devices.
	order []string
}

// in returns the devices in a status, or all devices for an empty one, worst first. Since the status comes
// first in the order, the devices in one are a part of all.
func (l *listing) in(status string) []*balena.Device {
	l.sorted.Do(l.sort)
	if status == "" {
		return l.devices
	}
	from := 0
	for _, name := range l.order {
		if name == status {
			return l.devices[from : from+l.Statuses[name]]
		}
		from += l.Statuses[name]
	}
	return nil
}

// sort sorts the devices:
//
//  1. by status: disconnected, reduced functionality, any that is not known, inactive, post-provisioning,
//     configuring, updating, operational;
//  2. those with most defects: see [defects];
//  3. those that have been so for the longest time, by their last change of connectivity; those of which
//     that is not known come first, having never connected;
//  4. by ID, so that the order is the same at each request.
//
// What is compared is gathered first: the devices lie all over the memory.
func (l *listing) sort() {
	l.order = slices.SortedFunc(maps.Keys(l.Statuses), func(a, b string) int {
		return cmp.Or(cmp.Compare(badness(b), badness(a)), cmp.Compare(a, b))
	})
	ranks := make(map[string]int, len(l.order))
	for rank, name := range l.order {
		ranks[name] = rank
	}
	type row struct {
		rank    int32 // by the status, then by the defects
		index   int32 // among the devices, and so by ID
		changed balena.Instant
	}
	rows := make([]row, len(l.devices))
	for i, d := range l.devices {
		rank := ranks[statusOf(d)]*(maxDefects+1) + maxDefects - defects(d)
		rows[i] = row{int32(rank), int32(i), d.ConnectivityChanged()}
	}
	slices.SortFunc(rows, func(a, b row) int {
		// cmp.Or would compare everything each time.
		switch {
		case a.rank != b.rank:
			return cmp.Compare(a.rank, b.rank)
		case a.changed != b.changed:
			return cmp.Compare(a.changed, b.changed)
		}
		return cmp.Compare(a.index, b.index)
	})
	sorted := make([]*balena.Device, len(rows))
	for i, r := range rows {
		sorted[i] = l.devices[r.index]
	}
	l.devices = sorted
}
