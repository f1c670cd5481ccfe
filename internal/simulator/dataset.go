// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
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
	err := cmp.Or(
		eachRow(dir, "organization", db.Organizations.insert),
		eachRow(dir, "device_type", db.loadDeviceType),
		eachRow(dir, "application", db.Fleets.insert),
		eachRow(dir, "release", db.Releases.insert),
		eachRow(dir, "release_tag", db.ReleaseTags.insert),
		eachRow(dir, "device", db.loadDevice),
		eachRow(dir, "image_install", db.loadInstall),
		eachRow(dir, "device_tag", db.DeviceTags.insert),
		eachRow(dir, "application_tag", db.FleetTags.insert),
		eachRow(dir, "api_key", db.APIKeys.insert),
	)
	if err != nil {
		return nil, err
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
	var file struct {
		D []R `json:"d"`
	}
	if err := json.Unmarshal(data, &file, foreignKeys); err != nil {
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

// foreignKeys decodes an int that is a foreign key: {"__id": n}, or an array with the expanded row.
var foreignKeys = json.WithUnmarshalers(json.UnmarshalFromFunc(func(d *jsontext.Decoder, id *int) error {
	switch d.PeekKind() {
	case '{':
		var key struct {
			ID int `json:"__id"`
		}
		err := json.UnmarshalDecode(d, &key)
		*id = key.ID
		return err
	case '[':
		var rows []Row
		err := json.UnmarshalDecode(d, &rows)
		if len(rows) > 0 {
			*id = rows[0].ID
		}
		return err
	}
	return errors.ErrUnsupported // decode a number or null as usual
}))

// The following types are rows with fields of the API that are stored differently.

type deviceTypeRow struct {
	DeviceType
	Architecture []Architecture `json:"is_of__cpu_architecture"`
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
	known := db.Architectures.rows
	if i := slices.IndexFunc(known, func(a *Architecture) bool { return a.Slug == slug }); i >= 0 {
		return known[i].ID
	}
	a := &Architecture{Slug: slug}
	db.Architectures.insert(a)
	return a.ID
}

type deviceRow struct {
	Device
	OverallStatus string `json:"overall_status"`
}

func (db *database) loadDevice(r *deviceRow) {
	// The configuration variable that disables the VPN is visible only in the status of a device with a heartbeat.
	r.IsVPNDisabled = !r.IsConnectedToVPN && r.HeartbeatState == "online" && r.OverallStatus == "operational"
	r.IsInactive = r.OverallStatus == "inactive"
	db.Devices.insert(&r.Device)
}

type installRow struct {
	Install
	Image []struct {
		Row
		Service []Service `json:"is_a_build_of__service"`
	} `json:"installs__image"`
}

// loadInstall adds an image install with its image and service.
func (db *database) loadInstall(r *installRow) {
	i := &r.Install
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
	if release, ok := db.Releases.find(i.ReleaseID).(*Release); ok {
		service.FleetID = release.FleetID
		service.CreatedAt, service.ModifiedAt = release.CreatedAt, release.CreatedAt
	}
	stamps := service.Row
	stamps.ID = image.ID
	db.Images.insert(&Image{Row: stamps, ServiceID: service.ID, ReleaseID: i.ReleaseID})
	if db.Services.find(service.ID) == nil {
		db.Services.insert(&service)
	}
}
