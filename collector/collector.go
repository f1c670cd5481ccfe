// SPDX-License-Identifier: Apache-2.0

// Package collector turns a snapshot of balena fleets into metric families.
//
// Everything here is a pure function of a snapshot: the same snapshot gives the same samples. Each group
// of metrics has one file with one table in it, and a row of a table is all there is to say of a metric:
// name, help, labels, source and value. Documentation, lint and both ways of serving derive from the rows.
//
// The samples come out in two ways, which a test holds equal. A [Collector] is a [prometheus.Collector]
// and a [prometheus.Gatherer] for anybody's registry and tests. [Collector.Render] makes an [exposition.Page]
// of the same samples, several hundred times cheaper, for an exporter that renders once and serves often.
package collector

import (
	"iter"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

// Options says which metrics to export. Only what the snapshot holds can be: a metric of something that
// was not read has no samples.
type Options struct {
	// Devices, Releases, Services and Keys switch the groups of these names on.
	Devices, Releases, Services, Keys bool
	// ServiceSummary switches on how many services run.
	ServiceSummary bool
	// DeviceNames puts the device's name into balena_device_info; otherwise the label is empty.
	DeviceNames bool
	// DeviceTags, FleetTags and Maintenance switch on the families of tags, which the snapshot has the keys of.
	DeviceTags, FleetTags, Maintenance bool
	// Location switches on where devices are, in degrees with LocationDecimals decimals.
	Location         bool
	LocationDecimals int
	// DisconnectedThresholds are the times in seconds for balena_fleet_devices_disconnected_longer_than.
	DisconnectedThresholds []int
	// ReleaseLimit is how many releases a fleet may have in balena_fleet_devices_by_release before the
	// least used become one row; 0 means no limit.
	ReleaseLimit int
	// Exported chooses families by name; nil exports all of the groups that are switched on.
	Exported func(family string) bool
	// ObserveImplausible is told by [Collector.Render] how many values of a field of the API are new and cannot
	// be true; see [Metrics.ObserveImplausible]. May be nil.
	ObserveImplausible func(field string, values int)
}

// DefaultOptions returns the options that the exporter starts with.
func DefaultOptions() Options {
	return Options{
		Devices:                true,
		Releases:               true,
		ServiceSummary:         true,
		Keys:                   true,
		DeviceNames:            true,
		DisconnectedThresholds: []int{3600, 86400, 604800, 2592000},
		ReleaseLimit:           50,
	}
}

// Collector exports the snapshot that its source has.
type Collector struct {
	source             func() *balena.Snapshot
	options            Options
	layout             exposition.Layout
	observeImplausible func(field string, values int)

	// What was rendered last only saves work: the next page and its sums are made of it and of what has changed since.
	// rendered is nil before the first page.
	rendered *view
	page     *exposition.Page
}

// New returns a collector of the snapshot that source returns at each collection; nil means that there is
// none (yet, or any more), and gives no samples.
func New(source func() *balena.Snapshot, o Options) *Collector {
	c := &Collector{source: source, options: o, observeImplausible: o.ObserveImplausible}
	for d := range c.Descriptions() {
		c.layout = append(c.layout, exposition.Family{Header: appendHeader(nil, &d), Group: d.ScrapeGroup()})
	}
	return c
}

// groups returns the tables that the options switch on, without the families that they leave out, in the order in which
// they are exported. The keys of tags are those of a snapshot; which families there are does not depend on it.
func groups(o Options, s *balena.Snapshot) (exported []group) {
	for _, g := range tables(o, s) {
		if o.Exported != nil {
			g = g.only(o.Exported)
		}
		if g != nil {
			exported = append(exported, g)
		}
	}
	return exported
}

// tables returns the tables that the options switch on.
func tables(o Options, s *balena.Snapshot) []group {
	g := []group{fleetNameTable(), fleetTable(o), organizationTable()}
	if o.FleetTags {
		g = append(g, fleetTagTable(s.FleetTagKeys))
	}
	if o.Maintenance {
		g = append(g, fleetMaintenanceTable())
	}
	if o.Releases {
		g = append(g, releaseTable(o))
	}
	if o.ServiceSummary {
		g = append(g, fleetHealthTable())
	}
	if o.Services {
		g = append(g, fleetServiceTable())
	}
	if o.Devices {
		g = append(g, deviceTable(o))
		if o.ServiceSummary {
			g = append(g, deviceHealthTable())
		}
		if o.Maintenance {
			g = append(g, deviceMaintenanceTable())
		}
		if o.Location {
			g = append(g, deviceLocationTable(o))
		}
	}
	if o.DeviceTags {
		g = append(g, deviceTagTable(s.DeviceTagKeys))
	}
	if o.Services {
		g = append(g, deviceServiceTable())
	}
	if o.Keys {
		g = append(g, keyTable())
	}
	return g
}

// Tallies returns the sums of the fleets of the snapshot that was rendered last, by the IDs of the fleets. They are valid
// until the next call of [Collector.Render], and belong to the goroutine that calls it.
func (c *Collector) Tallies() iter.Seq2[int64, *balena.Tally] {
	return func(yield func(int64, *balena.Tally) bool) {
		if c.rendered == nil {
			return
		}
		for i := range c.rendered.fleets {
			if f := &c.rendered.fleets[i]; !yield(f.ID, &f.Tally) {
				return
			}
		}
	}
}

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for d := range c.Descriptions() {
		ch <- d.desc()
	}
}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	s := c.source()
	if s == nil {
		return
	}
	v := newView(s, nil)
	for _, g := range groups(c.options, s) {
		g.collect(v, ch)
	}
}

// Gather implements [prometheus.Gatherer], checking the samples as strictly as client_golang can.
func (c *Collector) Gather() ([]*dto.MetricFamily, error) {
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(c); err != nil {
		return nil, err
	}
	return r.Gather()
}

// Render makes a page of a snapshot. The page depends on the snapshot alone, but making it is cheaper the less the
// snapshot differs from the one rendered before. One goroutine at a time may call Render.
func (c *Collector) Render(s *balena.Snapshot) *exposition.Page {
	before := c.rendered
	c.rendered = nil // newView uses it up
	v := newView(s, before)
	page := exposition.NewBuilder(c.layout, c.page)
	devices := newRuns(v, before, page)
	first := 0
	for _, g := range groups(c.options, s) {
		if t, ok := g.(*table[device]); ok {
			devices.add(t, first)
		} else {
			g.render(v, func(family int, lines []byte) { page.Append(first+family, lines) })
		}
		first += len(g.descriptions())
	}
	devices.render()
	if c.observeImplausible != nil {
		for field, values := range v.implausible {
			c.observeImplausible(field, values)
		}
	}
	c.rendered, c.page = v, page.Page()
	return c.page
}

// ScrapeGroups returns the names of the groups, in the order of the page, by which a scrape can ask for some of them.
func (c *Collector) ScrapeGroups() (names []string) {
	for d := range c.Descriptions() {
		if name := d.ScrapeGroup(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Descriptions describes all families that the collector has. Those of tags have labels that depend on the snapshot, and
// are described without them.
func (c *Collector) Descriptions() iter.Seq[Description] {
	return func(yield func(Description) bool) {
		for _, g := range groups(c.options, new(balena.Snapshot)) {
			for _, d := range g.descriptions() {
				if !yield(d) {
					return
				}
			}
		}
	}
}

// view is a snapshot with the sums over its devices.
type view struct {
	*balena.Snapshot
	fleets []fleet
	byID   map[int64]*fleet
	names  []fleetName
	keys   []balena.Key
	// implausible counts values by field, those that are not the same in the view before.
	implausible balena.Counts[string]
}

// tellsSupervisorTarget tells whether the API has a field for the supervisor that a device should run.
func (v *view) tellsSupervisorTarget() bool { return v.APIVersion != balena.V6 }
