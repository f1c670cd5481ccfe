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

// top are the devices with the highest numbers, with their names.
func top(expr string) string { return named("topk($top, " + expr + ")") }

// deviceColumns begin a table of devices.
func deviceColumns(columns ...column) []column {
	return append([]column{
		{field: "device_name", title: "Device", links: []options{link("Open the device", toDevice)}},
		{field: "uuid", title: "UUID", links: []options{link("Open the device", toDevice), link(balenaLink, toBalena)}, width: 110},
	}, columns...)
}

func fleetDashboard() *Dashboard {
	share := func(part string) string {
		return ofFleet(part) + " / (" + ofFleet("balena_fleet_devices") + " > 0)"
	}
	worst := func(title, description, number, unit string, gauge bool, expr string) *Panel {
		return table(title, description, number, true,
			deviceColumns(column{field: value(""), title: number, unit: unit, gauge: gauge, width: 140}), rowsOf(top(expr)))
	}
	return newDashboard(
		"balena-fleet", "balena / Fleet", "One fleet: its devices by status over time, the rollout of releases, versions, and the devices that are worst off.",
		[]*Variable{datasourceVariable(), organizationVariable(), fleetVariable(), topVariable(), balenaVariable()},
		row{height: 4, panels: []*Panel{
			stat("Devices", "All devices of the fleet.", ofFleet("balena_fleet_devices"), "short"),
			stat("Connected", "Share of devices that can be reached: VPN up, or API heartbeat online or timeout.", share("balena_fleet_devices_connected"), "percentunit").goodShare(),
			stat("Online", "Devices whose VPN is up.", ofFleet("balena_fleet_devices_online"), "short"),
			stat("Gone for a day", "Devices that were seen once and have not been connected for a day.",
				`max by (fleet) (balena_fleet_devices_disconnected_longer_than{fleet="$fleet",seconds="86400"})`, "short").thresholds("green", step{"orange", 1}),
			stat("Never connected", "Devices that were registered and never seen since.", ofFleet("balena_fleet_devices_never_connected"), "short").thresholds("green", step{"orange", 1}),
			stat("Undervolted", "Connected devices that have seen too low a voltage since they booted.", ofFleet("balena_fleet_devices_undervolted"), "short").thresholds("green", step{"orange", 1}),
		}},
		row{height: 9, panels: []*Panel{
			areas("Devices by status", "Overall status of the devices.", over(ofFleetBy("balena_fleet_devices_by_status", "status"), "{{status}}")).colors(statusColors).wide(),
			areas("Devices by heartbeat", "State of the devices' API heartbeat. A device that dies stays online here for 15 to 22 minutes.",
				over(ofFleetBy("balena_fleet_devices_by_heartbeat_state", "state"), "{{state}}")).colors(heartbeatColors),
		}},
		row{title: "Releases", height: 4, panels: []*Panel{
			name("Target release", "The release that devices should run unless they are pinned.", ofFleetBy("balena_fleet_target_release_info", "release_version, commit"), "release_version"),
			stat("Target release created", "When the target release was created.", "1000 * "+ofFleet("balena_fleet_target_release_created_timestamp_seconds"), "dateTimeFromNow"),
			stat("On target release", "Share of devices that run the release they should run: their pin, else the fleet's target.", share("balena_fleet_devices_on_target_release"), "percentunit").goodShare(),
			stat("Pinned", "Devices that are pinned to a release.", ofFleet("balena_fleet_devices_pinned"), "short"),
			stat("Without release", "Devices that run no release yet.", ofFleet("balena_fleet_devices_without_release"), "short"),
			stat("Target", "Whether the target is always the newest good release or chosen by hand.", ofFleet("balena_fleet_tracks_latest_release"), "none").
				words("chosen by hand", "text", "newest release", "text"),
			name("Newest release", "Status of the build of the newest release.", ofFleetBy("balena_fleet_latest_release_status", "status")+" == 1", "status"),
		}},
		row{height: 9, panels: []*Panel{
			areas("Devices by release", "Devices by the release they run. During a rollout one colour takes over from the other.",
				over(ofFleetBy("balena_fleet_devices_by_release", "release_version, commit"), "{{release_version}}")),
			lines("Rollout", "Share of devices that run the release they should run.", "percentunit",
				over(share("balena_fleet_devices_on_target_release"), "on target release"), over(share("balena_fleet_devices_pinned"), "pinned")).ratio(),
			areas("Devices by update status", "Status of the devices' last update. Rejected and aborted ones do not run what they should.",
				over(ofFleetBy("balena_fleet_devices_by_update_status", "update_status"), "{{update_status}}")).colors(updateColors),
		}},
		row{title: "Worst devices", height: 10, panels: []*Panel{
			worst("Disconnected the longest", "Devices that are not connected, by the time since when.", "Disconnected for", "s", false,
				"(time() - "+ofDevices("balena_device_connectivity_change_timestamp_seconds")+") and on (uuid) ("+ofDevices("balena_device_connected")+" == 0)"),
			table("Not on their target release", "Devices whose update is oldest or never came. Rejected and aborted updates need a look at the device.", "Last update", false, deviceColumns(
				column{field: "release_version", title: "Runs", width: 130},
				column{field: "update_status", title: "Update", width: 130},
				column{field: value("A"), title: "Last update", unit: "dateTimeFromNow", width: 140},
			),
				rowsOf(named("1000 * bottomk($top, "+ofDevices("balena_device_update_status_change_timestamp_seconds")+" and on (uuid) ("+ofDevices("balena_device_on_target_release")+" == 0))")),
				rowsOf(behind("max by (fleet, uuid, release_version) (balena_device_release_info"+one+")")),
				rowsOf(behind("max by (fleet, uuid, update_status) (balena_device_update_status"+one+")")),
			),
			table("In another trouble", "Connected devices that are not operational.", "Device", false, deviceColumns(
				column{field: "status", title: "Status", width: 180},
			), rowsOf(top(`max by (fleet, uuid, status) (balena_device_status{fleet="$fleet",status!~"operational|disconnected|inactive"})`))),
		}},
		row{height: 10, panels: []*Panel{
			worst("Fullest storage", "Share of the data partition in use; connected devices only.", "Storage", "percentunit", true,
				ofDevices("balena_device_storage_used_bytes")+" / ("+ofDevices("balena_device_storage_size_bytes")+" > 0)"),
			worst("Fullest memory", "Share of the memory in use; connected devices only.", "Memory", "percentunit", true,
				ofDevices("balena_device_memory_used_bytes")+" / ("+ofDevices("balena_device_memory_size_bytes")+" > 0)"),
			worst("Hottest", "CPU temperature; connected devices with a sensor only. Most boards slow down from 80 to 85 °C.", "Temperature", "celsius", false,
				ofDevices("balena_device_cpu_temperature_celsius")),
			worst("Busiest", "CPU usage over all cores; connected devices only.", "CPU", "percentunit", true, ofDevices("balena_device_cpu_usage_ratio")),
		}},
		row{title: "Versions", height: 9, panels: []*Panel{
			bars("OS versions", "Devices by version of the host OS.", "short", now("topk(15, "+ofFleetBy("balena_fleet_devices_by_os_version", "os_version, os_variant")+")", "{{os_version}} {{os_variant}}")),
			bars("Supervisor versions", "Devices by version of the supervisor.", "short", now("topk(15, "+ofFleetBy("balena_fleet_devices_by_supervisor_version", "supervisor_version")+")", "{{supervisor_version}}")),
			bars("Device types", "Devices by device type.", "short", now("topk(15, "+ofFleetBy("balena_fleet_devices_by_device_type", "device_type")+")", "{{device_type}}")),
		}},
	)
}

// behind keeps the devices that the table of those behind lists.
func behind(expr string) string {
	return expr + " and on (uuid) bottomk($top, " + ofDevices("balena_device_update_status_change_timestamp_seconds") +
		" and on (uuid) (" + ofDevices("balena_device_on_target_release") + " == 0))"
}
