// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The real server parses the request target without decoding it: %28 instead of a parenthesis is a syntax error. This parser
// does the same. Only a space may be written as %20 or +, the $ at the beginning of an option as %24, and any character in a
// string may be percent-encoded.

// A request is a parsed request target after the version. The conditions of resource(id) and resource(field='value',…) are part
// of its filter.
type request struct {
	resource string
	via      string // of resource(id)/via/$count, or empty
	count    bool   // ends in /$count
	options  options
	uncached bool // the response depends on the time, or on a fault
}

// pageStart returns the number in "id gt LAST", after which the requested page of a list begins, or nil.
func (r *request) pageStart() *value {
	if r == nil {
		return nil
	}
	return pageStart(r.options.filter)
}

func pageStart(e *expr) *value {
	switch {
	case e == nil:
		return nil
	case e.op == "and":
		return cmp.Or(pageStart(e.args[0]), pageStart(e.args[1]))
	case e.op == "gt" && e.args[0].isID() && e.args[1].op == opLiteral:
		return &e.args[1].literal
	}
	return nil
}

// options are $select, $filter and so on, of the request or of one expanded property.
type options struct {
	selects []string // nil without $select
	filter  *expr    // or nil
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
	key  *expr // a path or a count
	desc bool
}

type expr struct {
	op       string // the word of an operator or function, or one of the following
	args     []*expr
	path     []string
	variable string
	literal  value
}

// isID reports whether the expression is the id of the row.
func (e *expr) isID() bool { return e.op == opPath && len(e.path) == 1 && e.path[0] == "id" }

const (
	opLiteral = "literal"
	opPath    = "path"   // field, variable/field
	opCount   = "$count" // path/$count
	opAny     = "any"    // path/any(variable:args[0])
)

// The infix operators by precedence, the lowest first.
var infixes = [][]string{
	disjunction: {"or"},
	conjunction: {"and"},
	comparison:  {"eq", "ne", "gt", "ge", "lt", "le", "in"}, // args[0] in (args[1:])
	arithmetic:  {"add", "sub", "mul", "div", "mod"},
}

const (
	disjunction = iota
	conjunction
	comparison
	arithmetic
)

// textTests are the functions of texts.
var textTests = map[string]func(s, part string) bool{
	"startswith": strings.HasPrefix, "endswith": strings.HasSuffix, "contains": strings.Contains,
}

// A syntaxError is the cause of the status 400 "Malformed url".
type syntaxError struct{}

func (syntaxError) Error() string { return "malformed url" }

// A brokenQuery is an error in a query without syntax errors. The status is 500 with an empty body.
type brokenQuery string

func (e brokenQuery) Error() string { return string(e) }

type parser struct {
	s       string
	pos     int
	now     Time
	usesNow bool // the request contains now()
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
	r := &request{options: options{top: -1}}
	var key *expr
	if p.accept("$metadata") {
		r.resource = "$metadata"
		return r
	}
	r.resource = p.name()
	if p.accept("(") {
		if p.peekName() == "" {
			key = equals("id", intValue(p.integer()))
		} else {
			for _, condition := range commaSeparated(p, p.keyField) {
				key = andExpr(condition, key)
			}
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
	for more := p.accept("?"); more; more = p.accept("&") {
		p.topOption(&r.options)
	}
	if !p.end() {
		p.fail()
	}
	r.options.filter = andExpr(key, r.options.filter)
	r.uncached = p.usesNow
	return r
}

func equals(field string, v value) *expr {
	return &expr{op: "eq", args: []*expr{{op: opPath, path: []string{field}}, {op: opLiteral, literal: v}}}
}

// andExpr returns the conjunction of two conditions. Nil is no condition.
func andExpr(a, b *expr) *expr {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return &expr{op: "and", args: []*expr{a, b}}
}

// keyField parses field='value'.
func (p *parser) keyField() *expr {
	field := p.name()
	p.expect("=")
	return equals(field, p.literal().literal)
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
		o.filter = p.expression(disjunction)
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
	e := expand{property: p.name(), options: options{top: -1}}
	e.count = p.accept("/$count")
	if p.accept("(") {
		for more := true; more; more = p.accept(";") {
			p.expect("$")
			p.option(&e.options)
		}
		p.expect(")")
	}
	return e
}

// order parses one key of $orderby. Without a direction the real server sorts descending.
func (p *parser) order() order {
	o := order{key: p.path(), desc: true}
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
func (p *parser) path() *expr {
	e := &expr{op: opPath, path: []string{p.name()}}
	for {
		start := p.pos
		switch {
		case p.accept("/$count"):
			e.op = opCount
			return e
		case !p.accept("/"):
			return e
		case p.peekName() == "any":
			p.pos = start
			return e
		}
		e.path = append(e.path, p.name())
	}
}

// expression parses infix operators of at least a precedence.
func (p *parser) expression(precedence int) *expr {
	if precedence == len(infixes) {
		return p.primary()
	}
	operand := func() *expr { return p.expression(precedence + 1) }
	e := operand()
	for {
		i := slices.IndexFunc(infixes[precedence], p.infix)
		if i < 0 {
			return e
		}
		op := infixes[precedence][i]
		if op == "in" {
			p.expect("(")
			e = &expr{op: op, args: append([]*expr{e}, commaSeparated(p, operand)...)}
			p.expect(")")
		} else {
			e = &expr{op: op, args: []*expr{e, operand()}}
		}
		if precedence == comparison {
			return e // comparisons cannot be chained
		}
	}
}

func (p *parser) primary() *expr {
	p.spaces()
	if p.accept("(") {
		e := p.expression(disjunction)
		p.spaces()
		p.expect(")")
		return e
	}
	name := p.peekName()
	if textTests[name] != nil {
		p.pos += len(name)
		p.expect("(")
		a := p.expression(arithmetic)
		if !p.comma() {
			p.fail()
		}
		b := p.expression(arithmetic)
		p.expect(")")
		return &expr{op: name, args: []*expr{a, b}}
	}
	switch name {
	case "not":
		p.pos += len(name)
		p.spaces()
		return &expr{op: "not", args: []*expr{p.primary()}}
	case "", "true", "false", "null", "now", "datetime", "date", "duration":
		return p.literal()
	}
	e := p.path()
	if e.op == opPath && p.accept("/any(") {
		e.op, e.variable = opAny, p.name()
		p.expect(":")
		e.args = []*expr{p.expression(disjunction)}
		p.expect(")")
	}
	return e
}

func (p *parser) literal() *expr {
	word := p.peekName()
	p.pos += len(word)
	return &expr{op: opLiteral, literal: p.literalAfter(word)}
}

// literalAfter parses the rest of a literal that begins with a word, which may be empty.
func (p *parser) literalAfter(word string) value {
	switch word {
	case "":
		if p.quote() {
			return stringValue(p.text())
		}
		return intValue(p.integer())
	case "true", "false":
		return boolValue(word == "true")
	case "null":
		return value{}
	case "now":
		p.expect("()")
		p.usesNow = true
		return dateValue(p.now)
	case "datetime", "date":
		return dateValue(parseDate(p.quoted()))
	case "duration":
		return value{kind: kindDuration, n: int64(parseDuration(p.quoted()))}
	}
	panic(syntaxError{})
}

// quoted parses a string.
func (p *parser) quoted() string {
	if !p.quote() {
		p.fail()
	}
	return p.text()
}

// quote consumes a quote. Like the real server, it accepts %27.
func (p *parser) quote() bool { return p.accept("'") || p.accept("%27") }

// text parses a string after its first quote. A quote in the string is doubled, and any character may be percent-encoded.
func (p *parser) text() string {
	var text strings.Builder
	for closed := false; !closed; {
		switch {
		case !p.quote(): // another character
			if p.end() {
				panic(brokenQuery("unterminated string"))
			}
			text.WriteByte(p.s[p.pos])
			p.pos++
		case p.quote(): // a doubled quote
			text.WriteByte('\'')
		default: // a single quote
			closed = true
		}
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

// parseDuration parses an ISO 8601 duration of days, hours, minutes and seconds: P1D, PT1H30M. It panics with a brokenQuery if
// the text is not a duration.
func parseDuration(s string) time.Duration {
	unsigned, negative := strings.CutPrefix(s, "-")
	days, clock, hasClock := strings.Cut(strings.TrimPrefix(unsigned, "P"), "T")
	if days == "" {
		days = "0D"
	}
	if !hasClock {
		clock = "0S"
	}
	n, err := strconv.Atoi(strings.TrimSuffix(days, "D"))
	d, err2 := time.ParseDuration(strings.ToLower(clock))
	if err != nil || err2 != nil || !strings.HasSuffix(days, "D") {
		panic(brokenQuery("not a duration: " + s))
	}
	d += time.Duration(n) * 24 * time.Hour
	if negative {
		return -d
	}
	return d
}
