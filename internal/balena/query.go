package balena

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
)

// How the API is asked: pages, filters, literals.

// deviceFilter returns the condition for the devices to read.
func (f *fetch) deviceFilter() string {
	if !f.filtersFleets() {
		return "belongs_to__application/any(a:a/" + accessible + ")"
	}
	return f.ofFleets("")
}

// ofDevices narrows a filter of something that belongs to devices, which may be empty, to those that are read.
func (f *fetch) ofDevices(filter string) string {
	if !f.filtersFleets() {
		return filter
	}
	if filter != "" {
		filter += " and "
	}
	return filter + "device/any(d:" + f.ofFleets("d/") + ")"
}

// ofFleets is the condition that a device is of one of the fleets, with path before the name of the field.
func (f *fetch) ofFleets(path string) string {
	ids := make([]int64, len(f.snapshot.Fleets))
	for i := range f.snapshot.Fleets {
		ids[i] = f.snapshot.Fleets[i].ID
	}
	return inFleets(path, ids)
}

// inFleets is the same for fleets of certain IDs.
func inFleets(path string, ids []int64) string {
	return path + "belongs_to__application in (" + list(ids) + ")"
}

// filtersFleets tells whether devices are asked for by fleet: when fleets are left out, and those that are
// left fit into a URL.
func (f *fetch) filtersFleets() bool {
	o := &f.config.Options
	all := o.Include == nil && o.Exclude == nil && o.ArchivedFleets && !o.Shard.divided()
	return !all && len(f.snapshot.Fleets) <= maxFleetsInFilter
}

func list(ids []int64) string {
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(id, 10))
	}
	return b.String()
}

// pages reads a resource page by page, in ascending order of id, each page beginning behind the last id
// seen. Rows that come and go meanwhile can neither hide others nor show them twice.
type pages[T any] struct {
	resource string
	filter   string
	fields   record[T]
	blank    T
	id       func(*T) int64
	each     func(*T) error
	// complete tells after a page whether that was all, given whether the page had room for more rows and so ought
	// to be the last; nil to take its word for it. An empty page always is the end.
	complete func(roomLeft bool) bool
	// size is how many rows to ask for at a time; 0 for the usual number.
	size int
}

func (p *pages[T]) read(ctx context.Context, c *Client) error {
	options := p.fields.options()
	last, size, short := int64(0), cmp.Or(p.size, c.config.PageSize), false
	for n := 1; ; n++ {
		rows := 0
		r := request{
			resource: p.resource,
			options:  fmt.Sprintf("%s&$filter=%s and id gt %d&$orderby=id asc&$top=%d", options, p.filter, last, size),
			note:     fmt.Sprintf("page %d", n),
		}
		err := c.get(ctx, r, func(d *decoder) error {
			return decodeAll(d, p.fields, p.blank, func(row *T) error {
				if err := ascending(&last, p.id(row)); err != nil {
					return err
				}
				rows++
				return p.each(row)
			})
		})
		if err != nil {
			return err
		}
		if rows == 0 {
			return nil
		}
		// A page that had room left and yet was not the last: a proxy or the server has a limit of its own.
		c.shortPages = c.shortPages || short
		short = rows < size
		complete := short && !c.shortPages
		if p.complete != nil {
			complete = p.complete(complete)
		}
		if complete {
			return nil
		}
	}
}

// count asks how many rows of a resource there are.
func (f *fetch) count(ctx context.Context, resource, filter string) (n int, err error) {
	r := request{resource: resource, path: "/$count", options: "$filter=" + filter}
	err = f.get(ctx, r, func(d *decoder) error {
		n, err = decodeCount(d)
		return err
	})
	return n, err
}

// inList is the condition that a field has one of some values.
func inList(field string, values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = literal(v)
	}
	return field + " in (" + strings.Join(quoted, ",") + ")"
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
