// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"fmt"
	"slices"
)

// A database contains a table for each resource.
type database struct {
	Organizations Table[Organization, *Organization]
	Users         Table[User, *User]
	Architectures Table[Architecture, *Architecture]
	DeviceTypes   Table[DeviceType, *DeviceType]
	Families      Table[Family, *Family]
	Manufacturers Table[Manufacturer, *Manufacturer]
	Fleets        Table[Fleet, *Fleet]
	Releases      Table[Release, *Release]
	ReleaseTags   Table[ReleaseTag, *ReleaseTag]
	Services      Table[Service, *Service]
	Images        Table[Image, *Image]
	Devices       Table[Device, *Device]
	Installs      Table[Install, *Install]
	DeviceTags    Table[DeviceTag, *DeviceTag]
	FleetTags     Table[FleetTag, *FleetTag]
	APIKeys       Table[APIKey, *APIKey]
}

func (db *database) tables() []relation {
	return []relation{
		&db.Organizations, &db.Users, &db.Architectures, &db.DeviceTypes, &db.Families, &db.Manufacturers, &db.Fleets, &db.Releases, &db.ReleaseTags,
		&db.Services, &db.Images, &db.Devices, &db.Installs, &db.DeviceTags, &db.FleetTags, &db.APIKeys,
	}
}

func (db *database) clone() *database {
	c := &database{}
	for i, t := range c.tables() {
		t.copyFrom(db.tables()[i])
	}
	return c
}

// State gives access to the data during [Simulator.Update]. Rows may be changed in place:
//
//	sim.Update(func(st *simulator.State) {
//		st.Device(7).Name = "renamed"
//		st.Device(8).FleetID = 2
//		st.DeleteDevice(9)
//		st.Devices.Add(simulator.Device{FleetID: 2, UUID: "…"})
//	})
//
// The state and its rows must not be used after the function returns.
type State struct {
	*database
	now Time
}

// Now returns the time when the update began, like now() in a transaction.
func (st *State) Now() Time { return st.now }

// Device returns the device with the id, or nil.
func (st *State) Device(id int) *Device { return st.Devices.Get(id) }

// Fleet returns the fleet with the id, or nil.
func (st *State) Fleet(id int) *Fleet { return st.Fleets.Get(id) }

// Release returns the release with the id, or nil.
func (st *State) Release(id int) *Release { return st.Releases.Get(id) }

// InstallsOf returns the image installs of a device, including deleted ones.
func (st *State) InstallsOf(device int) []*Install {
	var installs []*Install
	for _, i := range st.Installs.rows {
		if i.DeviceID == device {
			installs = append(installs, st.Installs.touch(i))
		}
	}
	return installs
}

// AddDevice adds a device. It sets the id, UUID, name, heartbeat state and device type if they are empty.
func (st *State) AddDevice(d Device) *Device {
	d.ID = cmp.Or(d.ID, st.Devices.nextID())
	d.UUID = cmp.Or(d.UUID, hexID(d.ID))
	d.Name = cmp.Or(d.Name, fmt.Sprintf("device-%d", d.ID))
	d.HeartbeatState = cmp.Or(d.HeartbeatState, "unknown")
	if f, ok := st.Fleets.find(d.FleetID).(*Fleet); ok && d.DeviceTypeID == 0 {
		d.DeviceTypeID = f.DeviceTypeID
	}
	return st.Devices.Add(d)
}

// AddFleet adds a fleet. It sets empty fields, such as the class.
func (st *State) AddFleet(f Fleet) *Fleet {
	f.ID = cmp.Or(f.ID, st.Fleets.nextID())
	f.Class = cmp.Or(f.Class, "fleet")
	f.UUID = cmp.Or(f.UUID, hexID(-f.ID))
	if f.OrganizationID == 0 && st.Organizations.Len() > 0 {
		f.OrganizationID = st.Organizations.rows[0].ID
	}
	if f.DeviceTypeID == 0 && st.DeviceTypes.Len() > 0 {
		f.DeviceTypeID = st.DeviceTypes.rows[0].ID
	}
	f.AppName = cmp.Or(f.AppName, fmt.Sprintf("fleet-%d", f.ID))
	f.Slug = cmp.Or(f.Slug, st.slug(f.OrganizationID, f.AppName))
	return st.Fleets.Add(f)
}

// NewRelease adds a successful, final release to a fleet. It does not change the target release of the fleet.
func (st *State) NewRelease(fleet int, version string) *Release {
	return st.Releases.touch(st.newRelease(fleet, version, st.now))
}

func (db *database) newRelease(fleet int, version string, now Time) *Release {
	r := &Release{
		Row: rowAt(now), FleetID: fleet, Commit: hexID(db.Releases.nextID()), RawVersion: version, Semver: version,
		Status: "success", IsFinal: true, IsPassingTests: true, FinalizedAt: now,
	}
	db.Releases.insert(r)
	return r
}

func (db *database) slug(organization int, name string) string {
	handle := "nobody"
	if o, ok := db.Organizations.find(organization).(*Organization); ok {
		handle = o.Handle
	}
	return handle + "/" + name
}

// ownFleets returns the fleets to which the user has direct access.
func (db *database) ownFleets() []*Fleet {
	return slices.DeleteFunc(slices.Clone(db.Fleets.rows), func(f *Fleet) bool { return f.IsForeign })
}

// RenameFleet changes the name and the slug of a fleet.
func (st *State) RenameFleet(id int, name string) {
	f := st.Fleet(id)
	f.AppName, f.Slug = name, st.slug(f.OrganizationID, name)
}

// DeleteDevice deletes a device with its tags and image installs.
func (st *State) DeleteDevice(id int) {
	st.deleteDevices(func(d *Device) bool { return d.ID == id })
}

// DeleteFleet deletes a fleet with its releases, tags and devices.
func (st *State) DeleteFleet(id int) {
	st.deleteDevices(func(d *Device) bool { return d.FleetID == id })
	st.ReleaseTags.DeleteFunc(func(t *ReleaseTag) bool {
		r, ok := st.Releases.find(t.ReleaseID).(*Release)
		return ok && r.FleetID == id
	})
	st.Releases.DeleteFunc(func(r *Release) bool { return r.FleetID == id })
	st.FleetTags.DeleteFunc(func(t *FleetTag) bool { return t.FleetID == id })
	st.Fleets.Delete(id)
}

func (st *State) deleteDevices(remove func(*Device) bool) {
	ids := make(map[int]bool)
	st.Devices.DeleteFunc(func(d *Device) bool {
		if remove(d) {
			ids[d.ID] = true
		}
		return ids[d.ID]
	})
	st.Installs.DeleteFunc(func(i *Install) bool { return ids[i.DeviceID] })
	st.DeviceTags.DeleteFunc(func(t *DeviceTag) bool { return ids[t.DeviceID] })
}

// Connect connects the VPN of the device and sets its heartbeat online.
func (d *Device) Connect(at Time) {
	if !d.IsVPNDisabled && !d.IsConnectedToVPN {
		d.IsConnectedToVPN = true
		d.LastVPNEvent, d.LastConnectivityEvent = at, at
	}
	d.heartbeat("online", at)
}

// Disconnect disconnects the VPN of the device and sets its heartbeat offline. Hardware figures do not change, as on the real
// server.
func (d *Device) Disconnect(at Time) {
	d.dropVPN(at)
	d.heartbeat("offline", at)
}

func (d *Device) dropVPN(at Time) {
	if d.IsConnectedToVPN {
		d.IsConnectedToVPN = false
		d.LastVPNEvent, d.LastConnectivityEvent = at, at
	}
}

func (d *Device) heartbeat(state string, at Time) {
	if d.HeartbeatState != state {
		d.HeartbeatState, d.HeartbeatChangedOn = state, at
	}
}

// setUpdate sets the status of the update of the device.
func (d *Device) setUpdate(status string, at Time) {
	if d.UpdateStatus != status {
		d.UpdateStatus, d.LastUpdateStatusEvent = status, at
	}
}
