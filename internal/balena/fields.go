package balena

import (
	"encoding/json"
	"fmt"
	"math"

	"github.com/go-json-experiment/json/jsontext"
)

// This file says what is asked of each resource, and nothing else is: no address, coordinate, serial
// number, note or variable is ever read.

// capabilities is what has been found out about the server.
type capabilities struct {
	version Version
	// cloud is set unless the server refused the fields that only balenaCloud has.
	cloud bool
}

// Conditions for asking for a field.
func forDevices(o *Options, _ capabilities) bool { return o.Devices }
func onV7(_ *Options, c capabilities) bool       { return c.version == V7 }
func onV6(_ *Options, c capabilities) bool       { return c.version == V6 }
func onCloud(_ *Options, c capabilities) bool    { return c.cloud }

func both(a, b func(*Options, capabilities) bool) func(*Options, capabilities) bool {
	return func(o *Options, c capabilities) bool { return a(o, c) && b(o, c) }
}

// fleetRow is an application as it was read.
type fleetRow struct {
	Fleet
	class        string
	host         bool
	deviceTypeID int64
	target       Release
}

var fleetFields = []field[fleetRow]{
	{name: "id", set: into((*decoder).integer, func(f *fleetRow) *int64 { return &f.ID })},
	{name: "uuid", set: into((*decoder).text, func(f *fleetRow) *string { return &f.UUID })},
	{name: "app_name", set: into((*decoder).text, func(f *fleetRow) *string { return &f.Name })},
	{name: "slug", set: into((*decoder).text, func(f *fleetRow) *string { return &f.Slug })},
	{name: "is_of__class", set: into((*decoder).word, func(f *fleetRow) *string { return &f.class })},
	{name: "is_host", set: into((*decoder).boolean, func(f *fleetRow) *bool { return &f.host })},
	{name: "is_archived", set: into((*decoder).boolean, func(f *fleetRow) *bool { return &f.Archived })},
	{name: "should_track_latest_release", set: into((*decoder).boolean, func(f *fleetRow) *bool { return &f.TracksLatest })},
	{name: "created_at", set: into((*decoder).instant, func(f *fleetRow) *Instant { return &f.Created })},
	{name: "owns__device", expand: "owns__device/$count", set: into((*decoder).count, func(f *fleetRow) *int { return &f.counted })},
	{name: "organization", expand: "organization($select=handle)", set: expanded(func(d *decoder, o expandedSlug, f *fleetRow) error {
		f.Organization = d.keep([]byte(o.Handle))
		return nil
	})},
	{
		name: "is_for__device_type", expand: "is_for__device_type($select=id,slug;$expand=is_of__cpu_architecture($select=slug))",
		set: expanded(func(d *decoder, t expandedSlug, f *fleetRow) error {
			f.deviceTypeID, f.DeviceType = t.ID, d.keep([]byte(t.Slug))
			if len(t.CPUArchitecture) > 0 {
				f.CPUArchitecture = d.keep([]byte(t.CPUArchitecture[0].Slug))
			}
			return nil
		}),
	},
	{
		name: "should_be_running__release", expand: "should_be_running__release($select=id,commit,raw_version,is_final,status,created_at)",
		set: expanded(func(d *decoder, r expandedRelease, f *fleetRow) (err error) {
			f.TargetRelease = r.ID
			f.target, err = r.release(d)
			return err
		}),
	},
}

var deviceFields = []field[Device]{
	{name: "id", set: into((*decoder).integer, func(d *Device) *int64 { return &d.ID })},
	{name: "uuid", set: into((*decoder).text, func(d *Device) *string { return &d.UUID })},
	{name: "device_name", on: forDevices, set: into((*decoder).text, func(d *Device) *string { return &d.Name })},
	{name: "belongs_to__application", set: into((*decoder).reference, func(d *Device) *int64 { return &d.FleetID })},
	{name: "is_of__device_type", set: into((*decoder).reference, func(d *Device) *int64 { return &d.TypeID })},
	{name: "overall_status", set: into((*decoder).word, func(d *Device) *string { return &d.Status })},
	{name: "is_online", set: into((*decoder).boolean, func(d *Device) *bool { return &d.Online })},
	{name: "api_heartbeat_state", set: into((*decoder).word, func(d *Device) *string { return &d.HeartbeatState })},
	{name: "changed_api_heartbeat_state_on__date", on: onV7, set: into((*decoder).instant, func(d *Device) *Instant { return &d.HeartbeatChanged })},
	{name: "last_connectivity_event", set: into((*decoder).instant, func(d *Device) *Instant { return &d.LastConnectivity })},
	{name: "update_status", set: into((*decoder).word, func(d *Device) *string { return &d.UpdateStatus })},
	{name: "os_version", set: into((*decoder).word, func(d *Device) *string { return &d.OSVersion })},
	{name: "os_variant", set: into((*decoder).word, func(d *Device) *string { return &d.OSVariant })},
	{name: "supervisor_version", set: into((*decoder).word, func(d *Device) *string { return &d.SupervisorVersion })},
	{name: "is_undervolted", set: into((*decoder).boolean, func(d *Device) *bool { return &d.Undervolted })},
	{name: "is_frozen", on: onCloud, set: into((*decoder).boolean, func(d *Device) *bool { return &d.Frozen })},

	{name: "is_running__release", set: into((*decoder).reference, func(d *Device) *int64 { return &d.RunningRelease })},
	{name: "is_pinned_on__release", on: onV7, set: into((*decoder).reference, func(d *Device) *int64 { return &d.PinnedRelease })},
	{name: "should_be_running__release", on: onV6, set: into((*decoder).reference, func(d *Device) *int64 { return &d.PinnedRelease })}, // the pin alone

	{name: "overall_progress", on: forDevices, set: into((*decoder).number, func(d *Device) *float64 { return &d.UpdateProgress })},
	{name: "last_update_status_event", on: forDevices, set: into((*decoder).instant, func(d *Device) *Instant { return &d.UpdateChanged })},
	{name: "cpu_usage", on: forDevices, set: into((*decoder).number, func(d *Device) *float64 { return &d.CPUUsage })},
	{name: "cpu_temp", on: forDevices, set: into((*decoder).number, func(d *Device) *float64 { return &d.CPUTemperature })},
	{name: "memory_usage", on: forDevices, set: into((*decoder).number, func(d *Device) *float64 { return &d.MemoryUsed })},
	{name: "memory_total", on: forDevices, set: into((*decoder).number, func(d *Device) *float64 { return &d.MemorySize })},
	{name: "storage_usage", on: forDevices, set: into((*decoder).number, func(d *Device) *float64 { return &d.StorageUsed })},
	{name: "storage_total", on: forDevices, set: into((*decoder).number, func(d *Device) *float64 { return &d.StorageSize })},
	{name: "is_web_accessible", on: forDevices, set: into((*decoder).boolean, func(d *Device) *bool { return &d.WebAccessible })},
	{name: "should_be_operated_by__release", on: forDevices, set: into((*decoder).reference, func(d *Device) *int64 { return &d.OSTarget })},
	{name: "should_be_managed_by__release", on: both(forDevices, onV7), set: into((*decoder).reference, func(d *Device) *int64 { return &d.SupervisorTarget })},
	{name: "created_at", on: forDevices, set: into((*decoder).instant, func(d *Device) *Instant { return &d.Created })},
	{name: "modified_at", set: into((*decoder).instant, func(d *Device) *Instant { return &d.Modified })},
}

// unknownDevice is a device of which nothing has been read.
var unknownDevice = Device{
	UpdateProgress: null, CPUUsage: null, CPUTemperature: null,
	MemoryUsed: null, MemorySize: null, StorageUsed: null, StorageSize: null,
}

var releaseFields = []field[Release]{
	{name: "id", set: into((*decoder).integer, func(r *Release) *int64 { return &r.ID })},
	{name: "commit", set: into((*decoder).text, func(r *Release) *string { return &r.Commit })},
	{name: "raw_version", set: into((*decoder).text, func(r *Release) *string { return &r.Version })},
	{name: "status", set: into((*decoder).word, func(r *Release) *string { return &r.Status })},
	{name: "is_final", set: into((*decoder).boolean, func(r *Release) *bool { return &r.Final })},
	{name: "created_at", set: into((*decoder).instant, func(r *Release) *Instant { return &r.Created })},
}

// latestRow is an application with its newest release.
type latestRow struct {
	id     int64
	latest Release
}

var latestReleaseFields = []field[latestRow]{
	{name: "id", set: into((*decoder).integer, func(l *latestRow) *int64 { return &l.id })},
	{
		name: "owns__release", expand: "owns__release($select=id,commit,raw_version,is_final,status,created_at;$top=1;$orderby=created_at desc)",
		set: expanded(func(d *decoder, r expandedRelease, l *latestRow) (err error) {
			l.latest, err = r.release(d)
			return err
		}),
	},
}

type deviceTypeRow struct {
	id   int64
	slug string
}

var deviceTypeFields = []field[deviceTypeRow]{
	{name: "id", set: into((*decoder).integer, func(t *deviceTypeRow) *int64 { return &t.id })},
	{name: "slug", set: into((*decoder).word, func(t *deviceTypeRow) *string { return &t.slug })},
}

var keyFields = []field[Key]{
	{name: "id", set: into((*decoder).integer, func(k *Key) *int64 { return &k.ID })},
	{name: "name", set: into((*decoder).text, func(k *Key) *string { return &k.Name })},
	{name: "expiry_date", set: into((*decoder).instant, func(k *Key) *Instant { return &k.Expiry })},
}

// serviceRow is an image install as it was read.
type serviceRow struct {
	Service
	device int64
}

var serviceFields = []field[serviceRow]{
	{name: "id", set: into((*decoder).integer, func(s *serviceRow) *int64 { return &s.ID })},
	{name: "device", set: into((*decoder).reference, func(s *serviceRow) *int64 { return &s.device })},
	{name: "status", set: into((*decoder).word, func(s *serviceRow) *string { return &s.Status })},
	{name: "download_progress", set: into((*decoder).number, func(s *serviceRow) *float64 { return &s.Progress })},
	{name: "install_date", set: into((*decoder).instant, func(s *serviceRow) *Instant { return &s.Installed })},
	{
		name: "installs__image", expand: "installs__image($select=id;$expand=is_a_build_of__service($select=service_name))",
		set: into((*decoder).serviceOfImage, func(s *serviceRow) *string { return &s.Name }),
	},
}

// tagRow is a tag of a device or of a fleet.
type tagRow struct {
	Tag
	owner int64
	key   string
}

func tagFields(owner string) []field[tagRow] {
	return []field[tagRow]{
		{name: "id", set: into((*decoder).integer, func(t *tagRow) *int64 { return &t.ID })},
		{name: owner, set: into((*decoder).reference, func(t *tagRow) *int64 { return &t.owner })},
		{name: "tag_key", set: into((*decoder).word, func(t *tagRow) *string { return &t.key })},
		{name: "value", set: into((*decoder).text, func(t *tagRow) *string { return &t.Value })},
	}
}

// An expanded navigation property is always an array, of no or one element for a foreign key. There are
// few of them, one or three a fleet, so the plain decoder reads them.

type expandedSlug struct {
	ID              int64  `json:"id"`
	Handle          string `json:"handle"`
	Slug            string `json:"slug"`
	CPUArchitecture []struct {
		Slug string `json:"slug"`
	} `json:"is_of__cpu_architecture"`
}

type expandedRelease struct {
	ID      int64  `json:"id"`
	Commit  string `json:"commit"`
	Version string `json:"raw_version"`
	Final   bool   `json:"is_final"`
	Status  string `json:"status"`
	Created string `json:"created_at"`
}

func (e *expandedRelease) release(d *decoder) (Release, error) {
	r := Release{ID: e.ID, Commit: e.Commit, Version: e.Version, Final: e.Final, Status: d.keep([]byte(e.Status))}
	if e.Created == "" {
		return r, nil
	}
	quoted, err := json.Marshal(e.Created)
	if err != nil {
		return r, err
	}
	r.Created, err = d.instant(quoted)
	return r, err
}

// expanded makes a setter for an expanded navigation property; it leaves the element alone when there is
// nothing behind the property.
func expanded[E, T any](set func(*decoder, E, *T) error) func(*decoder, jsontext.Value, *T) error {
	return func(d *decoder, v jsontext.Value, to *T) error {
		var elements []E
		if err := json.Unmarshal(v, &elements); err != nil {
			return wrongType("an array of objects", v)
		}
		if len(elements) == 0 {
			return nil
		}
		return set(d, elements[0], to)
	}
}

// count reads the number that $expand=…/$count leaves under the name of the navigation property.
func (d *decoder) count(v jsontext.Value) (int, error) {
	n, err := d.integer(v)
	if err == nil && (n < 0 || n > math.MaxInt32) {
		return 0, fmt.Errorf("%d is no number of devices", n)
	}
	return int(n), err
}

// serviceOfImage reads the name of the service that an image is a build of. There are as many different
// values as images, and as many values as installs, so each is read once only.
func (d *decoder) serviceOfImage(v jsontext.Value) (string, error) {
	if name, ok := d.services[string(v)]; ok {
		return name, nil
	}
	var images []struct {
		Service []struct {
			Name string `json:"service_name"`
		} `json:"is_a_build_of__service"`
	}
	if err := json.Unmarshal(v, &images); err != nil {
		return "", wrongType("an expanded image", v)
	}
	name := ""
	if len(images) > 0 && len(images[0].Service) > 0 {
		name = d.keep([]byte(images[0].Service[0].Name))
	}
	if len(d.services) >= maxWords {
		clear(d.services)
	}
	d.services[string(v)] = name
	return name, nil
}
