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

// A filter selects devices and ports.
type filter struct {
	// key is equal for queries with the same parameters, in any order and however often.
	key    string
	fleets []string // slugs of fleets; empty for all
	// conditions must all be met by a device.
	conditions []condition
	ports      []int // of each device; none if the address contains the port
}

type condition func(*view, *balena.Device) bool

// matches reports whether the filter selects a device of a fleet.
func (f *filter) matches(v *view, d *balena.Device, slug string) bool {
	if len(f.fleets) > 0 && !slices.Contains(f.fleets, slug) {
		return false
	}
	for _, met := range f.conditions {
		if !met(v, d) {
			return false
		}
	}
	return true
}

// tagged is the condition that a device has a tag, with a value unless anyValue is set.
func tagged(key, value string, anyValue bool) condition {
	return func(v *view, d *balena.Device) bool {
		tags, i := v.tags(d), slices.Index(v.DeviceTagKeys, key)
		return i >= 0 && i < len(tags) && tags[i].ID != 0 && (anyValue || tags[i].Value == value)
	}
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
	if len(values["connected"]) > 1 {
		return nil, o.invalid("connected", values.Get("connected"), "true or false, given once")
	}
	f := &filter{}
	for _, name := range slices.Sorted(maps.Keys(values)) { // in a fixed order, so that the error is always the same
		slices.Sort(values[name])
		values[name] = slices.Compact(values[name]) // a repeated parameter costs nothing
		for _, value := range values[name] {
			if err := o.add(f, name, value); err != nil {
				return nil, err
			}
		}
	}
	f.key = values.Encode()
	selected := f.ports
	f.ports = slices.DeleteFunc(slices.Clone(o.Ports), func(port int) bool {
		return selected != nil && !slices.Contains(selected, port)
	})
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
		met := o.parseTag(value)
		if met == nil {
			return o.invalid(name, value, "KEY or KEY=VALUE with a key of --collector.device.tags")
		}
		f.conditions = append(f.conditions, met)
	case "connected":
		if value != "true" && value != "false" {
			return o.invalid(name, value, "true or false, given once")
		}
		want := value == "true"
		f.conditions = append(f.conditions, func(_ *view, d *balena.Device) bool { return d.Connected() == want })
	case "port":
		port, err := strconv.Atoi(value)
		if err != nil || !slices.Contains(o.Ports, port) {
			return o.invalid(name, value, "one of --sd.port")
		}
		f.ports = append(f.ports, port)
	default:
		return fmt.Errorf("unknown parameter %s; %s", quoted(name), o.parameters())
	}
	return nil
}

// parseTag parses KEY or KEY=VALUE; nil if the key is none of the options. The key may contain an equals sign.
func (o *Options) parseTag(s string) condition {
	if slices.Contains(o.DeviceTags, s) {
		return tagged(s, "", true)
	}
	for _, key := range o.DeviceTags {
		if value, ok := strings.CutPrefix(s, key+"="); ok {
			return tagged(key, value, false)
		}
	}
	for _, pattern := range o.DeviceTags {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok && strings.HasPrefix(s, prefix) {
			key, value, hasValue := strings.Cut(s, "=")
			return tagged(key, value, !hasValue)
		}
	}
	return nil
}

// invalid returns the error of a parameter with an invalid value.
func (o *Options) invalid(name, value, valid string) error {
	return fmt.Errorf("invalid value %s of %s: it must be %s; %s", quoted(value), name, valid, o.parameters())
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
