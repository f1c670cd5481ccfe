// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"cmp"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
)

// forbidden is the error of requests without access, and of requests for unknown resources. The status is 401.
type forbidden struct{}

func (forbidden) Error() string { return "unauthorized" }

// caller is the owner of a token.
type caller struct {
	user   bool // a user, who can read all resources
	device int  // id of the device, if the token is a device key
}

func (c caller) guest() bool { return !c.user && c.device == 0 }

// compiler compiles a parsed request to functions of rows. Its methods panic with a brokenQuery or forbidden, which
// [database.execute] returns.
type compiler struct {
	*view
	caller caller
}

// A variable is the row of a query, or that of a lambda. Predicates and operands refer to its current row.
type variable struct {
	name     string // empty for the row of the query
	resource *resource
	outer    *variable // of the scope around the lambda
	row      row
}

// truth is a three-valued truth value, as in SQL.
type truth int8

const (
	no      truth = -1
	unknown truth = 0
	yes     truth = 1
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

type (
	predicate func() truth
	operand   func() value
)

// execute executes the request and appends the response body.
func (db *database) execute(b []byte, c *compiler, r *request) (_ []byte, err error) {
	defer func() { err = cause(recover()) }()
	res := c.resource(r.resource)
	l := c.list(res, &r.options)
	table, access := res.table(db), c.access()
	b = append(b, `{"d":`...)
	switch {
	case r.via != "":
		n, follow := 0, c.follow(c.navigation(res, r.via))
		for _, r := range l.scan(table, access) {
			n += len(follow(r))
		}
		b = strconv.AppendInt(b, int64(n), 10)
	case r.count:
		n := 0
		for range l.matching(table, access) {
			n++
		}
		b = strconv.AppendInt(b, int64(n), 10)
	default:
		b = l.appendRows(b, l.scan(table, access))
	}
	return append(b, '}'), nil
}

func (c *compiler) resource(name string) *resource {
	res, ok := c.schema[name]
	if !ok {
		panic(forbidden{})
	}
	public := res.public == allServers || res.public == onlyCloud && c.cfg.Edition == Cloud
	if !public && !c.caller.user && !(c.caller.device != 0 && name == "device") {
		panic(forbidden{})
	}
	return res
}

// other returns the target of a navigation. A resource that is not simulated has no fields.
func (c *compiler) other(nav navigation) *resource {
	if nav.key == nil && nav.back == nil || c.schema[nav.target] == nil {
		return &resource{name: nav.target}
	}
	return c.resource(nav.target)
}

// access returns a function that reports whether the caller can read a row.
func (c *compiler) access() func(row) bool {
	if c.caller.user {
		return func(row) bool { return true }
	}
	callersFleet := 0
	if d, ok := c.db.Devices.find(c.caller.device).(*Device); ok {
		callersFleet = d.FleetID
	}
	fleet := func(id int) bool {
		f, ok := c.db.Fleets.find(id).(*Fleet)
		return ok && f.IsPublic || id == callersFleet && callersFleet != 0
	}
	release := func(id int) bool {
		r, ok := c.db.Releases.find(id).(*Release)
		return ok && fleet(r.FleetID)
	}
	return func(r row) bool {
		switch r := r.(type) {
		case *Fleet:
			return fleet(r.ID)
		case *Release:
			return fleet(r.FleetID)
		case *Service:
			return fleet(r.FleetID)
		case *FleetTag:
			return fleet(r.FleetID)
		case *ReleaseTag:
			return release(r.ReleaseID)
		case *Image:
			return release(r.ReleaseID)
		case *Device:
			return r.ID == c.caller.device
		}
		return true
	}
}

func (c *compiler) field(res *resource, name string) *field {
	f, ok := res.byName[name]
	if !ok || !c.has(f) {
		panic(brokenQuery("no such field: " + name))
	}
	return f
}

func (c *compiler) has(f *field) bool {
	switch f.only {
	case onlyV6:
		return c.v6
	case onlyV7:
		return !c.v6
	case onlyCloud:
		return c.cfg.CloudFields || c.cfg.Edition == Cloud
	}
	return true
}

func (c *compiler) navigation(res *resource, name string) navigation {
	nav, ok := res.navs[name]
	if !ok || nav.key != nil && !c.has(nav.key) {
		panic(brokenQuery("no such navigation: " + name))
	}
	return nav
}

// follow returns a function that returns the target rows of a navigation, which are valid until the next call.
func (c *compiler) follow(nav navigation) func(row) []row {
	target, ok := c.schema[nav.target]
	if !ok || nav.key == nil && nav.back == nil {
		return func(row) []row { return nil }
	}
	table := target.table(c.db)
	key := func(r row) int { return int(nav.back.get(c.view, r).n) }
	var found []row
	return func(r row) []row {
		found = found[:0]
		switch {
		case nav.key != nil:
			if v := nav.key.get(c.view, r); v.kind == kindRef {
				if other := table.find(int(v.n)); other != nil {
					found = append(found, other)
				}
			}
		case nav.back.scan:
			for i := range table.Len() {
				if other := table.at(i); key(other) == r.meta().ID {
					found = append(found, other)
				}
			}
		default:
			found = table.referrers(found, nav.back.name, key, r.meta().ID)
		}
		return found
	}
}

// A list is a compiled query for rows and columns of a resource.
type list struct {
	c       *compiler
	current variable
	filter  predicate // of the current row, or nil
	after   int       // ids of matching rows are higher
	ids     []int     // ids of possible matches, or nil
	compare func(a, b row) int
	byID    bool // compare sorts by ascending id, which is the order of tables
	newest  bool // compare sorts by descending id
	top     int  // -1 for all
	skip    int
	columns []column
	rows    []row // of the last response
}

// column is a property of the rows in a response.
type column struct {
	key    []byte
	field  *field          // or
	follow func(row) []row // for navigations
	count  bool
	nested *list
}

func (c *compiler) list(res *resource, o *options) *list {
	l := &list{c: c, current: variable{resource: res}, after: math.MinInt, top: o.top, skip: o.skip}
	if o.filter != nil {
		l.filter = c.predicate(&l.current, o.filter)
		l.narrow(o.filter)
	}
	l.compare = c.ordering(res, o.orders)
	if len(o.orders) > 0 && o.orders[0].key.isID() {
		l.byID, l.newest = !o.orders[0].desc, o.orders[0].desc
	}
	expanded := make(map[string]bool)
	for _, e := range o.expands {
		nav := c.navigation(res, e.property)
		target := c.other(nav)
		s := column{key: append(appendString(nil, e.property), ':'), follow: c.follow(nav), count: e.count, nested: c.list(target, &e.options)}
		expanded[e.property] = true
		// If a navigation is expanded twice, the last one applies.
		l.columns = slices.DeleteFunc(l.columns, func(o column) bool { return bytes.Equal(o.key, s.key) })
		l.columns = append(l.columns, s)
	}
	selects := o.selects
	if selects == nil {
		for _, f := range res.fields {
			if c.has(f) {
				selects = append(selects, f.name)
			}
		}
	}
	for _, name := range selects {
		if f := c.field(res, name); !expanded[name] {
			l.columns = append(l.columns, column{key: f.key, field: f})
		}
	}
	return l
}

// narrow limits the scan of the table by the conditions on ids, so that reading a page does not scan the whole table.
func (l *list) narrow(e *expr) {
	switch e.op {
	case "and":
		l.narrow(e.args[0])
		l.narrow(e.args[1])
	case "gt", "eq", "in":
		if !e.args[0].isID() {
			return
		}
		var ids []int
		for _, a := range e.args[1:] {
			if a.op != opLiteral || a.literal.kind != kindInt {
				return
			}
			ids = append(ids, int(a.literal.n))
		}
		if e.op == "gt" {
			l.after = max(l.after, ids[0])
			return
		}
		slices.Sort(ids)
		l.ids = slices.Compact(ids)
	}
}

func (l *list) matches(r row) bool {
	l.current.row = r
	return l.filter == nil || l.filter() == yes
}

// scan returns the matching rows of a table, with the order and limits of the query.
func (l *list) scan(t relation, access func(row) bool) []row {
	limit := math.MaxInt
	if (l.byID || l.newest) && l.top >= 0 {
		limit = l.skip + l.top
	}
	l.rows = l.rows[:0]
	for r := range l.matching(t, access) {
		if len(l.rows) >= limit {
			break
		}
		l.rows = append(l.rows, r)
	}
	return l.cut(l.rows)
}

// matching yields the matching rows of a table by ascending id, or by descending id if newest is set.
func (l *list) matching(t relation, access func(row) bool) iter.Seq[row] {
	return func(yield func(row) bool) {
		first, _ := t.search(l.after + 1)
		n, at := t.Len()-first, func(i int) row { return t.at(first + i) }
		if l.ids != nil {
			n, at = len(l.ids), func(i int) row { return t.find(l.ids[i]) }
		}
		for i := range n {
			if l.newest {
				i = n - 1 - i
			}
			if r := at(i); r != nil && access(r) && l.matches(r) && !yield(r) {
				return
			}
		}
	}
}

// cut sorts the rows in place and applies $skip and $top.
func (l *list) cut(rows []row) []row {
	if !l.byID {
		slices.SortStableFunc(rows, l.compare)
	}
	rows = rows[min(l.skip, len(rows)):]
	if l.top >= 0 {
		rows = rows[:min(l.top, len(rows))]
	}
	return rows
}

// appendRows appends the rows as a JSON array.
func (l *list) appendRows(b []byte, rows []row) []byte {
	b = append(b, '[')
	for i, r := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		b = l.appendRow(b, r)
	}
	return append(b, ']')
}

func (l *list) appendRow(b []byte, r row) []byte {
	b = append(b, '{')
	for i := range l.columns {
		s := &l.columns[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, s.key...)
		if s.field != nil {
			b = s.field.get(l.c.view, r).appendJSON(b)
			continue
		}
		b = s.appendNested(b, r)
	}
	return append(b, '}')
}

func (s *column) appendNested(b []byte, r row) []byte {
	n := s.nested
	n.rows = n.rows[:0]
	for _, r := range s.follow(r) {
		if n.matches(r) {
			n.rows = append(n.rows, r)
		}
	}
	if s.count {
		return strconv.AppendInt(b, int64(len(n.rows)), 10)
	}
	return n.appendRows(b, n.cut(n.rows))
}

// ordering compiles $orderby. Without it, rows are sorted by modified_at, similar to the order in the real database. Clients
// must not rely on an order by id.
func (c *compiler) ordering(res *resource, orders []order) func(a, b row) int {
	if len(orders) == 0 {
		return byAge
	}
	current := &variable{resource: res}
	keys := make([]operand, len(orders))
	for i, o := range orders {
		keys[i] = c.operand(current, o.key)
	}
	return func(a, b row) int {
		for i, o := range orders {
			current.row = a
			x := keys[i]()
			current.row = b
			n := compareValues(x, keys[i]())
			if o.desc {
				n = -n
			}
			if n != 0 {
				return n
			}
		}
		return byAge(a, b)
	}
}

func byAge(a, b row) int { return cmp.Compare(a.meta().ModifiedAt, b.meta().ModifiedAt) }

// compareValues sorts null after everything else, as PostgreSQL does.
func compareValues(a, b value) int {
	switch {
	case a.kind == kindNull && b.kind == kindNull:
		return 0
	case a.kind == kindNull:
		return 1
	case b.kind == kindNull:
		return -1
	}
	return cmp.Or(cmp.Compare(a.n, b.n), strings.Compare(a.s, b.s))
}

// user is the navigation from fleets to the users with direct access. It can only be used with any().
const user = "is_directly_accessible_by__user"

func (c *compiler) predicate(v *variable, e *expr) predicate {
	switch e.op {
	case "and":
		a, b := c.predicate(v, e.args[0]), c.predicate(v, e.args[1])
		return func() truth {
			x := a()
			if x == no {
				return no
			}
			return min(x, b())
		}
	case "or":
		a, b := c.predicate(v, e.args[0]), c.predicate(v, e.args[1])
		return func() truth {
			x := a()
			if x == yes {
				return yes
			}
			return max(x, b())
		}
	case "not":
		a := c.predicate(v, e.args[0])
		return func() truth { return -a() }
	case "eq", "ne":
		return c.equality(v, e)
	case "gt", "ge", "lt", "le":
		return c.comparison(v, e)
	case "in":
		return c.membership(v, e)
	case "startswith", "endswith", "contains":
		a, b, test := c.operand(v, e.args[0]), c.operand(v, e.args[1]), textTests[e.op]
		return func() truth {
			x, y := a(), b()
			if x.kind != kindString || y.kind != kindString {
				return unknown
			}
			return truthOf(test(x.s, y.s))
		}
	case opAny:
		return c.any(v, e)
	case opPath, opLiteral:
		a := c.operand(v, e)
		return func() truth {
			switch v := a(); v.kind {
			case kindBool:
				return truthOf(v.n != 0)
			case kindNull:
				return unknown
			default:
				return no
			}
		}
	}
	panic(brokenQuery("not a condition"))
}

// operands compiles both sides of an expression. A literal must have the type of the field.
func (c *compiler) operands(v *variable, e *expr) (a, b operand) {
	args := slices.Clone(e.args)
	for i, x := range e.args {
		if x.op == opLiteral {
			args[i] = &expr{op: opLiteral, literal: c.fit(v, e.args[1-i], x.literal)}
		}
	}
	return c.operand(v, args[0]), c.operand(v, args[1])
}

// fit converts a literal to the type of the field e. A date may be a string. It panics for literals of other types and for
// integers that are out of range.
func (c *compiler) fit(v *variable, e *expr, lit value) value {
	if lit.kind == kindInt && (lit.n > math.MaxInt32 || lit.n < math.MinInt32) {
		panic(brokenQuery("integer out of range"))
	}
	if e.op != opPath || lit.kind == kindNull {
		return lit
	}
	from, name := resolve(v, e.path)
	want := c.field(from.resource, name).kind
	if want == kindRef {
		want = kindInt
	}
	if want == kindDate && lit.kind == kindString {
		return dateValue(parseDate(lit.s))
	}
	if want != lit.kind && want != kindNull {
		panic(brokenQuery("type mismatch: " + name))
	}
	return lit
}

// equality compiles eq and ne, for which null equals null.
func (c *compiler) equality(v *variable, e *expr) predicate {
	a, b := c.operands(v, e)
	return func() truth { return truthOf((compareValues(a(), b()) == 0) == (e.op == "eq")) }
}

// comparisons are the operators that do not match null, as conditions on the result of compareValues.
var comparisons = map[string]func(n int) bool{
	"gt": func(n int) bool { return n > 0 },
	"ge": func(n int) bool { return n >= 0 },
	"lt": func(n int) bool { return n < 0 },
	"le": func(n int) bool { return n <= 0 },
}

func (c *compiler) comparison(v *variable, e *expr) predicate {
	a, b := c.operands(v, e)
	test := comparisons[e.op]
	return func() truth {
		x, y := a(), b()
		if x.kind == kindNull || y.kind == kindNull {
			return unknown
		}
		return truthOf(test(compareValues(x, y)))
	}
}

func (c *compiler) membership(v *variable, e *expr) predicate {
	a := c.operand(v, e.args[0])
	set := make(map[value]bool, len(e.args)-1)
	for _, lit := range e.args[1:] {
		if lit.op != opLiteral {
			panic(brokenQuery("the list of in contains other expressions than literals"))
		}
		fit := c.fit(v, e.args[0], lit.literal)
		set[value{n: fit.n, s: fit.s}] = true
	}
	return func() truth {
		x := a()
		if x.kind == kindNull {
			return unknown
		}
		return truthOf(set[value{n: x.n, s: x.s}])
	}
}

func (c *compiler) any(v *variable, e *expr) predicate {
	from, name := resolve(v, e.path)
	if name == user && from.resource.name == "application" {
		if !c.caller.user {
			panic(forbidden{})
		}
		// The user has direct access to all fleets except public fleets of others.
		return func() truth {
			f, ok := from.row.(*Fleet)
			return truthOf(ok && !f.IsForeign)
		}
	}
	nav := c.navigation(from.resource, name)
	inner := &variable{name: e.variable, resource: c.other(nav), outer: v}
	matches, follow := c.predicate(inner, e.args[0]), c.follow(nav)
	var referring map[int]bool // all matching ids, computed after many lookups
	lookups, independent := 0, nav.back != nil && closed(e.args[0], e.variable)
	return func() truth {
		if lookups++; independent && lookups > manyRows {
			if referring == nil {
				referring = c.referring(nav, inner, matches)
			}
			return truthOf(referring[from.row.meta().ID])
		}
		for _, inner.row = range follow(from.row) {
			if matches() == yes {
				return yes
			}
		}
		return no
	}
}

// manyRows is the number of lookups after which a condition on referring rows is evaluated once for all rows of the other
// table.
const manyRows = 100

// referring returns the ids of the rows to which matching rows refer.
func (c *compiler) referring(nav navigation, v *variable, matches predicate) map[int]bool {
	table := c.schema[nav.target].table(c.db)
	ids := make(map[int]bool)
	for i := range table.Len() {
		if v.row = table.at(i); matches() == yes {
			ids[int(nav.back.get(c.view, v.row).n)] = true
		}
	}
	return ids
}

// closed reports whether a condition depends only on the given variables.
func closed(e *expr, variables ...string) bool {
	if e.path != nil && (len(e.path) == 1 || !slices.Contains(variables, e.path[0])) {
		return false
	}
	if e.op == opAny {
		variables = append(slices.Clip(variables), e.variable)
	}
	for _, a := range e.args {
		if !closed(a, variables...) {
			return false
		}
	}
	return true
}

// resolve returns the variable of a path, and the name of its property.
func resolve(v *variable, path []string) (*variable, string) {
	switch len(path) {
	case 1: // a path without a variable is a property of the row of the query
		for v.outer != nil {
			v = v.outer
		}
		return v, path[0]
	case 2:
		for ; v != nil; v = v.outer {
			if v.name == path[0] {
				return v, path[1]
			}
		}
	}
	panic(brokenQuery("no path through navigations"))
}

func (c *compiler) operand(v *variable, e *expr) operand {
	switch e.op {
	case opLiteral:
		return func() value { return e.literal }
	case opPath:
		from, name := resolve(v, e.path)
		f := c.field(from.resource, name)
		return func() value { return f.get(c.view, from.row) }
	case opCount:
		from, name := resolve(v, e.path)
		follow := c.follow(c.navigation(from.resource, name))
		return func() value { return intValue(int64(len(follow(from.row)))) }
	case "add", "sub", "mul", "div":
		for _, a := range e.args {
			if a.op != opPath && a.op != opLiteral {
				panic(brokenQuery("no chained arithmetic"))
			}
		}
		a, b := c.operand(v, e.args[0]), c.operand(v, e.args[1])
		return func() value { return calculate(e.op, a(), b()) }
	}
	panic(brokenQuery("not a value"))
}

func calculate(op string, a, b value) value {
	if a.kind == kindNull || b.kind == kindNull {
		return value{}
	}
	n := b.n
	if b.kind == kindDuration {
		n /= 1e6 // dates are in milliseconds
	}
	switch op {
	case "add":
		a.n += n
	case "sub":
		a.n -= n
	case "mul":
		a.n *= n
	case "div":
		if n == 0 {
			return value{}
		}
		a.n /= n
	}
	return a
}
