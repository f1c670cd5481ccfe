// SPDX-License-Identifier: Apache-2.0

package rules

import "testing"

// outdated is the alert BalenaOSOutdated, which is disabled by default.
var outdated = alert{
	name: "BalenaOSOutdated", severity: "info", labels: ofFleet("BalenaOSOutdated"),
	summary:     "Devices of acme/pumps with a release of balenaOS that is more than 365 days old: 1.",
	description: "Newer releases are available for these devices.",
	bad: state{
		`balena_device_os_update_available{fleet="acme/pumps",uuid="c0ffee"}`:                  constant(1),
		`balena_device_os_release_created_timestamp_seconds{fleet="acme/pumps",uuid="c0ffee"}`: constant(-366 * day),
	},
	after: 15,
}

// TestOutdatedOS checks that the alert counts devices in service whose release is older than the threshold, if an update is
// available.
func TestOutdatedOS(t *testing.T) {
	t.Parallel()
	scenario := func(name string, change state, fires bool) unitTest {
		at := lead + outdated.after
		tests := unitTest{Name: name, Interval: "1m", Alerts: []alertTest{outdated.silentAt(at - 1), outdated.silentAt(at)}}
		if fires {
			tests.Alerts[1] = outdated.firesAt(at)
		}
		tests.Series = timeline{}.then(lead, from(oldPod, well)).then(outdated.after+1, from(oldPod, well.with(outdated.bad, change))).series()
		return tests
	}
	runFiles(t, taggedRules, []unitTest{
		scenario("old", nil, true),
		scenario("below the threshold", state{`balena_device_os_release_created_timestamp_seconds{fleet="acme/pumps",uuid="c0ffee"}`: constant(-364 * day)}, false),
		scenario("old, without an update", state{`balena_device_os_update_available{fleet="acme/pumps",uuid="c0ffee"}`: constant(0)}, false),
		scenario("old, out of service", state{`balena_device_out_of_service{fleet="acme/pumps",uuid="c0ffee"}`: constant(1)}, false),
	})
}
