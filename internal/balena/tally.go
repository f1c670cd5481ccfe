// SPDX-License-Identifier: Apache-2.0

package balena

import "cmp"

// Tally is sums over some devices, such as those of a fleet. The zero value is the tally of no devices. It can follow
// the devices from snapshot to snapshot: a device that changed is taken away as it was and added as it is.
type Tally struct {
	Devices, Online, Connected int
	// NeverConnected are the devices that were registered and never seen since.
	NeverConnected int
	// Undervolted are those among the connected devices.
	Undervolted int
	Frozen      int
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
	// Disconnected are the devices that were connected once and are not, by the time since when.
	Disconnected Counts[Instant]
}

// OS is a version of the host OS and its variant, each [Unknown] where the device does not report it.
type OS struct{ Version, Variant string }

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

// AddAll counts the devices that others counted.
func (c *Counts[K]) AddAll(others Counts[K]) {
	for key, n := range others {
		c.Add(key, n)
	}
}

// Add adds a device.
func (t *Tally) Add(d *Device) { t.count(d, 1) }

// Remove takes a device away that was added.
func (t *Tally) Remove(d *Device) { t.count(d, -1) }

// AddAll adds the devices of another tally.
func (t *Tally) AddAll(o *Tally) {
	t.Devices += o.Devices
	t.Online += o.Online
	t.Connected += o.Connected
	t.NeverConnected += o.NeverConnected
	t.Undervolted += o.Undervolted
	t.Frozen += o.Frozen
	t.Targeted += o.Targeted
	t.OnTarget += o.OnTarget
	t.Pinned += o.Pinned
	t.WithoutRelease += o.WithoutRelease
	t.ByStatus.AddAll(o.ByStatus)
	t.ByHeartbeat.AddAll(o.ByHeartbeat)
	t.ByUpdate.AddAll(o.ByUpdate)
	t.ByType.AddAll(o.ByType)
	t.BySupervisor.AddAll(o.BySupervisor)
	t.ByOS.AddAll(o.ByOS)
	t.ByRelease.AddAll(o.ByRelease)
	t.ByService.AddAll(o.ByService)
	t.Disconnected.AddAll(o.Disconnected)
}

// count counts a device n times: once, or once less.
func (t *Tally) count(d *Device, n int) {
	t.Devices += n
	t.ByStatus.Add(cmp.Or(d.Status, Unknown), n)
	t.ByHeartbeat.Add(cmp.Or(d.HeartbeatState, Unknown), n)
	t.ByUpdate.Add(cmp.Or(d.UpdateStatus, NoUpdate), n)
	t.ByType.Add(cmp.Or(d.Type, Unknown), n)
	t.ByOS.Add(OS{cmp.Or(d.OSVersion, Unknown), cmp.Or(d.OSVariant, Unknown)}, n)
	t.BySupervisor.Add(cmp.Or(d.SupervisorVersion, Unknown), n)
	if d.Online {
		t.Online += n
	}
	if d.Frozen {
		t.Frozen += n
	}
	t.countConnectivity(d, n)
	t.countReleases(d, n)
	t.countServices(d, n)
}

func (t *Tally) countConnectivity(d *Device, n int) {
	switch since := d.ConnectivityChanged(); {
	case d.Connected():
		t.Connected += n
		if d.Undervolted {
			t.Undervolted += n
		}
	case d.NeverConnected():
		t.NeverConnected += n
	case since != 0:
		t.Disconnected.Add(since, n)
	}
}

func (t *Tally) countReleases(d *Device, n int) {
	if d.RunningRelease == 0 {
		t.WithoutRelease += n
	} else {
		t.ByRelease.Add(d.RunningRelease, n)
	}
	if d.TargetRelease != 0 {
		t.Targeted += n
		if d.OnTarget() {
			t.OnTarget += n
		}
	}
	if d.PinnedRelease != 0 {
		t.Pinned += n
	}
}

// countServices counts a device once for each state of a service. Services are in the order of names and states, but for
// those that lack either.
func (t *Tally) countServices(d *Device, n int) {
	services := d.Services()
	for i, s := range services {
		state := stateOf(s)
		again := false
		for _, other := range services[:i] {
			again = again || stateOf(other) == state
		}
		if !again {
			t.ByService.Add(state, n)
		}
	}
}

func stateOf(s Service) ServiceState {
	return ServiceState{cmp.Or(s.Name, Unknown), cmp.Or(s.Status, Unknown)}
}
