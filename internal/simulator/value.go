// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"reflect"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindInt
	kindString
	kindDate
	kindRef // a foreign key: {"__id": n}
	kindDuration
	kindJSON // an object or array, as text
)

// jsonText is an object or array in JSON.
type jsonText string

// kinds are the kinds of the fields of rows, by type. An int is a foreign key.
var kinds = map[reflect.Type]kind{
	reflect.TypeFor[bool]():     kindBool,
	reflect.TypeFor[int]():      kindRef,
	reflect.TypeFor[string]():   kindString,
	reflect.TypeFor[Time]():     kindDate,
	reflect.TypeFor[Number]():   kindInt,
	reflect.TypeFor[jsonText](): kindJSON,
}

func kindOf(t reflect.Type) kind {
	k, ok := kinds[t]
	if !ok {
		panic("a field has the type " + t.String())
	}
	return k
}

// valueOf returns the value of a field of a row.
func valueOf(k kind, v reflect.Value) value {
	switch k {
	case kindBool:
		return boolValue(v.Bool())
	case kindRef:
		return refValue(int(v.Int()))
	case kindDate:
		return dateValue(Time(v.Int()))
	case kindInt:
		if valid, n := v.Field(0), v.Field(1); valid.Bool() { // of a Number
			return intValue(n.Int())
		}
		return value{}
	}
	return value{kind: k, s: v.String()}
}

// A value is the value of a field of a row.
type value struct {
	kind kind
	n    int64
	s    string
}

func boolValue(b bool) value {
	if b {
		return value{kind: kindBool, n: 1}
	}
	return value{kind: kindBool}
}

func intValue(n int64) value { return value{kind: kindInt, n: n} }

func stringValue(s string) value { return value{kind: kindString, s: s} }

// dateValue returns null for the zero time.
func dateValue(t Time) value {
	if t == 0 {
		return value{}
	}
	return value{kind: kindDate, n: int64(t)}
}

// refValue returns null for id 0.
func refValue(id int) value {
	if id == 0 {
		return value{}
	}
	return value{kind: kindRef, n: int64(id)}
}

// appendJSON appends the value as JSON in the format of the API.
func (v value) appendJSON(b []byte) []byte {
	switch v.kind {
	case kindBool:
		return strconv.AppendBool(b, v.n != 0)
	case kindInt, kindDuration:
		return strconv.AppendInt(b, v.n, 10)
	case kindString:
		return appendString(b, v.s)
	case kindJSON:
		return append(b, v.s...)
	case kindDate:
		return append(appendTime(append(b, '"'), Time(v.n)), '"')
	case kindRef:
		b = append(b, `{"__id":`...)
		return append(strconv.AppendInt(b, v.n, 10), '}')
	}
	return append(b, "null"...)
}

// appendTime appends a time in the format 2006-01-02T15:04:05.000Z.
func appendTime(b []byte, t Time) []byte {
	return time.UnixMilli(int64(t)).UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
}

// appendString appends a JSON string with only the necessary escapes, like JavaScript. Invalid UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // the only error is invalid UTF-8
	return b
}
