// SPDX-License-Identifier: Apache-2.0

package grafana

// The fleets that are chosen by variables. A slug begins with the organization.
const (
	chosenMatchers = `fleet=~"$fleet",fleet=~"$organization/.+"`
	chosen         = "{" + chosenMatchers + "}"
)

// notArchived leaves archived fleets out, as the alerts do.
const notArchived = ` unless on (fleet) balena_fleet_info{archived="true"}`

// each is a number for each chosen fleet.
func each(metric string) string { return eachOf(metric + chosen) }

// eachOf is the number of a selector for each fleet.
func eachOf(selector string) string { return "(max by (fleet) (" + selector + ")" + notArchived + ")" }

// eachDisconnected is how many devices of each chosen fleet have been disconnected for a time.
func eachDisconnected(seconds string) string {
	return eachOf(`balena_fleet_devices_disconnected_longer_than{seconds="` + seconds + `",` + chosenMatchers + "}")
}

// eachAvailable is the availability of each chosen fleet, which the alert rules record.
func eachAvailable() string {
	return "max by (fleet) (balena:fleet_availability:ratio30d" + chosen + ")"
}

// eachInUse is how many devices of each chosen fleet are in use: the number that the alerts compare with.
func eachInUse() string {
	return "(" + each("balena_fleet_devices_in_service") + " - " + each("balena_fleet_devices_never_connected") +
		" - (" + eachDisconnected("$lost") + " or 0 * " + each("balena_fleet_devices_in_service") + "))"
}

// eachOperational is how many devices of each chosen fleet are operational.
func eachOperational() string {
	return eachOf(`balena_fleet_devices_by_status{status="operational",` + chosenMatchers + "}")
}

// total is the sum over all chosen fleets.
func total(metric string) string { return "sum(" + each(metric) + ")" }

// totalBy is the sum over all chosen fleets, by labels.
func totalBy(metric, labels string) string {
	return "sum by (" + labels + ") (max by (fleet, " + labels + ") (" + metric + chosen + ")" + notArchived + ")"
}

func fleetsDashboard() *Dashboard {
	fleetLink := []options{link("Open the fleet", toFleet)}
	ofAll := func(part string) string { return total(part) + " / (" + total("balena_fleet_devices") + " > 0)" }
	ofInUse := func(part string) string { return "sum(" + part + ") / (sum(" + eachInUse() + ") > 0)" }
	shareInUse := func(part string) string { return part + " / (" + eachInUse() + " > 0)" }
	ofConnected := func(part string) string {
		return "sum(" + part + ") / (" + total("balena_fleet_devices_connected") + " > 0)"
	}
	shareConnected := func(part string) string { return part + " / (" + each("balena_fleet_devices_connected") + " > 0)" }
	return newDashboard(
		"balena-fleets", "balena / Fleets", "All fleets: devices that are connected, rollouts of releases, and firing alerts. Archived fleets are left out, as in the alerts.",
		[]*Variable{
			datasourceVariable(), organizationVariable(),
			tagVariable(), tagValueVariable(), fleetVariable(`,archived="false"`).several().listed(), lostVariable(),
		},
		row{height: 4, panels: []*Panel{
			stat("Devices", "All devices of the chosen fleets.", total("balena_fleet_devices"), "short"),
			stat("Connected", "Share of the devices in use that are connected. "+connectedMeans+" "+inUseMeans, ofInUse(each("balena_fleet_devices_in_service_connected")), "percentunit").goodShare(),
			stat("Online", "Share of the connected devices that are online. "+onlineMeans, ofConnected(each("balena_fleet_devices_online")), "percentunit").goodShare(),
			stat("Operational", "Share of the connected devices that are operational. "+operationalMeans, ofConnected(eachOperational()), "percentunit").goodShare(),
			stat("Healthy", "Share of the devices in service that are healthy. "+healthyMeans, total("balena_fleet_devices_healthy")+" / ("+total("balena_fleet_devices_in_service")+" > 0)", "percentunit").goodShare(),
			stat("On target release", "Share of all devices that are on their target release. "+onTargetMeans, ofAll("balena_fleet_devices_on_target_release"), "percentunit").goodShare(),
			stat("Age of the oldest data", "Time since the last refresh of the exporter whose last refresh is the longest ago. It stays below twice the time between refreshes, 60 s by default.",
				"time() - min(balena_exporter_last_refresh_success_timestamp_seconds)", "s").thresholds("green", late, gone),
		}},
		row{height: 4, panels: []*Panel{
			stat("Fleets", "Fleets that are chosen above and not archived.", "count("+each("balena_fleet_devices")+")", "short"),
			stat("Firing alerts", "Alerts on the chosen fleets and on exporters.",
				`count(ALERTS{alertstate="firing",alertname=~"Balena.+",fleet=~"$fleet|",fleet=~"$organization/.+|"}) or vector(0)`, "short").thresholds("green", step{"orange", 1}),
			stat("In service", "Devices that are in service. "+inServiceMeans, total("balena_fleet_devices_in_service"), "short"),
			stat("Failed OS updates", "Devices in service whose update of the host OS failed, until their supervisor starts again.", total("balena_fleet_devices_os_update_failed"), "short").
				thresholds("green", step{"orange", 1}),
			stat("Disconnected for a day", "Devices in service that have connected once and have not been connected for a day.", "sum("+eachDisconnected("86400")+")", "short").
				thresholds("green", step{"orange", 1}),
			stat("Lost", "Devices that are lost. "+lostMeans, "sum("+eachDisconnected("$lost")+")", "short").thresholds("text", step{"orange", 1}),
			stat("Never connected", "Devices in service that are registered and have never connected.", total("balena_fleet_devices_never_connected"), "short").
				thresholds("text", step{"orange", 1}),
			stat("Undervolted", "Connected devices that have detected undervoltage since they booted.", total("balena_fleet_devices_undervolted"), "short").
				thresholds("green", step{"orange", 1}),
		}},
		row{height: 9, panels: []*Panel{
			areas("Devices by status", "Devices of the chosen fleets by overall status. "+operationalMeans,
				over(totalBy("balena_fleet_devices_by_status", "status"), "{{status}}")).colors(statusColors).wide(),
			bars("Disconnected devices by fleet", "The ten fleets with the most devices in use that are not connected. "+inUseMeans,
				now("topk(10, "+eachInUse()+" - "+each("balena_fleet_devices_in_service_connected")+" > 0)", "{{fleet}}")).
				linked(link("Open the fleet", "/d/balena-fleet"+keepContext+"&var-fleet=${__field.labels.fleet:percentencode}")),
			alertsTable("Alerts that fire for the chosen fleets and for exporters, which have no fleet.", `fleet=~"$fleet|",fleet=~"$organization/.+|"`,
				column{field: "fleet", title: "Fleet", links: fleetLink}),
		}},
		row{height: 12, panels: []*Panel{
			table("Fleets", "One row for each fleet. Connected is a share of the devices in use, online and operational are shares of the connected devices, on target release is one of all devices.", "Connected", false, []column{
				{field: "fleet", title: "Fleet", links: fleetLink, width: 240},
				{field: "device_type", title: "Device type"},
				{field: value("B"), title: "Devices", unit: "short", width: 80},
				{field: value("C"), title: "Connected", unit: "percentunit", colors: goodShare(), width: 100},
				{field: value("D"), title: "Online", unit: "percentunit", colors: goodShare(), width: 90},
				{field: value("E"), title: "Operational", unit: "percentunit", colors: goodShare(), width: 100},
				{field: value("F"), title: "On target release", unit: "percentunit", colors: goodShare(), width: 140},
				{field: "release_version", title: "Target release"},
				{field: value("H"), title: "Disconnected for a day", unit: "short", colors: []step{{color: "text"}, {"orange", 1}}, width: 170},
				{field: value("I"), title: "Lost", unit: "short", width: 80},
				{field: value("J"), title: "Never connected", unit: "short", width: 130},
			},
				rowsOf("max by (fleet, device_type) (balena_fleet_info{archived=\"false\","+chosenMatchers+"})"+notArchived),
				rowsOf(each("balena_fleet_devices")),
				rowsOf(shareInUse(each("balena_fleet_devices_in_service_connected"))),
				rowsOf(shareConnected(each("balena_fleet_devices_online"))),
				rowsOf(shareConnected(eachOperational())),
				rowsOf(each("balena_fleet_devices_on_target_release")+" / ("+each("balena_fleet_devices")+" > 0)"),
				rowsOf("max by (fleet, release_version) (balena_fleet_target_release_info"+chosen+")"+notArchived),
				rowsOf(eachDisconnected("86400")),
				rowsOf(eachDisconnected("$lost")),
				rowsOf(each("balena_fleet_devices_never_connected")),
			),
		}},
		row{title: "Reliability", height: 9, panels: []*Panel{
			bars("Lowest availability over 30 days", "The ten fleets with the lowest availability. "+availableMeans+" The alert rules record it.",
				now("bottomk(10, "+eachAvailable()+")", "{{fleet}}")).ratio().linked(link("Open the fleet", "/d/balena-fleet"+keepContext+"&var-fleet=${__field.labels.fleet:percentencode}")),
			lines("Availability over 30 days", "Availability of the ten fleets with the lowest one. "+availableMeans+" The alert rules record it.", "percentunit",
				over("bottomk(10, "+eachAvailable()+")", "{{fleet}}")).ratio(),
			lines("Reconnected devices", "Share of the devices in service whose VPN connected anew within an hour, of the ten fleets with the highest one. Many at once are a restart or re-balance of the server. The alert rules record it.", "percentunit",
				over("topk(10, max by (fleet) (balena:fleet_reconnected_devices:ratio1h"+chosen+"))", "{{fleet}}")).ratio(),
		}},
		row{title: "Rollouts", height: 9, panels: []*Panel{
			lines("On target release", "Share of all devices that are on their target release. It drops when a release comes out and rises while devices update.", "percentunit",
				over(ofAll("balena_fleet_devices_on_target_release"), "on target release")).ratio(),
			table("Unfinished rollouts", "The twenty fleets with the most devices that are not on their target release.", "Not on target release", true, []column{
				{field: "fleet", title: "Fleet", links: fleetLink},
				{field: value("A"), title: "Not on target release", unit: "short", width: 160},
				{field: value("B"), title: "Target release created", unit: "dateTimeFromNow", width: 170},
			},
				rowsOf("topk(20, "+each("balena_fleet_devices")+" - "+each("balena_fleet_devices_on_target_release")+" > 0)"),
				rowsOf("1000 * "+each("balena_fleet_target_release_created_timestamp_seconds"))),
			table("Failed builds", "Fleets whose latest release failed to build.", "Fleet", false, []column{
				{field: "fleet", title: "Fleet", links: fleetLink},
				{field: "status", title: "Status", width: 120},
			}, rowsOf(`max by (fleet, status) (balena_fleet_latest_release_status{status!~"success|running",`+chosenMatchers+"}) == 1"+notArchived)),
		}},
		row{title: "Devices", height: 9, panels: []*Panel{
			lines("Disconnected for at least", "Devices that have connected once and have not been connected for at least so long. Each line includes those of longer times.", "short",
				over(totalBy("balena_fleet_devices_disconnected_longer_than", "seconds"), "{{seconds}} s")).
				named([2]string{"3600 s", "1 hour"}, [2]string{"86400 s", "1 day"}, [2]string{"604800 s", "7 days"}, [2]string{"2592000 s", "30 days"}),
			bars("Device types", "The fifteen most frequent device types.",
				now("topk(15, "+totalBy("balena_fleet_devices_by_device_type", "device_type")+")", "{{device_type}}")),
			bars("OS versions", "The fifteen most frequent versions of the host OS.",
				now("topk(15, "+totalBy("balena_fleet_devices_by_os_version", "os_version, os_variant")+")", "{{os_version}} {{os_variant}}")),
			bars("Supervisor versions", "The fifteen most frequent versions of the supervisor.",
				now("topk(15, "+totalBy("balena_fleet_devices_by_supervisor_version", "supervisor_version")+")", "{{supervisor_version}}")),
		}},
	).annotate(
		firing(chosenMatchers+`,severity="critical"`, "fleet", "{{fleet}}"),
		rollouts(chosenMatchers, false), // of many fleets there are too many to begin with
	)
}
