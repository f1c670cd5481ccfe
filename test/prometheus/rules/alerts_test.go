// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"math"
)

// well is the state of an exporter with two fleets without problems.
var well = state{
	`balena_up{}`: constant(1),
	`balena_exporter_last_refresh_success_timestamp_seconds{}`: now,
	`balena_fleets{}`: constant(2),
	`balena_exporter_refresh_part_success{part="release"}`:           constant(1),
	`balena_exporter_incremental_refresh_disabled{reason="refused"}`: constant(0),
	`balena_api_rate_limited_total{}`:                                constant(0),
	`balena_api_key_expiry_timestamp_seconds{key_name="ci"}`:         constant(100 * day),

	`balena_organization_info{organization="acme"}`:   constant(1),
	`balena_organization_frozen{organization="acme"}`: constant(0),
	pumpsInfo: constant(1),
	`balena_fleet_devices{fleet="acme/pumps"}`:                                            constant(110),
	`balena_fleet_devices_in_service{fleet="acme/pumps"}`:                                 constant(110),
	`balena_fleet_devices_in_service_connected{fleet="acme/pumps"}`:                       constant(100),
	`balena_fleet_devices_never_connected{fleet="acme/pumps"}`:                            constant(10),
	`balena_fleet_devices_frozen{fleet="acme/pumps"}`:                                     constant(0),
	`balena_fleet_devices_disconnected_longer_than{fleet="acme/pumps",seconds="604800"}`:  constant(0),
	`balena_fleet_devices_disconnected_longer_than{fleet="acme/pumps",seconds="3600"}`:    constant(0),
	`balena_fleet_devices_by_os_version{fleet="acme/pumps",os_version="6",os_variant=""}`: constant(110),
	`balena_fleet_target_release_created_timestamp_seconds{fleet="acme/pumps"}`:           constant(-2 * day),
	`balena_fleet_latest_release_created_timestamp_seconds{fleet="acme/pumps"}`:           constant(-2 * day),
	`balena_fleet_latest_release_status{fleet="acme/pumps",status="failed"}`:              constant(0),
	`balena_fleet_latest_release_status{fleet="acme/pumps",status="success"}`:             constant(1),

	`balena_fleet_info{fleet="acme/valves",archived="false"}`: constant(1),
	`balena_fleet_devices{fleet="acme/valves"}`:               constant(1),

	deviceInfo("6.5.10", "17.0.3"):                                                                        constant(1),
	`balena_device_online{fleet="acme/pumps",uuid="c0ffee"}`:                                              constant(1),
	`balena_device_out_of_service{fleet="acme/pumps",uuid="5afe"}`:                                        constant(1), // another device
	`balena_device_connected{fleet="acme/pumps",uuid="c0ffee"}`:                                           constant(1),
	`balena_device_connectivity_change_timestamp_seconds{fleet="acme/pumps",uuid="c0ffee"}`:               constant(-2 * hour),
	`balena_device_created_timestamp_seconds{fleet="acme/pumps",uuid="c0ffee"}`:                           constant(-100 * day),
	`balena_device_status{fleet="acme/pumps",uuid="c0ffee",status="operational"}`:                         constant(1),
	`balena_device_update_status{fleet="acme/pumps",uuid="c0ffee",update_status="done"}`:                  constant(1),
	`balena_device_update_status_change_timestamp_seconds{fleet="acme/pumps",uuid="c0ffee"}`:              constant(-3 * hour),
	`balena_device_on_target_release{fleet="acme/pumps",uuid="c0ffee"}`:                                   constant(1),
	`balena_device_storage_used_bytes{fleet="acme/pumps",uuid="c0ffee"}`:                                  constant(50),
	`balena_device_storage_size_bytes{fleet="acme/pumps",uuid="c0ffee"}`:                                  constant(100),
	`balena_device_memory_used_bytes{fleet="acme/pumps",uuid="c0ffee"}`:                                   constant(50),
	`balena_device_memory_size_bytes{fleet="acme/pumps",uuid="c0ffee"}`:                                   constant(100),
	`balena_device_cpu_temperature_celsius{fleet="acme/pumps",uuid="c0ffee"}`:                             constant(50),
	`balena_device_undervolted{fleet="acme/pumps",uuid="c0ffee"}`:                                         constant(0),
	`balena_device_services{fleet="acme/pumps",uuid="c0ffee"}`:                                            constant(3),
	`balena_device_services_running{fleet="acme/pumps",uuid="c0ffee"}`:                                    constant(2),
	`balena_device_services_exited{fleet="acme/pumps",uuid="c0ffee"}`:                                     constant(1),
	`balena_device_service_status{fleet="acme/pumps",uuid="c0ffee",service_name="main",status="Running"}`: constant(1),
}

// pumpsInfo is the info metric of the fleet.
const pumpsInfo = `balena_fleet_info{fleet="acme/pumps",fleet_id="7",organization="acme",archived="false"}`

// deviceInfo returns the info metric of the device with versions.
func deviceInfo(os, supervisor string) string {
	return fmt.Sprintf(`balena_device_info{fleet="acme/pumps",uuid="c0ffee",device_name="Pump 7",os_version=%q,supervisor_version=%q}`, os, supervisor)
}

const (
	hour = 3600
	day  = 24 * hour
)

// alert is an alert and the states that fire it, as differences from well.
type alert struct {
	name, severity string
	// labels are the expected labels except severity; summary and description are the expected annotations.
	labels               map[string]string
	summary, description string
	// good is added to well. bad fires the alert, nearly must not fire it.
	good, bad, nearly state
	nearlyMeans       string
	// after is the number of minutes of bad after which the alert fires. resolves is the number of minutes of good after which it
	// ends.
	after, resolves int
	// kept is set if the alert continues while there are no data.
	kept bool
}

func ofJob(more ...string) map[string]string {
	return labelSet(append(more, "job", "balena-exporter")...)
}

func ofFleet(problem string, more ...string) map[string]string {
	return labelSet(append(more, "fleet", "acme/pumps", "problem", problem)...)
}

func ofDevice(problem string) map[string]string { return ofFleet(problem, "uuid", "c0ffee") }

func labelSet(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

var alerts = []alert{
	{
		name: "BalenaAPIFailing", severity: "warning", labels: ofJob(),
		summary:     "balena-exporter cannot read the balena API.",
		description: "Refreshes fail. The exporter's log has the cause. The exporter serves its last data for 5m, then no data of fleets and devices.",
		bad:         state{`balena_up{}`: constant(0)},
		nearly:      state{`balena_up{}`: func(minute int) float64 { return float64(min(minute%8, 1)) }},
		nearlyMeans: "some refreshes succeed",
		after:       10,
	},
	{
		name: "BalenaDataStale", severity: "critical", labels: ofJob(),
		summary:     "The fleet data of balena-exporter are 17m 0s old.",
		description: "The exporter serves data for 5m after the last refresh. After that, fleets and devices have no series. New alerts on them cannot start, and firing alerts end after an hour.",
		good:        state{`balena_exporter_last_refresh_success_timestamp_seconds{}`: func(minute int) float64 { return now(minute) - 600 }},
		bad:         state{`balena_exporter_last_refresh_success_timestamp_seconds{}`: constant(-360)},
		nearly:      state{`balena_exporter_last_refresh_success_timestamp_seconds{}`: func(minute int) float64 { return now(minute) - 900 }},
		nearlyMeans: "the data are 15 minutes old",
		after:       6,
	},
	{
		name: "BalenaNoFleets", severity: "critical", labels: ofJob(),
		summary:     "balena-exporter reads no fleets.",
		description: "The token has no access to any fleet, or --balena.fleet-include and --balena.fleet-exclude exclude all fleets. There are no data of fleets and devices, and alerts on them cannot start.",
		bad:         state{`balena_fleets{}`: constant(0)},
		nearly:      state{`balena_fleets{}`: constant(0), `balena_up{}`: constant(0)},
		nearlyMeans: "it cannot read the API, so the number of fleets is unknown",
		after:       15,
	},
	{
		name: "BalenaAPIRateLimited", severity: "warning", labels: ofJob(),
		summary:     "The balena API limits the rate of requests of balena-exporter.",
		description: "About 8 requests got status 429 in 30 minutes. The exporter waits as long as the API requests, so the data can be older than the refresh interval.",
		bad:         state{`balena_api_rate_limited_total{}`: func(minute int) float64 { return float64(max(0, minute-lead+1)) }},
		nearly:      state{`balena_api_rate_limited_total{}`: func(minute int) float64 { return float64(minute / 20) }},
		nearlyMeans: "there is a response 429 occasionally",
		after:       7, resolves: 30,
	},
	{
		name: "BalenaAPIKeyExpiring", severity: "warning", labels: ofJob("key_name", "ci"),
		summary:     "The API key ci expires in 9d 23h 50m 0s.",
		description: "The key belongs to the account that balena-exporter uses. If the exporter uses this key, its refreshes fail after the expiry.",
		bad:         state{`balena_api_key_expiry_timestamp_seconds{key_name="ci"}`: constant(10 * day)},
		nearly:      state{`balena_api_key_expiry_timestamp_seconds{key_name="ci"}`: constant(-2 * day)},
		nearlyMeans: "the key expired long ago, so it is not in use",
		after:       5,
	},
	{
		name: "BalenaTokenExpiring", severity: "warning", labels: ofJob(),
		summary:     "The session token of balena-exporter expires in 23h 50m 0s.",
		description: "After the expiry, refreshes fail. API keys can be valid for longer.",
		good:        state{`balena_api_token_expiry_timestamp_seconds{}`: constant(7 * day)},
		bad:         state{`balena_api_token_expiry_timestamp_seconds{}`: constant(day)},
		nearly:      state{`balena_api_token_expiry_timestamp_seconds{}`: constant(3 * day)},
		nearlyMeans: "it is valid for days",
		after:       5,
	},
	{
		name: "BalenaRefreshPartFailing", severity: "warning", labels: ofJob("part", "release"),
		summary:     "The part release of the refresh fails in balena-exporter.",
		description: "Other parts are not affected. The last data of the part are served for 5m after the first failure. After that, its metrics are missing, and alerts on them cannot start.",
		bad:         state{`balena_exporter_refresh_part_success{part="release"}`: constant(0)},
		nearly:      state{`balena_exporter_refresh_part_success{part="release"}`: func(minute int) float64 { return float64(min(minute%12, 1)) }},
		nearlyMeans: "it sometimes succeeds",
		after:       15,
	},
	{
		name: "BalenaIncrementalRefreshDisabled", severity: "info", labels: ofJob(),
		summary:     "balena-exporter reads all data in every refresh.",
		description: "The data are correct. The balena API does not report changes reliably, so every refresh is a full refresh, which is expensive for the API and the exporter.",
		bad:         state{`balena_exporter_incremental_refresh_disabled{reason="refused"}`: constant(1)},
		nearly: state{`balena_exporter_incremental_refresh_disabled{reason="refused"}`: func(minute int) float64 {
			if minute%1200 < 15 {
				return 0
			}
			return 1
		}},
		nearlyMeans: "it is enabled occasionally",
		after:       1440,
	},

	{
		name: "BalenaDevicesFrozen", severity: "critical", labels: labelSet("organization", "acme", "problem", "BalenaDevicesFrozen"),
		summary:     "Devices of the organization acme that are frozen: 10.",
		description: "balenaCloud no longer serves these devices, because an invoice is overdue or the plan does not cover them. They appear offline. No other alert fires for them.",
		bad:         state{`balena_fleet_devices_frozen{fleet="acme/pumps"}`: constant(10)},
		nearly:      state{`balena_organization_frozen{organization="other"}`: constant(1)},
		nearlyMeans: "another organization is frozen",
		after:       5, kept: true,
	},
	{
		name: "BalenaInvoicePastDue", severity: "warning", labels: labelSet("organization", "acme"),
		summary:     "An invoice of the organization acme has been overdue for 3d 0h 20m 0s.",
		description: "balenaCloud freezes the devices of an organization with unpaid invoices. Frozen devices cannot be reached and get no updates.",
		bad:         state{`balena_organization_past_due_since_timestamp_seconds{organization="acme"}`: constant(-3 * day)},
		nearly: state{
			`balena_organization_past_due_since_timestamp_seconds{organization="acme"}`: constant(-3 * day),
			`balena_fleet_devices_frozen{fleet="acme/pumps"}`:                           constant(10),
		},
		nearlyMeans: "BalenaDevicesFrozen fires instead",
		after:       15, resolves: 10,
	},
	{
		name: "BalenaFleetLargelyOffline", severity: "critical", labels: ofFleet("BalenaFleetLargelyOffline"),
		summary:     "50% of the devices of acme/pumps are offline.",
		description: "This is the percentage of the devices in use that are not connected. There are no separate alerts for these devices.",
		bad:         state{`balena_fleet_devices_in_service_connected{fleet="acme/pumps"}`: constant(50)},
		nearly:      state{`balena_fleet_devices_in_service_connected{fleet="acme/pumps"}`: constant(51)},
		nearlyMeans: "less than half of the devices are offline",
		after:       5, kept: true,
	},
	{
		name: "BalenaFleetPartlyOffline", severity: "warning", labels: ofFleet("BalenaFleetPartlyOffline"),
		summary:     "20% of the devices of acme/pumps are offline.",
		description: "This is the percentage of the devices in use that are not connected. There are no separate alerts for these devices.",
		bad:         state{`balena_fleet_devices_in_service_connected{fleet="acme/pumps"}`: constant(80)},
		nearly:      state{`balena_fleet_devices_in_service_connected{fleet="acme/pumps"}`: constant(81)},
		nearlyMeans: "less than a fifth of the devices are offline",
		after:       5, kept: true,
	},
	{
		name: "BalenaManyDevices", severity: "warning", labels: ofFleet("BalenaDeviceOverheating"),
		summary:     "BalenaDeviceOverheating holds for 51 devices of acme/pumps.",
		description: `There are too many of them for separate alerts. The query balena:problem{fleet="acme/pumps", problem="BalenaDeviceOverheating"} lists them.`,
		bad:         overheating(51),
		nearly:      overheating(50),
		nearlyMeans: "the number of devices is at the limit",
		after:       30, kept: true,
	},
	{
		name: "BalenaFleetShrank", severity: "warning", labels: ofFleet("BalenaFleetShrank"),
		summary:     "acme/pumps has 10% fewer devices than within the last day.",
		description: "Devices were deleted or moved to other fleets. This alert ends a day after the last change.",
		bad:         state{`balena_fleet_devices{fleet="acme/pumps"}`: constant(99)},
		nearly:      state{`balena_fleet_devices{fleet="acme/pumps"}`: constant(100)},
		nearlyMeans: "less than a tenth of the devices were removed",
		after:       5, kept: true,
	},
	{
		name: "BalenaFleetGone", severity: "warning", labels: labelSet("fleet", "acme/pumps"),
		summary:     "The fleet acme/pumps has disappeared.",
		description: "It was deleted or renamed, or the token has no access to it any more, or the exporter is configured to exclude it. This alert ends a day after the last data of the fleet.",
		bad: state{
			`balena_fleet_devices{fleet="acme/pumps"}`: gone,
			pumpsInfo: gone,
		},
		nearly: state{
			`balena_up{}`: constant(0),
			`balena_fleet_devices{fleet="acme/pumps"}`:  gone,
			`balena_fleet_devices{fleet="acme/valves"}`: gone,
		},
		nearlyMeans: "the API fails, and there are no data of any fleet",
		after:       15,
	},
	{
		name: "BalenaDevicesLost", severity: "info", labels: ofFleet("BalenaDevicesLost"),
		summary:     "Devices of acme/pumps that have been offline for more than 7d 0h 0m 0s: 3.",
		description: "There are no separate alerts for these devices any more.",
		bad:         state{`balena_fleet_devices_disconnected_longer_than{fleet="acme/pumps",seconds="604800"}`: constant(3)},
		nearly:      state{`balena_fleet_devices_disconnected_longer_than{fleet="acme/pumps",seconds="3600"}`: constant(3)},
		nearlyMeans: "they have been offline for hours",
		after:       5, kept: true,
	},
	{
		name: "BalenaDevicesNeverConnected", severity: "info", labels: ofFleet("BalenaDevicesNeverConnected"),
		summary:     "Devices of acme/pumps that have never connected: 1.",
		description: "They were registered more than 1d 0h 0m 0s ago and have never connected.",
		bad: state{
			`balena_device_connected{fleet="acme/pumps",uuid="c0ffee"}`:                             constant(0),
			`balena_device_connectivity_change_timestamp_seconds{fleet="acme/pumps",uuid="c0ffee"}`: gone,
		},
		nearly: state{
			`balena_device_connected{fleet="acme/pumps",uuid="c0ffee"}`:                             constant(0),
			`balena_device_connectivity_change_timestamp_seconds{fleet="acme/pumps",uuid="c0ffee"}`: gone,
			`balena_device_created_timestamp_seconds{fleet="acme/pumps",uuid="c0ffee"}`:             constant(-hour),
		},
		nearlyMeans: "the device was registered this hour",
		after:       5, kept: true,
	},
	{
		name: "BalenaRolloutNotConverging", severity: "warning", labels: ofFleet("BalenaRolloutNotConverging"),
		summary:     "Only 0% of the connected devices of acme/pumps run their target release.",
		description: "The target release of the fleet has been the same for 1d 0h 0m 0s.",
		bad:         state{`balena_device_on_target_release{fleet="acme/pumps",uuid="c0ffee"}`: constant(0)},
		nearly: state{
			`balena_device_on_target_release{fleet="acme/pumps",uuid="c0ffee"}`:         constant(0),
			`balena_fleet_target_release_created_timestamp_seconds{fleet="acme/pumps"}`: constant(-3 * day),
		},
		nearlyMeans: "the target release has just been changed to an old release",
		after:       30, kept: true,
	},
	{
		name: "BalenaReleaseBuildFailed", severity: "info", labels: ofFleet("BalenaReleaseBuildFailed"),
		summary:     "The latest release build of acme/pumps failed.",
		description: "Devices keep running their current release. This alert ends at the next build, or 7d 0h 0m 0s after this one.",
		bad:         buildFailed,
		nearly:      buildFailed.with(state{`balena_fleet_latest_release_created_timestamp_seconds{fleet="acme/pumps"}`: constant(-8 * day)}),
		nearlyMeans: "the failed build is old",
		after:       5, kept: true,
	},
	{
		name: "BalenaDevelopmentOS", severity: "info", labels: ofFleet("BalenaDevelopmentOS"),
		summary:     "Devices of acme/pumps with a development variant of the OS: 5.",
		description: "Development variants allow root logins from the local network without authentication.",
		bad: state{
			`balena_fleet_devices_by_os_version{fleet="acme/pumps",os_version="5",os_variant="dev"}`: constant(2),
			`balena_fleet_devices_by_os_version{fleet="acme/pumps",os_version="6",os_variant="dev"}`: constant(3),
		},
		nearly:      state{`balena_fleet_devices_by_os_version{fleet="acme/pumps",os_version="5",os_variant="prod"}`: constant(2)},
		nearlyMeans: "there are no development variants",
		after:       15, kept: true,
	},
	{
		name: "BalenaOSUnsupported", severity: "warning", labels: ofFleet("BalenaOSUnsupported"),
		summary:     "Devices of acme/pumps whose release of balenaOS is no longer supported: 3.",
		description: "There are no security fixes for these releases. Update the devices to a supported ESR line or to the latest release.",
		bad:         state{`balena_fleet_devices_os_unsupported{fleet="acme/pumps"}`: constant(3)},
		nearly:      state{`balena_fleet_devices_os_unsupported{fleet="acme/pumps"}`: constant(0), `balena_fleet_devices_os_outdated{fleet="acme/pumps"}`: constant(3)},
		nearlyMeans: "their releases are old, and supported",
		after:       15, kept: true,
	},
	{
		name: "BalenaOSInvalidated", severity: "warning", labels: ofFleet("BalenaOSInvalidated"),
		summary:     "Devices of acme/pumps whose release of balenaOS was invalidated: 3.",
		description: "balena withdraws a release if it has a serious defect. Update the devices to another release.",
		bad:         state{`balena_fleet_devices_os_invalidated{fleet="acme/pumps"}`: constant(3)},
		nearly:      state{`balena_fleet_devices_os_invalidated{fleet="acme/pumps"}`: constant(0)},
		nearlyMeans: "no device runs such a release",
		after:       15, kept: true,
	},
	{
		name: "BalenaServiceRestarting", severity: "warning", labels: ofFleet("BalenaServiceRestarting", "service_name", "main"),
		summary:     "The service main of acme/pumps restarts repeatedly. Devices: 1.",
		description: "It exits after each start, or cannot be started.",
		bad:         serviceStatus("restarting"),
		nearly:      state{`balena_device_service_status{fleet="acme/pumps",uuid="c0ffee",service_name="main",status="restarting"}`: onlyIn(lead)},
		nearlyMeans: "it restarts once",
		after:       20, resolves: 10, kept: true,
	},
	{
		name: "BalenaServiceExited", severity: "info", labels: ofFleet("BalenaServiceExited", "service_name", "main"),
		summary:     "The service main of acme/pumps has exited. Devices: 1.",
		description: "The service is not restarted. Services that exit on purpose can be excluded from this alert by name.",
		bad:         serviceStatus("exited"),
		nearly:      serviceStatus("exited").with(state{`balena_device_connected{fleet="acme/pumps",uuid="c0ffee"}`: constant(0)}),
		nearlyMeans: "the device is offline, so the status is unknown",
		after:       15, kept: true,
	},

	{
		name: "BalenaDeviceOffline", severity: "warning", labels: ofDevice("BalenaDeviceOffline"),
		summary:     "Device Pump 7 (c0ffee) of acme/pumps has been offline for 2h 10m 0s.",
		description: "Its VPN is down, and it does not poll the API. This alert ends when the device connects, or when it is lost, after 7d 0h 0m 0s.",
		bad:         state{`balena_device_connected{fleet="acme/pumps",uuid="c0ffee"}`: constant(0)},
		nearly: state{
			`balena_device_connected{fleet="acme/pumps",uuid="c0ffee"}`:                             constant(0),
			`balena_device_connectivity_change_timestamp_seconds{fleet="acme/pumps",uuid="c0ffee"}`: ago(59 * 60),
		},
		nearlyMeans: "it has been offline for less than an hour",
		after:       5, kept: true,
	},
	{
		name: "BalenaDeviceReducedFunctionality", severity: "warning", labels: ofDevice("BalenaDeviceReducedFunctionality"),
		summary:     "Device Pump 7 (c0ffee) of acme/pumps has reduced functionality.",
		description: "Either it polls the API while its VPN is down, and cannot be reached by SSH or its public URL. Or its VPN is up, but it does not poll the API and gets no updates.",
		bad:         deviceStatus("reduced-functionality"),
		nearly:      deviceStatus("updating"),
		nearlyMeans: "it is updating",
		after:       30, kept: true,
	},
	{
		name: "BalenaDeviceUpdateStuck", severity: "warning", labels: ofDevice("BalenaDeviceUpdateStuck"),
		summary:     "Device Pump 7 (c0ffee) of acme/pumps has been updating without progress for 3h 10m 0s.",
		description: "The device is connected, but has not reported a new update status during this time. Supervisors report it from version 16.7.0 on.",
		bad:         updateStatus("downloading"),
		nearly:      updateStatus("downloading").with(state{`balena_device_update_status_change_timestamp_seconds{fleet="acme/pumps",uuid="c0ffee"}`: ago(119 * 60)}),
		nearlyMeans: "the update makes progress",
		after:       5, kept: true,
	},
	{
		name: "BalenaDeviceUpdateRejected", severity: "warning", labels: ofDevice("BalenaDeviceUpdateRejected"),
		summary:     "Device Pump 7 (c0ffee) of acme/pumps has rejected or aborted its update.",
		description: "The device is connected, but does not run its target release. Supervisors report the update status from version 16.7.0 on.",
		bad:         updateStatus("rejected").with(state{`balena_device_on_target_release{fleet="acme/pumps",uuid="c0ffee"}`: constant(0)}),
		nearly:      updateStatus("rejected"),
		nearlyMeans: "it runs its target release",
		after:       15, kept: true,
	},
	{
		name: "BalenaDeviceOSUpdateFailed", severity: "warning", labels: ofDevice("BalenaDeviceOSUpdateFailed"),
		summary:     "The host OS update of device Pump 7 (c0ffee) of acme/pumps failed.",
		description: "The device still runs the previous version. This alert ends when it runs another version, or 7d 0h 0m 0s after the failure.",
		bad:         osUpdate("failed"),
		nearly:      osUpdate("rebooting"),
		nearlyMeans: "the update was successful",
		after:       5, kept: true,
	},
	{
		name: "BalenaDeviceConfiguringTooLong", severity: "warning", labels: ofDevice("BalenaDeviceConfiguringTooLong"),
		summary:     "Device Pump 7 (c0ffee) of acme/pumps has been configuring for two hours.",
		description: "A host OS update does not end, or the initial configuration of the device failed.",
		bad:         deviceStatus("configuring"),
		nearly:      deviceStatus("configuring").with(osUpdate("failed")),
		nearlyMeans: "BalenaDeviceOSUpdateFailed fires instead",
		after:       120, kept: true,
	},
	{
		name: "BalenaServiceNotRunning", severity: "warning", labels: ofDevice("BalenaServiceNotRunning"),
		summary:     "Device Pump 7 (c0ffee) of acme/pumps does not run all services of its release. Services not running: 1.",
		description: "The device runs its target release and is not updating. The services do not start, or were stopped.",
		bad:         state{`balena_device_services_running{fleet="acme/pumps",uuid="c0ffee"}`: constant(1)},
		nearly:      state{`balena_device_services_running{fleet="acme/pumps",uuid="c0ffee"}`: constant(1)}.with(deviceStatus("updating")),
		nearlyMeans: "it is updating",
		after:       60, kept: true,
	},
	{
		name: "BalenaDeviceFlapping", severity: "info", labels: ofDevice("BalenaDeviceFlapping"),
		summary:     "Device Pump 7 (c0ffee) of acme/pumps reconnected 7 times within an hour.",
		description: "Its VPN connection is unstable. Less than a third of the fleet reconnected in the same hour, so the cause is probably the device or its network.",
		bad:         state{`balena_device_connectivity_change_timestamp_seconds{fleet="acme/pumps",uuid="c0ffee"}`: each(5)},
		nearly:      state{`balena_device_connectivity_change_timestamp_seconds{fleet="acme/pumps",uuid="c0ffee"}`: each(12)},
		nearlyMeans: "it reconnects five times within an hour",
		after:       30, resolves: 34, kept: true,
	},
	{
		name: "BalenaDeviceStorageNearlyFull", severity: "warning", labels: ofDevice("BalenaDeviceStorageNearlyFull"),
		summary:     "The storage of device Pump 7 (c0ffee) of acme/pumps is 91% full.",
		description: "If the data partition is full, the device can neither update nor store data.",
		bad:         state{`balena_device_storage_used_bytes{fleet="acme/pumps",uuid="c0ffee"}`: constant(91)},
		nearly:      state{`balena_device_storage_used_bytes{fleet="acme/pumps",uuid="c0ffee"}`: constant(90)},
		nearlyMeans: "a tenth is free",
		after:       15, kept: true,
	},
	{
		name: "BalenaDeviceMemoryExhausted", severity: "warning", labels: ofDevice("BalenaDeviceMemoryExhausted"),
		summary:     "The memory of device Pump 7 (c0ffee) of acme/pumps is 96% full.",
		description: "The kernel may kill processes to free memory.",
		bad:         state{`balena_device_memory_used_bytes{fleet="acme/pumps",uuid="c0ffee"}`: constant(96)},
		nearly:      state{`balena_device_memory_used_bytes{fleet="acme/pumps",uuid="c0ffee"}`: constant(95)},
		nearlyMeans: "a twentieth is free",
		after:       15, kept: true,
	},
	{
		name: "BalenaDeviceOverheating", severity: "warning", labels: ofDevice("BalenaDeviceOverheating"),
		summary:     "The CPU of device Pump 7 (c0ffee) of acme/pumps is at 81 °C.",
		description: "At this temperature the CPU may be throttled, and the hardware wears out faster.",
		bad:         state{`balena_device_cpu_temperature_celsius{fleet="acme/pumps",uuid="c0ffee"}`: constant(81)},
		nearly:      state{`balena_device_cpu_temperature_celsius{fleet="acme/pumps",uuid="c0ffee"}`: constant(80)},
		nearlyMeans: "the temperature is at the threshold",
		after:       15, kept: true,
	},
	{
		name: "BalenaDeviceUndervolted", severity: "info", labels: ofDevice("BalenaDeviceUndervolted"),
		summary:     "Device Pump 7 (c0ffee) of acme/pumps reported an undervoltage.",
		description: "The undervoltage occurred at least once since the last boot, and is reported until the next boot. Undervoltage can corrupt data and crash the device.",
		bad:         state{`balena_device_undervolted{fleet="acme/pumps",uuid="c0ffee"}`: constant(1)},
		nearly:      state{`balena_device_undervolted{fleet="acme/pumps",uuid="c0ffee"}`: gone},
		nearlyMeans: "there is no data about undervoltage",
		after:       5, kept: true,
	},
	{
		name: "BalenaDeviceExporterDown", severity: "warning", labels: ofDevice("BalenaDeviceExporterDown"),
		summary:     "An exporter on device Pump 7 (c0ffee) of acme/pumps cannot be scraped.",
		description: "The device is connected to balena, but Prometheus cannot scrape the exporter.",
		good:        state{`up{fleet="acme/pumps",uuid="c0ffee"}`: constant(1)},
		bad:         state{`up{fleet="acme/pumps",uuid="c0ffee"}`: constant(0)},
		nearly: state{
			`up{fleet="acme/pumps",uuid="c0ffee"}`: constant(0), `balena_device_connected{fleet="acme/pumps",uuid="c0ffee"}`: constant(0),
			`balena_device_connectivity_change_timestamp_seconds{fleet="acme/pumps",uuid="c0ffee"}`: now,
		},
		nearlyMeans: "the device is not connected either",
		after:       15, kept: true,
	},
}

// ago returns a time that is always a number of seconds in the past.
func ago(seconds float64) func(int) float64 {
	return func(minute int) float64 { return now(minute) - seconds }
}

// each returns a time that changes every few minutes.
func each(minutes int) func(int) float64 {
	return func(minute int) float64 { return now(minute - minute%minutes) }
}

// onlyIn returns a series that exists only in one minute.
func onlyIn(minute int) func(int) float64 {
	return func(m int) float64 {
		if m == minute {
			return 1
		}
		return math.NaN()
	}
}

var buildFailed = state{
	`balena_fleet_latest_release_status{fleet="acme/pumps",status="failed"}`:  constant(1),
	`balena_fleet_latest_release_status{fleet="acme/pumps",status="success"}`: constant(0),
}

func deviceStatus(status string) state {
	return state{
		`balena_device_status{fleet="acme/pumps",uuid="c0ffee",status="operational"}`:    gone,
		`balena_device_status{fleet="acme/pumps",uuid="c0ffee",status="` + status + `"}`: constant(1),
	}
}

func updateStatus(status string) state {
	return state{
		`balena_device_update_status{fleet="acme/pumps",uuid="c0ffee",update_status="done"}`:           gone,
		`balena_device_update_status{fleet="acme/pumps",uuid="c0ffee",update_status="` + status + `"}`: constant(1),
	}
}

// osUpdate returns the state of a host OS update from an older version.
func osUpdate(phase string) state {
	return state{
		deviceInfo("6.5.10", "17.0.3"): gone, deviceInfo("6.0.1", "17.0.3"): constant(1),
		`balena_device_os_update_state{fleet="acme/pumps",uuid="c0ffee",state="` + phase + `"}`: constant(1),
	}
}

func serviceStatus(status string) state {
	return state{
		`balena_device_service_status{fleet="acme/pumps",uuid="c0ffee",service_name="main",status="Running"}`:        gone,
		`balena_device_service_status{fleet="acme/pumps",uuid="c0ffee",service_name="main",status="` + status + `"}`: constant(1),
	}
}

// overheating returns the state of a number of overheating devices.
func overheating(devices int) state {
	s := state{}
	for i := range devices {
		s[fmt.Sprintf(`balena_device_cpu_temperature_celsius{fleet="acme/pumps",uuid="ho7%d"}`, i)] = constant(90)
	}
	return s
}
