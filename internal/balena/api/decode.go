// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Decoder reads one answer, the array in {"d": […]}, element by element as it arrives. It holds only the
// current element in memory.
type Decoder struct {
	json *jsontext.Decoder
	*words
}

// words interns strings that many devices share (versions, states, types): each is in memory once.
type words struct {
	known map[string]string
	bytes int // total length of the known words
	// derived holds the text made from a value that repeats, by the raw JSON of the value.
	derived map[string]string
}

// These constants bound the memory when new words keep arriving: the number of words, their total size in bytes, and the
// size of one word. When one of the first two is reached, the collection starts again. A longer word is not kept.
const (
	maxWords     = 10_000
	maxWordBytes = 1 << 20
	maxWord      = 1 << 10
)

func newWords() words { return words{known: map[string]string{}, derived: map[string]string{}} }

func (w *words) keep(b []byte) string {
	if s, ok := w.known[string(b)]; ok { // does not allocate
		return s
	}
	s := string(b)
	if len(s) > maxWord {
		return s
	}
	w.grow(len(s))
	w.known[s] = s
	return s
}

// grow makes room for another word of a size.
func (w *words) grow(size int) {
	if len(w.known)+len(w.derived) >= maxWords || w.bytes+size > maxWordBytes {
		clear(w.known)
		clear(w.derived)
		w.bytes = 0
	}
	w.bytes += size
}

// tolerant holds the options for reading answers. Invalid Unicode, such as a lone surrogate in the name of a device,
// becomes U+FFFD, so that it does not make the refresh fail. Repeated names in objects are not detected, because that
// would take a quarter of the time.
var tolerant = []jsontext.Options{jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true)}

// ValueDecoder returns a decoder for single values that are already in memory.
func ValueDecoder() *Decoder { return &Decoder{words: new(newWords())} }

func newDecoder(r io.Reader, w *words) *Decoder {
	return &Decoder{json: jsontext.NewDecoder(r, tolerant...), words: w}
}

// decodeAll reads a whole answer and calls each for every element, see [decodeArray]. An answer that is not an envelope
// around an array of objects, or has text after its end, is an error.
func decodeAll[T any](d *Decoder, fields Record[T], blank T, each func(*T) error) error {
	if err := d.open(); err != nil {
		return err
	}
	if err := decodeArray(d, fields, blank, each); err != nil {
		return err
	}
	return d.end()
}

// decodeArray reads an array of objects and calls each for every element. It passes the same variable every time, which it
// sets to blank before.
func decodeArray[T any](d *Decoder, fields Record[T], blank T, each func(*T) error) error {
	if err := d.expect('['); err != nil {
		return err
	}
	var element T
	for n := 1; d.json.PeekKind() != ']'; n++ {
		element = blank
		err := decodeObject(d, fields, &element)
		if err == nil {
			err = each(&element)
		}
		if err != nil {
			return fmt.Errorf("element %d: %w", n, err)
		}
	}
	return d.expect(']')
}

// elements returns a decoder of a value that is an array of objects.
func (d *Decoder) elements(v jsontext.Value) (*Decoder, error) {
	if v.Kind() != '[' {
		return nil, wrongType("an array of objects", v)
	}
	return newDecoder(bytes.NewBuffer(v), d.words), nil
}

// decodeCount reads a whole answer that is a number, {"d": n}.
func decodeCount(d *Decoder) (int, error) {
	if err := d.open(); err != nil {
		return 0, err
	}
	v, err := d.json.ReadValue()
	if err != nil {
		return 0, unreadable(err)
	}
	n, err := d.Count(v)
	if err != nil {
		return 0, err
	}
	return n, d.end()
}

// open reads the beginning of the envelope, up to the value of "d".
func (d *Decoder) open() error {
	if err := d.expect('{'); err != nil {
		return err
	}
	name, err := d.json.ReadToken()
	if err != nil {
		return unreadable(err)
	}
	if name.Kind() != '"' || name.String() != "d" {
		return errors.New(`the answer is not of the form {"d": …}`)
	}
	return nil
}

// end reads the end of the envelope.
func (d *Decoder) end() error {
	if err := d.expect('}'); err != nil {
		return err
	}
	return d.atEnd()
}

// atEnd returns an error if anything follows.
func (d *Decoder) atEnd() error {
	if _, err := d.json.ReadToken(); err == nil {
		return errors.New("text follows the end of the answer")
	} else if !errors.Is(err, io.EOF) {
		return unreadable(err)
	}
	return nil
}

// decodeObject reads one object into to. All objects of an answer have their fields in the same order, so the search
// for a field starts after the last one found.
func decodeObject[T any](d *Decoder, fields Record[T], to *T) error {
	if err := d.expect('{'); err != nil {
		return err
	}
	next := 0
	for d.json.PeekKind() == '"' {
		name, err := d.json.ReadValue()
		if err != nil {
			return unreadable(err)
		}
		i := fields.find(name[1:len(name)-1], next)
		value, err := d.json.ReadValue()
		if err != nil {
			return unreadable(err)
		}
		if i < 0 {
			continue // a field that was not selected
		}
		if err := fields[i].Set(d, value, to); err != nil {
			return fmt.Errorf("%s: %w", fields[i].Name, err)
		}
		next = i + 1
	}
	return d.expect('}')
}

// find returns the index of the field with a name, or -1. It starts the search at first.
func (r Record[T]) find(name []byte, first int) int {
	for i := range r {
		j := first + i
		if j >= len(r) {
			j -= len(r)
		}
		if string(name) == r[j].Name {
			return j
		}
	}
	return -1
}

// expect reads a bracket.
func (d *Decoder) expect(kind jsontext.Kind) error {
	token, err := d.json.ReadToken()
	if err != nil {
		return unreadable(err)
	}
	if token.Kind() != kind {
		return fmt.Errorf("found %s where %s was expected", token.Kind(), kind)
	}
	return nil
}

// unreadable replaces the decoder's errors for an answer that ends early, and for text that is not JSON, by errors that
// say so.
func unreadable(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the answer is cut off: %w", io.ErrUnexpectedEOF)
	}
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return fmt.Errorf("the answer is not JSON: %w", syntax.Err)
	}
	return err
}

// The following methods convert JSON to values. null becomes the zero value, except for numbers, where it becomes
// balena.Null.

func isNull(v jsontext.Value) bool { return v.Kind() == 'n' }

// bytes returns the contents of a JSON string, valid until the next read.
func (d *Decoder) bytes(v jsontext.Value) ([]byte, error) {
	if isNull(v) {
		return nil, nil
	}
	if v.Kind() != '"' {
		return nil, wrongType("a string", v)
	}
	if inner := v[1 : len(v)-1]; bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return inner, nil
	}
	// Invalid Unicode is replaced in the returned bytes; its error can be ignored.
	b, _ := jsontext.AppendUnquote(nil, v)
	return b, nil
}

// Text reads a string that is different in every element.
func (d *Decoder) Text(v jsontext.Value) (string, error) {
	b, err := d.bytes(v)
	return string(b), err
}

// Word reads a string that many elements share. It is interned.
func (d *Decoder) Word(v jsontext.Value) (string, error) {
	b, err := d.bytes(v)
	return d.keep(b), err
}

// Boolean reads true or false; null is false.
func (d *Decoder) Boolean(v jsontext.Value) (bool, error) {
	switch v.Kind() {
	case 't':
		return true, nil
	case 'f', 'n':
		return false, nil
	}
	return false, wrongType("true or false", v)
}

// Integer reads an integer; null is 0.
func (d *Decoder) Integer(v jsontext.Value) (int64, error) {
	if isNull(v) {
		return 0, nil
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		return 0, wrongType("an integer", v)
	}
	return n, nil
}

// Number reads a number. A number outside the range of float64 is an error.
func (d *Decoder) Number(v jsontext.Value) (balena.Number, error) {
	if isNull(v) {
		return balena.Null, nil
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil {
		return 0, wrongType("a number", v)
	}
	return balena.Number(f), nil
}

// Instant reads a date such as "2026-11-22T14:09:34.280Z".
func (d *Decoder) Instant(v jsontext.Value) (balena.Instant, error) {
	if isNull(v) {
		return 0, nil
	}
	if v.Kind() != '"' {
		return 0, wrongType("a date", v)
	}
	t, err := time.Parse(time.RFC3339Nano, string(v[1:len(v)-1]))
	if err != nil {
		return 0, wrongType("a date", v)
	}
	return balena.Instant(t.UnixMilli()), nil
}

// Reference reads a navigation property that was not expanded: {"__id": n} or null. Version 6 writes some of
// them as plain numbers.
func (d *Decoder) Reference(v jsontext.Value) (int64, error) {
	if v.Kind() != '{' {
		return d.Integer(v)
	}
	const key = `{"__id":`
	if rest, ok := bytes.CutPrefix(v, []byte(key)); ok && len(rest) > 1 {
		if n, err := strconv.ParseInt(string(rest[:len(rest)-1]), 10, 64); err == nil {
			return n, nil
		}
	}
	// It contains blanks, or is not a reference.
	compact := v.Clone()
	if err := compact.Compact(); err == nil && len(compact) < len(v) {
		return d.Reference(compact)
	}
	return 0, wrongType(`{"__id": n}`, v)
}

// wrongType returns an error that names the expected and the found kind of value. It does not repeat the value, which
// may contain a secret.
func wrongType(want string, got jsontext.Value) error {
	found := map[jsontext.Kind]string{
		'"': "a string", '0': "a number", 't': "true", 'f': "false", 'n': "null", '{': "an object", '[': "an array",
	}[got.Kind()]
	return fmt.Errorf("found %s where %s was expected", found, want)
}
