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

// Metrics of fleets. They are always exported, even if metrics of single devices are not.

// fleet is a fleet with the sums over its devices.
type fleet struct {
	*balena.Fleet
	view *view
	balena.Tally
	// inService holds the sums over the devices in service.
	inService balena.InService
}

// inMaintenance returns the number of devices that would be in service without their maintenance or that of the fleet.
func (f *fleet) inMaintenance() int {
	if f.Archived {
		return 0
	}
	return f.InService(balena.Forever).Devices - f.inService.Devices
}

// now returns the time of the snapshot.
func (v *view) now() balena.Instant { return balena.Instant(v.Time.UnixMilli()) }

// onlyCloud returns a value that only balenaCloud has, and [none] on other servers.
func (v *view) onlyCloud(value float64) float64 { return onlyIf(v.CloudFields, value) }

// newView sums up the devices of a snapshot. It takes the sums of the previous view, which must not be used afterwards,
// and applies the differences between the snapshots. previous may be nil.
func newView(s *balena.Snapshot, previous *view) *view {
	v := &view{
		Snapshot: s, byID: make(map[int64]*fleet, len(s.Fleets)), fleets: make([]fleet, len(s.Fleets)),
		osRelease: remembered(s.System.OSRelease),
		supervisorRelease: remembered(func(v supervisorVersion) *balena.SystemRelease {
			return s.System.SupervisorRelease(v.deviceType, v.version)
		}),
	}
	for i := range v.fleets {
		f := &v.fleets[i]
		f.Fleet, f.view = &s.Fleets[i], v
		v.byID[f.ID] = f
	}
	var previousDevices balena.Devices
	if previous != nil {
		previousDevices = previous.Devices
		for i := range previous.fleets {
			if f := v.byID[previous.fleets[i].ID]; f != nil {
				f.Tally = previous.fleets[i].Tally
			}
		}
	}
	for before, after := range s.Devices.Differences(previousDevices) {
		if before != nil && v.byID[before.FleetID] != nil {
			v.byID[before.FleetID].Remove(before)
		}
		if after != nil {
			v.byID[after.FleetID].Add(after)
			v.countImplausible(before, after)
		}
	}
	now := v.now()
	for i := range v.fleets {
		if f := &v.fleets[i]; !f.Absent(now) {
			f.inService = f.InService(now)
		}
	}
	return v
}

// addStates adds a sample for each known state, zeros included, and for each other state that devices are in, in alphabetical
// order. labels are the values of the labels before the state.
func addStates(out *samples, known []string, found balena.Counts[string], labels ...string) {
	states := slices.AppendSeq(slices.Clone(known), maps.Keys(found))
	slices.Sort(states)
	labels = append(labels, "")
	for _, state := range slices.Compact(states) {
		labels[len(labels)-1] = state
		out.add(float64(found[state]), labels...)
	}
}

var fleetKind = kind[fleet]{
	labels:   []string{"fleet"},
	all:      func(v *view) iter.Seq[fleet] { return slices.Values(v.fleets) },
	identity: func(f *fleet, values []string) []string { return append(values, f.Slug) },
}

// countIf returns the number of devices that were counted by something that meets a condition.
func countIf[K comparable](found balena.Counts[K], condition func(K) bool) (n int) {
	for key, devices := range found {
		if condition(key) {
			n += devices
		}
	}
	return n
}

// number returns a gauge of a number of devices.
func number(name, help, source string, value func(*fleet) int) family[fleet] {
	return gauge(name, help, source, func(f *fleet) float64 { return float64(value(f)) })
}

func fleetTable(o Options) anyTable {
	return fleetKind.table("Fleets", "1 per fleet",
		labeled("balena_fleet_info", "Facts about the fleet that rarely change.",
			"application.id, app_name, uuid, organization.handle, is_for__device_type, is_archived",
			[]string{"fleet_id", "fleet_name", "fleet_uuid", "organization", "device_type", "cpu_architecture", "archived"},
			func(f *fleet, out *samples) {
				out.add(1, strconv.FormatInt(f.ID, 10), f.Name, f.UUID, f.Organization, f.DeviceType, f.CPUArchitecture, strconv.FormatBool(f.Archived))
			}),
		gauge("balena_fleet_created_timestamp_seconds", "When the fleet was created.", "application.created_at",
			func(f *fleet) float64 { return f.Created.Seconds() }),
		number("balena_fleet_devices", "Devices in the fleet.", "device",
			func(f *fleet) int { return f.Devices }),
		number("balena_fleet_devices_online", "Devices whose VPN is up.", "device.is_online",
			func(f *fleet) int { return f.Online }),
		number("balena_fleet_devices_connected", "Connected devices: the VPN is up, or the API heartbeat is online or timeout.", "device.is_online, api_heartbeat_state",
			func(f *fleet) int { return f.Connected }),
		number("balena_fleet_devices_in_service", "Devices in service. They are expected to work: they are not inactive, not frozen and not in maintenance, and their fleet is not archived.",
			"device.overall_status, is_active (balenaCloud), is_frozen (balenaCloud), device_tag, application_tag, application.is_archived",
			func(f *fleet) int { return f.inService.Devices }),
		number("balena_fleet_devices_in_service_connected", "Connected devices in service.", "device.is_online, api_heartbeat_state",
			func(f *fleet) int { return f.inService.Connected }),
		number("balena_fleet_devices_never_connected", "Devices in service that have not connected since their registration.", "device.last_connectivity_event, api_heartbeat_state",
			func(f *fleet) int { return f.inService.NeverConnected }),
		labeled("balena_fleet_devices_disconnected_longer_than", "Devices in service that were connected before and have been disconnected for at least this number of seconds.",
			"device.last_connectivity_event, changed_api_heartbeat_state_on__date (v7)", []string{"seconds"},
			func(f *fleet, out *samples) {
				now := f.view.now().Seconds()
				for _, threshold := range o.DisconnectedThresholds {
					n := countIf(f.inService.Disconnected, func(since balena.Instant) bool {
						return now-since.Seconds() >= float64(threshold)
					})
					out.add(float64(n), strconv.Itoa(threshold))
				}
			}).series(strconv.Itoa(len(o.DisconnectedThresholds))+" per fleet"),
		number("balena_fleet_devices_undervolted", "Connected devices that reported an undervoltage since their last boot.", "device.is_undervolted",
			func(f *fleet) int { return f.Undervolted }),
		number("balena_fleet_devices_os_update_failed", "Devices in service whose last host OS update failed. The supervisor resets this state when it starts.", "device.provisioning_state",
			func(f *fleet) int { return f.inService.OSUpdateFailed }),
		gauge("balena_fleet_devices_frozen", "Devices that are frozen because the plan does not cover them.", "device.is_frozen",
			func(f *fleet) float64 { return f.view.onlyCloud(float64(f.Frozen)) }).on("balenaCloud"),
		gauge("balena_fleet_devices_active", "Active devices: neither deactivated nor waiting for activation.", "device.is_active",
			func(f *fleet) float64 { return f.view.onlyCloud(float64(f.Devices - f.Deactivated)) }).on("balenaCloud"),
		labeled("balena_fleet_devices_by_status", "Devices by overall status. The statuses of v6 are converted to those of v7.",
			"device.overall_status", []string{"status"},
			func(f *fleet, out *samples) { addStates(out, balena.DeviceStatuses, f.ByStatus) }).
			series("7 per fleet, and 1 per unrecognized status in use"),
		labeled("balena_fleet_devices_by_heartbeat_state", "Devices by state of the API heartbeat.",
			"device.api_heartbeat_state", []string{"state"},
			func(f *fleet, out *samples) { addStates(out, balena.HeartbeatStates, f.ByHeartbeat) }).
			series("4 per fleet, and 1 per unrecognized state in use"),
		labeled("balena_fleet_devices_by_update_status", "Devices by status of the last update: none if there was no update, unknown if the supervisor is older than 16.7.0 and does not report it.",
			"device.update_status", []string{"update_status"},
			func(f *fleet, out *samples) { addStates(out, balena.UpdateStatuses, f.ByUpdate) }).
			series("7 per fleet, and 1 per unrecognized status in use"),
		labeled("balena_fleet_devices_by_device_type", "Devices by device type.",
			"device.is_of__device_type.slug", []string{"device_type"},
			func(f *fleet, out *samples) { addStates(out, nil, f.ByType) }).series("1 per device type in the fleet"),
		labeled("balena_fleet_devices_by_os_version", "Devices by version and variant of the host OS. A label is unknown if the device does not report the value.",
			"device.os_version, os_variant", []string{"os_version", "os_variant"},
			func(f *fleet, out *samples) {
				ofAllTypes := balena.Counts[balena.OS]{}
				for os, n := range f.ByOS {
					ofAllTypes.Add(balena.OS{Version: os.Version, Variant: os.Variant}, n)
				}
				for _, os := range slices.SortedFunc(maps.Keys(ofAllTypes), func(a, b balena.OS) int {
					return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.Variant, b.Variant))
				}) {
					out.add(float64(ofAllTypes[os]), os.Version, os.Variant)
				}
			}).series("1 per version in the fleet"),
		labeled("balena_fleet_devices_by_supervisor_version", "Devices by version of the supervisor. The version is unknown if the device does not report it.",
			"device.supervisor_version", []string{"supervisor_version"},
			func(f *fleet, out *samples) { addStates(out, nil, f.BySupervisor) }).series("1 per version in the fleet"),
	)
}

// fleetName represents all fleets with the same name, which may belong to different organizations.
type fleetName struct {
	name   string
	online int
}

func fleetNames(v *view) iter.Seq[fleetName] {
	online := map[string]int{}
	for i := range v.fleets {
		online[v.fleets[i].Name] += v.fleets[i].Online
	}
	var names []fleetName
	for _, name := range slices.Sorted(maps.Keys(online)) {
		names = append(names, fleetName{name, online[name]})
	}
	return slices.Values(names)
}

// fleetNameTable has the metric of an earlier exporter. It is kept compatible with that exporter.
func fleetNameTable() anyTable {
	names := kind[fleetName]{
		labels:   []string{"fleet_name"},
		all:      fleetNames,
		identity: func(n *fleetName, values []string) []string { return append(values, n.name) },
	}
	return names.table("Fleets", "1 per fleet name",
		gauge("balena_devices_online", "Online devices by fleet name. Fleets with the same name in different organizations are summed.", "device.is_online",
			func(n *fleetName) float64 { return float64(n.online) }),
	)
}
