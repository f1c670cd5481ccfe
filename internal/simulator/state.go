// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
)

// A world is the whole content of the API: a table for each resource.
type world struct {
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

// lifecycle holds the methods of tables that do not depend on their row type.
type lifecycle interface {
	begin(now Time)
	commit()
}

func (w *world) tables() []lifecycle {
	return []lifecycle{
		&w.Organizations, &w.Users, &w.Architectures, &w.DeviceTypes, &w.Families, &w.Manufacturers, &w.Fleets, &w.Releases, &w.ReleaseTags,
		&w.Services, &w.Images, &w.Devices, &w.Installs, &w.DeviceTags, &w.FleetTags, &w.APIKeys,
	}
}

func (w *world) clone() *world {
	c := &world{}
	c.Organizations.copyFrom(&w.Organizations)
	c.Users.copyFrom(&w.Users)
	c.Architectures.copyFrom(&w.Architectures)
	c.DeviceTypes.copyFrom(&w.DeviceTypes)
	c.Families.copyFrom(&w.Families)
	c.Manufacturers.copyFrom(&w.Manufacturers)
	c.Fleets.copyFrom(&w.Fleets)
	c.Releases.copyFrom(&w.Releases)
	c.ReleaseTags.copyFrom(&w.ReleaseTags)
	c.Services.copyFrom(&w.Services)
	c.Images.copyFrom(&w.Images)
	c.Devices.copyFrom(&w.Devices)
	c.Installs.copyFrom(&w.Installs)
	c.DeviceTags.copyFrom(&w.DeviceTags)
	c.FleetTags.copyFrom(&w.FleetTags)
	c.APIKeys.copyFrom(&w.APIKeys)
	return c
}

// State gives access to the data during [Simulator.Update]. Its rows may be changed in place:
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
	*world
	now Time
}

// Now returns the server's time. During an update it is constant, as in a transaction: the time when the update began.
func (st *State) Now() Time { return st.now }

// Device returns the device with the id, or nil.
func (st *State) Device(id int) *Device { return st.Devices.Get(id) }

// Fleet returns the fleet with the id, or nil.
func (st *State) Fleet(id int) *Fleet { return st.Fleets.Get(id) }

// FleetBySlug returns the fleet with the slug, or nil.
func (st *State) FleetBySlug(slug string) *Fleet {
	for _, f := range st.Fleets.rows {
		if f.Slug == slug {
			return st.Fleets.Get(f.ID)
		}
	}
	return nil
}

// Release returns the release with the id, or nil.
func (st *State) Release(id int) *Release { return st.Releases.Get(id) }

// InstallsOf returns the device's image installs, deleted ones included.
func (st *State) InstallsOf(device int) []*Install {
	var installs []*Install
	for _, i := range st.Installs.rows {
		if i.DeviceID == device {
			installs = append(installs, st.Installs.touch(i))
		}
	}
	return installs
}

// AddDevice adds a device that has just been registered and never connected. It supplies a UUID, a name and a device
// type if d has none.
func (st *State) AddDevice(d Device) *Device {
	if d.ID == 0 {
		d.ID = st.Devices.nextID()
	}
	if d.UUID == "" {
		d.UUID = hexID(d.ID)
	}
	if d.Name == "" {
		d.Name = fmt.Sprintf("device-%d", d.ID)
	}
	if d.HeartbeatState == "" {
		d.HeartbeatState = "unknown"
	}
	if f, ok := st.Fleets.find(d.FleetID).(*Fleet); ok && d.DeviceTypeID == 0 {
		d.DeviceTypeID = f.DeviceTypeID
	}
	return st.Devices.Add(d)
}

// AddFleet adds a fleet. Its class is "fleet" unless f has another one.
func (st *State) AddFleet(f Fleet) *Fleet {
	if f.ID == 0 {
		f.ID = st.Fleets.nextID()
	}
	if f.Class == "" {
		f.Class = "fleet"
	}
	if f.UUID == "" {
		f.UUID = hexID(-f.ID)
	}
	if f.OrganizationID == 0 && st.Organizations.Len() > 0 {
		f.OrganizationID = st.Organizations.rows[0].ID
	}
	if f.DeviceTypeID == 0 && st.DeviceTypes.Len() > 0 {
		f.DeviceTypeID = st.DeviceTypes.rows[0].ID
	}
	if f.AppName == "" {
		f.AppName = fmt.Sprintf("fleet-%d", f.ID)
	}
	if f.Slug == "" {
		f.Slug = st.slug(f.OrganizationID, f.AppName)
	}
	return st.Fleets.Add(f)
}

// NewRelease adds a successful, final release to a fleet. To roll it out, set the fleet's TargetReleaseID to it.
func (st *State) NewRelease(fleet int, version string) *Release {
	return st.Releases.touch(st.newRelease(fleet, version, st.now))
}

func (w *world) newRelease(fleet int, version string, now Time) *Release {
	id := w.Releases.nextID()
	r := &Release{
		Row: Row{ID: id, CreatedAt: now, ModifiedAt: now}, FleetID: fleet, Commit: hexID(id), RawVersion: version, Semver: version,
		Status: "success", IsFinal: true, IsPassingTests: true, FinalizedAt: now,
	}
	w.Releases.insert(r)
	return r
}

func (w *world) slug(organization int, name string) string {
	handle := "nobody"
	if o, ok := w.Organizations.find(organization).(*Organization); ok {
		handle = o.Handle
	}
	return handle + "/" + name
}

// RenameFleet gives a fleet another name, and the slug derived from it.
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

func (st *State) deleteDevices(gone func(*Device) bool) {
	ids := make(map[int]bool)
	st.Devices.DeleteFunc(func(d *Device) bool {
		if gone(d) {
			ids[d.ID] = true
		}
		return ids[d.ID]
	})
	st.Installs.DeleteFunc(func(i *Install) bool { return ids[i.DeviceID] })
	st.DeviceTags.DeleteFunc(func(t *DeviceTag) bool { return ids[t.DeviceID] })
}

// Connect connects the device at the given time: the VPN is up, heartbeats arrive.
func (d *Device) Connect(at Time) {
	if !d.IsVPNDisabled && !d.IsConnectedToVPN {
		d.IsConnectedToVPN = true
		d.LastVPNEvent, d.LastConnectivityEvent = at, at
	}
	d.heartbeat("online", at)
}

// Disconnect disconnects the device for good: the VPN is down, heartbeats have been missing for a long time. Its
// hardware figures stay, as on the real server.
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

// setUpdate changes the state of the device's update.
func (d *Device) setUpdate(status string, at Time) {
	if d.UpdateStatus != status {
		d.UpdateStatus, d.LastUpdateStatusEvent = status, at
	}
}
