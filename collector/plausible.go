// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"slices"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Numbers that devices report are theirs to get wrong: one that cannot be true has no sample. It is counted instead,
// in balena_exporter_implausible_values_total, when a refresh brings it: once for each time that a device's value
// changes to one, not once for each page on which it is left out.

// reading is a number that devices report.
type reading struct {
	field string // of the API
	value func(*balena.Device) balena.Number
	// least and most bound the values that can be true, in the unit of the API. They are wide: they are not to find
	// what is unusual, but what would spoil sums, averages and graphs.
	least, most balena.Number
}

const (
	mostPercent  = 1000 // so that CPU usage may be summed up over cores
	mostMebibyte = 1e18 / mebibyte
	coldest      = -100 // °C
	hottest      = 250
)

var (
	updateProgress       = &reading{"device.overall_progress", func(d *balena.Device) balena.Number { return d.UpdateProgress }, 0, mostPercent}
	provisioningProgress = &reading{"device.provisioning_progress", func(d *balena.Device) balena.Number { return d.ProvisioningProgress }, 0, mostPercent}
	cpuUsage             = &reading{"device.cpu_usage", func(d *balena.Device) balena.Number { return d.CPUUsage }, 0, mostPercent}
	cpuTemperature       = &reading{"device.cpu_temp", func(d *balena.Device) balena.Number { return d.CPUTemperature }, coldest, hottest}
	memoryUsed           = &reading{"device.memory_usage", func(d *balena.Device) balena.Number { return d.MemoryUsed }, 0, mostMebibyte}
	memorySize           = &reading{"device.memory_total", func(d *balena.Device) balena.Number { return d.MemorySize }, 0, mostMebibyte}
	storageUsed          = &reading{"device.storage_usage", func(d *balena.Device) balena.Number { return d.StorageUsed }, 0, mostMebibyte}
	storageSize          = &reading{"device.storage_total", func(d *balena.Device) balena.Number { return d.StorageSize }, 0, mostMebibyte}

	// deviceReadings are those of a device itself.
	deviceReadings = []*reading{updateProgress, provisioningProgress, cpuUsage, cpuTemperature, memoryUsed, memorySize, storageUsed, storageSize}

	// downloadProgress is one of a service.
	downloadProgress = &reading{"image_install.download_progress", nil, 0, mostPercent}
)

// of returns the value of a device; [none] for null, and instead of one that cannot be true.
func (r *reading) of(d *device) float64 {
	value := r.value(d.Device)
	if r.implausible(value) {
		return none
	}
	return value.Float() + 0 // which makes 0 of -0
}

// implausible reports whether a value cannot be true. Null can.
func (r *reading) implausible(value balena.Number) bool {
	return value != balena.Null && (value < r.least || value > r.most)
}

// countImplausible counts the values of a device that cannot be true, but for those that are as they were before.
// was may be nil.
func (v *view) countImplausible(was, is *balena.Device) {
	for _, r := range deviceReadings {
		if value := r.value(is); r.implausible(value) && (was == nil || value != r.value(was)) {
			v.implausible.Add(r.field, 1)
		}
	}
	for _, s := range is.Services() {
		same := func(before balena.Service) bool { return before.ID == s.ID && before.Progress == s.Progress }
		if downloadProgress.implausible(s.Progress) && (was == nil || !slices.ContainsFunc(was.Services(), same)) {
			v.implausible.Add(downloadProgress.field, 1)
		}
	}
}
