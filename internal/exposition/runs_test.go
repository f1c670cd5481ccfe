package exposition

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// What runs have to say is held against a model: all text in the clear, put together
// anew for each page.

const (
	modelFamilies = 7
	modelFrom     = 2 // families that come by runs
	modelTo       = 6
)

var modelLayout = func() Layout {
	l := Layout{RunsFrom: modelFrom, RunsTo: modelTo}
	for family := range modelFamilies {
		l.Headers = append(l.Headers, fmt.Appendf(nil, "# TYPE family_%d gauge\n", family))
	}
	return l
}()

// A modelRun is a run as it is on one page. Its address is its key.
type modelRun struct {
	before  *modelRun // as it is on the page before; nil if it is not
	texts   [modelFamilies]string
	changed [modelFamilies]bool // since before
}

// change returns the run as it is on the next page, with other text in some families.
func (r *modelRun) change(texts map[int]string) *modelRun {
	next := &modelRun{before: r, texts: r.texts}
	for family, text := range texts {
		next.texts[family] = text
		next.changed[family] = true
	}
	return next
}

func newRun(texts map[int]string) *modelRun {
	run := new(modelRun).change(texts)
	run.before = nil
	return run
}

// A clearPage is a page before it is rendered.
type clearPage struct {
	appended [modelFamilies]string
	runs     []*modelRun
}

// text returns all there is to be on the page.
func (m *clearPage) text() string {
	var all strings.Builder
	for family, text := range m.appended {
		for _, run := range m.runs {
			text += run.texts[family]
		}
		if text != "" {
			all.Write(modelLayout.Headers[family])
			all.WriteString(text)
		}
	}
	return all.String()
}

// asked is a text that the Builder wanted to have.
type asked struct {
	run    *modelRun
	family int
}

// page builds the page, and says what the Builder asked for.
func (m *clearPage) page(previous *Page) (page *Page, questions []asked) {
	b := NewBuilder(modelLayout, previous)
	for family, text := range m.appended {
		b.Append(family, []byte(text))
	}
	var scratch []byte // valid until the next call, and no longer
	for _, run := range m.runs {
		var before any
		if run.before != nil {
			before = run.before
		}
		b.Run(run, before, func(family int) bool { return run.changed[family] }, func(family int) []byte {
			questions = append(questions, asked{run, family})
			clear(scratch)
			scratch = append(scratch[:0], run.texts[family]...)
			return scratch
		})
	}
	return b.Page(), questions
}

// fragmentsOf returns what a page has of a run, by family.
func fragmentsOf(t *testing.T, p *Page, run *modelRun) (f [modelFamilies]fragment) {
	t.Helper()
	i, ok := p.runs[run]
	if !ok {
		t.Fatal("the page does not know the run")
	}
	for family := modelFrom; family < modelTo; family++ {
		f[family] = p.columns[family-modelFrom][i]
	}
	return f
}

func TestRunsStandInTheirOrderFamilyByFamily(t *testing.T) {
	m := &clearPage{
		appended: [modelFamilies]string{0: "first 1\n", 3: "family_3 0\n", 6: "last 1\n"},
		runs: []*modelRun{
			newRun(map[int]string{2: "family_2 1\n", 3: "family_3 1\n"}),
			newRun(map[int]string{3: "family_3 2\n"}),
			newRun(map[int]string{2: "family_2 3\n", 3: "family_3 3\n"}),
		},
	}
	page, _ := m.page(nil)
	checkPage(t, page, `# TYPE family_0 gauge
first 1
# TYPE family_2 gauge
family_2 1
family_2 3
# TYPE family_3 gauge
family_3 0
family_3 1
family_3 2
family_3 3
# TYPE family_6 gauge
last 1
`)
}

func TestAFamilyWithoutSamplesHasNoHeader(t *testing.T) {
	run := newRun(map[int]string{2: "family_2 1\n", 4: "family_4 1\n"})
	full := &clearPage{appended: [modelFamilies]string{0: "first 1\n"}, runs: []*modelRun{run}}
	page, _ := full.page(nil)
	checkPage(t, page, "# TYPE family_0 gauge\nfirst 1\n# TYPE family_2 gauge\nfamily_2 1\n# TYPE family_4 gauge\nfamily_4 1\n")

	emptied := &clearPage{runs: []*modelRun{run.change(map[int]string{2: ""})}}
	page, _ = emptied.page(page)
	checkPage(t, page, "# TYPE family_4 gauge\nfamily_4 1\n")

	empty := &clearPage{runs: []*modelRun{emptied.runs[0].change(map[int]string{4: ""})}}
	page, _ = empty.page(page)
	checkPage(t, page, "")
	if page.Fragments() != 0 || page.CompressedBytes() != 0 {
		t.Errorf("a page without samples has %d fragments, %d bytes", page.Fragments(), page.CompressedBytes())
	}

	back := &clearPage{runs: []*modelRun{empty.runs[0].change(map[int]string{3: "family_3 1\n"})}}
	page, _ = back.page(page)
	checkPage(t, page, "# TYPE family_3 gauge\nfamily_3 1\n")
}

func TestOnlyWhatChangedIsAskedForAndTheRestIsTheSameMemory(t *testing.T) {
	texts := map[int]string{2: "a 1\n", 3: "b 1\n", 4: "c 1\n", 5: ""}
	stays, changes, goes := newRun(texts), newRun(texts), newRun(texts)
	first, _ := (&clearPage{runs: []*modelRun{stays, changes, goes}}).page(nil)

	// One comes before, one changes, one goes, one only gets another key.
	comes, changed, stayed := newRun(texts), changes.change(map[int]string{3: "b 2\n", 5: "d 2\n"}), stays.change(nil)
	second, questions := (&clearPage{runs: []*modelRun{comes, changed, stayed}}).page(first)
	if want := []asked{{comes, 2}, {comes, 3}, {comes, 4}, {comes, 5}, {changed, 3}, {changed, 5}}; !slices.Equal(questions, want) {
		t.Errorf("asked for %v, want %v", questions, want)
	}
	for _, run := range []*modelRun{changed, stayed} {
		then, now := fragmentsOf(t, first, run.before), fragmentsOf(t, second, run)
		for family := modelFrom; family < modelTo; family++ {
			if text := run.texts[family]; text != "" && sameMemory(then[family], now[family]) == run.changed[family] {
				t.Errorf("family %d: changed is %v, and so is being the same memory", family, run.changed[family])
			}
		}
	}
}

func TestWhatThePreviousPageDoesNotHaveIsAskedFor(t *testing.T) {
	texts := map[int]string{2: "a 1\n", 3: "b 1\n", 4: "c 1\n", 5: "d 1\n"}
	known, other := newRun(texts), newRun(texts)
	first, _ := (&clearPage{runs: []*modelRun{known}}).page(nil)
	shorter, narrower, renamed := modelLayout, modelLayout, modelLayout
	shorter.Headers = shorter.Headers[:modelTo]
	narrower.RunsTo--
	renamed.Headers = slices.Clone(renamed.Headers)
	renamed.Headers[3] = []byte("# TYPE other gauge\n")
	for name, test := range map[string]struct {
		previous    *Page
		layout      Layout
		key, before any
		want        []int
	}{
		"a known run":            {first, modelLayout, other, known, nil},
		"a known run, same key":  {first, modelLayout, known, known, nil},
		"a new run":              {first, modelLayout, known, nil, []int{2, 3, 4, 5}},
		"an unknown run":         {first, modelLayout, known, other, []int{2, 3, 4, 5}},
		"no page":                {nil, modelLayout, other, known, []int{2, 3, 4, 5}},
		"an empty page":          {&Page{}, modelLayout, other, known, []int{2, 3, 4, 5}},
		"another number":         {first, shorter, other, known, []int{2, 3, 4, 5}},
		"other bounds":           {first, narrower, other, known, []int{2, 3, 4}},
		"another family between": {first, renamed, other, known, []int{2, 3, 4, 5}},
	} {
		b := NewBuilder(test.layout, test.previous)
		var got []int
		b.Run(test.key, test.before, func(int) bool { return false }, func(family int) []byte {
			got = append(got, family)
			return []byte(texts[family])
		})
		var want string
		for family := test.layout.RunsFrom; family < test.layout.RunsTo; family++ {
			want += string(test.layout.Headers[family]) + texts[family]
		}
		checkPage(t, b.Page(), want)
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: asked for the families %v, want %v", name, got, test.want)
		}
	}
}

// A run that the page knows by no key (nil) is not taken for any other such run.
func TestARunWithoutAKeyIsNotFound(t *testing.T) {
	b := NewBuilder(modelLayout, nil)
	b.Run(nil, nil, nil, func(int) []byte { return []byte("a 1\n") })
	b = NewBuilder(modelLayout, b.Page())
	asked := 0
	b.Run(nil, nil, nil, func(int) []byte { asked++; return nil })
	checkPage(t, b.Page(), "")
	if asked != modelTo-modelFrom {
		t.Errorf("asked for %d families, want %d", asked, modelTo-modelFrom)
	}
}

// Whatever happens from page to page, a page built from the one before is the page
// that is built from nothing.
func TestPagesBuiltFromPagesEqualThoseBuiltFromNothing(t *testing.T) {
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
			page, questions := m.page(previous)
			checkPage(t, page, m.text())
			scratch, _ := m.page(nil)
			if page.totals != scratch.totals {
				t.Fatalf("sequence %d, page %d: totals %+v, from nothing %+v", sequence, step, page.totals, scratch.totals)
			}
			for _, q := range questions {
				if q.run.before != nil && !q.run.changed[q.family] {
					t.Fatalf("sequence %d, page %d: family %d was asked for although it did not change", sequence, step, q.family)
				}
			}
			previous = page
		}
	}
}

// edit returns what the next page is to be.
func edit(random *rand.Rand, m *clearPage, someText func() string) *clearPage {
	next := &clearPage{appended: m.appended}
	if random.IntN(2) == 0 {
		next.appended[random.IntN(modelFamilies)] = someText()
	}
	if random.IntN(10) == 0 {
		next.appended = [modelFamilies]string{}
	}
	emptied := -1 // a family that has no samples any more
	if random.IntN(4) == 0 {
		emptied = modelFrom + random.IntN(modelTo-modelFrom)
	}
	nothing := random.IntN(10) == 0 // nobody has any
	for _, run := range m.runs {
		changes := map[int]string{}
		switch random.IntN(6) {
		case 0:
			continue // it is gone
		case 1, 2:
			changes[modelFrom+random.IntN(modelTo-modelFrom)] = someText()
		}
		for family := modelFrom; family < modelTo; family++ {
			if nothing || family == emptied {
				changes[family] = ""
			}
		}
		next.runs = append(next.runs, run.change(changes))
	}
	for range random.IntN(4) {
		texts := map[int]string{}
		for family := modelFrom; family < modelTo && !nothing; family++ {
			texts[family] = someText()
		}
		at := random.IntN(len(next.runs) + 1)
		next.runs = slices.Insert(next.runs, at, newRun(texts))
	}
	return next
}
