// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"math"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Metrics of maintenance, which a tag of a device or of its fleet sets.

func fleetMaintenanceTable() anyTable {
	return fleetKind.table("Maintenance", "1 per fleet",
		number("balena_fleet_devices_in_maintenance", "Devices in maintenance that would otherwise be in service. A tag of the device or of its fleet sets the maintenance.", "device_tag.value, application_tag.value",
			func(f *fleet) int { return f.inMaintenance() }),
	)
}

func deviceMaintenanceTable() anyTable {
	return deviceKind.table("Maintenance", "1 per device that has the tag, or whose fleet has it",
		gauge("balena_device_maintenance_until_timestamp_seconds", "When the maintenance of the device ends; +Inf if it has no end. Exported as long as the tag exists, even after the end.", "device_tag.value, application_tag.value",
			func(d *device) float64 { return endOf(max(d.Maintenance, d.fleet().Maintenance)) }).inLongRuns(),
	)
}

// endOf returns the end of a maintenance in seconds, [none] without a maintenance.
func endOf(maintenance balena.Instant) float64 {
	if maintenance == balena.Forever {
		return math.Inf(1)
	}
	return maintenance.Seconds()
}
