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

// A filter chooses devices and ports. The zero filter chooses all of them.
type filter struct {
	fleets    []string // slugs, of which the device's is one; none for any
	tags      []tagFilter
	connected []bool // one or none
	ports     []int  // none for all
}

// tagFilter is a tag that a device must have.
type tagFilter struct {
	key   string
	any   bool
	value string // unless any
}

// chooses reports whether a filter chooses a device of a fleet.
func (f *filter) chooses(v *view, d *balena.Device, slug string) bool {
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

func (f *filter) choosesPort(port int) bool {
	return len(f.ports) == 0 || slices.Contains(f.ports, port)
}

// key is the same for filters that choose the same.
func (f *filter) key() string {
	return fmt.Sprintf("%q %v %v %v", f.fleets, f.tags, f.connected, f.ports)
}

// maxQuery is how many bytes a query has at most.
const maxQuery = 4 << 10

// parseFilter makes a filter of the query of a request. Its errors are sentences.
func (o *Options) parseFilter(query string) (*filter, error) {
	if len(query) > maxQuery {
		return nil, fmt.Errorf("the query is longer than %d bytes; choose by tag or by connected, or relabel", maxQuery)
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("the query cannot be read; write special characters as %26 for &")
	}
	f := &filter{}
	for _, name := range slices.Sorted(maps.Keys(values)) { // for the same error each time
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
			return fmt.Errorf("connected must be true or false, given once, and is %s; %s", shown(value), o.parameters())
		}
		f.connected = []bool{value == "true"}
	case "port":
		port, err := strconv.Atoi(value)
		if err != nil || !slices.Contains(o.Ports, port) {
			return fmt.Errorf("port must be one of --sd.port, and is %s; %s", shown(value), o.parameters())
		}
		f.ports = append(f.ports, port)
	default:
		return fmt.Errorf("%s is no parameter; %s", shown(name), o.parameters())
	}
	return nil
}

// parseTag reads KEY or KEY=VALUE, in which the key may hold an equals sign as well.
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
			key, value, valued := strings.Cut(s, "=")
			return tagFilter{key: key, any: !valued, value: value}, nil
		}
	}
	return tagFilter{}, fmt.Errorf("tag must be KEY or KEY=VALUE with a key of --collector.device.tags, and is %s; %s", shown(s), o.parameters())
}

// parameters says which parameters there are.
func (o *Options) parameters() string {
	s := "the parameters are fleet=SLUG, "
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

// shown is a value in a sentence.
func shown(s string) string {
	const longest = 64
	if len(s) > longest {
		s = s[:longest] + "…"
	}
	return strconv.Quote(s)
}
