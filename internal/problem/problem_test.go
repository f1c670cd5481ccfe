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
			t.Errorf("%s, without Away, comes after a cause with Away", c.Alert)
		}
	}
	if Index("BalenaNothing") != -1 {
		t.Error("an unknown cause has an index")
	}
}

func TestSince(t *testing.T) {
	const now = 1_000_000_000_000
	d := balena.Device{LastConnectivity: now - 2*3600*1000, Created: 5, Status: "disconnected"}
	if got := Causes[Index("BalenaDeviceOffline")].Since(&d); got != d.LastConnectivity {
		t.Errorf("offline since %d, want %d", got, d.LastConnectivity)
	}
	d.LastConnectivity = 0
	if got := Causes[Index("BalenaDevicesNeverConnected")].Since(&d); got != 5 {
		t.Errorf("never connected since %d, want 5", got)
	}
}

func TestThresholdsAsText(t *testing.T) {
	limits := DefaultThresholds()
	if err := limits.Set(" deviceOfflineSeconds=1800, storageRatio=0.5 ,"); err != nil || limits.DeviceOffline != 1800 || limits.Storage != 0.5 || limits.Memory != DefaultThresholds().Memory {
		t.Errorf("%+v, %v", limits, err)
	}
	for text, want := range map[string]string{
		"offline=5":                      `unknown threshold "offline"; valid thresholds: deviceOfflineSeconds, deviceLostSeconds,`,
		"storageRatio":                   `invalid value "" of storageRatio: it must be a number greater than 0`,
		"storageRatio=NaN":               `invalid value "NaN" of storageRatio: it must be a number greater than 0`,
		"storageRatio=-1":                `invalid value "-1" of storageRatio: it must be a number greater than 0`,
		"deviceLostSeconds=60":           `deviceLostSeconds (60) must not be less than deviceOfflineSeconds (3600)`,
		"deviceOfflineSeconds=999999999": `deviceLostSeconds (604800) must not be less than deviceOfflineSeconds (9.99999999e+08)`,
	} {
		limits := DefaultThresholds()
		if err := limits.Set(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	for _, name := range Names() {
		limits := DefaultThresholds()
		if err := limits.Set(name + "=600000"); err != nil || limits == DefaultThresholds() {
			t.Errorf("%s is not set: %v", name, err)
		}
	}
}
