// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strconv"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Metrics of fleets, always exported. The sums are over the devices of the snapshot, whether or not
// metrics of single devices are exported.

// fleet is a fleet with the sums over its devices.
type fleet struct {
	*balena.Fleet
	view *view
	sums
}

// sums are what is counted of a fleet's devices.
type sums struct {
	devices, online, connected       int
	neverConnected, undervolted      int
	frozen                           int
	onTarget, pinned, withoutRelease int
	byStatus, byHeartbeat, byUpdate  counts[string]
	byType, bySupervisor             counts[string]
	byOS                             counts[osVersion]
	byRelease                        counts[int64]
	byService                        counts[serviceState]
	// disconnected are the devices that were connected once and are not, by the time since when.
	disconnected counts[balena.Instant]
}

type osVersion struct{ version, variant string }

// counts counts devices by something.
type counts[K comparable] map[K]int

// add counts a device, or so many of them, less than none as well.
func (c *counts[K]) add(key K, n int) {
	if *c == nil {
		*c = counts[K]{}
	}
	if (*c)[key] += n; (*c)[key] == 0 {
		delete(*c, key)
	}
}

// newView sums up the devices of a snapshot: those in which it differs from another one that was summed up
// before, on top of what that came to. before may be nil; its sums are used up.
func newView(s *balena.Snapshot, before *view) *view {
	v := &view{Snapshot: s, slugs: make(map[int64]string, len(s.Fleets)), fleets: make([]fleet, len(s.Fleets))}
	byID := make(map[int64]*fleet, len(s.Fleets))
	for i := range v.fleets {
		f := &v.fleets[i]
		f.Fleet, f.view = &s.Fleets[i], v
		byID[f.ID], v.slugs[f.ID] = f, f.Slug
	}
	var known balena.Devices
	if before != nil {
		known = before.Devices
		for i := range before.fleets {
			if f := byID[before.fleets[i].ID]; f != nil {
				f.sums = before.fleets[i].sums
			}
		}
	}
	for was, is := range s.Devices.Differences(known) {
		if was != nil && byID[was.FleetID] != nil {
			byID[was.FleetID].sum(was, -1)
		}
		if is != nil {
			byID[is.FleetID].sum(is, 1)
			v.countImplausible(was, is)
		}
	}
	v.names = namesOf(v.fleets)
	v.keys = keysOf(s.Keys)
	return v
}

// sum adds a device, or takes it away again: n is 1 or -1.
func (s *sums) sum(d *balena.Device, n int) {
	s.devices += n
	s.byStatus.add(cmp.Or(d.Status, balena.Unknown), n)
	s.byHeartbeat.add(cmp.Or(d.HeartbeatState, balena.Unknown), n)
	s.byUpdate.add(cmp.Or(d.UpdateStatus, balena.NoUpdate), n)
	s.byType.add(cmp.Or(d.Type, balena.Unknown), n)
	s.byOS.add(osVersion{cmp.Or(d.OSVersion, balena.Unknown), cmp.Or(d.OSVariant, balena.Unknown)}, n)
	s.bySupervisor.add(cmp.Or(d.SupervisorVersion, balena.Unknown), n)
	if d.Online {
		s.online += n
	}
	if d.Frozen {
		s.frozen += n
	}
	switch since := d.ConnectivityChanged(); {
	case d.Connected():
		s.connected += n
		if d.Undervolted {
			s.undervolted += n
		}
	case d.NeverConnected():
		s.neverConnected += n
	case since != 0:
		s.disconnected.add(since, n)
	}
	if d.RunningRelease == 0 {
		s.withoutRelease += n
	} else {
		s.byRelease.add(d.RunningRelease, n)
		if d.RunningRelease == d.TargetRelease {
			s.onTarget += n
		}
	}
	if d.PinnedRelease != 0 {
		s.pinned += n
	}
	for _, service := range states(d.Services()) {
		s.byService.add(serviceState{service.Name, service.Status}, n)
	}
}

// The states that are exported even when no device is in them, in alphabetical order as all labels are. A state that
// is not listed appears under its own name as soon as a device is in it.
var (
	deviceStatuses  = slices.Sorted(slices.Values(balena.DeviceStatuses))
	heartbeatStates = slices.Sorted(slices.Values(balena.HeartbeatStates))
	updateStatuses  = slices.Sorted(slices.Values(balena.UpdateStatuses))
)

// addStates adds a sample for each known state, zeros included, and for each state that devices are in.
func addStates(out *samples, known []string, found counts[string]) {
	for _, state := range known {
		out.add(float64(found[state]), state)
	}
	for _, state := range slices.Sorted(maps.Keys(found)) {
		if !slices.Contains(known, state) {
			out.add(float64(found[state]), state)
		}
	}
}

// addCounts adds a sample for each value that devices have.
func addCounts(out *samples, found counts[string]) { addStates(out, nil, found) }

func fleetIdentity(f *fleet, values []string) []string { return append(values, f.Slug) }

func fleets(v *view) iter.Seq[fleet] { return slices.Values(v.fleets) }

// number makes a gauge of a number of devices.
func number(name, help, source string, value func(*fleet) int) family[fleet] {
	return gauge(name, help, source, func(f *fleet) float64 { return float64(value(f)) })
}

func fleetTable(o Options) group {
	return &table[fleet]{
		group:    "Fleets",
		series:   "1 a fleet",
		labels:   []string{"fleet"},
		subjects: fleets, identity: fleetIdentity,
		families: []family[fleet]{
			{
				name:   "balena_fleet_info",
				help:   "Facts about the fleet that rarely change.",
				source: "application.id, app_name, uuid, organization.handle, is_for__device_type, is_archived",
				labels: []string{"fleet_id", "fleet_name", "fleet_uuid", "organization", "device_type", "cpu_architecture", "archived"},
				samples: func(f *fleet, out *samples) {
					out.add(1, strconv.FormatInt(f.ID, 10), f.Name, f.UUID, f.Organization, f.DeviceType, f.CPUArchitecture, strconv.FormatBool(f.Archived))
				},
			},
			gauge("balena_fleet_created_timestamp_seconds", "When the fleet was created.", "application.created_at",
				func(f *fleet) float64 { return f.Created.Seconds() }),
			number("balena_fleet_devices", "Devices in the fleet.", "device",
				func(f *fleet) int { return f.devices }),
			number("balena_fleet_devices_online", "Devices whose VPN is up.", "device.is_online",
				func(f *fleet) int { return f.online }),
			number("balena_fleet_devices_connected", "Devices that can be reached: VPN up, or API heartbeat online or timeout.", "device.is_online, api_heartbeat_state",
				func(f *fleet) int { return f.connected }),
			number("balena_fleet_devices_never_connected", "Devices that were registered and never seen since.", "device.last_connectivity_event, api_heartbeat_state",
				func(f *fleet) int { return f.neverConnected }),
			{
				name:   "balena_fleet_devices_disconnected_longer_than",
				help:   "Devices that were seen once and have not been connected for at least so many seconds.",
				source: "device.last_connectivity_event, changed_api_heartbeat_state_on__date (v7)",
				labels: []string{"seconds"},
				series: strconv.Itoa(len(o.DisconnectedThresholds)) + " a fleet",
				samples: func(f *fleet, out *samples) {
					now := balena.Instant(f.view.Time.UnixMilli()).Seconds()
					for _, threshold := range o.DisconnectedThresholds {
						n := 0
						for since, devices := range f.disconnected {
							if now-since.Seconds() >= float64(threshold) {
								n += devices
							}
						}
						out.add(float64(n), strconv.Itoa(threshold))
					}
				},
			},
			number("balena_fleet_devices_undervolted", "Connected devices that have seen too low a voltage since they booted.", "device.is_undervolted",
				func(f *fleet) int { return f.undervolted }),
			gauge("balena_fleet_devices_frozen", "Devices that are frozen, because the plan does not cover them.", "device.is_frozen",
				func(f *fleet) float64 {
					if !f.view.CloudFields {
						return none
					}
					return float64(f.frozen)
				}).on("balenaCloud"),
			{
				name:    "balena_fleet_devices_by_status",
				help:    "Devices by overall status, in the words of v7 on v6 too.",
				source:  "device.overall_status",
				labels:  []string{"status"},
				series:  "7 a fleet, and 1 for each status not known yet",
				samples: func(f *fleet, out *samples) { addStates(out, deviceStatuses, f.byStatus) },
			},
			{
				name:    "balena_fleet_devices_by_heartbeat_state",
				help:    "Devices by the state of their API heartbeat.",
				source:  "device.api_heartbeat_state",
				labels:  []string{"state"},
				series:  "4 a fleet, and 1 for each state not known yet",
				samples: func(f *fleet, out *samples) { addStates(out, heartbeatStates, f.byHeartbeat) },
			},
			{
				name:    "balena_fleet_devices_by_update_status",
				help:    "Devices by the status of their last update; none where there was no update.",
				source:  "device.update_status",
				labels:  []string{"update_status"},
				series:  "7 a fleet, and 1 for each status not known yet",
				samples: func(f *fleet, out *samples) { addStates(out, updateStatuses, f.byUpdate) },
			},
			{
				name:    "balena_fleet_devices_by_device_type",
				help:    "Devices by device type.",
				source:  "device.is_of__device_type.slug",
				labels:  []string{"device_type"},
				series:  "1 for each type in the fleet",
				samples: func(f *fleet, out *samples) { addCounts(out, f.byType) },
			},
			{
				name:   "balena_fleet_devices_by_os_version",
				help:   "Devices by version of the host OS; unknown where the device has not told.",
				source: "device.os_version, os_variant",
				labels: []string{"os_version", "os_variant"},
				series: "1 for each version in the fleet",
				samples: func(f *fleet, out *samples) {
					for _, os := range slices.SortedFunc(maps.Keys(f.byOS), func(a, b osVersion) int {
						return cmp.Or(cmp.Compare(a.version, b.version), cmp.Compare(a.variant, b.variant))
					}) {
						out.add(float64(f.byOS[os]), os.version, os.variant)
					}
				},
			},
			{
				name:    "balena_fleet_devices_by_supervisor_version",
				help:    "Devices by version of the supervisor; unknown where the device has not told.",
				source:  "device.supervisor_version",
				labels:  []string{"supervisor_version"},
				series:  "1 for each version in the fleet",
				samples: func(f *fleet, out *samples) { addCounts(out, f.bySupervisor) },
			},
		},
	}
}

// fleetName is all fleets of one name, which may be in several organizations.
type fleetName struct {
	name   string
	online int
}

func namesOf(fleets []fleet) []fleetName {
	online := map[string]int{}
	for i := range fleets {
		online[fleets[i].Name] += fleets[i].online
	}
	names := make([]fleetName, 0, len(online))
	for _, name := range slices.Sorted(maps.Keys(online)) {
		names = append(names, fleetName{name, online[name]})
	}
	return names
}

// fleetNameTable is the metric of the exporter that came before this one, and nothing else of it changes.
func fleetNameTable() group {
	return &table[fleetName]{
		group:    "Fleets",
		series:   "1 for each name of a fleet",
		labels:   []string{"fleet_name"},
		subjects: func(v *view) iter.Seq[fleetName] { return slices.Values(v.names) },
		identity: func(n *fleetName, values []string) []string { return append(values, n.name) },
		families: []family[fleetName]{
			gauge("balena_devices_online", "Devices online by name of the fleet; fleets of one name in several organizations are summed.", "device.is_online",
				func(n *fleetName) float64 { return float64(n.online) }),
		},
	}
}
