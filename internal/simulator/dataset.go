// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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
		func() error { return eachRow(dir, "organization", db.Organizations.insert) },
		func() error { return eachRow(dir, "device_type", db.loadDeviceType) },
		func() error { return eachRow(dir, "application", db.loadFleet) },
		func() error { return eachRow(dir, "release", db.loadRelease) },
		func() error { return eachRow(dir, "release_tag", db.loadReleaseTag) },
		func() error { return eachRow(dir, "device", db.loadDevice) },
		func() error { return eachRow(dir, "image_install", db.loadInstall) },
		func() error { return eachRow(dir, "device_tag", db.loadDeviceTag) },
		func() error { return eachRow(dir, "application_tag", db.loadFleetTag) },
		func() error { return eachRow(dir, "api_key", db.APIKeys.insert) },
	} {
		if err := load(); err != nil {
			return nil, err
		}
	}
	return ds, nil
}

// eachRow decodes the file of a resource and calls add for each row. If modified_at is null, it is the time of creation.
func eachRow[R any, P rowPointer[R]](dir fs.FS, resource string, add func(P)) error {
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
	for i := range file.D {
		r := P(&file.D[i])
		if m := r.meta(); m.ModifiedAt == 0 {
			m.ModifiedAt = m.CreatedAt
		}
		add(r)
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

// The following types are rows with the foreign keys and other fields of the API that are stored differently.

type deviceTypeRow struct {
	DeviceType
	Architecture []struct{ Slug string } `json:"is_of__cpu_architecture"`
}

func (db *database) loadDeviceType(r *deviceTypeRow) {
	r.FamilyID = db.family(r.Slug)
	if len(r.Architecture) > 0 {
		r.ArchitectureID = db.architecture(r.Architecture[0].Slug)
	}
	db.DeviceTypes.insert(&r.DeviceType)
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
	Fleet
	Organization ref
	DeviceType   ref `json:"is_for__device_type"`
	Target       ref `json:"should_be_running__release"`
}

func (db *database) loadFleet(r *fleetRow) {
	r.OrganizationID, r.DeviceTypeID, r.TargetReleaseID = r.Organization.ID, r.DeviceType.ID, r.Target.ID
	db.Fleets.insert(&r.Fleet)
}

type releaseRow struct {
	Release
	Fleet ref `json:"belongs_to__application"`
}

func (db *database) loadRelease(r *releaseRow) {
	r.FleetID = r.Fleet.ID
	db.Releases.insert(&r.Release)
}

type releaseTagRow struct {
	ReleaseTag
	Release ref
}

func (db *database) loadReleaseTag(r *releaseTagRow) {
	r.ReleaseID = r.Release.ID
	db.ReleaseTags.insert(&r.ReleaseTag)
}

type deviceTagRow struct {
	DeviceTag
	Device ref
}

func (db *database) loadDeviceTag(r *deviceTagRow) {
	r.DeviceID = r.Device.ID
	db.DeviceTags.insert(&r.DeviceTag)
}

type fleetTagRow struct {
	FleetTag
	Application ref
}

func (db *database) loadFleetTag(r *fleetTagRow) {
	r.FleetID = r.Application.ID
	db.FleetTags.insert(&r.FleetTag)
}

type deviceRow struct {
	Device
	Fleet         ref    `json:"belongs_to__application"`
	DeviceType    ref    `json:"is_of__device_type"`
	OverallStatus string `json:"overall_status"`
	Running       ref    `json:"is_running__release"`
	Pinned        ref    `json:"is_pinned_on__release"`
	OS            ref    `json:"should_be_operated_by__release"`
	Supervisor    ref    `json:"should_be_managed_by__release"`
}

func (db *database) loadDevice(r *deviceRow) {
	r.FleetID, r.DeviceTypeID = r.Fleet.ID, r.DeviceType.ID
	r.RunningReleaseID, r.PinnedReleaseID, r.OSReleaseID, r.SupervisorReleaseID = r.Running.ID, r.Pinned.ID, r.OS.ID, r.Supervisor.ID
	// The configuration variable that disables the VPN is visible only in the status of a device with a heartbeat.
	r.IsVPNDisabled = !r.IsConnectedToVPN && r.HeartbeatState == "online" && r.OverallStatus == "operational"
	r.IsInactive = r.OverallStatus == "inactive"
	db.Devices.insert(&r.Device)
}

type installRow struct {
	Install
	Device  ref
	Release ref `json:"is_provided_by__release"`
	Image   []struct {
		ID      int
		Service []struct {
			ID   int
			Name string `json:"service_name"`
		} `json:"is_a_build_of__service"`
	} `json:"installs__image"`
}

func (db *database) loadInstall(r *installRow) {
	i := &r.Install
	i.DeviceID, i.ReleaseID = r.Device.ID, r.Release.ID
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
