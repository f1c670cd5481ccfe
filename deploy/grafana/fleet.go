// SPDX-License-Identifier: Apache-2.0

package grafana

// one selects the fleet that is chosen.
const one = `{fleet="$fleet"}`

// ofFleet is a number of the chosen fleet.
func ofFleet(metric string) string { return "max by (fleet) (" + metric + one + ")" }

// ofFleetBy is a number of the chosen fleet by labels.
func ofFleetBy(metric, labels string) string { return "max by (" + labels + ") (" + metric + one + ")" }

// ofDevices is a number of each device of the chosen fleet.
func ofDevices(metric string) string { return "max by (fleet, uuid) (" + metric + one + ")" }

// named puts the device's name to a number of each device. Of the exporters that know a device, one says
// its name: while it is renamed they may differ.
func named(expr string) string {
	return "(" + expr + ") * on (uuid) group_left (device_name) topk by (uuid) (1, balena_device_info" + one + ")"
}

// deviceColumns begin a table of devices.
func deviceColumns(columns ...column) []column {
	return append([]column{
		{field: "device_name", title: "Device", links: []options{link("Open the device", toDevice)}},
		{field: "uuid", title: "UUID", links: []options{link("Open the device", toDevice), link(balenaLink, toBalena)}, width: 110},
	}, columns...)
}

// oneDisconnected is how many devices of the chosen fleet have been disconnected for a time.
func oneDisconnected(seconds string) string {
	return `max by (fleet) (balena_fleet_devices_disconnected_longer_than{fleet="$fleet",seconds="` + seconds + `"})`
}

// oneInUse is how many devices of the chosen fleet are in use.
func oneInUse() string {
	return "(" + ofFleet("balena_fleet_devices_in_service") + " - " + ofFleet("balena_fleet_devices_never_connected") +
		" - (" + oneDisconnected("$lost") + " or 0 * " + ofFleet("balena_fleet_devices_in_service") + "))"
}

// disconnectedFor is for how long each disconnected device of the chosen fleet has been so.
func disconnectedFor() string {
	return "((time() - " + ofDevices("balena_device_connectivity_change_timestamp_seconds") + ") and on (uuid) (" + ofDevices("balena_device_connected") + " == 0))"
}

func fleetDashboard() *Dashboard {
	share := func(part string) string {
		return ofFleet(part) + " / (" + ofFleet("balena_fleet_devices") + " > 0)"
	}
	shareInUse := func(part string) string { return part + " / (" + oneInUse() + " > 0)" }
	shareConnected := func(part string) string { return part + " / (" + ofFleet("balena_fleet_devices_connected") + " > 0)" }
	devices := func(title, description, number, unit string, gauge, descending bool, expr string) *Panel {
		return table(title, description, number, descending,
			deviceColumns(column{field: value(""), title: number, unit: unit, gauge: gauge, width: 140}), rowsOf(named(expr)))
	}
	worst := func(title, description, number, unit string, gauge bool, expr string) *Panel {
		return devices(title, description, number, unit, gauge, true, "topk($top, "+expr+")")
	}
	onMap := " and on (uuid) topk(2000, " + ofDevices("balena_device_latitude_degrees") + ")"
	return newDashboard(
		"balena-fleet", "balena / Fleet", "One fleet: its devices by status, the rollout of releases, versions, and the devices in trouble.",
		[]*Variable{datasourceVariable(), organizationVariable(), tagVariable(), tagValueVariable(), fleetVariable(""), topVariable(), balenaVariable(), lostVariable()},
		row{height: 4, panels: []*Panel{
			stat("Devices", "All devices of the fleet.", ofFleet("balena_fleet_devices"), "short"),
			stat("Connected", "Share of the devices in use that are connected. "+connectedMeans+" "+inUseMeans, shareInUse(ofFleet("balena_fleet_devices_in_service_connected")), "percentunit").goodShare(),
			stat("Online", "Share of the connected devices that are online. "+onlineMeans, shareConnected(ofFleet("balena_fleet_devices_online")), "percentunit").goodShare(),
			stat("Operational", "Share of the connected devices that are operational. "+operationalMeans,
				shareConnected(`max by (fleet) (balena_fleet_devices_by_status{fleet="$fleet",status="operational"})`), "percentunit").goodShare(),
			stat("Disconnected for a day", "Devices in service that have connected once and have not been connected for a day.", oneDisconnected("86400"), "short").thresholds("green", step{"orange", 1}),
			stat("Lost", "Devices that are lost. "+lostMeans, oneDisconnected("$lost"), "short").thresholds("text", step{"orange", 1}),
			stat("Never connected", "Devices in service that are registered and have never connected.", ofFleet("balena_fleet_devices_never_connected"), "short").thresholds("text", step{"orange", 1}),
			stat("In service", "Devices that are in service. "+inServiceMeans, ofFleet("balena_fleet_devices_in_service"), "short"),
			stat("Healthy", "Share of the devices in service that are healthy. "+healthyMeans, ofFleet("balena_fleet_devices_healthy")+" / ("+ofFleet("balena_fleet_devices_in_service")+" > 0)", "percentunit").goodShare(),
			stat("Undervolted", "Connected devices that have detected undervoltage since they booted.", ofFleet("balena_fleet_devices_undervolted"), "short").thresholds("green", step{"orange", 1}),
		}},
		row{height: 9, panels: []*Panel{
			areas("Devices by status", "Devices by overall status. "+operationalMeans, over(ofFleetBy("balena_fleet_devices_by_status", "status"), "{{status}}")).colors(statusColors).wide(),
			areas("Devices by API heartbeat", "Devices by the state of their API heartbeat. A device that loses power stays online here for 15 to 22 minutes.",
				over(ofFleetBy("balena_fleet_devices_by_heartbeat_state", "state"), "{{state}}")).colors(heartbeatColors),
			alertsTable("Alerts that fire for the fleet or for devices of it.", `fleet="$fleet"`),
		}},
		row{title: "Releases", height: 4, panels: []*Panel{
			name("Target release", "The release that devices should run unless they are pinned to another one.", ofFleetBy("balena_fleet_target_release_info", "release_version, commit"), "release_version"),
			stat("Target release created", "When the target release was created.", "1000 * "+ofFleet("balena_fleet_target_release_created_timestamp_seconds"), "dateTimeFromNow"),
			stat("On target release", "Share of all devices that are on their target release. "+onTargetMeans, share("balena_fleet_devices_on_target_release"), "percentunit").goodShare(),
			stat("Tracks latest release", "Whether the target release is always the latest good one. Otherwise the fleet is pinned to a release.", ofFleet("balena_fleet_tracks_latest_release"), "none").
				words("no", "text", "yes", "text"),
			stat("Pinned devices", "Devices that are pinned to a release.", ofFleet("balena_fleet_devices_pinned"), "short"),
			stat("On an invalidated release", "Devices that run a release that was invalidated.", ofFleet("balena_fleet_devices_on_invalidated_release"), "short").thresholds("text", step{"orange", 1}),
			stat("On a draft release", "Devices that run a draft release.", ofFleet("balena_fleet_devices_on_draft_release"), "short"),
			stat("Without a release", "Devices that run no release yet.", ofFleet("balena_fleet_devices_without_release"), "short"),
			name("Build of the latest release", "Status of the build of the latest release, which may have failed.", ofFleetBy("balena_fleet_latest_release_status", "status")+" == 1", "status"),
		}},
		row{height: 9, panels: []*Panel{
			areas("Devices by release", "Devices by the release they run.",
				over(ofFleetBy("balena_fleet_devices_by_release", "release_version, commit"), "{{release_version}}")),
			lines("Rollout progress", "Share of all devices that are on their target release, and of those that are pinned.", "percentunit",
				over(share("balena_fleet_devices_on_target_release"), "on target release"), over(share("balena_fleet_devices_pinned"), "pinned")).ratio(),
			areas("Devices by update status", "Devices by the status of their last update. Devices with the status rejected or aborted do not run what they should.",
				over(ofFleetBy("balena_fleet_devices_by_update_status", "update_status"), "{{update_status}}")).colors(updateColors),
		}},
		row{title: "Devices in trouble", height: 10, panels: []*Panel{
			devices("Newly disconnected", "Devices that are not connected and not lost, the latest first. "+connectedMeans+" "+lostMeans, "Disconnected for", "s", false, false,
				"bottomk($top, "+disconnectedFor()+" < $lost)"),
			worst("Lost", "Devices that are lost, the longest first. "+lostMeans, "Disconnected for", "s", false, disconnectedFor()+" >= $lost"),
		}},
		row{height: 10, panels: []*Panel{
			table("Connected, not operational", "Devices that are connected, not operational, and neither updating nor being set up, by the time since their connectivity changed. "+operationalMeans, "Since", true, deviceColumns(
				column{field: "status", title: "Status", width: 170},
				column{field: value(""), title: "Since", unit: "s", width: 120},
			), rowsOf(named(`topk($top, max by (fleet, uuid, status) (balena_device_status{fleet="$fleet",status!~"operational|updating|configuring|post-provisioning|inactive|disconnected"})`+
				" * on (uuid) group_left () (time() - "+ofDevices("balena_device_connectivity_change_timestamp_seconds")+"))"))),
			table("Not on target release", "Devices that are not on their target release, those first whose update status has not changed for the longest time.", "Update status changed", false, deviceColumns(
				column{field: "release_version", title: "Release", width: 130},
				column{field: "update_status", title: "Update status", width: 130},
				column{field: value("A"), title: "Update status changed", unit: "dateTimeFromNow", width: 170},
			),
				rowsOf(named("1000 * bottomk($top, "+ofDevices("balena_device_update_status_change_timestamp_seconds")+" and on (uuid) ("+ofDevices("balena_device_on_target_release")+" == 0))")),
				rowsOf(behind("max by (fleet, uuid, release_version) (balena_device_release_info"+one+")")),
				rowsOf(behind("max by (fleet, uuid, update_status) (balena_device_update_status"+one+")")),
			),
		}},
		row{height: 10, panels: []*Panel{
			worst("Highest storage usage", "Connected devices with the largest share of the data partition in use.", "Storage", "percentunit", true,
				ofDevices("balena_device_storage_used_bytes")+" / ("+ofDevices("balena_device_storage_size_bytes")+" > 0)"),
			worst("Highest memory usage", "Connected devices with the largest share of the memory in use.", "Memory", "percentunit", true,
				ofDevices("balena_device_memory_used_bytes")+" / ("+ofDevices("balena_device_memory_size_bytes")+" > 0)"),
			worst("Highest CPU temperature", "Connected devices with the highest CPU temperature. Most boards throttle the CPU from 80 to 85 °C.", "Temperature", "celsius", false,
				ofDevices("balena_device_cpu_temperature_celsius")),
			worst("Highest CPU usage", "Connected devices with the highest CPU usage, averaged over all cores.", "CPU", "percentunit", true, ofDevices("balena_device_cpu_usage_ratio")),
		}},
		row{title: "Reliability", height: 10, panels: []*Panel{
			lines("Availability over 30 days", availableMeans+" The alert rules record it.", "percentunit",
				over("max by (fleet) (balena:fleet_availability:ratio30d"+one+")", "availability")).ratio(),
			lines("Reconnected devices", "Share of the devices in service whose VPN connected anew within an hour. Many at once are a restart or re-balance of the server. The alert rules record it.", "percentunit",
				over("max by (fleet) (balena:fleet_reconnected_devices:ratio1h"+one+")", "reconnected")).ratio(),
			worst("Most reconnects", "Devices whose VPN connected anew most often within a day. The alert rules record it.", "Within a day", "short", false, ofDevices("balena:device_reconnects:count1d")),
		}},
		row{height: 10, panels: []*Panel{
			worst("Services that do not run", "Devices on which most services of the target release do not run, be it that they have exited.", "Services", "short", false,
				ofDevices("balena_device_services")+" - "+ofDevices("balena_device_services_running")+" > 0"),
			table("OS updates", "Devices whose host OS is updated, and those whose update failed, until their supervisor starts again.", "Progress", false, deviceColumns(
				column{field: "state", title: "State", width: 120},
				column{field: value(""), title: "Progress", unit: "percentunit", width: 120},
			), rowsOf(named("topk($top, max by (fleet, uuid, state) (balena_device_os_update_state"+one+") * on (uuid) group_left () "+ofDevices("balena_device_os_update_progress_ratio")+")"))),
		}},
		row{title: "Versions", height: 9, panels: []*Panel{
			bars("OS versions", "Devices by version of the host OS.", now("topk(15, "+ofFleetBy("balena_fleet_devices_by_os_version", "os_version, os_variant")+")", "{{os_version}} {{os_variant}}")),
			bars("Supervisor versions", "Devices by version of the supervisor.", now("topk(15, "+ofFleetBy("balena_fleet_devices_by_supervisor_version", "supervisor_version")+")", "{{supervisor_version}}")),
			bars("Device types", "Devices by device type.", now("topk(15, "+ofFleetBy("balena_fleet_devices_by_device_type", "device_type")+")", "{{device_type}}")),
		}},
		row{title: "Map", height: 14, panels: []*Panel{
			table("Devices on a map", "Devices by location and overall status, up to 2,000. They have a location on balenaCloud, and only if the exporter runs with --collector.device.location.", "UUID", false, []column{
				{field: "uuid", title: "UUID"},
				{field: "status", title: "Status"},
				{field: value("A"), title: "Latitude"},
				{field: value("B"), title: "Longitude"},
			},
				rowsOf("topk(2000, "+ofDevices("balena_device_latitude_degrees")+")"),
				rowsOf(ofDevices("balena_device_longitude_degrees")+onMap),
				rowsOf("max by (fleet, uuid, status) (balena_device_status"+one+" == 1)"+onMap),
			).mapped("Latitude", "Longitude", "Status", statusColors),
		}},
	).annotate(firing(`fleet="$fleet"`, "fleet", "{{fleet}}"), rollouts(`fleet="$fleet"`, true))
}

// behind keeps the devices that the table of those not on their target release lists.
func behind(expr string) string {
	return expr + " and on (uuid) bottomk($top, " + ofDevices("balena_device_update_status_change_timestamp_seconds") +
		" and on (uuid) (" + ofDevices("balena_device_on_target_release") + " == 0))"
}
