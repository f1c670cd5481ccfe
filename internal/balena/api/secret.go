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

// The text of a server may contain the token: a proxy may echo the header, a page may show the request. No piece of the
// token is ever shown.

// piece is the number of consecutive characters that count as a piece of a token. Shorter matches happen by chance.
const piece = 8

// secret is a token that can be found in a text.
type secret struct {
	token       string
	fingerprint uint64
	// pieces holds all pieces of the token and of its encodings. If the token is shorter than a piece, it holds the
	// token itself.
	pieces map[string]bool
}

// fingerprintSeed is random, so that a fingerprint reveals nothing about the token.
var fingerprintSeed = maphash.MakeSeed()

func newSecret(token string) secret {
	s := secret{token: token, fingerprint: maphash.String(fingerprintSeed, token), pieces: map[string]bool{}}
	if len(token) < piece {
		s.pieces[token] = true
		return s
	}
	forms := []string{token}
	for shift := range 3 { // base64 has three forms, depending on the position of the token
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", shift) + token))
		// The first and the last characters depend on the bytes around the token.
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

// isIn reports whether a text contains a piece of the secret, plain or encoded as in JSON, HTML, URLs or base64. Blanks and
// control characters are ignored.
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

// printable removes white space, invisible characters and characters that no token contains.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
}

// unescaped decodes the escapes of JSON strings, including backslashes that were escaped several times.
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

// percentDecoded decodes percent-encoding, even if applied twice. Invalid encoding stays as it is.
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

// errRepeatsToken replaces an error that contains a piece of the token.
var errRepeatsToken = errors.New("the server's answer repeats the token and cannot be shown")

// showable returns a safe form of an error that may contain text of the server: short, and without a piece of the token.
// It still wraps the original error, unless that must be hidden.
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

// maxText is the maximum number of bytes of a server's text that are shown.
const maxText = 300

// shortened truncates a text of the server. It removes characters that could mislead a reader of the log: control
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
