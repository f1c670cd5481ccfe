package grafana

// chosen selects the fleets that are chosen by variables. A slug begins with the organization.
const chosen = `{fleet=~"$fleet",fleet=~"$organization/.+"}`

// each is a number for each chosen fleet.
func each(metric string) string { return "max by (fleet) (" + metric + chosen + ")" }

// total is the sum over all chosen fleets.
func total(metric string) string { return "sum(" + each(metric) + ")" }

// totalBy is the sum over all chosen fleets, by labels.
func totalBy(metric, labels string) string {
	return "sum by (" + labels + ") (max by (fleet, " + labels + ") (" + metric + chosen + "))"
}

func fleetsDashboard() *Dashboard {
	fleetLink := []options{link("Open the fleet", toFleet)}
	return newDashboard(
		"balena-fleets", "balena / Fleets", "All fleets at a glance: which are connected, on their target release, in trouble.",
		[]*Variable{datasourceVariable(), organizationVariable(), fleetVariable().several()},
		row{height: 4, panels: []*Panel{
			stat("Fleets", "Fleets that the exporter may see and that are chosen above.", "count("+each("balena_fleet_devices")+")", "short"),
			stat("Devices", "All devices of these fleets.", total("balena_fleet_devices"), "short"),
			stat("Connected", "Share of devices that can be reached: VPN up, or API heartbeat online or timeout.",
				total("balena_fleet_devices_connected")+" / ("+total("balena_fleet_devices")+" > 0)", "percentunit").goodShare(),
			stat("Online", "Devices whose VPN is up.", total("balena_fleet_devices_online"), "short"),
			stat("On target release", "Share of devices that run the release they should run.",
				total("balena_fleet_devices_on_target_release")+" / ("+total("balena_fleet_devices")+" > 0)", "percentunit").goodShare(),
			stat("Never connected", "Devices that were registered and never seen since.", total("balena_fleet_devices_never_connected"), "short").
				thresholds("green", step{"orange", 1}),
			stat("Undervolted", "Connected devices that have seen too low a voltage since they booted.", total("balena_fleet_devices_undervolted"), "short").
				thresholds("green", step{"orange", 1}),
			stat("Age of the data", "Time since the data were fetched from the API. It should stay below two minutes with the default interval of 60 s.",
				"time() - max(balena_exporter_last_refresh_success_timestamp_seconds)", "s").thresholds("green", step{"orange", 120}, step{"red", 300}),
		}},
		row{height: 9, panels: []*Panel{
			areas("Devices by status", "Devices of all chosen fleets by overall status.",
				over(totalBy("balena_fleet_devices_by_status", "status"), "{{status}}")).colors(statusColors).wide(),
			bars("Least connected fleets", "The ten fleets with the smallest share of connected devices.", "percentunit",
				now("bottomk(10, "+each("balena_fleet_devices_connected")+" / ("+each("balena_fleet_devices")+" > 0))", "{{fleet}}")).
				ratio().goodShare().linked(link("Open the fleet", "/d/balena-fleet"+keepContext+"&var-fleet=${__field.labels.fleet:percentencode}")),
		}},
		row{height: 12, panels: []*Panel{
			table("Fleets", "One row a fleet. Click on a fleet to open its dashboard.", "Connected", false, []column{
				{field: "fleet", title: "Fleet", links: fleetLink, width: 260},
				{field: "device_type", title: "Device type"},
				{field: "archived", title: "Archived", width: 90},
				{field: value("B"), title: "Devices", unit: "short", width: 90},
				{field: value("C"), title: "Connected", unit: "percentunit", colors: goodShare(), width: 110},
				{field: value("D"), title: "Online", unit: "short", width: 90},
				{field: value("E"), title: "On target release", unit: "percentunit", colors: goodShare(), width: 140},
				{field: "release_version", title: "Target release"},
				{field: value("G"), title: "Gone for a day", unit: "short", colors: []step{{color: "text"}, {"orange", 1}}, width: 130},
				{field: value("H"), title: "Never connected", unit: "short", width: 130},
			},
				rowsOf("max by (fleet, device_type, archived) (balena_fleet_info"+chosen+")"),
				rowsOf(each("balena_fleet_devices")),
				rowsOf(each("balena_fleet_devices_connected")+" / ("+each("balena_fleet_devices")+" > 0)"),
				rowsOf(each("balena_fleet_devices_online")),
				rowsOf(each("balena_fleet_devices_on_target_release")+" / ("+each("balena_fleet_devices")+" > 0)"),
				rowsOf("max by (fleet, release_version) (balena_fleet_target_release_info"+chosen+")"),
				rowsOf(`max by (fleet) (balena_fleet_devices_disconnected_longer_than{seconds="86400",fleet=~"$fleet",fleet=~"$organization/.+"})`),
				rowsOf(each("balena_fleet_devices_never_connected")),
			),
		}},
		row{title: "Rollouts", height: 9, panels: []*Panel{
			lines("On target release", "Share of all devices that run the release they should run. It drops when a release comes out, and should climb back.", "percentunit",
				over(total("balena_fleet_devices_on_target_release")+" / ("+total("balena_fleet_devices")+" > 0)", "on target release")).ratio(),
			table("Unfinished rollouts", "The twenty fleets with the most devices that do not run what they should.", "Devices behind", true, []column{
				{field: "fleet", title: "Fleet", links: fleetLink},
				{field: value("A"), title: "Devices behind", unit: "short", width: 130},
				{field: value("B"), title: "Release created", unit: "dateTimeFromNow", width: 160},
			},
				rowsOf("topk(20, "+each("balena_fleet_devices")+" - "+each("balena_fleet_devices_on_target_release")+" > 0)"),
				rowsOf("1000 * "+each("balena_fleet_target_release_created_timestamp_seconds"))),
			table("Failed builds", "Fleets whose newest release did not build.", "Fleet", false, []column{
				{field: "fleet", title: "Fleet", links: fleetLink},
				{field: "status", title: "Status", width: 120},
			}, rowsOf(`max by (fleet, status) (balena_fleet_latest_release_status{status!~"success|running",fleet=~"$fleet",fleet=~"$organization/.+"}) == 1`)),
		}},
		row{title: "Devices", height: 9, panels: []*Panel{
			lines("Disconnected", "Devices that were seen once and have not been connected for at least so long.", "short",
				over(totalBy("balena_fleet_devices_disconnected_longer_than", "seconds"), "{{seconds}} s")),
			bars("Device types", "The fifteen most frequent device types.", "short",
				now("topk(15, "+totalBy("balena_fleet_devices_by_device_type", "device_type")+")", "{{device_type}}")),
			bars("OS versions", "The fifteen most frequent versions of the host OS.", "short",
				now("topk(15, "+totalBy("balena_fleet_devices_by_os_version", "os_version, os_variant")+")", "{{os_version}} {{os_variant}}")),
			bars("Supervisor versions", "The fifteen most frequent versions of the supervisor.", "short",
				now("topk(15, "+totalBy("balena_fleet_devices_by_supervisor_version", "supervisor_version")+")", "{{supervisor_version}}")),
		}},
	)
}
