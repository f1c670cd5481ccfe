// SPDX-License-Identifier: Apache-2.0

package balena

// A Figure is a number that devices report. They may get it wrong: a value that cannot be true is not used.
type Figure struct {
	// Field is the field of the API, with its resource.
	Field string
	value func(*Device) Number
	// least and most bound the values that can be true, in the unit of the API. They are wide: they are not to find
	// what is unusual, but what would spoil sums, averages and graphs.
	least, most Number
}

const (
	mostPercent  = 1000 // so that CPU usage may be summed up over cores
	mostMebibyte = 1e18 / (1 << 20)
	coldest      = -100 // °C
	hottest      = 250
)

// The figures of a device, and DownloadProgress of a service.
var (
	UpdateProgress       = &Figure{"device.overall_progress", func(d *Device) Number { return d.UpdateProgress }, 0, mostPercent}
	ProvisioningProgress = &Figure{"device.provisioning_progress", func(d *Device) Number { return d.ProvisioningProgress }, 0, mostPercent}
	CPUUsage             = &Figure{"device.cpu_usage", func(d *Device) Number { return d.CPUUsage }, 0, mostPercent}
	CPUTemperature       = &Figure{"device.cpu_temp", func(d *Device) Number { return d.CPUTemperature }, coldest, hottest}
	MemoryUsed           = &Figure{"device.memory_usage", func(d *Device) Number { return d.MemoryUsed }, 0, mostMebibyte}
	MemorySize           = &Figure{"device.memory_total", func(d *Device) Number { return d.MemorySize }, 0, mostMebibyte}
	StorageUsed          = &Figure{"device.storage_usage", func(d *Device) Number { return d.StorageUsed }, 0, mostMebibyte}
	StorageSize          = &Figure{"device.storage_total", func(d *Device) Number { return d.StorageSize }, 0, mostMebibyte}
	DownloadProgress     = &Figure{"image_install.download_progress", nil, 0, mostPercent}

	// DeviceFigures are those of a device itself.
	DeviceFigures = []*Figure{UpdateProgress, ProvisioningProgress, CPUUsage, CPUTemperature, MemoryUsed, MemorySize, StorageUsed, StorageSize}
)

// Reported returns the reported value, plausible or not; Null if the device does not report it.
func (f *Figure) Reported(d *Device) Number { return f.value(d) }

// Of returns the value of a device; Null where it reports none, or one that cannot be true.
func (f *Figure) Of(d *Device) Number {
	value := f.value(d)
	if f.Implausible(value) {
		return Null
	}
	return value
}

// Implausible reports whether a value cannot be true. Null can.
func (f *Figure) Implausible(value Number) bool {
	return value != Null && (value < f.least || value > f.most)
}

// Temperature is the temperature of the CPU in °C; Null where there is no sensor, as 0 is what such a device reports.
func (d *Device) Temperature() Number {
	if d.CPUTemperature == 0 {
		return Null
	}
	return CPUTemperature.Of(d)
}
