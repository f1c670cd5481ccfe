// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"slices"
	"unicode/utf8"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

// Metrics of tags: allow-listed ones only, since anybody who may edit a device can write anything there.

// maxTagValue is how many characters of a tag's value are exported; it may have 10 kB.
const maxTagValue = 128

// tagLabels returns the names of the labels for the keys of tags.
func tagLabels(keys []string) []string { return exposition.LabelNames("tag_", keys) }

// tagValues cuts the values of tags to the length that is exported.
func tagValues(values []string) []string {
	cut := make([]string, len(values))
	for i, v := range values {
		cut[i] = v
		if utf8.RuneCountInString(v) > maxTagValue {
			cut[i] = string([]rune(v)[:maxTagValue])
		}
	}
	return cut
}

// values are the values of the first tags; nil if the device has none of these.
func values(tags []balena.Tag, first int) []string {
	tags = tags[:min(first, len(tags))]
	if !slices.ContainsFunc(tags, func(t balena.Tag) bool { return t.ID != 0 }) {
		return nil
	}
	values := make([]string, len(tags))
	for i, t := range tags {
		values[i] = t.Value
	}
	return values
}

func addTags(out *samples, values []string) {
	if values != nil {
		out.add(1, tagValues(values)...)
	}
}

func fleetTagTable(keys []string) group {
	return &table[fleet]{
		group:    "Tags",
		series:   "1 for each fleet that has one of the tags",
		labels:   []string{"fleet"},
		subjects: fleets, identity: fleetIdentity,
		families: []family[fleet]{{
			name: "balena_fleet_tags", help: "Tags of the fleet, those of --collector.fleet.tags.",
			source: "application_tag.tag_key, value", labels: tagLabels(keys),
			samples: func(f *fleet, out *samples) { addTags(out, f.Tags) },
		}},
	}
}

func deviceTagTable(keys []string) group {
	return &table[device]{
		group:    "Tags",
		series:   "1 for each device that has one of the tags",
		labels:   []string{"fleet", "uuid"},
		subjects: devices, identity: deviceIdentity,
		families: []family[device]{{
			name: "balena_device_tags", steady: true, help: "Tags of the device, those of --collector.device.tags.",
			source: "device_tag.tag_key, value", labels: tagLabels(keys),
			samples: func(d *device, out *samples) { addTags(out, values(d.Tags(), len(keys))) },
		}},
	}
}
