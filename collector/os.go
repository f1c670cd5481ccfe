// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"iter"
	"maps"
	"slices"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Metrics of the releases of balenaOS and of the supervisor that the server publishes, and how far devices and fleets are
// behind them. A device has samples only if its version is that of a published release.

// supervisorVersion is a version of the supervisor on a device type.
type supervisorVersion struct{ deviceType, version string }

// remembered returns a function that finds the published release of a version, or nil, and keeps it: devices run few
// different versions.
func remembered[K comparable](find func(K) *balena.SystemRelease) func(K) *balena.SystemRelease {
	found := map[K]*balena.SystemRelease{}
	return func(version K) *balena.SystemRelease {
		r, known := found[version]
		if !known {
			r = find(version)
			found[version] = r
		}
		return r
	}
}

// osLine is a line of releases of balenaOS for a device type.
type osLine struct {
	deviceType string
	*balena.ReleaseLine
}

// osLines yields the lines that are supported, or that devices use.
func osLines(v *view) iter.Seq[osLine] {
	return func(yield func(osLine) bool) {
		if v.System == nil {
			return
		}
		type key struct{ deviceType, line string }
		used := map[key]bool{}
		for i := range v.fleets {
			for os := range v.fleets[i].ByOS {
				if r := v.osRelease(os); r != nil {
					used[key{os.Type, r.Line}] = true
				}
			}
		}
		for _, deviceType := range slices.Sorted(maps.Keys(v.System.OS)) {
			lines := v.System.OS[deviceType].Lines
			for i := range lines {
				if l := &lines[i]; (used[key{deviceType, l.Name}] || l.Supported(v.now())) && !yield(osLine{deviceType, l}) {
					return
				}
			}
		}
	}
}

func osLineTable() anyTable {
	lines := kind[osLine]{
		labels:   []string{"device_type", "line"},
		all:      osLines,
		identity: func(l *osLine, values []string) []string { return append(values, l.deviceType, l.Name) },
	}
	return lines.table("OS", "1 per device type and line that is supported or in use",
		labeled("balena_os_latest_release_info", "The newest release of balenaOS for a device type in a line, without invalidated releases. The line is default, or the year and month of an ESR version.",
			"release.raw_version, is_invalidated", []string{"os_version"},
			func(l *osLine, out *samples) {
				if l.Latest != nil {
					out.add(1, l.Latest.Version)
				}
			}),
		gauge("balena_os_latest_release_created_timestamp_seconds", "When the newest release of the line was created.", "release.created_at",
			func(l *osLine) float64 {
				if l.Latest == nil {
					return none
				}
				return l.Latest.Created.Seconds()
			}),
		state("balena_os_line_phase", "The phase of the ESR line: next, current, sunset or end-of-life.",
			"release.phase, application_tag.value", "phase",
			func(l *osLine) string {
				if l.EndOfLife == 0 {
					return ""
				}
				return l.Phase
			}).series("1 per device type and ESR line that is supported or in use and has a phase"),
		gauge("balena_os_line_end_of_life_timestamp_seconds", "When the support of the ESR line ends, 9 months after its first release, unless it has a phase.",
			"release.created_at",
			func(l *osLine) float64 { return l.EndOfLife.Seconds() }).
			series("1 per device type and ESR line that is supported or in use"),
	)
}

// supervisor is the newest release of the supervisor for a CPU architecture.
type supervisor struct {
	architecture string
	latest       *balena.SystemRelease
}

func supervisorTable() anyTable {
	supervisors := kind[supervisor]{
		labels: []string{"cpu_architecture"},
		all: func(v *view) iter.Seq[supervisor] {
			return func(yield func(supervisor) bool) {
				if v.System == nil {
					return
				}
				for _, architecture := range slices.Sorted(maps.Keys(v.System.Supervisor)) {
					line := v.System.Supervisor[architecture].Line(balena.DefaultLine)
					if line != nil && line.Latest != nil && !yield(supervisor{architecture, line.Latest}) {
						return
					}
				}
			}
		},
		identity: func(s *supervisor, values []string) []string { return append(values, s.architecture) },
	}
	return supervisors.table("OS", "1 per CPU architecture in use",
		labeled("balena_supervisor_latest_release_info", "The newest release of the supervisor for a CPU architecture, without invalidated releases.",
			"release.raw_version, is_invalidated", []string{"supervisor_version"},
			func(s *supervisor, out *samples) { out.add(1, s.latest.Version) }),
	)
}

func fleetOSTable() anyTable {
	return fleetKind.table("OS", "1 per fleet",
		onOS("balena_fleet_devices_os_outdated", "Devices in service for which a newer release of balenaOS is published.", "device.os_version, os_variant, release.raw_version, is_invalidated",
			func(r *balena.SystemRelease, _ balena.Instant) bool { return r.Behind > 0 }),
		onOS("balena_fleet_devices_os_unsupported", "Devices in service whose release of balenaOS is no longer supported.", "device.os_version, os_variant, release.phase, created_at, application_tag.value",
			func(r *balena.SystemRelease, now balena.Instant) bool { return !r.Supported(now) }),
		onOS("balena_fleet_devices_os_invalidated", "Devices in service whose release of balenaOS was invalidated.", "device.os_version, os_variant, release.is_invalidated",
			func(r *balena.SystemRelease, _ balena.Instant) bool { return r.Invalidated }),
	)
}

// onOS returns a family with the number of devices in service with a published release of balenaOS that meets a condition at
// the time of the snapshot. It has no samples if the server publishes no releases.
func onOS(name, help, source string, condition func(r *balena.SystemRelease, now balena.Instant) bool) family[fleet] {
	return gauge(name, help, source, func(f *fleet) float64 {
		n := countIf(f.inService.ByOS, func(os balena.OS) bool {
			r := f.view.osRelease(os)
			return r != nil && condition(r, f.view.now())
		})
		return onlyIf(f.view.System != nil, float64(n))
	})
}

// osRelease returns the published release of balenaOS that the device runs, or nil.
func (d *device) osRelease() *balena.SystemRelease {
	return d.view.osRelease(balena.OSOf(d.Device))
}

// ofOS returns a family with one sample for each device that runs a published release of balenaOS.
func ofOS(name, help, source string, value func(*balena.SystemRelease) float64) family[device] {
	return gauge(name, help, source, func(d *device) float64 {
		r := d.osRelease()
		if r == nil {
			return none
		}
		return value(r)
	}).inLongRuns()
}

// ofOSWhere returns a family with a sample for each device that runs a release of balenaOS that meets a condition.
func ofOSWhere(name, help, source string, condition func(*balena.SystemRelease) bool) family[device] {
	value := func(r *balena.SystemRelease) float64 { return onlyIf(condition(r), 1) }
	return ofOS(name, help, source, value).series("1 per such device")
}

func deviceOSTable() anyTable {
	return deviceKind.table("Devices", "1 per device that runs a published release",
		ofOS("balena_device_os_update_available", "Whether a newer release of balenaOS than that of the device is published. An ESR release is compared with ESR releases only, any other release with the default line.",
			"device.os_version, os_variant, release.raw_version, is_invalidated", func(r *balena.SystemRelease) float64 { return boolean(r.Behind > 0) }),
		ofOS("balena_device_os_releases_behind", "Number of published releases of balenaOS that are newer than that of the device, without invalidated releases. ESR releases are compared with ESR releases only.",
			"device.os_version, os_variant, release.raw_version, is_invalidated", func(r *balena.SystemRelease) float64 { return float64(r.Behind) }),
		ofOS("balena_device_os_release_created_timestamp_seconds", "When the release of balenaOS that the device runs was created.",
			"device.os_version, os_variant, release.created_at", func(r *balena.SystemRelease) float64 { return r.Created.Seconds() }),
		labeled("balena_device_os_line", "The line of the release of balenaOS that the device runs: default, or the year and month of an ESR version.",
			"device.os_version, release.raw_version", []string{"line"},
			func(d *device, out *samples) {
				if r := d.osRelease(); r != nil {
					out.add(1, r.Line)
				}
			}).inLongRuns(),
		ofOSWhere("balena_device_os_release_invalidated", "The device runs a release of balenaOS that was invalidated (1).",
			"device.os_version, os_variant, release.is_invalidated", func(r *balena.SystemRelease) bool { return r.Invalidated }),
		ofOSWhere("balena_device_os_release_known_issues", "The device runs a release of balenaOS with known issues (1).",
			"device.os_version, os_variant, release.known_issue_list", func(r *balena.SystemRelease) bool { return r.KnownIssues }),
		gauge("balena_device_supervisor_update_available", "Whether a newer release of the supervisor than that of the device is published.",
			"device.supervisor_version, release.raw_version, is_invalidated", func(d *device) float64 {
				r := d.view.supervisorRelease(supervisorVersion{d.Type, d.SupervisorVersion})
				if r == nil {
					return none
				}
				return boolean(r.Behind > 0)
			}).inLongRuns(),
	)
}
