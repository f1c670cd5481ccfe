// SPDX-License-Identifier: Apache-2.0

package account

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
)

// The tables in this file define which fields of each resource are requested. Coordinates and local addresses are
// requested only if an option asks for them. Serial numbers, notes and variables are never requested.

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

// nullRow returns a row in which every field is null.
func nullRow[T any](table []field[T]) T {
	var all api.Record[T]
	for _, field := range table {
		all = append(all, field.Field)
	}
	return all.Null()
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

var fleetFields = []field[fleetRow]{
	{Field: api.To("id", integer, func(f *fleetRow) *int64 { return &f.ID })},
	{Field: api.To("uuid", text, func(f *fleetRow) *string { return &f.UUID })},
	{Field: api.To("app_name", text, func(f *fleetRow) *string { return &f.Name })},
	{Field: api.To("slug", text, func(f *fleetRow) *string { return &f.Slug })},
	{Field: api.To("is_of__class", word, func(f *fleetRow) *string { return &f.class })},
	{Field: api.To("is_host", boolean, func(f *fleetRow) *bool { return &f.host })},
	{Field: api.To("is_archived", boolean, func(f *fleetRow) *bool { return &f.Archived })},
	{Field: api.To("should_track_latest_release", boolean, func(f *fleetRow) *bool { return &f.TracksLatest })},
	{Field: api.To("created_at", instant, func(f *fleetRow) *balena.Instant { return &f.Created })},
	{Field: devicesCount},
	{Field: api.Expanded("organization", "organization($select=handle)", func(d *api.Decoder, o expandedSlug, f *fleetRow) error {
		f.Organization = d.Keep(o.Handle)
		return nil
	})},
	{Field: api.Expanded("is_for__device_type", "is_for__device_type($select=id,slug;$expand=is_of__cpu_architecture($select=slug))",
		func(d *api.Decoder, t expandedSlug, f *fleetRow) error {
			f.deviceTypeID, f.DeviceType = t.ID, d.Keep(t.Slug)
			if len(t.CPUArchitecture) > 0 {
				f.CPUArchitecture = d.Keep(t.CPUArchitecture[0].Slug)
			}
			return nil
		})},
	{Field: api.Expanded("should_be_running__release", "should_be_running__release("+selectRelease+")",
		func(d *api.Decoder, r expandedRelease, f *fleetRow) (err error) {
			f.TargetRelease = r.ID
			f.target, err = r.release(d)
			return err
		})},
}

// devicesCount is the field with the number of devices of a fleet.
var devicesCount = api.Field[fleetRow]{
	Name: "owns__device", Expand: "owns__device/$count",
	Set: api.To("", count, func(f *fleetRow) *int { return &f.counted }).Set,
}

// countFields are the fields of a query that only counts devices.
var countFields = api.Record[fleetRow]{fleetFields[0].Field, devicesCount}

// notCounted marks a fleet whose devices the server did not count.
const notCounted = -1

// selectRelease selects the fields of an expanded release.
const selectRelease = "$select=id,commit,raw_version,is_final,is_invalidated,status,created_at"

var deviceFields = []field[balena.Device]{
	{Field: api.To("id", integer, func(d *balena.Device) *int64 { return &d.ID })},
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
	{Field: api.Derived("image_install", "image_install($select=status,is_provided_by__release;$filter=status ne 'deleted')",
		installsOf, func(d *balena.Device) *balena.Installs { return &d.Installs }), on: ifServiceSummaryAlone, computed: true},

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

// nullDevice is a device before any field is read.
var nullDevice = nullRow(deviceFields)

var releaseFields = []field[balena.Release]{
	{Field: api.To("id", integer, func(r *balena.Release) *int64 { return &r.ID })},
	{Field: api.To("commit", text, func(r *balena.Release) *string { return &r.Commit })},
	{Field: api.To("raw_version", text, func(r *balena.Release) *string { return &r.Version })},
	{Field: api.To("status", word, func(r *balena.Release) *string { return &r.Status })},
	{Field: api.To("is_final", boolean, func(r *balena.Release) *bool { return &r.Final })},
	{Field: api.To("is_invalidated", boolean, func(r *balena.Release) *bool { return &r.Invalidated })},
	{Field: api.To("created_at", instant, func(r *balena.Release) *balena.Instant { return &r.Created })},
}

// latestRow is an application with its newest release.
type latestRow struct {
	id     int64
	latest balena.Release
}

var latestReleaseFields = []field[latestRow]{
	{Field: api.To("id", integer, func(l *latestRow) *int64 { return &l.id })},
	{Field: api.Expanded("owns__release", "owns__release("+selectRelease+";$top=1;$orderby=created_at desc,id desc)",
		func(d *api.Decoder, r expandedRelease, l *latestRow) (err error) {
			l.latest, err = r.release(d)
			return err
		})},
}

var organizationFields = []field[balena.Organization]{
	{Field: api.To("id", integer, func(o *balena.Organization) *int64 { return &o.ID })},
	{Field: api.To("handle", text, func(o *balena.Organization) *string { return &o.Handle })},
	{Field: api.To("name", text, func(o *balena.Organization) *string { return &o.Name })},
	{Field: api.To("is_frozen", boolean, func(o *balena.Organization) *bool { return &o.Frozen })},
	{Field: api.To("has_past_due_invoice_since__date", instant, func(o *balena.Organization) *balena.Instant { return &o.PastDue })},
}

type deviceTypeRow struct {
	id   int64
	slug string
}

var deviceTypeFields = []field[deviceTypeRow]{
	{Field: api.To("id", integer, func(t *deviceTypeRow) *int64 { return &t.id })},
	{Field: api.To("slug", word, func(t *deviceTypeRow) *string { return &t.slug })},
}

var keyFields = []field[balena.Key]{
	{Field: api.To("id", integer, func(k *balena.Key) *int64 { return &k.ID })},
	{Field: api.To("name", text, func(k *balena.Key) *string { return &k.Name })},
	{Field: api.To("expiry_date", instant, func(k *balena.Key) *balena.Instant { return &k.Expiry })},
}

// configFields are those of the server's configuration.
var configFields = api.Record[string]{api.To("deviceUrlsBase", text, func(base *string) *string { return base })}

// serviceRow is a row of image_install.
type serviceRow struct {
	balena.Service
	device int64
}

var serviceFields = []field[serviceRow]{
	{Field: api.To("id", integer, func(s *serviceRow) *int64 { return &s.ID })},
	{Field: api.To("device", reference, func(s *serviceRow) *int64 { return &s.device })},
	{Field: api.To("status", word, func(s *serviceRow) *string { return &s.Status })},
	{Field: api.To("download_progress", number, func(s *serviceRow) *balena.Number { return &s.Progress })},
	{Field: api.To("is_provided_by__release", reference, func(s *serviceRow) *int64 { return &s.Release }), on: ifServiceSummary},
	{Field: api.To("install_date", instant, func(s *serviceRow) *balena.Instant { return &s.Installed })},
	// There is one value per install, but only one different value per image.
	{Field: api.Derived("installs__image", "installs__image($select=id;$expand=is_a_build_of__service($select=service_name))",
		func(images []expandedImage) string {
			if len(images) == 0 || len(images[0].Service) == 0 {
				return ""
			}
			return images[0].Service[0].Name
		}, func(s *serviceRow) *string { return &s.Name })},
}

// tagRow is a tag of a device or of a fleet.
type tagRow struct {
	balena.Tag
	owner int64
	key   string
}

// tagFields returns the fields of the tags of an owner, "device" or "application".
func tagFields(owner string) []field[tagRow] {
	return []field[tagRow]{
		{Field: api.To("id", integer, func(t *tagRow) *int64 { return &t.ID })},
		{Field: api.To(owner, reference, func(t *tagRow) *int64 { return &t.owner })},
		{Field: api.To("tag_key", word, func(t *tagRow) *string { return &t.key })},
		{Field: api.To("value", text, func(t *tagRow) *string { return &t.Value })},
	}
}

// The types of expanded navigation properties.

type expandedSlug struct {
	ID              int64  `json:"id"`
	Handle          string `json:"handle"`
	Slug            string `json:"slug"`
	CPUArchitecture []struct {
		Slug string `json:"slug"`
	} `json:"is_of__cpu_architecture"`
}

type expandedRelease struct {
	ID      int64          `json:"id"`
	Commit  string         `json:"commit"`
	Version string         `json:"raw_version"`
	Final   bool           `json:"is_final"`
	Invalid bool           `json:"is_invalidated"`
	Status  string         `json:"status"`
	Created jsontext.Value `json:"created_at"`
}

func (e *expandedRelease) release(d *api.Decoder) (r balena.Release, err error) {
	r = balena.Release{ID: e.ID, Commit: e.Commit, Version: e.Version, Final: e.Final, Invalidated: e.Invalid, Status: d.Keep(e.Status)}
	if e.Created == nil {
		return r, nil
	}
	if r.Created, err = d.Instant(e.Created); err != nil {
		return r, fmt.Errorf("created_at: %w", err)
	}
	return r, nil
}

type expandedInstall struct {
	Status  string        `json:"status"`
	Release api.Reference `json:"is_provided_by__release"`
}

func installsOf(installs []expandedInstall) balena.Installs {
	return balena.NewInstalls(func(service func(release int64, status string)) {
		for _, i := range installs {
			service(int64(i.Release), i.Status)
		}
	})
}

type expandedImage struct {
	Service []struct {
		Name string `json:"service_name"`
	} `json:"is_a_build_of__service"`
}
