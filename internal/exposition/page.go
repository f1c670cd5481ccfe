// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"

	"github.com/klauspost/compress/flate"
)

// A Page is one immutable exposition: the text of all families, compressed.
type Page struct {
	excerpt // the whole text
	blocks  []block
	// sections is the number of sections.
	sections int

	// The Builder of the next page reuses these.
	layout   Layout
	appended map[identity]fragment
	pieces   [][]fragment // by family; a piece without lines is an empty fragment
}

// An excerpt is the compressed text of a response.
type excerpt struct {
	totals
	order [][]fragment // all fragments, in the order in which they are written
}

// A block is a sequence of fragments that are always served together.
type block struct {
	totals
	list    []fragment
	shift   uint32 // shift(text)
	group   string
	section int // or once, or header
}

// These values mark blocks that belong to no section.
const (
	// once marks a block that is only in the first part.
	once = -1
	// header marks the header of a family. Every part with pieces of the family has it.
	header = -2
)

// TextBytes returns the length of the page's text in bytes.
func (p *Page) TextBytes() int64 { return p.text }

// CompressedBytes returns the length of the compressed page in bytes, including bytes that
// it shares with other pages.
func (p *Page) CompressedBytes() int64 { return p.compressed }

// put adds a block to the end of the page, unless it has no text.
func (p *Page) put(b block) {
	for _, f := range b.list {
		b.add(f)
	}
	if b.text == 0 {
		return
	}
	b.shift = shift(b.text)
	p.blocks = append(p.blocks, b)
	p.join(&b)
}

// join adds a block at the end.
func (e *excerpt) join(b *block) {
	e.order = append(e.order, b.list)
	e.crc = multiply(e.crc, b.shift) ^ b.crc
	e.text += b.text
	e.compressed += b.compressed
}

// selected returns the selected text of the page. It shares the page's fragments.
func (p *Page) selected(s *Selection) excerpt {
	if s.everything() {
		return p.excerpt
	}
	first, end := 0, p.sections
	if s.Parts > 1 {
		first, end = s.Part*p.sections/s.Parts, (s.Part+1)*p.sections/s.Parts
	}
	var e excerpt
	var title *block // the header of the current family, until it is written
	for i := range p.blocks {
		b := &p.blocks[i]
		switch {
		case !s.has(b.group):
		case b.section == header:
			title = b
		case b.section == once && first == 0:
			e.join(b)
		case b.section >= first && b.section < end:
			if title != nil {
				e.join(title)
				title = nil
			}
			e.join(b)
		}
	}
	return e
}

// writeDeflate writes the text as a deflate stream without its final block.
// It stops at an error, which w keeps.
func (e *excerpt) writeDeflate(w *bufio.Writer) {
	for _, fragments := range e.order {
		for i := range fragments {
			if _, err := w.WriteString(fragments[i].deflate); err != nil {
				return
			}
		}
	}
}

// writeText writes the text. It stops at an error, which w keeps.
func (e *excerpt) writeText(w *bufio.Writer) {
	var deflate strings.Reader
	inflater := flate.NewReader(&deflate)
	defer inflater.Close()
	for _, fragments := range e.order {
		for i := range fragments {
			deflate.Reset(fragments[i].deflate)
			_ = inflater.(flate.Resetter).Reset(&deflate, nil) // never fails
			// A fragment has no final block, so the inflater does not expect its end.
			if _, err := io.Copy(w, inflater); !errors.Is(err, io.ErrUnexpectedEOF) {
				return
			}
		}
	}
}

// gzipHeader begins a gzip member without name and time; see RFC 1952, section 2.3.
var gzipHeader = []byte{
	0x1f, 0x8b, // magic number
	8,          // deflate
	0,          // no flags
	0, 0, 0, 0, // no modification time
	4,   // compressed with the fastest algorithm
	255, // unknown operating system
}

// writeTail writes the end of a gzip member, after the fragments: the live text as
// the final deflate blocks, and the trailer.
func (e *excerpt) writeTail(w *bytes.Buffer, live []byte) {
	// The stateless compressor needs no tables. Those of flate.Writer take 1 MB per scrape.
	mustWrite(0, flate.StatelessDeflate(w, live, true, nil))
	var trailer [8]byte
	binary.LittleEndian.PutUint32(trailer[:4], crc32.Update(e.crc, crc32.IEEETable, live))
	binary.LittleEndian.PutUint32(trailer[4:], uint32(e.text+int64(len(live)))) // modulo 2^32, as RFC 1952 defines it
	w.Write(trailer[:])
}

// A fragment is a part of a page's text as deflate blocks. They end at the
// boundary of a byte, are not final, and refer to no text before them. A page has tens of
// thousands of fragments, so the blocks are a string: it is a word shorter than a slice.
type fragment struct {
	deflate string
	crc     uint32 // of the text
	length  uint32 // of the text
	shift   uint32 // shift(length)
}

// newFragment copies the deflate blocks, so that the fragment does not retain a larger buffer.
func newFragment(deflated []byte, crc uint32, length int) fragment {
	return fragment{string(deflated), crc, uint32(length), shift(int64(length))}
}

// totals describe the text that consecutive fragments form.
type totals struct {
	crc        uint32
	text       int64
	compressed int64
}

func (t *totals) add(f fragment) {
	if f.length == 0 {
		return
	}
	t.crc = multiply(t.crc, f.shift) ^ f.crc
	t.text += int64(f.length)
	t.compressed += int64(len(f.deflate))
}

// An identity identifies a text. Texts with the same identity are considered equal.
type identity struct {
	hash   uint64
	crc    uint32
	length int
}
