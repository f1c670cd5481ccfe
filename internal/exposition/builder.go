// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"slices"

	"github.com/klauspost/compress/flate"
)

// fragmentText is the minimum length, in bytes, of appended text in a separate fragment.
// Each fragment has separate Huffman codes and no history, which costs 4 % of the compressed
// bytes at 8 KiB, 1 % at 16 KiB, and less for longer text. Shorter text is buffered until
// more text of its family follows, or joined with the text of the next families.
const fragmentText = 32 << 10

// Most text is compressed at the fastest level. The next levels need more CPU and save only
// one or two percent of the bytes. thoroughLevel needs twice the CPU and saves 5 % of most
// text, and 13 % of text with many labels. It is used for the longest pieces, which the
// caller creates from text that rarely changes.
const (
	fastLevel     = flate.BestSpeed
	thoroughLevel = 5
	longPiece     = 96 << 10 // bytes
)

// A Layout describes the families of a page, in the order of the page.
type Layout []Family

// A Family describes a family without its samples.
type Family struct {
	// Header contains the lines # HELP and # TYPE. It is omitted for a family without samples.
	Header []byte
	// Group is the name of a group of families that a scrape can request; see [Selection].
	Group string
}

func (l Layout) equal(other Layout) bool {
	return slices.EqualFunc(l, other, func(a, b Family) bool { return bytes.Equal(a.Header, b.Header) && a.Group == b.Group })
}

// A Builder builds a Page. Families are identified by their index in the Layout. Lines are
// complete lines of the text format 0.0.4 with line feeds, and are not retained. A family
// has either appended lines or pieces. Calls for different families may be in any order. A
// Builder is not safe for concurrent use.
type Builder struct {
	page        *Page
	previous    *Page
	families    []family
	sections    int // number of complete sections
	hash        maphash.Hash
	compressors map[int]*flate.Writer // by level; created on first use
	buffer      bytes.Buffer
}

type family struct {
	appended []fragment
	pending  []byte // header and appended text that is too short for a fragment
	pieces   []fragment
	sections []int // ends of the pieces in each section
}

// seed makes the hashes unpredictable. All Builders of a process share it, because pages
// share fragments.
var seed = maphash.MakeSeed()

// NewBuilder returns a Builder of a page that shares the memory of equal fragments with the
// previous page, which may be nil.
func NewBuilder(layout Layout, previous *Page) *Builder {
	if previous == nil {
		previous = emptyPage
	}
	b := &Builder{
		page:        &Page{layout: layout, appended: make(map[identity]fragment, len(previous.appended))},
		previous:    previous,
		families:    make([]family, len(layout)),
		compressors: map[int]*flate.Writer{},
	}
	if layout.equal(previous.layout) {
		for i, pieces := range previous.pieces {
			b.families[i].pieces = make([]fragment, 0, len(pieces))
		}
	} else {
		b.previous = &Page{appended: previous.appended} // its pieces belong to other families
	}
	b.hash.SetSeed(seed)
	return b
}

// Append adds lines to a family. Appended lines keep their order.
//
// Short text is buffered, even across families. Text of 32 KiB or more becomes a fragment,
// which is not compressed again if the previous page has a fragment of the same text. Use
// Append for families that are short, or that change as a whole.
func (b *Builder) Append(family int, lines []byte) {
	if len(lines) == 0 {
		return
	}
	f := &b.families[family]
	if len(f.appended) == 0 && len(f.pending) == 0 {
		f.pending = append(f.pending, b.page.layout[family].Header...)
	}
	if len(f.pending)+len(lines) < fragmentText {
		f.pending = append(f.pending, lines...)
		return
	}
	f.appended = append(f.appended, b.fragment(f.pending, lines))
	f.pending = f.pending[:0]
}

// Add adds a piece to a family. The lines, possibly none, become a separate fragment. The
// pieces of a family are numbered from 0 in the order in which they are added. A piece of
// 96 KiB or more is compressed better, but slower.
func (b *Builder) Add(family int, lines []byte) {
	var piece fragment
	if len(lines) > 0 {
		level := fastLevel
		if len(lines) >= longPiece {
			level = thoroughLevel
		}
		piece = b.compress(level, crc32.ChecksumIEEE(lines), lines)
	}
	b.put(family, piece)
}

// Keep adds the piece of a family with a number from the previous page, which is not
// compressed again. It panics if the previous page has no such piece, or has another Layout.
func (b *Builder) Keep(family, number int) { b.put(family, b.previous.pieces[family][number]) }

func (b *Builder) put(number int, piece fragment) {
	f := &b.families[number]
	for len(f.sections) <= b.sections {
		f.sections = append(f.sections, len(f.pieces))
	}
	f.pieces = append(f.pieces, piece)
	f.sections[b.sections]++
}

// EndSection ends a section of the page. Pieces that are added afterwards, of any family, belong to the next
// section. A page without calls of EndSection has one section. See [Selection].
func (b *Builder) EndSection() { b.sections++ }

// Page returns the finished page, with the families in the order of their index.
// The Builder must not be used afterwards.
func (b *Builder) Page() *Page {
	page := b.page
	group := ""
	var short []byte // the ends of families of this group, which form a fragment
	flush := func() {
		if len(short) > 0 {
			page.put(block{group: group, section: once, list: []fragment{b.fragment(short)}})
			short = short[:0]
		}
	}
	page.pieces = make([][]fragment, len(b.families))
	for i, f := range b.families {
		if page.layout[i].Group != group {
			flush()
			group = page.layout[i].Group
		}
		page.pieces[i] = f.pieces
		if len(f.appended) > 0 {
			flush()
			page.put(block{group: group, section: once, list: f.appended})
		}
		short = append(short, f.pending...)
		if slices.ContainsFunc(f.pieces, func(piece fragment) bool { return piece.length > 0 }) {
			flush()
			page.put(block{group: group, section: header, list: []fragment{b.fragment(page.layout[i].Header)}})
			begin := 0
			for number, end := range f.sections {
				page.put(block{group: group, section: number, list: f.pieces[begin:end]})
				begin = end
			}
		}
		if len(short) >= fragmentText {
			flush()
		}
	}
	flush()
	page.sections = b.sections + 1
	*b = Builder{} // later calls panic
	return page
}

// fragment returns the fragment of the given parts of appended text. It compresses the text
// unless the previous page has it.
func (b *Builder) fragment(parts ...[]byte) fragment {
	var id identity
	b.hash.Reset()
	for _, text := range parts {
		b.hash.Write(text)
		id.crc = crc32.Update(id.crc, crc32.IEEETable, text)
		id.length += len(text)
	}
	id.hash = b.hash.Sum64()
	f, known := b.previous.appended[id]
	if !known {
		f = b.compress(fastLevel, id.crc, parts...)
	}
	b.page.appended[id] = f
	return f
}

// compress returns the compressed fragment of the given parts.
func (b *Builder) compress(level int, crc uint32, parts ...[]byte) fragment {
	compressor := b.compressors[level]
	if compressor == nil {
		var err error
		if compressor, err = flate.NewWriter(nil, level); err != nil {
			panic(err) // the level is invalid
		}
		b.compressors[level] = compressor
	}
	b.buffer.Reset()
	compressor.Reset(&b.buffer)
	length := 0
	for _, text := range parts {
		mustWrite(compressor.Write(text))
		length += len(text)
	}
	mustWrite(0, compressor.Flush())
	return newFragment(b.buffer.Bytes(), crc, length)
}

// mustWrite checks a write to a bytes.Buffer, which does not fail.
func mustWrite(_ int, err error) {
	if err != nil {
		panic(fmt.Sprintf("exposition: compressing into memory: %v", err))
	}
}
