// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

const (
	// idle is the time after its last request for which refreshes still update a list. Prometheus requests a list once a
	// minute by default.
	idle = 10 * time.Minute
	// maxLists and maxBytes are the maximum number of lists and their maximum total compressed size in bytes. If they are
	// exceeded, the least recently requested lists are removed.
	maxLists = 64
	maxBytes = 64 << 20
)

// Lists holds the lists of the current snapshot.
type Lists struct {
	options Options
	now     func() time.Time

	mutex sync.Mutex
	view  *view // nil before the first snapshot
	lists map[string]*list
}

// New returns Lists without a snapshot.
func New(o Options) *Lists {
	return &Lists{options: o, now: time.Now, lists: map[string]*list{}}
}

// Refresh updates the recently requested lists from a new snapshot.
func (l *Lists) Refresh(s *balena.Snapshot) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	previous := l.view
	l.view = l.options.newView(s)
	changed := changesBetween(previous, l.view)
	for key, list := range l.lists {
		if l.now().Sub(list.requested) > idle {
			delete(l.lists, key)
			continue
		}
		list.render(&l.options, l.view, changed)
	}
}

// answer is the content of a list. Lists with the same tag are equal.
type answer struct {
	page *exposition.Page
	tag  string
}

// list returns the list of a filter. It renders the list at the first request.
func (l *Lists) list(f *filter) (answer, bool) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.view == nil {
		return answer{}, false
	}
	requested := l.lists[f.key]
	if requested == nil {
		requested = &list{filter: f}
		requested.render(&l.options, l.view, everyRun)
		l.lists[f.key] = requested
	}
	requested.requested = l.now()
	l.evict(requested)
	return requested.answer, true
}

// evict removes lists until the limits are met. It keeps the newest list.
func (l *Lists) evict(newest *list) {
	for {
		oldest, size := "", int64(0)
		for key, list := range l.lists {
			size += list.page.CompressedBytes()
			if list != newest && (oldest == "" || list.requested.Before(l.lists[oldest].requested)) {
				oldest = key
			}
		}
		if oldest == "" || len(l.lists) <= maxLists && size <= maxBytes {
			return
		}
		delete(l.lists, oldest)
	}
}

// changesBetween returns a function that reports whether two snapshots differ apart from their devices in a way that
// affects the text of a run.
func changesBetween(previous, current *view) func(*balena.Run) bool {
	if previous == nil || previous.base != current.base || !maps.Equal(previous.fleets, current.fleets) || !slices.Equal(previous.DeviceTagKeys, current.DeviceTagKeys) {
		return everyRun
	}
	changed := map[int64]bool{} // releases with another commit or version
	for _, releases := range []map[int64]balena.Release{previous.Releases, current.Releases} {
		for id := range releases {
			before, after := previous.Releases[id], current.Releases[id]
			if before.Commit != after.Commit || before.Version != after.Version {
				changed[id] = true
			}
		}
	}
	return func(run *balena.Run) bool {
		return len(changed) > 0 && slices.ContainsFunc(run.Releases, func(id int64) bool { return changed[id] })
	}
}

func everyRun(*balena.Run) bool { return true }

// list is the list of a filter.
type list struct {
	filter    *filter
	requested time.Time // time of the last request
	answer
	pieces []piece // of the page, by run
}

// piece is the text for the devices of a run.
type piece struct {
	run  *balena.Run
	hash uint64 // of the text
	// first is set if no text precedes the piece: it begins without a separator. empty is set if it has no text either.
	first, empty bool
}

var (
	layout = exposition.Layout{{Header: []byte("[")}}
	// seed makes the hashes unpredictable.
	seed = maphash.MakeSeed()
)

// tail returns the end of the text of a list.
func (a answer) tail() []byte {
	if a.page.TextBytes() == 0 {
		return []byte("[]\n")
	}
	return []byte("]\n")
}

// render renders the list for a view. changed reports whether the text of an equal run may differ from the last one.
func (l *list) render(o *Options, v *view, changed func(*balena.Run) bool) {
	page := exposition.NewBuilder(layout, l.page)
	previous := l.pieces
	pieces := make([]piece, 0, len(previous))
	same, first := l.page != nil, true
	var text []byte
	numbers := make(map[int64]int, len(previous)) // of the previous pieces, by the ID of their first device
	for number := range previous {
		numbers[previous[number].run.Devices[0].ID] = number
	}
	for _, run := range v.Devices.Runs() {
		var before piece
		number, known := numbers[run.Devices[0].ID]
		if known {
			before = previous[number]
		}
		after := before
		if before.run != run || before.first != first || changed(run) {
			text = text[:0]
			for _, d := range run.Devices {
				text = o.appendDevice(text, v, d, l.filter, first)
			}
			after = piece{run: run, hash: maphash.Bytes(seed, text), first: first, empty: len(text) == 0}
		}
		if known && after.hash == before.hash {
			page.Keep(0, number)
		} else {
			same = false
			page.Add(0, text)
		}
		first = first && after.empty
		pieces = append(pieces, after)
	}
	l.pieces = pieces
	if same && len(pieces) == len(previous) {
		return // all pieces were kept in their order, which depends only on the IDs
	}
	l.answer = answer{page.Page(), fmt.Sprintf(`W/"%016x"`, rand.Uint64())}
}
