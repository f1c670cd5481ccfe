// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"math"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Metrics of maintenance, which a tag of a device or of a fleet announces.

func fleetMaintenanceTable() group {
	return &table[fleet]{
		group:    "Maintenance",
		series:   "1 a fleet",
		labels:   []string{"fleet"},
		subjects: fleets, identity: fleetIdentity,
		families: []family[fleet]{
			number("balena_fleet_devices_in_maintenance", "Devices that are in maintenance by their own tag or that of their fleet, and would be in service otherwise.", "device_tag.value, application_tag.value",
				func(f *fleet) int { return f.inMaintenance() }),
		},
	}
}

func deviceMaintenanceTable() group {
	return &table[device]{
		group:    "Maintenance",
		series:   "1 for each device that has the tag, or whose fleet has it",
		labels:   []string{"fleet", "uuid"},
		subjects: devices, identity: deviceIdentity,
		families: []family[device]{
			gauge("balena_device_maintenance_until_timestamp_seconds", "When the maintenance of the device ends, +Inf without an end; also once it is over.", "device_tag.value, application_tag.value",
				func(d *device) float64 { return endOf(max(d.Maintenance, d.fleet().Maintenance)) }).steadily(),
		},
	}
}

// endOf is the end of a maintenance, [none] without one.
func endOf(maintenance balena.Instant) float64 {
	if maintenance == balena.Forever {
		return math.Inf(1)
	}
	return maintenance.Seconds()
}
