// SPDX-License-Identifier: Apache-2.0

package balena

import (
	"cmp"
	"slices"
)

// Tally is sums over some devices, such as those of a fleet. The zero value is the tally of no devices. It can follow
// the devices from snapshot to snapshot: a device that changed is taken away as it was and added as it is.
type Tally struct {
	Devices, Online, Connected int
	// Undervolted are those among the connected devices.
	Undervolted int
	// Frozen and Deactivated are known where [Snapshot.CloudFields] is set.
	Frozen, Deactivated int
	// Targeted are the devices that should run a release, and OnTarget those of them that do.
	Targeted, OnTarget     int
	Pinned, WithoutRelease int

	ByStatus, ByHeartbeat, ByUpdate Counts[string]
	ByType, BySupervisor            Counts[string]
	ByOS                            Counts[OS]
	// ByRelease has the releases that devices run.
	ByRelease Counts[int64]
	// ByService counts a device once for each state in which a service is on it.
	ByService Counts[ServiceState]
	// byMaintenance are the devices that are not out of service, by the time until which they are in maintenance; 0 for
	// those that are not.
	byMaintenance map[Instant]*InService
}

// InService is sums over devices that are expected to work: those of a [Tally] that are neither out of service nor in
// maintenance.
type InService struct {
	Devices, Connected int
	// NeverConnected are the devices that were registered and never seen since.
	NeverConnected int
	// Disconnected are the devices that were connected once and are not, by the time since when.
	Disconnected   Counts[Instant]
	OSUpdateFailed int
	ByOS           Counts[OS]
	// Surveyed are the devices of which the services are known, and Healthy those of them that are healthy.
	Surveyed, Healthy int
}

// InService returns the sums over the devices that are in service at a time. They are not to be changed.
func (t *Tally) InService(at Instant) InService {
	if none := t.byMaintenance[0]; none != nil && len(t.byMaintenance) == 1 {
		return *none // nearly always
	}
	var sums InService
	for until, s := range t.byMaintenance {
		if until > at {
			continue
		}
		sums.Devices += s.Devices
		sums.Connected += s.Connected
		sums.NeverConnected += s.NeverConnected
		sums.Surveyed += s.Surveyed
		sums.Healthy += s.Healthy
		sums.OSUpdateFailed += s.OSUpdateFailed
		sums.Disconnected.addAll(s.Disconnected)
		sums.ByOS.addAll(s.ByOS)
	}
	return sums
}

func (s *InService) count(d *Device, n int) {
	s.Devices += n
	s.ByOS.Add(OSOf(d), n)
	switch since := d.ConnectivityChanged(); {
	case d.Connected():
		s.Connected += n
	case d.NeverConnected():
		s.NeverConnected += n
	case since != 0:
		s.Disconnected.Add(since, n)
	}
	s.Surveyed += when(d.Installs.Known(), n)
	s.Healthy += when(d.Healthy(), n)
	s.OSUpdateFailed += when(d.OSUpdateState() == OSUpdateFailed, n)
}

// OS is a version of the host OS with its variant and the device type, each [Unknown] where the API does not return it.
type OS struct{ Type, Version, Variant string }

// OSOf returns the host OS of a device.
func OSOf(d *Device) OS {
	return OS{cmp.Or(d.Type, Unknown), cmp.Or(d.OSVersion, Unknown), cmp.Or(d.OSVariant, Unknown)}
}

// ServiceState is a service by its name in a state, each [Unknown] where the API does not tell it.
type ServiceState struct{ Service, Status string }

// Counts counts devices by something.
type Counts[K comparable] map[K]int

// Add counts n devices; n may be negative.
func (c *Counts[K]) Add(key K, n int) {
	if *c == nil {
		*c = Counts[K]{}
	}
	if (*c)[key] += n; (*c)[key] == 0 {
		delete(*c, key)
	}
}

// addAll counts the devices that others counted.
func (c *Counts[K]) addAll(others Counts[K]) {
	for key, n := range others {
		c.Add(key, n)
	}
}

// Add adds a device.
func (t *Tally) Add(d *Device) { t.count(d, 1) }

// Remove takes a device away that was added.
func (t *Tally) Remove(d *Device) { t.count(d, -1) }

// count counts a device n times: once, or once less.
func (t *Tally) count(d *Device, n int) {
	t.Devices += n
	t.ByStatus.Add(cmp.Or(d.Status, Unknown), n)
	t.ByHeartbeat.Add(cmp.Or(d.HeartbeatState, Unknown), n)
	t.ByUpdate.Add(d.UpdateState(), n)
	t.ByType.Add(cmp.Or(d.Type, Unknown), n)
	t.ByOS.Add(OSOf(d), n)
	t.BySupervisor.Add(cmp.Or(d.SupervisorVersion, Unknown), n)
	if d.RunningRelease != 0 {
		t.ByRelease.Add(d.RunningRelease, n)
	}
	t.Online += when(d.Online, n)
	t.Connected += when(d.Connected(), n)
	t.Undervolted += when(d.Connected() && d.Undervolted, n)
	t.Frozen += when(d.Frozen, n)
	t.Deactivated += when(d.Deactivated, n)
	t.Targeted += when(d.TargetRelease != 0, n)
	t.OnTarget += when(d.OnTarget(), n)
	t.Pinned += when(d.PinnedRelease != 0, n)
	t.WithoutRelease += when(d.RunningRelease == 0, n)
	t.countServices(d, n)
	if !d.OutOfService() {
		t.countInService(d, n)
	}
}

// when returns n if a condition holds, otherwise 0.
func when(condition bool, n int) int {
	if condition {
		return n
	}
	return 0
}

func (t *Tally) countInService(d *Device, n int) {
	sums := t.byMaintenance[d.Maintenance]
	if sums == nil {
		sums = new(InService)
		if t.byMaintenance == nil {
			t.byMaintenance = map[Instant]*InService{}
		}
		t.byMaintenance[d.Maintenance] = sums
	}
	if sums.count(d, n); sums.Devices == 0 {
		delete(t.byMaintenance, d.Maintenance)
	}
}

// countServices counts a device once for each state of a service. Services are in the order of names and states, but for
// those that lack either.
func (t *Tally) countServices(d *Device, n int) {
	services := d.Services()
	for i, s := range services {
		state := stateOf(s)
		again := func(o Service) bool { return stateOf(o) == state }
		if !slices.ContainsFunc(services[:i], again) {
			t.ByService.Add(state, n)
		}
	}
}

func stateOf(s Service) ServiceState {
	return ServiceState{cmp.Or(s.Name, Unknown), cmp.Or(s.Status, Unknown)}
}
