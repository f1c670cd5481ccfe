// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Query selects rows of a resource.
type Query[T any] struct {
	Version  balena.Version
	Resource string
	// Note distinguishes queries for one resource in errors; may be empty.
	Note string
	// Fields are the fields to read. One of them is the [ID].
	Fields Record[T]
	// Filter is the condition for the rows; empty for all rows.
	Filter string
	// Initial is the row before any field is read.
	Initial T
	// PageSize is the number of rows per page.
	PageSize int
	// Limit is the maximum number of rows. A longer list cannot be correct, and is an error.
	Limit int
	// Enough is the number of rows after which no further page is read; 0 if all pages are.
	Enough int
}

// ErrTooMany marks a list of more rows than there can be.
var ErrTooMany = errors.New("the list has more rows than there can be")

// minPageShare is the divisor for the minimum number of rows per page: a server must return at least 1/minPageShare of
// the page size on average. With fewer rows, a list of a large account would take too many requests.
const minPageShare = 100

// List reads all rows in ascending order of id, page by page. Each page begins after the last id read, so that rows that
// are added or removed meanwhile neither hide other rows nor are read twice. Ids must ascend: a page that repeats an id, or
// has a row without one, cannot be correct.
//
// A page that is not full does not end the list, because a server or a proxy with a limit may have truncated it. The second
// page is therefore only the last of the rows that follow the first page, and all others end at its id. The list ends when
// no row follows the first page, when that id was read, or with an empty page if its row was removed meanwhile.
//
// Rows that are added later have higher ids and are not read. A list that included them would not end while rows are added
// as fast as pages are read, such as the services of a large rollout. The clock is that of the first page, so that a
// question for what changed since then includes them.
//
// List passes the same variable to each every time.
func List[T any](ctx context.Context, c *Client, q Query[T], each func(*T) error) (Clock, error) {
	var clock Clock
	idOf, options := q.Fields.id(), strings.Join(q.Fields.options(), "&")
	filter := And(q.Filter, "id gt ")
	var last, end int64
	rows := 0
	maxPages := minPageShare * (q.Limit/q.PageSize + 1)
	for n := 1; ; n++ {
		condition, order, top := filter+strconv.FormatInt(last, 10), "asc", q.PageSize
		switch {
		case n == 2:
			order, top = "desc", 1
		case n > 2:
			condition += fmt.Sprintf(" and id le %d", end)
		}
		r := &request{
			version: q.Version, resource: q.Resource,
			options: fmt.Sprintf("%s&$filter=%s&$orderby=id %s&$top=%d", options, condition, order, top),
			note:    strings.TrimSpace(fmt.Sprintf("%s page %d", q.Note, n)),
		}
		page := 0
		at, err := c.get(ctx, r, func(d *Decoder) error {
			return decodeAll(d, q.Fields, q.Initial, func(row *T) error {
				id := idOf(row)
				page++
				switch {
				case id <= 0:
					return fmt.Errorf("it has no id (the last was %d)", last)
				case id <= last:
					return fmt.Errorf("id %d follows id %d", id, last)
				case page > top:
					return fmt.Errorf("the page has more rows than the %d that were asked for", top)
				case n == 2:
					end = id
					return nil
				case n > 2 && id > end:
					return fmt.Errorf("id %d is higher than %d, the highest that was asked for", id, end)
				}
				last = id
				if rows++; rows > q.Limit {
					return fmt.Errorf("%w: more than %d", ErrTooMany, q.Limit)
				}
				return each(row)
			})
		})
		if n == 1 {
			clock = at
		}
		switch {
		case err != nil:
			return clock, err
		case page == 0 || last == end || rows == q.Enough:
			return clock, nil
		case n >= maxPages:
			return clock, r.failed(BadAnswer, http.StatusOK, errors.New("the server returns so few rows per page that the list would take too many requests"))
		}
	}
}

// Count returns how many rows of a resource match a filter. An empty filter matches all rows.
func Count(ctx context.Context, c *Client, version balena.Version, resource, filter string) (n int, err error) {
	r := &request{version: version, resource: resource, path: "/$count"}
	if filter != "" {
		r.options = "$filter=" + filter
	}
	_, err = c.get(ctx, r, func(d *Decoder) error {
		n, err = decodeCount(d)
		return err
	})
	return n, err
}

// Object reads a single object that is not part of the data model, such as the configuration of the server.
func Object[T any](ctx context.Context, c *Client, name string, fields Record[T]) (object T, err error) {
	_, err = c.get(ctx, &request{resource: name}, func(d *Decoder) error {
		if err := decodeObject(d, fields, &object); err != nil {
			return err
		}
		return d.atEnd()
	})
	return object, err
}

// In returns the condition that a field has one of the values.
func In(field string, values []string) string { return in(field, values, literal) }

// StartsWith returns the condition that a field begins with a prefix.
func StartsWith(field, prefix string) string {
	return "startswith(" + field + "," + literal(prefix) + ")"
}

// InIDs returns the condition that a field has one of the ids.
func InIDs(field string, ids []int64) string {
	return in(field, ids, func(id int64) string { return strconv.FormatInt(id, 10) })
}

// in returns the condition that a field has one of the values, as write writes them.
func in[V any](field string, values []V, write func(V) string) string {
	written := make([]string, len(values))
	for i, v := range values {
		written[i] = write(v)
	}
	return field + " in (" + strings.Join(written, ",") + ")"
}

// And joins conditions. It ignores empty ones.
func And(conditions ...string) string {
	empty := func(condition string) bool { return condition == "" }
	return strings.Join(slices.DeleteFunc(slices.Clone(conditions), empty), " and ")
}

// literal returns a string as it is written in a query. Quotes are doubled. Characters that are not allowed in a URL, or
// that have a meaning there, are percent-encoded. Characters with a meaning in OData stay as they are.
func literal(s string) string {
	const plain = "-_.~!*()/:,;=@$'"
	var b strings.Builder
	b.WriteByte('\'')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\'':
			b.WriteString("''")
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(plain, c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}
