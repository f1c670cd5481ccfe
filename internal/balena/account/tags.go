// SPDX-License-Identifier: Apache-2.0

package account

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// A tag is asked for by its key, or by the beginning of its key: "site-*". Which keys there are is only known when all
// tags were read.

// maxTagsPerFleet is more tags than any fleet has.
const maxTagsPerFleet = 1000

// readDeviceTags reads the configured tags of devices.
func (f *refresh) readDeviceTags(ctx context.Context) {
	asked := f.config.deviceTags()
	if asked.empty() {
		return
	}
	keys := &f.parts.deviceTagKeys // of the tags of all devices, in the order in which a device holds them
	attach(ctx, f, balena.PartDeviceTags, &f.parts.deviceTags, &f.trust.tags, attachment[tagRow]{
		resource: "device_tag", condition: asked.condition(), fields: tagFields("device"),
		device: func(r *tagRow) int64 { return r.owner },
		choose: func(rows map[int64][]tagRow) error {
			there := map[string]bool{}
			for _, of := range rows {
				for i := range of {
					there[of[i].key] = true
				}
			}
			found, err := asked.keys(there)
			if err == nil {
				*keys = found
			}
			return err
		},
		chosen: func(devices balena.Devices) bool { return asked.inUse(*keys, devices) },
		reset:  func(a *balena.Attachments) { a.Tags = nil },
		apply: func(a *balena.Attachments, r *tagRow) bool {
			i := slices.Index(*keys, r.key)
			if i < 0 {
				return false
			}
			if a.Tags == nil {
				a.Tags = make([]balena.Tag, len(*keys))
			}
			a.Tags[i] = r.Tag
			return true
		},
		finish: func(d *balena.Device, _ bool) {
			d.Maintenance = 0
			if i := slices.Index(*keys, asked.maintenance); asked.maintenance != "" && i >= 0 && hasTag(d, i) {
				d.Maintenance = balena.MaintenanceUntil(d.Tags()[i].Value)
			}
		},
		count: func(d *balena.Device) (n int) {
			for i := range d.Tags() {
				if hasTag(d, i) {
					n++
				}
			}
			return n
		},
	})
	f.snapshot.DeviceTagKeys = asked.exported(*keys)
}

// askedTags are the tags of one kind of owner that are asked for.
type askedTags struct {
	flag     string   // that names them
	patterns []string // keys, or beginnings of keys with a "*" behind them
	// maintenance is the key of the tag that says that its owner is in maintenance; empty for none.
	maintenance string
	limit       int // of the keys that patterns find
}

func (c *Config) deviceTags() askedTags {
	return askedTags{"--collector.device.tags", c.DeviceTags, c.MaintenanceTag, c.TagLimit}
}

func (c *Config) fleetTags() askedTags {
	return askedTags{"--collector.fleet.tags", c.FleetTags, c.MaintenanceTag, c.TagLimit}
}

func (t *askedTags) empty() bool { return len(t.patterns) == 0 && t.maintenance == "" }

// condition is the condition for the tags; empty for all.
func (t *askedTags) condition() string {
	var keys, conditions []string
	for _, pattern := range append(slices.Clone(t.patterns), t.maintenance) {
		prefix, open := strings.CutSuffix(pattern, "*")
		switch {
		case pattern == "" || !open && slices.Contains(keys, pattern):
		case !open:
			keys = append(keys, pattern)
		case prefix == "":
			return ""
		default:
			conditions = append(conditions, api.StartsWith("tag_key", prefix))
		}
	}
	if len(keys) > 0 {
		conditions = append([]string{api.In("tag_key", keys)}, conditions...)
	}
	if len(conditions) == 1 {
		return conditions[0]
	}
	return "(" + strings.Join(conditions, " or ") + ")"
}

// hasTag reports whether a device has the tag with the key of an index.
func hasTag(d *balena.Device, key int) bool { return key < len(d.Tags()) && d.Tags()[key].ID != 0 }

// keys returns the keys that are asked for, given those that there are: first the keys that were named and those that
// patterns found, in the order of the patterns, then that of the maintenance tag unless it is among them.
func (t *askedTags) keys(there map[string]bool) ([]string, error) {
	var keys []string
	add := func(key string) {
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	matched := map[string]bool{}
	for _, pattern := range t.patterns {
		prefix, open := strings.CutSuffix(pattern, "*")
		if !open {
			add(pattern)
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(there)) {
			if strings.HasPrefix(key, prefix) && !slices.Contains(t.patterns, key) {
				// Checked here, because there can be very many keys.
				if matched[key] = true; len(matched) > t.limit {
					return nil, fmt.Errorf("the patterns of %s match more than %d keys; make them narrower, or raise --collector.tag-limit", t.flag, t.limit)
				}
				add(key)
			}
		}
	}
	if t.maintenance != "" {
		add(t.maintenance)
	}
	return keys, nil
}

// inUse tells whether devices have tags of all keys that patterns found.
func (t *askedTags) inUse(keys []string, devices balena.Devices) bool {
	for i, key := range keys {
		if key == t.maintenance || slices.Contains(t.patterns, key) {
			continue
		}
		used := false
		for d := range devices.All() {
			if used = hasTag(d, i); used {
				break
			}
		}
		if !used {
			return false
		}
	}
	return true
}

// exported returns the keys without the one that was asked for because of the maintenance alone.
func (t *askedTags) exported(keys []string) []string {
	last := len(keys) - 1
	if last < 0 || keys[last] != t.maintenance || t.matches(t.maintenance) {
		return keys
	}
	return keys[:last]
}

func (t *askedTags) matches(key string) bool {
	return slices.ContainsFunc(t.patterns, func(pattern string) bool {
		prefix, open := strings.CutSuffix(pattern, "*")
		return key == pattern || open && strings.HasPrefix(key, prefix)
	})
}
