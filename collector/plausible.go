// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"slices"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Devices may report implausible numbers. These have no sample. They are counted in
// balena_exporter_implausible_values_total: once for each change of a value to an implausible one, not for each page.

// figure returns a figure of a device, [none] if it is null or implausible.
func (d *device) figure(f *balena.Figure) float64 {
	return f.Of(d.Device).Float() + 0 // converts -0 to 0
}

// countImplausible counts the implausible values of a device that differ from those of the previous snapshot. before may
// be nil.
func (v *view) countImplausible(before, after *balena.Device) {
	for _, f := range balena.DeviceFigures {
		if value := f.Reported(after); f.Implausible(value) && (before == nil || value != f.Reported(before)) {
			v.implausible.Add(f.Field, 1)
		}
	}
	for _, s := range after.Services() {
		same := func(other balena.Service) bool { return other.ID == s.ID && other.Progress == s.Progress }
		if balena.DownloadProgress.Implausible(s.Progress) && (before == nil || !slices.ContainsFunc(before.Services(), same)) {
			v.implausible.Add(balena.DownloadProgress.Field, 1)
		}
	}
}
