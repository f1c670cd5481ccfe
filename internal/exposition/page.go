package exposition

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"io"

	"github.com/klauspost/compress/flate"
)

// fragmentText is the least text, in bytes, that is worth a fragment of its own.
// Every fragment starts without history and with Huffman codes of its own, which
// costs 1 % of the compressed bytes at 16 KiB, 4 % at 8 KiB, and nothing that counts
// from here on. Shorter chunks wait for the next ones of their family, and at the
// end for those of the next families, so that hundreds of small families share a
// few fragments.
const fragmentText = 32 << 10

// compressionLevel is the fastest one. On exposition text the levels above it cost
// up to ten times the CPU and save three percent of the bytes at best.
const compressionLevel = flate.BestSpeed

// A Page is one immutable exposition: the text of all families, compressed.
// A nil *Page is an empty one.
type Page struct {
	fragments  []fragment
	crc        uint32
	text       int64
	compressed int64
}

// TextBytes returns the length of the page's text in bytes.
func (p *Page) TextBytes() int64 {
	if p == nil {
		return 0
	}
	return p.text
}

// CompressedBytes returns the length in bytes of what the page keeps in memory
// and sends to a client that accepts gzip. Bytes shared with other pages count.
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
	return len(p.fragments)
}

func (p *Page) add(f fragment) {
	p.fragments = append(p.fragments, f)
	p.crc = combine(p.crc, f.crc, f.length)
	p.text += int64(f.length)
	p.compressed += int64(len(f.deflate))
}

// writeDeflate writes the page as a deflate stream without its final block.
// An error ends it, and stays in w.
func (p *Page) writeDeflate(w *bufio.Writer) {
	for _, f := range p.fragments {
		if _, err := w.Write(f.deflate); err != nil {
			return
		}
	}
}

// writeText writes the page's text. An error ends it, and stays in w.
func (p *Page) writeText(w *bufio.Writer) {
	inflater := flate.NewReader(bufio.NewReader(&deflateReader{fragments: p.fragments}))
	defer inflater.Close()
	// No other errors than w's: what is inflated was made here, and is in memory.
	_, _ = io.Copy(w, inflater)
}

// gzipHeader starts a gzip member without name and time; see RFC 1952, section 2.3.
var gzipHeader = []byte{
	0x1f, 0x8b, // magic number
	8,          // deflate
	0,          // no flags
	0, 0, 0, 0, // no modification time
	4,   // compressed with the fastest algorithm
	255, // unknown operating system
}

// writeTail writes what follows the page's fragments in a gzip member that ends
// with the live text: that text as the final deflate blocks, and the trailer.
func (p *Page) writeTail(w *bytes.Buffer, live []byte) {
	// The stateless compressor saves each scrape the better one's tables (1 MB).
	mustWrite(0, flate.StatelessDeflate(w, live, true, nil))
	var trailer [8]byte
	binary.LittleEndian.PutUint32(trailer[:4], crc32.Update(p.crc, crc32.IEEETable, live))
	binary.LittleEndian.PutUint32(trailer[4:], uint32(p.text+int64(len(live)))) // modulo 2^32, as defined
	w.Write(trailer[:])
}

// A fragment is a part of a page's text as deflate blocks. They end at the
// boundary of a byte, are not final, and refer to no text before them.
type fragment struct {
	identity
	deflate []byte
}

// An identity stands for a text: two texts of the same identity are equal.
type identity struct {
	hash   uint64
	crc    uint32
	length int
}

// seed makes the hashes unpredictable. Fragments outlive the Builder that made
// them, so all Builders of a process need the same.
var seed = maphash.MakeSeed()

// A Builder makes a Page. It is not safe for concurrent use.
type Builder struct {
	families   []family
	known      map[identity][]byte // the previous page's fragments
	hash       maphash.Hash
	compressor *flate.Writer
	buffer     bytes.Buffer
}

type family struct {
	fragments []fragment
	pending   []byte // text too short for a fragment
}

// NewBuilder returns a Builder for a page of the given number of families, or of
// whatever else has a fixed order. Fragments of the previous page, which may be
// nil, are used again where the text is the same.
func NewBuilder(families int, previous *Page) *Builder {
	b := &Builder{
		families: make([]family, families),
		known:    make(map[identity][]byte, previous.Fragments()),
	}
	if previous != nil {
		for _, f := range previous.fragments {
			b.known[f.identity] = f.deflate
		}
	}
	b.hash.SetSeed(seed)
	compressor, err := flate.NewWriter(&b.buffer, compressionLevel)
	if err != nil {
		panic(err) // for an unknown level only
	}
	b.compressor = compressor
	return b
}

// Append adds text to a family, which is an index below the number given to
// NewBuilder. Text is any number of complete lines of the text format 0.0.4, line
// feed included; it is not retained. Calls for different families may come in any
// order; what is appended to one family stays in that order.
//
// A chunk of 32 KiB or more becomes a fragment of its own, together with shorter
// ones before it. Callers that want unchanged fragments to be found again cut
// their data at places that do not move when a part of it changes.
func (b *Builder) Append(family int, text []byte) {
	f := &b.families[family]
	if len(f.pending)+len(text) < fragmentText {
		f.pending = append(f.pending, text...)
		return
	}
	f.fragments = append(f.fragments, b.fragment(f.pending, text))
	f.pending = f.pending[:0]
}

// Page returns the page of all that was appended, families in the order of their
// index. The Builder must not be used after that.
func (b *Builder) Page() *Page {
	page := &Page{}
	var short []byte // the ends of families, gathered to a fragment
	flush := func() {
		if len(short) > 0 {
			page.add(b.fragment(short))
			short = short[:0]
		}
	}
	for _, f := range b.families {
		if len(f.fragments) > 0 {
			flush()
		}
		for _, fragment := range f.fragments {
			page.add(fragment)
		}
		short = append(short, f.pending...)
		if len(short) >= fragmentText {
			flush()
		}
	}
	flush()
	*b = Builder{} // a mistaken later call fails at once
	return page
}

// fragment returns the fragment of the text that consists of the given parts,
// compressing it unless the previous page has it.
func (b *Builder) fragment(parts ...[]byte) fragment {
	var id identity
	b.hash.Reset()
	for _, text := range parts {
		b.hash.Write(text)
		id.crc = crc32.Update(id.crc, crc32.IEEETable, text)
		id.length += len(text)
	}
	id.hash = b.hash.Sum64()
	if deflate, ok := b.known[id]; ok {
		return fragment{id, deflate}
	}

	b.buffer.Reset()
	b.compressor.Reset(&b.buffer)
	for _, text := range parts {
		mustWrite(b.compressor.Write(text))
	}
	mustWrite(0, b.compressor.Flush())
	return fragment{id, bytes.Clone(b.buffer.Bytes())} // without the buffer's spare room
}

// mustWrite is for writes into a bytes.Buffer, which do not fail.
func mustWrite(_ int, err error) {
	if err != nil {
		panic(fmt.Sprintf("exposition: compressing into memory: %v", err))
	}
}

// A deflateReader reads fragments, one after the other, as one finished deflate stream.
type deflateReader struct {
	fragments []fragment
	rest      []byte // of the fragment being read
	finished  bool
}

// finalBlock is an empty deflate block marked as the last one.
var finalBlock = []byte{0x03, 0x00}

func (r *deflateReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		switch {
		case len(r.fragments) > 0:
			r.rest, r.fragments = r.fragments[0].deflate, r.fragments[1:]
		case !r.finished:
			r.rest, r.finished = finalBlock, true
		default:
			return 0, io.EOF
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
