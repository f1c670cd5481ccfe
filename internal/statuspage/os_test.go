// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// A device page describes the release of balenaOS. Lists mention it only if it is no longer supported, was invalidated, or is
// a year old.
func TestOSRelease(t *testing.T) {
	const days = 24 * time.Hour
	published := balena.NewReleaseHistory([]balena.SystemRelease{
		{Version: "6.6.0", Created: ago(30 * days)},
		{Version: "6.5.10", Created: ago(100 * days), KnownIssues: true},
		{Version: "6.1.2", Created: ago(120 * days), Invalidated: true},
		{Version: "5.3.21", Created: ago(500 * days)},
		{Version: "2.115.18", Created: ago(900 * days), Phase: balena.EndOfLifePhase},
		{Version: "2026.1.0", Created: ago(310 * days)},
		{Version: "2026.10.0", Created: ago(400 * days), Phase: "next"},
	})
	for version, want := range map[string]struct{ fact, line, remark string }{
		"balenaOS 6.6.0":     {"OS release: 30 d old", "", ""},
		"balenaOS 6.5.10":    {"OS release: 3 months old, 1 release behind, known issues", "", ""},
		"balenaOS 6.1.2":     {"OS release: 3 months old, 2 releases behind, invalidated", "", "OS 3 months old, 2 releases behind, invalidated"},
		"balenaOS 5.3.21":    {"OS release: 16 months old, 2 releases behind", "", "OS 16 months old, 2 releases behind"},
		"balenaOS 2.115.18":  {"OS release: 29 months old, 3 releases behind, no longer supported", "", "OS 29 months old, 3 releases behind, no longer supported"},
		"balenaOS 2026.1.0":  {"OS release: 10 months old, 1 release behind, no longer supported", "OS line: 2026.1", "OS 10 months old, 1 release behind, no longer supported"},
		"balenaOS 2026.10.0": {"OS release: 13 months old", "OS line: 2026.10 next", ""},
		"balenaOS 6.6.1":     {"", "", ""},
	} {
		t.Run(version, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := updatingDevice()
				s.System = &balena.SystemReleases{OS: map[string]*balena.ReleaseHistory{"raspberrypi5": published}}
				d := *s.Devices.Find(1)
				d.OSVersion = version
				s.Devices = s.Devices.With([]*balena.Device{&d}, nil)
				var facts []string
				for _, list := range find(getPage(t, deviceOptions(s), "/devices/aaaaaaaaaaaa"), "dl") {
					for _, row := range find(list, "div") {
						if name := text(find(row, "dt")[0]); name == "OS release" || name == "OS line" {
							facts = append(facts, name+": "+text(find(row, "dd")[0]))
						}
					}
				}
				if diff := cmp.Diff(strings.TrimSpace(want.fact+"\n"+want.line), strings.Join(facts, "\n")); diff != "" {
					t.Errorf("facts (-want +got):\n%s", diff)
				}
				list := text(getPage(t, deviceOptions(s), "/fleets/acme/green"))
				if mentioned := strings.Contains(list, "OS "+strings.TrimPrefix(want.fact, "OS release: ")); want.fact != "" && mentioned != (want.remark != "") {
					t.Errorf("the list mentions the release: %t", mentioned)
				}
				if want.remark != "" && !strings.Contains(list, want.remark) {
					t.Errorf("the list lacks %q: %s", want.remark, list)
				}
			})
		})
	}
}

func TestOSReleaseJSON(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := updatingDevice()
		s.System = &balena.SystemReleases{OS: map[string]*balena.ReleaseHistory{"raspberrypi5": balena.NewReleaseHistory([]balena.SystemRelease{
			{Version: "6.5.10", Created: ago(24 * time.Hour)}, {Version: "6.6.0", Created: ago(time.Hour)},
		})}}
		var got map[string]any
		if err := json.Unmarshal(get(t, deviceOptions(s), "/devices/aaaaaaaaaaaa?format=json").Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"line": "default", "created": "1999-12-31T00:00:00Z", "releases_behind": 1.0, "supported": true, "invalidated": false, "known_issues": false,
		}
		if diff := cmp.Diff(want, got["os_release"]); diff != "" {
			t.Errorf("os_release (-want +got):\n%s", diff)
		}
	})
}
