// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"cmp"
	"slices"
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/problem"
)

// filter is a filter of a list while the list is created.
type filter struct {
	// Name is the query parameter, and Text the title of the menu; empty for a filter with links.
	Name, Text string
	// prefix precedes the values in the query parameter.
	prefix    string
	selection selection
	// selected is the value that the devices of the list have; empty for all.
	selected string
	// of returns the entry of a device.
	of      func(*row) *entry
	entries []*entry
	// describe returns how a value is shown. Choices are sorted by rank.
	describe func(value string) (text, class string, rank int)
}

// entry are the devices for which a filter has the same values: a set, which usually has one element.
type entry struct {
	values  []string
	matches bool
	// devices is the number of devices that the filter would list if it selected one of the values.
	devices int
}

// The indices of some filters.
const (
	problemFilter = iota
	statusFilter
	fleetFilter
	releaseFilter
)

// maxTags is the maximum number of tags that have a filter.
const maxTags = 16

// noRelease is the value of the filter for devices without a release.
const noRelease = "none"

// rollouts are the values of the filter for rollout states. A device may have several states.
var rollouts = []string{"off target", "on target", "pinned"}

// rollout is the rollout state of a device.
type rollout struct{ targeted, onTarget, pinned bool }

func newFilters(s *balena.Snapshot, sel selection) []*filter {
	filters := []*filter{
		newFilter(filter{Name: "problem", describe: describeCause},
			func(r *row) problem.Set { return r.problems },
			func(set problem.Set) (alerts []string) {
				for _, c := range set.All() {
					alerts = append(alerts, c.Alert)
				}
				return alerts
			}),
		newFilter(filter{Name: "status", describe: describeStatus},
			func(r *row) string { return statusOf(r.device) }, single),
		newFilter(filter{Name: "fleet", Text: "Fleet"},
			func(r *row) int64 { return r.device.FleetID },
			func(id int64) []string { return single(s.Fleet(id).Slug) }),
		newFilter(filter{Name: "release", Text: "Release"},
			func(r *row) int64 { return r.device.RunningRelease },
			func(id int64) []string { return single(cmp.Or(releaseOf(s, id).String(), noRelease)) }),
		newFilter(filter{Name: "rollout", Text: "Rollout"},
			func(r *row) rollout {
				return rollout{r.device.TargetRelease != 0, r.device.OnTarget(), r.device.PinnedRelease != 0}
			},
			func(state rollout) (states []string) {
				if state.targeted {
					states = append(states, either(state.onTarget, "on target", "off target"))
				}
				if state.pinned {
					states = append(states, "pinned")
				}
				return states
			}),
		newFilter(filter{Name: "os", Text: "OS"}, func(r *row) string { return osOf(r.device) }, single),
	}
	for i, key := range s.DeviceTagKeys[:min(len(s.DeviceTagKeys), maxTags)] {
		filters = append(filters, newFilter(filter{Name: "tag", Text: key, prefix: key + "="},
			func(r *row) string { return tagOf(r.device, i) }, single))
	}
	for _, f := range filters {
		f.selection = sel
		for _, text := range sel.Values[f.Name] {
			if value, ok := strings.CutPrefix(text, f.prefix); ok && f.selected == "" {
				f.selected = value
			}
		}
	}
	if sel.menus {
		return filters
	}
	// A tag can have as many values as there are devices.
	return slices.DeleteFunc(filters, func(f *filter) bool { return f.Name == "tag" && f.selected == "" })
}

// newFilter returns a filter whose values are a function of a key of the device. They are computed once per key.
func newFilter[K comparable](f filter, key func(*row) K, values func(K) []string) *filter {
	entries := map[K]*entry{}
	var last K
	var e *entry
	f.of = func(r *row) *entry {
		k := key(r)
		if e != nil && k == last { // consecutive equal keys are fast
			return e
		}
		last, e = k, entries[k]
		if e == nil {
			e = &entry{values: values(k)}
			e.matches = f.selected == "" || slices.Contains(e.values, f.selected)
			entries[k] = e
			f.entries = append(f.entries, e)
		}
		return e
	}
	return &f
}

// single returns a set with a value; empty if there is no value.
func single(value string) []string {
	if value == "" {
		return nil
	}
	return []string{value}
}

func describeCause(alert string) (text, class string, rank int) {
	i := problem.Index(alert)
	return problem.Causes[i].Text, string(problem.Causes[i].Severity), i
}

func describeStatus(name string) (text, class string, rank int) {
	return statusText(name), statusClass(name), -statusRank(name)
}

func osOf(d *balena.Device) string { return cmp.Or(d.OSVersion, balena.Unknown) }

// tagOf returns the value of a device's tag by the index of its key; empty if the device does not have the tag.
func tagOf(d *balena.Device, index int) string {
	if tags := d.Tags(); index < len(tags) {
		return tags[index].Value
	}
	return ""
}

// counts returns the numbers of devices that each value would list if the other filters stay the same.
func (f *filter) counts() map[string]int {
	counts := make(map[string]int, len(f.entries))
	for _, e := range f.entries {
		for _, value := range e.values {
			counts[value] += e.devices
		}
	}
	return counts
}

// choice is a value of a filter that a user can select.
type choice struct {
	Text, Value string
	Class       string // CSS class of the icon
	Devices     int
	Current     bool
	rank        int
	filter      *filter
}

// Address returns the address that selects the value, or removes the filter if the value is selected.
func (c choice) Address() string {
	return c.filter.selection.address(c.filter.Name, either(c.Current, "", c.Value))
}

// maxChoices is the maximum number of values in a menu. The values with the most devices are listed.
const maxChoices = 100

// Choices returns the values with the most devices, and the selected value: those with a rank by rank, others in reverse natural
// order, so that the newest version is the first.
func (f *filter) Choices() []choice {
	counts := f.counts()
	if f.selected != "" {
		counts[f.selected] += 0 // it is a choice even without devices
	}
	all := make([]choice, 0, len(counts))
	for value, n := range counts {
		if current := value == f.selected; n > 0 || current {
			all = append(all, choice{Text: value, Value: f.prefix + value, Devices: n, Current: current, filter: f})
		}
	}
	if len(all) > maxChoices {
		slices.SortFunc(all, func(a, b choice) int {
			return cmp.Or(compareBool(b.Current, a.Current), cmp.Compare(b.Devices, a.Devices), cmp.Compare(a.Value, b.Value))
		})
		all = all[:maxChoices]
	}
	if f.describe != nil {
		for i, c := range all {
			all[i].Text, all[i].Class, all[i].rank = f.describe(c.Value)
		}
	}
	slices.SortFunc(all, func(a, b choice) int {
		if f.describe == nil {
			a, b = b, a
		}
		return cmp.Or(cmp.Compare(a.rank, b.rank), natural(a.Value, b.Value), cmp.Compare(a.Value, b.Value))
	})
	return all
}
