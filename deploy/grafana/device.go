package grafana

// single selects the device that is chosen.
const single = `{uuid="$device"}`

// ofDevice is a number of the chosen device.
func ofDevice(metric string) string { return "max by (uuid) (" + metric + single + ")" }

// ofDeviceBy is what labels tell of the chosen device.
func ofDeviceBy(metric, labels string) string {
	return "max by (" + labels + ") (" + metric + single + ")"
}

// deviceVariable offers the devices of the fleet by name, or by UUID those that have none. Grafana does not
// escape the labels among which the regular expression looks for them; they are in alphabetical order.
func deviceVariable() *Variable {
	v := fromMetrics("device", "Device", `query_result(max by (uuid, device_name) (balena_device_info{fleet="$fleet"}))`)
	v.Regex = `/^\{(?:device_name="(?<text>[\s\S]*)",)?uuid="(?<value>[^"]+)"/`
	return v
}

func deviceDashboard() *Dashboard {
	d := newDashboard(
		"balena-device", "balena / Device", "One device: its state, what it runs, and its hardware. Hardware figures come every five minutes at most, and only while the device is connected.",
		[]*Variable{datasourceVariable(), organizationVariable(), fleetVariable(), deviceVariable(), balenaVariable()},
		row{height: 4, panels: []*Panel{
			name("Name", "Name of the device; empty when the exporter runs with --no-collector.device.name.", ofDeviceBy("balena_device_info", "device_name"), "device_name").
				linked(link(balenaLink, "${balena}/devices/${device:percentencode}/summary")).wide(),
			name("Fleet", "The fleet that the device belongs to.", ofDeviceBy("balena_device_info", "fleet"), "fleet").
				linked(link("Open the fleet", "/d/balena-fleet"+keepContext+"&var-fleet=${__field.labels.fleet:percentencode}")).wide(),
			name("Status", "Overall status.", ofDeviceBy("balena_device_status", "status"), "status").wide(),
			stat("Connected", "Whether the device can be reached: VPN up, or API heartbeat online or timeout.", ofDevice("balena_device_connected"), "none").
				words("no", "red", "yes", "green"),
			stat("VPN", "Whether the device's VPN is up.", ofDevice("balena_device_online"), "none").words("down", "orange", "up", "green"),
			name("Heartbeat", "State of the API heartbeat. A device that dies stays online here for 15 to 22 minutes.", ofDeviceBy("balena_device_heartbeat_state", "state"), "state"),
			stat("Last change", "When the device last connected or disconnected.", "1000 * "+ofDevice("balena_device_connectivity_change_timestamp_seconds"), "dateTimeFromNow"),
		}},
		row{height: 4, panels: []*Panel{
			name("Release", "The release that the device runs.", ofDeviceBy("balena_device_release_info", "release_version, commit"), "release_version"),
			stat("On target", "Whether the device runs the release it should run.", ofDevice("balena_device_on_target_release"), "none").words("no", "orange", "yes", "green"),
			stat("Pinned", "Whether the device is pinned to a release.", ofDevice("balena_device_release_pinned"), "none").words("no", "text", "yes", "blue"),
			name("Update", "Status of the last update.", ofDeviceBy("balena_device_update_status", "update_status"), "update_status"),
			stat("Update reported", "When the device last reported an update status.", "1000 * "+ofDevice("balena_device_update_status_change_timestamp_seconds"), "dateTimeFromNow"),
			stat("Progress", "How far the update under way is.", ofDevice("balena_device_update_progress_ratio"), "percentunit"),
		}},
		row{height: 4, panels: []*Panel{
			name("Device type", "What the device is.", ofDeviceBy("balena_device_info", "device_type"), "device_type"),
			name("OS", "Version of the host OS.", ofDeviceBy("balena_device_info", "os_version"), "os_version"),
			name("OS variant", "A development OS lets everybody in the network log in.", ofDeviceBy("balena_device_info", "os_variant"), "os_variant"),
			stat("OS update", "Whether the device should run another host OS than it does.", ofDevice("balena_device_os_update_pending"), "none").words("none", "text", "pending", "blue"),
			name("Supervisor", "Version of the supervisor.", ofDeviceBy("balena_device_info", "supervisor_version"), "supervisor_version"),
			stat("Supervisor update", "Whether the device should run another supervisor than it does.", ofDevice("balena_device_supervisor_update_pending"), "none").words("none", "text", "pending", "blue"),
			stat("Voltage", "Whether the device has seen too low a voltage since it booted.", ofDevice("balena_device_undervolted"), "none").words("good", "green", "too low", "red"),
			stat("Public URL", "Whether the device is open to the internet.", ofDevice("balena_device_web_accessible"), "none").words("off", "text", "on", "orange"),
			stat("Registered", "When the device was registered.", "1000 * "+ofDevice("balena_device_created_timestamp_seconds"), "dateTimeFromNow"),
		}},
		row{title: "Over time", height: 8, panels: []*Panel{
			timeline("Connection", "When the device could be reached.", over(ofDevice("balena_device_connected"), "connected"), over(ofDevice("balena_device_online"), "VPN")).
				words("no", "red", "yes", "green"),
			timeline("Status", "When the device was in which status.", over(ofDeviceBy("balena_device_status", "status"), "{{status}}")),
			timeline("Release", "When the device ran which release.", over(ofDeviceBy("balena_device_release_info", "release_version, commit"), "{{release_version}}")),
		}},
		row{title: "Hardware", height: 8, panels: []*Panel{
			lines("CPU", "CPU usage over all cores.", "percentunit", over(ofDevice("balena_device_cpu_usage_ratio"), "CPU")).ratio(),
			lines("Temperature", "CPU temperature. Most boards slow down from 80 to 85 °C.", "celsius", over(ofDevice("balena_device_cpu_temperature_celsius"), "CPU")),
			lines("Memory", "Memory in use, and memory that there is.", "bytes", over(ofDevice("balena_device_memory_used_bytes"), "used"), over(ofDevice("balena_device_memory_size_bytes"), "there is")).fromZero(),
			lines("Storage", "The data partition.", "bytes", over(ofDevice("balena_device_storage_used_bytes"), "used"), over(ofDevice("balena_device_storage_size_bytes"), "there is")).fromZero(),
		}},
		row{title: "Services", height: 8, panels: []*Panel{
			table("Services", "What runs on the device. The exporter tells of services when it runs with --collector.service.", "Service", false, []column{
				{field: "service_name", title: "Service"},
				{field: "status", title: "Status", width: 140},
				{field: value("B"), title: "Installed", unit: "dateTimeFromNow", width: 160},
			},
				rowsOf(ofDeviceBy("balena_device_service_status", "service_name, status")),
				rowsOf("1000 * "+ofDeviceBy("balena_device_service_install_timestamp_seconds", "service_name"))),
			timeline("Services over time", "When a service was in which state.", over(ofDeviceBy("balena_device_service_status", "service_name, status"), "{{service_name}} {{status}}")).wide(),
		}},
	)
	d.Links = append(d.Links, options{
		"type": "link", "title": balenaLink, "url": "${balena}/devices/${device:percentencode}/summary", "icon": "external link", "targetBlank": true,
		"tooltip": "Not there on an openBalena server",
	})
	return d
}

// fromZero lets the axis begin at 0.
func (p *Panel) fromZero() *Panel {
	p.FieldConfig.Defaults["min"] = 0
	return p
}
