// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"math"
	"slices"
	"sync"
)

// Row contains the fields of the rows of all resources.
type Row struct {
	// ID is the primary key. If it is 0, [Table.Add] sets it.
	ID int `json:"id"`
	// CreatedAt and ModifiedAt are set by the server. [Simulator.Update] sets ModifiedAt of changed rows, unless the update sets
	// it. An earlier time simulates a transaction that took long.
	CreatedAt  Time `json:"created_at"`
	ModifiedAt Time `json:"modified_at"`
}

// rowAt returns the common fields of a row that was created at a time.
func rowAt(t Time) Row { return Row{CreatedAt: t, ModifiedAt: t} }

func (r *Row) meta() *Row { return r }

// A row is a pointer to one of the row types.
type row interface{ meta() *Row }

// rowPointer is the constraint of pointers to row types.
type rowPointer[R any] interface {
	*R
	row
}

// Table contains the rows of a resource by ascending id.
type Table[R comparable, P rowPointer[R]] struct {
	rows   []P
	lastID int // the highest id ever used
	// before contains copies of the rows that an update may change, from which commit finds changed rows.
	before map[P]R
	now    Time // when the update began

	mu    sync.Mutex // guards index, which readers build
	index map[string]*index[P]
}

// Get returns the row with the id, or nil. Its fields may be set during an update.
func (t *Table[R, P]) Get(id int) P {
	if i, ok := t.search(id); ok {
		return t.touch(t.rows[i])
	}
	return nil
}

// All returns all rows by ascending id. Their fields may be set during an update.
func (t *Table[R, P]) All() []P {
	for _, p := range t.rows {
		t.touch(p)
	}
	return slices.Clone(t.rows)
}

// Len returns the number of rows.
func (t *Table[R, P]) Len() int { return len(t.rows) }

// Add inserts a row and returns the stored row. It sets ID, CreatedAt and ModifiedAt if they are zero, and replaces a row with
// the same id.
func (t *Table[R, P]) Add(r R) P {
	p := P(&r)
	m := p.meta()
	m.CreatedAt, m.ModifiedAt = cmp.Or(m.CreatedAt, t.now), cmp.Or(m.ModifiedAt, t.now)
	t.insert(p)
	return p
}

func (t *Table[R, P]) nextID() int { return t.lastID + 1 }

// insert inserts or replaces a row. It sets ID if it is 0.
func (t *Table[R, P]) insert(p P) {
	m := p.meta()
	m.ID = cmp.Or(m.ID, t.nextID())
	t.lastID = max(t.lastID, m.ID)
	if i, ok := t.search(m.ID); ok {
		t.rows[i] = p
	} else {
		t.rows = slices.Insert(t.rows, i, p)
	}
	t.forget()
}

// Delete removes the row with the id. The id is not reused.
func (t *Table[R, P]) Delete(id int) {
	t.DeleteFunc(func(p P) bool { return p.meta().ID == id })
}

// DeleteFunc removes the rows for which remove returns true.
func (t *Table[R, P]) DeleteFunc(remove func(P) bool) {
	t.rows = slices.DeleteFunc(t.rows, remove)
	t.forget()
}

func (t *Table[R, P]) touch(p P) P {
	if t.before != nil {
		if _, ok := t.before[p]; !ok {
			t.before[p] = *p
		}
	}
	return p
}

// begin begins an update.
func (t *Table[R, P]) begin(now Time) { t.before, t.now = make(map[P]R), now }

// commit ends an update.
func (t *Table[R, P]) commit() {
	for p, before := range t.before {
		t.settle(p, &before, t.now)
	}
	t.before = nil
}

// each changes rows in place.
func (t *Table[R, P]) each(now Time, change func(P)) {
	var before R
	for _, p := range t.rows {
		before = *p
		change(p)
		t.settle(p, &before, now)
	}
}

// settle ends the change of a row. It sets ModifiedAt, unless the row did not change or the change set it, and drops the indexes
// if a foreign key changed.
func (t *Table[R, P]) settle(p, before P, now Time) {
	if *p == *before {
		return
	}
	if m := p.meta(); m.ModifiedAt == before.meta().ModifiedAt {
		m.ModifiedAt = now
	}
	for _, x := range t.index {
		if x.key(before) != x.key(p) {
			t.forget()
			return
		}
	}
}

// forget drops the indexes of foreign keys.
func (t *Table[R, P]) forget() {
	t.mu.Lock()
	t.index = nil
	t.mu.Unlock()
}

// copyFrom fills an empty table with copies of the rows of another table of the same type.
func (t *Table[R, P]) copyFrom(other relation) {
	from := other.(*Table[R, P])
	t.lastID, t.rows = from.lastID, make([]P, len(from.rows))
	slab := make([]R, len(from.rows))
	for i, p := range from.rows {
		slab[i] = *p
		t.rows[i] = &slab[i]
	}
}

// search returns the index of the first row whose id is at least id, and whether it is the row with the id.
func (t *Table[R, P]) search(id int) (int, bool) {
	// Ids usually have no gaps.
	if n := len(t.rows); n > 0 {
		if first := t.rows[0].meta().ID; id >= first && id-first < n && t.rows[id-first].meta().ID == id {
			return id - first, true
		}
		if id > t.rows[n-1].meta().ID {
			return n, false
		}
	}
	return slices.BinarySearchFunc(t.rows, id, func(p P, id int) int { return cmp.Compare(p.meta().ID, id) })
}

// relation is the interface of tables with any rows.
type relation interface {
	begin(now Time)
	commit()
	copyFrom(other relation)
	Len() int
	search(id int) (int, bool)
	at(i int) row
	find(id int) row
	referrers(rows []row, name string, key func(row) int, id int) []row
}

func (t *Table[R, P]) at(i int) row { return t.rows[i] }

// find returns the row with the id for reading, or a nil interface.
func (t *Table[R, P]) find(id int) row {
	if i, ok := t.search(id); ok {
		return t.rows[i]
	}
	return nil
}

// referrers appends the rows whose foreign key is id. name identifies the index, and key returns the foreign key of a row.
func (t *Table[R, P]) referrers(rows []row, name string, key func(row) int, id int) []row {
	for _, p := range t.by(name, key, id) {
		rows = append(rows, p)
	}
	return rows
}

// by returns the rows whose foreign key is id, like referrers.
func (t *Table[R, P]) by(name string, key func(row) int, id int) []P {
	t.mu.Lock()
	defer t.mu.Unlock()
	x, ok := t.index[name]
	if !ok {
		x = newIndex(t.rows, key)
		if t.index == nil {
			t.index = make(map[string]*index[P])
		}
		t.index[name] = x
	}
	return x.of(id)
}

// An index contains the rows of a table by a foreign key. It is built by counting sort, because it is rebuilt after each row
// that is added, removed or gets another foreign key.
type index[P row] struct {
	key    func(row) int
	starts []int32 // the rows of id are sorted[starts[id]:starts[id+1]]
	sorted []P
	sparse map[int][]P // replaces starts and sorted if ids are sparse
}

func newIndex[P row](rows []P, key func(row) int) *index[P] {
	last := 0
	for _, r := range rows {
		id := key(r)
		last = max(last, id)
		if id < 0 {
			last = math.MaxInt
			break
		}
	}
	x := &index[P]{key: key}
	if last > 4*len(rows)+1000 && last > 1<<20 {
		x.sparse = make(map[int][]P)
		for _, r := range rows {
			x.sparse[key(r)] = append(x.sparse[key(r)], r)
		}
		return x
	}
	// The counts are shifted by one. The last pass advances the starts to their final values.
	x.starts, x.sorted = make([]int32, last+3), make([]P, len(rows))
	for _, r := range rows {
		x.starts[key(r)+2]++
	}
	for id := range last + 2 {
		x.starts[id+1] += x.starts[id]
	}
	for _, r := range rows {
		next := &x.starts[key(r)+1]
		x.sorted[*next] = r
		*next++
	}
	return x
}

func (x *index[P]) of(id int) []P {
	if x.sparse != nil {
		return x.sparse[id]
	}
	if id < 0 || id+1 >= len(x.starts) {
		return nil
	}
	return x.sorted[x.starts[id]:x.starts[id+1]]
}
