// SPDX-License-Identifier: Apache-2.0

package collector

import "math"

// Metrics of the coordinates of devices. They are exported only on request, because they may reveal where people are.

func deviceLocationTable(o Options) anyTable {
	scale := math.Pow10(o.LocationDecimals)
	round := func(degrees float64) float64 { return math.Round(degrees*scale) / scale }
	return deviceKind.table("Devices", "1 per device with a location, with --collector.device.location",
		gauge("balena_device_latitude_degrees", "Latitude of the device, positive north of the equator. The number of decimals is --collector.device.location-decimals.",
			"device.custom_latitude, latitude", func(d *device) float64 {
				latitude, _, known := d.Where().Location.Degrees()
				return onlyIf(known, round(latitude))
			}).on("balenaCloud").inLongRuns(),
		gauge("balena_device_longitude_degrees", "Longitude of the device, positive east of Greenwich. The number of decimals is --collector.device.location-decimals.",
			"device.custom_longitude, longitude", func(d *device) float64 {
				_, longitude, known := d.Where().Location.Degrees()
				return onlyIf(known, round(longitude))
			}).on("balenaCloud").inLongRuns(),
	)
}
