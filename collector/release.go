// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Metrics of a fleet's releases: the target release, the releases in use, and the newest release.

// releaseStatuses are the known values of release.status.
var releaseStatuses = []string{"cancelled", "error", "failed", "interrupted", "running", "success"}

// other is the commit and version of the series that sums up the releases beyond the limit.
const other = "other"

func releaseTable(o Options) anyTable {
	releaseLabels := []string{"commit", "release_version"}
	return fleetKind.table("Releases", "1 per fleet",
		labeled("balena_fleet_target_release_info", "The target release of the fleet, for devices that are not pinned.",
			"application.should_be_running__release", []string{"release_id", "commit", "release_version"},
			func(f *fleet, out *samples) {
				if f.TargetRelease != 0 {
					r := f.view.Releases[f.TargetRelease]
					out.add(1, strconv.FormatInt(f.TargetRelease, 10), r.Commit, r.Version)
				}
			}),
		gauge("balena_fleet_target_release_created_timestamp_seconds", "When the fleet's target release was created.",
			"application.should_be_running__release.created_at",
			func(f *fleet) float64 { return f.view.Releases[f.TargetRelease].Created.Seconds() }),
		gauge("balena_fleet_tracks_latest_release", "Whether the fleet's target release is always its latest successful release (1) or was selected by a user (0).",
			"application.should_track_latest_release",
			func(f *fleet) float64 { return boolean(f.TracksLatest) }),
		number("balena_fleet_devices_on_target_release", "Devices that run their target release: the release they are pinned to, otherwise the target release of the fleet.",
			"device.is_running__release, is_pinned_on__release, application.should_be_running__release",
			func(f *fleet) int { return f.OnTarget }),
		number("balena_fleet_devices_on_invalidated_release", "Devices that run a release that was invalidated.", "device.is_running__release.is_invalidated",
			func(f *fleet) int { return f.running(func(r balena.Release) bool { return r.Invalidated }) }),
		number("balena_fleet_devices_on_draft_release", "Devices that run a draft release.", "device.is_running__release.is_final",
			func(f *fleet) int { return f.running(func(r balena.Release) bool { return r.ID != 0 && !r.Final }) }),
		number("balena_fleet_devices_pinned", "Devices that are pinned to a release.", "device.is_pinned_on__release",
			func(f *fleet) int { return f.Pinned }),
		number("balena_fleet_devices_without_release", "Devices that do not run a release.", "device.is_running__release",
			func(f *fleet) int { return f.WithoutRelease }),
		labeled("balena_fleet_devices_by_release", "Devices by the release they run. The least used releases beyond --collector.release.limit are summed in one series with the label value other.",
			"device.is_running__release", releaseLabels,
			func(f *fleet, out *samples) {
				for _, r := range f.releasesInUse(o.ReleaseLimit) {
					out.add(float64(r.devices), r.commit, r.version)
				}
			}).series("1 per release in use, up to the limit"),
		labeled("balena_fleet_latest_release_info", "The newest release of the fleet, including failed builds.",
			"application.owns__release", releaseLabels,
			func(f *fleet, out *samples) {
				if r := f.LatestRelease; r.ID != 0 {
					out.add(1, r.Commit, r.Version)
				}
			}),
		gauge("balena_fleet_latest_release_created_timestamp_seconds", "When the newest release of the fleet was created.",
			"application.owns__release.created_at",
			func(f *fleet) float64 { return f.LatestRelease.Created.Seconds() }),
		labeled("balena_fleet_latest_release_status", "The status of the newest release of the fleet: 1 for the current status, 0 for the others.",
			"application.owns__release.status", []string{"status"},
			func(f *fleet, out *samples) {
				if f.LatestRelease.ID != 0 {
					addStates(out, releaseStatuses, balena.Counts[string]{cmp.Or(f.LatestRelease.Status, balena.Unknown): 1})
				}
			}).series("6 per fleet with releases"),
	)
}

// running returns the number of devices that run a release for which match returns true.
func (f *fleet) running(match func(balena.Release) bool) int {
	return countIf(f.ByRelease, func(id int64) bool { return match(f.view.Releases[id]) })
}

// releaseInUse is a release and the number of a fleet's devices that run it.
type releaseInUse struct {
	commit, version string
	devices         int
}

// releasesInUse returns the releases that the fleet's devices run, the most used first. Releases beyond the limit are
// summed in one element; 0 means no limit.
func (f *fleet) releasesInUse(limit int) []releaseInUse {
	// Grouped by labels, not by ID: all unknown releases have the same labels and are one series.
	found := balena.Counts[releaseInUse]{}
	for id, n := range f.ByRelease {
		r := f.view.Releases[id]
		found[releaseInUse{commit: cmp.Or(r.Commit, balena.Unknown), version: cmp.Or(r.Version, balena.Unknown)}] += n
	}
	releases := make([]releaseInUse, 0, len(found))
	for r, n := range found {
		r.devices = n
		releases = append(releases, r)
	}
	slices.SortFunc(releases, func(a, b releaseInUse) int {
		return cmp.Or(cmp.Compare(b.devices, a.devices), cmp.Compare(a.version, b.version), cmp.Compare(a.commit, b.commit))
	})
	if limit > 0 && len(releases) > limit {
		rest := releaseInUse{commit: other, version: other}
		for _, r := range releases[limit:] {
			rest.devices += r.devices
		}
		releases = append(releases[:limit], rest)
	}
	return releases
}
