// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// updatingDevice returns an account with a device that has all fields.
func updatingDevice() *balena.Snapshot {
	s := twoFleets()
	d := *s.Devices.Find(1)
	d.Status, d.UpdateStatus, d.UpdateProgress, d.UpdateChanged = "updating", "downloading", 42.7, ago(3*time.Hour)
	d.HeartbeatChanged, d.Created, d.Modified = ago(50*time.Hour), ago(400*24*time.Hour), ago(4*time.Minute)
	d.RunningRelease, d.PinnedRelease = 10, 11
	d.CPUUsage, d.CPUTemperature, d.MemoryUsed, d.MemorySize, d.StorageUsed, d.StorageSize = 12.34, 81.5, 970, 1000, 2048, 28774
	d.WebAccessible, d.Undervolted = true, true
	d.OSTarget, d.SupervisorTarget = 20, 21
	d.Attachments = &balena.Attachments{
		Services: []balena.Service{
			{ID: 1, Name: "camera", Status: "Downloading", Progress: 30.9},
			{ID: 2, Name: "camera", Status: "Running", Progress: balena.Null, Installed: ago(30 * 24 * time.Hour)},
			{ID: 3, Name: "main", Status: "restarting", Progress: -5},
		},
		Tags: []balena.Tag{{ID: 7, Value: "berlin"}, {}},
	}
	s.Releases[20] = balena.Release{ID: 20, Version: "6.6.1"}
	s.Releases[21] = balena.Release{ID: 21, Version: "17.0.3"}
	s.Devices = s.Devices.With([]*balena.Device{&d}, nil)
	return s
}

func deviceOptions(s *balena.Snapshot) Options {
	o := options(s, good)
	s.DeviceTagKeys = []string{"site", "owner"}
	o.GrafanaURL = "https://grafana.example.com/"
	return o
}

func TestDevicePage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		root := getPage(t, deviceOptions(updatingDevice()), "/devices/aaaaaaaaaaaa")
		main := find(root, "main")[0]
		if got, want := text(find(main, "h1")[0]), "fine"; got != want {
			t.Errorf("heading %q, want %q", got, want)
		}
		paragraphs := texts(find(main, "p"))
		for _, want := range []string{
			"updating, connected for 2 d ; downloading, 42 %",
			"Fleet acme/green, UUID aaaaaaaaaaaa",
			"Reported at least 4 min ago. Devices report figures at most every 5 minutes.",
		} {
			if !slices.Contains(paragraphs, want) {
				t.Errorf("no paragraph %q in %q", want, paragraphs)
			}
		}
		var facts []string
		for _, list := range find(main, "dl") {
			for _, row := range find(list, "div") {
				facts = append(facts, text(find(row, "dt")[0])+": "+text(find(row, "dd")[0]))
			}
		}
		want := []string{
			"VPN: connected 1999-12-29 00:00:00 UTC, 3 d ago",
			"Heartbeat: online 1999-12-29 22:00:00 UTC, 2 d ago",
			"Release: 0123456",
			"Target release: 1.1.0, pinned",
			"Update status: downloading, 42 % 1999-12-31 21:00:00 UTC, 3 h ago",
			"OS: balenaOS 6.5.10 prod",
			"OS update: to 6.6.1",
			"Supervisor: 17.0.3",
			"Device type: raspberrypi5",
			"Public URL: enabled",
			"Registered: 1998-11-27 00:00:00 UTC, 400 d ago",
			"Last modified: 1999-12-31 23:56:00 UTC, 4 min ago",
			"CPU usage: 12.3 %",
			"CPU temperature: 81.5 °C",
			"Memory: 970 MiB of 1000 MiB, 97 %",
			"Storage: 2 GiB of 28.1 GiB, 7 %",
			"Undervoltage: reported since the last boot",
			"site: berlin",
		}
		if diff := cmp.Diff(want, facts); diff != "" {
			t.Errorf("facts (-want +got):\n%s", diff)
		}
		wantServices := [][]string{
			{"Service", "Status", "Installed"},
			{"camera", "Downloading 30 %", "unknown"},
			{"camera", "Running", "30 d ago"},
			{"main", "restarting", "unknown"},
		}
		if diff := cmp.Diff(wantServices, rows(root)); diff != "" {
			t.Errorf("services (-want +got):\n%s", diff)
		}
		const runbooks = "https://example.com/runbooks/"
		wantLinks := map[string]string{
			"balena-exporter": "../", "Fleets": "../fleets", "Problems": "../problems", "Stop reloading": "?hold=1", "JSON": "?format=json",
			"acme/green": "../fleets/acme/green", "balena dashboard": "https://dashboard.balena-cloud.com/devices/aaaaaaaaaaaa/summary",
			"Grafana":                                 "https://grafana.example.com/d/balena-device?var-device=aaaaaaaaaaaa&var-fleet=acme%2Fgreen",
			"Runbook for BalenaDeviceUpdateStuck":     runbooks + "BalenaDeviceUpdateStuck.md",
			"Runbook for BalenaDeviceMemoryExhausted": runbooks + "BalenaDeviceMemoryExhausted.md",
			"Runbook for BalenaDeviceOverheating":     runbooks + "BalenaDeviceOverheating.md",
			"Runbook for BalenaServiceRestarting":     runbooks + "BalenaServiceRestarting.md",
			"Runbook for BalenaDeviceUndervolted":     runbooks + "BalenaDeviceUndervolted.md",
		}
		if diff := cmp.Diff(wantLinks, links(root)); diff != "" {
			t.Errorf("links (-want +got):\n%s", diff)
		}
	})
}

// TestDevicePageWithoutData checks that the page of a device without data has no empty sections.
func TestDevicePageWithoutData(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &balena.Snapshot{Time: at, Fleets: []balena.Fleet{{ID: 1, Slug: "a/b"}}, Devices: balena.NewDevices(balena.Device{
			ID: 1, FleetID: 1, UUID: "c0ffee", Status: "inactive", HeartbeatState: "unknown", UpdateProgress: balena.Null, CPUUsage: balena.Null,
			CPUTemperature: 0, MemoryUsed: balena.Null, MemorySize: 1000, StorageUsed: 5e20, StorageSize: balena.Null,
		})}
		o := options(s, good)
		o.DeviceURL = ""
		root := getPage(t, o, "/devices/c0ffee")
		if got, want := texts(find(root, "h2")), []string{"State"}; !slices.Equal(got, want) {
			t.Errorf("sections %q, want %q", got, want)
		}
		for _, want := range []string{"inactive, never connected", "VPN disconnected Heartbeat unknown Release none Target release none Update status unknown OS unknown Supervisor unknown Device type unknown"} {
			if !strings.Contains(text(root), want) {
				t.Errorf("no text %q: %s", want, text(root))
			}
		}
	})
}

func TestDeviceJSON(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var got map[string]any
		if err := json.Unmarshal(get(t, deviceOptions(updatingDevice()), "/devices/aaaaaaaaaaaa?format=json").Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]any{
			"uuid": "aaaaaaaaaaaa", "fleet": "acme/green", "update_progress": 42.7, "cpu_temperature_celsius": 81.5, "memory_used_mebibytes": 970.0,
			"heartbeat_state": "online", "heartbeat_change": "1999-12-29T22:00:00Z", "modified": "1999-12-31T23:56:00Z", "age_seconds": 34.0,
			"tags": []any{map[string]any{"key": "site", "value": "berlin"}},
		} {
			if diff := cmp.Diff(want, got[name]); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	})
}

func TestFiguresOfADisconnectedDevice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := updatingDevice()
		d := s.Devices.Find(1)
		d.Online, d.HeartbeatState = false, "offline"
		if got := text(getPage(t, deviceOptions(s), "/devices/aaaaaaaaaaaa")); !strings.Contains(got, "The device is disconnected. These are its last reported figures.") {
			t.Errorf("no text about the age of the figures: %s", got)
		}
	})
}
