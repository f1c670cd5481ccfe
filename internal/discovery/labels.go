// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

// Options configures the addresses and labels of targets.
type Options struct {
	Address Address
	// URLsBase is the domain of public device URLs; empty for the domain that the API provides.
	URLsBase string
	// Template is the template for addresses of [None]; nil for the UUID.
	Template *Template
	// Ports are the ports of each device. Each port is a target. Without ports a device has one target.
	Ports []int
	// Scheme and Path are the scheme and path of the targets; empty for those of the scrape configuration.
	Scheme, Path string
	// DeviceNames adds the names of devices.
	DeviceNames bool
	// DeviceTags are the keys of device tags that filters may use. A key that ends in "*" is a prefix.
	DeviceTags []string
}

const maxPort = 1<<16 - 1

// base returns the domain of public device URLs.
func (o *Options) base(s *balena.Snapshot) string {
	return cmp.Or(o.URLsBase, s.DeviceURLsBase)
}

// maxValue is the maximum length of a label value in bytes. Names, versions and tags may have any length. The UUID and
// the fleet are not truncated, because they join targets with the exporter's metrics.
const maxValue = 128

// prefix is the prefix of the names of all labels that are specific to the exporter.
const prefix = "__meta_balena_"

// view is a snapshot, with the labels of its fleets.
type view struct {
	*balena.Snapshot
	base   string
	fleets map[int64]fleet
	// deviceTags and tagsPresent are names of labels, in the order of the keys.
	deviceTags, tagsPresent []string
}

type fleet struct {
	slug   string
	labels string // the text of the labels that all devices of the fleet share
}

func (o *Options) newView(s *balena.Snapshot) *view {
	v := &view{
		Snapshot: s, base: o.base(s), fleets: make(map[int64]fleet, len(s.Fleets)),
		deviceTags: exposition.LabelNames(prefix+"device_tag_", s.DeviceTagKeys),
	}
	for _, name := range v.deviceTags {
		v.tagsPresent = append(v.tagsPresent, prefix+"device_tagpresent_"+strings.TrimPrefix(name, prefix+"device_tag_"))
	}
	fleetTags := exposition.LabelNames(prefix+"fleet_tag_", s.FleetTagKeys)
	for i := range s.Fleets {
		f := &s.Fleets[i]
		b := appendLabel(nil, prefix+"fleet", f.Slug)
		b = appendLabel(b, prefix+"fleet_id", strconv.FormatInt(f.ID, 10))
		b = appendLabel(b, prefix+"fleet_name", truncated(f.Name))
		b = appendLabel(b, prefix+"organization", truncated(f.Organization))
		for j, value := range f.Tags {
			b = appendLabel(b, fleetTags[j], truncated(value))
		}
		v.fleets[f.ID] = fleet{f.Slug, string(b)}
	}
	return v
}

// tags returns the exported tags of a device; nil if it has none.
func (v *view) tags(d *balena.Device) []balena.Tag {
	tags := d.Tags()
	return tags[:min(len(tags), len(v.DeviceTagKeys))]
}

// appendDevice appends the target group of a device, unless the device has no address or the filter excludes it. A
// separator precedes it unless b is empty and begins the list.
func (o *Options) appendDevice(b []byte, v *view, d *balena.Device, f *filter, begins bool) []byte {
	fleet := v.fleets[d.FleetID]
	if !f.matches(v, d, fleet.slug) {
		return b
	}
	host := o.host(d, v.base)
	if host == "" {
		return b
	}
	if len(b) > 0 || !begins {
		b = append(b, ",\n"...)
	}
	b = append(b, `{"targets":[`...)
	if len(f.ports) == 0 {
		b = appendText(b, host)
	}
	for i, port := range f.ports {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, host+":"+strconv.Itoa(port))
	}
	b = append(b, `],"labels":{`...)
	begin := len(b)
	b = o.appendLabels(b, v, d)
	b = append(b, fleet.labels...)
	b = append(b[:begin], b[begin+1:]...) // each label begins with a comma
	return append(b, `}}`...)
}

func (o *Options) appendLabels(b []byte, v *view, d *balena.Device) []byte {
	switch {
	case o.Scheme != "":
		b = appendLabel(b, "__scheme__", o.Scheme)
	case o.Address == Public:
		b = appendLabel(b, "__scheme__", "https")
	}
	b = appendLabel(b, "__metrics_path__", o.Path)
	b = appendLabel(b, prefix+"device_uuid", d.UUID)
	if o.DeviceNames {
		b = appendLabel(b, prefix+"device_name", truncated(d.Name))
	}
	b = appendLabel(b, prefix+"device_type", truncated(d.Type))
	b = appendLabel(b, prefix+"device_status", truncated(d.Status))
	b = appendLabel(b, prefix+"device_online", strconv.FormatBool(d.Online))
	b = appendLabel(b, prefix+"device_connected", strconv.FormatBool(d.Connected()))
	b = appendLabel(b, prefix+"device_web_accessible", strconv.FormatBool(d.WebAccessible))
	b = appendLabel(b, prefix+"device_os_version", truncated(d.OSVersion))
	b = appendLabel(b, prefix+"device_os_variant", truncated(d.OSVariant))
	b = appendLabel(b, prefix+"device_supervisor_version", truncated(d.SupervisorVersion))
	if d.RunningRelease != 0 {
		r := v.Releases[d.RunningRelease]
		b = appendLabel(b, prefix+"device_commit", truncated(r.Commit))
		b = appendLabel(b, prefix+"device_release_version", truncated(r.Version))
	}
	for i, tag := range v.tags(d) {
		if tag.ID != 0 {
			b = appendLabel(b, v.deviceTags[i], truncated(tag.Value))
			b = appendLabel(b, v.tagsPresent[i], "true")
		}
	}
	return b
}

// appendLabel appends a comma and a label, unless the value is empty: to Prometheus, an empty label is a missing label.
func appendLabel(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, `,"`...)
	b = append(b, name...) // needs no escaping
	b = append(b, `":`...)
	return appendText(b, value)
}

// appendText appends a JSON string. Invalid UTF-8 becomes U+FFFD.
func appendText(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // the only error is invalid UTF-8
	return b
}

// truncated returns at most maxValue bytes of a text.
func truncated(s string) string {
	if len(s) <= maxValue {
		return s
	}
	return strings.ToValidUTF8(s[:maxValue], "") // without the beginning of a cut character
}
