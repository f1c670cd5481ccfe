// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"strconv"
	"time"
)

// Time is a time in milliseconds since 1970. Zero is null.
type Time int64

// At converts a [time.Time]. The zero time is null.
func At(t time.Time) Time {
	if t.IsZero() {
		return 0
	}
	return Time(t.UnixMilli())
}

// Time returns the time in UTC.
func (t Time) Time() time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(t)).UTC()
}

// Add returns the time plus d.
func (t Time) Add(d time.Duration) Time { return t + Time(d.Milliseconds()) }

// Number is an integer or null. The zero value is null.
type Number struct {
	valid bool
	n     int32
}

// N returns a Number that is not null.
func N(n int) Number { return Number{true, int32(n)} }

// Int returns the number, and false if it is null.
func (n Number) Int() (int, bool) { return int(n.n), n.valid }

func (n Number) String() string {
	if !n.valid {
		return "null"
	}
	return strconv.Itoa(int(n.n))
}

// The following types are rows of the resources. The zero values of strings, references, [Time] and [Number] are null if the
// API allows null. Computed fields, such as overall_status, are not stored.

// Organization is a row of organization.
type Organization struct {
	Row
	Name, Handle        string
	IsFrozen            bool // balenaCloud only, like PastDueInvoiceSince
	PastDueInvoiceSince Time // has_past_due_invoice_since__date
}

// User is a row of user. There is only one user, who owns all tokens.
type User struct {
	Row
}

// Architecture is a row of cpu_architecture.
type Architecture struct {
	Row
	Slug string
}

// DeviceType is a row of device_type.
type DeviceType struct {
	Row
	Slug, Name     string
	ArchitectureID int // is_of__cpu_architecture
	FamilyID       int // belongs_to__device_family
}

// Family is a row of device_family.
type Family struct {
	Row
	Slug, Name     string
	ManufacturerID int // is_manufactured_by__device_manufacturer
}

// Manufacturer is a row of device_manufacturer.
type Manufacturer struct {
	Row
	Slug, Name string
}

// Fleet is a row of application, which is a fleet, a block, an app or a host OS.
type Fleet struct {
	Row
	UUID            string
	AppName         string
	Slug            string // changes with AppName on the real server; see [State.RenameFleet]
	Class           string // is_of__class: fleet, block or app
	OrganizationID  int
	DeviceTypeID    int // is_for__device_type
	TargetReleaseID int // should_be_running__release
	TracksLatest    bool
	IsHost          bool
	IsArchived      bool
	IsPublic        bool
	IsForeign       bool // a public fleet of others, to which the user has no direct access
	SupportUntil    Time // is_accessible_by_support_until__date; balenaCloud only
}

// Release is a row of release.
type Release struct {
	Row
	FleetID        int // belongs_to__application
	Commit         string
	RawVersion     string
	Semver         string
	Status         string // running, success, failed, error, cancelled, interrupted
	Phase          string
	IsFinal        bool
	IsInvalidated  bool
	IsPassingTests bool
	FinalizedAt    Time   // is_finalized_at__date
	Source         string // cloud or local; cloud if empty
	Variant        string // of a host OS release
	KnownIssues    string // known_issue_list
}

// ReleaseTag is a row of release_tag.
type ReleaseTag struct {
	Row
	ReleaseID  int
	Key, Value string
}

// Service is a row of service: a service of a fleet.
type Service struct {
	Row
	FleetID int
	Name    string
}

// Image is a row of image: the build of a service in a release.
type Image struct {
	Row
	ServiceID int // is_a_build_of__service
	ReleaseID int // the release of the image, which is in release_image in the API
}

// Device is a row of device.
type Device struct {
	Row
	UUID         string
	Name         string // device_name
	FleetID      int    // belongs_to__application
	DeviceTypeID int

	IsConnectedToVPN      bool // is_connected_to_vpn and is_online
	IsVPNDisabled         bool // a configuration variable. The device is never online, but may be operational
	LastConnectivityEvent Time
	LastVPNEvent          Time
	HeartbeatState        string // api_heartbeat_state: online, timeout, offline, unknown
	HeartbeatChangedOn    Time   // changed_api_heartbeat_state_on__date

	Status                string // Idle, Downloading, Stopping, …; not overall_status
	UpdateStatus          string // rejected, downloading, downloaded, applying changes, aborted, done
	LastUpdateStatusEvent Time
	ProvisioningState     string
	ProvisioningProgress  Number
	DownloadProgress      Number

	RunningReleaseID    int // is_running__release
	PinnedReleaseID     int // is_pinned_on__release
	OSReleaseID         int // should_be_operated_by__release
	SupervisorReleaseID int // should_be_managed_by__release

	OSVersion         string
	OSVariant         string // prod, dev
	SupervisorVersion string

	CPUUsage      Number // %
	CPUTemp       Number // °C
	MemoryUsage   Number // MiB, like the following three
	MemoryTotal   Number
	StorageUsage  Number
	StorageTotal  Number
	IsUndervolted bool

	IPAddress       string // ip_address, separated by spaces
	IsWebAccessible bool
	IsInactive      bool // the opposite of is_active; balenaCloud only, like all following fields
	IsFrozen        bool

	Latitude, Longitude             string // location of the public IP address
	CustomLatitude, CustomLongitude string // set by a user
	Location                        string
	SupportUntil                    Time // is_accessible_by_support_until__date
}

// Install is a row of image_install: an image on a device.
type Install struct {
	Row
	DeviceID         int
	ImageID          int    // installs__image
	ReleaseID        int    // is_provided_by__release
	Status           string // Running, Downloading, exited, deleted, …
	DownloadProgress Number
	InstallDate      Time
}

// DeviceTag is a row of device_tag.
type DeviceTag struct {
	Row
	DeviceID   int
	Key, Value string
}

// FleetTag is a row of application_tag.
type FleetTag struct {
	Row
	FleetID    int
	Key, Value string
}

// APIKey is a row of api_key.
type APIKey struct {
	Row
	Name        string
	Description string
	ExpiryDate  Time
}
