package balena

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// decoder reads one answer, the array in {"d": […]}, element by element as it arrives. Nothing but the
// element under way is held beside what has been made of it.
type decoder struct {
	json *jsontext.Decoder
	words
}

// words keeps every string that repeats from device to device (versions, states, types) once.
type words struct {
	known map[string]string
	// services holds the name of the service by the raw JSON of an expanded image.
	services map[string]string
}

// maxWords bounds the memory of a long life among ever new versions; then the collection starts anew.
const maxWords = 10_000

func newWords() words { return words{map[string]string{}, map[string]string{}} }

func (w words) keep(b []byte) string {
	if s, ok := w.known[string(b)]; ok { // does not allocate
		return s
	}
	if len(w.known) >= maxWords {
		clear(w.known)
	}
	s := string(b)
	w.known[s] = s
	return s
}

// tolerant is how answers are read: letters that are no Unicode (a lone surrogate in a device's name,
// say) become U+FFFD rather than cost the whole refresh, and looking for repeated names in objects would
// take a quarter of the time.
var tolerant = []jsontext.Options{jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true)}

func newDecoder(r io.Reader, w words) *decoder {
	return &decoder{json: jsontext.NewDecoder(r, tolerant...), words: w}
}

// field is a field of a resource: how it is asked for and where its value goes. The tables of fields are
// the only place that knows either.
type field[T any] struct {
	// name is the field's name, which is its $select as well unless expand is set.
	name string
	// expand is the field's $expand option, for a navigation property that has to be read along.
	expand string
	// on tells whether a request asks for the field; nil for always.
	on  func(*Options, capabilities) bool
	set func(d *decoder, v jsontext.Value, to *T) error
}

// record is the fields that a request asks for, ready to be selected and decoded.
type record[T any] []field[T]

func (r record[T]) options() string {
	var selects, expands []string
	for _, f := range r {
		if f.expand != "" {
			expands = append(expands, f.expand)
		} else {
			selects = append(selects, f.name)
		}
	}
	s := "$select=" + strings.Join(selects, ",")
	if len(expands) > 0 {
		s += "&$expand=" + strings.Join(expands, ",")
	}
	return s
}

// wanted picks the fields of a table that are wanted.
func wanted[T any](table []field[T], o *Options, c capabilities) record[T] {
	var r record[T]
	for _, f := range table {
		if f.on == nil || f.on(o, c) {
			r = append(r, f)
		}
	}
	return r
}

// decodeAll reads a whole answer and calls each for every element in turn. The element is the same
// variable every time, set to blank before. An answer that is not the envelope around an array of
// objects, or does not end where it should, is an error.
func decodeAll[T any](d *decoder, fields record[T], blank T, each func(*T) error) error {
	if err := d.open(); err != nil {
		return err
	}
	if err := d.expect('['); err != nil {
		return err
	}
	var element T
	for n := 1; d.json.PeekKind() != ']'; n++ {
		element = blank
		if err := decodeObject(d, fields, &element); err != nil {
			return fmt.Errorf("element %d: %w", n, err)
		}
		if err := each(&element); err != nil {
			return fmt.Errorf("element %d: %w", n, err)
		}
	}
	if err := d.expect(']'); err != nil {
		return err
	}
	return d.end()
}

// decodeCount reads a whole answer that is a number, {"d": n}.
func decodeCount(d *decoder) (int, error) {
	if err := d.open(); err != nil {
		return 0, err
	}
	v, err := d.json.ReadValue()
	if err != nil {
		return 0, unreadable(err)
	}
	n, err := d.count(v)
	if err != nil {
		return 0, err
	}
	return n, d.end()
}

// open reads the beginning of an answer, up to what it is about.
func (d *decoder) open() error {
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

// end reads the end of an answer.
func (d *decoder) end() error {
	if err := d.expect('}'); err != nil {
		return err
	}
	if _, err := d.json.ReadToken(); err == nil {
		return errors.New("something follows the end of the answer")
	} else if !errors.Is(err, io.EOF) {
		return unreadable(err)
	}
	return nil
}

// decodeObject reads one object into to. Fields come in the same order in every object of an answer, so
// the next field is nearly always the one after the last.
func decodeObject[T any](d *decoder, fields record[T], to *T) error {
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
			continue // a field nobody asked for
		}
		if err := fields[i].set(d, value, to); err != nil {
			return fmt.Errorf("%s: %w", fields[i].name, err)
		}
		next = i + 1
	}
	return d.expect('}')
}

// find returns the index of the field of a name, trying at first; -1 if there is none.
func (r record[T]) find(name []byte, first int) int {
	for i := range r {
		j := first + i
		if j >= len(r) {
			j -= len(r)
		}
		if string(name) == r[j].name {
			return j
		}
	}
	return -1
}

// expect reads a bracket.
func (d *decoder) expect(kind jsontext.Kind) error {
	token, err := d.json.ReadToken()
	if err != nil {
		return unreadable(err)
	}
	if token.Kind() != kind {
		return fmt.Errorf("found %s where %s was expected", token.Kind(), kind)
	}
	return nil
}

// unreadable gives the end of the input in the middle of an answer, and JSON that is none, a name that says what
// happened.
func unreadable(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the answer is cut off: %w", io.ErrUnexpectedEOF)
	}
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return fmt.Errorf("the answer is not JSON: %w", syntax.Err)
	}
	return err
}

// What follows makes values of JSON. null is the zero value of everything but numbers, where it is NaN.

func isNull(v jsontext.Value) bool { return v.Kind() == 'n' }

// bytes returns the contents of a JSON string, valid until the next read.
func (d *decoder) bytes(v jsontext.Value) ([]byte, error) {
	if isNull(v) {
		return nil, nil
	}
	if v.Kind() != '"' {
		return nil, wrongType("a string", v)
	}
	if inner := v[1 : len(v)-1]; bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return inner, nil
	}
	// Letters that are no Unicode are replaced in what it returns, whatever it says of them.
	b, _ := jsontext.AppendUnquote(nil, v)
	return b, nil
}

// text is a string that is its element's own.
func (d *decoder) text(v jsontext.Value) (string, error) {
	b, err := d.bytes(v)
	return string(b), err
}

// word is a string that many elements have in common.
func (d *decoder) word(v jsontext.Value) (string, error) {
	b, err := d.bytes(v)
	return d.keep(b), err
}

func (d *decoder) boolean(v jsontext.Value) (bool, error) {
	switch v.Kind() {
	case 't':
		return true, nil
	case 'f', 'n':
		return false, nil
	}
	return false, wrongType("true or false", v)
}

func (d *decoder) integer(v jsontext.Value) (int64, error) {
	if isNull(v) {
		return 0, nil
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		return 0, wrongType("an integer", v)
	}
	return n, nil
}

func (d *decoder) number(v jsontext.Value) (float64, error) {
	if isNull(v) {
		return math.NaN(), nil
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil {
		return 0, wrongType("a number", v)
	}
	return f, nil
}

// instant reads a date such as "2026-11-22T14:09:34.280Z".
func (d *decoder) instant(v jsontext.Value) (Instant, error) {
	if isNull(v) {
		return 0, nil
	}
	if v.Kind() != '"' {
		return 0, wrongType("a date", v)
	}
	if i, ok := parseMilliseconds(v[1 : len(v)-1]); ok {
		return i, nil
	}
	t, err := time.Parse(time.RFC3339Nano, string(v[1:len(v)-1]))
	if err != nil {
		return 0, wrongType("a date", v)
	}
	return Instant(t.UnixMilli()), nil
}

// parseMilliseconds reads the one form in which the API writes dates, YYYY-MM-DDThh:mm:ss.sssZ, several
// times faster than [time.Parse]: there are five dates a device.
func parseMilliseconds(b []byte) (Instant, bool) {
	const form = "0000-00-00T00:00:00.000Z"
	if len(b) != len(form) {
		return 0, false
	}
	var numbers [7]int
	n := 0
	for i := range form {
		switch {
		case form[i] != '0':
			if b[i] != form[i] {
				return 0, false
			}
			n++
		case b[i] < '0' || b[i] > '9':
			return 0, false
		default:
			numbers[n] = numbers[n]*10 + int(b[i]-'0')
		}
	}
	year, month, day, hour, minute, second := numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5]
	if month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, numbers[6]*int(time.Millisecond), time.UTC)
	return Instant(t.UnixMilli()), t.Day() == day // 31 April would be 1 May
}

// reference reads a navigation property that was not expanded: {"__id": n} or null. (v6 writes some of
// them as plain numbers.)
func (d *decoder) reference(v jsontext.Value) (int64, error) {
	if v.Kind() != '{' {
		return d.integer(v)
	}
	const key = `{"__id":`
	if rest, ok := bytes.CutPrefix(v, []byte(key)); ok && len(rest) > 1 {
		if n, err := strconv.ParseInt(string(rest[:len(rest)-1]), 10, 64); err == nil {
			return n, nil
		}
	}
	// With blanks in it, or not a reference.
	compact := v.Clone()
	if err := compact.Compact(); err == nil && len(compact) < len(v) {
		return d.reference(compact)
	}
	return 0, wrongType(`{"__id": n}`, v)
}

// wrongType says what kind of value was found in place of what. It does not repeat the value, in which there
// may be anything.
func wrongType(want string, got jsontext.Value) error {
	found := map[jsontext.Kind]string{
		'"': "a string", '0': "a number", 't': "true", 'f': "false", 'n': "null", '{': "an object", '[': "an array",
	}[got.Kind()]
	return fmt.Errorf("found %s where %s was expected", found, want)
}

// into makes a field's setter of a reader of values and the place that the value goes to.
func into[T, V any](read func(*decoder, jsontext.Value) (V, error), place func(*T) *V) func(*decoder, jsontext.Value, *T) error {
	return func(d *decoder, v jsontext.Value, to *T) error {
		value, err := read(d, v)
		if err == nil {
			*place(to) = value
		}
		return err
	}
}
