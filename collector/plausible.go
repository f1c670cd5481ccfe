// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"slices"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Numbers that devices report are theirs to get wrong: one that cannot be true has no sample. It is counted instead,
// in balena_exporter_implausible_values_total, when a refresh brings it: once for each time that a device's value
// changes to one, not once for each page on which it is left out.

// figure returns a figure of a device; [none] for null, and instead of one that cannot be true.
func (d *device) figure(f *balena.Figure) float64 {
	return f.Of(d.Device).Float() + 0 // which makes 0 of -0
}

// countImplausible counts the values of a device that cannot be true, but for those that are as they were before.
// was may be nil.
func (v *view) countImplausible(was, is *balena.Device) {
	for _, f := range balena.DeviceFigures {
		if value := f.Told(is); f.Implausible(value) && (was == nil || value != f.Told(was)) {
			v.implausible.Add(f.Field, 1)
		}
	}
	for _, s := range is.Services() {
		same := func(before balena.Service) bool { return before.ID == s.ID && before.Progress == s.Progress }
		if balena.DownloadProgress.Implausible(s.Progress) && (was == nil || !slices.ContainsFunc(was.Services(), same)) {
			v.implausible.Add(balena.DownloadProgress.Field, 1)
		}
	}
}
