// SPDX-License-Identifier: Apache-2.0

package balena_test

import (
	"testing"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

func TestMaintenanceUntil(t *testing.T) {
	at := func(s string) balena.Instant {
		when, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return balena.Instant(when.UnixMilli())
	}
	for value, want := range map[string]balena.Instant{
		"":                          balena.Forever,
		"yes":                       balena.Forever,
		"repair, ask Jo":            balena.Forever,
		"2026-12-01":                at("2026-12-02T00:00:00Z"),
		" 2026-12-01 ":              at("2026-12-02T00:00:00Z"),
		"2026-12-01T08:30:00Z":      at("2026-12-01T08:30:00Z"),
		"2026-12-01T08:30:00+02:00": at("2026-12-01T06:30:00Z"),
		"2026-12-32":                balena.Forever,
		"1960-01-01":                1, // over, and not none
	} {
		if got := balena.MaintenanceUntil(value); got != want {
			t.Errorf("%q ends at %d, want %d", value, got, want)
		}
	}
}

func TestUpdateState(t *testing.T) {
	for _, test := range []struct{ supervisor, status, want string }{
		{"16.7.0", "", balena.NoUpdate},
		{"16.12.0", "", balena.NoUpdate},
		{"v17.0.3", "", balena.NoUpdate},
		{"16.6.9", "", balena.Unknown},
		{"9.15.7", "", balena.Unknown},
		{"16", "", balena.Unknown},
		{"", "", balena.Unknown},
		{"nonsense", "", balena.Unknown},
		{"9.15.7", "done", "done"},
	} {
		d := balena.Device{SupervisorVersion: test.supervisor, UpdateStatus: test.status}
		if got := d.UpdateState(); got != test.want {
			t.Errorf("supervisor %q with status %q: %s, want %s", test.supervisor, test.status, got, test.want)
		}
	}
}

func TestOSUpdateState(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "",
		"Provisioning":                 "",
		"Post-Provisioning":            "",
		"Preparing OS update":          "preparing",
		"Running OS update":            "running",
		"Running supervisor update":    "supervisor",
		"Update successful, rebooting": "rebooting",
		"OS update failed":             "failed",
		"OS-Update fehlgeschlagen":     "other",
	} {
		d := balena.Device{ProvisioningState: text}
		if got := d.OSUpdateState(); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestOutOfService(t *testing.T) {
	for _, test := range []struct {
		device balena.Device
		want   bool
	}{
		{balena.Device{Status: "operational"}, false},
		{balena.Device{Status: "disconnected"}, false},
		{balena.Device{Status: "inactive"}, true},
		{balena.Device{Status: "disconnected", Deactivated: true}, true},
		{balena.Device{Status: "disconnected", Frozen: true}, true},
	} {
		if got := test.device.OutOfService(); got != test.want {
			t.Errorf("%+v: %t", test.device, got)
		}
	}
}

func TestInstalls(t *testing.T) {
	service := func(release int64, status string) balena.Service {
		return balena.Service{Release: release, Status: status}
	}
	installs := func(services ...balena.Service) balena.Installs { return balena.NewInstalls(services) }
	mixed := installs(service(8, "Running"), service(7, "Running"), service(8, "Downloaded"), service(0, "Running"), service(8, "exited"), service(8, "Dead"))
	for release, want := range map[int64][3]int{7: {1, 1, 0}, 8: {4, 1, 2}, 9: {0, 0, 0}, 0: {0, 0, 0}} {
		if services, running, exited := mixed.Of(release); services != want[0] || running != want[1] || exited != want[2] {
			t.Errorf("of release %d: %d of %d run and %d have exited, want %v", release, running, services, exited, want)
		}
	}
	if one, other := installs(service(7, "Running"), service(8, "exited")), installs(service(8, "exited"), service(7, "Running")); one != other {
		t.Errorf("the order of rows makes a difference: %q and %q", one, other)
	}
	none := installs()
	if services, running, exited := none.Of(7); services != 0 || running != 0 || exited != 0 || !none.Known() {
		t.Errorf("without services: %q", none)
	}
	if balena.Installs("").Known() {
		t.Error("what was not read is known")
	}
}

func TestHealthy(t *testing.T) {
	healthy := balena.Device{Online: true, RunningRelease: 7, TargetRelease: 7, Installs: "7 2 2 0"}
	for what, change := range map[string]func(*balena.Device){
		"":                             func(*balena.Device) {},
		"disconnected":                 func(d *balena.Device) { d.Online = false },
		"on another release":           func(d *balena.Device) { d.RunningRelease = 6 },
		"without a target":             func(d *balena.Device) { d.TargetRelease, d.RunningRelease = 0, 0 },
		"with a service that is down":  func(d *balena.Device) { d.Installs = "7 2 1" },
		"without services":             func(d *balena.Device) { d.Installs = "" },
		"with services of another one": func(d *balena.Device) { d.Installs = "6 2 2" },
	} {
		d := healthy
		change(&d)
		if d.Healthy() != (what == "") {
			t.Errorf("a device %s is healthy: %t", what, d.Healthy())
		}
	}
}
