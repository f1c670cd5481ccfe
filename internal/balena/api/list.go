// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Query asks for rows of a resource.
type Query[T any] struct {
	Version  balena.Version
	Resource string
	// Note tells queries of one resource apart in errors; empty for none.
	Note   string
	Fields Record[T]
	// Filter is the condition for the rows; empty for all.
	Filter string
	// Blank is a row of which nothing has been read.
	Blank T
	// ID returns the row's id, which the fields must read.
	ID func(*T) int64
	// PageSize is how many rows to ask for at a time.
	PageSize int
	// Limit is how many rows there may be at most. A list of more can't be true, and is an error.
	Limit int
	// Done tells after a page that there can be no more rows, be it that the page was full; nil for never.
	Done func() bool
}

// ErrTooMany marks a list of more rows than there can be.
var ErrTooMany = errors.New("the list has more rows than there can be")

// minPageShare is the share of a page that a server must give on average: with a smaller one a list of the largest
// accounts would take more requests than anybody should send.
const minPageShare = 100

// List reads all rows in ascending order of id, page by page, each page beginning behind the last id seen. Rows that
// come and go meanwhile can neither hide others nor be seen twice. The list ends with an empty page: a page with
// room left may have been cut by a server or a proxy with a limit of its own. The rows that each is handed are the
// same variable every time. The clock is that of the first page.
func List[T any](ctx context.Context, c *Client, q Query[T], each func(*T) error) (Clock, error) {
	var clock Clock
	options := q.Fields.options()
	filter := "id gt "
	if q.Filter != "" {
		filter = q.Filter + " and " + filter
	}
	last, rows := int64(0), 0
	maxPages := minPageShare * (q.Limit/q.PageSize + 1)
	for n := 1; ; n++ {
		r := &request{
			version: q.Version, resource: q.Resource,
			options: fmt.Sprintf("%s&$filter=%s%d&$orderby=id asc&$top=%d", options, filter, last, q.PageSize),
			note:    strings.TrimSpace(fmt.Sprintf("%s page %d", q.Note, n)),
		}
		page := 0
		at, err := c.get(ctx, r, func(d *Decoder) error {
			return decodeAll(d, q.Fields, q.Blank, func(row *T) error {
				if err := ascending(&last, q.ID(row)); err != nil {
					return err
				}
				page++
				rows++
				switch {
				case page > q.PageSize:
					return fmt.Errorf("the page has more rows than the %d that were asked for", q.PageSize)
				case rows > q.Limit:
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
		case page == 0 || q.Done != nil && q.Done():
			return clock, nil
		case n >= maxPages:
			return clock, r.failed(BadAnswer, http.StatusOK, errors.New("the server answers with so few rows a page that the list would take too many requests"))
		}
	}
}

// ascending checks the order that was asked for, which paging depends on: a page that repeats ids, or a row without
// one, can't be true.
func ascending(last *int64, id int64) error {
	switch {
	case id <= 0:
		return fmt.Errorf("it has no id (the last was %d)", *last)
	case id <= *last:
		return fmt.Errorf("id %d follows id %d", id, *last)
	}
	*last = id
	return nil
}

// Count asks how many rows of a resource match a filter; empty for all.
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

// In is the condition that a field has one of some values.
func In(field string, values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = literal(v)
	}
	return field + " in (" + strings.Join(quoted, ",") + ")"
}

// InIDs is the condition that a field has one of some ids.
func InIDs(field string, ids []int64) string {
	var b strings.Builder
	b.WriteString(field + " in (")
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(id, 10))
	}
	b.WriteByte(')')
	return b.String()
}

// And joins conditions, of which some may be empty.
func And(conditions ...string) string {
	var b strings.Builder
	for _, c := range conditions {
		if c == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(" and ")
		}
		b.WriteString(c)
	}
	return b.String()
}

// literal writes a string into a query: quotes doubled, and everything encoded that a URL can't hold or
// that means something else there. What OData means something by must stay as it is, even in a string.
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
