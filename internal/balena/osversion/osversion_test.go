// SPDX-License-Identifier: Apache-2.0

package osversion

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// What balena-semver says about many texts. test/sdk/versions.js writes it.
type recorded struct {
	Texts []struct {
		Text    string
		Version string // empty for a text that is not a version
		Order   string // <, = or > for each version before
	}
}

// The texts that are versions, what they mean, and their order are those of the npm package.
func TestVersionsAreThoseOfBalenaSemver(t *testing.T) {
	content, err := os.ReadFile("testdata/balena-semver.json")
	if err != nil {
		t.Fatal(err)
	}
	var r recorded
	if err := json.Unmarshal(content, &r); err != nil {
		t.Fatal(err)
	}
	type parsed struct {
		text string
		Version
	}
	var before []parsed
	compared := 0
	for _, want := range r.Texts {
		v, ok := Parse(want.Text)
		if ok != (want.Version != "") {
			t.Fatalf("Parse(%q) returns %v, %t, but balena-semver takes it for %q", want.Text, v, ok, want.Version)
		}
		if !ok {
			continue
		}
		if v.String() != want.Version {
			t.Errorf("Parse(%q) is %v, want %s", want.Text, v, want.Version)
		}
		if len(want.Order) != len(before) {
			t.Fatalf("%q is compared with %d of %d versions", want.Text, len(want.Order), len(before))
		}
		for i, o := range before {
			order := strings.IndexByte("<=>", want.Order[i]) - 1
			if got := v.Compare(o.Version); got != order {
				t.Errorf("%q compared with %q is %d, want %d", want.Text, o.text, got, order)
			}
			if got := o.Compare(v); got != -order {
				t.Errorf("%q compared with %q is %d, want %d", o.text, want.Text, got, -order)
			}
			compared++
		}
		before = append(before, parsed{want.Text, v})
	}
	if compared < 5000 || len(before) == len(r.Texts) {
		t.Errorf("the file has only %d pairs, or no texts that are not versions", compared)
	}
}

// A release has one key, and its line, however it is spelled.
func TestSpellingsOfARelease(t *testing.T) {
	for _, test := range []struct {
		texts []string
		key   Version
		esr   bool
		line  string
	}{
		{[]string{"balenaOS 2.12.7+rev1", "2.12.7+rev1.prod", "2.12.7+rev1.dev", "Resin OS 2.12.7.rev1 (dev)", "v2.12.7_rev1"}, Version{Major: 2, Minor: 12, Patch: 7, Revision: 1}, false, "default"},
		{[]string{"balenaOS 2.12.7", "2.12.7.prod", "2.12.7+dev"}, Version{Major: 2, Minor: 12, Patch: 7}, false, "default"},
		{[]string{"balenaOS 6.5.10", "6.5.10"}, Version{Major: 6, Minor: 5, Patch: 10}, false, "default"},
		{[]string{"balenaOS 2026.7.1", "2026.7.1", "2026.07.1.prod"}, Version{Major: 2026, Minor: 7, Patch: 1}, true, "2026.7"},
		{[]string{"2019.10.0.dev", "2019.10.0"}, Version{Major: 2019, Minor: 10}, true, "2019.10"},
		{[]string{"2022.01.0", "balenaOS 2022.1.0"}, Version{Major: 2022, Minor: 1}, true, "2022.1"},
		{[]string{"17.0.1-draft", "v17.0.1-draft"}, Version{Major: 17, Patch: 1, Prerelease: "draft"}, false, "default"},
		{[]string{"6.6.0-1722522222222+rev2", "balenaOS 6.6.0-1722522222222+rev2.dev"}, Version{Major: 6, Minor: 6, Prerelease: "1722522222222", Revision: 2}, false, "default"},
	} {
		for _, text := range test.texts {
			v, ok := Parse(text)
			if !ok || v.Key() != test.key {
				t.Errorf("Parse(%q).Key() is %#v, %t, want %#v", text, v.Key(), ok, test.key)
			}
			if v.ESR() != test.esr || v.Line() != test.line {
				t.Errorf("%q is ESR: %t, of the line %s; want %t and %s", text, v.ESR(), v.Line(), test.esr, test.line)
			}
		}
	}
}

// These are the texts about which balena-semver says something else.
func TestDifferencesFromBalenaSemver(t *testing.T) {
	if v, ok := Parse("1.1.1" + strings.Repeat(" ", 2000) + "(dev)"); ok {
		t.Errorf("a text of 2010 bytes is the version %v", v)
	}
	for _, test := range []struct {
		older, newer string
		want         int
	}{
		{"1.1.1-9007199254740992", "1.1.1-9007199254740993", -1},
		{"1.1.1+rev9007199254740992", "1.1.1+rev99999999999999999999", 0},
	} {
		v, _ := Parse(test.older)
		o, _ := Parse(test.newer)
		if got := v.Compare(o); got != test.want {
			t.Errorf("%q compared with %q is %d, want %d", test.older, test.newer, got, test.want)
		}
	}
}

// Whatever the texts, the order is a total one, equal versions are ==, and a version is read back from its own text.
func FuzzParse(f *testing.F) {
	f.Add("balenaOS 6.5.10", "Resin OS 2.0.0+rev5 (prod)", "2.12.7+rev1.dev")
	f.Add("2022.01.0", "2019.10.0.dev", "1.1.1-a.1")
	f.Add("1.1.1-a", "1.1.1-9007199254740993.1", "1.1.1-9007199254740992.2")
	f.Add("1.1.1-\xff", "\xed\xa0\x80", "balena\u3000OS\u00a01.1.1")
	f.Add(strings.Repeat("1.1.1_", 200), strings.Repeat("0", 1000)+"1", strings.Repeat("balenabalena", 30)+strings.Repeat("osos", 30))
	f.Fuzz(func(t *testing.T, a, b, c string) {
		var versions []Version
		for _, text := range []string{a, b, c} {
			v, ok := Parse(text)
			if !ok {
				if v != (Version{}) {
					t.Errorf("Parse(%q) returns %v", text, v)
				}
				continue
			}
			if again, ok := parse(v.String()); !ok || again != v {
				t.Errorf("Parse(%q) is %#v, but its text %s is %#v, %t", text, v, v, again, ok)
			}
			versions = append(versions, v)
		}
		for _, v := range versions {
			for _, o := range versions {
				if v.Compare(o) != -o.Compare(v) || (v.Compare(o) == 0) != (v == o) {
					t.Errorf("%v compared with %v is %d, and %d in reverse", v, o, v.Compare(o), o.Compare(v))
				}
			}
		}
		slices.SortFunc(versions, Version.Compare)
		for i, v := range versions {
			for _, newer := range versions[i:] {
				if v.Compare(newer) > 0 {
					t.Errorf("the order of %v is not transitive", versions)
				}
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for _, text := range []string{"balenaOS 6.5.10", "Resin OS 2.0.0+rev5 (prod)", strings.Repeat("1.1.1.", 170)} {
		b.Run(text[:min(len(text), 30)], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Parse(text)
			}
		})
	}
}
