// SPDX-License-Identifier: Apache-2.0

package balena_test

import (
	"math"
	"testing"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

func TestConnected(t *testing.T) {
	for _, test := range []struct {
		device           balena.Device
		connected, never bool
		changed          balena.Instant
	}{
		{balena.Device{Online: true, HeartbeatState: "online", LastConnectivity: 5, HeartbeatChanged: 7}, true, false, 7},
		{balena.Device{Online: true, HeartbeatState: "offline", LastConnectivity: 5, HeartbeatChanged: 3}, true, false, 5},
		{balena.Device{HeartbeatState: "online"}, true, false, 0}, // its VPN is switched off
		{balena.Device{HeartbeatState: "timeout"}, true, false, 0},
		{balena.Device{HeartbeatState: "offline", LastConnectivity: 5}, false, false, 5},
		{balena.Device{HeartbeatState: "unknown", LastConnectivity: 5}, false, false, 5},
		{balena.Device{HeartbeatState: "unknown", HeartbeatChanged: 5}, false, false, 5},
		{balena.Device{HeartbeatState: "unknown"}, false, true, 0},
		{balena.Device{HeartbeatState: "offline"}, false, false, 0},
		{balena.Device{}, false, true, 0},
	} {
		d := test.device
		if d.Connected() != test.connected || d.NeverConnected() != test.never || d.ConnectivityChanged() != test.changed {
			t.Errorf("%+v: connected %t, never connected %t, changed %d; want %t, %t, %d",
				d, d.Connected(), d.NeverConnected(), d.ConnectivityChanged(), test.connected, test.never, test.changed)
		}
	}
}

func TestInstantInSeconds(t *testing.T) {
	if s := balena.Instant(1795355694988).Seconds(); s != 1795355694.988 {
		t.Errorf("got %v, want 1795355694.988", s)
	}
	if s := balena.Instant(0).Seconds(); !math.IsNaN(s) {
		t.Errorf("null is %v, want NaN", s)
	}
}
