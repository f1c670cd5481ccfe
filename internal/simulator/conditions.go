// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"time"
)

// This file contains conditions of alerts: devices in maintenance, devices that reconnect repeatedly, failed updates of the
// host OS, services that do not start. State has a method for each, and generated accounts contain all of them.

// MaintenanceTag is the key of the tag that sets the maintenance of devices and fleets in generated accounts.
const MaintenanceTag = "maintenance"

// Values of provisioning_state during an update of the host OS.
const (
	OSUpdatePreparing  = "Preparing OS update"
	OSUpdateRunning    = "Running OS update"
	OSUpdateSupervisor = "Running supervisor update"
	OSUpdateRebooting  = "Update successful, rebooting"
	OSUpdateFailed     = "OS update failed"
)

var osUpdateProgress = map[string]int{
	OSUpdatePreparing: 25, OSUpdateRunning: 50, OSUpdateSupervisor: 95, OSUpdateRebooting: 100, OSUpdateFailed: 100,
}

// UpdateOS sets the state of the update of the host OS. An empty state is the end of the update, when the supervisor starts.
func (d *Device) UpdateOS(state string) {
	d.ProvisioningState, d.ProvisioningProgress = state, Number{}
	if percent, ok := osUpdateProgress[state]; ok {
		d.ProvisioningProgress = N(percent)
	}
}

// Deactivate deactivates the device and disconnects it.
func (d *Device) Deactivate(at Time) {
	d.IsInactive = true
	d.Disconnect(at)
}

// Reconnect disconnects the VPN of the device and connects it again.
func (d *Device) Reconnect(at Time) {
	d.dropVPN(at)
	d.Connect(at)
}

// Organization returns the organization with the id, or nil.
func (st *State) Organization(id int) *Organization { return st.Organizations.Get(id) }

// FreezeOrganization freezes or unfreezes an organization with all its devices. Frozen devices are disconnected, and unfrozen
// devices stay disconnected.
func (st *State) FreezeOrganization(id int, frozen bool) {
	st.freeze(st.Organizations.Get(id), frozen, st.now)
}

// SetServices sets the status of all services of the target release on a device, such as Downloaded.
func (st *State) SetServices(device int, status string) {
	target := st.targetRelease(st.Device(device))
	for _, i := range st.InstallsOf(device) {
		if i.ReleaseID == target && i.Status != "deleted" {
			i.Status, i.DownloadProgress = status, Number{}
		}
	}
}

// SetDeviceTag adds a tag to a device, or changes its value.
func (st *State) SetDeviceTag(device int, key, value string) {
	for _, t := range st.DeviceTags.rows {
		if t.DeviceID == device && t.Key == key {
			st.DeviceTags.touch(t).Value = value
			return
		}
	}
	st.DeviceTags.Add(DeviceTag{DeviceID: device, Key: key, Value: value})
}

// RemoveDeviceTag removes a tag from a device.
func (st *State) RemoveDeviceTag(device int, key string) {
	st.DeviceTags.DeleteFunc(func(t *DeviceTag) bool { return t.DeviceID == device && t.Key == key })
}

// SetFleetTag adds a tag to a fleet, or changes its value.
func (st *State) SetFleetTag(fleet int, key, value string) {
	for _, t := range st.FleetTags.rows {
		if t.FleetID == fleet && t.Key == key {
			st.FleetTags.touch(t).Value = value
			return
		}
	}
	st.FleetTags.Add(FleetTag{FleetID: fleet, Key: key, Value: value})
}

// RemoveFleetTag removes a tag from a fleet.
func (st *State) RemoveFleetTag(fleet int, key string) {
	st.FleetTags.DeleteFunc(func(t *FleetTag) bool { return t.FleetID == fleet && t.Key == key })
}

// conditionStream changes the seed to that of the random values for conditions. Other values of an account do not depend on it.
const conditionStream = 1 << 62

// Numbers of devices and fleets of which one is in a condition.
const (
	devicesPerMaintenance = 60
	fleetsPerMaintenance  = 12
	devicesPerFlapping    = 150
	devicesPerOSUpdate    = 80
	devicesPerStuck       = 120
)

// addConditions adds the conditions to a generated account.
func addConditions(db *database, seed uint64, now Time) {
	s := newStep(db, seed^conditionStream, 0, now)
	newest := map[int]*Release{} // by fleet
	for _, r := range db.Releases.rows {
		newest[r.FleetID] = r
	}
	for i, f := range db.Fleets.rows {
		if r := newest[f.ID]; i%fleetsPerMaintenance == 5 && r != nil {
			r.IsInvalidated = true // a draft
		}
		if i%fleetsPerMaintenance == fleetsPerMaintenance-1 {
			db.FleetTags.insert(&FleetTag{Row: s.row(10 * day), FleetID: f.ID, Key: MaintenanceTag, Value: s.maintenanceEnd()})
		}
	}
	for _, d := range db.Devices.rows {
		switch d.ID % devicesPerMaintenance {
		case 11:
			s.addMaintenanceTag(d, s.maintenanceEnd())
		case 41:
			s.addMaintenanceTag(d, "in repair")
		}
		if d.RunningReleaseID == 0 || d.HeartbeatState != "online" {
			continue
		}
		switch {
		case d.ID%devicesPerOSUpdate == 17:
			d.UpdateOS([]string{OSUpdateFailed, OSUpdateRunning}[d.ID/devicesPerOSUpdate%2])
		case d.ID%devicesPerStuck == 23:
			s.stopService(d)
		}
	}
}

// maintenanceEnd returns the date at which a maintenance ends, within a few days before or after now.
func (s *step) maintenanceEnd() string {
	return s.now.Add(time.Duration(s.IntN(14)-4) * 24 * time.Hour).Time().Format(time.DateOnly)
}

func (s *step) addMaintenanceTag(d *Device, value string) {
	s.DeviceTags.insert(&DeviceTag{Row: rowAt(s.now), DeviceID: d.ID, Key: MaintenanceTag, Value: value})
}

// stopService stops a running service of a device. Its status is that of a service that does not start.
func (s *step) stopService(d *Device) {
	for _, i := range s.installsOf(d.ID) {
		if i.Status == "Running" {
			i.Status, i.ModifiedAt = []string{"Downloaded", "Installed", "Stopped"}[s.IntN(3)], s.now
			return
		}
	}
}

// startServices starts all stopped services of a device.
func (s *step) startServices(d *Device) {
	for _, i := range s.installsOf(d.ID) {
		switch i.Status {
		case "Downloaded", "Installed", "Stopped":
			i.Status, i.ModifiedAt = "Running", s.now
		}
	}
}

// Probabilities per tick.
const (
	chanceFlaps         = 0.3  // a device that flaps reconnects
	chanceOSUpdate      = 0.4  // an update of the host OS of a random device begins
	chanceOSUpdateFails = 0.3  // a running update of the host OS fails
	chanceOSUpdateEnds  = 0.02 // the supervisor starts after a failed update
	chanceStuck         = 0.2  // a service of a random device stops
	chanceUnstuck       = 0.05 // the services of a random device start
	chanceInvalidated   = 0.02 // the target release of a random fleet is invalidated
)

// changeConditions begins and ends conditions of random devices.
func (a *activity) changeConditions(db *database, now Time) {
	s := newStep(db, a.seed^conditionStream, a.ticks, now)
	if db.Devices.Len() == 0 {
		return
	}
	db.Devices.each(now, func(d *Device) {
		if d.IsInactive || d.IsFrozen || d.HeartbeatState != "online" {
			return
		}
		if d.ID%devicesPerFlapping == 29 && s.chance(chanceFlaps) {
			d.Reconnect(now)
		}
		s.continueOSUpdate(d)
	})
	if d := s.randomDevice(); s.chance(chanceOSUpdate) && d.HeartbeatState == "online" && d.ProvisioningState == "" && !d.IsInactive {
		d.UpdateOS(OSUpdatePreparing)
		d.ModifiedAt = now
	}
	if d := s.randomDevice(); s.chance(chanceStuck) && d.UpdateStatus == "done" {
		s.stopService(d)
	}
	if d := s.randomDevice(); s.chance(chanceUnstuck) {
		s.startServices(d)
	}
	if s.chance(chanceInvalidated) {
		s.invalidate()
	}
}

func (s *step) randomDevice() *Device { return s.Devices.rows[s.IntN(s.Devices.Len())] }

// continueOSUpdate sets the next state of the update of the host OS.
func (s *step) continueOSUpdate(d *Device) {
	switch d.ProvisioningState {
	case OSUpdatePreparing:
		d.UpdateOS(OSUpdateRunning)
	case OSUpdateRunning:
		if d.UpdateOS(OSUpdateSupervisor); s.chance(chanceOSUpdateFails) {
			d.UpdateOS(OSUpdateFailed)
		}
	case OSUpdateSupervisor:
		d.UpdateOS(OSUpdateRebooting)
	case OSUpdateRebooting:
		d.UpdateOS("")
		d.OSVersion, d.SupervisorVersion = osVersions[0].os, osVersions[0].supervisor
	case OSUpdateFailed:
		if s.chance(chanceOSUpdateEnds) {
			d.UpdateOS("")
		}
	}
}

// invalidate invalidates the target release of a random fleet that does not track its latest release.
func (s *step) invalidate() {
	for _, i := range s.Perm(s.Fleets.Len()) {
		f := s.Fleets.rows[i]
		r, ok := s.Releases.find(f.TargetReleaseID).(*Release)
		if !f.IsForeign && !f.TracksLatest && ok && !r.IsInvalidated {
			r.IsInvalidated, r.ModifiedAt = true, s.now
			return
		}
	}
}

// dormant is the handle of an organization that stays frozen.
const dormant = "dormant"

// addFrozenOrganization moves the last fleet to a frozen organization, if there are at least ten fleets.
func (g *generator) addFrozenOrganization() {
	const minFleets = 10
	fleets := g.ownFleets()
	if len(fleets) < minFleets {
		return
	}
	f := fleets[len(fleets)-1]
	o := &Organization{Row: g.row(800 * day), Name: "Dormant Labs", Handle: dormant, PastDueInvoiceSince: g.now - 60*day}
	g.Organizations.insert(o)
	f.OrganizationID, f.Slug = o.ID, fmt.Sprintf("%s/%s", dormant, f.AppName)
	g.freeze(o, true, g.now)
	g.Fleets.forget()
}
