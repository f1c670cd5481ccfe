// SPDX-License-Identifier: Apache-2.0

package grafana

// rate returns the rate of a counter of the selected device, by labels.
func rate(metric, matchers, by string) string {
	return "max by (" + by + ") (rate(" + metric + `{uuid="$device"` + matchers + "}[$__rate_interval]))"
}

// uptime is the uptime of the selected device. Both times are from its clock, so setting the clock does not change it.
const uptime = "max by (uuid) (node_time_seconds" + single + " - node_boot_time_seconds" + single + ")"

// Matchers that exclude virtual devices and those of containers.
const (
	realDisk    = `,device!~"loop.*|ram.*|zram.*|dm-.*"`
	realNetwork = `,device!~"lo|veth.*|br-.*|docker.*|balena.*|resin.*|supervisor.*"`
	realSystem  = `,fstype!~"tmpfs|overlay|squashfs|ramfs|devtmpfs"`
)

// deviceInsideDashboard shows metrics of exporters on the device, together with data of balena.
func deviceInsideDashboard() *Dashboard {
	d := newDashboard(
		"balena-device-inside", "balena / Inside the device", "Metrics of node_exporter and cAdvisor on one device, together with data of balena. Prometheus must scrape these exporters with the labels fleet and uuid; see docs/service-discovery.md.",
		[]*Variable{datasourceVariable, organizationVariable, tagVariable, tagValueVariable, fleetVariable(""), deviceVariable, balenaVariable},
		row{height: 4, panels: []*Panel{
			name("Name", "Name of the device. It is empty if the exporter runs with --no-collector.device.name.", ofDeviceBy("balena_device_info", "device_name"), "device_name").
				linked(link("Open the device", "/d/balena-device"+keepContext+ofDashboard), toBalena).wide(),
			name("Status", "Overall status. "+operationalMeans, ofDeviceBy("balena_device_status", "status"), "status").wide(),
			stat("Connected", connectedMeans, ofDevice("balena_device_connected"), "none").words("no", "red", "yes", "green"),
			stat("Exporters", "Whether Prometheus can scrape all exporters on the device. There is no value if Prometheus has no targets on the device.", "min by (uuid) (up"+single+")", "none").
				words("down", "red", "up", "green"),
			stat("Uptime", "Time since the last boot. A reboot resets it, a lost connection does not.", uptime, "s"),
			stat("Load", "Average number of running and waiting processes per CPU core over one minute. If it is greater than 1, processes wait for the CPU.",
				"max by (uuid) (node_load1"+single+") / count by (uuid) (count by (uuid, cpu) (node_cpu_seconds_total"+single+"))", "short").thresholds(steps("green", step{"orange", 1}, step{"red", 2})),
			stat("Memory available", "Share of the memory that is available to processes.",
				"max by (uuid) (node_memory_MemAvailable_bytes"+single+" / node_memory_MemTotal_bytes"+single+")", "percentunit").thresholds(steps("red", step{"orange", 0.05}, step{"green", 0.15})),
		}},
		row{title: "Reboots and lost connections", height: 8, panels: []*Panel{
			timeline("Connectivity and exporters", "Whether the device was connected to balena, whether its VPN was up, and whether Prometheus could scrape its exporters. If the device was disconnected while the exporters could be scraped, the cause is the connection to balena.",
				over(ofDevice("balena_device_connected"), "connected"), over(ofDevice("balena_device_online"), "online"), over("max by (job) (up"+single+")", "{{job}}")).
				words("no", "red", "yes", "green"),
			lines("Uptime over time", "A drop to zero is a reboot. A gap without a drop is a lost connection.", "s", over(uptime, "uptime")).fromZero(),
		}},
		row{title: "System", height: 8, panels: []*Panel{
			lines("CPU usage", "Share of the time during which the CPU cores are busy.", "percentunit",
				over(`1 - avg by (uuid) (rate(node_cpu_seconds_total{uuid="$device",mode="idle"}[$__rate_interval]))`, "CPU")).ratio(),
			lines("Load", "Average number of running and waiting processes over 1, 5 and 15 minutes.", "short",
				over(ofDevice("node_load1"), "1 minute"), over(ofDevice("node_load5"), "5 minutes"), over(ofDevice("node_load15"), "15 minutes")).fromZero(),
			lines("Memory", "Available memory and total memory.", "bytes",
				over(ofDevice("node_memory_MemAvailable_bytes"), "available"), over(ofDevice("node_memory_MemTotal_bytes"), "size")).fromZero(),
		}},
		row{height: 8, panels: []*Panel{
			lines("File systems", "Usage of each file system.", "percentunit",
				over(`max by (mountpoint) (1 - node_filesystem_avail_bytes{uuid="$device"`+realSystem+`} / node_filesystem_size_bytes{uuid="$device"`+realSystem+`})`, "{{mountpoint}}")).ratio(),
			lines("Network", "Received and sent bytes by interface. Each scrape sends about 10 kB.", "Bps",
				over(rate("node_network_receive_bytes_total", realNetwork, "device"), "{{device}} received"), over(rate("node_network_transmit_bytes_total", realNetwork, "device"), "{{device}} sent")).fromZero(),
			lines("Disks", "Bytes read from and written to disks. Writing wears out SD cards.", "Bps",
				over(rate("node_disk_read_bytes_total", realDisk, "device"), "{{device}} read"), over(rate("node_disk_written_bytes_total", realDisk, "device"), "{{device}} written")).fromZero(),
		}},
		row{title: "Containers", height: 8, panels: []*Panel{
			lines("CPU of containers", "CPU usage of each container in cores, from cAdvisor.", "short",
				over(`topk(20, `+rate("container_cpu_usage_seconds_total", `,name!=""`, "name")+`)`, "{{name}}")).fromZero(),
			lines("Memory of containers", "Working set of each container, from cAdvisor. It excludes memory that the kernel can reclaim.", "bytes",
				over(`topk(20, max by (name) (container_memory_working_set_bytes{uuid="$device",name!=""}))`, "{{name}}")).fromZero(),
			table("Containers", "Start time of each container, and number of starts within the last hour, from cAdvisor. The balena API does not report restarts.", "Starts in 1 h", true,
				column{title: "Container", label: "name"},
				column{title: "Started", query: `1000 * topk(20, max by (name) (container_start_time_seconds{uuid="$device",name!=""}))`, unit: "dateTimeFromNow", width: 160},
				column{title: "Starts in 1 h", query: `topk(20, max by (name) (changes(container_start_time_seconds{uuid="$device",name!=""}[1h])))`, unit: "short", width: 110},
			),
		}},
	)
	return d.annotate(firing(`fleet="$fleet",uuid=~"$device|"`, "uuid", "{{uuid}}"), rollouts(`fleet="$fleet"`, true))
}
