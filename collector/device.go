// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"iter"
	"strings"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Metrics of single devices. Hardware figures are exported only while a device is connected, because the API
// never clears them. The supervisor reports them at most every 300 seconds.

// device is a device of a view.
type device struct {
	*balena.Device
	view *view
}

func (d *device) fleet() *fleet { return d.view.byID[d.FleetID] }

const mebibyte = 1 << 20

// percent converts a percentage to a ratio.
func percent(v float64) float64 { return v / 100 }

// whileConnected returns the value if the device is connected, and [none] otherwise.
func (d *device) whileConnected(v float64) float64 { return onlyIf(d.Connected(), v) }

// updatePending reports whether a target release is set and its version differs from the running one. It returns
// [none] if the version of the target release is not known.
func (d *device) updatePending(target int64, running string) float64 {
	if target == 0 {
		return 0
	}
	version := d.view.Releases[target].Version
	return onlyIf(version != "", boolean(version != running))
}

// bareVersion returns "6.5.10" for "balenaOS 6.5.10", and "2.0.0+rev5" for "Resin OS 2.0.0+rev5 (prod)".
func bareVersion(os string) string {
	os = strings.TrimPrefix(os, "balenaOS ")
	os = strings.TrimPrefix(os, "Resin OS ")
	version, _, _ := strings.Cut(os, " ")
	return version
}

// state returns a family with one sample per subject, whose label is the current state of the subject. A subject without
// a state has no sample.
func state[T any](name, help, source, label string, value func(*T) string) family[T] {
	return labeled(name, help, source, []string{label}, func(s *T, out *samples) {
		if state := value(s); state != "" {
			out.add(1, state)
		}
	})
}

var deviceKind = kind[device]{
	labels: []string{"fleet", "uuid"},
	all: func(v *view) iter.Seq[device] {
		return func(yield func(device) bool) {
			for d := range v.Devices.All() {
				if !yield(device{d, v}) {
					return
				}
			}
		}
	},
	identity: func(d *device, values []string) []string { return append(values, d.fleet().Slug, d.UUID) },
}

func deviceTable(o Options) anyTable {
	return deviceKind.table("Devices", "1 per device",
		labeled("balena_device_info", "Facts about the device that rarely change. A label is unknown if the device does not report the value. --no-collector.device.name leaves device_name empty.",
			"device.device_name, is_of__device_type, os_version, os_variant, supervisor_version",
			[]string{"device_name", "device_type", "os_version", "os_variant", "supervisor_version"},
			func(d *device, out *samples) {
				name := d.Name
				if !o.DeviceNames {
					name = ""
				}
				out.add(1, name, cmp.Or(d.Type, balena.Unknown), cmp.Or(d.OSVersion, balena.Unknown), cmp.Or(d.OSVariant, balena.Unknown), cmp.Or(d.SupervisorVersion, balena.Unknown))
			}).inLongRuns(),
		labeled("balena_device_release_info", "The release that the device runs. A rollout changes the labels of this metric, not those of balena_device_info.",
			"device.is_running__release", []string{"commit", "release_version"},
			func(d *device, out *samples) {
				if d.RunningRelease != 0 {
					r := d.view.Releases[d.RunningRelease]
					out.add(1, cmp.Or(r.Commit, balena.Unknown), cmp.Or(r.Version, balena.Unknown))
				}
			}).series("1 per device that runs a release").inLongRuns(),
		gauge("balena_device_online", "Whether the device's VPN is up.", "device.is_online",
			func(d *device) float64 { return boolean(d.Online) }),
		gauge("balena_device_connected", "Whether the device is connected: the VPN is up, or the API heartbeat is online or timeout.", "device.is_online, api_heartbeat_state",
			func(d *device) float64 { return boolean(d.Connected()) }),
		gauge("balena_device_undervolted", "Whether the device reported an undervoltage since its last boot. Exported only while the device is connected.", "device.is_undervolted",
			func(d *device) float64 { return d.whileConnected(boolean(d.Undervolted)) }),
		gauge("balena_device_on_target_release", "Whether the device runs its target release. Exported only if the device has a target release.", "device.is_running__release, is_pinned_on__release, application.should_be_running__release",
			func(d *device) float64 {
				return onlyIf(d.TargetRelease != 0, boolean(d.RunningRelease == d.TargetRelease))
			}).inLongRuns(),
		gauge("balena_device_release_pinned", "Whether the device is pinned to a release.", "device.is_pinned_on__release",
			func(d *device) float64 { return boolean(d.PinnedRelease != 0) }).inLongRuns(),
		gauge("balena_device_web_accessible", "Whether the public URL of the device is enabled.", "device.is_web_accessible",
			func(d *device) float64 { return boolean(d.WebAccessible) }).inLongRuns(),
		gauge("balena_device_frozen", "Whether the device is frozen because the plan does not cover it.", "device.is_frozen",
			func(d *device) float64 { return d.view.onlyCloud(boolean(d.Frozen)) }).on("balenaCloud").inLongRuns(),
		gauge("balena_device_active", "Whether the device is active: neither deactivated nor waiting for activation.", "device.is_active",
			func(d *device) float64 { return d.view.onlyCloud(boolean(!d.Deactivated)) }).on("balenaCloud").inLongRuns(),
		gauge("balena_device_out_of_service", "The device is not expected to work (1), because it is inactive or frozen, or its fleet is archived. Maintenance is exported separately.",
			"device.overall_status, is_active (balenaCloud), is_frozen (balenaCloud), application.is_archived",
			func(d *device) float64 { return onlyIf(d.OutOfService() || d.fleet().Archived, 1) }).
			series("1 per device that is out of service").inLongRuns(),
		state("balena_device_status", "The overall status of the device. The statuses of v6 are converted to those of v7.", "device.overall_status", "status",
			func(d *device) string { return cmp.Or(d.Status, balena.Unknown) }),
		state("balena_device_heartbeat_state", "The state of the device's API heartbeat.", "device.api_heartbeat_state", "state",
			func(d *device) string { return cmp.Or(d.HeartbeatState, balena.Unknown) }),
		state("balena_device_update_status", "The status of the device's last update: none if there was no update, unknown if the supervisor is older than 16.7.0 and does not report it.",
			"device.update_status, supervisor_version", "update_status",
			func(d *device) string { return d.UpdateState() }).inLongRuns(),
		gauge("balena_device_update_status_change_timestamp_seconds", "When the device last reported an update status, including the report after a restart. Supervisors older than 16.7.0 do not report it.", "device.last_update_status_event",
			func(d *device) float64 { return d.UpdateChanged.Seconds() }).inLongRuns(),
		gauge("balena_device_connectivity_change_timestamp_seconds", "When the device last connected or disconnected, by VPN or by API heartbeat.", "device.last_connectivity_event, changed_api_heartbeat_state_on__date (v7)",
			func(d *device) float64 { return d.ConnectivityChanged().Seconds() }),
		gauge("balena_device_created_timestamp_seconds", "When the device was registered.", "device.created_at",
			func(d *device) float64 { return d.Created.Seconds() }).inLongRuns(),
		gauge("balena_device_modified_timestamp_seconds", "When the device was last modified in the API.", "device.modified_at",
			func(d *device) float64 { return d.Modified.Seconds() }),
		gauge("balena_device_update_progress_ratio", "Progress of the application update. Exported only during an update.", "device.overall_progress",
			func(d *device) float64 { return percent(d.figure(balena.UpdateProgress)) }).inLongRuns(),
		state("balena_device_os_update_state", "The state of the host OS update. Exported during an update, and after a failed update until the supervisor starts.",
			"device.provisioning_state", "state",
			func(d *device) string { return d.OSUpdateState() }).series("1 per device with a host OS update").inLongRuns(),
		gauge("balena_device_os_update_progress_ratio", "Progress of the host OS update. Exported only together with balena_device_os_update_state.",
			"device.provisioning_progress",
			func(d *device) float64 {
				return onlyIf(d.OSUpdateState() != "", percent(d.figure(balena.ProvisioningProgress)))
			}).series("1 per device with a host OS update").inLongRuns(),
		gauge("balena_device_cpu_usage_ratio", "CPU usage, averaged over all cores. Exported only while the device is connected.", "device.cpu_usage",
			func(d *device) float64 { return d.whileConnected(percent(d.figure(balena.CPUUsage))) }),
		gauge("balena_device_cpu_temperature_celsius", "CPU temperature. Exported only while the device is connected. The value 0 is not exported, because devices without a sensor report it.", "device.cpu_temp",
			func(d *device) float64 { return d.whileConnected(d.Temperature().Float()) }),
		gauge("balena_device_memory_used_bytes", "Used memory. Exported only while the device is connected.", "device.memory_usage",
			func(d *device) float64 { return d.whileConnected(d.figure(balena.MemoryUsed) * mebibyte) }),
		gauge("balena_device_memory_size_bytes", "Total memory. Exported only while the device is connected.", "device.memory_total",
			func(d *device) float64 { return d.whileConnected(d.figure(balena.MemorySize) * mebibyte) }),
		gauge("balena_device_storage_used_bytes", "Used storage on the data partition. Exported only while the device is connected.", "device.storage_usage",
			func(d *device) float64 { return d.whileConnected(d.figure(balena.StorageUsed) * mebibyte) }),
		gauge("balena_device_storage_size_bytes", "Size of the data partition. Exported only while the device is connected.", "device.storage_total",
			func(d *device) float64 { return d.whileConnected(d.figure(balena.StorageSize) * mebibyte) }),
		gauge("balena_device_os_update_pending", "Whether the host OS has a target version that differs from the running version.", "device.should_be_operated_by__release, os_version",
			func(d *device) float64 { return d.updatePending(d.OSTarget, bareVersion(d.OSVersion)) }).inLongRuns(),
		gauge("balena_device_supervisor_update_pending", "Whether the supervisor has a target version that differs from the running version.", "device.should_be_managed_by__release, supervisor_version",
			func(d *device) float64 {
				return onlyIf(d.view.APIVersion != balena.V6, d.updatePending(d.SupervisorTarget, d.SupervisorVersion))
			}).on("v7").inLongRuns(),
	)
}
