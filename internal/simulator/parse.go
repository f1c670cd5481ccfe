// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The real server parses the request target without decoding it: %28 instead of a parenthesis is a syntax error. This parser
// does the same. Only a space may be written as %20 or +, the $ at the beginning of an option as %24, and any character in a
// string may be percent-encoded.

// A request is a parsed request target after the version.
type request struct {
	resource string
	id       int    // of resource(id), if hasID
	hasID    bool   //
	key      *expr  // of resource(field='value',…), or nil
	via      string // of resource(id)/via/$count, or empty
	count    bool   // ends in /$count
	options  options
}

// options are $select, $filter and so on, of the request or of one expanded property.
type options struct {
	selects []string // nil without $select
	filter  *expr
	expands []expand
	orders  []order
	top     int // -1 without $top
	skip    int
}

type expand struct {
	property string
	count    bool
	options  options
}

type order struct {
	path  []string
	count bool
	desc  bool
}

type operator uint8

const (
	opLiteral operator = iota
	opPath             // path: field, variable/field
	opCount            // path/$count
	opAny              // path/any(variable:args[0])
	opAnd
	opOr
	opNot
	opEq
	opNe
	opGt
	opGe
	opLt
	opLe
	opIn // args[0] in (args[1:])
	opAdd
	opSub
	opMul
	opDiv
	opMod
	opStartsWith
	opEndsWith
	opContains
)

type expr struct {
	op       operator
	args     []*expr
	path     []string
	variable string
	literal  value
}

// A syntaxError is the cause of the status 400 "Malformed url".
type syntaxError struct{}

func (syntaxError) Error() string { return "malformed url" }

// A brokenQuery is an error in a query without syntax errors. The status is 500 with an empty body.
type brokenQuery string

func (e brokenQuery) Error() string { return string(e) }

type parser struct {
	s   string
	pos int
	now Time
}

// parse parses the request target after the version, such as "device(1)?$select=id". The methods of the parser panic with the
// two error types above.
func parse(target string, now Time) (r *request, err error) {
	defer func() { err = cause(recover()) }()
	p := &parser{s: target, now: now}
	return p.request(), nil
}

// cause returns the error of a recovered panic of the parser or the compiler. Other panics continue.
func cause(recovered any) error {
	switch e := recovered.(type) {
	case nil:
		return nil
	case syntaxError, brokenQuery, forbidden:
		return e.(error)
	}
	panic(recovered)
}

func (p *parser) fail() { panic(syntaxError{}) }

// accept consumes the text if it is next.
func (p *parser) accept(text string) bool {
	if strings.HasPrefix(p.s[p.pos:], text) {
		p.pos += len(text)
		return true
	}
	return false
}

func (p *parser) expect(text string) {
	if !p.accept(text) {
		p.fail()
	}
}

func (p *parser) end() bool { return p.pos == len(p.s) }

// spaces consumes white space and reports whether there was any.
func (p *parser) spaces() bool {
	start := p.pos
	for p.accept("%20") || p.accept("+") || p.accept(" ") || p.accept("%09") {
	}
	return p.pos > start
}

// infix consumes a word between white space.
func (p *parser) infix(word string) bool {
	start := p.pos
	if p.spaces() && p.accept(word) {
		if p.spaces() || strings.HasPrefix(p.s[p.pos:], "(") {
			return true
		}
	}
	p.pos = start
	return false
}

func isNameByte(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// peekName returns the next identifier, or "".
func (p *parser) peekName() string {
	end := p.pos
	for end < len(p.s) && isNameByte(p.s[end]) {
		end++
	}
	name := p.s[p.pos:end]
	if name == "" || name[0] <= '9' {
		return ""
	}
	return name
}

func (p *parser) name() string {
	n := p.peekName()
	if n == "" {
		p.fail()
	}
	p.pos += len(n)
	return n
}

func (p *parser) request() *request {
	r := &request{}
	r.options.top = -1
	if p.accept("$metadata") {
		r.resource = "$metadata"
		return r
	}
	r.resource = p.name()
	if p.accept("(") {
		if p.peekName() != "" {
			for first := true; first || p.accept(","); first = false {
				field := p.name()
				p.expect("=")
				r.key = andExpr(&expr{op: opEq, args: []*expr{{op: opPath, path: []string{field}}, p.literal()}}, r.key)
			}
		} else {
			r.id, r.hasID = int(p.integer()), true
		}
		p.expect(")")
	}
	if p.accept("/$count") {
		r.count = true
	} else if p.accept("/") {
		r.via = p.name()
		p.expect("/$count")
		r.count = true
	}
	if p.accept("?") {
		for {
			p.topOption(&r.options)
			if !p.accept("&") {
				break
			}
		}
	}
	if !p.end() {
		p.fail()
	}
	return r
}

// topOption parses one option of the query string. Options without a $ are ignored.
func (p *parser) topOption(o *options) {
	if !p.accept("$") && !p.accept("%24") {
		for !p.end() && p.s[p.pos] != '&' {
			p.pos++
		}
		return
	}
	if slices.ContainsFunc(ignored, p.accept) {
		return
	}
	p.option(o)
}

// ignored are the options that do not change the response.
var ignored = []string{"format=json", "count=true", "count=false", "inlinecount=allpages", "inlinecount=none"}

// option parses an option after its $.
func (p *parser) option(o *options) {
	name := p.name()
	p.expect("=")
	switch name {
	case "select":
		o.selects = commaSeparated(p, p.name)
	case "filter":
		o.filter = p.or()
	case "expand":
		o.expands = commaSeparated(p, p.expand)
	case "orderby":
		o.orders = commaSeparated(p, p.order)
	case "top":
		o.top = int(p.natural())
	case "skip":
		o.skip = int(p.natural())
	default:
		p.fail()
	}
}

// commaSeparated parses a list of at least one element.
func commaSeparated[E any](p *parser, element func() E) []E {
	list := []E{element()}
	for p.comma() {
		list = append(list, element())
	}
	return list
}

func (p *parser) comma() bool {
	start := p.pos
	p.spaces()
	if p.accept(",") {
		p.spaces()
		return true
	}
	p.pos = start
	return false
}

func (p *parser) expand() expand {
	e := expand{property: p.name()}
	e.options.top = -1
	e.count = p.accept("/$count")
	if p.accept("(") {
		for {
			p.expect("$")
			p.option(&e.options)
			if !p.accept(";") {
				break
			}
		}
		p.expect(")")
	}
	return e
}

// order parses one key of $orderby. Without a direction the real server sorts descending.
func (p *parser) order() order {
	o := order{desc: true}
	o.path, o.count = p.path()
	start := p.pos
	if p.spaces() {
		switch {
		case p.accept("asc"):
			o.desc = false
		case p.accept("desc"):
		default:
			p.pos = start
		}
	}
	return o
}

// path parses a/b/c, or a/b/$count.
func (p *parser) path() (path []string, count bool) {
	path = []string{p.name()}
	for {
		start := p.pos
		if !p.accept("/") {
			return path, false
		}
		if p.accept("$count") {
			return path, true
		}
		if p.peekName() == "any" {
			p.pos = start
			return path, false
		}
		path = append(path, p.name())
	}
}

func (p *parser) or() *expr {
	e := p.and()
	for p.infix("or") {
		e = &expr{op: opOr, args: []*expr{e, p.and()}}
	}
	return e
}

func (p *parser) and() *expr {
	e := p.comparison()
	for p.infix("and") {
		e = &expr{op: opAnd, args: []*expr{e, p.comparison()}}
	}
	return e
}

var comparisons = []struct {
	word string
	op   operator
}{{"eq", opEq}, {"ne", opNe}, {"gt", opGt}, {"ge", opGe}, {"lt", opLt}, {"le", opLe}}

func (p *parser) comparison() *expr {
	left := p.arithmetic()
	for _, c := range comparisons {
		if p.infix(c.word) {
			return &expr{op: c.op, args: []*expr{left, p.arithmetic()}}
		}
	}
	if p.infix("in") {
		p.expect("(")
		e := &expr{op: opIn, args: append([]*expr{left}, commaSeparated(p, p.arithmetic)...)}
		p.expect(")")
		return e
	}
	return left
}

var arithmetic = []struct {
	word string
	op   operator
}{{"add", opAdd}, {"sub", opSub}, {"mul", opMul}, {"div", opDiv}, {"mod", opMod}}

func (p *parser) arithmetic() *expr {
	e := p.primary()
again:
	for _, a := range arithmetic {
		if p.infix(a.word) {
			e = &expr{op: a.op, args: []*expr{e, p.primary()}}
			goto again
		}
	}
	return e
}

func (p *parser) primary() *expr {
	p.spaces()
	if p.accept("(") {
		e := p.or()
		p.spaces()
		p.expect(")")
		return e
	}
	switch name := p.peekName(); name {
	case "not":
		p.pos += len(name)
		p.spaces()
		return &expr{op: opNot, args: []*expr{p.primary()}}
	case "startswith", "endswith", "contains":
		p.pos += len(name)
		p.expect("(")
		a := p.arithmetic()
		if !p.comma() {
			p.fail()
		}
		b := p.arithmetic()
		p.expect(")")
		op := map[string]operator{"startswith": opStartsWith, "endswith": opEndsWith, "contains": opContains}[name]
		return &expr{op: op, args: []*expr{a, b}}
	case "now":
		p.pos += len(name)
		p.expect("()")
		return &expr{op: opLiteral, literal: dateValue(p.now)}
	case "", "true", "false", "null", "datetime", "date", "duration":
		return p.literal()
	}
	path, count := p.path()
	if count {
		return &expr{op: opCount, path: path}
	}
	if !p.accept("/any(") {
		return &expr{op: opPath, path: path}
	}
	e := &expr{op: opAny, path: path, variable: p.name()}
	p.expect(":")
	e.args = []*expr{p.or()}
	p.expect(")")
	return e
}

func (p *parser) literal() *expr {
	lit := func(v value) *expr { return &expr{op: opLiteral, literal: v} }
	switch name := p.peekName(); name {
	case "true", "false":
		p.pos += len(name)
		return lit(boolValue(name == "true"))
	case "null":
		p.pos += len(name)
		return lit(value{})
	case "datetime", "date":
		p.pos += len(name)
		return lit(dateValue(parseDate(p.quoted())))
	case "duration":
		p.pos += len(name)
		return lit(value{kind: kindDuration, n: int64(p.duration(p.quoted()))})
	}
	if p.peekQuote() > 0 {
		return lit(stringValue(p.quoted()))
	}
	return lit(intValue(p.integer()))
}

// peekQuote returns the length of the next quote, or 0. Like the real server, it accepts %27 as a quote.
func (p *parser) peekQuote() int {
	switch rest := p.s[p.pos:]; {
	case strings.HasPrefix(rest, "'"):
		return 1
	case strings.HasPrefix(rest, "%27"):
		return 3
	}
	return 0
}

// quoted parses a string. A quote in the string is doubled, and any character may be percent-encoded.
func (p *parser) quoted() string {
	quote := func() bool {
		n := p.peekQuote()
		p.pos += n
		return n > 0
	}
	if !quote() {
		p.fail()
	}
	var text strings.Builder
	for {
		start := p.pos
		for !p.end() && p.peekQuote() == 0 {
			p.pos++
		}
		text.WriteString(p.s[start:p.pos])
		if !quote() {
			panic(brokenQuery("unterminated string"))
		}
		if !quote() {
			break
		}
		text.WriteByte('\'')
	}
	s, err := url.PathUnescape(text.String())
	if err != nil {
		p.fail()
	}
	return s
}

func (p *parser) integer() int64 {
	if p.accept("-") {
		return -p.natural()
	}
	return p.natural()
}

func (p *parser) natural() int64 {
	end := p.pos
	for end < len(p.s) && '0' <= p.s[end] && p.s[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(p.s[p.pos:end], 10, 64)
	if err != nil {
		p.fail()
	}
	p.pos = end
	return n
}

// parseDate panics with a brokenQuery if the text is not a date.
func parseDate(s string) Time {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return At(t)
		}
	}
	panic(brokenQuery("not a date: " + s))
}

// duration parses an ISO 8601 duration of days, hours, minutes and seconds: P1D, PT1H30M.
func (p *parser) duration(s string) time.Duration {
	negative := strings.HasPrefix(s, "-")
	days, clock, hasClock := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(s, "-"), "P"), "T")
	var d time.Duration
	if days != "" {
		n, err := strconv.Atoi(strings.TrimSuffix(days, "D"))
		if err != nil || !strings.HasSuffix(days, "D") {
			panic(brokenQuery("not a duration: " + s))
		}
		d = time.Duration(n) * 24 * time.Hour
	}
	if hasClock {
		c, err := time.ParseDuration(strings.ToLower(clock))
		if err != nil {
			panic(brokenQuery("not a duration: " + s))
		}
		d += c
	}
	if negative {
		return -d
	}
	return d
}
