// SPDX-License-Identifier: Apache-2.0

package problem

import (
	"strings"
	"testing"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// The conditions themselves are tested against the alert rules, in test/prometheus/rules.

func TestSets(t *testing.T) {
	for i, c := range Causes {
		s := Set(1) << i
		if !s.Has(i) || s.Has((i+1)%len(Causes)) || len(s.All()) != 1 || s.All()[0].Alert != c.Alert || s.Away() != c.Away || Index(c.Alert) != i {
			t.Errorf("%s: wrong set %b", c.Alert, s)
		}
		if i > 0 && Causes[i-1].Away && !c.Away {
			t.Errorf("%s is not away, and comes after one that is", c.Alert)
		}
	}
	if Index("BalenaNothing") != -1 {
		t.Error("a cause that is not there has an index")
	}
}

func TestSince(t *testing.T) {
	limits := DefaultThresholds()
	const now = 1_000_000_000_000
	d := balena.Device{LastConnectivity: now - 2*3600*1000, Created: 5, Status: "disconnected"}
	if got := limits.Since(Index("BalenaDeviceOffline"), &d, now); got != d.LastConnectivity {
		t.Errorf("offline since %d, want %d", got, d.LastConnectivity)
	}
	d.LastConnectivity = 0
	if got := limits.Since(Index("BalenaDevicesNeverConnected"), &d, now); got != 5 {
		t.Errorf("never connected since %d, want 5", got)
	}
}

func TestThresholdsAsText(t *testing.T) {
	limits := DefaultThresholds()
	if err := limits.Set(" deviceOfflineSeconds=1800, storageRatio=0.5 ,"); err != nil || limits.DeviceOffline != 1800 || limits.Storage != 0.5 || limits.Memory != DefaultThresholds().Memory {
		t.Errorf("%+v, %v", limits, err)
	}
	for text, want := range map[string]string{
		"offline=5":                      `"offline" is no threshold; there are deviceOfflineSeconds, deviceLostSeconds,`,
		"storageRatio":                   `storageRatio must be a number of more than 0, and is ""`,
		"storageRatio=NaN":               `storageRatio must be a number of more than 0, and is "NaN"`,
		"storageRatio=-1":                `storageRatio must be a number of more than 0, and is "-1"`,
		"deviceLostSeconds=60":           `deviceLostSeconds (60) is less than deviceOfflineSeconds (3600), and no device would be offline before it is lost`,
		"deviceOfflineSeconds=999999999": `deviceLostSeconds (604800) is less than deviceOfflineSeconds (9.99999999e+08)`,
	} {
		limits := DefaultThresholds()
		if err := limits.Set(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	for _, name := range Names() {
		if limits.Get(name) == 0 {
			t.Errorf("%s is 0", name)
		}
	}
}
