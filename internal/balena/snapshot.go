// SPDX-License-Identifier: Apache-2.0

// Package balena is the model of an account on balenaCloud or on an openBalena server: a [Snapshot] of its fleets,
// devices and releases. It does no I/O.
//
// Package account reads snapshots, package api asks the server. Collector and status page need this package alone.
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

// The versions that every server of today speaks one of. openBalena has v7 since August 2024.
const (
	V7 Version = "v7"
	V6 Version = "v6"
)

// Snapshot is everything one refresh read, complete and consistent in itself. Nothing changes it once it is
// made, so any number of readers may share it.
type Snapshot struct {
	// Time is when the refresh began, by the local clock: no figure of fleets and devices is older, but for what
	// only a full refresh finds (docs/data-freshness.md).
	Time time.Time
	// APIVersion is the version of the API that answered.
	APIVersion Version
	// CloudFields tells whether the server has the fields that only balenaCloud has; see [Device.Frozen].
	CloudFields bool
	// Organizations are those of the fleets, in ascending order of ID; none where the server does not have the fields
	// that only balenaCloud has.
	Organizations []Organization
	// Fleets are in ascending order of ID; no two have the same slug.
	Fleets []Fleet
	// Devices each belong to one of Fleets.
	Devices Devices
	// DeviceTagKeys and FleetTagKeys are the keys of the tags, in the order in which devices and fleets hold the values.
	// A device may hold one tag more.
	DeviceTagKeys, FleetTagKeys []string
	// Releases holds the releases that fleets and devices refer to, by ID. One that the API does not tell
	// of, because it was deleted or belongs to somebody else, is missing.
	Releases map[int64]Release
	// Keys are the caller's named API keys that expire, in ascending order of ID.
	Keys []Key
	// DeviceURLsBase is the domain of which public device URLs are subdomains, as in "balena-devices.com". It is empty
	// when it is not read, and where there are no such URLs.
	DeviceURLsBase string
	// Parts tells how each optional part of the refresh fared.
	Parts []Part
	// Reading tells how the devices were read.
	Reading Reading
}

// Fleet returns the fleet of an ID, nil if there is none.
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

// A Reading tells how a refresh read the devices.
type Reading struct {
	Kind Kind
	// Why is why everything was read, where it was.
	Why string
	// Devices is how many devices the API told of.
	Devices int
	// Changed is how many of the snapshot's devices were added or removed, or differ from the snapshot before.
	Changed int
	// Bytes is the size of all answers of the refresh as they were transferred.
	Bytes int64
	// Mode is how incremental refreshes ask for what changed.
	Mode Mode
	// Distrust is why Mode is not the first of [Modes]; nil when it is, or when full refreshes are configured.
	Distrust error
	// Disabled is why there are no incremental refreshes although they are configured; empty when there are.
	Disabled Disabled
}

// Kind is what a refresh asked for.
type Kind string

// The kinds of refreshes: all devices, or those that changed since the refresh before.
const (
	Full        Kind = "full"
	Incremental Kind = "incremental"
)

// Mode is how incremental refreshes ask for what changed.
type Mode string

// The modes. Each is used where the server does not answer the questions of those before it.
const (
	// DevicesAndInstalls asks for devices whose row, or one of whose image installs, was written since the last refresh.
	DevicesAndInstalls Mode = "devices_and_installs"
	// DevicesOnly asks for devices whose row was written since, and for those that download or did at the last refresh.
	DevicesOnly Mode = "devices"
	// Everything makes every refresh a full one.
	Everything Mode = "full"
)

// Modes returns all modes, the best first.
func Modes() []Mode { return []Mode{DevicesAndInstalls, DevicesOnly, Everything} }

// Disabled is why there are no incremental refreshes.
type Disabled string

// The reasons why there are no incremental refreshes.
const (
	// Refused: the server does not understand the questions for what changed.
	Refused Disabled = "refused"
	// Failing: the questions fail while others are answered.
	Failing Disabled = "failing"
	// Inconsistent: the answers do not add up.
	Inconsistent Disabled = "inconsistent"
	// ModifiedAt: the server does not set modified_at when rows are written.
	ModifiedAt Disabled = "modified_at"
	// NoDate: the server does not tell its time.
	NoDate Disabled = "no_date"
)

// DisabledReasons returns all reasons.
func DisabledReasons() []Disabled {
	return []Disabled{Refused, Failing, Inconsistent, ModifiedAt, NoDate}
}

// A Part is something a refresh asks for beside fleets and devices. A part that fails takes nothing else
// down: what was read of it last stands in until it is too old.
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
)

// Organization owns fleets, and pays for them. The comments name the fields of the resource "organization".
type Organization struct {
	ID      int64
	Handle  string  // handle, which is unique on the server
	Name    string  // name: any text
	Frozen  bool    // is_frozen
	PastDue Instant // has_past_due_invoice_since__date, 0 when no invoice is overdue
}

// Fleet is an application of class fleet which the token may directly access. The comments name the
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

// Device is a device of a fleet. The comments name the fields of the resource "device"; a field that was
// not asked for, because nothing needs it, is empty. All fields but Attachments are compared with ==; see [Device.Equal].
type Device struct {
	ID                int64
	FleetID           int64 // belongs_to__application
	TypeID            int64 // is_of__device_type
	UUID              string
	Name              string // device_name: any text, not unique
	Status            string // overall_status, in the words of v7 on v6 too
	HeartbeatState    string // api_heartbeat_state
	ProvisioningState string // provisioning_state, empty for null
	UpdateStatus      string // update_status, empty for null
	Type              string // slug of is_of__device_type, empty when it is not known
	OSVersion         string // os_version, empty for null
	OSVariant         string // os_variant, empty for null
	SupervisorVersion string // supervisor_version, empty for null
	LocalAddresses    string // ip_address: addresses on the device's own networks, separated by blanks

	Created          Instant // created_at
	Modified         Instant // modified_at
	LastConnectivity Instant // last_connectivity_event: the last VPN connect or disconnect
	HeartbeatChanged Instant // changed_api_heartbeat_state_on__date; v6 has not got it
	UpdateChanged    Instant // last_update_status_event

	RunningRelease   int64 // is_running__release, 0 for none
	PinnedRelease    int64 // is_pinned_on__release, 0 for none; should_be_running__release on v6
	TargetRelease    int64 // the pin, else the fleet's target, as should_be_running__release is on v7; 0 for none
	OSTarget         int64 // should_be_operated_by__release, 0 for none
	SupervisorTarget int64 // should_be_managed_by__release, 0 for none; v6 has not got it

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

	// Attachments are nil when the device has none, or when neither services nor tags are read, which is what most
	// exporters do: of 100,000 devices it counts.
	Attachments *Attachments

	Online        bool // is_online, which is is_connected_to_vpn
	Undervolted   bool // is_undervolted, which stays set until the device reboots
	WebAccessible bool // is_web_accessible
	Frozen        bool // is_frozen; known where [Snapshot.CloudFields] is set
	Deactivated   bool // not is_active; known where [Snapshot.CloudFields] is set
}

// Attachments are the device's services and tags, which have rows of their own.
type Attachments struct {
	// Services are in ascending order of name, status and ID; nil when services are not read.
	Services []Service
	// Tags are those of [Snapshot.DeviceTagKeys], empty where the device has not got the tag, and behind them the one
	// that says that the device is in maintenance, if nobody else asks for it; nil when it has none of them.
	Tags []Tag
}

// Services returns those of the device's attachments.
func (d *Device) Services() []Service {
	if d.Attachments == nil {
		return nil
	}
	return d.Attachments.Services
}

// Tags returns those of the device's attachments.
func (d *Device) Tags() []Tag {
	if d.Attachments == nil {
		return nil
	}
	return d.Attachments.Tags
}

// Detached returns a copy of the device whose attachments, which it always has, are its own and may be changed.
func (d *Device) Detached() *Device {
	copied := new(*d)
	copied.Attachments = &Attachments{slices.Clone(d.Services()), slices.Clone(d.Tags())}
	return copied
}

// Compact sets the device's attachments to nil when there are none, and returns the device.
func (d *Device) Compact() *Device {
	if len(d.Services()) == 0 && len(d.Tags()) == 0 {
		d.Attachments = nil
	}
	return d
}

// Connected tells whether the device can be reached: its VPN is up, or it polls the API. A device whose
// VPN is switched off is never Online and yet may be fully operational.
func (d *Device) Connected() bool {
	return d.Online || d.HeartbeatState == HeartbeatOnline || d.HeartbeatState == HeartbeatTimeout
}

// NeverConnected tells whether the device was registered and never seen since.
func (d *Device) NeverConnected() bool {
	return !d.Connected() && d.LastConnectivity == 0 && d.HeartbeatChanged == 0 &&
		(d.HeartbeatState == HeartbeatUnknown || d.HeartbeatState == "")
}

// ConnectivityChanged is when the device last connected or disconnected, by VPN or by heartbeat: the
// later of the two; 0 when neither is known. Of a device that is not connected it is the time since when.
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

// Service is a service's image on a device. While a device updates, the old and the new image of a service are
// both there, mostly in different states. The comments name the fields of "image_install".
type Service struct {
	ID        int64
	Name      string
	Status    string  // status: Running, Downloading, exited, restarting, Dead, …
	Progress  Number  // download_progress in percent
	Installed Instant // install_date
	Release   int64   // is_provided_by__release, 0 for none
}

// Compare returns the order of a device's services.
func (s Service) Compare(o Service) int {
	return cmp.Or(cmp.Compare(s.Name, o.Name), cmp.Compare(s.Status, o.Status), cmp.Compare(s.ID, o.ID))
}

// Tag is a tag of a device.
type Tag struct {
	ID    int64 // 0 where the device has not got the tag
	Value string
}

// Key is one of the caller's named API keys. Which of them is in use can't be told.
type Key struct {
	ID     int64
	Name   string
	Expiry Instant // expiry_date
}

// Instant is a time in milliseconds since 1970, as precise as the API tells it; 0 stands for null.
type Instant int64

// Seconds is the time in seconds since 1970, NaN for null.
func (i Instant) Seconds() float64 {
	if i == 0 {
		return math.NaN()
	}
	return float64(i) / 1000
}

// Number is a number of the API, or [Null]. Unlike NaN, Null equals itself, so that devices can be compared with ==.
type Number float64

// Null is a number that the API does not tell.
const Null Number = -math.MaxFloat64

// Float returns the number, NaN for Null.
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
