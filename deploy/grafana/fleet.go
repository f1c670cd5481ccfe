// SPDX-License-Identifier: Apache-2.0

package grafana

import "strings"

// one matches the selected fleet.
const one = `{fleet="$fleet"}`

// ofFleet returns an expression for a metric of the selected fleet.
func ofFleet(metric string) string { return "max by (fleet) (" + metric + one + ")" }

// ofFleetBy returns an expression for a metric of the selected fleet, by labels.
func ofFleetBy(metric, labels string) string { return "max by (" + labels + ") (" + metric + one + ")" }

// ofDevices returns an expression for a metric of each device of the selected fleet.
func ofDevices(metric string) string { return "max by (fleet, uuid) (" + metric + one + ")" }

// named adds the label device_name to an expression for devices. If several exporters export a device, the name of one
// of them is used, because the names may differ while a device is renamed.
func named(expr string) string {
	return "(" + expr + ") * on (uuid) group_left (device_name) topk by (uuid) (1, balena_device_info" + one + ")"
}

// ofOS returns an expression for each version of the host OS on each device type of the selected fleet, with a metric of one
// of its devices and labels of this metric. Devices with the same version run the same release, so one device is enough.
func ofOS(metric string, labels ...string) string {
	return "max by (" + strings.Join(append([]string{"device_type", "os_version"}, labels...), ", ") + ") (" +
		"topk by (device_type, os_version) (1, balena_device_info" + one + ")" +
		" * on (uuid) group_left (" + strings.Join(labels, ", ") + ") topk by (uuid) (1, " + metric + one + "))"
}

// ofOSLine returns an expression for each version of the host OS on each device type of the selected fleet, with a metric of
// the line of its release and labels of this metric.
func ofOSLine(metric string, labels ...string) string {
	return "max by (" + strings.Join(append([]string{"device_type", "os_version"}, labels...), ", ") + ") (" + ofOS("balena_device_os_line", "line") +
		" * on (device_type, line) group_left (" + strings.Join(labels, ", ") + ") topk by (device_type, line) (1, " + metric + "))"
}

// deviceColumns returns the columns of a table of devices.
func deviceColumns(columns ...column) []column {
	return append([]column{
		{title: "Device", label: "device_name", links: []options{rowToDevice}},
		{title: "UUID", label: "uuid", links: []options{rowToDevice, rowToBalena}, width: 110},
	}, columns...)
}

// oneDisconnected returns the number of devices of the selected fleet that have been disconnected for a time.
func oneDisconnected(seconds string) string {
	return `max by (fleet) (balena_fleet_devices_disconnected_longer_than{fleet="$fleet",seconds="` + seconds + `"})`
}

var (
	// oneInUse is the number of devices in use of the selected fleet.
	oneInUse = inUse(ofFleet, oneDisconnected)
	// disconnectedFor is the time for which each disconnected device of the selected fleet has been disconnected.
	disconnectedFor = "((time() - " + ofDevices("balena_device_connectivity_change_timestamp_seconds") + ") and on (uuid) (" + ofDevices("balena_device_connected") + " == 0))"
)

func fleetDashboard() *Dashboard {
	all, connected, inService := ofFleet("balena_fleet_devices"), ofFleet("balena_fleet_devices_connected"), ofFleet("balena_fleet_devices_in_service")
	devices := func(title, description, number, unit string, gauge, descending bool, expr string) *Panel {
		return table(title, description, number, descending,
			deviceColumns(column{title: number, query: named(expr), unit: unit, gauge: gauge, width: 140})...)
	}
	worst := func(title, description, number, unit string, gauge bool, expr string) *Panel {
		return devices(title, description, number, unit, gauge, true, "topk($top, "+expr+")")
	}
	onMap := " and on (uuid) topk(2000, " + ofDevices("balena_device_latitude_degrees") + ")"
	return newDashboard(
		"balena-fleet", "balena / Fleet", "One fleet: devices by status, rollout of releases, versions, and devices with problems.",
		[]*Variable{datasourceVariable, organizationVariable, tagVariable, tagValueVariable, fleetVariable(""), topVariable(), balenaVariable, lostVariable},
		row{height: 4, panels: []*Panel{
			stat("Devices", "All devices of the fleet.", all, "short"),
			stat("Connected", "Share of the devices in use that are connected. "+connectedMeans+" "+inUseMeans, share(ofFleet("balena_fleet_devices_in_service_connected"), oneInUse), "percentunit").thresholds(goodShare),
			stat("Online", "Share of the connected devices that are online. "+onlineMeans, share(ofFleet("balena_fleet_devices_online"), connected), "percentunit").thresholds(goodShare),
			stat("Operational", "Share of the connected devices that are operational. "+operationalMeans,
				share(`max by (fleet) (balena_fleet_devices_by_status{fleet="$fleet",status="operational"})`, connected), "percentunit").thresholds(goodShare),
			stat("Disconnected for a day", "Devices in service that were connected before and have been disconnected for at least a day.", oneDisconnected("86400"), "short").thresholds(noneIsGood),
			stat("Lost", "Devices that are lost. "+lostMeans, oneDisconnected("$lost"), "short").thresholds(someIsBad),
			stat("Never connected", "Devices in service that have not connected since their registration.", ofFleet("balena_fleet_devices_never_connected"), "short").thresholds(someIsBad),
			stat("In service", "Devices that are in service. "+inServiceMeans, inService, "short"),
			stat("Healthy", "Share of the devices in service that are healthy. "+healthyMeans, share(ofFleet("balena_fleet_devices_healthy"), inService), "percentunit").thresholds(goodShare),
			stat("Undervolted", "Connected devices that reported an undervoltage since their last boot.", ofFleet("balena_fleet_devices_undervolted"), "short").thresholds(noneIsGood),
		}},
		row{height: 9, panels: []*Panel{
			areas("Devices by status", "Devices by overall status. "+operationalMeans, over(ofFleetBy("balena_fleet_devices_by_status", "status"), "{{status}}")).colors(statusColors).wide(),
			areas("Devices by API heartbeat", "Devices by state of the API heartbeat. After a device loses power, its heartbeat remains online for 15 to 22 minutes.",
				over(ofFleetBy("balena_fleet_devices_by_heartbeat_state", "state"), "{{state}}")).colors(heartbeatColors),
			alertsTable("Firing alerts on the fleet and its devices.", `fleet="$fleet"`),
		}},
		row{title: "Releases", height: 4, panels: []*Panel{
			name("Target release", "The target release of devices that are not pinned.", ofFleetBy("balena_fleet_target_release_info", "release_version, commit"), "release_version"),
			stat("Target release created", "When the target release was created.", "1000 * "+ofFleet("balena_fleet_target_release_created_timestamp_seconds"), "dateTimeFromNow"),
			stat("On target release", "Share of all devices that are on their target release. "+onTargetMeans, share(ofFleet("balena_fleet_devices_on_target_release"), all), "percentunit").thresholds(goodShare),
			stat("Tracks latest release", "Whether the target release is always the latest successful release. Otherwise the fleet is pinned to a release.", ofFleet("balena_fleet_tracks_latest_release"), "none").
				words("no", "text", "yes", "text"),
			stat("Pinned devices", "Devices that are pinned to a release.", ofFleet("balena_fleet_devices_pinned"), "short"),
			stat("On an invalidated release", "Devices that run a release that was invalidated.", ofFleet("balena_fleet_devices_on_invalidated_release"), "short").thresholds(someIsBad),
			stat("On a draft release", "Devices that run a draft release.", ofFleet("balena_fleet_devices_on_draft_release"), "short"),
			stat("Without a release", "Devices that do not run a release.", ofFleet("balena_fleet_devices_without_release"), "short"),
			name("Build of the latest release", "Status of the latest release build, including failed builds.", ofFleetBy("balena_fleet_latest_release_status", "status")+" == 1", "status"),
		}},
		row{height: 9, panels: []*Panel{
			areas("Devices by release", "Devices by running release.",
				over(ofFleetBy("balena_fleet_devices_by_release", "release_version, commit"), "{{release_version}}")),
			lines("Rollout progress", "Share of all devices that are on their target release, and share of devices that are pinned.", "percentunit",
				over(share(ofFleet("balena_fleet_devices_on_target_release"), all), "on target release"), over(share(ofFleet("balena_fleet_devices_pinned"), all), "pinned")).ratio(),
			areas("Devices by update status", "Devices by status of the last update. Devices with the status rejected or aborted did not install the release.",
				over(ofFleetBy("balena_fleet_devices_by_update_status", "update_status"), "{{update_status}}")).colors(updateColors),
		}},
		row{title: "Devices with problems", height: 10, panels: []*Panel{
			devices("Newly disconnected", "Devices that are disconnected and not lost, the most recent first. "+connectedMeans+" "+lostMeans, "Disconnected for", "s", false, false,
				"bottomk($top, "+disconnectedFor+" < $lost)"),
			worst("Lost", "Lost devices, the longest disconnected first. "+lostMeans, "Disconnected for", "s", false, disconnectedFor+" >= $lost"),
		}},
		row{height: 10, panels: []*Panel{
			table("Connected, not operational", "Devices that are connected, but not operational, updating or being configured, by the time since the last change of their connectivity. "+operationalMeans, "Since", true, deviceColumns(
				column{title: "Status", label: "status", width: 170},
				column{title: "Since", query: named(`topk($top, max by (fleet, uuid, status) (balena_device_status{fleet="$fleet",status!~"operational|updating|configuring|post-provisioning|inactive|disconnected"})` +
					" * on (uuid) group_left () (time() - " + ofDevices("balena_device_connectivity_change_timestamp_seconds") + "))"), unit: "s", width: 120},
			)...),
			table("Not on target release", "Devices that are not on their target release, sorted by the time of the last update status, the oldest first.", "Update status changed", false, deviceColumns(
				column{title: "Release", label: "release_version", query: behind("max by (fleet, uuid, release_version) (balena_device_release_info" + one + ")"), width: 130},
				column{title: "Update status", label: "update_status", query: behind("max by (fleet, uuid, update_status) (balena_device_update_status" + one + ")"), width: 130},
				column{title: "Update status changed", query: named("1000 * bottomk($top, " + ofDevices("balena_device_update_status_change_timestamp_seconds") + " and on (uuid) (" + ofDevices("balena_device_on_target_release") + " == 0))"), unit: "dateTimeFromNow", width: 170},
			)...),
		}},
		row{height: 10, panels: []*Panel{
			worst("Highest storage usage", "Connected devices with the highest usage of the data partition.", "Storage", "percentunit", true,
				share(ofDevices("balena_device_storage_used_bytes"), ofDevices("balena_device_storage_size_bytes"))),
			worst("Highest memory usage", "Connected devices with the highest memory usage.", "Memory", "percentunit", true,
				share(ofDevices("balena_device_memory_used_bytes"), ofDevices("balena_device_memory_size_bytes"))),
			worst("Highest CPU temperature", "Connected devices with the highest CPU temperature. Most boards throttle the CPU from 80 to 85 °C.", "Temperature", "celsius", false,
				ofDevices("balena_device_cpu_temperature_celsius")),
			worst("Highest CPU usage", "Connected devices with the highest CPU usage, averaged over all cores.", "CPU", "percentunit", true, ofDevices("balena_device_cpu_usage_ratio")),
		}},
		row{title: "Reliability", height: 10, panels: []*Panel{
			lines("Availability over 30 days", availableMeans+" The alert rules record this value.", "percentunit",
				over("max by (fleet) (balena:fleet_availability:ratio30d"+one+")", "availability")).ratio(),
			lines("Reconnected devices", "Share of the devices in service whose VPN reconnected within an hour. If many devices reconnect at once, the server was restarted or rebalanced. The alert rules record this value.", "percentunit",
				over("max by (fleet) (balena:fleet_reconnected_devices:ratio1h"+one+")", "reconnected")).ratio(),
			worst("Most reconnects", "Devices with the most VPN reconnects within a day. The alert rules record this value.", "Within a day", "short", false, ofDevices("balena:device_reconnects:count1d")),
		}},
		row{height: 10, panels: []*Panel{
			worst("Services not running", "Devices with the most services of the target release that are not running, including exited services.", "Services", "short", false,
				ofDevices("balena_device_services")+" - "+ofDevices("balena_device_services_running")+" > 0"),
			table("OS updates", "Devices with a running or failed host OS update. A failed update is listed until the supervisor starts.", "Progress", false, deviceColumns(
				column{title: "State", label: "state", width: 120},
				column{title: "Progress", query: named("topk($top, max by (fleet, uuid, state) (balena_device_os_update_state" + one + ") * on (uuid) group_left () " + ofDevices("balena_device_os_update_progress_ratio") + ")"), unit: "percentunit", width: 120},
			)...),
		}},
		row{title: "Versions", height: 9, panels: []*Panel{
			bars("OS versions", "Devices by version of the host OS.", now("topk(15, "+ofFleetBy("balena_fleet_devices_by_os_version", "os_version, os_variant")+")", "{{os_version}} {{os_variant}}")),
			bars("Supervisor versions", "Devices by version of the supervisor.", now("topk(15, "+ofFleetBy("balena_fleet_devices_by_supervisor_version", "supervisor_version")+")", "{{supervisor_version}}")),
			bars("Device types", "Devices by device type.", now("topk(15, "+ofFleetBy("balena_fleet_devices_by_device_type", "device_type")+")", "{{device_type}}")),
		}},
		row{height: 9, panels: []*Panel{
			table("OS releases", "Versions of the host OS on the devices of the fleet, with data of the release that the server publishes for the version. Releases behind: newer releases that are published for the device type. A custom build has no release; without a server that publishes releases, as balenaCloud does, no version has one.",
				"Releases behind", true,
				column{title: "Device type", label: "device_type"},
				column{title: "OS version", label: "os_version"},
				column{title: "Line", label: "line", query: ofOS("balena_device_os_line", "line"), width: 110},
				column{title: "Devices", query: "count by (device_type, os_version) (topk by (uuid) (1, balena_device_info" + one + "))", unit: "short", width: 100},
				column{title: "Releases behind", query: ofOS("balena_device_os_releases_behind"), unit: "short", width: 140},
				column{title: "Age", query: "time() - " + ofOS("balena_device_os_release_created_timestamp_seconds"), unit: "s", colors: osAge, width: 120},
				column{title: "Invalidated", query: ofOS("balena_device_os_release_invalidated"), unit: "bool_yes_no", colors: someIsBad, width: 110},
				column{title: "End of support", query: "1000 * " + ofOSLine("balena_os_line_end_of_life_timestamp_seconds"), unit: "dateTimeFromNow", width: 150},
				column{title: "Phase", label: "phase", query: ofOSLine("balena_os_line_phase", "phase"), states: phaseColors, width: 120},
			).empty("Needs the metrics of devices, which --no-collector.device leaves out."),
		}},
		row{title: "Map", height: 14, panels: []*Panel{
			table("Devices on a map", "Up to 2,000 devices by location and overall status. Locations are available only on balenaCloud, and if the exporter runs with --collector.device.location.", "UUID", false,
				column{title: "UUID", label: "uuid"},
				column{title: "Status", label: "status", query: "max by (fleet, uuid, status) (balena_device_status" + one + " == 1)" + onMap},
				column{title: "Latitude", query: "topk(2000, " + ofDevices("balena_device_latitude_degrees") + ")"},
				column{title: "Longitude", query: ofDevices("balena_device_longitude_degrees") + onMap},
			).mapped("Latitude", "Longitude", "Status", statusColors),
		}},
	).annotate(firing(`fleet="$fleet"`, "fleet", "{{fleet}}"), rollouts(`fleet="$fleet"`, true))
}

// behind selects the devices in the table of devices that are not on their target release.
func behind(expr string) string {
	return expr + " and on (uuid) bottomk($top, " + ofDevices("balena_device_update_status_change_timestamp_seconds") +
		" and on (uuid) (" + ofDevices("balena_device_on_target_release") + " == 0))"
}
