// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Field is a field of a resource: how to request it, and where to store its value. Only tables of fields know both.
type Field[T any] struct {
	// Name is the field's name, which is its $select as well unless Expand is set.
	Name string
	// Expand is the field's $expand option, for a navigation property that is read in the same request.
	Expand string
	// Set reads a value into a row.
	Set func(d *Decoder, v jsontext.Value, to *T) error
	// Same reports whether two rows have the same value; nil if rows are not compared by the field.
	Same func(a, b *T) bool
}

// To returns the field with a name. Its values are read by read and stored at place in the row.
func To[T any, V comparable](name string, read func(*Decoder, jsontext.Value) (V, error), place func(*T) *V) Field[T] {
	return Field[T]{
		Name: name,
		Set: func(d *Decoder, v jsontext.Value, to *T) error {
			value, err := read(d, v)
			if err == nil {
				*place(to) = value
			}
			return err
		},
		Same: func(a, b *T) bool { return *place(a) == *place(b) },
	}
}

// Expanded returns the field of an expanded navigation property. Its value is an array, which has at most one element for
// a foreign key. set gets the first element, and is not called if there is none. Such values are rare, one to three per
// fleet, so the standard decoder reads them.
func Expanded[E, T any](name, expand string, set func(*Decoder, E, *T) error) Field[T] {
	return Field[T]{
		Name: name, Expand: expand,
		Set: func(d *Decoder, v jsontext.Value, to *T) error {
			var elements []E
			if err := json.Unmarshal(v, &elements); err != nil {
				return wrongElement(err, v)
			}
			if len(elements) == 0 {
				return nil
			}
			return set(d, elements[0], to)
		},
	}
}

// Reference is a navigation property that was not expanded, of a row that was; see [Decoder.Reference].
type Reference int64

// UnmarshalJSON implements [json.Unmarshaler].
func (r *Reference) UnmarshalJSON(v []byte) error {
	id, err := ValueDecoder().Reference(v)
	if err != nil {
		kind := map[jsontext.Kind]string{'{': "object", '[': "array", '"': "string", '0': "number", 't': "bool", 'f': "bool"}[jsontext.Value(v).Kind()]
		return &json.UnmarshalTypeError{Value: kind, Type: reflect.TypeFor[Reference]()}
	}
	*r = Reference(id)
	return nil
}

// wrongElement returns an error that names the value in an array of objects that could not be read, and the reason. Like
// [wrongType], it does not repeat the value.
func wrongElement(err error, got jsontext.Value) error {
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok || wrong.Field == "" {
		return wrongType("an array of objects", got)
	}
	want := map[reflect.Kind]string{
		reflect.String: "a string", reflect.Bool: "true or false", reflect.Int64: "an integer", reflect.Slice: "an array of objects", reflect.Struct: "an object",
	}[wrong.Type.Kind()]
	if wrong.Type == reflect.TypeFor[Reference]() {
		want = referenceForm
	}
	kind, _, _ := strings.Cut(wrong.Value, " ") // after "number", the number itself follows
	found := map[string]string{"object": "an object", "array": "an array", "string": "a string", "number": "a number", "bool": "a boolean"}[kind]
	return fmt.Errorf("%s: found %s where %s was expected", wrong.Field, found, want)
}

// Derived returns a field of an expanded navigation property whose values repeat: the text is made of all elements, and only
// once for each value.
func Derived[E any, S ~string, T any](name, expand string, text func([]E) S, place func(*T) *S) Field[T] {
	return Field[T]{
		Name: name, Expand: expand,
		Set: func(d *Decoder, v jsontext.Value, to *T) error {
			if isNull(v) {
				*place(to) = ""
				return nil
			}
			if known, ok := d.derived[string(v)]; ok {
				*place(to) = S(known)
				return nil
			}
			var elements []E
			if err := json.Unmarshal(v, &elements); err != nil {
				return wrongElement(err, v)
			}
			kept := d.Keep(string(text(elements)))
			*place(to) = S(kept)
			if len(v) <= maxWord {
				d.grow(len(v))
				d.derived[string(v)] = kept
			}
			return nil
		},
		Same: func(a, b *T) bool { return *place(a) == *place(b) },
	}
}

// Keep interns a text that many rows share: it is in memory only once.
func (d *Decoder) Keep(s string) string { return d.keep([]byte(s)) }

// Count reads the number that $expand=…/$count leaves under the name of the navigation property.
func (d *Decoder) Count(v jsontext.Value) (int, error) {
	n, err := d.Integer(v)
	if err == nil && (n < 0 || n > math.MaxInt32) {
		return 0, fmt.Errorf("invalid count %d", n)
	}
	return int(n), err
}

// Record is the list of fields of a request.
type Record[T any] []Field[T]

func (r Record[T]) options() string {
	var selects, expands []string
	for _, f := range r {
		if f.Expand != "" {
			expands = append(expands, f.Expand)
		} else {
			selects = append(selects, f.Name)
		}
	}
	s := "$select=" + strings.Join(selects, ",")
	if len(expands) > 0 {
		s += "&$expand=" + strings.Join(expands, ",")
	}
	return s
}

// Null returns a row in which every field is null.
func (r Record[T]) Null() (row T) {
	d := ValueDecoder()
	for _, f := range r {
		_ = f.Set(d, jsontext.Value("null"), &row) // null is a value of every field
	}
	return row
}
