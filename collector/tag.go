// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"slices"
	"unicode/utf8"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

// Metrics of tags. Only tags with configured keys are exported, because anyone who may edit a device can add tags with
// any content.

// maxTagValue is the maximum number of exported characters of a tag's value. The API allows 10 kB.
const maxTagValue = 128

// tagLabels returns the names of the labels for keys of tags.
func tagLabels(keys []string) []string { return exposition.LabelNames("tag_", keys) }

// truncated returns the values of tags, truncated to the maximum length.
func truncated(values []string) []string {
	truncated := make([]string, len(values))
	for i, v := range values {
		truncated[i] = v
		if utf8.RuneCountInString(v) > maxTagValue {
			truncated[i] = string([]rune(v)[:maxTagValue])
		}
	}
	return truncated
}

// tagValues returns the values of the first n tags; nil if the device has none of them.
func tagValues(tags []balena.Tag, n int) []string {
	tags = tags[:min(n, len(tags))]
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
		out.add(1, truncated(values)...)
	}
}

func fleetTagTable(keys []string) anyTable {
	return fleetKind.table("Tags", "1 per fleet with one of the tags",
		labeled("balena_fleet_tags", "The tags of the fleet that --collector.fleet.tags lists. Values are truncated to 128 characters.",
			"application_tag.tag_key, value", tagLabels(keys),
			func(f *fleet, out *samples) { addTags(out, f.Tags) }),
	)
}

func deviceTagTable(keys []string) anyTable {
	return deviceKind.table("Tags", "1 per device with one of the tags",
		labeled("balena_device_tags", "The tags of the device that --collector.device.tags lists. Values are truncated to 128 characters.",
			"device_tag.tag_key, value", tagLabels(keys),
			func(d *device, out *samples) { addTags(out, tagValues(d.Tags(), len(keys))) }).inLongRuns(),
	)
}
