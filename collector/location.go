// SPDX-License-Identifier: Apache-2.0

package collector

import "math"

// Where devices are is exported only on request: it can tell where people are.

func deviceLocationTable(o Options) group {
	scale := math.Pow10(o.LocationDecimals)
	round := func(degrees float64) float64 { return math.Round(degrees*scale) / scale }
	return &table[device]{
		group:    "Devices",
		series:   "1 for each device with a location, with --collector.device.location",
		labels:   []string{"fleet", "uuid"},
		subjects: devices, identity: deviceIdentity,
		families: []family[device]{
			gauge("balena_device_latitude_degrees", "Latitude of the device, north of the equator positive, rounded to --collector.device.location-decimals.",
				"device.custom_latitude, latitude", func(d *device) float64 {
					latitude, _, known := d.Location.Degrees()
					return onlyIf(known, round(latitude))
				}).on("balenaCloud").steadily(),
			gauge("balena_device_longitude_degrees", "Longitude of the device, east of Greenwich positive, rounded to --collector.device.location-decimals.",
				"device.custom_longitude, longitude", func(d *device) float64 {
					_, longitude, known := d.Location.Degrees()
					return onlyIf(known, round(longitude))
				}).on("balenaCloud").steadily(),
		},
	}
}

// onlyIf returns the value if a condition holds, and [none] otherwise.
func onlyIf(condition bool, value float64) float64 {
	if !condition {
		return none
	}
	return value
}
