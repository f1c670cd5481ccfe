// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"strconv"
	"time"
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

// wordValue returns null for the empty string.
func wordValue(s string) value {
	if s == "" {
		return value{}
	}
	return stringValue(s)
}

// jsonValue returns null for the empty string.
func jsonValue(s string) value {
	if s == "" {
		return value{}
	}
	return value{kind: kindJSON, s: s}
}

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

func numberValue(n Number) value {
	if !n.valid {
		return value{}
	}
	return intValue(int64(n.n))
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
	u := time.UnixMilli(int64(t)).UTC()
	year, month, day := u.Date()
	hour, minute, second := u.Clock()
	b = appendDigits(b, year, 4)
	b = appendDigits(append(b, '-'), int(month), 2)
	b = appendDigits(append(b, '-'), day, 2)
	b = appendDigits(append(b, 'T'), hour, 2)
	b = appendDigits(append(b, ':'), minute, 2)
	b = appendDigits(append(b, ':'), second, 2)
	b = appendDigits(append(b, '.'), u.Nanosecond()/int(time.Millisecond), 3)
	return append(b, 'Z')
}

func appendDigits(b []byte, n, width int) []byte {
	for range width {
		b = append(b, '0')
	}
	for i := len(b) - 1; width > 0; width, i, n = width-1, i-1, n/10 {
		b[i] = byte('0' + n%10)
	}
	return b
}

// appendString appends a JSON string with only the necessary escapes, like JavaScript.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		case '\b':
			b = append(b, `\b`...)
		case '\f':
			b = append(b, `\f`...)
		default:
			const hex = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
