// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"bufio"
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// text returns the page's text, and checks that TextBytes is its length.
func text(t testing.TB, p *Page) string {
	t.Helper()
	text := inflated(t, &p.excerpt)
	if int64(len(text)) != p.TextBytes() {
		t.Fatalf("the page has %d bytes of text, TextBytes says %d", len(text), p.TextBytes())
	}
	return text
}

// inflated returns the text of an excerpt, and checks its totals.
func inflated(t testing.TB, e *excerpt) string {
	t.Helper()
	var b strings.Builder
	w := bufio.NewWriter(&b)
	e.writeText(w)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if crc := crc32.ChecksumIEEE([]byte(b.String())); int64(b.Len()) != e.totals.text || crc != e.crc {
		t.Fatalf("%d bytes of text with the CRC %08x, and the totals are %+v", b.Len(), crc, e.totals)
	}
	return b.String()
}

// lines returns n bytes of samples, different for each seed.
func lines(seed uint64, n int) []byte {
	random := rand.New(rand.NewPCG(seed, 0))
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, "sample{id=\"%d\"} %d\n", random.Uint32(), random.IntN(100))
	}
	b = b[:n]
	if n > 0 {
		b[n-1] = '\n'
	}
	return b
}

// bare returns a layout of families without headers.
func bare(families int) Layout { return make(Layout, families) }

func TestFamiliesStandInTheOrderOfTheirIndex(t *testing.T) {
	b := NewBuilder(bare(3), nil)
	b.Append(2, []byte("c 1\n"))
	b.Append(0, []byte("a 1\n"))
	b.Append(1, []byte("b 1\n"))
	b.Append(0, []byte("a 2\n"))
	b.Append(2, []byte("c 2\n"))
	if got, want := text(t, b.Page()), "a 1\na 2\nb 1\nc 1\nc 2\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAppendDoesNotRetainItsText(t *testing.T) {
	b := NewBuilder(bare(1), nil)
	var want []byte
	chunk := make([]byte, 0, 2*fragmentText)
	for i, length := range []int{10, fragmentText, 20, 2 * fragmentText, 30} {
		chunk = append(chunk[:0], lines(uint64(i), length)...)
		b.Append(0, chunk)
		want = append(want, chunk...)
		clear(chunk)
	}
	if got := text(t, b.Page()); got != string(want) {
		t.Error("the page changed with the buffer that was appended")
	}
}

func TestEmptyPages(t *testing.T) {
	untouched := NewBuilder(bare(5), nil)
	nothing := NewBuilder(bare(5), nil)
	nothing.Append(3, nil)
	for name, page := range map[string]*Page{
		"nothing appended":    untouched.Page(),
		"empty text appended": nothing.Page(),
		"no families":         NewBuilder(bare(0), nil).Page(),
	} {
		if page.TextBytes() != 0 || page.CompressedBytes() != 0 || len(fragments(page)) != 0 || text(t, page) != "" {
			t.Errorf("%s: not empty: %+v", name, page)
		}
	}
}

func TestSmallFamiliesShareAFragment(t *testing.T) {
	const families = 400
	b := NewBuilder(bare(families), nil)
	var want strings.Builder
	for i := range families {
		chunk := fmt.Sprintf("# TYPE metric_%d gauge\nmetric_%d %d\n", i, i, i)
		b.Append(i, []byte(chunk))
		want.WriteString(chunk)
	}
	page := b.Page()
	if got := text(t, page); got != want.String() {
		t.Error("the text is not what was appended")
	}
	if len(fragments(page)) != 1 {
		t.Errorf("%d bytes of %d families became %d fragments, want 1", want.Len(), families, len(fragments(page)))
	}
}

func TestAHeaderAndItsFirstChunkShareAFragment(t *testing.T) {
	b := NewBuilder(Layout{{Header: []byte("# TYPE sample gauge\n")}}, nil)
	b.Append(0, lines(1, fragmentText))
	b.Append(0, lines(2, fragmentText))
	if got := len(fragments(b.Page())); got != 2 {
		t.Errorf("got %d fragments, want 2", got)
	}
}

// fragments returns those of a page as they follow each other, without the empty ones of pieces without lines.
func fragments(p *Page) []fragment {
	return slices.DeleteFunc(slices.Concat(p.order...), func(f fragment) bool { return f.length == 0 })
}

func sameMemory(a, b fragment) bool {
	return unsafe.StringData(a.deflate) == unsafe.StringData(b.deflate)
}

func TestUnchangedFragmentsAreTheSameMemory(t *testing.T) {
	const families, runs = 4, 5
	build := func(previous *Page, seed func(family, run int) uint64) *Page {
		b := NewBuilder(bare(families), previous)
		for run := range runs {
			for family := range families {
				b.Append(family, lines(seed(family, run), fragmentText+100*run))
			}
		}
		return b.Page()
	}
	plain := func(family, run int) uint64 { return uint64(100*family + run) }
	first := build(nil, plain)
	changed := func(family, run int) uint64 {
		if family == 2 && run == 3 {
			return 9999
		}
		return plain(family, run)
	}
	second := build(first, changed)

	if got, want := text(t, second), text(t, build(nil, changed)); got != want {
		t.Error("a page built with a previous one has other text than one built without")
	}
	if len(fragments(first)) != families*runs || len(fragments(second)) != families*runs {
		t.Fatalf("got %d and %d fragments, want %d", len(fragments(first)), len(fragments(second)), families*runs)
	}
	a, b := fragments(first), fragments(second)
	for i := range a {
		same := sameMemory(a[i], b[i])
		if isChanged := i == 2*runs+3; same == isChanged {
			t.Errorf("fragment %d: changed %v, same memory %v", i, isChanged, same)
		}
	}

	// Fragments are found in another order of families too: they do not depend on their position.
	swapped := build(second, func(family, run int) uint64 { return changed(families-1-family, run) })
	a = fragments(swapped)
	for family := range families {
		for run := range runs {
			if !sameMemory(a[family*runs+run], b[(families-1-family)*runs+run]) {
				t.Errorf("family %d, run %d was compressed again", family, run)
			}
		}
	}
}

func TestTextOfTheSameLengthAndChecksumIsDistinguished(t *testing.T) {
	// Two texts may have the same length and CRC. The hash, which must be equal too,
	// distinguishes them.
	b := NewBuilder(bare(1), nil)
	b.Append(0, lines(1, fragmentText))
	first := b.Page()
	for id, f := range first.appended {
		delete(first.appended, id)
		id.hash++ // as if other text had the same length and CRC
		first.appended[id] = f
	}
	b = NewBuilder(bare(1), first)
	b.Append(0, lines(1, fragmentText))
	second := b.Page()
	if sameMemory(fragments(first)[0], fragments(second)[0]) {
		t.Error("a fragment with another hash was used again")
	}
}

func TestCompressedBytesIsWhatIsKept(t *testing.T) {
	b := NewBuilder(bare(1), nil)
	for i := range 10 {
		b.Append(0, lines(uint64(i), 2*fragmentText))
	}
	page := b.Page()
	var kept bytes.Buffer
	w := bufio.NewWriter(&kept)
	page.writeDeflate(w)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if int64(kept.Len()) != page.CompressedBytes() {
		t.Errorf("%d bytes are kept, CompressedBytes says %d", kept.Len(), page.CompressedBytes())
	}
	if page.CompressedBytes() >= page.TextBytes()/2 {
		t.Errorf("%d bytes of text became %d: not compressed", page.TextBytes(), page.CompressedBytes())
	}
}

// FuzzBuilder compares two pages, the second built from the first, with plain
// concatenation. Every three bytes of the script are one call of Append: the family,
// the length, and the seed of the text.
func FuzzBuilder(f *testing.F) {
	f.Add([]byte{0, 1, 0, 1, 255, 1, 0, 3, 2}, []byte{0, 1, 0, 1, 255, 1, 0, 4, 2})
	f.Add([]byte{7, 255, 0, 7, 255, 0, 3, 0, 0, 2, 30, 9}, []byte{})
	random := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		script := make([]byte, 3*random.IntN(30))
		for i := range script {
			script[i] = byte(random.Uint32())
		}
		changed := bytes.Clone(script)
		if len(changed) > 0 {
			changed[random.IntN(len(changed))]++
		}
		f.Add(script, changed)
	}
	const families = 8
	pool := lines(1, 3*fragmentText)
	build := func(previous *Page, script []byte) (*Page, string) {
		b := NewBuilder(bare(families), previous)
		var want [families]strings.Builder
		for ; len(script) >= 3; script = script[3:] {
			family, length, offset := int(script[0])%families, int(script[1]), int(script[2])
			if length > 127 {
				length *= fragmentText / 128 // up to twice a fragment
			}
			chunk := pool[100*offset:][:length]
			b.Append(family, chunk)
			want[family].Write(chunk)
		}
		var all strings.Builder
		for i := range want {
			all.WriteString(want[i].String())
		}
		return b.Page(), all.String()
	}
	f.Fuzz(func(t *testing.T, script, changed []byte) {
		if len(script)+len(changed) > 3*60 {
			t.Skip("long scripts find nothing that short scripts do not find")
		}
		first, want := build(nil, script)
		checkPage(t, first, want)
		second, want := build(first, changed)
		checkPage(t, second, want)
	})
}

// checkPage checks the text of a page, read as text and as a gzip file.
func checkPage(t *testing.T, page *Page, want string) {
	t.Helper()
	if got := text(t, page); got != want {
		t.Fatalf("the text differs from what was appended: %d bytes, want %d", len(got), len(want))
	}
	const live = "live 1\n"
	var file bytes.Buffer
	w := bufio.NewWriter(&file)
	w.Write(gzipHeader)
	page.writeDeflate(w)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if kept := int64(file.Len() - len(gzipHeader)); kept != page.CompressedBytes() {
		t.Fatalf("%d bytes are kept, CompressedBytes says %d", kept, page.CompressedBytes())
	}
	page.writeTail(&file, []byte(live))
	if got := gunzip(t, file.Bytes()); got != want+live {
		t.Fatalf("gunzipped, the text differs from what was appended: %d bytes, want %d", len(got), len(want+live))
	}
}
