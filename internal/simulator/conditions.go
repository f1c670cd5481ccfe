// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// What alerts are about and an account does not show by itself: devices that are absent on purpose or reconnect over and
// over, updates of the host OS that fail, services that do not start. State has a method for each, and generated
// accounts have some of all.

// MaintenanceTag is the key of the tag that says in generated accounts that a device or fleet is in maintenance.
const MaintenanceTag = "maintenance"

// What balena's host OS update writes into provisioning_state, each with its provisioning_progress.
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

// UpdateOS puts the device into a state of the update of its host OS. An empty one is none: the supervisor has started.
func (d *Device) UpdateOS(state string) {
	d.ProvisioningState, d.ProvisioningProgress = state, Number{}
	if percent, ok := osUpdateProgress[state]; ok {
		d.ProvisioningProgress = N(percent)
	}
}

// Deactivate switches the device off for good, which it does not hear of.
func (d *Device) Deactivate(at Time) {
	d.IsInactive = true
	d.Disconnect(at)
}

// Reconnect plays a device whose VPN goes down and up again at once.
func (d *Device) Reconnect(at Time) {
	d.dropVPN(at)
	d.Connect(at)
}

// Organization returns the organization with the id, or nil.
func (st *State) Organization(id int) *Organization { return st.Organizations.Get(id) }

// FreezeOrganization freezes an organization with all its devices, or ends that. The API refuses what a frozen device
// asks, so that its heartbeat ends; a device that is not frozen any more has to be connected.
func (st *State) FreezeOrganization(id int, frozen bool) {
	for _, d := range st.Devices.rows {
		st.Devices.touch(d)
	}
	s := &step{generator: generator{world: st.world, now: st.now}}
	s.freeze(st.Organizations.Get(id), frozen)
}

// SetServices puts all services of a device's target release into a status, such as Downloaded.
func (st *State) SetServices(device int, status string) {
	target := st.targetRelease(st.Device(device))
	for _, i := range st.InstallsOf(device) {
		if i.ReleaseID == target && i.Status != "deleted" {
			i.Status, i.DownloadProgress = status, Number{}
		}
	}
}

// SetDeviceTag gives a device a tag, or its tag another value.
func (st *State) SetDeviceTag(device int, key, value string) {
	for _, t := range st.DeviceTags.rows {
		if t.DeviceID == device && t.Key == key {
			st.DeviceTags.touch(t).Value = value
			return
		}
	}
	st.DeviceTags.Add(DeviceTag{Row: Row{ID: st.DeviceTags.nextID()}, DeviceID: device, Key: key, Value: value})
}

// RemoveDeviceTag takes a tag away from a device.
func (st *State) RemoveDeviceTag(device int, key string) {
	st.DeviceTags.DeleteFunc(func(t *DeviceTag) bool { return t.DeviceID == device && t.Key == key })
}

// SetFleetTag gives a fleet a tag, or its tag another value.
func (st *State) SetFleetTag(fleet int, key, value string) {
	for _, t := range st.FleetTags.rows {
		if t.FleetID == fleet && t.Key == key {
			st.FleetTags.touch(t).Value = value
			return
		}
	}
	st.FleetTags.Add(FleetTag{Row: Row{ID: st.FleetTags.nextID()}, FleetID: fleet, Key: key, Value: value})
}

// RemoveFleetTag takes a tag away from a fleet.
func (st *State) RemoveFleetTag(fleet int, key string) {
	st.FleetTags.DeleteFunc(func(t *FleetTag) bool { return t.FleetID == fleet && t.Key == key })
}

// conditionStream is a random stream of its own, so that the rest of an account follows from the seed as it did.
const conditionStream = 1 << 62

// Of so many devices and fleets one is in a condition.
const (
	devicesPerMaintenance = 60
	fleetsPerMaintenance  = 12
	devicesPerFlapping    = 150
	devicesPerOSUpdate    = 80
	devicesPerStuck       = 120
)

// addConditions puts some of a generated account into the conditions.
func addConditions(w *world, seed uint64, now Time) {
	s := newConditions(w, seed, 0, now)
	newest := map[int]*Release{} // by fleet
	for _, r := range w.Releases.rows {
		newest[r.FleetID] = r
	}
	for i, f := range w.Fleets.rows {
		if r := newest[f.ID]; i%fleetsPerMaintenance == 5 && r != nil {
			r.IsInvalidated = true // a draft, which is withdrawn
		}
		if i%fleetsPerMaintenance == fleetsPerMaintenance-1 {
			w.FleetTags.insert(&FleetTag{Row: s.row(w.FleetTags.nextID(), 10*day), FleetID: f.ID, Key: MaintenanceTag, Value: s.until()})
		}
	}
	for _, d := range w.Devices.rows {
		switch d.ID % devicesPerMaintenance {
		case 11:
			s.tag(d, s.until())
		case 41:
			s.tag(d, "in repair")
		}
		if d.RunningReleaseID == 0 || d.HeartbeatState != "online" {
			continue
		}
		switch {
		case d.ID%devicesPerOSUpdate == 17:
			d.UpdateOS([]string{OSUpdateFailed, OSUpdateRunning}[d.ID/devicesPerOSUpdate%2])
		case d.ID%devicesPerStuck == 23:
			s.stop(d)
		}
	}
}

func newConditions(w *world, seed, tick uint64, now Time) *step {
	return &step{generator: generator{world: w, Rand: rand.New(rand.NewPCG(seed^conditionStream, tick)), now: now}}
}

// until is a date at which a maintenance ends, in a few days or a few days ago.
func (s *step) until() string {
	return s.now.Add(time.Duration(s.IntN(14)-4) * 24 * time.Hour).Time().Format(time.DateOnly)
}

func (s *step) tag(d *Device, value string) {
	s.DeviceTags.insert(&DeviceTag{
		Row: Row{ID: s.DeviceTags.nextID(), CreatedAt: s.now, ModifiedAt: s.now}, DeviceID: d.ID, Key: MaintenanceTag, Value: value,
	})
}

// stop stops one of the services that run on a device, as one that was downloaded and did not start.
func (s *step) stop(d *Device) {
	for _, r := range s.installsOf(d.ID) {
		if i := r.(*Install); i.Status == "Running" {
			i.Status, i.ModifiedAt = []string{"Downloaded", "Installed", "Stopped"}[s.IntN(3)], s.now
			return
		}
	}
}

// start starts all services that had not started.
func (s *step) start(d *Device) {
	for _, r := range s.installsOf(d.ID) {
		switch i := r.(*Install); i.Status {
		case "Downloaded", "Installed", "Stopped":
			i.Status, i.ModifiedAt = "Running", s.now
		}
	}
}

// Chances, for each tick.
const (
	chanceFlaps         = 0.3  // that a device reconnects which does so over and over
	chanceOSUpdate      = 0.4  // that the host OS of some device begins to be updated
	chanceOSUpdateFails = 0.3  // and fails
	chanceOSUpdateEnds  = 0.02 // that the supervisor starts after it has failed
	chanceStuck         = 0.2  // that a service of some device stops
	chanceUnstuck       = 0.05 // that somebody has a look at some device
	chanceInvalidated   = 0.02 // that the newest release of some fleet is invalidated
)

// conditions lets devices get into the conditions, and out of them.
func (l *life) conditions(w *world, now Time) {
	s := newConditions(w, l.seed, l.ticks, now)
	if w.Devices.Len() == 0 {
		return
	}
	for _, d := range w.Devices.rows {
		if d.IsInactive || d.IsFrozen || d.HeartbeatState != "online" {
			continue
		}
		before := *d
		if d.ID%devicesPerFlapping == 29 && s.chance(chanceFlaps) {
			d.Reconnect(now)
		}
		s.goOn(d)
		if *d != before {
			d.ModifiedAt = now
		}
	}
	if d := s.some(); s.chance(chanceOSUpdate) && d.HeartbeatState == "online" && d.ProvisioningState == "" && !d.IsInactive {
		d.UpdateOS(OSUpdatePreparing)
		d.ModifiedAt = now
	}
	if d := s.some(); s.chance(chanceStuck) && d.UpdateStatus == "done" {
		s.stop(d)
	}
	if d := s.some(); s.chance(chanceUnstuck) {
		s.start(d)
	}
	if s.chance(chanceInvalidated) {
		s.invalidate()
	}
}

func (s *step) some() *Device { return s.Devices.rows[s.IntN(s.Devices.Len())] }

// goOn takes the update of a host OS one step further.
func (s *step) goOn(d *Device) {
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

// invalidate invalidates the target release of a fleet whose target somebody chose.
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

// dormant is an organization whose devices are frozen, since it has not paid for long.
const dormant = "dormant"

// addFrozenOrganization freezes the devices of the last of many fleets, which belongs to an organization of its own.
func (g *generator) addFrozenOrganization() {
	const enough = 10
	var own []*Fleet
	for _, f := range g.Fleets.rows {
		if !f.IsForeign {
			own = append(own, f)
		}
	}
	if len(own) < enough {
		return
	}
	f := own[len(own)-1]
	o := &Organization{Row: g.row(g.Organizations.nextID(), 800*day), Name: "Dormant Labs", Handle: dormant, PastDueInvoiceSince: g.now - 60*day}
	g.Organizations.insert(o)
	f.OrganizationID, f.Slug = o.ID, fmt.Sprintf("%s/%s", dormant, f.AppName)
	s := &step{generator: *g}
	s.freeze(o, true)
	g.Fleets.forget()
}
