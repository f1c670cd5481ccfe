// SPDX-License-Identifier: Apache-2.0

package grafana

// single matches the selected device.
const single = `{uuid="$device"}`

// ofDevice returns an expression for a metric of the selected device.
func ofDevice(metric string) string { return "max by (uuid) (" + metric + single + ")" }

// ofDeviceBy returns an expression for a metric of the selected device, by labels.
func ofDeviceBy(metric, labels string) string {
	return "max by (" + labels + ") (" + metric + single + ")"
}

// deviceVariable has the devices of the fleet, by name, or by UUID if they have no name. The regular expression extracts
// both from the labels, which Grafana formats in alphabetical order and does not escape.
var deviceVariable = fromMetrics("device", "Device", `query_result(max by (uuid, device_name) (balena_device_info{fleet="$fleet"}))`,
	`/^\{(?:device_name="(?<text>[\s\S]*)",)?uuid="(?<value>[^"]+)"/`)

func deviceDashboard() *Dashboard {
	d := newDashboard(
		"balena-device", "balena / Device", "One device: its status, release and hardware. Devices report hardware figures at most every five minutes, and only while they are connected.",
		[]*Variable{datasourceVariable, organizationVariable, tagVariable, tagValueVariable, fleetVariable(""), deviceVariable, balenaVariable},
		row{height: 4, panels: []*Panel{
			name("Name", "Name of the device. It is empty if the exporter runs with --no-collector.device.name.", ofDeviceBy("balena_device_info", "device_name"), "device_name").
				linked(link("Open the metrics of the device", "/d/balena-device-inside"+keepContext+ofDashboard), toBalena).wide(),
			name("Fleet", "The fleet that the device belongs to.", ofDeviceBy("balena_device_info", "fleet"), "fleet").
				linked(seriesToFleet).wide(),
			name("Status", "Overall status. "+operationalMeans, ofDeviceBy("balena_device_status", "status"), "status").wide(),
			stat("Connected", connectedMeans, ofDevice("balena_device_connected"), "none").
				words("no", "red", "yes", "green"),
			stat("Online", onlineMeans, ofDevice("balena_device_online"), "none").words("no", "orange", "yes", "green"),
			name("API heartbeat", "State of the API heartbeat. After a device loses power, its heartbeat remains online for 15 to 22 minutes.", ofDeviceBy("balena_device_heartbeat_state", "state"), "state"),
			stat("In service", inServiceMeans,
				"1 - ("+ofDevice("balena_device_out_of_service")+" or ("+ofDevice("balena_device_maintenance_until_timestamp_seconds")+" > time()) ^ 0 or 0 * "+ofDevice("balena_device_connected")+")", "none").words("no", "text", "yes", "green"),
			stat("Connectivity changed", "When the device last connected or disconnected.", "1000 * "+ofDevice("balena_device_connectivity_change_timestamp_seconds"), "dateTimeFromNow"),
		}},
		row{height: 4, panels: []*Panel{
			name("Release", "The release that the device runs.", ofDeviceBy("balena_device_release_info", "release_version, commit"), "release_version"),
			stat("On target release", onTargetMeans, ofDevice("balena_device_on_target_release"), "none").words("no", "orange", "yes", "green"),
			stat("Pinned", "Whether the device is pinned to a release.", ofDevice("balena_device_release_pinned"), "none").words("no", "text", "yes", "blue"),
			name("Update status", "Status of the last update.", ofDeviceBy("balena_device_update_status", "update_status"), "update_status"),
			stat("Update status changed", "When the device last reported an update status.", "1000 * "+ofDevice("balena_device_update_status_change_timestamp_seconds"), "dateTimeFromNow"),
			stat("Services", "Services of the target release on the device.", ofDevice("balena_device_services"), "short"),
			stat("Services running", "Services of the target release that are running.", ofDevice("balena_device_services_running"), "short"),
			stat("Update progress", "Progress of the current application update.", ofDevice("balena_device_update_progress_ratio"), "percentunit"),
		}},
		row{height: 4, panels: []*Panel{
			name("Device type", "Type of the device.", ofDeviceBy("balena_device_info", "device_type"), "device_type"),
			name("OS", "Version of the host OS.", ofDeviceBy("balena_device_info", "os_version"), "os_version"),
			name("OS variant", "Variant of the host OS. Development variants allow root logins from the local network without authentication.", ofDeviceBy("balena_device_info", "os_variant"), "os_variant"),
			name("OS line", "Line of the release of balenaOS that the device runs: default, or the year and month of an ESR version. It is empty for a custom build, and if the server publishes no releases of balenaOS.",
				ofDeviceBy("balena_device_os_line", "line"), "line"),
			stat("Age of the OS release", "Time since the release of balenaOS that the device runs was created.", "time() - "+ofDevice("balena_device_os_release_created_timestamp_seconds"), "s").thresholds(osAge),
			stat("OS releases behind", "Newer releases of balenaOS that are published for the device.", ofDevice("balena_device_os_releases_behind"), "short").thresholds(steps("text", step{"blue", 1})),
			stat("OS update", "Whether the host OS has a target version that differs from the running version.", ofDevice("balena_device_os_update_pending"), "none").words("none", "text", "pending", "blue"),
			name("OS update state", "State of the host OS update. After a failed update, it is failed until the supervisor starts.", ofDeviceBy("balena_device_os_update_state", "state"), "state"),
		}},
		row{height: 4, panels: []*Panel{
			name("Supervisor", "Version of the supervisor.", ofDeviceBy("balena_device_info", "supervisor_version"), "supervisor_version"),
			stat("Supervisor update available", "Whether the server publishes a newer release of the supervisor than that of the device.", ofDevice("balena_device_supervisor_update_available"), "none").words("no", "text", "yes", "blue"),
			stat("Supervisor update", "Whether the supervisor has a target version that differs from the running version.", ofDevice("balena_device_supervisor_update_pending"), "none").words("none", "text", "pending", "blue"),
			stat("Undervoltage", "Whether the device reported an undervoltage since its last boot.", ofDevice("balena_device_undervolted"), "none").words("none", "green", "detected", "red"),
			stat("Public device URL", "Whether the public device URL is enabled, which makes the device accessible from the internet.", ofDevice("balena_device_web_accessible"), "none").words("disabled", "text", "enabled", "orange"),
			stat("Registered", "When the device was registered.", "1000 * "+ofDevice("balena_device_created_timestamp_seconds"), "dateTimeFromNow"),
		}},
		row{title: "Over time", height: 8, panels: []*Panel{
			timeline("Connectivity", "Times at which the device was connected, and online. "+connectedMeans+" "+onlineMeans, over(ofDevice("balena_device_connected"), "connected"), over(ofDevice("balena_device_online"), "online")).
				words("no", "red", "yes", "green"),
			timeline("Status", "Overall status over time.", over(ofDeviceBy("balena_device_status", "status"), "{{status}}")),
			timeline("Release", "Running release over time.", over(ofDeviceBy("balena_device_release_info", "release_version, commit"), "{{release_version}}")),
		}},
		row{title: "Hardware", height: 8, panels: []*Panel{
			lines("CPU usage", "CPU usage, averaged over all cores.", "percentunit", over(ofDevice("balena_device_cpu_usage_ratio"), "CPU")).ratio(),
			lines("CPU temperature", "CPU temperature. Most boards throttle the CPU from 80 to 85 °C.", "celsius", over(ofDevice("balena_device_cpu_temperature_celsius"), "CPU")),
			lines("Memory", "Used memory and total memory.", "bytes", over(ofDevice("balena_device_memory_used_bytes"), "used"), over(ofDevice("balena_device_memory_size_bytes"), "size")).fromZero(),
			lines("Storage", "Used storage on the data partition, and size of the partition.", "bytes", over(ofDevice("balena_device_storage_used_bytes"), "used"), over(ofDevice("balena_device_storage_size_bytes"), "size")).fromZero(),
		}},
		row{title: "Services", height: 8, panels: []*Panel{
			table("Services", "Services on the device. They are exported with --collector.service.", "Service", false,
				column{title: "Service", label: "service_name"},
				column{title: "Status", label: "status", query: ofDeviceBy("balena_device_service_status", "service_name, status"), width: 140},
				column{title: "Installed", query: "1000 * " + ofDeviceBy("balena_device_service_install_timestamp_seconds", "service_name"), unit: "dateTimeFromNow", width: 160},
			),
			timeline("Services over time", "Status of each service over time.", over(ofDeviceBy("balena_device_service_status", "service_name, status"), "{{service_name}} {{status}}")).wide(),
		}},
	)
	d.annotate(firing(`fleet="$fleet",uuid=~"$device|"`, "uuid", "{{uuid}}"), rollouts(`fleet="$fleet"`, true))
	d.Links = append(d.Links, options{
		"type": "link", "title": balenaLink, "url": balenaURL, "icon": "external link", "tooltip": "", "targetBlank": true,
		"tags": []string{}, "asDropdown": false, "includeVars": false, "keepTime": false,
	})
	return d
}
