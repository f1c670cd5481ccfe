// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// A filter selects devices and ports. The zero value selects all of them.
type filter struct {
	fleets    []string // slugs of fleets; empty for all
	tags      []tagFilter
	connected []bool // at most one element
	ports     []int  // empty for all
}

// tagFilter is a tag that a device must have.
type tagFilter struct {
	key   string
	any   bool
	value string // unless any
}

// matches reports whether the filter selects a device of a fleet.
func (f *filter) matches(v *view, d *balena.Device, slug string) bool {
	if len(f.fleets) > 0 && !slices.Contains(f.fleets, slug) {
		return false
	}
	if len(f.connected) > 0 && f.connected[0] != d.Connected() {
		return false
	}
	tags := v.tags(d)
	for _, t := range f.tags {
		i := slices.Index(v.DeviceTagKeys, t.key)
		if i < 0 || i >= len(tags) || tags[i].ID == 0 || !t.any && tags[i].Value != t.value {
			return false
		}
	}
	return true
}

func (f *filter) matchesPort(port int) bool {
	return len(f.ports) == 0 || slices.Contains(f.ports, port)
}

// key returns a text that is equal for equal filters.
func (f *filter) key() string {
	return fmt.Sprintf("%q %v %v %v", f.fleets, f.tags, f.connected, f.ports)
}

// maxQuery is the maximum length of a query in bytes.
const maxQuery = 4 << 10

// parseFilter parses the query of a request. Its errors are shown to users.
func (o *Options) parseFilter(query string) (*filter, error) {
	if len(query) > maxQuery {
		return nil, fmt.Errorf("the query is longer than %d bytes; select devices by tag or by connected, or use relabeling", maxQuery)
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("the query is invalid; escape special characters, such as & as %26")
	}
	f := &filter{}
	for _, name := range slices.Sorted(maps.Keys(values)) { // in a fixed order, so that the error is always the same
		for _, value := range values[name] {
			if err := o.add(f, name, value); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(f.fleets)
	f.fleets = slices.Compact(f.fleets)
	slices.SortFunc(f.tags, func(a, b tagFilter) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	f.tags = slices.Compact(f.tags)
	slices.Sort(f.ports)
	f.ports = slices.Compact(f.ports)
	return f, nil
}

// add adds a parameter of a query to a filter.
func (o *Options) add(f *filter, name, value string) error {
	switch name {
	case "fleet":
		if value == "" {
			return errors.New("fleet must be the slug of a fleet, such as acme/kiosks; " + o.parameters())
		}
		f.fleets = append(f.fleets, value)
	case "tag":
		tag, err := o.parseTag(value)
		if err != nil {
			return err
		}
		f.tags = append(f.tags, tag)
	case "connected":
		if len(f.connected) > 0 || value != "true" && value != "false" {
			return fmt.Errorf("invalid value %s of connected: it must be true or false, given once; %s", quoted(value), o.parameters())
		}
		f.connected = []bool{value == "true"}
	case "port":
		port, err := strconv.Atoi(value)
		if err != nil || !slices.Contains(o.Ports, port) {
			return fmt.Errorf("invalid value %s of port: it must be one of --sd.port; %s", quoted(value), o.parameters())
		}
		f.ports = append(f.ports, port)
	default:
		return fmt.Errorf("unknown parameter %s; %s", quoted(name), o.parameters())
	}
	return nil
}

// parseTag parses KEY or KEY=VALUE. The key may contain an equals sign.
func (o *Options) parseTag(s string) (tagFilter, error) {
	if slices.Contains(o.DeviceTags, s) {
		return tagFilter{key: s, any: true}, nil
	}
	for _, key := range o.DeviceTags {
		if value, ok := strings.CutPrefix(s, key+"="); ok {
			return tagFilter{key: key, value: value}, nil
		}
	}
	for _, pattern := range o.DeviceTags {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok && strings.HasPrefix(s, prefix) {
			key, value, hasValue := strings.Cut(s, "=")
			return tagFilter{key: key, any: !hasValue, value: value}, nil
		}
	}
	return tagFilter{}, fmt.Errorf("invalid value %s of tag: it must be KEY or KEY=VALUE with a key of --collector.device.tags; %s", quoted(s), o.parameters())
}

// parameters describes the valid parameters.
func (o *Options) parameters() string {
	s := "valid parameters: fleet=SLUG, "
	if len(o.DeviceTags) > 0 {
		s += "tag=KEY or tag=KEY=VALUE (keys: " + strings.Join(o.DeviceTags, ", ") + "), "
	}
	s += "connected=true or connected=false"
	if len(o.Ports) > 0 {
		var ports []string
		for _, port := range o.Ports {
			ports = append(ports, strconv.Itoa(port))
		}
		s += ", port=" + strings.Join(ports, " or port=")
	}
	return s
}

// quoted returns a value for an error message, truncated if it is long.
func quoted(s string) string {
	const maxLength = 64
	if len(s) > maxLength {
		s = s[:maxLength] + "…"
	}
	return strconv.Quote(s)
}
