// SPDX-License-Identifier: Apache-2.0

package grafana

// rate is the rate of a counter of the chosen device, by some labels.
func rate(metric, matchers, by string) string {
	return "max by (" + by + ") (rate(" + metric + `{uuid="$device"` + matchers + "}[$__rate_interval]))"
}

// uptime is how long the chosen device runs, by its own clock: it does not jump when that is set.
const uptime = "max by (uuid) (node_time_seconds" + single + " - node_boot_time_seconds" + single + ")"

// Not loop devices, nor what containers make for themselves.
const (
	realDisk    = `,device!~"loop.*|ram.*|zram.*|dm-.*"`
	realNetwork = `,device!~"lo|veth.*|br-.*|docker.*|balena.*|resin.*|supervisor.*"`
	realSystem  = `,fstype!~"tmpfs|overlay|squashfs|ramfs|devtmpfs"`
)

// deviceInsideDashboard shows what exporters on the device tell, beside what balena knows of it.
func deviceInsideDashboard() *Dashboard {
	d := newDashboard(
		"balena-device-inside", "balena / Inside the device", "One device by the exporters on it, node_exporter and cAdvisor, beside what balena knows. Prometheus has to scrape them, with the labels fleet and uuid: see docs/service-discovery.md.",
		[]*Variable{datasourceVariable(), organizationVariable(), tagVariable(), tagValueVariable(), fleetVariable(""), deviceVariable(), balenaVariable()},
		row{height: 4, panels: []*Panel{
			name("Name", "Name of the device; empty when the exporter runs with --no-collector.device.name.", ofDeviceBy("balena_device_info", "device_name"), "device_name").
				linked(link("Open the device", "/d/balena-device"+keepContext+"&var-fleet=${fleet:percentencode}&var-device=${device:percentencode}"), link(balenaLink, "${balena}/devices/${device:percentencode}/summary")).wide(),
			name("Status", "Overall status. "+operationalMeans, ofDeviceBy("balena_device_status", "status"), "status").wide(),
			stat("Connected", connectedMeans, ofDevice("balena_device_connected"), "none").words("no", "red", "yes", "green"),
			stat("Exporters", "Whether all exporters on the device answer. There is no value while Prometheus does not scrape it.", "min by (uuid) (up"+single+")", "none").
				words("down", "red", "up", "green"),
			stat("Runs for", "Time since the boot. It begins anew at a reboot, and goes on through a lost connection.", uptime, "s"),
			stat("Load", "Processes that run or wait to run, on average over a minute, for each CPU core. More than 1 means that they wait.",
				"max by (uuid) (node_load1"+single+") / count by (uuid) (count by (uuid, cpu) (node_cpu_seconds_total"+single+"))", "short").thresholds("green", step{"orange", 1}, step{"red", 2}),
			stat("Memory available", "Share of the memory that processes can still take.",
				"max by (uuid) (node_memory_MemAvailable_bytes"+single+" / node_memory_MemTotal_bytes"+single+")", "percentunit").thresholds("red", step{"orange", 0.05}, step{"green", 0.15}),
		}},
		row{title: "A reboot, or a lost connection", height: 8, panels: []*Panel{
			timeline("Connectivity and exporters", "Whether the device was connected to balena, whether its VPN was up, and whether Prometheus reached the exporters on it. If balena lost the device and the exporters answered, it was the connection to balena.",
				over(ofDevice("balena_device_connected"), "connected"), over(ofDevice("balena_device_online"), "online"), over("max by (job) (up"+single+")", "{{job}}")).
				words("no", "red", "yes", "green"),
			lines("Time since the boot", "A line that falls to zero is a reboot. A line that has a gap and goes on where it would have been is a lost connection.", "s", over(uptime, "uptime")).fromZero(),
		}},
		row{title: "The device", height: 8, panels: []*Panel{
			lines("CPU usage", "Share of the time in which the CPU cores work.", "percentunit",
				over(`1 - avg by (uuid) (rate(node_cpu_seconds_total{uuid="$device",mode="idle"}[$__rate_interval]))`, "CPU")).ratio(),
			lines("Load", "Processes that run or wait to run, on average over 1, 5 and 15 minutes.", "short",
				over(ofDevice("node_load1"), "1 minute"), over(ofDevice("node_load5"), "5 minutes"), over(ofDevice("node_load15"), "15 minutes")).fromZero(),
			lines("Memory", "Memory that processes can still take, and size of the memory.", "bytes",
				over(ofDevice("node_memory_MemAvailable_bytes"), "available"), over(ofDevice("node_memory_MemTotal_bytes"), "size")).fromZero(),
		}},
		row{height: 8, panels: []*Panel{
			lines("File systems", "Share of each file system that is in use.", "percentunit",
				over(`max by (mountpoint) (1 - node_filesystem_avail_bytes{uuid="$device"`+realSystem+`} / node_filesystem_size_bytes{uuid="$device"`+realSystem+`})`, "{{mountpoint}}")).ratio(),
			lines("Network", "What the device receives, and what it sends, by interface. Each scrape sends some 10 kB.", "Bps",
				over(rate("node_network_receive_bytes_total", realNetwork, "device"), "{{device}} received"), over(rate("node_network_transmit_bytes_total", realNetwork, "device"), "{{device}} sent")).fromZero(),
			lines("Disks", "What is read from and written to disks. SD cards wear out by writing.", "Bps",
				over(rate("node_disk_read_bytes_total", realDisk, "device"), "{{device}} read"), over(rate("node_disk_written_bytes_total", realDisk, "device"), "{{device}} written")).fromZero(),
		}},
		row{title: "Containers", height: 8, panels: []*Panel{
			lines("CPU of containers", "CPU cores that each container takes. From cAdvisor.", "short",
				over(`topk(20, `+rate("container_cpu_usage_seconds_total", `,name!=""`, "name")+`)`, "{{name}}")).fromZero(),
			lines("Memory of containers", "Memory that each container needs, without what the kernel could take back. From cAdvisor.", "bytes",
				over(`topk(20, max by (name) (container_memory_working_set_bytes{uuid="$device",name!=""}))`, "{{name}}")).fromZero(),
			table("Containers", "When each container was started, and how often within the last hour. The API of balena tells no restarts. From cAdvisor.", "Starts in 1 h", true, []column{
				{field: "name", title: "Container"},
				{field: value("A"), title: "Started", unit: "dateTimeFromNow", width: 160},
				{field: value("B"), title: "Starts in 1 h", unit: "short", width: 110},
			},
				rowsOf(`1000 * topk(20, max by (name) (container_start_time_seconds{uuid="$device",name!=""}))`),
				rowsOf(`topk(20, max by (name) (changes(container_start_time_seconds{uuid="$device",name!=""}[1h])))`)),
		}},
	)
	return d.annotate(firing(`fleet="$fleet",uuid=~"$device|"`, "uuid", "{{uuid}}"), rollouts(`fleet="$fleet"`, true))
}
