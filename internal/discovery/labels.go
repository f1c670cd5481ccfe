// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

// Options says what the lists tell.
type Options struct {
	Address Address
	// URLsBase is the domain of public device URLs; empty for what the API tells.
	URLsBase string
	// Template makes the addresses of [None]; nil for the UUID.
	Template *Template
	// Ports are the ports of the targets of a device, each of which is a target; none for one target whose
	// address is as it comes.
	Ports []int
	// Scheme and Path are where the target serves its metrics; empty for what the scrape configuration says.
	Scheme, Path string
	// DeviceNames tells the names of devices.
	DeviceNames bool
	// DeviceTags are the keys of the devices' tags by which a request can choose. One that ends in "*" stands for all keys
	// that begin so.
	DeviceTags []string
}

const maxPort = 1<<16 - 1

// base is the domain of public device URLs.
func (o *Options) base(s *balena.Snapshot) string {
	if o.URLsBase != "" {
		return o.URLsBase
	}
	return s.DeviceURLsBase
}

// maxValue is how many bytes the value of a label has at most. Names, versions and tags are any text, of any
// length. The UUID and the fleet are not cut: by them, targets are joined with the exporter's metrics.
const maxValue = 128

// prefix begins the names of all labels that are the exporter's own.
const prefix = "__meta_balena_"

// writer writes target groups.
type writer struct{ Options }

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
	labels string // the text of the labels, which are the same for all of its devices
}

func (w *writer) newView(s *balena.Snapshot) *view {
	v := &view{
		Snapshot: s, base: w.base(s), fleets: make(map[int64]fleet, len(s.Fleets)),
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
		b = appendLabel(b, prefix+"fleet_name", cut(f.Name))
		b = appendLabel(b, prefix+"organization", cut(f.Organization))
		for j, value := range f.Tags {
			b = appendLabel(b, fleetTags[j], cut(value))
		}
		v.fleets[f.ID] = fleet{f.Slug, string(b)}
	}
	return v
}

// tags are the tags of a device that are exported; nil if it has none.
func (v *view) tags(d *balena.Device) []balena.Tag {
	tags := d.Tags()
	return tags[:min(len(tags), len(v.DeviceTagKeys))]
}

// appendDevice appends the target group of a device, unless the device has no address or is not chosen.
func (w *writer) appendDevice(b []byte, v *view, d *balena.Device, f *filter) []byte {
	of := v.fleets[d.FleetID]
	if !f.chooses(v, d, of.slug) {
		return b
	}
	host := w.host(d, v.base)
	if host == "" {
		return b
	}
	if len(b) > 0 {
		b = append(b, ",\n"...)
	}
	b = append(b, `{"targets":[`...)
	if len(w.Ports) == 0 {
		b = appendText(b, host)
	}
	first := true
	for _, port := range w.Ports {
		if !f.choosesPort(port) {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendText(b, host+":"+strconv.Itoa(port))
	}
	b = append(b, `],"labels":{`...)
	begin := len(b)
	b = w.appendLabels(b, v, d)
	b = append(b, of.labels...)
	b = append(b[:begin], b[begin+1:]...) // each label begins with a comma
	return append(b, `}}`...)
}

func (w *writer) appendLabels(b []byte, v *view, d *balena.Device) []byte {
	switch {
	case w.Scheme != "":
		b = appendLabel(b, "__scheme__", w.Scheme)
	case w.Address == Public:
		b = appendLabel(b, "__scheme__", "https")
	}
	b = appendLabel(b, "__metrics_path__", w.Path)
	b = appendLabel(b, prefix+"device_uuid", d.UUID)
	if w.DeviceNames {
		b = appendLabel(b, prefix+"device_name", cut(d.Name))
	}
	b = appendLabel(b, prefix+"device_type", cut(d.Type))
	b = appendLabel(b, prefix+"device_status", cut(d.Status))
	b = appendLabel(b, prefix+"device_online", strconv.FormatBool(d.Online))
	b = appendLabel(b, prefix+"device_connected", strconv.FormatBool(d.Connected()))
	b = appendLabel(b, prefix+"device_web_accessible", strconv.FormatBool(d.WebAccessible))
	b = appendLabel(b, prefix+"device_os_version", cut(d.OSVersion))
	b = appendLabel(b, prefix+"device_os_variant", cut(d.OSVariant))
	b = appendLabel(b, prefix+"device_supervisor_version", cut(d.SupervisorVersion))
	if d.RunningRelease != 0 {
		r := v.Releases[d.RunningRelease]
		b = appendLabel(b, prefix+"device_commit", cut(r.Commit))
		b = appendLabel(b, prefix+"device_release_version", cut(r.Version))
	}
	for i, tag := range v.tags(d) {
		if tag.ID != 0 {
			b = appendLabel(b, v.deviceTags[i], cut(tag.Value))
			b = appendLabel(b, v.tagsPresent[i], "true")
		}
	}
	return b
}

// appendLabel appends a label after a comma. An empty label is none, to Prometheus.
func appendLabel(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, `,"`...)
	b = append(b, name...) // nothing in it needs quoting
	b = append(b, `":`...)
	return appendText(b, value)
}

// appendText appends a text as JSON has it. What is no UTF-8 becomes U+FFFD.
func appendText(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // the error says that the text is no UTF-8
	return b
}

// cut returns the beginning of a text that is long.
func cut(s string) string {
	if len(s) <= maxValue {
		return s
	}
	end := maxValue
	for end > maxValue-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
