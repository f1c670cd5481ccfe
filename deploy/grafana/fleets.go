// SPDX-License-Identifier: Apache-2.0

package grafana

// Matchers of the fleets that are selected by variables. A slug begins with the organization.
const (
	selectedMatchers = `fleet=~"$fleet",fleet=~"$organization/.+"`
	selected         = "{" + selectedMatchers + "}"
)

// notArchived excludes archived fleets, like the alerts.
const notArchived = ` unless on (fleet) balena_fleet_info{archived="true"}`

// each returns an expression for a metric of each selected fleet.
func each(metric string) string { return eachOf(metric + selected) }

// eachOf returns an expression for a selector, by fleet.
func eachOf(selector string) string { return "(max by (fleet) (" + selector + ")" + notArchived + ")" }

// eachDisconnected returns the number of devices of each selected fleet that have been disconnected for a time.
func eachDisconnected(seconds string) string {
	return eachOf(`balena_fleet_devices_disconnected_longer_than{seconds="` + seconds + `",` + selectedMatchers + "}")
}

var (
	// eachAvailable is the availability of each selected fleet, which the alert rules record.
	eachAvailable = "max by (fleet) (balena:fleet_availability:ratio30d" + selected + ")"
	// eachInUse is the number of devices in use of each selected fleet.
	eachInUse = inUse(each, eachDisconnected)
	// eachOperational is the number of operational devices of each selected fleet.
	eachOperational = eachOf(`balena_fleet_devices_by_status{status="operational",` + selectedMatchers + "}")
)

// inUse returns the number of devices in use, as in the alerts, from expressions for metrics of fleets.
func inUse(of, disconnected func(string) string) string {
	inService := of("balena_fleet_devices_in_service")
	return "(" + inService + " - " + of("balena_fleet_devices_never_connected") + " - (" + disconnected("$lost") + " or 0 * " + inService + "))"
}

// share returns the share of a part in a whole. Without a whole, there is none.
func share(part, whole string) string { return part + " / (" + whole + " > 0)" }

// total returns the sum of a metric over all selected fleets.
func total(metric string) string { return "sum(" + each(metric) + ")" }

// totalBy returns the sum of a metric over all selected fleets, by labels.
func totalBy(metric, labels string) string {
	return "sum by (" + labels + ") (max by (fleet, " + labels + ") (" + metric + selected + ")" + notArchived + ")"
}

// eachBehind selects the fleets with devices whose release of balenaOS is outdated, unsupported or invalidated.
func eachBehind(expr string) string {
	return expr + " and on (fleet) (" + each("balena_fleet_devices_os_outdated") + " + " + each("balena_fleet_devices_os_unsupported") + " + " + each("balena_fleet_devices_os_invalidated") + " > 0)"
}

func fleetsDashboard() *Dashboard {
	return newDashboard(
		"balena-fleets", "balena / Fleets", "All fleets: connected devices, rollouts of releases, and firing alerts. Archived fleets are excluded, as in the alerts.",
		[]*Variable{
			datasourceVariable, organizationVariable,
			tagVariable, tagValueVariable, fleetVariable(`,archived="false"`).several(""), lostVariable,
		},
		row{height: 4, panels: []*Panel{
			stat("Devices", "All devices of the selected fleets.", total("balena_fleet_devices"), "short"),
			stat("Connected", "Share of the devices in use that are connected. "+connectedMeans+" "+inUseMeans, share(total("balena_fleet_devices_in_service_connected"), "sum("+eachInUse+")"), "percentunit").thresholds(goodShare),
			stat("Online", "Share of the connected devices that are online. "+onlineMeans, share(total("balena_fleet_devices_online"), total("balena_fleet_devices_connected")), "percentunit").thresholds(goodShare),
			stat("Operational", "Share of the connected devices that are operational. "+operationalMeans, share("sum("+eachOperational+")", total("balena_fleet_devices_connected")), "percentunit").thresholds(goodShare),
			stat("Healthy", "Share of the devices in service that are healthy. "+healthyMeans, share(total("balena_fleet_devices_healthy"), total("balena_fleet_devices_in_service")), "percentunit").thresholds(goodShare),
			stat("On target release", "Share of all devices that are on their target release. "+onTargetMeans, share(total("balena_fleet_devices_on_target_release"), total("balena_fleet_devices")), "percentunit").thresholds(goodShare),
			stat("Age of the oldest data", "Age of the data of the exporter with the oldest data. Normally it is less than twice the refresh interval, which is 60 s by default.",
				"time() - min(balena_exporter_last_refresh_success_timestamp_seconds)", "s").thresholds(dataAge),
		}},
		row{height: 4, panels: []*Panel{
			stat("Fleets", "Selected fleets that are not archived.", "count("+each("balena_fleet_devices")+")", "short"),
			stat("Firing alerts", "Alerts on the selected fleets and on exporters.",
				`count(ALERTS{alertstate="firing",alertname=~"Balena.+",fleet=~"$fleet|",fleet=~"$organization/.+|"}) or vector(0)`, "short").thresholds(noneIsGood),
			stat("In service", "Devices that are in service. "+inServiceMeans, total("balena_fleet_devices_in_service"), "short"),
			stat("Failed OS updates", "Devices in service whose last host OS update failed. They are counted until the supervisor starts.", total("balena_fleet_devices_os_update_failed"), "short").
				thresholds(noneIsGood),
			stat("Disconnected for a day", "Devices in service that were connected before and have been disconnected for at least a day.", "sum("+eachDisconnected("86400")+")", "short").
				thresholds(noneIsGood),
			stat("Lost", "Devices that are lost. "+lostMeans, "sum("+eachDisconnected("$lost")+")", "short").thresholds(someIsBad),
			stat("Never connected", "Devices in service that have not connected since their registration.", total("balena_fleet_devices_never_connected"), "short").
				thresholds(someIsBad),
			stat("Undervolted", "Connected devices that reported an undervoltage since their last boot.", total("balena_fleet_devices_undervolted"), "short").
				thresholds(noneIsGood),
		}},
		row{height: 9, panels: []*Panel{
			areas("Devices by status", "Devices of the selected fleets by overall status. "+operationalMeans,
				over(totalBy("balena_fleet_devices_by_status", "status"), "{{status}}")).colors(statusColors).wide(),
			bars("Disconnected devices by fleet", "The ten fleets with the most disconnected devices in use. "+inUseMeans,
				now("topk(10, "+eachInUse+" - "+each("balena_fleet_devices_in_service_connected")+" > 0)", "{{fleet}}")).
				linked(seriesToFleet),
			alertsTable("Firing alerts on the selected fleets and on exporters.", `fleet=~"$fleet|",fleet=~"$organization/.+|"`,
				column{title: "Fleet", label: "fleet", links: []options{rowToFleet}}),
		}},
		row{height: 12, panels: []*Panel{
			table("Fleets", "One row per fleet. Connected is the share of devices in use, online and operational are shares of connected devices, on target release is the share of all devices.", "Connected", false,
				column{title: "Fleet", label: "fleet", links: []options{rowToFleet}, width: 240},
				column{title: "Device type", label: "device_type", query: "max by (fleet, device_type) (balena_fleet_info{archived=\"false\"," + selectedMatchers + "})" + notArchived},
				column{title: "Devices", query: each("balena_fleet_devices"), unit: "short", width: 80},
				column{title: "Connected", query: share(each("balena_fleet_devices_in_service_connected"), eachInUse), unit: "percentunit", colors: goodShare, width: 100},
				column{title: "Online", query: share(each("balena_fleet_devices_online"), each("balena_fleet_devices_connected")), unit: "percentunit", colors: goodShare, width: 90},
				column{title: "Operational", query: share(eachOperational, each("balena_fleet_devices_connected")), unit: "percentunit", colors: goodShare, width: 100},
				column{title: "On target release", query: share(each("balena_fleet_devices_on_target_release"), each("balena_fleet_devices")), unit: "percentunit", colors: goodShare, width: 140},
				column{title: "Target release", label: "release_version", query: "max by (fleet, release_version) (balena_fleet_target_release_info" + selected + ")" + notArchived},
				column{title: "Disconnected for a day", query: eachDisconnected("86400"), unit: "short", colors: someIsBad, width: 170},
				column{title: "Lost", query: eachDisconnected("$lost"), unit: "short", width: 80},
				column{title: "Never connected", query: each("balena_fleet_devices_never_connected"), unit: "short", width: 130},
			),
		}},
		row{title: "Reliability", height: 9, panels: []*Panel{
			bars("Lowest availability over 30 days", "The ten fleets with the lowest availability. "+availableMeans+" The alert rules record this value.",
				now("bottomk(10, "+eachAvailable+")", "{{fleet}}")).ratio().linked(seriesToFleet),
			lines("Availability over 30 days", "Availability of the ten fleets with the lowest availability. "+availableMeans+" The alert rules record this value.", "percentunit",
				over("bottomk(10, "+eachAvailable+")", "{{fleet}}")).ratio(),
			lines("Reconnected devices", "Share of the devices in service whose VPN reconnected within an hour, for the ten fleets with the highest share. If many devices reconnect at once, the server was restarted or rebalanced. The alert rules record this value.", "percentunit",
				over("topk(10, max by (fleet) (balena:fleet_reconnected_devices:ratio1h"+selected+"))", "{{fleet}}")).ratio(),
		}},
		row{title: "Rollouts", height: 9, panels: []*Panel{
			lines("On target release", "Share of all devices that are on their target release. It decreases when the target release changes, and increases while devices update.", "percentunit",
				over(share(total("balena_fleet_devices_on_target_release"), total("balena_fleet_devices")), "on target release")).ratio(),
			table("Unfinished rollouts", "The 20 fleets with the most devices that are not on their target release.", "Not on target release", true,
				column{title: "Fleet", label: "fleet", links: []options{rowToFleet}},
				column{title: "Not on target release", query: "topk(20, " + each("balena_fleet_devices") + " - " + each("balena_fleet_devices_on_target_release") + " > 0)", unit: "short", width: 160},
				column{title: "Target release created", query: "1000 * " + each("balena_fleet_target_release_created_timestamp_seconds"), unit: "dateTimeFromNow", width: 170},
			),
			table("Failed builds", "Fleets whose latest release build failed.", "Fleet", false,
				column{title: "Fleet", label: "fleet", links: []options{rowToFleet}},
				column{title: "Status", label: "status", query: `max by (fleet, status) (balena_fleet_latest_release_status{status!~"success|running",` + selectedMatchers + "}) == 1" + notArchived, width: 120},
			),
		}},
		row{title: "Devices", height: 9, panels: []*Panel{
			lines("Disconnected for at least", "Devices that were connected before and have been disconnected for at least this time. Each line includes devices with longer times.", "short",
				over(totalBy("balena_fleet_devices_disconnected_longer_than", "seconds"), "{{seconds}} s")).
				named([2]string{"3600 s", "1 hour"}, [2]string{"86400 s", "1 day"}, [2]string{"604800 s", "7 days"}, [2]string{"2592000 s", "30 days"}),
			bars("Device types", "The 15 most common device types.",
				now("topk(15, "+totalBy("balena_fleet_devices_by_device_type", "device_type")+")", "{{device_type}}")),
			bars("OS versions", "The 15 most common versions of the host OS.",
				now("topk(15, "+totalBy("balena_fleet_devices_by_os_version", "os_version, os_variant")+")", "{{os_version}} {{os_variant}}")),
			bars("Supervisor versions", "The 15 most common versions of the supervisor.",
				now("topk(15, "+totalBy("balena_fleet_devices_by_supervisor_version", "supervisor_version")+")", "{{supervisor_version}}")),
		}},
		row{title: "Releases of balenaOS", height: 9, panels: []*Panel{
			areas("balenaOS releases by age", "Devices by the age of their release of balenaOS. Devices with a custom build are not counted. The alert rules record this value.",
				over(totalBy("balena:fleet_devices_by_os_release_age", "age"), "{{age}}")).colors(ageColors).
				empty("Needs the alert rules, the metrics of devices, and a server that publishes releases of balenaOS, as balenaCloud does."),
			table("Fleets behind on balenaOS", "Fleets with devices in service whose release of balenaOS is outdated, unsupported or invalidated. Outdated: a newer release is published for the device. Unsupported: the support of the release has ended.",
				"Unsupported", true,
				column{title: "Fleet", label: "fleet", links: []options{rowToFleet}},
				column{title: "In service", query: eachBehind(each("balena_fleet_devices_in_service")), unit: "short", width: 110},
				column{title: "Outdated", query: eachBehind(each("balena_fleet_devices_os_outdated")), unit: "short", width: 110},
				column{title: "Unsupported", query: eachBehind(each("balena_fleet_devices_os_unsupported")), unit: "short", colors: someIsBad, width: 110},
				column{title: "Invalidated", query: eachBehind(each("balena_fleet_devices_os_invalidated")), unit: "short", colors: someIsBad, width: 110},
			).thenBy("Outdated").wide().
				empty("No fleet is behind, or the server publishes no releases of balenaOS. balenaCloud publishes them."),
		}},
	).annotate(
		firing(selectedMatchers+`,severity="critical"`, "fleet", "{{fleet}}"),
		rollouts(selectedMatchers, false), // disabled by default, because many fleets have many rollouts
	)
}
