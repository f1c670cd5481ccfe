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

// The following types are rows of the resources. The tags declare the fields of the API:
//
//   - json is the name. Fields without it are not in the API.
//   - empty is the value of an empty text. Without it, an empty text is null, as are a zero reference, [Time] and [Number].
//   - only is the server that has the field: v7, or cloud for balenaCloud.
//   - reverse lists navigations from the row to which a foreign key refers, to the rows that refer to it.
//
// Foreign keys have the type int. Fields that are computed from others, such as overall_status, are in schema.go.

// Organization is a row of organization.
type Organization struct {
	Row
	Name                string `json:"name" empty:""`
	Handle              string `json:"handle" empty:""`
	IsFrozen            bool   `json:"is_frozen" only:"cloud"`
	PastDueInvoiceSince Time   `json:"has_past_due_invoice_since__date" only:"cloud"`
}

// User is a row of user. There is only one user, who owns all tokens.
type User struct {
	Row
}

// Architecture is a row of cpu_architecture.
type Architecture struct {
	Row
	Slug string `json:"slug" empty:""`
}

// DeviceType is a row of device_type.
type DeviceType struct {
	Row
	Slug           string `json:"slug" empty:""`
	Name           string `json:"name" empty:""`
	ArchitectureID int    `json:"is_of__cpu_architecture" reverse:"device_type is_supported_by__device_type"`
	FamilyID       int    `json:"belongs_to__device_family" reverse:"device_type"`
}

// Family is a row of device_family.
type Family struct {
	Row
	Slug           string `json:"slug" empty:""`
	Name           string `json:"name" empty:""`
	ManufacturerID int    `json:"is_manufactured_by__device_manufacturer"`
}

// Manufacturer is a row of device_manufacturer.
type Manufacturer struct {
	Row
	Slug string `json:"slug" empty:""`
	Name string `json:"name" empty:""`
}

// Fleet is a row of application, which is a fleet, a block, an app or a host OS.
type Fleet struct {
	Row
	UUID            string `json:"uuid"`
	AppName         string `json:"app_name" empty:""`
	Slug            string `json:"slug" empty:""` // changes with AppName on the real server; see [State.RenameFleet]
	Class           string `json:"is_of__class"`  // fleet, block or app
	OrganizationID  int    `json:"organization" reverse:"application is_of__application"`
	DeviceTypeID    int    `json:"is_for__device_type" reverse:"is_default_for__application"`
	TargetReleaseID int    `json:"should_be_running__release" reverse:"should_be_running_on__application"`
	TracksLatest    bool   `json:"should_track_latest_release"`
	IsHost          bool   `json:"is_host"`
	IsArchived      bool   `json:"is_archived"`
	IsPublic        bool   `json:"is_public"`
	IsForeign       bool   // a public fleet of others, to which the user has no direct access
	SupportUntil    Time   `json:"is_accessible_by_support_until__date" only:"cloud"`
}

// Release is a row of release.
type Release struct {
	Row
	FleetID        int    `json:"belongs_to__application" reverse:"owns__release"`
	Commit         string `json:"commit" empty:""`
	RawVersion     string `json:"raw_version"`
	Semver         string `json:"semver"`
	Status         string `json:"status" empty:""` // running, success, failed, error, cancelled, interrupted
	Phase          string `json:"phase"`
	IsFinal        bool   `json:"is_final"`
	IsInvalidated  bool   `json:"is_invalidated"`
	IsPassingTests bool   `json:"is_passing_tests"`
	FinalizedAt    Time   `json:"is_finalized_at__date"`
	Source         string `json:"source" empty:"cloud"` // cloud or local
	Variant        string `json:"variant" empty:""`     // of a host OS release
	KnownIssues    string `json:"known_issue_list"`
}

// ReleaseTag is a row of release_tag.
type ReleaseTag struct {
	Row
	ReleaseID int    `json:"release" reverse:"release_tag release__has__tag_key"`
	Key       string `json:"tag_key" empty:""`
	Value     string `json:"value" empty:""`
}

// Service is a row of service: a service of a fleet.
type Service struct {
	Row
	FleetID int    `json:"application" reverse:"service application__has__service_name"`
	Name    string `json:"service_name" empty:""`
}

// Image is a row of image: the build of a service in a release.
type Image struct {
	Row
	ServiceID int `json:"is_a_build_of__service" reverse:"is_built_by__image"`
	ReleaseID int // the release of the image, which is in release_image in the API
}

// Device is a row of device.
type Device struct {
	Row
	UUID         string `json:"uuid"`
	Name         string `json:"device_name"`
	FleetID      int    `json:"belongs_to__application" reverse:"owns__device"`
	DeviceTypeID int    `json:"is_of__device_type" reverse:"describes__device device"`

	IsConnectedToVPN      bool   `json:"is_connected_to_vpn"` // and is_online
	IsVPNDisabled         bool   // a configuration variable. The device is never online, but may be operational
	LastConnectivityEvent Time   `json:"last_connectivity_event"`
	LastVPNEvent          Time   `json:"last_vpn_event"`
	HeartbeatState        string `json:"api_heartbeat_state"` // online, timeout, offline, unknown
	HeartbeatChangedOn    Time   `json:"changed_api_heartbeat_state_on__date" only:"v7"`

	Status                string `json:"status"`        // Idle, Downloading, Stopping, …; not overall_status
	UpdateStatus          string `json:"update_status"` // rejected, downloading, downloaded, applying changes, aborted, done
	LastUpdateStatusEvent Time   `json:"last_update_status_event"`
	ProvisioningState     string `json:"provisioning_state"`
	ProvisioningProgress  Number `json:"provisioning_progress"`
	DownloadProgress      Number `json:"download_progress"`

	RunningReleaseID    int `json:"is_running__release" reverse:"is_running_on__device"`
	PinnedReleaseID     int `json:"is_pinned_on__release" reverse:"is_pinned_to__device" only:"v7"`
	OSReleaseID         int `json:"should_be_operated_by__release" reverse:"should_operate__device"`
	SupervisorReleaseID int `json:"should_be_managed_by__release" reverse:"should_manage__device" only:"v7"`

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
	IsInactive      bool   // the opposite of is_active
	IsFrozen        bool   `json:"is_frozen" only:"cloud"`

	Latitude        string `json:"latitude" only:"cloud"` // location of the public IP address
	Longitude       string `json:"longitude" only:"cloud"`
	CustomLatitude  string `json:"custom_latitude" empty:"" only:"cloud"` // set by a user
	CustomLongitude string `json:"custom_longitude" empty:"" only:"cloud"`
	Location        string `json:"location" only:"cloud"`
	SupportUntil    Time   `json:"is_accessible_by_support_until__date" only:"cloud"`
}

// Install is a row of image_install: an image on a device.
type Install struct {
	Row
	DeviceID         int    `json:"device" reverse:"image_install device__installs__image installs__image"`
	ImageID          int    `json:"installs__image" reverse:"image_install device__installs__image"`
	ReleaseID        int    `json:"is_provided_by__release" reverse:"provides__image_install provides__device__installs__image"`
	Status           string `json:"status" empty:""` // Running, Downloading, exited, deleted, …
	DownloadProgress Number `json:"download_progress"`
	InstallDate      Time   `json:"install_date"`
}

// DeviceTag is a row of device_tag.
type DeviceTag struct {
	Row
	DeviceID int    `json:"device" reverse:"device_tag device__has__tag_key"`
	Key      string `json:"tag_key" empty:""`
	Value    string `json:"value" empty:""`
}

// FleetTag is a row of application_tag.
type FleetTag struct {
	Row
	FleetID int    `json:"application" reverse:"application_tag application__has__tag_key"`
	Key     string `json:"tag_key" empty:""`
	Value   string `json:"value" empty:""`
}

// APIKey is a row of api_key.
type APIKey struct {
	Row
	Name        string `json:"name"`
	Description string `json:"description"`
	ExpiryDate  Time   `json:"expiry_date"`
}
