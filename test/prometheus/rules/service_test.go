// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

const (
	outOfService = `balena_device_out_of_service{fleet="acme/pumps",uuid="c0ffee"}`
	maintenance  = `balena_device_maintenance_until_timestamp_seconds{fleet="acme/pumps",uuid="c0ffee"}`
	ofPumps      = `{fleet="acme/pumps"}`
)

// archivedPumps is the state of an archived fleet.
var archivedPumps = state{pumpsInfo: gone, strings.Replace(pumpsInfo, "false", "true", 1): constant(1)}

// noneInService is the state of a fleet whose devices are all inactive, frozen or in maintenance.
var noneInService = state{
	"balena_fleet_devices_in_service" + ofPumps: constant(0), "balena_fleet_devices_in_service_connected" + ofPumps: constant(0),
	"balena_fleet_devices_never_connected" + ofPumps: constant(0),
}

// onDevice reports whether an alert of the table is on the device c0ffee or counts it.
func (a alert) onDevice() bool {
	switch a.name {
	case "BalenaDevicesNeverConnected", "BalenaRolloutNotConverging":
		return true
	}
	return a.labels["uuid"] != "" || a.labels["service_name"] != ""
}

// onFleet reports whether an alert is on a fleet with data, or on devices of it.
func (a alert) onFleet() bool { return a.labels["fleet"] != "" && a.name != "BalenaFleetGone" }

// There are no alerts on inactive or frozen devices, devices in maintenance, fleets with only such devices, and archived
// fleets.
func TestOutOfServiceHasNoAlerts(t *testing.T) {
	for _, a := range alerts {
		absences := map[string]state{}
		if a.onDevice() {
			absences["a device that is inactive or frozen"] = state{outOfService: constant(1)}
			absences["a device in maintenance"] = state{maintenance: constant(math.Inf(1))}
			absences["a device in maintenance until tomorrow"] = state{maintenance: constant(day)}
		}
		if a.onFleet() {
			absences["a fleet of which no device is in service"] = noneInService
		}
		if a.onFleet() || a.name == "BalenaDevicesFrozen" {
			absences["an archived fleet"] = archivedPumps
		}
		if a.onFleet() {
			absences["a fleet of a frozen organization"] = state{`balena_organization_frozen{organization="acme"}`: constant(1)}
		}
		if len(absences) == 0 {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			minutes := a.after + 30
			var tests []unitTest
			for name, absence := range absences {
				tests = append(tests, unitTest{
					Name: name, Interval: "1m", Series: timeline{}.then(lead, from(oldPod, well.with(a.good, absence))).then(minutes, from(oldPod, well.with(a.good, a.bad, absence))).series(),
					Expressions: []exprTest{neverFired(a.name, lead+minutes-1)},
				})
			}
			run(t, tests)
		})
	}
}

// A maintenance whose end has passed has no effect. Alerts fire after their usual time from then on.
func TestMaintenanceEnds(t *testing.T) {
	t.Parallel()
	var tests []unitTest
	for _, a := range alerts {
		if a.labels["uuid"] == "" || a.name == "BalenaDeviceFlapping" { // needs an hour of data
			continue
		}
		const over = 20 // minutes
		bad := well.with(a.good, a.bad, state{maintenance: constant(over * 60)})
		fires := over + a.after
		test := unitTest{Name: a.name, Interval: "1m", Series: timeline{}.then(fires+1, from(oldPod, bad)).series()}
		test.Expressions = []exprTest{neverFired(a.name, fires-1), a.firesFor(1, fires)}
		tests = append(tests, test)
	}
	run(t, tests)
}

// The beginning of a maintenance ends the alert immediately.
func TestMaintenanceBegins(t *testing.T) {
	t.Parallel()
	a := alertOf(t, "BalenaDeviceOverheating")
	fires := lead + a.after
	story := timeline{}.then(lead, from(oldPod, well)).then(a.after+1, from(oldPod, well.with(a.bad))).then(2, from(oldPod, well.with(a.bad, state{maintenance: constant(math.Inf(1))})))
	run(t, []unitTest{{Name: "begins", Interval: "1m", Series: story.series(), Alerts: []alertTest{a.firesAt(fires), a.silentAt(fires + 1)}}})
}

func alertOf(t *testing.T, name string) alert {
	t.Helper()
	for _, a := range alerts {
		if a.name == name {
			return a
		}
	}
	t.Fatalf("the table does not have %s", name)
	return alert{}
}

// Ratios are those of devices in service. If 80 of 100 devices are out of service and offline, there is no alert. If ten of
// the other 20 devices are offline, the ratio is a half.
func TestRatiosOfDevicesInService(t *testing.T) {
	t.Parallel()
	fleet := func(connected float64) state {
		return well.with(state{
			"balena_fleet_devices" + ofPumps: constant(100), "balena_fleet_devices_in_service" + ofPumps: constant(20), "balena_fleet_devices_never_connected" + ofPumps: constant(0),
			"balena_fleet_devices_connected" + ofPumps: constant(connected), "balena_fleet_devices_in_service_connected" + ofPumps: constant(connected),
		})
	}
	a := alertOf(t, "BalenaFleetLargelyOffline")
	run(t, []unitTest{
		{Name: "all connected", Interval: "1m", Series: timeline{}.then(30, from(oldPod, fleet(20))).series(), Expressions: []exprTest{neverFired(".+", 29)}},
		{Name: "half connected", Interval: "1m", Series: timeline{}.then(30, from(oldPod, fleet(10))).series(), Alerts: []alertTest{a.firesAt(29)}},
	})
}

// If an organization is frozen, its devices go offline, and the API marks them as frozen some minutes later. There is one
// alert for all its fleets.
func TestFrozenOrganizationHasOneAlert(t *testing.T) {
	t.Parallel()
	const invoice = `balena_organization_past_due_since_timestamp_seconds{organization="acme"}`
	const valves = `balena_fleet_info{fleet="acme/valves",organization="acme",archived="false"}`
	before := well.with(state{`balena_fleet_info{fleet="acme/valves",archived="false"}`: gone, valves: constant(1), invoice: constant(-10 * day)})
	frozen := before.with(
		state{`balena_organization_frozen{organization="acme"}`: constant(1), "balena_fleet_devices_in_service_connected" + ofPumps: constant(0)},
		alertOf(t, "BalenaDeviceOffline").bad,
	)
	known := frozen.with(noneInService, state{"balena_fleet_devices_frozen" + ofPumps: constant(110), outOfService: constant(1)})
	for _, s := range []state{before, frozen, known} { // the devices of the small fleet do not change
		s["balena_fleet_devices_in_service"+`{fleet="acme/valves"}`] = constant(1)
	}
	paid := before.with(state{invoice: gone}) // no longer frozen
	story := timeline{}.then(30, from(oldPod, before)).then(20, from(oldPod, frozen)).then(60, from(oldPod, known)).then(40, from(oldPod, paid))
	test := unitTest{Name: "frozen", Interval: "1m", Series: story.series()}
	firing := func(minute int, alerts ...string) {
		e := exprTest{Expression: `count by (alertname, organization) (ALERTS{alertstate="firing"})`, At: at(minute)}
		for _, a := range alerts {
			e.Want = append(e.Want, expectedSample{fmt.Sprintf(`{alertname=%q, organization="acme"}`, a), 1})
		}
		test.Expressions = append(test.Expressions, e)
	}
	firing(29, "BalenaInvoicePastDue")
	firing(34) // the first ends at once, the second fires after five minutes
	for _, minute := range []int{36, 49, 60, 109} {
		firing(minute, "BalenaDevicesFrozen")
	}
	for minute := 110; minute < 150; minute += 3 {
		firing(minute)
	}
	test.Expressions = append(test.Expressions, exprTest{
		`sum by (organization) (balena:problem{problem="BalenaDevicesFrozen"})`, at(60), []expectedSample{{`{organization="acme"}`, 111}},
	})
	run(t, []unitTest{test})
}

// Supervisors before 16.7.0 do not report the status of updates. Their status in the API is ignored.
func TestOldSupervisors(t *testing.T) {
	t.Parallel()
	var tests []unitTest
	for _, name := range []string{"BalenaDeviceUpdateStuck", "BalenaDeviceUpdateRejected"} {
		a := alertOf(t, name)
		for version, reports := range map[string]bool{
			"": true, "unknown": true, "1.0.0": false, "9.15.7": false, "10.8.0": false, "14.13.1": false, "15.3.1": false, "16.0.0": false, "16.6.9": false, "16.7.0": true, "16.12.9": true,
			"17.0.3": true, "20.0.0": true, "160.1.0": true,
		} {
			exported := well.with(a.bad, state{deviceInfo("6.5.10", "17.0.3"): gone, deviceInfo("6.5.10", version): constant(1)})
			last := a.after + 5
			test := unitTest{Name: name + " " + version, Interval: "1m", Series: timeline{}.then(last+1, from(oldPod, exported)).series(), Expressions: []exprTest{neverFired(name, last)}}
			if reports {
				test.Expressions = []exprTest{a.firesFor(1, last)}
			}
			tests = append(tests, test)
		}
	}
	run(t, tests)
}

// The rules remember a failed update after the supervisor has reset it, and during gaps, until the device runs another version
// or the failure is old.
func TestFailedOSUpdateIsRemembered(t *testing.T) {
	t.Parallel()
	a := alertOf(t, "BalenaDeviceOSUpdateFailed")
	older := state{deviceInfo("6.5.10", "17.0.3"): gone, deviceInfo("6.0.1", "17.0.3"): constant(1)}
	before, failed, newer := well.with(older), well.with(osUpdate("failed")), well
	const remembered = 2 * hour / 60
	fails := timeline{}.then(lead, from(oldPod, before)).then(3, from(oldPod, failed))
	story := func(name string, of timeline, want ...exprTest) unitTest {
		return unitTest{Name: name, Interval: "1m", Series: of.series(), Expressions: want}
	}
	firing := func(minute int, fires bool) exprTest {
		e := exprTest{Expression: `count(ALERTS{alertname="BalenaDeviceOSUpdateFailed", alertstate="firing"})`, At: at(minute)}
		if fires {
			e.Want = []expectedSample{{"{}", 1}}
		}
		return e
	}
	begins := lead + a.after
	last := lead + 2 // when the failure is observed
	again := fails.then(30, from(oldPod, before)).then(5, from(oldPod, well.with(osUpdate("running")))).then(2, from(oldPod, well.with(osUpdate("rebooting"))))
	runChanged(t, map[string]string{"time() - 604800": fmt.Sprintf("time() - %d", remembered*60)}, []unitTest{
		story("the supervisor clears it", fails.then(remembered, from(oldPod, before)),
			firing(begins-1, false), firing(begins, true), firing(last+remembered-1, true), firing(last+remembered, false)),
		story("the device runs another version", fails.then(30, from(oldPod, before)).then(10, from(oldPod, newer)),
			firing(lead+3+29, true), firing(lead+3+30, false), firing(lead+3+39, false)),
		story("the API fails", append(fails.then(10, from(oldPod, before)), outage(before)...).then(2, from(oldPod, before)),
			firing(lead+3+10+20, true), firing(lead+3+10+37, true)),
		story("a later update is successful and the version the same", again.then(20, from(oldPod, before)), firing(lead+3+30+7+19, true)),
		story("a later update is successful", again.then(20, from(oldPod, newer)), firing(lead+3+30+6, true), firing(lead+3+30+7, false), firing(lead+3+30+26, false)),
		story("the device is behind in the first place", timeline{}.then(remembered, from(oldPod, before)), neverFired(a.name, remembered-1)),
	})
}

// There are no alerts on services that have exited, and on services of devices that are updating or offline.
func TestServicesThatNeedNotRun(t *testing.T) {
	t.Parallel()
	a := alertOf(t, "BalenaServiceNotRunning")
	metric := func(name string) string { return name + `{fleet="acme/pumps",uuid="c0ffee"}` }
	var tests []unitTest
	for name, s := range map[string]state{
		"all run":                     {metric("balena_device_services_running"): constant(3), metric("balena_device_services_exited"): gone},
		"one has exited and one runs": {metric("balena_device_services_running"): constant(1), metric("balena_device_services_exited"): constant(2)},
		"not on target":               a.bad.with(state{metric("balena_device_on_target_release"): constant(0)}),
		"no target":                   a.bad.with(state{metric("balena_device_on_target_release"): gone}),
		"offline":                     a.bad.with(state{metric("balena_device_connected"): constant(0), metric("balena_device_connectivity_change_timestamp_seconds"): now}),
		"restarting":                  a.bad.with(serviceStatus("restarting")),
		"not known":                   {metric("balena_device_services"): gone, metric("balena_device_services_running"): gone, metric("balena_device_services_exited"): gone},
	} {
		tests = append(tests, unitTest{Name: name, Interval: "1m", Series: timeline{}.then(100, from(oldPod, well.with(s))).series(), Expressions: []exprTest{neverFired(a.name, 99)}})
	}
	none := well.with(state{metric("balena_device_services_exited"): gone}) // has exited
	tests = append(tests, unitTest{Name: "none has exited", Interval: "1m", Series: timeline{}.then(100, from(oldPod, none)).series(), Alerts: []alertTest{a.firesAt(99)}})
	run(t, tests)
}

// fleetThatReconnects returns the series of a fleet in which some devices reconnect every five minutes, and others once.
func fleetThatReconnects(devices, flapping, once int) []series {
	const minutes = 100
	all := []series{
		{"balena_fleet_devices" + ofPumps, fmt.Sprintf("%dx%d", devices, minutes)},
		{"balena_fleet_devices_in_service" + ofPumps, fmt.Sprintf("%dx%d", devices, minutes)},
	}
	for i := range devices {
		var values []string
		for minute := range minutes {
			at := -hour
			switch {
			case i < flapping:
				at = (minute - minute%5) * 60
			case i < flapping+once && minute >= 30:
				at = 30 * 60
			}
			values = append(values, fmt.Sprint(at))
		}
		labels := fmt.Sprintf(`{fleet="acme/pumps",uuid="%d"}`, i)
		all = append(all, series{"balena_device_connectivity_change_timestamp_seconds" + labels, strings.Join(values, " ")}, series{"balena_device_online" + labels, fmt.Sprintf("1x%d", minutes)})
	}
	return all
}

// If a third of the fleet reconnects within an hour, there are no alerts on devices. In a small fleet, two devices do not count
// as a third of the fleet.
func TestFlappingAndTheServer(t *testing.T) {
	t.Parallel()
	var tests []unitTest
	for _, c := range []struct {
		name                      string
		devices, flapping, reconn int
		alerts                    float64
	}{
		{"one device", 12, 1, 0, 1},
		{"a rebalancing of the server", 12, 1, 3, 0},
		{"a quarter of the fleet", 12, 3, 0, 3},
		{"a flapping server", 12, 12, 0, 0},
		{"two of three devices", 3, 2, 0, 2},
		{"all of a small fleet", 3, 3, 0, 0},
	} {
		test := unitTest{Name: c.name, Interval: "1m", Series: fleetThatReconnects(c.devices, c.flapping, c.reconn)}
		e := exprTest{Expression: `count(ALERTS{alertname="BalenaDeviceFlapping", alertstate="firing"})`, At: at(80)}
		if c.alerts > 0 {
			e.Want = []expectedSample{{"{}", c.alerts}}
		}
		test.Expressions = []exprTest{e}
		tests = append(tests, test)
	}
	run(t, tests)
}

// Reconnects are counted by their timestamps: reconnects between two scrapes count once, reconnects during a restart of the
// exporter count, and reconnects of the previous day do not. Offline devices do not reconnect.
func TestReconnectsAreCounted(t *testing.T) {
	t.Parallel()
	device := func(uuid, changes, online string) []series {
		labels := fmt.Sprintf(`{fleet="acme/pumps",uuid=%q}`, uuid)
		return []series{{"balena_device_connectivity_change_timestamp_seconds" + labels, changes}, {"balena_device_online" + labels, online}}
	}
	test := unitTest{Name: "reconnects", Interval: "1m", Series: []series{{"balena_fleet_devices" + ofPumps, "4x1600"}, {"balena_fleet_devices_in_service" + ofPumps, "4x1600"}}}
	for _, added := range [][]series{
		device("stays", "-7200x1600", "1x1600"),
		device("twice", "-7200x9 590x19 1790x1600", "1x1600"),
		device("hidden", "-7200x9 _x6 600x1600", "1x9 _x6 1x1600"),
		device("offline", "-7200x9 600x1600", "1x9 0x1600"),
	} {
		test.Series = append(test.Series, added...)
	}
	const count1h, count1d = "balena:device_reconnects:count1h", "balena:device_reconnects:count1d"
	sample := func(name, uuid string, n float64) expectedSample {
		return expectedSample{fmt.Sprintf(`%s{fleet="acme/pumps", uuid=%q}`, name, uuid), n}
	}
	test.Expressions = []exprTest{
		{count1h, at(40), []expectedSample{sample(count1h, "hidden", 1), sample(count1h, "twice", 2)}},
		{count1h, at(75), []expectedSample{sample(count1h, "twice", 1)}},
		{count1h, at(95), nil},
		{count1d, at(1400), []expectedSample{sample(count1d, "hidden", 1), sample(count1d, "twice", 2)}},
		{count1d, at(1500), nil},
		{"balena:fleet_reconnected_devices:ratio1h", at(40), []expectedSample{{`balena:fleet_reconnected_devices:ratio1h{fleet="acme/pumps"}`, 0.5}}},
	}
	run(t, []unitTest{test})
}

// Availability counts each device for the time during which it was in service, including lost devices and excluding never
// connected devices. Times without data and archived fleets do not count.
func TestAvailability(t *testing.T) {
	t.Parallel()
	fleet := func(name, inService, never, connected string) []series {
		labels := fmt.Sprintf(`{fleet=%q}`, name)
		return []series{
			{"balena_fleet_devices" + labels, "10x99"},
			{"balena_fleet_devices_in_service" + labels, inService},
			{"balena_fleet_devices_never_connected" + labels, never},
			{"balena_fleet_devices_in_service_connected" + labels, connected},
		}
	}
	test := unitTest{Name: "availability", Interval: "1m"}
	for _, added := range [][]series{
		fleet("acme/half", "10x99", "2x99", "8x49 0x49"),
		fleet("acme/grows", "2x49 8x49", "0x99", "2x49 4x49"),
		fleet("acme/gap", "4x24 stale _x49 4x24", "0x24 stale _x49 0x24", "3x24 stale _x49 3x24"),
		fleet("acme/none", "0x99", "0x99", "0x99"),
		fleet("acme/archived", "4x99", "0x99", "0x99"),
	} {
		test.Series = append(test.Series, added...)
	}
	test.Series = append(test.Series, series{`balena_fleet_info{fleet="acme/archived",archived="true"}`, "1x99"})
	const name = "balena:fleet_availability:ratio30d"
	sample := func(fleet string, ratio float64) expectedSample {
		return expectedSample{fmt.Sprintf(`%s{fleet=%q}`, name, fleet), ratio}
	}
	test.Expressions = []exprTest{{name, at(99), []expectedSample{sample("acme/gap", 0.75), sample("acme/grows", 0.6), sample("acme/half", 0.5)}}}
	run(t, []unitTest{test})
}

// Devices are counted by the age of their release of balenaOS. A device that two exporters export counts once, and a device
// with a custom build, which has no release, does not count.
func TestOSReleaseAge(t *testing.T) {
	t.Parallel()
	const name = "balena:fleet_devices_by_os_release_age"
	test := unitTest{Name: "age of releases of balenaOS", Interval: "1m", Series: []series{{`balena_device_connected{fleet="acme/pumps",uuid="custom"}`, "1x9"}}}
	for uuid, age := range map[string]int{"new": 89, "old": 90, "older": 364, "year": 365, "years": 729, "oldest": 730} {
		for _, instance := range []string{"a", "b"} {
			test.Series = append(test.Series, series{
				fmt.Sprintf(`balena_device_os_release_created_timestamp_seconds{fleet="acme/pumps",uuid=%q,instance=%q}`, uuid, instance), fmt.Sprintf("%dx9", -age*day),
			})
		}
	}
	sample := func(age string, n float64) expectedSample {
		return expectedSample{fmt.Sprintf(`%s{fleet="acme/pumps", age=%q}`, name, age), n}
	}
	test.Expressions = []exprTest{{name, at(0), []expectedSample{
		sample("less than 90 days", 1), sample("90 days to 1 year", 2), sample("1 to 2 years", 2), sample("more than 2 years", 1),
	}}}
	run(t, []unitTest{test})
}
