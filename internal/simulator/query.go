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

// scope is a row to which the variable of a lambda refers, and the scope around the lambda.
type scope struct {
	row row
	up  *scope
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
	predicate func(*scope) truth
	operand   func(*scope) value
	// static is the compile-time part of a scope.
	static struct {
		name     string
		resource *resource
		up       *static
		depth    int
	}
)

// execute executes the request and appends the response body.
func (db *database) execute(b []byte, c *compiler, r *request) (_ []byte, err error) {
	defer func() { err = cause(recover()) }()
	res := c.resource(r.resource)
	o := r.options
	if r.key != nil {
		o.filter = andExpr(r.key, o.filter)
	}
	l := c.list(res, &o)
	access := c.access()
	if r.count && r.via == "" && !r.hasID {
		return appendCount(b, l.count(res.table(db), access)), nil
	}
	var rows []row
	if r.hasID {
		if found := res.table(db).find(r.id); found != nil && access(found) && l.matches(found) {
			rows = []row{found}
		}
	} else {
		rows = l.scan(res.table(db), access)
	}
	if r.via != "" {
		n, follow := 0, c.follow(c.navigation(res, r.via))
		for _, r := range rows {
			n += len(follow(r))
		}
		return appendCount(b, n), nil
	}
	if r.count {
		return appendCount(b, len(rows)), nil
	}
	b = append(b, `{"d":`...)
	b = l.appendRows(b, rows)
	return append(b, '}'), nil
}

func appendCount(b []byte, n int) []byte {
	b = append(b, `{"d":`...)
	b = strconv.AppendInt(b, int64(n), 10)
	return append(b, '}')
}

func andExpr(a, b *expr) *expr {
	if b == nil {
		return a
	}
	return &expr{op: opAnd, args: []*expr{a, b}}
}

func (c *compiler) resource(name string) *resource {
	res, ok := c.schema[name]
	if !ok {
		panic(forbidden{})
	}
	if !c.caller.user && !c.public(res) && !(c.caller.device != 0 && name == "device") {
		panic(forbidden{})
	}
	return res
}

func (c *compiler) public(res *resource) bool {
	return res.public == public || res.public == publicOnCloud && c.cfg.Edition == Cloud
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
	case "v6":
		return c.v6
	case "v7":
		return !c.v6
	case "cloud":
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
	if nav.key == nil {
		key := func(r row) int { return int(nav.back.get(c.view, r).n) }
		if nav.back.scan {
			return func(r row) (found []row) {
				for i := range table.Len() {
					if other := table.at(i); key(other) == r.meta().ID {
						found = append(found, other)
					}
				}
				return found
			}
		}
		return func(r row) []row { return table.referrers(nav.back.name, key, r.meta().ID) }
	}
	one := make([]row, 1)
	return func(r row) []row {
		v := nav.key.get(c.view, r)
		if v.kind != kindRef {
			return nil
		}
		if one[0] = table.find(int(v.n)); one[0] == nil {
			return nil
		}
		return one
	}
}

// A list is a compiled query for rows and columns of a resource.
type list struct {
	c       *compiler
	filter  predicate // or nil
	after   int       // ids of matching rows are higher
	ids     []int     // ids of possible matches, or nil
	compare func(a, b row) int
	byID    bool // compare sorts by ascending id, which is the order of tables
	newest  bool // compare sorts by descending id
	top     int  // -1 for all
	skip    int
	columns []column
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
	l := &list{c: c, after: math.MinInt, top: o.top, skip: o.skip}
	if o.filter != nil {
		l.filter = c.predicate(&static{resource: res}, o.filter)
		l.narrow(o.filter)
	}
	l.compare = c.ordering(res, o.orders)
	if len(o.orders) > 0 && o.orders[0].isID() {
		l.byID, l.newest = !o.orders[0].desc, o.orders[0].desc
	}
	expanded := make(map[string]bool)
	for _, e := range o.expands {
		nav := c.navigation(res, e.property)
		target := c.other(nav)
		s := column{key: append(appendString(nil, e.property), ':'), follow: c.follow(nav), count: e.count, nested: c.list(target, &e.options)}
		expanded[e.property] = true
		// If a navigation is expanded twice, the last one applies.
		if i := slices.IndexFunc(l.columns, func(o column) bool { return bytes.Equal(o.key, s.key) }); i >= 0 {
			l.columns[i] = s
		} else {
			l.columns = append(l.columns, s)
		}
	}
	if o.selects == nil {
		for _, f := range res.fields {
			if c.has(f) && !expanded[f.name] {
				l.columns = append(l.columns, column{key: f.key, field: f})
			}
		}
	}
	for _, name := range o.selects {
		f := c.field(res, name)
		if !expanded[name] {
			l.columns = append(l.columns, column{key: f.key, field: f})
		}
	}
	return l
}

// narrow limits the scan of the table by the conditions on ids, so that reading a page does not scan the whole table.
func (l *list) narrow(e *expr) {
	switch e.op {
	case opAnd:
		l.narrow(e.args[0])
		l.narrow(e.args[1])
	case opGt, opEq, opIn:
		if e.args[0].op != opPath || len(e.args[0].path) != 1 || e.args[0].path[0] != "id" {
			return
		}
		var ids []int
		for _, a := range e.args[1:] {
			if a.op != opLiteral || a.literal.kind != kindInt {
				return
			}
			ids = append(ids, int(a.literal.n))
		}
		if e.op == opGt {
			l.after = max(l.after, ids[0])
			return
		}
		slices.Sort(ids)
		l.ids = slices.Compact(ids)
	}
}

func (l *list) matches(r row) bool {
	return l.filter == nil || l.filter(&scope{row: r}) == yes
}

// scan returns the matching rows of a table, with the order and limits of the query.
func (l *list) scan(t relation, access func(row) bool) []row {
	limit := math.MaxInt
	if (l.byID || l.newest) && l.top >= 0 {
		limit = l.skip + l.top
	}
	var rows []row
	for r := range l.matching(t, access) {
		if len(rows) >= limit {
			break
		}
		rows = append(rows, r)
	}
	return l.cut(rows)
}

// count returns the number of matching rows.
func (l *list) count(t relation, access func(row) bool) int {
	n := 0
	for range l.matching(t, access) {
		n++
	}
	return n
}

// matching yields the matching rows of a table by ascending id, or by descending id if newest is set.
func (l *list) matching(t relation, access func(row) bool) iter.Seq[row] {
	return func(yield func(row) bool) {
		var s scope
		visit := func(r row) bool {
			s.row = r
			return !access(r) || l.filter != nil && l.filter(&s) != yes || yield(r)
		}
		if l.ids != nil {
			for i := range l.ids {
				if l.newest {
					i = len(l.ids) - 1 - i
				}
				if r := t.find(l.ids[i]); r != nil && !visit(r) {
					return
				}
			}
			return
		}
		start := 0
		if l.after > math.MinInt && l.after < math.MaxInt {
			start = t.search(l.after + 1)
		}
		for i := range t.Len() - start {
			if l.newest {
				i = t.Len() - start - 1 - i
			}
			if !visit(t.at(start + i)) {
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
	all := s.follow(r)
	if s.count {
		count := len(all)
		if n.filter != nil {
			count = 0
			var sc scope
			for _, r := range all {
				sc.row = r
				if n.filter(&sc) == yes {
					count++
				}
			}
		}
		return strconv.AppendInt(b, int64(count), 10)
	}
	rows := make([]row, 0, len(all))
	for _, r := range all {
		if n.matches(r) {
			rows = append(rows, r)
		}
	}
	return n.appendRows(b, n.cut(rows))
}

// ordering compiles $orderby. Without it, rows are sorted by modified_at, similar to the order in the real database. Clients
// must not rely on an order by id.
func (c *compiler) ordering(res *resource, orders []order) func(a, b row) int {
	if len(orders) == 0 {
		return byAge
	}
	keys := make([]operand, len(orders))
	for i, o := range orders {
		op := opPath
		if o.count {
			op = opCount
		}
		keys[i] = c.operand(&static{resource: res}, &expr{op: op, path: o.path})
	}
	return func(a, b row) int {
		for i, o := range orders {
			n := compareValues(keys[i](&scope{row: a}), keys[i](&scope{row: b}))
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

// isID reports whether rows are sorted by their id.
func (o *order) isID() bool { return len(o.path) == 1 && o.path[0] == "id" && !o.count }

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
	case a.kind == kindString:
		return strings.Compare(a.s, b.s)
	}
	return cmp.Compare(a.n, b.n)
}

// user is the navigation from fleets to the users with direct access. It can only be used with any().
const user = "is_directly_accessible_by__user"

func (c *compiler) predicate(st *static, e *expr) predicate {
	switch e.op {
	case opAnd:
		a, b := c.predicate(st, e.args[0]), c.predicate(st, e.args[1])
		return func(s *scope) truth {
			x := a(s)
			if x == no {
				return no
			}
			return min(x, b(s))
		}
	case opOr:
		a, b := c.predicate(st, e.args[0]), c.predicate(st, e.args[1])
		return func(s *scope) truth {
			x := a(s)
			if x == yes {
				return yes
			}
			return max(x, b(s))
		}
	case opNot:
		a := c.predicate(st, e.args[0])
		return func(s *scope) truth { return -a(s) }
	case opEq, opNe:
		return c.equality(st, e)
	case opGt, opGe, opLt, opLe:
		return c.comparison(st, e)
	case opIn:
		return c.membership(st, e)
	case opStartsWith, opEndsWith, opContains:
		a, b := c.operand(st, e.args[0]), c.operand(st, e.args[1])
		test := map[operator]func(s, part string) bool{opStartsWith: strings.HasPrefix, opEndsWith: strings.HasSuffix, opContains: strings.Contains}[e.op]
		return func(s *scope) truth {
			x, y := a(s), b(s)
			if x.kind != kindString || y.kind != kindString {
				return unknown
			}
			return truthOf(test(x.s, y.s))
		}
	case opAny:
		return c.any(st, e)
	case opPath, opLiteral:
		a := c.operand(st, e)
		return func(s *scope) truth {
			switch v := a(s); v.kind {
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
func (c *compiler) operands(st *static, e *expr) (a, b operand) {
	args := slices.Clone(e.args)
	for i, x := range e.args {
		if x.op == opLiteral {
			args[i] = &expr{op: opLiteral, literal: c.fit(st, e.args[1-i], x.literal)}
		}
	}
	return c.operand(st, args[0]), c.operand(st, args[1])
}

// fit converts a literal to the type of the field e. A date may be a string. It panics for literals of other types and for
// integers that are out of range.
func (c *compiler) fit(st *static, e *expr, lit value) value {
	if lit.kind == kindInt && (lit.n > math.MaxInt32 || lit.n < math.MinInt32) {
		panic(brokenQuery("integer out of range"))
	}
	if e.op != opPath || lit.kind == kindNull {
		return lit
	}
	from, path := resolve(st, e.path)
	want := c.field(from.resource, path[0]).kind
	if want == kindRef {
		want = kindInt
	}
	if want == kindDate && lit.kind == kindString {
		return dateValue(parseDate(lit.s))
	}
	if want != lit.kind && want != kindNull {
		panic(brokenQuery("type mismatch: " + path[0]))
	}
	return lit
}

// equality compiles eq and ne, for which null equals null.
func (c *compiler) equality(st *static, e *expr) predicate {
	a, b := c.operands(st, e)
	want := yes
	if e.op == opNe {
		want = no
	}
	return func(s *scope) truth {
		if equal(a(s), b(s)) {
			return want
		}
		return -want
	}
}

func equal(a, b value) bool {
	if a.kind == kindNull || b.kind == kindNull {
		return a.kind == b.kind
	}
	return a.n == b.n && a.s == b.s
}

// comparison compiles gt, ge, lt and le, which do not match null.
func (c *compiler) comparison(st *static, e *expr) predicate {
	a, b := c.operands(st, e)
	op := e.op
	return func(s *scope) truth {
		x, y := a(s), b(s)
		if x.kind == kindNull || y.kind == kindNull {
			return unknown
		}
		n := compareValues(x, y)
		switch op {
		case opGt:
			return truthOf(n > 0)
		case opGe:
			return truthOf(n >= 0)
		case opLt:
			return truthOf(n < 0)
		}
		return truthOf(n <= 0)
	}
}

func (c *compiler) membership(st *static, e *expr) predicate {
	a := c.operand(st, e.args[0])
	type key struct {
		n int64
		s string
	}
	set := make(map[key]bool, len(e.args)-1)
	for _, lit := range e.args[1:] {
		if lit.op != opLiteral {
			panic(brokenQuery("the list of in contains other expressions than literals"))
		}
		v := c.fit(st, e.args[0], lit.literal)
		set[key{v.n, v.s}] = true
	}
	return func(s *scope) truth {
		v := a(s)
		if v.kind == kindNull {
			return unknown
		}
		return truthOf(set[key{v.n, v.s}])
	}
}

func (c *compiler) any(st *static, e *expr) predicate {
	from, path := resolve(st, e.path)
	if len(path) == 1 && path[0] == user && from.resource.name == "application" {
		if !c.caller.user {
			panic(forbidden{})
		}
		// The user has direct access to all fleets except public fleets of others.
		hops := st.depth - from.depth
		return func(s *scope) truth {
			f, ok := s.out(hops).(*Fleet)
			return truthOf(ok && !f.IsForeign)
		}
	}
	if len(path) != 1 {
		panic(brokenQuery("any needs a navigation"))
	}
	nav := c.navigation(from.resource, path[0])
	inner := c.predicate(&static{name: e.variable, resource: c.other(nav), up: st, depth: st.depth + 1}, e.args[0])
	hops, follow, in := st.depth-from.depth, c.follow(nav), &scope{}
	var referring map[int]bool // all matching ids, computed after many lookups
	lookups, independent := 0, nav.back != nil && closed(e.args[0], e.variable)
	return func(s *scope) truth {
		r := s.out(hops)
		if lookups++; independent && lookups > manyRows {
			if referring == nil {
				referring = c.referring(nav, inner)
			}
			return truthOf(referring[r.meta().ID])
		}
		in.up = s
		for _, in.row = range follow(r) {
			if inner(in) == yes {
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
func (c *compiler) referring(nav navigation, matches predicate) map[int]bool {
	table := c.schema[nav.target].table(c.db)
	ids := make(map[int]bool)
	s := &scope{}
	for i := range table.Len() {
		if s.row = table.at(i); matches(s) == yes {
			ids[int(nav.back.get(c.view, s.row).n)] = true
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

// resolve returns the scope of the first element of a path, and the rest of the path.
func resolve(st *static, path []string) (*static, []string) {
	if len(path) > 1 {
		for s := st; s != nil; s = s.up {
			if s.name != "" && s.name == path[0] {
				return s, path[1:]
			}
		}
	}
	// A path without a variable is a field of the requested row.
	for st.up != nil {
		st = st.up
	}
	return st, path
}

// out returns the row of the scope that is hops lambdas outside of s.
func (s *scope) out(hops int) row {
	for range hops {
		s = s.up
	}
	return s.row
}

func (c *compiler) operand(st *static, e *expr) operand {
	switch e.op {
	case opLiteral:
		v := e.literal
		return func(*scope) value { return v }
	case opPath:
		from, path := resolve(st, e.path)
		if len(path) != 1 {
			panic(brokenQuery("no path through navigations"))
		}
		f, hops := c.field(from.resource, path[0]), st.depth-from.depth
		return func(s *scope) value { return f.get(c.view, s.out(hops)) }
	case opCount:
		from, path := resolve(st, e.path)
		if len(path) != 1 {
			panic(brokenQuery("no path through navigations"))
		}
		follow, hops := c.follow(c.navigation(from.resource, path[0])), st.depth-from.depth
		return func(s *scope) value { return intValue(int64(len(follow(s.out(hops))))) }
	case opAdd, opSub, opMul, opDiv:
		for _, a := range e.args {
			if a.op != opPath && a.op != opLiteral {
				panic(brokenQuery("no chained arithmetic"))
			}
		}
		a, b := c.operand(st, e.args[0]), c.operand(st, e.args[1])
		op := e.op
		return func(s *scope) value { return calculate(op, a(s), b(s)) }
	}
	panic(brokenQuery("not a value"))
}

func calculate(op operator, a, b value) value {
	if a.kind == kindNull || b.kind == kindNull {
		return value{}
	}
	n := b.n
	if b.kind == kindDuration {
		n /= 1e6 // dates are in milliseconds
	}
	switch op {
	case opAdd:
		a.n += n
	case opSub:
		a.n -= n
	case opMul:
		a.n *= n
	case opDiv:
		if n == 0 {
			return value{}
		}
		a.n /= n
	}
	return a
}
