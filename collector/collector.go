// Package collector turns a snapshot of balena fleets into metric families.
//
// Everything here is a pure function of a snapshot: the same snapshot gives the same samples. Each group
// of metrics has one file with one table in it, and a row of a table is all there is to say of a metric:
// name, help, labels, source and value. Documentation, lint and both ways of serving derive from the rows.
//
// The samples come out in two ways, which a test holds equal. A [Collector] is a [prometheus.Collector]
// and a [prometheus.Gatherer] for anybody's registry and tests. [Collector.Render] writes the same as text,
// several hundred times cheaper, for an exporter that renders once and serves often.
package collector

import (
	"iter"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// What a collector exports, named here for modules that make snapshots of their own.
type (
	// Snapshot is everything there is to export.
	Snapshot = balena.Snapshot
	// Fleet is a fleet of a snapshot.
	Fleet = balena.Fleet
	// Devices are the devices of a snapshot; see [NewDevices].
	Devices = balena.Devices
	// Device is a device of a fleet.
	Device = balena.Device
	// Attachments are the services and tags of a device.
	Attachments = balena.Attachments
	// Release is what fleets and devices run.
	Release = balena.Release
	// Service is a service on a device.
	Service = balena.Service
	// Tag is a tag of a device.
	Tag = balena.Tag
	// Key is an API key that expires.
	Key = balena.Key
	// Part tells how an optional part of a snapshot fared.
	Part = balena.Part
	// Reading tells how a snapshot was read.
	Reading = balena.Reading
	// Exchange is a request to the API, for [Metrics].
	Exchange = api.Exchange
	// Instant is a time in milliseconds since 1970; 0 stands for null.
	Instant = balena.Instant
)

// NewDevices returns devices that are in ascending order of ID.
func NewDevices(devices ...Device) Devices { return balena.NewDevices(devices...) }

// Options says which metrics to export. Only what the snapshot holds can be: a metric of something that
// was not read has no samples.
type Options struct {
	// Devices, Releases, Services and Keys switch the groups of these names on.
	Devices, Releases, Services, Keys bool
	// DeviceNames puts the device's name into balena_device_info; otherwise the label is empty.
	DeviceNames bool
	// DeviceTags and FleetTags are the keys of the tags, in the order in which the snapshot holds values.
	DeviceTags, FleetTags []string
	// DisconnectedThresholds are the times in seconds for balena_fleet_devices_disconnected_longer_than.
	DisconnectedThresholds []int
	// ReleaseLimit is how many releases a fleet may have in balena_fleet_devices_by_release before the
	// least used become one row; 0 means no limit.
	ReleaseLimit int
}

// DefaultOptions returns the options that the exporter starts with.
func DefaultOptions() Options {
	return Options{
		Devices:                true,
		Releases:               true,
		Keys:                   true,
		DeviceNames:            true,
		DisconnectedThresholds: []int{3600, 86400, 604800, 2592000},
		ReleaseLimit:           50,
	}
}

// Collector exports the snapshot that its source has.
type Collector struct {
	source func() *Snapshot
	groups []group
	// rendered is what was rendered last. It only saves work: the sums of the next snapshot are those of the last one,
	// but for the devices in which they differ.
	rendered *view
}

// New returns a collector of the snapshot that source returns at each collection; nil means that there is
// none (yet, or any more), and gives no samples.
func New(source func() *Snapshot, o Options) *Collector {
	return &Collector{source: source, groups: groups(o)}
}

// groups returns the tables that the options switch on, in the order in which they are exported.
func groups(o Options) []group {
	g := []group{fleetNameTable(), fleetTable(o)}
	if len(o.FleetTags) > 0 {
		g = append(g, fleetTagTable(o))
	}
	if o.Releases {
		g = append(g, releaseTable(o))
	}
	if o.Services {
		g = append(g, fleetServiceTable())
	}
	if o.Devices {
		g = append(g, deviceTable(o))
	}
	if len(o.DeviceTags) > 0 {
		g = append(g, deviceTagTable(o))
	}
	if o.Services {
		g = append(g, deviceServiceTable())
	}
	if o.Keys {
		g = append(g, keyTable())
	}
	return g
}

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, g := range c.groups {
		for _, d := range g.descriptions() {
			ch <- d.desc()
		}
	}
}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	s := c.source()
	if s == nil {
		return
	}
	v := newView(s, nil)
	for _, g := range c.groups {
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

// Render writes a snapshot in the text format 0.0.4. Of what is about devices it writes only what reads
// otherwise than in the snapshot that was written before, which may be nil. One goroutine at a time may call it.
func (c *Collector) Render(s, before *Snapshot, w Writer) {
	var known *view
	switch {
	case before == nil:
	case c.rendered != nil && c.rendered.Snapshot == before:
		known = c.rendered
	default:
		known = newView(before, nil)
	}
	v := newView(s, known)
	c.rendered = v
	var devices []*table[device]
	first, firstOfDevices := 0, 0
	for _, g := range c.groups {
		if t, ok := g.(*table[device]); !ok {
			g.render(v, first, w.Append)
		} else {
			if devices == nil {
				firstOfDevices = first
			}
			devices = append(devices, t)
		}
		first += len(g.descriptions())
	}
	renderRuns(devices, firstOfDevices, v, known, w)
}

// Descriptions describes all families that the collector has.
func (c *Collector) Descriptions() iter.Seq[Description] {
	return func(yield func(Description) bool) {
		for _, g := range c.groups {
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
	*Snapshot
	slugs  map[int64]string // of the fleets, by ID
	fleets []fleet
	names  []fleetName
	keys   []Key
}

// tellsSupervisorTarget tells whether the API has a field for the supervisor that a device should run.
func (v *view) tellsSupervisorTarget() bool { return v.APIVersion != balena.V6 }
