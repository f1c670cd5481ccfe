// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"math"
	"slices"
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
	// id returns the value of the field of the row's id, see [ID]; nil for other fields.
	id func(*T) int64
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

// ID returns the field of the row's id. Every query that is read with [List] has it.
func ID[T any](place func(*T) *int64) Field[T] {
	f := To("id", (*Decoder).Integer, place)
	f.id = func(row *T) int64 { return *place(row) }
	return f
}

// Expanded returns the field of an expanded navigation property of which one element is needed. The fields of the first
// element are read into place; further elements are ignored. Null and an empty array leave place unchanged.
func Expanded[T, E any](name string, place func(*T) *E, fields Record[E], options ...string) Field[T] {
	return Field[T]{
		Name: name, Expand: fields.expand(name, options),
		Set: func(d *Decoder, v jsontext.Value, to *T) error {
			if isNull(v) {
				return nil
			}
			elements, err := d.elements(v)
			if err != nil {
				return err
			}
			if err := elements.expect('['); err != nil || elements.json.PeekKind() == ']' {
				return err
			}
			return decodeObject(elements, fields, place(to))
		},
	}
}

// Derived returns a field of an expanded navigation property whose values repeat: the text is made of all elements, and only
// once for each value.
func Derived[T, E any, S ~string](name string, place func(*T) *S, text func([]E) S, fields Record[E], options ...string) Field[T] {
	return Field[T]{
		Name: name, Expand: fields.expand(name, options),
		Set: func(d *Decoder, v jsontext.Value, to *T) error {
			if isNull(v) {
				*place(to) = ""
				return nil
			}
			if known, ok := d.derived[string(v)]; ok {
				*place(to) = S(known)
				return nil
			}
			nested, err := d.elements(v)
			if err != nil {
				return err
			}
			var elements []E
			if err := decodeArray(nested, fields, *new(E), func(e *E) error {
				elements = append(elements, *e)
				return nil
			}); err != nil {
				return err
			}
			kept := d.keep([]byte(text(elements)))
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

// options returns the options $select and $expand of a request.
func (r Record[T]) options() []string {
	var selects, expands []string
	for _, f := range r {
		if f.Expand != "" {
			expands = append(expands, f.Expand)
		} else {
			selects = append(selects, f.Name)
		}
	}
	options := []string{"$select=" + strings.Join(selects, ",")}
	if len(expands) > 0 {
		options = append(options, "$expand="+strings.Join(expands, ","))
	}
	return options
}

// expand returns the $expand option of a navigation property with the fields of its elements.
func (r Record[T]) expand(name string, more []string) string {
	return name + "(" + strings.Join(append(r.options(), more...), ";") + ")"
}

// id returns the function that returns the id of a row.
func (r Record[T]) id() func(*T) int64 {
	return r[slices.IndexFunc(r, func(f Field[T]) bool { return f.id != nil })].id
}

// Null returns a row in which every field is null.
func (r Record[T]) Null() (row T) {
	d := ValueDecoder()
	for _, f := range r {
		_ = f.Set(d, jsontext.Value("null"), &row) // null is a value of every field
	}
	return row
}
