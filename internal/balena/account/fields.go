// SPDX-License-Identifier: Apache-2.0

package account

import (
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// The tables in this file define which fields of each resource are requested. Fields of type [field] may be requested only from
// some servers, or only with some options. All fields of an [api.Record] are always requested. Coordinates and local addresses
// are requested only if an option asks for them. Serial numbers, notes and variables are never requested.

// field is a field of a resource: its name, where its value is stored, when it is requested, and whether it is computed.
type field[T any] struct {
	api.Field[T]
	// on reports whether a request selects the field; nil for always.
	on condition
	// metric is set if no sum over a fleet needs the field. It is then requested only if an exported metric of single
	// devices has it as its source; see [MetricFields]. Without it, the pages and lists of problems lack its value too.
	metric bool
	// computed excludes the field from the check of modified_at (see sameRow): the API computes the value from other rows
	// than that of the device, so that it changes without the device's modified_at. modified_at itself has the mark, too.
	computed bool
}

// dialect describes which fields and versions the server supports.
type dialect struct {
	version balena.Version
	// cloud is set unless the server is known to lack the fields that only balenaCloud has.
	cloud bool
}

// condition decides whether a field is requested.
type condition func(*Options, dialect) bool

func ifServiceSummaryAlone(o *Options, _ dialect) bool { return o.ServiceSummary && !o.Services } // else their rows tell it
func ifServiceSummary(o *Options, _ dialect) bool      { return o.ServiceSummary }
func ifDevicesOrTargets(o *Options, _ dialect) bool    { return o.Devices || o.Targets }
func ifLocalAddresses(o *Options, _ dialect) bool      { return o.LocalAddresses }
func ifLocation(o *Options, d dialect) bool            { return o.Location && d.cloud }
func onV7(_ *Options, d dialect) bool                  { return d.version == balena.V7 }
func onV6(_ *Options, d dialect) bool                  { return d.version == balena.V6 }
func onCloud(_ *Options, d dialect) bool               { return d.cloud }

// wanted returns the fields of a table that this refresh requests.
func wanted[T any](f *refresh, table []field[T]) api.Record[T] {
	var r api.Record[T]
	for _, field := range table {
		switch o := &f.config.Options; {
		case field.on != nil && !field.on(o, f.after.asked):
		case field.metric && (!o.Devices || slices.Contains(o.Unneeded, field.Name)):
		default:
			r = append(r, field.Field)
		}
	}
	return r
}

// The types of values; see [api.Decoder].
var (
	text      = (*api.Decoder).Text
	word      = (*api.Decoder).Word
	boolean   = (*api.Decoder).Boolean
	integer   = (*api.Decoder).Integer
	count     = (*api.Decoder).Count
	number    = (*api.Decoder).Number
	instant   = (*api.Decoder).Instant
	reference = (*api.Decoder).Reference
)

// isFalse reads true or false, and tells whether it is false; null is neither.
func isFalse(d *api.Decoder, v jsontext.Value) (bool, error) {
	b, err := d.Boolean(v)
	return err == nil && !b && v.Kind() == 'f', err
}

// latitude and longitude read coordinates, which the API has as text.
func latitude(d *api.Decoder, v jsontext.Value) (balena.Coordinate, error) {
	return coordinate(d, v, 90)
}

func longitude(d *api.Decoder, v jsontext.Value) (balena.Coordinate, error) {
	return coordinate(d, v, 180)
}

func coordinate(d *api.Decoder, v jsontext.Value, limit float64) (balena.Coordinate, error) {
	s, err := d.Text(v)
	return balena.ParseCoordinate(s, limit), err
}

// fleetRow is a row of application.
type fleetRow struct {
	balena.Fleet
	class        string
	host         bool
	deviceTypeID int64
	target       balena.Release
	counted      int
}

var fleetFields = api.Record[fleetRow]{
	api.ID(func(f *fleetRow) *int64 { return &f.ID }),
	api.To("uuid", text, func(f *fleetRow) *string { return &f.UUID }),
	api.To("app_name", text, func(f *fleetRow) *string { return &f.Name }),
	api.To("slug", text, func(f *fleetRow) *string { return &f.Slug }),
	api.To("is_of__class", word, func(f *fleetRow) *string { return &f.class }),
	api.To("is_host", boolean, func(f *fleetRow) *bool { return &f.host }),
	api.To("is_archived", boolean, func(f *fleetRow) *bool { return &f.Archived }),
	api.To("should_track_latest_release", boolean, func(f *fleetRow) *bool { return &f.TracksLatest }),
	api.To("created_at", instant, func(f *fleetRow) *balena.Instant { return &f.Created }),
	devicesCount,
	api.Expanded("organization", func(f *fleetRow) *string { return &f.Organization }, only("handle")),
	api.Expanded("is_for__device_type", func(f *fleetRow) *fleetRow { return f }, api.Record[fleetRow]{
		api.To("id", integer, func(f *fleetRow) *int64 { return &f.deviceTypeID }),
		api.To("slug", word, func(f *fleetRow) *string { return &f.DeviceType }),
		api.Expanded("is_of__cpu_architecture", func(f *fleetRow) *string { return &f.CPUArchitecture }, only("slug")),
	}),
	api.Expanded("should_be_running__release", func(f *fleetRow) *balena.Release { return &f.target }, releaseFields),
}

// only returns the fields of an expanded navigation property of which one field is read.
func only(name string) api.Record[string] {
	return api.Record[string]{api.To(name, word, func(s *string) *string { return s })}
}

// devicesCount is the field with the number of devices of a fleet.
var devicesCount = api.Field[fleetRow]{
	Name: "owns__device", Expand: "owns__device/$count",
	Set: api.To("", count, func(f *fleetRow) *int { return &f.counted }).Set,
}

// countFields are the fields of a query that only counts devices.
var countFields = api.Record[fleetRow]{fleetFields[0], devicesCount}

// notCounted marks a fleet whose devices the server did not count.
const notCounted = -1

var deviceFields = []field[balena.Device]{
	{Field: api.ID(func(d *balena.Device) *int64 { return &d.ID })},
	{Field: api.To("uuid", text, func(d *balena.Device) *string { return &d.UUID })},
	{Field: api.To("device_name", text, func(d *balena.Device) *string { return &d.Name }), on: ifDevicesOrTargets},
	{Field: api.To("belongs_to__application", reference, func(d *balena.Device) *int64 { return &d.FleetID })},
	{Field: api.To("is_of__device_type", reference, func(d *balena.Device) *int64 { return &d.TypeID })},
	{Field: api.To("overall_status", word, func(d *balena.Device) *string { return &d.Status }), computed: true},
	{Field: api.To("is_online", boolean, func(d *balena.Device) *bool { return &d.Online })},
	{Field: api.To("api_heartbeat_state", word, func(d *balena.Device) *string { return &d.HeartbeatState })},
	{Field: api.To("changed_api_heartbeat_state_on__date", instant, func(d *balena.Device) *balena.Instant { return &d.HeartbeatChanged }), on: onV7},
	{Field: api.To("last_connectivity_event", instant, func(d *balena.Device) *balena.Instant { return &d.LastConnectivity })},
	{Field: api.To("update_status", word, func(d *balena.Device) *string { return &d.UpdateStatus })},
	{Field: api.To("os_version", word, func(d *balena.Device) *string { return &d.OSVersion })},
	{Field: api.To("os_variant", word, func(d *balena.Device) *string { return &d.OSVariant })},
	{Field: api.To("supervisor_version", word, func(d *balena.Device) *string { return &d.SupervisorVersion })},
	{Field: api.To("is_undervolted", boolean, func(d *balena.Device) *bool { return &d.Undervolted })},
	{Field: api.To("is_frozen", boolean, func(d *balena.Device) *bool { return &d.Frozen }), on: onCloud, computed: true},
	// Inverted, so that null counts as active.
	{Field: api.To("is_active", isFalse, func(d *balena.Device) *bool { return &d.Deactivated }), on: onCloud, computed: true},
	{Field: api.To("provisioning_state", word, func(d *balena.Device) *string { return &d.ProvisioningState })},
	{Field: installs, on: ifServiceSummaryAlone, computed: true},

	{Field: whereabout("latitude", latitude, func(w *balena.Whereabouts) *balena.Coordinate { return &w.Location.Latitude }), on: ifLocation, computed: true},
	{Field: whereabout("longitude", longitude, func(w *balena.Whereabouts) *balena.Coordinate { return &w.Location.Longitude }), on: ifLocation, computed: true},
	{Field: whereabout("custom_latitude", latitude, func(w *balena.Whereabouts) *balena.Coordinate { return &w.Location.CustomLatitude }), on: ifLocation, computed: true},
	{Field: whereabout("custom_longitude", longitude, func(w *balena.Whereabouts) *balena.Coordinate { return &w.Location.CustomLongitude }), on: ifLocation, computed: true},

	{Field: api.To("is_running__release", reference, func(d *balena.Device) *int64 { return &d.RunningRelease })},
	{Field: api.To("is_pinned_on__release", reference, func(d *balena.Device) *int64 { return &d.PinnedRelease }), on: onV7},
	{Field: api.To("should_be_running__release", reference, func(d *balena.Device) *int64 { return &d.PinnedRelease }), on: onV6}, // In v6 this field holds only the pin, not the target of the fleet.

	{Field: api.To("overall_progress", number, func(d *balena.Device) *balena.Number { return &d.UpdateProgress }), metric: true, computed: true},
	{Field: api.To("provisioning_progress", number, func(d *balena.Device) *balena.Number { return &d.ProvisioningProgress }), metric: true},
	{Field: api.To("last_update_status_event", instant, func(d *balena.Device) *balena.Instant { return &d.UpdateChanged }), metric: true},
	{Field: api.To("cpu_usage", number, func(d *balena.Device) *balena.Number { return &d.CPUUsage }), metric: true},
	{Field: api.To("cpu_temp", number, func(d *balena.Device) *balena.Number { return &d.CPUTemperature }), metric: true},
	{Field: api.To("memory_usage", number, func(d *balena.Device) *balena.Number { return &d.MemoryUsed }), metric: true},
	{Field: api.To("memory_total", number, func(d *balena.Device) *balena.Number { return &d.MemorySize }), metric: true},
	{Field: api.To("storage_usage", number, func(d *balena.Device) *balena.Number { return &d.StorageUsed }), metric: true},
	{Field: api.To("storage_total", number, func(d *balena.Device) *balena.Number { return &d.StorageSize }), metric: true},
	{Field: api.To("is_web_accessible", boolean, func(d *balena.Device) *bool { return &d.WebAccessible }), on: ifDevicesOrTargets},
	{Field: api.To("should_be_operated_by__release", reference, func(d *balena.Device) *int64 { return &d.OSTarget }), metric: true, computed: true},
	{Field: api.To("should_be_managed_by__release", reference, func(d *balena.Device) *int64 { return &d.SupervisorTarget }), on: onV7, metric: true, computed: true},
	{Field: whereabout("ip_address", text, func(w *balena.Whereabouts) *string { return &w.LocalAddresses }), on: ifLocalAddresses},
	{Field: api.To("created_at", instant, func(d *balena.Device) *balena.Instant { return &d.Created }), metric: true},
	{Field: api.To("modified_at", instant, func(d *balena.Device) *balena.Instant { return &d.Modified }), computed: true},
}

var installs = api.Derived("image_install", func(d *balena.Device) *balena.Installs { return &d.Installs },
	balena.NewInstalls, installFields, "$filter=status ne 'deleted'")

// whereabout returns a field of [balena.Whereabouts], which a device has only if one of the values is known.
func whereabout[V comparable](name string, read func(*api.Decoder, jsontext.Value) (V, error), place func(*balena.Whereabouts) *V) api.Field[balena.Device] {
	return api.Field[balena.Device]{
		Name: name,
		Set: func(d *api.Decoder, v jsontext.Value, to *balena.Device) error {
			var unknown V
			value, err := read(d, v)
			if err != nil || value == unknown {
				return err
			}
			if to.Whereabouts == nil {
				to.Whereabouts = new(balena.Whereabouts)
			}
			*place(to.Whereabouts) = value
			return nil
		},
		Same: func(a, b *balena.Device) bool {
			one, other := a.Where(), b.Where()
			return *place(&one) == *place(&other)
		},
	}
}

// MetricFields returns the names of the fields of a device that are requested only for metrics of single devices.
func MetricFields() (names []string) {
	for _, field := range deviceFields {
		if field.metric {
			names = append(names, field.Name)
		}
	}
	return names
}

// nullDevice is a device in which every field is null.
var nullDevice = func() balena.Device {
	var all api.Record[balena.Device]
	for _, field := range deviceFields {
		all = append(all, field.Field)
	}
	return all.Null()
}()

var releaseFields = api.Record[balena.Release]{
	api.ID(func(r *balena.Release) *int64 { return &r.ID }),
	api.To("commit", text, func(r *balena.Release) *string { return &r.Commit }),
	api.To("raw_version", text, func(r *balena.Release) *string { return &r.Version }),
	api.To("is_final", boolean, func(r *balena.Release) *bool { return &r.Final }),
	api.To("is_invalidated", boolean, func(r *balena.Release) *bool { return &r.Invalidated }),
	api.To("status", word, func(r *balena.Release) *string { return &r.Status }),
	api.To("created_at", instant, func(r *balena.Release) *balena.Instant { return &r.Created }),
}

// latestRow is an application with its newest release.
type latestRow struct {
	id     int64
	latest balena.Release
}

var latestReleaseFields = api.Record[latestRow]{
	api.ID(func(l *latestRow) *int64 { return &l.id }),
	api.Expanded("owns__release", func(l *latestRow) *balena.Release { return &l.latest }, releaseFields, "$top=1", "$orderby=created_at desc,id desc"),
}

var organizationFields = api.Record[balena.Organization]{
	api.ID(func(o *balena.Organization) *int64 { return &o.ID }),
	api.To("handle", text, func(o *balena.Organization) *string { return &o.Handle }),
	api.To("name", text, func(o *balena.Organization) *string { return &o.Name }),
	api.To("is_frozen", boolean, func(o *balena.Organization) *bool { return &o.Frozen }),
	api.To("has_past_due_invoice_since__date", instant, func(o *balena.Organization) *balena.Instant { return &o.PastDue }),
}

type deviceTypeRow struct {
	id   int64
	slug string
}

var deviceTypeFields = api.Record[deviceTypeRow]{
	api.ID(func(t *deviceTypeRow) *int64 { return &t.id }),
	api.To("slug", word, func(t *deviceTypeRow) *string { return &t.slug }),
}

var keyFields = api.Record[balena.Key]{
	api.ID(func(k *balena.Key) *int64 { return &k.ID }),
	api.To("name", text, func(k *balena.Key) *string { return &k.Name }),
	api.To("expiry_date", instant, func(k *balena.Key) *balena.Instant { return &k.Expiry }),
}

// configFields are those of the server's configuration.
var configFields = api.Record[string]{api.To("deviceUrlsBase", text, func(base *string) *string { return base })}

// serviceRow is a row of image_install.
type serviceRow struct {
	balena.Service
	device int64
}

var serviceFields = []field[serviceRow]{
	{Field: api.ID(func(s *serviceRow) *int64 { return &s.ID })},
	{Field: api.To("device", reference, func(s *serviceRow) *int64 { return &s.device })},
	{Field: api.To("status", word, func(s *serviceRow) *string { return &s.Status })},
	{Field: api.To("download_progress", number, func(s *serviceRow) *balena.Number { return &s.Progress })},
	{Field: api.To("is_provided_by__release", reference, func(s *serviceRow) *int64 { return &s.Release }), on: ifServiceSummary},
	{Field: api.To("install_date", instant, func(s *serviceRow) *balena.Instant { return &s.Installed })},
	// There is one value per install, but only one different value per image.
	{Field: api.Derived("installs__image", func(s *serviceRow) *string { return &s.Name }, nameOf, imageFields)},
}

// image is the image of a service. The id is read because a $select cannot be empty.
type image struct {
	id      int64
	service string
}

var imageFields = api.Record[image]{
	api.ID(func(i *image) *int64 { return &i.id }),
	api.Expanded("is_a_build_of__service", func(i *image) *string { return &i.service }, only("service_name")),
}

func nameOf(images []image) string {
	if len(images) == 0 {
		return ""
	}
	return images[0].service
}

// installFields are the fields of an image install that is read with its device.
var installFields = api.Record[balena.Service]{
	api.To("status", word, func(s *balena.Service) *string { return &s.Status }),
	api.To("is_provided_by__release", reference, func(s *balena.Service) *int64 { return &s.Release }),
}

// tagRow is a tag of a device or of a fleet.
type tagRow struct {
	balena.Tag
	owner int64
	key   string
}

// tagFields returns the fields of the tags of an owner, "device" or "application".
func tagFields(owner string) api.Record[tagRow] {
	return api.Record[tagRow]{
		api.ID(func(t *tagRow) *int64 { return &t.ID }),
		api.To(owner, reference, func(t *tagRow) *int64 { return &t.owner }),
		api.To("tag_key", word, func(t *tagRow) *string { return &t.key }),
		api.To("value", text, func(t *tagRow) *string { return &t.Value }),
	}
}
