// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"cmp"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/problem"
)

// A list is created by one walk through the devices of the snapshot. The walk keeps only the devices of the requested
// page, and counts the others. Nothing is kept between requests, and refreshes do nothing for lists.

// list holds the devices of a page.
type list struct {
	selection
	kind kind
	// matching is the number of devices that match the filters, and before the number of them on previous pages.
	matching, before int
	rows             []row
	counts           counts
}

// kind is the kind of a list.
type kind int

const (
	fleetDevices kind = iota
	problems
	searchResults
)

// row is a device of a list.
type row struct {
	place
	device   *balena.Device
	problems problem.Set
	// cause is the problem under which the device is listed, -1 for none.
	cause int
	found found
}

// counts are the numbers of devices that each choice would list if the other filters stay the same.
type counts struct {
	fleets   counter[int64]
	problems [32]int
	statuses counter[string]
	releases counter[int64]
	rollouts [3]int // as in rollouts
	systems  counter[string]
	tags     []counter[string]
	// causes counts the listed devices by the problem under which they are listed.
	causes [32]int
}

// counter counts keys. Consecutive equal keys are fast.
type counter[K comparable] struct {
	counts map[K]*int
	last   K
	n      *int
}

func (c *counter[K]) add(key K) {
	if c.n == nil || key != c.last {
		if c.counts == nil {
			c.counts = map[K]*int{}
		}
		n := c.counts[key]
		if n == nil {
			n = new(int)
			c.counts[key] = n
		}
		c.last, c.n = key, n
	}
	*c.n++
}

// by returns the counts by the names of the keys.
func (c *counter[K]) by(name func(K) string) map[string]int {
	counts := make(map[string]int, len(c.counts))
	for key, n := range c.counts {
		counts[name(key)] += *n
	}
	return counts
}

// The filters that a device may fail, as bits.
const (
	missFleet = 1 << iota
	missProblem
	missStatus
	missRelease
	missRollout
	missOS
	missTag // and the bits above for further tags
)

// maxTags is the maximum number of tags that have a filter.
const maxTags = 16

// walk is the state while a list is created.
type walk struct {
	*list
	h        *handler
	s        *balena.Snapshot
	now      balena.Instant
	fleet    int64 // 0 for all, -1 for an unknown fleet
	releases map[int64]bool
	tags     []string // the selected values by key, empty for none
	problem  int      // -1 for none
	rollout  int      // -1 for none
	search   *search
	slugs    map[int64]string
	names    map[int64]string // of releases
	column   string
	sign     int // -1 for reverse order, otherwise 1
	counting bool
	absent   map[int64]bool // fleets
}

// list returns the list for a selection. If counting is not set, only causes are counted.
func (h *handler) list(s *balena.Snapshot, sel selection, of kind, counting bool, now time.Time) *list {
	defer h.acquireWalk()()
	for {
		w := h.newWalk(s, sel, of, counting, now)
		w.walk()
		switch {
		case sel.After != nil && len(w.rows) == 0 && w.matching > 0:
			sel.After, sel.Before = nil, endPlace // all devices after the place were removed: show the last page
		case sel.Before != nil && sel.Before != endPlace && w.before == 0:
			sel.After, sel.Before = nil, nil // few devices are left before the place: show the full first page
		default:
			return w.list
		}
	}
}

func (h *handler) newWalk(s *balena.Snapshot, sel selection, of kind, counting bool, now time.Time) *walk {
	w := &walk{
		list: &list{selection: sel, kind: of}, h: h, s: s, now: balena.Instant(now.UnixMilli()),
		absent: problem.AbsentFleets(s, balena.Instant(now.UnixMilli())), problem: problem.Index(sel.Problem),
		rollout: slices.Index(rollouts, sel.Rollout),
		names:   map[int64]string{}, column: strings.TrimPrefix(sel.Sort, "-"), sign: 1, counting: counting,
		tags: make([]string, min(len(s.DeviceTagKeys), maxTags)),
	}
	if strings.HasPrefix(sel.Sort, "-") {
		w.sign = -1
	}
	if sel.Fleet != "" {
		w.fleet = -1
		for i := range s.Fleets {
			if s.Fleets[i].Slug == sel.Fleet {
				w.fleet = s.Fleets[i].ID
			}
		}
	}
	if sel.Release != "" {
		w.releases = map[int64]bool{0: sel.Release == noRelease}
		for id := range s.Releases {
			if w.releaseName(id) == sel.Release {
				w.releases[id] = true
			}
		}
		// A release that the API does not return is named by its ID.
		if id, err := strconv.ParseInt(strings.TrimPrefix(sel.Release, unknownRelease), 10, 64); err == nil && w.releaseName(id) == sel.Release {
			w.releases[id] = true
		}
	}
	if w.column == "fleet" {
		w.slugs = make(map[int64]string, len(s.Fleets))
		for i := range s.Fleets {
			w.slugs[s.Fleets[i].ID] = s.Fleets[i].Slug
		}
	}
	for i := range w.tags {
		w.tags[i], _ = sel.tag(s.DeviceTagKeys[i])
	}
	if of == searchResults {
		w.search = newSearch(s, sel.Search, h.DeviceNames)
	}
	w.counts.tags = make([]counter[string], len(w.tags))
	return w
}

// noRelease is the value of the filter for devices without a release.
const noRelease = "none"

func (w *walk) releaseName(id int64) string {
	name, known := w.names[id]
	if !known {
		name = cmp.Or(releaseOf(w.s, id).String(), noRelease)
		w.names[id] = name
	}
	return name
}

func (w *walk) walk() {
	backward := w.Before != nil
	for _, run := range w.s.Devices.Runs() {
		for _, d := range run.Devices {
			// The fleet is checked first, because it excludes most devices.
			if w.fixed != "" && d.FleetID != w.fleet {
				continue
			}
			r := row{device: d}
			if w.search != nil {
				if r.found = w.search.of(d); r.found == notFound {
					continue
				}
			}
			if len(w.absent) == 0 || !w.absent[d.FleetID] {
				r.problems = w.h.Thresholds.Of(d, w.now)
			}
			if w.kind == problems && r.problems == 0 {
				continue
			}
			missed := w.miss(&r)
			if w.counting {
				w.count(&r, missed)
			}
			if missed == 0 {
				w.matching++
				w.keep(r, backward)
			}
		}
	}
	w.cut(backward)
	if backward {
		slices.Reverse(w.rows)
		w.before -= len(w.rows)
	}
}

// miss returns the filters that exclude a device.
func (w *walk) miss(r *row) (missed int) {
	d := r.device
	if w.fleet != 0 && d.FleetID != w.fleet {
		missed |= missFleet
	}
	switch {
	case w.problem >= 0:
		if !r.problems.Has(w.problem) {
			missed |= missProblem
		}
	case w.kind == problems && r.problems.Away():
		missed |= missProblem
	}
	if w.Status != "" && statusOf(d) != w.Status {
		missed |= missStatus
	}
	if w.releases != nil && !w.releases[d.RunningRelease] {
		missed |= missRelease
	}
	if w.rollout >= 0 && rolloutOf(d)&(1<<w.rollout) == 0 {
		missed |= missRollout
	}
	if w.OS != "" && osOf(d) != w.OS {
		missed |= missOS
	}
	for i, value := range w.tags {
		if value != "" && tagOf(d, i) != value {
			missed |= missTag << i
		}
	}
	return missed
}

// count counts a device for the choices that would list it. If the device matches all filters, these are the values of
// all filters. If exactly one filter excludes it, they are the values of that filter.
func (w *walk) count(r *row, missed int) {
	if bits.OnesCount(uint(missed)) > 1 {
		return
	}
	d, c := r.device, &w.counts
	counted := func(filter int) bool { return missed&^filter == 0 }
	if w.fixed == "" && counted(missFleet) {
		c.fleets.add(d.FleetID)
	}
	if counted(missProblem) {
		for s := uint32(r.problems); s != 0; s &= s - 1 {
			c.problems[bits.TrailingZeros32(s)]++
		}
	}
	if counted(missStatus) {
		c.statuses.add(statusOf(d))
	}
	if counted(missRelease) {
		c.releases.add(d.RunningRelease)
	}
	if counted(missRollout) {
		for set := uint8(rolloutOf(d)); set != 0; set &= set - 1 {
			c.rollouts[bits.TrailingZeros8(set)]++
		}
	}
	if counted(missOS) {
		c.systems.add(osOf(d))
	}
	for i := range w.tags {
		if counted(missTag << i) {
			if value := tagOf(d, i); value != "" {
				c.tags[i].add(value)
			}
		}
	}
}

// keep adds a device to the rows if it may be on the page.
func (w *walk) keep(r row, backward bool) {
	r.cause = w.causeOf(r.problems)
	if r.cause >= 0 {
		w.counts.causes[r.cause]++
	}
	r.place = w.placeOf(&r)
	if backward {
		if w.sign*r.compare(w.Before) >= 0 && w.Before != endPlace {
			return
		}
		w.before++ // walk subtracts the devices of the page
	} else if w.After != nil && w.sign*r.compare(w.After) <= 0 {
		w.before++
		return
	}
	if w.rows = append(w.rows, r); len(w.rows) >= 2*w.Limit {
		w.cut(backward)
	}
}

// cut sorts the rows, and drops those that are not on the page.
func (w *walk) cut(backward bool) {
	sign := w.sign
	if backward {
		sign = -sign
	}
	slices.SortFunc(w.rows, func(a, b row) int { return sign * a.compare(&b.place) })
	w.rows = w.rows[:min(len(w.rows), w.Limit)]
}

// causeOf returns the problem under which a device is listed: the selected one, otherwise that it is lost or never
// connected, otherwise the worst; -1 for none.
func (w *walk) causeOf(s problem.Set) int {
	switch {
	case s == 0:
		return -1
	case w.problem >= 0 && s.Has(w.problem):
		return w.problem
	case s.Away():
		return bits.Len32(uint32(s)) - 1
	}
	return bits.TrailingZeros32(uint32(s))
}

// placeOf returns the place of a device in the list.
func (w *walk) placeOf(r *row) place {
	d := r.device
	p := place{id: d.ID}
	switch w.column {
	case "name":
		p.text = w.h.nameOf(d)
	case "fleet":
		p.text = w.slugs[d.FleetID]
	case "status":
		p.rank, p.text = int64(statusRank(statusOf(d))), statusOf(d)
	case "connectivity":
		p.rank = newestFirst(d.ConnectivityChanged())
	case "release":
		p.text = w.releaseName(d.RunningRelease)
	case "os":
		p.text = osOf(d)
	default:
		if w.search != nil {
			p.rank, p.text = int64(r.found), w.h.nameOf(d)
		} else {
			p.rank = w.worstFirst(r)
		}
	}
	return p
}

// worstFirst ranks devices:
//
//  1. devices with problems, the worst problem first;
//  2. others by status: disconnected, reduced functionality, unrecognized statuses, inactive, post-provisioning,
//     configuring, updating, operational;
//  3. devices not in service, then never connected devices, then lost devices.
//
// Equal devices are sorted by the time of the problem or status, the newest first and unknown times last.
func (w *walk) worstFirst(r *row) int64 {
	const (
		withoutProblem = 32
		away           = 64
		timeBits       = 44
	)
	var class int
	since := r.device.ConnectivityChanged()
	switch {
	case r.cause >= 0:
		class, since = r.cause, w.h.Thresholds.Since(r.cause, r.device, w.now)
		if problem.Causes[r.cause].Away {
			class += away
		}
	case len(w.absent) > 0 && w.absent[r.device.FleetID] || !problem.InService(r.device, w.now):
		class = away - 1
	case r.device.NeverConnected():
		class, since = away, r.device.Created
	default:
		class = withoutProblem + len(statuses) - 1 - statusRank(statusOf(r.device))
	}
	return int64(class)<<timeBits + newestFirst(since)
}

// newestFirst ranks times: the newest first, unknown times last.
func newestFirst(i balena.Instant) int64 {
	const farthest = 1 << 43 // milliseconds, in the year 2248
	return farthest - int64(min(max(i, 0), farthest-1))
}

// rolloutOf returns the rollout states of a device, as bits with the indices in rollouts.
func rolloutOf(d *balena.Device) (set int) {
	const offTarget, onTarget, pinned = 1 << 0, 1 << 1, 1 << 2
	switch {
	case d.TargetRelease == 0:
	case d.OnTarget():
		set |= onTarget
	default:
		set |= offTarget
	}
	if d.PinnedRelease != 0 {
		set |= pinned
	}
	return set
}

func osOf(d *balena.Device) string { return cmp.Or(d.OSVersion, balena.Unknown) }

// tagOf returns the value of a device's tag by the index of its key; empty if the device does not have the tag.
func tagOf(d *balena.Device, index int) string {
	if tags := d.Tags(); index < len(tags) {
		return tags[index].Value
	}
	return ""
}

// nameOf returns the name of a device, or its UUID if names are not shown.
func (h *handler) nameOf(d *balena.Device) string {
	if h.DeviceNames && d.Name != "" {
		return d.Name
	}
	return d.UUID
}
