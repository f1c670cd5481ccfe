// SPDX-License-Identifier: Apache-2.0

// Package balena is the model of an account on balenaCloud or on an openBalena server: a [Snapshot] of its fleets,
// devices and releases. It does no I/O.
//
// Package account reads snapshots, package api sends the requests. Collector and status page need only this package.
package balena

import (
	"cmp"
	"math"
	"regexp"
	"slices"
	"time"
)

// Version is a version of the balena API.
type Version string

// The versions of the API. Every current server has at least one of them. openBalena has v7 since August 2024.
const (
	V7 Version = "v7"
	V6 Version = "v6"
)

// Snapshot holds all data that one refresh read. It is complete, consistent and immutable, so any number of readers may
// share it.
type Snapshot struct {
	// Time is when the refresh began, by the local clock. No value of fleets and devices is older, except changes that
	// only a full refresh finds (docs/data-freshness.md).
	Time time.Time
	// APIVersion is the version of the API that answered.
	APIVersion Version
	// CloudFields reports whether the server has the fields that only balenaCloud has; see [Device.Frozen].
	CloudFields bool
	// Organizations are those of the fleets, in ascending order of ID; none where the server does not have the fields
	// that only balenaCloud has.
	Organizations []Organization
	// Fleets are in ascending order of ID. Their slugs are unique.
	Fleets []Fleet
	// Devices are the devices of Fleets.
	Devices Devices
	// DeviceTagKeys and FleetTagKeys are the keys of the tags, in the order in which devices and fleets hold the values.
	// A device may hold one tag more.
	DeviceTagKeys, FleetTagKeys []string
	// Releases holds the releases to which fleets and devices refer, by ID. A release that the API does not return,
	// because it was deleted or belongs to another account, is missing.
	Releases map[int64]Release
	// Keys are the caller's named API keys that expire, in ascending order of ID.
	Keys []Key
	// DeviceURLsBase is the domain of which public device URLs are subdomains, as in "balena-devices.com". It is empty
	// when it is not read, and where there are no such URLs.
	DeviceURLsBase string
	// System are the releases of balenaOS and of the supervisor; nil if they are not read, and where the server publishes
	// none.
	System *SystemReleases
	// Parts holds the outcome of each optional part of the refresh.
	Parts []Part
	// Reading describes how the devices were read.
	Reading Reading
}

// Fleet returns the fleet with an ID, or nil.
func (s *Snapshot) Fleet(id int64) *Fleet {
	i, ok := slices.BinarySearchFunc(s.Fleets, id, func(f Fleet, id int64) int { return cmp.Compare(f.ID, id) })
	if !ok {
		return nil
	}
	return &s.Fleets[i]
}

// IsDomain tells whether a text is the name of a domain, with a port or without, as [Snapshot.DeviceURLsBase] is.
func IsDomain(s string) bool { return domain.MatchString(s) }

var domain = regexp.MustCompile(`^[0-9A-Za-z]([0-9A-Za-z.-]{0,250}[0-9A-Za-z])?(:[0-9]{1,5})?$`)

// A Reading describes how a refresh read the devices.
type Reading struct {
	Kind Kind
	// Why is the reason for a full refresh; empty for an incremental one.
	Why string
	// Devices is the number of devices that were read.
	Devices int
	// Changed is the number of devices that were added, removed or changed since the previous snapshot.
	Changed int
	// Bytes is the size of all answers of the refresh as transferred.
	Bytes int64
	// Mode is how incremental refreshes ask for what changed.
	Mode Mode
	// Reason is the reason why Mode is not the first of [Modes]; nil if it is, or if only full refreshes are configured.
	Reason error
	// Disabled is the reason why there are no incremental refreshes although they are configured; empty if there are.
	Disabled Disabled
}

// Kind is the kind of a refresh.
type Kind string

// The kinds of refreshes: they read all devices, or those that changed since the previous refresh.
const (
	Full        Kind = "full"
	Incremental Kind = "incremental"
)

// Mode is how incremental refreshes ask for what changed.
type Mode string

// The modes. Each is used if the server does not answer the queries of those before it.
const (
	// DevicesAndInstalls reads devices whose row, or the row of one of their image installs, was written since the last refresh.
	DevicesAndInstalls Mode = "devices_and_installs"
	// DevicesOnly reads devices whose row was written since the last refresh, and those that download or did at the last refresh.
	DevicesOnly Mode = "devices"
	// Everything makes every refresh a full one.
	Everything Mode = "full"
)

// Modes returns all modes, the best first.
func Modes() []Mode { return []Mode{DevicesAndInstalls, DevicesOnly, Everything} }

// Disabled is a reason why there are no incremental refreshes.
type Disabled string

// The reasons why there are no incremental refreshes.
const (
	// Refused: the server does not understand the queries for changes.
	Refused Disabled = "refused"
	// Failing: the queries for changes fail while others are answered.
	Failing Disabled = "failing"
	// Inconsistent: the answers are inconsistent.
	Inconsistent Disabled = "inconsistent"
	// ModifiedAt: the server does not set modified_at when rows are written.
	ModifiedAt Disabled = "modified_at"
	// NoDate: the server does not send its time.
	NoDate Disabled = "no_date"
)

// DisabledReasons returns all reasons.
func DisabledReasons() []Disabled {
	return []Disabled{Refused, Failing, Inconsistent, ModifiedAt, NoDate}
}

// A Part is a part of a refresh other than fleets and devices. If it fails, the rest of the refresh continues, and the
// last data of the part are used until they are too old.
type Part struct {
	Name     PartName
	Duration time.Duration
	Err      error
}

// PartName names a part of a refresh, as it appears in logs and in the label "part".
type PartName string

// The parts of a refresh.
const (
	PartDeviceTypes    PartName = "device_type"
	PartReleases       PartName = "release"
	PartLatestReleases PartName = "latest_release"
	PartServices       PartName = "service"
	PartDeviceTags     PartName = "device_tag"
	PartFleetTags      PartName = "fleet_tag"
	PartKeys           PartName = "api_key"
	PartOrganizations  PartName = "organization"
	PartDeviceURLs     PartName = "device_urls"
	PartSystemReleases PartName = "system_release"
)

// Organization owns fleets, and pays for them. The comments name the fields of the resource "organization".
type Organization struct {
	ID      int64
	Handle  string  // handle, which is unique on the server
	Name    string  // name: any text
	Frozen  bool    // is_frozen
	PastDue Instant // has_past_due_invoice_since__date, 0 when no invoice is overdue
}

// Fleet is an application of class fleet that the token may directly access. The comments name the
// fields of the resource "application".
type Fleet struct {
	ID              int64
	UUID            string
	Name            string  // app_name, unique only within an organization
	Slug            string  // slug, "organization/name": unique on the server, changed by a rename
	Organization    string  // organization.handle
	DeviceType      string  // is_for__device_type.slug
	CPUArchitecture string  // is_for__device_type.is_of__cpu_architecture.slug
	Archived        bool    // is_archived
	TracksLatest    bool    // should_track_latest_release
	Created         Instant // created_at
	// TargetRelease is the release that the fleet's devices should run, 0 for none (should_be_running__release).
	TargetRelease int64
	// LatestRelease is the newest release, failed builds included; its ID is 0 when there is none or when
	// releases are not read.
	LatestRelease Release
	// Tags are the values of the tags of [Snapshot.FleetTagKeys], empty where the fleet has not got the tag; nil when it
	// has none of them.
	Tags []string
	// Maintenance is until when the fleet is in maintenance by its tag: [Forever] for a tag without a date, 0 for no tag.
	Maintenance Instant
}

// Absent tells whether nothing is expected of the fleet's devices at a time: it is archived, or in maintenance.
func (f *Fleet) Absent(at Instant) bool { return f.Archived || f.Maintenance > at }

// Device is a device of a fleet. The comments name the fields of the resource "device". A field that was
// not requested is empty. All fields except Whereabouts and Attachments are compared with ==; see [Device.Equal].
type Device struct {
	ID                int64
	FleetID           int64 // belongs_to__application
	TypeID            int64 // is_of__device_type
	UUID              string
	Name              string // device_name: any text, not unique
	Status            string // overall_status, with the values of v7 also for v6
	HeartbeatState    string // api_heartbeat_state
	ProvisioningState string // provisioning_state, empty for null
	UpdateStatus      string // update_status, empty for null
	Type              string // slug of is_of__device_type, empty if unknown
	OSVersion         string // os_version, empty for null
	OSVariant         string // os_variant, empty for null
	SupervisorVersion string // supervisor_version, empty for null

	Created          Instant // created_at
	Modified         Instant // modified_at
	LastConnectivity Instant // last_connectivity_event: the last VPN connect or disconnect
	HeartbeatChanged Instant // changed_api_heartbeat_state_on__date; missing in v6
	UpdateChanged    Instant // last_update_status_event

	RunningRelease   int64 // is_running__release, 0 for none
	PinnedRelease    int64 // is_pinned_on__release, 0 for none; should_be_running__release on v6
	TargetRelease    int64 // the pin, otherwise the target of the fleet (should_be_running__release in v7); 0 for none
	OSTarget         int64 // should_be_operated_by__release, 0 for none
	SupervisorTarget int64 // should_be_managed_by__release, 0 for none; missing in v6

	UpdateProgress Number // overall_progress in percent, Null while it is that of the provisioning
	// ProvisioningProgress is provisioning_progress in percent: that of the first start, or of a host OS update.
	ProvisioningProgress Number
	CPUUsage             Number // cpu_usage in percent
	CPUTemperature       Number // cpu_temp in °C
	MemoryUsed           Number // memory_usage in MiB
	MemorySize           Number // memory_total in MiB
	StorageUsed          Number // storage_usage in MiB
	StorageSize          Number // storage_total in MiB

	// Installs are the services on the device by release. Empty when they are not read.
	Installs Installs
	// Maintenance is until when the device is in maintenance by its own tag: [Forever] for a tag without a date, 0 for
	// no tag.
	Maintenance Instant

	// Whereabouts are nil if nothing is known of them. They are not read by default, and a pointer saves memory then.
	Whereabouts *Whereabouts

	// Attachments are nil if the device has none, or if neither services nor tags are read. The latter is the default, and a
	// pointer saves memory then.
	Attachments *Attachments

	Online        bool // is_online, which is is_connected_to_vpn
	Undervolted   bool // is_undervolted, which stays set until the device reboots
	WebAccessible bool // is_web_accessible
	Frozen        bool // is_frozen; known if [Snapshot.CloudFields] is set
	Deactivated   bool // not is_active; known where [Snapshot.CloudFields] is set
}

// Where returns the whereabouts of the device. They are empty if nothing is known of them.
func (d *Device) Where() Whereabouts { return orZero(d.Whereabouts) }

// Attachments are the device's services and tags, which have rows of their own.
type Attachments struct {
	// Services are in ascending order of name, status and ID; nil if services are not read.
	Services []Service
	// Tags are those of [Snapshot.DeviceTagKeys], empty where the device has not got the tag, and behind them the one
	// that says that the device is in maintenance, if nobody else asks for it; nil when it has none of them.
	Tags []Tag
}

// Services returns the services of the device.
func (d *Device) Services() []Service { return orZero(d.Attachments).Services }

// Tags returns the tags of the device.
func (d *Device) Tags() []Tag { return orZero(d.Attachments).Tags }

// orZero returns what a pointer points to, or the zero value if it is nil.
func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// Detached returns a copy of the device with its own Attachments, never nil, which may be changed.
func (d *Device) Detached() *Device {
	copied := new(*d)
	copied.Attachments = &Attachments{slices.Clone(d.Services()), slices.Clone(d.Tags())}
	return copied
}

// Compact sets Attachments to nil if they are empty, and returns the device.
func (d *Device) Compact() *Device {
	if len(d.Services()) == 0 && len(d.Tags()) == 0 {
		d.Attachments = nil
	}
	return d
}

// Connected reports whether the device is connected: its VPN is up, or it polls the API. A device whose
// VPN is switched off is never Online, but may be operational.
func (d *Device) Connected() bool {
	return d.Online || d.HeartbeatState == HeartbeatOnline || d.HeartbeatState == HeartbeatTimeout
}

// NeverConnected reports whether the device has never connected since it was registered.
func (d *Device) NeverConnected() bool {
	return !d.Connected() && d.LastConnectivity == 0 && d.HeartbeatChanged == 0 &&
		(d.HeartbeatState == HeartbeatUnknown || d.HeartbeatState == "")
}

// ConnectivityChanged returns when the VPN or the heartbeat of the device last changed: the later of the two times, or 0
// if neither is known. If the device is not connected, this is when it disconnected.
func (d *Device) ConnectivityChanged() Instant {
	return max(d.LastConnectivity, d.HeartbeatChanged)
}

// OnTarget tells whether the device runs the release that it should run; false where it should run none.
func (d *Device) OnTarget() bool { return d.TargetRelease != 0 && d.RunningRelease == d.TargetRelease }

// Release is a version of a fleet's software. The comments name the fields of the resource "release".
type Release struct {
	ID      int64
	Commit  string
	Version string  // raw_version: "1.2.0", "1.2.0+rev1", or "2.0.0-1795355694988" for a draft
	Status  string  // status: running, success, failed, error, cancelled, interrupted
	Final   bool    // is_final: a draft's version changes when it is finalized
	Created Instant // created_at
	// Invalidated is is_invalidated: somebody has withdrawn the release.
	Invalidated bool
}

// Service is the image of a service on a device. During an update, a device has both the old and the new image of a
// service, usually in different states. The comments name the fields of "image_install".
type Service struct {
	ID        int64
	Name      string
	Status    string  // status: Running, Downloading, exited, restarting, Dead, …
	Progress  Number  // download_progress in percent
	Installed Instant // install_date
	Release   int64   // is_provided_by__release, 0 for none
}

// Compare defines the order of the services of a device.
func (s Service) Compare(o Service) int {
	return cmp.Or(cmp.Compare(s.Name, o.Name), cmp.Compare(s.Status, o.Status), cmp.Compare(s.ID, o.ID))
}

// Tag is a tag of a device.
type Tag struct {
	ID    int64 // 0 if the device does not have the tag
	Value string
}

// Key is one of the caller's named API keys. It is unknown which of them is in use.
type Key struct {
	ID     int64
	Name   string
	Expiry Instant // expiry_date
}

// Instant is a time in milliseconds since 1970, which is the precision of the API; 0 is null.
type Instant int64

// Seconds returns the time in seconds since 1970, or NaN for null.
func (i Instant) Seconds() float64 {
	if i == 0 {
		return math.NaN()
	}
	return float64(i) / 1000
}

// Number is a number of the API, or [Null]. Unlike NaN, Null equals itself, so that devices can be compared with ==.
type Number float64

// Null is the null of the API as a Number.
const Null Number = -math.MaxFloat64

// Float returns the number, or NaN for Null.
func (n Number) Float() float64 {
	if n == Null {
		return math.NaN()
	}
	return float64(n)
}

// The heartbeat states that decide whether a device is connected (api_heartbeat_state).
const (
	HeartbeatOnline  = "online"
	HeartbeatTimeout = "timeout"
	HeartbeatUnknown = "unknown"
)
