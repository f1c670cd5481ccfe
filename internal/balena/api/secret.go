// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/base64"
	"errors"
	"hash/maphash"
	"html"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What a server says may hold the token: a proxy that echoes the header, a page that shows the request. No piece of
// it is ever shown.

// piece is how many letters of a token in a row count as a piece of it. Fewer are in any text by chance.
const piece = 8

// secret is a token, and how to find pieces of it.
type secret struct {
	token       string
	fingerprint uint64
	// pieces are all pieces of the token and of its encodings; of a token shorter than a piece, the token.
	pieces map[string]bool
}

// fingerprintSeed makes fingerprints that tell nothing of a token.
var fingerprintSeed = maphash.MakeSeed()

func newSecret(token string) secret {
	s := secret{token: token, fingerprint: maphash.String(fingerprintSeed, token), pieces: map[string]bool{}}
	if len(token) < piece {
		s.pieces[token] = true
		return s
	}
	forms := []string{token}
	for shift := range 3 { // of the token among other bytes, base64 has three forms
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", shift) + token))
		// The first and the last letters depend on the bytes around the token.
		first := []int{0, 2, 3}[shift]
		last := len(encoded) - []int{0, 1, 1}[(len(token)+shift)%3]
		forms = append(forms, encoded[first:last], strings.NewReplacer("+", "-", "/", "_").Replace(encoded[first:last]))
	}
	for _, form := range forms {
		for i := range len(form) - piece + 1 {
			s.pieces[form[i:i+piece]] = true
		}
	}
	return s
}

// isIn reports whether a text of the server holds a piece of the secret, plain or encoded as JSON, HTML, URLs or
// base64 do, whatever blanks and control characters lie in between.
func (s *secret) isIn(text string) bool {
	if len(s.pieces) == 0 {
		return false
	}
	size := min(piece, len(s.token))
	for _, decode := range []func(string) string{
		func(t string) string { return t }, unescaped, html.UnescapeString, percentDecoded,
	} {
		t := printable(decode(text))
		for i := range len(t) - size + 1 {
			if s.pieces[t[i:i+size]] {
				return true
			}
		}
	}
	return false
}

// printable leaves out what separates letters without being seen, and everything that no token has.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
}

// unescaped undoes the escapes of JSON strings, repeatedly escaped backslashes among them.
func unescaped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		for i+1 < len(s) && s[i+1] == '\\' {
			i++
		}
		if i+5 < len(s) && s[i+1] == 'u' {
			if n, err := strconv.ParseUint(s[i+2:i+6], 16, 32); err == nil {
				b.WriteRune(rune(n))
				i += 5
			}
		}
	}
	return b.String()
}

// percentDecoded undoes percent-encoding, also of what was encoded twice, and leaves alone what is none.
func percentDecoded(s string) string {
	for range 2 {
		var b strings.Builder
		for i := 0; i < len(s); i++ {
			if s[i] == '%' && i+2 < len(s) {
				if c, err := url.PathUnescape(s[i : i+3]); err == nil {
					b.WriteString(c)
					i += 2
					continue
				}
			}
			b.WriteByte(s[i])
		}
		s = b.String()
	}
	return s
}

// errRepeatsToken stands in for what holds a piece of the token.
var errRepeatsToken = errors.New("the server's answer repeats the token, so that it cannot be shown")

// showable returns an error that may hold words of the server, fit to be shown: without a piece of the token, and not
// long. What it wraps stays unless it must be hidden.
func (s *secret) showable(err error) error {
	text := err.Error()
	if s.isIn(text) {
		return errRepeatsToken
	}
	if short := shortened(text); short != text {
		return errors.New(short)
	}
	return err
}

// maxText is how many bytes of what a server said are shown.
const maxText = 300

// shortened cuts a text of the server, and leaves out of it what could deceive a reader of the log: control
// characters, line breaks, and characters that change the direction of writing.
func shortened(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			return ' '
		}
		return r
	}, s)
	if len(s) <= maxText {
		return s
	}
	cut := maxText
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
