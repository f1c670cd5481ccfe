// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"cmp"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// onlyOS are the options for the families of releases of balenaOS and of the supervisor.
func onlyOS() collector.Options {
	o := allGroups()
	o.Exported = regexp.MustCompile(`^balena_(os_.*|supervisor_.*|fleet_devices_os_(outdated|unsupported|invalidated)|` +
		`device_os_(update_available|releases_behind|release_.*|line)|device_supervisor_update_available)$`).MatchString
	return o
}

// TestGoldenOS compares the metrics of releases with a file. The devices run the newest and an old release of the default line,
// invalidated releases, releases with known issues or variants, ESR releases of a supported and of an unsupported line, a draft,
// a failed build, and a custom build.
func TestGoldenOS(t *testing.T) {
	versions := []struct{ os, variant, supervisor string }{
		{"balenaOS 6.6.0", "prod", "17.1.0"},
		{"balenaOS 6.5.10", "prod", "17.0.3"},
		{"balenaOS 6.1.2", "prod", "16.12.9"},
		{"balenaOS 2.88.4+rev1", "dev", "12.11.0"},
		{"balenaOS 2.115.18+rev4", "prod", "14.13.14"},
		{"balenaOS 2026.10.0", "prod", "17.1.0"},
		{"balenaOS 2026.7.0", "prod", "17.0.3"},
		{"balenaOS 2026.1.5", "prod", "17.0.3"},
		{"balenaOS 6.7.0-1795355694988", "prod", "17.2.0-1795355694988"},
		{"balenaOS 6.5.11", "prod", "17.1.0"},
		{"balenaOS 6.6.0-custom", "prod", "17.1.0-custom"},
		{"", "", ""},
	}
	api := newAPI(t, simulator.Config{Edition: simulator.Cloud, Devices: len(versions), Fleets: 1, Seed: 1}, onlyOS())
	api.Update(func(st *simulator.State) {
		var rpi int
		for _, dt := range st.DeviceTypes.All() {
			if dt.Slug == "raspberrypi4-64" {
				rpi = dt.ID
			}
		}
		for i, d := range st.Devices.All() {
			d.DeviceTypeID, d.OSVersion, d.OSVariant, d.SupervisorVersion = rpi, versions[i].os, versions[i].variant, versions[i].supervisor
			d.UUID, d.IsInactive, d.IsFrozen = cmp.Or(strings.TrimPrefix(versions[i].os, "balenaOS "), "no version"), false, false
		}
	})
	golden(t, filepath.Join("testdata", "system.txt"), text(api.fetch(t), onlyOS()))
}

// TestNoReleasesNoSamples checks that there are no samples on a server without host applications, and that no part fails.
func TestNoReleasesNoSamples(t *testing.T) {
	for _, version := range []balena.Version{balena.V7, balena.V6} {
		api := newAPI(t, simulator.Config{Dataset: dataset(t)}, onlyOS(), pin(version))
		if got := text(api.fetch(t), onlyOS()); strings.Contains(got, "\nbalena_") {
			t.Errorf("%s: samples without releases:\n%.500s", version, got)
		}
	}
}

// TestReleasesChange compares the page after a release was published or invalidated with a page of a new collector.
func TestReleasesChange(t *testing.T) {
	api := newAPI(t, simulator.Config{Edition: simulator.Cloud, Devices: 60, Fleets: 3, Seed: 1}, allGroups(), func(c *account.Config) { c.SlowInterval = 0 })
	c := of(nil, allGroups())
	last := serve(c.Render(api.fetch(t)))
	for _, change := range []func(*simulator.Release){
		func(r *simulator.Release) { r.IsInvalidated = r.RawVersion == "6.6.0" || r.IsInvalidated },
		func(r *simulator.Release) { r.IsInvalidated = r.RawVersion != "6.6.0" && r.IsInvalidated },
		func(r *simulator.Release) {
			if strings.HasPrefix(r.RawVersion, "17.2.0-") {
				r.IsFinal, r.RawVersion = true, "17.2.0"
			}
		},
	} {
		api.Update(func(st *simulator.State) {
			for _, r := range st.Releases.All() {
				change(r)
			}
		})
		s := api.fetch(t)
		got := serve(c.Render(s))
		if want := text(s, allGroups()); got != want {
			t.Errorf("the page differs from one that is rendered from scratch")
		}
		if got == last {
			t.Error("the page does not change")
		}
		last = got
	}
}
