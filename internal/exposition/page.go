// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"
)

// A Page is one immutable exposition: the text of all families, compressed.
// A nil *Page is an empty one.
type Page struct {
	totals
	order [][]fragment // all fragments, in the order in which they are written

	// The next page is built from these.
	layout   Layout
	appended map[identity]fragment
	pieces   [][]fragment // by family; a piece without lines is an empty fragment
}

// TextBytes returns the length of the page's text in bytes.
func (p *Page) TextBytes() int64 {
	if p == nil {
		return 0
	}
	return p.text
}

// CompressedBytes returns the length of the compressed page in bytes: what it keeps in
// memory and sends to a client that accepts gzip. Bytes shared with other pages count.
func (p *Page) CompressedBytes() int64 {
	if p == nil {
		return 0
	}
	return p.compressed
}

// Fragments returns the number of independently compressed parts of the page.
func (p *Page) Fragments() int {
	if p == nil {
		return 0
	}
	return p.fragments
}

// put adds fragments, whose totals are t, to the end of the page.
func (p *Page) put(fragments []fragment, t totals) {
	p.order = append(p.order, fragments)
	p.join(t)
}

// writeDeflate writes the page as a deflate stream without its final block.
// It stops at an error, which w keeps.
func (p *Page) writeDeflate(w *bufio.Writer) {
	for _, fragments := range p.order {
		for i := range fragments {
			if _, err := w.WriteString(fragments[i].deflate); err != nil {
				return
			}
		}
	}
}

// writeText writes the page's text. It stops at an error, which w keeps.
func (p *Page) writeText(w *bufio.Writer) {
	inflater := flate.NewReader(bufio.NewReader(&deflateReader{order: p.order}))
	defer inflater.Close()
	// Only w can fail: the compressed text was made by a Builder and is in memory.
	_, _ = io.Copy(w, inflater)
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

// writeTail writes the end of a gzip member, after the page's fragments: the live text as
// the final deflate blocks, and the trailer.
func (p *Page) writeTail(w *bytes.Buffer, live []byte) {
	// The stateless compressor needs no tables. Those of flate.Writer take 1 MB per scrape.
	mustWrite(0, flate.StatelessDeflate(w, live, true, nil))
	var trailer [8]byte
	binary.LittleEndian.PutUint32(trailer[:4], crc32.Update(p.crc, crc32.IEEETable, live))
	binary.LittleEndian.PutUint32(trailer[4:], uint32(p.text+int64(len(live)))) // modulo 2^32, as RFC 1952 defines it
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

// newFragment copies the deflate blocks, so that the fragment does not keep a larger buffer alive.
func newFragment(deflated []byte, crc uint32, length int) fragment {
	return fragment{string(deflated), crc, uint32(length), shift(int64(length))}
}

// totals describe the text that consecutive fragments form.
type totals struct {
	fragments  int
	crc        uint32
	text       int64
	compressed int64
}

func (t *totals) add(f fragment) {
	if f.length == 0 {
		return
	}
	t.fragments++
	t.crc = multiply(t.crc, f.shift) ^ f.crc
	t.text += int64(f.length)
	t.compressed += int64(len(f.deflate))
}

// join adds the totals of the text that follows.
func (t *totals) join(next totals) {
	t.fragments += next.fragments
	t.crc = combine(t.crc, next.crc, next.text)
	t.text += next.text
	t.compressed += next.compressed
}

// An identity identifies a text: two texts with the same identity are taken to be equal.
type identity struct {
	hash   uint64
	crc    uint32
	length int
}

// A deflateReader reads fragments, one after the other, as one finished deflate stream.
type deflateReader struct {
	order     [][]fragment
	fragments []fragment // the rest of the current element of order
	deflate   string     // the rest of the current fragment
	finished  bool
}

// finalBlock is an empty deflate block marked as the last one.
const finalBlock = "\x03\x00"

func (r *deflateReader) Read(p []byte) (int, error) {
	for r.deflate == "" {
		switch {
		case len(r.fragments) > 0:
			r.deflate, r.fragments = r.fragments[0].deflate, r.fragments[1:]
		case len(r.order) > 0:
			r.fragments, r.order = r.order[0], r.order[1:]
		case !r.finished:
			r.deflate, r.finished = finalBlock, true
		default:
			return 0, io.EOF
		}
	}
	n := copy(p, r.deflate)
	r.deflate = r.deflate[n:]
	return n, nil
}
