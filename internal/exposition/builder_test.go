// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// These tests compare pages that were built from a previous page with a model: plain text
// that is assembled anew for each page.

const modelFamilies = 7

// Families with pieces are those of the groups p and q, which stand among those with appended lines.
var modelGroups = [modelFamilies]string{"a", "b", "p", "p", "q", "b", "c"}

func hasPieces(family int) bool { return modelGroups[family] >= "p" }

var modelLayout = func() (l Layout) {
	for family := range modelFamilies {
		l = append(l, Family{fmt.Appendf(nil, "# TYPE family_%d gauge\n", family), modelGroups[family]})
	}
	return l
}()

// A modelPiece is a piece of a page before it is rendered.
type modelPiece struct {
	text string
	kept int // its number on the previous page; -1 for a new piece
}

// A clearPage is a page before it is rendered. A family has appended text or pieces.
type clearPage struct {
	appended [modelFamilies]string
	pieces   [modelFamilies][]modelPiece
	sections int // 0 for 1
}

// section returns the pieces of a family in a section.
func (m *clearPage) section(family, number int) []modelPiece {
	pieces, sections := m.pieces[family], max(1, m.sections)
	return pieces[number*len(pieces)/sections : (number+1)*len(pieces)/sections]
}

// text returns the expected text of what is selected of the page.
func (m *clearPage) text(s Selection) string {
	var all strings.Builder
	sections, parts := max(1, m.sections), max(1, s.Parts)
	for family, text := range m.appended {
		if s.Part > 0 {
			text = ""
		}
		for number := s.Part * sections / parts; number < (s.Part+1)*sections/parts; number++ {
			for _, piece := range m.section(family, number) {
				text += piece.text
			}
		}
		if text != "" && (s.Groups == nil || slices.Contains(s.Groups, modelGroups[family])) {
			all.Write(modelLayout[family].Header)
			all.WriteString(text)
		}
	}
	return all.String()
}

// page builds the page. Without a previous page it keeps nothing.
func (m *clearPage) page(previous *Page) *Page {
	b := NewBuilder(modelLayout, previous)
	var scratch []byte // the Builder must not retain it
	for number := range max(1, m.sections) {
		if number > 0 {
			b.EndSection()
		}
		for family := range modelFamilies {
			for _, piece := range m.section(family, number) {
				if previous != nil && piece.kept >= 0 {
					b.Keep(family, piece.kept)
					continue
				}
				clear(scratch)
				scratch = append(scratch[:0], piece.text...)
				b.Add(family, scratch)
			}
		}
	}
	for family, text := range m.appended {
		b.Append(family, []byte(text))
	}
	return b.Page()
}

func TestPiecesKeepTheirOrderWithinEachFamily(t *testing.T) {
	b := NewBuilder(modelLayout, nil)
	b.Append(0, []byte("first 1\n"))
	b.Append(6, []byte("last 1\n"))
	b.Add(2, []byte("family_2 1\n"))
	b.Add(3, []byte("family_3 1\n"))
	b.Add(2, nil)
	b.Add(3, []byte("family_3 2\n"))
	b.Add(2, []byte("family_2 3\n"))
	b.Add(3, []byte("family_3 3\n"))
	b.Add(4, nil)
	checkPage(t, b.Page(), `# TYPE family_0 gauge
first 1
# TYPE family_2 gauge
family_2 1
family_2 3
# TYPE family_3 gauge
family_3 1
family_3 2
family_3 3
# TYPE family_6 gauge
last 1
`)
}

func TestAFamilyWithoutSamplesHasNoHeader(t *testing.T) {
	b := NewBuilder(modelLayout, nil)
	b.Append(0, []byte("first 1\n"))
	b.Add(2, []byte("family_2 1\n"))
	b.Add(4, []byte("family_4 1\n"))
	page := b.Page()
	checkPage(t, page, "# TYPE family_0 gauge\nfirst 1\n# TYPE family_2 gauge\nfamily_2 1\n# TYPE family_4 gauge\nfamily_4 1\n")

	b = NewBuilder(modelLayout, page)
	b.Add(2, nil)
	b.Keep(4, 0)
	page = b.Page()
	checkPage(t, page, "# TYPE family_4 gauge\nfamily_4 1\n")

	b = NewBuilder(modelLayout, page)
	b.Keep(2, 0)
	b.Add(4, nil)
	page = b.Page()
	checkPage(t, page, "")
	if len(fragments(page)) != 0 || page.CompressedBytes() != 0 {
		t.Errorf("a page without samples has %d fragments, %d bytes", len(fragments(page)), page.CompressedBytes())
	}

	b = NewBuilder(modelLayout, page)
	b.Keep(2, 0)
	b.Add(3, []byte("family_3 1\n"))
	checkPage(t, b.Page(), "# TYPE family_3 gauge\nfamily_3 1\n")
}

func TestAKeptPieceSharesItsMemory(t *testing.T) {
	b := NewBuilder(modelLayout, nil)
	for _, text := range []string{"a 1\n", "b 1\n", "c 1\n"} {
		b.Add(2, []byte(text))
		b.Add(4, []byte(text))
	}
	first := b.Page()
	b = NewBuilder(modelLayout, first)
	b.Add(2, []byte("new 1\n"))
	b.Keep(2, 2)
	b.Keep(2, 0)
	b.Add(4, []byte("a 1\n"))
	second := b.Page()
	checkPage(t, second, "# TYPE family_2 gauge\nnew 1\nc 1\na 1\n# TYPE family_4 gauge\na 1\n")
	for number, old := range map[int]int{1: 2, 2: 0} {
		if !sameMemory(first.pieces[2][old], second.pieces[2][number]) {
			t.Errorf("piece %d is a copy", number)
		}
	}
}

func TestNothingCanBeKeptFromAnotherLayout(t *testing.T) {
	renamed := slices.Clone(modelLayout)
	renamed[3].Header = []byte("# TYPE other gauge\n")
	b := NewBuilder(modelLayout, nil)
	b.Add(2, []byte("a 1\n"))
	page := b.Page()
	for name, test := range map[string]struct {
		layout   Layout
		previous *Page
		number   int
	}{
		"no page":                 {modelLayout, nil, 0},
		"an empty page":           {modelLayout, &Page{}, 0},
		"another number":          {modelLayout, page, 1},
		"fewer families":          {modelLayout[:modelFamilies-1], page, 0},
		"another family after it": {renamed, page, 0},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("a piece that does not exist was kept")
				}
			}()
			NewBuilder(test.layout, test.previous).Keep(2, test.number)
		})
	}
}

// Whatever changes between pages, a page built from the previous page equals a page
// built from scratch.
func TestPagesBuiltFromPagesEqualPagesBuiltFromScratch(t *testing.T) {
	const sequences, pages = 20, 25
	for sequence := range uint64(sequences) {
		random := rand.New(rand.NewPCG(sequence, 0))
		someText := func() string {
			if random.IntN(4) == 0 {
				return ""
			}
			return string(lines(random.Uint64(), 1+random.IntN(2000)))
		}
		m := &clearPage{}
		var previous *Page
		for step := range pages {
			m = edit(random, m, someText)
			page := m.page(previous)
			checkPage(t, page, m.text(Selection{}))
			if scratch := m.page(nil); page.totals != scratch.totals || len(fragments(page)) != len(fragments(scratch)) {
				t.Fatalf("sequence %d, page %d: totals %+v, from scratch %+v", sequence, step, page.totals, scratch.totals)
			}
			for range 4 {
				selection := someSelection(random, m.sections)
				e := page.selected(&selection)
				if got, want := inflated(t, &e), m.text(selection); got != want {
					t.Fatalf("sequence %d, page %d: %+v has %d bytes, want %d", sequence, step, selection, len(got), len(want))
				}
			}
			previous = page
		}
	}
}

// someSelection returns groups, or a part, or both.
func someSelection(random *rand.Rand, sections int) (s Selection) {
	for _, group := range []string{"a", "b", "c", "p", "q"} {
		if random.IntN(2) == 0 {
			s.Groups = append(s.Groups, group)
		}
	}
	if random.IntN(3) == 0 {
		s.Groups = nil
	}
	for s.Parts = 1 + random.IntN(max(1, sections)); max(1, sections)%s.Parts != 0; s.Parts-- {
	}
	s.Part = random.IntN(s.Parts)
	return s
}

// edit returns the model of the next page.
func edit(random *rand.Rand, m *clearPage, someText func() string) *clearPage {
	next := &clearPage{appended: m.appended, sections: m.sections}
	if random.IntN(4) == 0 {
		next.sections = random.IntN(9)
	}
	if family := random.IntN(modelFamilies); !hasPieces(family) {
		next.appended[family] = someText()
	}
	if random.IntN(10) == 0 {
		next.appended = [modelFamilies]string{}
	}
	nothing := random.IntN(10) == 0 // no family has pieces with text
	for family := range modelFamilies {
		for number, piece := range m.pieces[family] {
			piece.kept = number
			switch random.IntN(6) {
			case 0:
				continue // removed
			case 1, 2:
				piece = modelPiece{someText(), -1}
			}
			if nothing {
				piece = modelPiece{"", -1}
			}
			next.pieces[family] = append(next.pieces[family], piece)
		}
		for range random.IntN(3) {
			if hasPieces(family) && !nothing {
				at := random.IntN(len(next.pieces[family]) + 1)
				next.pieces[family] = slices.Insert(next.pieces[family], at, modelPiece{someText(), -1})
			}
		}
	}
	return next
}

func TestALongPieceIsCompressedBetter(t *testing.T) {
	var text []byte
	for len(text) < longPiece {
		text = append(text, renderRun(nil, len(text)%benchFamilies, len(text), 0)...)
	}
	fast, thorough := NewBuilder(bare(1), nil), NewBuilder(bare(1), nil)
	fast.Append(0, text)
	thorough.Add(0, text)
	a, b := fast.Page(), thorough.Page()
	checkPage(t, b, string(text))
	if b.CompressedBytes() >= a.CompressedBytes() {
		t.Errorf("a long piece has %d bytes, the same text appended %d", b.CompressedBytes(), a.CompressedBytes())
	}
}

func TestLabelNamesAreValidAndDistinct(t *testing.T) {
	keys := []string{"site", "my-site", "my.site", "my_site_2", "Standort ü", "1", ""}
	want := []string{"tag_site", "tag_my_site", "tag_my_site_2", "tag_my_site_2_2", "tag_Standort__", "tag_1", "tag_"}
	if got := LabelNames("tag_", keys); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
