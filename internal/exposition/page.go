package exposition

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"io"
	"slices"

	"github.com/klauspost/compress/flate"
)

// fragmentText is the least appended text, in bytes, that is worth a fragment of its
// own. Every fragment starts without history and with Huffman codes of its own, which
// costs 1 % of the compressed bytes at 16 KiB, 4 % at 8 KiB, and nothing that counts
// from here on. Shorter chunks wait for the next ones of their family, and at the
// end for those of the next families, so that hundreds of small families share a
// few fragments. What a run has to say of a family is a fragment whatever its length:
// it costs some bytes more, and is all there is to do when nothing else changes.
const fragmentText = 32 << 10

// compressionLevel is the fastest one. On exposition text the levels above it cost
// up to ten times the CPU and save three percent of the bytes at best.
const compressionLevel = flate.BestSpeed

// A Page is one immutable exposition: the text of all families, compressed.
// A nil *Page is an empty one.
type Page struct {
	totals
	order [][]fragment // all that is to be written, and how it is: one after the other

	// What a later page is built from.
	layout   Layout
	appended map[identity]fragment
	runs     map[any]int  // by key, the index in each of the columns
	columns  [][]fragment // of all runs, by family from layout.RunsFrom; without deflate where a run says nothing
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
	return p.fragments
}

// put adds fragments to the end of the page, the totals of which are known.
func (p *Page) put(fragments []fragment, t totals) {
	p.order = append(p.order, fragments)
	p.join(t)
}

// writeDeflate writes the page as a deflate stream without its final block.
// An error ends it, and stays in w.
func (p *Page) writeDeflate(w *bufio.Writer) {
	for _, fragments := range p.order {
		for i := range fragments {
			if _, err := w.WriteString(fragments[i].deflate); err != nil {
				return
			}
		}
	}
}

// writeText writes the page's text. An error ends it, and stays in w.
func (p *Page) writeText(w *bufio.Writer) {
	inflater := flate.NewReader(bufio.NewReader(&deflateReader{order: p.order}))
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
// boundary of a byte, are not final, and refer to no text before them. There are
// tens of thousands in a page: a string is a word less than a slice.
type fragment struct {
	deflate string
	crc     uint32 // of the text
	length  uint32 // of the text
	shift   uint32 // of that length, see there
}

// newFragment copies what is deflated, and so keeps nothing of a buffer's spare room.
func newFragment(deflated []byte, crc uint32, length int) fragment {
	return fragment{string(deflated), crc, uint32(length), shift(int64(length))}
}

// totals are of the text that fragments make, one behind the other.
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

// join adds the totals of what follows.
func (t *totals) join(next totals) {
	t.fragments += next.fragments
	t.crc = combine(t.crc, next.crc, next.text)
	t.text += next.text
	t.compressed += next.compressed
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

// A Layout says what families a page has.
type Layout struct {
	// Headers are the lines (# HELP, # TYPE) that begin each family, in the order of
	// the page. A family without samples is not written, header included.
	Headers [][]byte

	// RunsFrom and RunsTo bound the families that runs have something to say of: those
	// from RunsFrom up to, not including, RunsTo.
	RunsFrom, RunsTo int
}

func (l Layout) equal(other Layout) bool {
	return l.RunsFrom == other.RunsFrom && l.RunsTo == other.RunsTo && slices.EqualFunc(l.Headers, other.Headers, bytes.Equal)
}

// A Builder makes a Page. It is not safe for concurrent use.
type Builder struct {
	page       *Page
	previous   *Page
	families   []family
	hash       maphash.Hash
	deflater   deflater      // for what runs have to say
	compressor *flate.Writer // for the rest; nil until there is something to compress
	buffer     bytes.Buffer
}

type family struct {
	appended []fragment
	pending  []byte // appended text too short for a fragment, after the header
	runs     []fragment
	ofRuns   totals
}

// NewBuilder returns a Builder for a page that is like the previous one in most of
// its text; what is the same is shared with it. The previous page may be nil.
func NewBuilder(layout Layout, previous *Page) *Builder {
	if previous == nil {
		previous = emptyPage
	}
	b := &Builder{
		page: &Page{
			layout:   layout,
			appended: make(map[identity]fragment, len(previous.appended)),
			runs:     make(map[any]int, len(previous.runs)),
		},
		previous: previous,
		families: make([]family, len(layout.Headers)),
	}
	if layout.equal(previous.layout) {
		for i, column := range previous.columns {
			b.families[layout.RunsFrom+i].runs = make([]fragment, 0, len(column))
		}
	} else {
		b.previous = &Page{appended: previous.appended} // its runs are about other families
	}
	b.hash.SetSeed(seed)
	return b
}

// Append adds lines to a family, which is an index of Layout.Headers. They are any
// number of complete lines of the text format 0.0.4, line feed included, and not
// retained. Calls for different families may come in any order; what is appended to
// one family stays in that order, before what runs have to say of it.
//
// Short chunks are gathered, even across families; 32 KiB or more become a fragment,
// which is not compressed again if the previous page has one of the same text. This
// is for families that are short, or change as a whole.
func (b *Builder) Append(family int, lines []byte) {
	if len(lines) == 0 {
		return
	}
	f := &b.families[family]
	if len(f.appended) == 0 && len(f.pending) == 0 {
		f.pending = append(f.pending, b.page.layout.Headers[family]...)
	}
	if len(f.pending)+len(lines) < fragmentText {
		f.pending = append(f.pending, lines...)
		return
	}
	f.appended = append(f.appended, b.fragment(f.pending, lines))
	f.pending = f.pending[:0]
}

// Run adds a run: things that follow each other, in all families from
// Layout.RunsFrom to RunsTo. Runs stand in the order in which they are added.
//
// A page made later may refer to the run by its key, a comparable value. The page
// holds it for as long as the slowest scraper holds the page. before is the key under
// which the previous page has the run, as it was then; nil if it has not. Of a run
// that the previous page has, whatever changed denies is taken over from there; of
// others changed is not asked. lines returns the run's lines of a family, possibly
// none, valid until the next call.
func (b *Builder) Run(key, before any, changed func(family int) bool, lines func(family int) []byte) {
	from, to := b.page.layout.RunsFrom, b.page.layout.RunsTo
	if from == to {
		return
	}
	b.page.runs[key] = len(b.families[from].runs)
	old, known := b.previous.runs[before]
	known = known && before != nil
	for i := from; i < to; i++ {
		var f fragment
		if known && !changed(i) {
			f = b.previous.columns[i-from][old]
		} else if text := lines(i); len(text) > 0 {
			f = b.compressRun(text)
		}
		b.families[i].runs = append(b.families[i].runs, f)
		b.families[i].ofRuns.add(f)
	}
}

// Page returns the page of all that was added, families in the order of their index.
// The Builder must not be used after that.
func (b *Builder) Page() *Page {
	page := b.page
	put := func(fragments ...fragment) {
		var t totals
		for _, f := range fragments {
			t.add(f)
		}
		page.put(fragments, t)
	}
	var short []byte // the ends of families, gathered to a fragment
	flush := func() {
		if len(short) > 0 {
			put(b.fragment(short))
			short = short[:0]
		}
	}
	for i, f := range b.families {
		if len(f.appended) > 0 {
			flush()
			put(f.appended...)
		}
		short = append(short, f.pending...)
		if f.ofRuns.text > 0 {
			if len(f.appended) == 0 && len(f.pending) == 0 {
				short = append(short, page.layout.Headers[i]...)
			}
			flush()
			page.put(f.runs, f.ofRuns)
		}
		if len(short) >= fragmentText {
			flush()
		}
	}
	flush()
	for _, f := range b.families[page.layout.RunsFrom:page.layout.RunsTo] {
		page.columns = append(page.columns, f.runs)
	}
	*b = Builder{} // a mistaken later call fails at once
	return page
}

// fragment returns the fragment of appended text that consists of the given parts,
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
	f, known := b.previous.appended[id]
	if !known {
		f = b.compress(id.crc, parts...)
	}
	b.page.appended[id] = f
	return f
}

// compress returns the fragment of the text that consists of the given parts.
func (b *Builder) compress(crc uint32, parts ...[]byte) fragment {
	if b.compressor == nil {
		compressor, err := flate.NewWriter(nil, compressionLevel)
		if err != nil {
			panic(err) // for an unknown level only
		}
		b.compressor = compressor
	}
	b.buffer.Reset()
	b.compressor.Reset(&b.buffer)
	length := 0
	for _, text := range parts {
		mustWrite(b.compressor.Write(text))
		length += len(text)
	}
	mustWrite(0, b.compressor.Flush())
	return newFragment(b.buffer.Bytes(), crc, length)
}

// compressRun returns the fragment of what a run has to say of a family.
func (b *Builder) compressRun(text []byte) fragment {
	crc := crc32.ChecksumIEEE(text)
	if deflated := b.deflater.deflate(text); deflated != nil {
		return newFragment(deflated, crc, len(text))
	}
	return b.compress(crc, text)
}

// mustWrite is for writes into a bytes.Buffer, which do not fail.
func mustWrite(_ int, err error) {
	if err != nil {
		panic(fmt.Sprintf("exposition: compressing into memory: %v", err))
	}
}

// A deflateReader reads fragments, one after the other, as one finished deflate stream.
type deflateReader struct {
	order     [][]fragment
	fragments []fragment // the rest of those begun
	deflate   string     // the rest of the one begun
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
