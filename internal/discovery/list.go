// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

const (
	// idle is how long a list that nobody asks for is still made anew with each refresh. Prometheus asks once a
	// minute by default.
	idle = 10 * time.Minute
	// maxLists and maxBytes bound how many lists are kept, and their compressed size in bytes together. Beyond
	// that, those that were asked for least recently are forgotten.
	maxLists = 64
	maxBytes = 64 << 20
)

// Lists are the lists of the newest snapshot.
type Lists struct {
	writer *writer
	now    func() time.Time

	mutex sync.Mutex
	view  *view // nil before the first snapshot
	lists map[string]*list
}

// New returns lists of no snapshot.
func New(o Options) *Lists {
	return &Lists{writer: &writer{o}, now: time.Now, lists: map[string]*list{}}
}

// Refresh makes the lists that are asked for anew, out of a new snapshot.
func (l *Lists) Refresh(s *balena.Snapshot) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	before := l.view
	l.view = l.writer.newView(s)
	changed := changesBetween(before, l.view)
	for key, list := range l.lists {
		if l.now().Sub(list.asked) > idle {
			delete(l.lists, key)
			continue
		}
		list.render(l.writer, l.view, changed)
	}
}

// answer is a list as it is served. The same tag is the same list.
type answer struct {
	page *exposition.Page
	tag  string
}

// list returns the list of a filter, and makes it where it is asked for the first time.
func (l *Lists) list(f *filter) (answer, bool) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.view == nil {
		return answer{}, false
	}
	key := f.key()
	one := l.lists[key]
	if one == nil {
		one = &list{filter: f}
		one.render(l.writer, l.view, changes{all: true})
		l.lists[key] = one
	}
	one.asked = l.now()
	l.forget(one)
	return one.answer, true
}

// forget forgets lists until the rest is within the bounds. The newest stays.
func (l *Lists) forget(newest *list) {
	for {
		oldest, size := "", int64(0)
		for key, list := range l.lists {
			size += list.page.CompressedBytes()
			if list != newest && (oldest == "" || list.asked.Before(l.lists[oldest].asked)) {
				oldest = key
			}
		}
		if oldest == "" || len(l.lists) <= maxLists && size <= maxBytes {
			return
		}
		delete(l.lists, oldest)
	}
}

// changes are what two snapshots differ in beside their devices.
type changes struct {
	all      bool // any run may read otherwise
	reworded map[int64]bool
}

func changesBetween(before, now *view) changes {
	if before == nil || before.base != now.base || len(before.fleets) != len(now.fleets) || !slices.Equal(before.DeviceTagKeys, now.DeviceTagKeys) {
		return changes{all: true}
	}
	for id, f := range now.fleets {
		if before.fleets[id] != f {
			return changes{all: true}
		}
	}
	c := changes{reworded: map[int64]bool{}}
	for _, releases := range []map[int64]balena.Release{before.Releases, now.Releases} {
		for id := range releases {
			was, is := before.Releases[id], now.Releases[id]
			if was.Commit != is.Commit || was.Version != is.Version {
				c.reworded[id] = true
			}
		}
	}
	return c
}

// concern tells whether changes concern any device of a run.
func (c changes) concern(run *balena.Run) bool {
	return c.all || len(c.reworded) > 0 && slices.ContainsFunc(run.Releases, func(id int64) bool { return c.reworded[id] })
}

// list is the list of a filter.
type list struct {
	filter *filter
	asked  time.Time // when it was asked for last
	answer
	pieces []piece // of the page, by run
}

// piece is what is written of the devices of a run.
type piece struct {
	run *balena.Run
	sum uint64 // of the text, a hash with a seed
	// empty is set if the text is, and leads if it is the first that is not: no comma precedes it.
	empty, leads bool
}

var (
	layout = exposition.Layout{{Header: []byte("[")}}
	// seed makes hashes of texts which nobody can prepare to be alike.
	seed = maphash.MakeSeed()
)

// separator precedes each piece but the one that leads.
const separator = ",\n"

// tail ends a list.
func (a answer) tail() []byte {
	if a.page.TextBytes() == 0 {
		return []byte("[]\n")
	}
	return []byte("]\n")
}

// render makes the list of a view. What changed is said of the view before, if there was one.
func (l *list) render(w *writer, v *view, changed changes) {
	page := exposition.NewBuilder(layout, l.page)
	before := l.pieces
	pieces := make([]piece, 0, len(before))
	same, leads := l.page != nil, true
	var text []byte
	write := func(run *balena.Run) {
		text = text[:0]
		for _, d := range run.Devices {
			text = w.appendDevice(text, v, d, l.filter)
		}
	}
	numbers := make(map[int64]int, len(before)) // of the pieces before, by the ID of their first device
	for number := range before {
		numbers[before[number].run.Devices[0].ID] = number
	}
	for _, run := range v.Devices.Runs() {
		var was piece
		number, known := numbers[run.Devices[0].ID]
		if known {
			was = before[number]
		}
		is := piece{run: run, sum: was.sum, empty: was.empty}
		written := was.run != run || changed.concern(run)
		if written {
			write(run)
			is.sum, is.empty = maphash.Bytes(seed, text), len(text) == 0
		}
		is.leads = leads && !is.empty
		leads = leads && is.empty
		if known && is.sum == was.sum && is.leads == was.leads {
			page.Keep(0, number)
		} else {
			same = false
			if !written {
				write(run)
			}
			if !is.empty && !is.leads {
				text = slices.Insert(text, 0, []byte(separator)...)
			}
			page.Add(0, text)
		}
		pieces = append(pieces, is)
	}
	l.pieces = pieces
	if same && len(pieces) == len(before) {
		return // all pieces were kept, in their places: their order depends on the IDs alone
	}
	l.answer = answer{page.Page(), fmt.Sprintf(`W/"%016x"`, rand.Uint64())}
}
