// SPDX-License-Identifier: Apache-2.0

package live

import (
	"slices"
	"time"

	"github.com/prometheus/common/model"

	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

const (
	hour = time.Hour
	day  = 24 * hour
)

// A deviceFault is a fault of one device. Its fleet has the name of the expected alert.
type deviceFault struct {
	alert string
	play  func(st *simulator.State, d *simulator.Device)
}

var deviceFaults = []deviceFault{
	{"BalenaDeviceOffline", func(st *simulator.State, d *simulator.Device) { d.Disconnect(st.Now().Add(-2 * hour)) }},
	{"BalenaDeviceReducedFunctionality", func(st *simulator.State, d *simulator.Device) {
		d.HeartbeatState, d.HeartbeatChangedOn = "timeout", st.Now()
	}},
	{"BalenaDeviceUpdateStuck", func(st *simulator.State, d *simulator.Device) {
		d.RunningReleaseID, d.UpdateStatus, d.LastUpdateStatusEvent = oldRelease(st, d), "downloading", st.Now().Add(-3*hour)
		d.Status, d.DownloadProgress = "Downloading", simulator.N(40)
	}},
	{"BalenaDeviceUpdateRejected", func(st *simulator.State, d *simulator.Device) {
		d.RunningReleaseID, d.UpdateStatus, d.LastUpdateStatusEvent = oldRelease(st, d), "rejected", st.Now()
	}},
	{"BalenaDeviceStorageNearlyFull", func(_ *simulator.State, d *simulator.Device) { d.StorageUsage = d.StorageTotal }},
	{"BalenaDeviceMemoryExhausted", func(_ *simulator.State, d *simulator.Device) { d.MemoryUsage = d.MemoryTotal }},
	// The maintenance of the device has ended.
	{"BalenaDeviceOverheating", func(st *simulator.State, d *simulator.Device) {
		d.CPUTemp = simulator.N(95)
		st.SetDeviceTag(d.ID, simulator.MaintenanceTag, "2020-01-31")
	}},
	{"BalenaDeviceUndervolted", func(_ *simulator.State, d *simulator.Device) { d.IsUndervolted = true }},
	{"BalenaDeviceOSUpdateFailed", func(_ *simulator.State, d *simulator.Device) { d.UpdateOS(simulator.OSUpdateFailed) }},
	{"BalenaDeviceConfiguringTooLong", func(_ *simulator.State, d *simulator.Device) { d.UpdateOS(simulator.OSUpdateRunning) }},
	{"BalenaServiceNotRunning", func(st *simulator.State, d *simulator.Device) { st.SetServices(d.ID, "Downloaded") }},
	{flapping, func(st *simulator.State, d *simulator.Device) { d.Reconnect(st.Now()) }}, // the first of several reconnects
}

// flapping is an alert that needs repeated faults.
const flapping = "BalenaDeviceFlapping"

// A fleetFault is a fault of a fleet, which has the name of the expected alert.
type fleetFault struct {
	alert string
	// more are labels of the alert in addition to the fleet.
	more model.LabelSet
	play func(st *simulator.State, fleet *simulator.Fleet, devices []*simulator.Device)
}

var fleetFaults = []fleetFault{
	{"BalenaFleetPartlyOffline", problem("BalenaFleetPartlyOffline"), func(st *simulator.State, _ *simulator.Fleet, devices []*simulator.Device) {
		for _, d := range devices[:inFleet/4] {
			d.Disconnect(st.Now())
		}
	}},
	{"BalenaManyDevices", problem("BalenaDeviceOverheating"), func(_ *simulator.State, _ *simulator.Fleet, devices []*simulator.Device) {
		for _, d := range devices[:many] {
			d.CPUTemp = simulator.N(95)
		}
	}},
	{"BalenaFleetShrank", problem("BalenaFleetShrank"), func(st *simulator.State, _ *simulator.Fleet, devices []*simulator.Device) {
		for _, d := range devices[:inFleet/4] {
			st.DeleteDevice(d.ID)
		}
	}},
	{"BalenaFleetGone", nil, func(st *simulator.State, fleet *simulator.Fleet, _ []*simulator.Device) { st.DeleteFleet(fleet.ID) }},
	{"BalenaDevicesLost", problem("BalenaDevicesLost"), func(st *simulator.State, _ *simulator.Fleet, devices []*simulator.Device) {
		devices[0].Disconnect(st.Now().Add(-8 * day))
	}},
	{"BalenaDevicesNeverConnected", problem("BalenaDevicesNeverConnected"), func(st *simulator.State, fleet *simulator.Fleet, _ []*simulator.Device) {
		st.AddDevice(simulator.Device{Row: simulator.Row{CreatedAt: st.Now().Add(-2 * day)}, FleetID: fleet.ID})
	}},
	{"BalenaRolloutNotConverging", problem("BalenaRolloutNotConverging"), func(st *simulator.State, _ *simulator.Fleet, devices []*simulator.Device) {
		for _, d := range devices[:inFleet/4] {
			d.RunningReleaseID = oldRelease(st, d)
		}
	}},
	{"BalenaReleaseBuildFailed", problem("BalenaReleaseBuildFailed"), func(st *simulator.State, fleet *simulator.Fleet, _ []*simulator.Device) {
		st.NewRelease(fleet.ID, "3.0.0").Status = "failed"
	}},
	{"BalenaDevelopmentOS", problem("BalenaDevelopmentOS"), func(_ *simulator.State, _ *simulator.Fleet, devices []*simulator.Device) {
		devices[0].OSVariant = "dev"
	}},
	{
		"BalenaServiceRestarting", problem("BalenaServiceRestarting").Merge(model.LabelSet{"service_name": service}),
		func(st *simulator.State, _ *simulator.Fleet, devices []*simulator.Device) {
			st.InstallsOf(devices[0].ID)[0].Status = "restarting"
		},
	},
	{
		"BalenaServiceExited", problem("BalenaServiceExited").Merge(model.LabelSet{"service_name": service}),
		func(st *simulator.State, _ *simulator.Fleet, devices []*simulator.Device) {
			st.InstallsOf(devices[0].ID)[0].Status = "exited"
		},
	},
}

// cloudFaults are faults of fleets on balenaCloud, which publishes releases of balenaOS.
var cloudFaults = []fleetFault{
	{"BalenaOSUnsupported", problem("BalenaOSUnsupported"), func(_ *simulator.State, _ *simulator.Fleet, devices []*simulator.Device) {
		devices[0].OSVersion = "balenaOS 2026.1.5"
	}},
	{"BalenaOSInvalidated", problem("BalenaOSInvalidated"), func(_ *simulator.State, _ *simulator.Fleet, devices []*simulator.Device) {
		devices[0].OSVersion = "balenaOS 6.1.2"
	}},
}

// fleetFaultsOf returns the faults of fleets in an edition.
func fleetFaultsOf(edition simulator.Edition) []fleetFault {
	if edition == simulator.Cloud {
		return slices.Concat(fleetFaults, cloudFaults)
	}
	return fleetFaults
}

func problem(name string) model.LabelSet { return model.LabelSet{"problem": model.LabelValue(name)} }

const (
	// inFleet is the number of devices in a fleet, so large that a single device does not fire alerts on the fleet.
	inFleet = 12
	// many is a number of devices above the limit of alerts on single devices.
	many = 51
	// service is the service on all devices.
	service = "main"
	// keyName is the name of an expiring key in the simulated account.
	keyName = `ci "deploy" key`
	// archived is an archived fleet with all faults of devices. There must be no alerts on it.
	archived = "archived"
	// repaired is a fleet in maintenance with offline devices. absent is a fleet with a device in maintenance and an inactive
	// device, both offline and with other faults.
	repaired, absent = "repaired", "absent"
	// frozen and pastDue are the names of organizations and of their fleets.
	frozen, pastDue = "frozen", "past-due"
)

// addFleets adds a healthy fleet for each fault, with the name of its alert.
func addFleets(st *simulator.State, edition simulator.Edition) {
	names := []string{archived, repaired, absent, frozen, pastDue}
	for _, f := range deviceFaults {
		names = append(names, f.alert)
	}
	for _, f := range fleetFaultsOf(edition) {
		names = append(names, f.alert)
	}
	for _, name := range names {
		organization := 0 // the first one
		if name == frozen || name == pastDue {
			organization = st.Organizations.Add(simulator.Organization{Name: name, Handle: name}).ID
		}
		fleet := st.AddFleet(simulator.Fleet{AppName: name, OrganizationID: organization, TracksLatest: true, IsArchived: name == archived})
		st.FleetTags.Add(simulator.FleetTag{FleetID: fleet.ID, Key: "env", Value: "test"})
		st.NewRelease(fleet.ID, "1.0.0").CreatedAt = st.Now().Add(-60 * day)
		target := st.NewRelease(fleet.ID, "2.0.0")
		target.CreatedAt = st.Now().Add(-30 * day)
		fleet.TargetReleaseID = target.ID
		main := st.Services.Add(simulator.Service{FleetID: fleet.ID, Name: service})
		image := st.Images.Add(simulator.Image{ServiceID: main.ID, ReleaseID: target.ID})
		size := inFleet
		if name == "BalenaManyDevices" {
			size = many
		}
		for range size {
			addHealthy(st, fleet, image)
		}
	}
}

// addHealthy adds a healthy device.
func addHealthy(st *simulator.State, fleet *simulator.Fleet, image *simulator.Image) {
	long := st.Now().Add(-20 * day)
	d := st.AddDevice(simulator.Device{
		Latitude: "52.52", Longitude: "13.40",
		Row: simulator.Row{CreatedAt: long}, FleetID: fleet.ID, Status: "Idle",
		RunningReleaseID: fleet.TargetReleaseID, UpdateStatus: "done", LastUpdateStatusEvent: long,
		OSVersion: "balenaOS 6.5.10", OSVariant: "prod", SupervisorVersion: "17.0.3", OSReleaseID: fleet.TargetReleaseID, SupervisorReleaseID: fleet.TargetReleaseID,
		CPUUsage: simulator.N(10), CPUTemp: simulator.N(50), MemoryUsage: simulator.N(100), MemoryTotal: simulator.N(1000),
		StorageUsage: simulator.N(1000), StorageTotal: simulator.N(10000),
	})
	d.Connect(long)
	st.DeviceTags.Add(simulator.DeviceTag{DeviceID: d.ID, Key: "site", Value: "here"})
	st.Installs.Add(simulator.Install{DeviceID: d.ID, ImageID: image.ID, ReleaseID: fleet.TargetReleaseID, Status: "Running", InstallDate: long})
}

// oldRelease returns the first release of the device's fleet.
func oldRelease(st *simulator.State, d *simulator.Device) int {
	releases := st.Releases.All()
	return releases[slices.IndexFunc(releases, func(r *simulator.Release) bool { return r.FleetID == d.FleetID })].ID
}

// expect returns the labels of an expected alert, without the severity.
func expect(alert string, labels ...model.LabelSet) model.LabelSet {
	all := model.LabelSet{model.AlertNameLabel: model.LabelValue(alert)}
	for _, more := range labels {
		all = all.Merge(more)
	}
	return all
}

// byName returns the fleet with a name, its devices, and its label.
func byName(st *simulator.State, name string) (*simulator.Fleet, []*simulator.Device, model.LabelSet) {
	fleets := st.Fleets.All()
	fleet := fleets[slices.IndexFunc(fleets, func(f *simulator.Fleet) bool { return f.AppName == name })]
	devices := slices.DeleteFunc(st.Devices.All(), func(d *simulator.Device) bool { return d.FleetID != fleet.ID })
	return fleet, devices, model.LabelSet{"fleet": model.LabelValue(fleet.Slug)}
}

// play causes all faults of fleets and devices, and returns the expected alerts.
func play(st *simulator.State, edition simulator.Edition) []model.LabelSet {
	var want []model.LabelSet
	_, archivedDevices, _ := byName(st, archived)
	for i, f := range deviceFaults {
		_, devices, labels := byName(st, f.alert)
		f.play(st, devices[0])
		f.play(st, archivedDevices[i])
		want = append(want, expect(f.alert, labels, problem(f.alert), model.LabelSet{"uuid": model.LabelValue(devices[0].UUID)}))
	}
	for _, f := range fleetFaultsOf(edition) {
		fleet, devices, labels := byName(st, f.alert)
		f.play(st, fleet, devices)
		want = append(want, expect(f.alert, labels, f.more))
	}
	// Devices and fleets out of service have faults, but no alerts.
	_, devices, _ := byName(st, absent)
	for i, d := range devices[:2] {
		d.IsUndervolted, d.StorageUsage = true, d.StorageTotal
		st.SetServices(d.ID, "Stopped")
		if i == 0 {
			d.Deactivate(st.Now().Add(-2 * hour))
		} else {
			d.Disconnect(st.Now().Add(-2 * hour))
			st.SetDeviceTag(d.ID, simulator.MaintenanceTag, "2999-12-31")
		}
	}
	fleet, devices, _ := byName(st, repaired)
	st.SetFleetTag(fleet.ID, simulator.MaintenanceTag, "new pumps")
	for _, d := range devices {
		d.Disconnect(st.Now().Add(-2 * hour))
	}
	// An organization is frozen with all its devices, and another one has an overdue invoice.
	fleet, _, _ = byName(st, frozen)
	st.FreezeOrganization(fleet.OrganizationID, true)
	fleet, _, _ = byName(st, pastDue)
	st.Organization(fleet.OrganizationID).PastDueInvoiceSince = st.Now().Add(-3 * day)
	want = append(
		want, expect("BalenaDevicesFrozen", problem("BalenaDevicesFrozen"), model.LabelSet{"organization": frozen}),
		expect("BalenaInvoicePastDue", model.LabelSet{"organization": pastDue}),
	)
	for _, key := range st.APIKeys.All() {
		if key.Name == keyName {
			key.ExpiryDate = st.Now().Add(3 * day)
		}
	}
	return want
}

// A backup is a copy of the healthy account.
type backup struct {
	fleets   []simulator.Fleet
	releases []simulator.Release
	devices  []simulator.Device
	installs []simulator.Install
	keys     []simulator.APIKey
	tags     []simulator.DeviceTag
	ofFleets []simulator.FleetTag
}

func newBackup(st *simulator.State) *backup {
	return &backup{copies(st.Fleets.All()), copies(st.Releases.All()), copies(st.Devices.All()), copies(st.Installs.All()), copies(st.APIKeys.All()), copies(st.DeviceTags.All()), copies(st.FleetTags.All())}
}

func (m *backup) restore(st *simulator.State) {
	refill(&st.Fleets, m.fleets)
	refill(&st.Releases, m.releases)
	refill(&st.Devices, m.devices)
	refill(&st.Installs, m.installs)
	refill(&st.APIKeys, m.keys)
	refill(&st.DeviceTags, m.tags)
	refill(&st.FleetTags, m.ofFleets)
	for _, o := range st.Organizations.All() {
		o.IsFrozen = false // the overdue invoice remains
	}
}

func copies[R any](rows []*R) []R {
	var all []R
	for _, r := range rows {
		all = append(all, *r)
	}
	return all
}

// A table of the simulator.
type table[R any] interface {
	DeleteFunc(match func(*R) bool)
	Add(row R) *R
}

func refill[R any](table table[R], rows []R) {
	table.DeleteFunc(func(*R) bool { return true })
	for _, r := range rows {
		table.Add(r)
	}
}
