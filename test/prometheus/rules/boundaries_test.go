// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"testing"
)

// fleetOf returns the series of a fleet with a number of devices in use, and a number of connected devices.
func fleetOf(fleet string, devices, connected int) []series {
	value := func(metric string, v int) series {
		return series{fmt.Sprintf(`%s{fleet=%q}`, metric, fleet), fmt.Sprintf("%dx15", v)}
	}
	return []series{
		value("balena_fleet_devices", devices), value("balena_fleet_devices_in_service", devices),
		value("balena_fleet_devices_never_connected", 0), value("balena_fleet_devices_in_service_connected", connected),
	}
}

// TestFleetRatioThresholds checks that thresholds of ratios are exact for all sizes of fleets. In floating point,
// 1 - 12 / 15 is less than 0.2.
func TestFleetRatioThresholds(t *testing.T) {
	t.Parallel()
	const most = 200
	var tests []unitTest
	for _, part := range []struct {
		alert string
		of    int // the threshold is 1/of
	}{{"BalenaFleetPartlyOffline", 5}, {"BalenaFleetLargelyOffline", 2}, {"BalenaFleetShrank", 10}} {
		test := unitTest{Name: part.alert, Interval: "1m"}
		problems := exprTest{Expression: fmt.Sprintf(`count by (fleet) (balena:problem{problem=%q})`, part.alert), At: at(10)}
		firing := exprTest{Expression: fmt.Sprintf(`count by (fleet) (ALERTS{alertname=%q, alertstate="firing"})`, part.alert), At: at(10)}
		add := func(fleet string, devices, missing int) {
			if part.alert != "BalenaFleetShrank" {
				test.Series = append(test.Series, fleetOf(fleet, devices, devices-missing)...)
				return
			}
			test.Series = append(test.Series, series{fmt.Sprintf(`balena_fleet_devices{fleet=%q}`, fleet), fmt.Sprintf("%dx2 %dx12", devices, devices-missing)})
		}
		for devices := part.of; devices <= most; devices += part.of {
			missing := devices / part.of
			reached := fmt.Sprintf("acme/%d-of-%d", missing, devices)
			add(reached, devices, missing)
			if missing > 2 {
				problems.Want = append(problems.Want, expectedSample{fmt.Sprintf(`{fleet=%q}`, reached), 1})
			}
			add(fmt.Sprintf("acme/%d-of-%d", missing-1, devices), devices, missing-1)
		}
		// Three devices are enough if they reach the ratio. Two are not, even if they are all devices of the fleet.
		add("acme/three", 3, 3)
		add("acme/two", 2, 2)
		problems.Want = append(problems.Want, expectedSample{`{fleet="acme/three"}`, 1})
		if part.alert == "BalenaFleetShrank" {
			// A fleet without devices still exists.
			test.Series = append(test.Series, series{`balena_fleet_devices{fleet="acme/emptied"}`, "3x2 0x12"})
			problems.Want = append(problems.Want, expectedSample{`{fleet="acme/emptied"}`, 1})
		}
		firing.Want = problems.Want
		if part.alert == "BalenaFleetPartlyOffline" {
			// If half of the fleet is offline, BalenaFleetLargelyOffline fires instead.
			firing.Want = firing.Want[:len(firing.Want)-1]
		}
		test.Expressions = []exprTest{problems, firing}
		tests = append(tests, test)
	}
	run(t, tests)
}

// TestTimeThresholds tests conditions just before and just after a time threshold.
func TestTimeThresholds(t *testing.T) {
	t.Parallel()
	const fleet, device = `fleet="acme/pumps"`, `fleet="acme/pumps",uuid="a"`
	constant := func(metric string, value int) series { return series{metric, fmt.Sprintf("%dx30", value)} }
	watched := []series{constant(`balena_fleet_devices{`+fleet+`}`, 1), constant(`balena_device_connected{`+device+`}`, 0)}
	connected := []series{constant(`balena_fleet_devices{`+fleet+`}`, 1), constant(`balena_device_connected{`+device+`}`, 1)}
	var tests []unitTest
	// The threshold is ten minutes: it is not exceeded after ten, but after eleven minutes.
	time := func(name string, before, after int, expression string, series ...series) {
		test := unitTest{Name: name, Interval: "1m", Series: series}
		for minute, want := range map[int]int{10: before, 11: after} {
			test.Expressions = append(test.Expressions, exprTest{"count(" + expression + ") or vector(0)", at(minute), []expectedSample{{"{}", float64(want)}}})
		}
		tests = append(tests, test)
	}
	problem := func(name string) string { return fmt.Sprintf(`balena:problem{problem=%q}`, name) }
	pending := func(name string) string { return fmt.Sprintf(`ALERTS{alertname=%q}`, name) }

	changed := func(ago int) series {
		return constant(`balena_device_connectivity_change_timestamp_seconds{`+device+`}`, 600-ago)
	}
	time("offline for an hour", 0, 1, problem("BalenaDeviceOffline"), append(watched, changed(hour))...)
	time("offline for a week", 1, 0, problem("BalenaDeviceOffline"), append(watched, changed(7*day))...)
	time("never connected for a day", 0, 1, problem("BalenaDevicesNeverConnected"), append(watched, constant(`balena_device_created_timestamp_seconds{`+device+`}`, 600-day))...)
	time("update stuck for two hours", 0, 1, problem("BalenaDeviceUpdateStuck"), append(connected,
		constant(`balena_device_update_status{`+device+`,update_status="downloading"}`, 1), constant(`balena_device_update_status_change_timestamp_seconds{`+device+`}`, 600-2*hour))...)
	time("a rollout has a day", 0, 1, problem("BalenaRolloutNotConverging"), append(connected,
		constant(`balena_device_on_target_release{`+device+`}`, 0), constant(`balena_fleet_target_release_created_timestamp_seconds{`+fleet+`}`, 600-day))...)
	// The threshold of a week is reached after exactly a week.
	time("a failed build is news for a week", 1, 0, problem("BalenaReleaseBuildFailed"), append(connected,
		constant(`balena_fleet_latest_release_status{`+fleet+`,status="failed"}`, 1), constant(`balena_fleet_latest_release_created_timestamp_seconds{`+fleet+`}`, 601-7*day))...)

	key := func(expires int) series {
		return constant(`balena_api_key_expiry_timestamp_seconds{job="balena",key_name="ci"}`, expires)
	}
	time("a key expires in 14 days", 0, 1, pending("BalenaAPIKeyExpiring"), key(600+14*day))
	time("a key expired a day ago", 1, 0, pending("BalenaAPIKeyExpiring"), key(601-day))
	time("a token expires in 2 days", 0, 1, pending("BalenaTokenExpiring"), constant(`balena_api_token_expiry_timestamp_seconds{job="balena"}`, 600+2*day))
	time("data are 15 minutes old", 0, 1, pending("BalenaDataStale"), constant(`balena_up{job="balena"}`, 0),
		constant(`balena_exporter_last_refresh_success_timestamp_seconds{job="balena"}`, 600-900))
	time("three answers in 30 minutes", 0, 1, pending("BalenaAPIRateLimited"), series{`balena_api_rate_limited_total{job="balena"}`, "0x7 1 2 2 3x10"})
	run(t, tests)
}

// If there is one device more than the limit, a single alert replaces those of the devices.
func TestFiftyDevices(t *testing.T) {
	t.Parallel()
	var tests []unitTest
	for devices, want := range map[int]string{50: "BalenaDeviceOverheating", 51: "BalenaManyDevices"} {
		test := unitTest{Name: fmt.Sprintf("%d devices", devices), Interval: "1m", Series: []series{{`balena_fleet_devices{fleet="acme/pumps"}`, "90x60"}}}
		for i := range devices {
			test.Series = append(test.Series, series{fmt.Sprintf(`balena_device_cpu_temperature_celsius{fleet="acme/pumps",uuid="%d"}`, i), "90x60"})
		}
		count := 1.0
		if want == "BalenaDeviceOverheating" {
			count = float64(devices)
		}
		test.Expressions = []exprTest{{
			`count by (alertname) (ALERTS{alertstate="firing", alertname!="BalenaExporterDown"})`, at(50), []expectedSample{{fmt.Sprintf("{alertname=%q}", want), count}},
		}}
		tests = append(tests, test)
	}
	run(t, tests)
}
