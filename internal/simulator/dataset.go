// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// A Dataset is the content of an API server. Simulators do not change it.
type Dataset struct{ database database }

// LoadDataset reads a dataset from a file per resource (application.json, device.json and so on). Each file is the response of
// version 7 of the API to a request for all rows: {"d": [row, …]}. A missing file is an empty resource, and a missing field is
// null.
func LoadDataset(dir fs.FS) (*Dataset, error) {
	ds := &Dataset{}
	db := &ds.database
	// A directory without fleets is not a dataset.
	if _, err := fs.Stat(dir, "application.json"); err != nil {
		return nil, fmt.Errorf("read dataset: %w", err)
	}
	for _, load := range []func() error{
		func() error {
			return eachRow(dir, "organization", func(r struct {
				commonFields
				Name, Handle string
				IsFrozen     bool         `json:"is_frozen"`
				PastDueSince nullableTime `json:"has_past_due_invoice_since__date"`
			},
			) {
				db.Organizations.insert(&Organization{
					Row: r.row(), Name: r.Name, Handle: r.Handle, IsFrozen: r.IsFrozen, PastDueInvoiceSince: r.PastDueSince.Time,
				})
			})
		},
		func() error { return eachRow(dir, "device_type", db.loadDeviceType) },
		func() error { return eachRow(dir, "application", db.loadFleet) },
		func() error { return eachRow(dir, "release", db.loadRelease) },
		func() error {
			return eachRow(dir, "release_tag", func(r struct {
				commonFields
				tag
				Release ref
			},
			) {
				db.ReleaseTags.insert(&ReleaseTag{Row: r.row(), ReleaseID: r.Release.ID, Key: r.Key, Value: r.Value})
			})
		},
		func() error { return eachRow(dir, "device", db.loadDevice) },
		func() error { return eachRow(dir, "image_install", db.loadInstall) },
		func() error {
			return eachRow(dir, "device_tag", func(r struct {
				commonFields
				tag
				Device ref
			},
			) {
				db.DeviceTags.insert(&DeviceTag{Row: r.row(), DeviceID: r.Device.ID, Key: r.Key, Value: r.Value})
			})
		},
		func() error {
			return eachRow(dir, "application_tag", func(r struct {
				commonFields
				tag
				Application ref
			},
			) {
				db.FleetTags.insert(&FleetTag{Row: r.row(), FleetID: r.Application.ID, Key: r.Key, Value: r.Value})
			})
		},
		func() error {
			return eachRow(dir, "api_key", func(r struct {
				commonFields
				Name, Description string
				ExpiryDate        nullableTime `json:"expiry_date"`
			},
			) {
				db.APIKeys.insert(&APIKey{Row: r.row(), Name: r.Name, Description: r.Description, ExpiryDate: r.ExpiryDate.Time})
			})
		},
	} {
		if err := load(); err != nil {
			return nil, err
		}
	}
	return ds, nil
}

// eachRow decodes the file of a resource and calls add for each row.
func eachRow[R any](dir fs.FS, resource string, add func(R)) error {
	name := resource + ".json"
	data, err := fs.ReadFile(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read dataset: %w", err)
	}
	var file struct{ D []R }
	if err := json.Unmarshal(data, &file); err != nil {
		return fmt.Errorf("read dataset: %s: %w", name, err)
	}
	for _, r := range file.D {
		add(r)
	}
	return nil
}

// nullableTime is an ISO 8601 time or null.
type nullableTime struct{ Time Time }

func (m *nullableTime) UnmarshalJSON(b []byte) error {
	var t *time.Time
	if err := json.Unmarshal(b, &t); err != nil {
		return err
	}
	if t != nil {
		m.Time = At(*t)
	}
	return nil
}

// ref is a foreign key: {"__id": n}, an array with the expanded row, or null.
type ref struct{ ID int }

func (r *ref) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		var rows []struct{ ID int }
		if err := json.Unmarshal(b, &rows); err != nil {
			return err
		}
		if len(rows) > 0 {
			r.ID = rows[0].ID
		}
		return nil
	}
	var key struct {
		ID int `json:"__id"`
	}
	err := json.Unmarshal(b, &key)
	r.ID = key.ID
	return err
}

// commonFields holds the fields of all rows.
type commonFields struct {
	ID         int
	CreatedAt  nullableTime `json:"created_at"`
	ModifiedAt nullableTime `json:"modified_at"`
}

// row returns the common fields. If modified_at is null, it is the time of creation.
func (s *commonFields) row() Row {
	r := Row{ID: s.ID, CreatedAt: s.CreatedAt.Time, ModifiedAt: s.ModifiedAt.Time}
	if r.ModifiedAt == 0 {
		r.ModifiedAt = r.CreatedAt
	}
	return r
}

type tag struct {
	Key   string `json:"tag_key"`
	Value string
}

// nullable is an integer or null.
type nullable struct{ Number }

func (n *nullable) UnmarshalJSON(b []byte) error {
	var i *int
	err := json.Unmarshal(b, &i)
	if i != nil {
		n.Number = N(*i)
	}
	return err
}

type deviceTypeRow struct {
	commonFields
	Slug, Name   string
	Architecture []struct{ Slug string } `json:"is_of__cpu_architecture"`
}

func (db *database) loadDeviceType(r deviceTypeRow) {
	t := DeviceType{Row: r.row(), Slug: r.Slug, Name: r.Name, FamilyID: db.family(r.Slug)}
	if len(r.Architecture) > 0 {
		t.ArchitectureID = db.architecture(r.Architecture[0].Slug)
	}
	db.DeviceTypes.insert(&t)
}

// architecture returns the id of an architecture, and adds the architecture if it is new.
func (db *database) architecture(slug string) int {
	for _, a := range db.Architectures.rows {
		if a.Slug == slug {
			return a.ID
		}
	}
	id := db.Architectures.Len() + 1
	db.Architectures.insert(&Architecture{Row: Row{ID: id}, Slug: slug})
	return id
}

type fleetRow struct {
	commonFields
	UUID         string
	AppName      string `json:"app_name"`
	Slug         string
	Class        string `json:"is_of__class"`
	Organization ref
	DeviceType   ref          `json:"is_for__device_type"`
	Target       ref          `json:"should_be_running__release"`
	TracksLatest bool         `json:"should_track_latest_release"`
	IsHost       bool         `json:"is_host"`
	IsArchived   bool         `json:"is_archived"`
	IsPublic     bool         `json:"is_public"`
	SupportUntil nullableTime `json:"is_accessible_by_support_until__date"`
}

func (db *database) loadFleet(r fleetRow) {
	db.Fleets.insert(&Fleet{
		Row: r.row(), UUID: r.UUID, AppName: r.AppName, Slug: r.Slug, Class: r.Class,
		OrganizationID: r.Organization.ID, DeviceTypeID: r.DeviceType.ID, TargetReleaseID: r.Target.ID,
		TracksLatest: r.TracksLatest, IsHost: r.IsHost, IsArchived: r.IsArchived, IsPublic: r.IsPublic, SupportUntil: r.SupportUntil.Time,
	})
}

type releaseRow struct {
	commonFields
	Fleet          ref `json:"belongs_to__application"`
	Commit         string
	RawVersion     string `json:"raw_version"`
	Semver         string
	Status         string
	Phase          string
	IsFinal        bool         `json:"is_final"`
	IsInvalidated  bool         `json:"is_invalidated"`
	IsPassingTests bool         `json:"is_passing_tests"`
	FinalizedAt    nullableTime `json:"is_finalized_at__date"`
	Source         string
	Variant        string
	KnownIssues    string `json:"known_issue_list"`
}

func (db *database) loadRelease(r releaseRow) {
	db.Releases.insert(&Release{
		Row: r.row(), FleetID: r.Fleet.ID, Commit: r.Commit, RawVersion: r.RawVersion, Semver: r.Semver, Status: r.Status,
		Phase: r.Phase, IsFinal: r.IsFinal, IsInvalidated: r.IsInvalidated, IsPassingTests: r.IsPassingTests,
		FinalizedAt: r.FinalizedAt.Time, Source: r.Source, Variant: r.Variant, KnownIssues: r.KnownIssues,
	})
}

type deviceRow struct {
	commonFields
	UUID                  string
	Name                  string       `json:"device_name"`
	Fleet                 ref          `json:"belongs_to__application"`
	DeviceType            ref          `json:"is_of__device_type"`
	OverallStatus         string       `json:"overall_status"`
	IsConnectedToVPN      bool         `json:"is_connected_to_vpn"`
	LastConnectivityEvent nullableTime `json:"last_connectivity_event"`
	LastVPNEvent          nullableTime `json:"last_vpn_event"`
	HeartbeatState        string       `json:"api_heartbeat_state"`
	HeartbeatChangedOn    nullableTime `json:"changed_api_heartbeat_state_on__date"`
	Status                string
	UpdateStatus          string       `json:"update_status"`
	LastUpdateStatusEvent nullableTime `json:"last_update_status_event"`
	ProvisioningState     string       `json:"provisioning_state"`
	ProvisioningProgress  nullable     `json:"provisioning_progress"`
	DownloadProgress      nullable     `json:"download_progress"`
	Running               ref          `json:"is_running__release"`
	Pinned                ref          `json:"is_pinned_on__release"`
	OS                    ref          `json:"should_be_operated_by__release"`
	Supervisor            ref          `json:"should_be_managed_by__release"`
	OSVersion             string       `json:"os_version"`
	OSVariant             string       `json:"os_variant"`
	SupervisorVersion     string       `json:"supervisor_version"`
	CPUUsage              nullable     `json:"cpu_usage"`
	CPUTemp               nullable     `json:"cpu_temp"`
	MemoryUsage           nullable     `json:"memory_usage"`
	MemoryTotal           nullable     `json:"memory_total"`
	StorageUsage          nullable     `json:"storage_usage"`
	StorageTotal          nullable     `json:"storage_total"`
	IsUndervolted         bool         `json:"is_undervolted"`
	IsWebAccessible       bool         `json:"is_web_accessible"`
	IsFrozen              bool         `json:"is_frozen"`
	Latitude, Longitude   string
	Location              string
	CustomLatitude        string       `json:"custom_latitude"`
	CustomLongitude       string       `json:"custom_longitude"`
	SupportUntil          nullableTime `json:"is_accessible_by_support_until__date"`
}

func (db *database) loadDevice(r deviceRow) {
	db.Devices.insert(&Device{
		Row: r.row(), UUID: r.UUID, Name: r.Name, FleetID: r.Fleet.ID, DeviceTypeID: r.DeviceType.ID,
		IsConnectedToVPN: r.IsConnectedToVPN, LastConnectivityEvent: r.LastConnectivityEvent.Time, LastVPNEvent: r.LastVPNEvent.Time,
		// The configuration variable that disables the VPN is visible only in the status of a device with a heartbeat.
		IsVPNDisabled:  !r.IsConnectedToVPN && r.HeartbeatState == "online" && r.OverallStatus == "operational",
		HeartbeatState: r.HeartbeatState, HeartbeatChangedOn: r.HeartbeatChangedOn.Time,
		Status: r.Status, UpdateStatus: r.UpdateStatus, LastUpdateStatusEvent: r.LastUpdateStatusEvent.Time,
		ProvisioningState: r.ProvisioningState, ProvisioningProgress: r.ProvisioningProgress.Number, DownloadProgress: r.DownloadProgress.Number,
		RunningReleaseID: r.Running.ID, PinnedReleaseID: r.Pinned.ID, OSReleaseID: r.OS.ID, SupervisorReleaseID: r.Supervisor.ID,
		OSVersion: r.OSVersion, OSVariant: r.OSVariant, SupervisorVersion: r.SupervisorVersion,
		CPUUsage: r.CPUUsage.Number, CPUTemp: r.CPUTemp.Number, MemoryUsage: r.MemoryUsage.Number, MemoryTotal: r.MemoryTotal.Number,
		StorageUsage: r.StorageUsage.Number, StorageTotal: r.StorageTotal.Number,
		IsUndervolted: r.IsUndervolted, IsWebAccessible: r.IsWebAccessible,
		IsInactive: r.OverallStatus == "inactive", IsFrozen: r.IsFrozen,
		Latitude: r.Latitude, Longitude: r.Longitude, CustomLatitude: r.CustomLatitude, CustomLongitude: r.CustomLongitude,
		Location: r.Location, SupportUntil: r.SupportUntil.Time,
	})
}

type installRow struct {
	commonFields
	Device           ref
	Release          ref `json:"is_provided_by__release"`
	Status           string
	DownloadProgress nullable     `json:"download_progress"`
	InstallDate      nullableTime `json:"install_date"`
	Image            []struct {
		ID      int
		Service []struct {
			ID   int
			Name string `json:"service_name"`
		} `json:"is_a_build_of__service"`
	} `json:"installs__image"`
}

func (db *database) loadInstall(r installRow) {
	i := &Install{
		Row: r.row(), DeviceID: r.Device.ID, ReleaseID: r.Release.ID, Status: r.Status,
		DownloadProgress: r.DownloadProgress.Number, InstallDate: r.InstallDate.Time,
	}
	if i.CreatedAt == 0 {
		i.CreatedAt, i.ModifiedAt = i.InstallDate, i.InstallDate
	}
	db.Installs.insert(i)
	if len(r.Image) == 0 {
		return
	}
	image := r.Image[0]
	i.ImageID = image.ID
	if db.Images.find(image.ID) != nil || len(image.Service) == 0 {
		return
	}
	service := image.Service[0]
	stamps, fleet := Row{}, 0
	if release, ok := db.Releases.find(i.ReleaseID).(*Release); ok {
		stamps, fleet = Row{CreatedAt: release.CreatedAt, ModifiedAt: release.CreatedAt}, release.FleetID
	}
	stamps.ID = image.ID
	db.Images.insert(&Image{Row: stamps, ServiceID: service.ID, ReleaseID: i.ReleaseID})
	if db.Services.find(service.ID) == nil {
		stamps.ID = service.ID
		s := &Service{Row: stamps, Name: service.Name, FleetID: fleet}
		db.Services.insert(s)
	}
}
