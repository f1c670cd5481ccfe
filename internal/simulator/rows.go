// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"encoding/json"
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

// UnmarshalJSON accepts an ISO 8601 time or null.
func (t *Time) UnmarshalJSON(b []byte) error {
	var at time.Time
	err := json.Unmarshal(b, &at)
	*t = At(at)
	return err
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

// UnmarshalJSON accepts an integer or null.
func (n *Number) UnmarshalJSON(b []byte) error {
	var i *int
	err := json.Unmarshal(b, &i)
	if i != nil {
		*n = N(*i)
	}
	return err
}

func (n Number) String() string {
	if !n.valid {
		return "null"
	}
	return strconv.Itoa(int(n.n))
}

// The following types are rows of the resources. The zero values of strings, references, [Time] and [Number] are null if the
// API allows null. Computed fields, such as overall_status, are not stored. The tags are the names in the API, if they differ
// in more than their case.

// Organization is a row of organization.
type Organization struct {
	Row
	Name, Handle        string
	IsFrozen            bool `json:"is_frozen"` // balenaCloud only, like PastDueInvoiceSince
	PastDueInvoiceSince Time `json:"has_past_due_invoice_since__date"`
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
	AppName         string `json:"app_name"`
	Slug            string // changes with AppName on the real server; see [State.RenameFleet]
	Class           string `json:"is_of__class"` // fleet, block or app
	OrganizationID  int
	DeviceTypeID    int  // is_for__device_type
	TargetReleaseID int  // should_be_running__release
	TracksLatest    bool `json:"should_track_latest_release"`
	IsHost          bool `json:"is_host"`
	IsArchived      bool `json:"is_archived"`
	IsPublic        bool `json:"is_public"`
	IsForeign       bool // a public fleet of others, to which the user has no direct access
	SupportUntil    Time `json:"is_accessible_by_support_until__date"` // balenaCloud only
}

// Release is a row of release.
type Release struct {
	Row
	FleetID        int // belongs_to__application
	Commit         string
	RawVersion     string `json:"raw_version"`
	Semver         string
	Status         string // running, success, failed, error, cancelled, interrupted
	Phase          string
	IsFinal        bool   `json:"is_final"`
	IsInvalidated  bool   `json:"is_invalidated"`
	IsPassingTests bool   `json:"is_passing_tests"`
	FinalizedAt    Time   `json:"is_finalized_at__date"`
	Source         string // cloud or local; cloud if empty
	Variant        string // of a host OS release
	KnownIssues    string `json:"known_issue_list"`
}

// ReleaseTag is a row of release_tag.
type ReleaseTag struct {
	Row
	ReleaseID int
	Key       string `json:"tag_key"`
	Value     string
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
	Name         string `json:"device_name"`
	FleetID      int    // belongs_to__application
	DeviceTypeID int

	IsConnectedToVPN      bool   `json:"is_connected_to_vpn"` // and is_online
	IsVPNDisabled         bool   // a configuration variable. The device is never online, but may be operational
	LastConnectivityEvent Time   `json:"last_connectivity_event"`
	LastVPNEvent          Time   `json:"last_vpn_event"`
	HeartbeatState        string `json:"api_heartbeat_state"` // online, timeout, offline, unknown
	HeartbeatChangedOn    Time   `json:"changed_api_heartbeat_state_on__date"`

	Status                string // Idle, Downloading, Stopping, …; not overall_status
	UpdateStatus          string `json:"update_status"` // rejected, downloading, downloaded, applying changes, aborted, done
	LastUpdateStatusEvent Time   `json:"last_update_status_event"`
	ProvisioningState     string `json:"provisioning_state"`
	ProvisioningProgress  Number `json:"provisioning_progress"`
	DownloadProgress      Number `json:"download_progress"`

	RunningReleaseID    int // is_running__release
	PinnedReleaseID     int // is_pinned_on__release
	OSReleaseID         int // should_be_operated_by__release
	SupervisorReleaseID int // should_be_managed_by__release

	OSVersion         string `json:"os_version"`
	OSVariant         string `json:"os_variant"` // prod, dev
	SupervisorVersion string `json:"supervisor_version"`

	CPUUsage      Number `json:"cpu_usage"`    // %
	CPUTemp       Number `json:"cpu_temp"`     // °C
	MemoryUsage   Number `json:"memory_usage"` // MiB, like the following three
	MemoryTotal   Number `json:"memory_total"`
	StorageUsage  Number `json:"storage_usage"`
	StorageTotal  Number `json:"storage_total"`
	IsUndervolted bool   `json:"is_undervolted"`

	IPAddress       string `json:"ip_address"` // separated by spaces
	IsWebAccessible bool   `json:"is_web_accessible"`
	IsInactive      bool   // the opposite of is_active; balenaCloud only, like all following fields
	IsFrozen        bool   `json:"is_frozen"`

	Latitude, Longitude string // location of the public IP address
	CustomLatitude      string `json:"custom_latitude"` // set by a user, like CustomLongitude
	CustomLongitude     string `json:"custom_longitude"`
	Location            string
	SupportUntil        Time `json:"is_accessible_by_support_until__date"`
}

// Install is a row of image_install: an image on a device.
type Install struct {
	Row
	DeviceID         int
	ImageID          int    // installs__image
	ReleaseID        int    // is_provided_by__release
	Status           string // Running, Downloading, exited, deleted, …
	DownloadProgress Number `json:"download_progress"`
	InstallDate      Time   `json:"install_date"`
}

// DeviceTag is a row of device_tag.
type DeviceTag struct {
	Row
	DeviceID int
	Key      string `json:"tag_key"`
	Value    string
}

// FleetTag is a row of application_tag.
type FleetTag struct {
	Row
	FleetID int
	Key     string `json:"tag_key"`
	Value   string
}

// APIKey is a row of api_key.
type APIKey struct {
	Row
	Name        string
	Description string
	ExpiryDate  Time `json:"expiry_date"`
}
