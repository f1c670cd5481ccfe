// SPDX-License-Identifier: Apache-2.0

// Package collector turns a snapshot of balena fleets into metric families.
//
// The samples are a pure function of the snapshot: the same snapshot gives the same samples. A row of a
// table defines a metric completely: name, help, labels, source and value. Documentation, lint and both
// ways of serving derive from the rows.
//
// The samples are available in two ways, which a test compares. A [Collector] is a [prometheus.Collector]
// and a [prometheus.Gatherer], for any registry and for tests. [Collector.Render] renders an [exposition.Page]
// with the same samples at a fraction of the cost, for an exporter that renders once and serves often.
package collector

import (
	"iter"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

// Options selects the metrics to export. A metric whose data the snapshot does not contain has no samples.
type Options struct {
	// Devices, Releases, Services and Keys enable the groups with these names.
	Devices, Releases, Services, Keys bool
	// ServiceSummary enables the numbers of running services.
	ServiceSummary bool
	// OS enables the releases of balenaOS and of the supervisor, and how far devices are behind them.
	OS bool
	// DeviceNames enables the label device_name of balena_device_info; otherwise the label is empty.
	DeviceNames bool
	// DeviceTags, FleetTags and Maintenance enable the families of tags. The snapshot has the keys of the tags.
	DeviceTags, FleetTags, Maintenance bool
	// Location enables the coordinates of devices, in degrees with LocationDecimals decimals.
	Location         bool
	LocationDecimals int
	// DisconnectedThresholds are the thresholds of balena_fleet_devices_disconnected_longer_than, in seconds.
	DisconnectedThresholds []int
	// ReleaseLimit is the maximum number of releases per fleet in balena_fleet_devices_by_release. The least
	// used releases beyond it are summed in one series. 0 means no limit.
	ReleaseLimit int
	// Exported selects families by name; nil exports all families of the enabled groups.
	Exported func(family string) bool
	// ObserveImplausible is called by [Collector.Render] with the number of new implausible values of a field of
	// the API; see [Metrics.ObserveImplausible]. It may be nil.
	ObserveImplausible func(field string, values int)
}

// DefaultOptions returns the options that correspond to the defaults of the exporter's flags.
func DefaultOptions() Options {
	return Options{
		Devices:                true,
		Releases:               true,
		ServiceSummary:         true,
		OS:                     true,
		Keys:                   true,
		DeviceNames:            true,
		DisconnectedThresholds: []int{3600, 86400, 604800, 2592000},
		ReleaseLimit:           50,
	}
}

// Collector exports the current snapshot of a source.
type Collector struct {
	source  func() *balena.Snapshot
	options Options
	layout  exposition.Layout

	// previous and page are the results of the last call of Render, nil before the first one. The next page reuses
	// everything in them that did not change.
	previous *view
	page     *exposition.Page
}

// New returns a collector of the snapshot that source returns at each collection. If source returns nil, there
// are no samples. source may be nil if only [Collector.Render] is used.
func New(source func() *balena.Snapshot, o Options) *Collector {
	c := &Collector{source: source, options: o}
	for d := range c.Descriptions() {
		c.layout = append(c.layout, exposition.Family{Header: d.header(), Group: d.ScrapeGroup()})
	}
	return c
}

// tables returns the tables that the options enable, without the families that they exclude, in the order in which they are
// exported. The labels of tags depend on the snapshot; the set of families does not.
func tables(o Options, s *balena.Snapshot) (enabled []anyTable) {
	for _, t := range optionalTables(&o, s) {
		if t.enabled() {
			enabled = append(enabled, t.anyTable)
		}
	}
	return enabled
}

// optionalTable is a table that is exported if all of some options are set.
type optionalTable struct {
	anyTable
	options []*bool
}

func (t optionalTable) enabled() bool {
	return !slices.ContainsFunc(t.options, func(option *bool) bool { return !*option })
}

// optionalTables returns all tables, without the families that the options exclude.
func optionalTables(o *Options, s *balena.Snapshot) []optionalTable {
	all := []optionalTable{
		{fleetNameTable(), nil},
		{fleetTable(*o), nil},
		{organizationTable(), nil},
		{fleetTagTable(s.FleetTagKeys), []*bool{&o.FleetTags}},
		{fleetMaintenanceTable(), []*bool{&o.Maintenance}},
		{releaseTable(*o), []*bool{&o.Releases}},
		{fleetHealthTable(), []*bool{&o.ServiceSummary}},
		{fleetServiceTable(), []*bool{&o.Services}},
		{osLineTable(), []*bool{&o.OS}},
		{supervisorTable(), []*bool{&o.OS}},
		{fleetOSTable(), []*bool{&o.OS}},
		{deviceTable(*o), []*bool{&o.Devices}},
		{deviceHealthTable(), []*bool{&o.Devices, &o.ServiceSummary}},
		{deviceMaintenanceTable(), []*bool{&o.Devices, &o.Maintenance}},
		{deviceLocationTable(*o), []*bool{&o.Devices, &o.Location}},
		{deviceOSTable(), []*bool{&o.Devices, &o.OS}},
		{deviceTagTable(s.DeviceTagKeys), []*bool{&o.DeviceTags}},
		{deviceServiceTable(), []*bool{&o.Services}},
		{keyTable(), []*bool{&o.Keys}},
	}
	if o.Exported != nil {
		for _, t := range all {
			t.filter(o.Exported)
		}
	}
	return all
}

// Tallies returns the sums of the fleets of the last rendered snapshot, by fleet ID. They are valid until the next
// call of [Collector.Render]. Only the goroutine that calls Render may use them.
func (c *Collector) Tallies() iter.Seq2[int64, *balena.Tally] {
	return func(yield func(int64, *balena.Tally) bool) {
		if c.previous == nil {
			return
		}
		for i := range c.previous.fleets {
			if f := &c.previous.fleets[i]; !yield(f.ID, &f.Tally) {
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
	for _, t := range tables(c.options, s) {
		t.collect(v, ch)
	}
}

// Gather implements [prometheus.Gatherer]. It checks the samples with a pedantic registry.
func (c *Collector) Gather() ([]*dto.MetricFamily, error) {
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(c); err != nil {
		return nil, err
	}
	return r.Gather()
}

// Render renders a page of a snapshot. The page depends only on the snapshot. The cost depends on the differences
// to the previously rendered snapshot. Render must not be called concurrently.
func (c *Collector) Render(s *balena.Snapshot) *exposition.Page {
	previous := c.previous
	c.previous = nil // newView modifies its sums
	v := newView(s, previous)
	page := exposition.NewBuilder(c.layout, c.page)
	devices := newRuns(v, previous, page)
	first := 0
	for _, t := range tables(c.options, s) {
		if ofDevices, ok := t.(*table[device]); ok {
			devices.add(ofDevices, first)
		} else {
			t.render(v, func(family int, lines []byte) { page.Append(first+family, lines) })
		}
		first += len(t.descriptions())
	}
	devices.render()
	if c.options.ObserveImplausible != nil {
		for field, values := range v.implausible {
			c.options.ObserveImplausible(field, values)
		}
	}
	c.previous, c.page = v, page.Page()
	return c.page
}

// ScrapeGroups returns the values of the parameter collect[] of a scrape, in the order of the page.
func (c *Collector) ScrapeGroups() (names []string) {
	for d := range c.Descriptions() {
		if name := d.ScrapeGroup(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Descriptions yields the descriptions of all families of the collector. The labels of tags depend on the snapshot and
// are left out.
func (c *Collector) Descriptions() iter.Seq[Description] {
	return func(yield func(Description) bool) {
		for _, t := range tables(c.options, new(balena.Snapshot)) {
			for _, d := range t.descriptions() {
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
	// osRelease and supervisorRelease return the published release that a device runs, or nil.
	osRelease         func(balena.OS) *balena.SystemRelease
	supervisorRelease func(supervisorVersion) *balena.SystemRelease
	// implausible counts implausible values by field, without those that the previous view has too.
	implausible balena.Counts[string]
}
