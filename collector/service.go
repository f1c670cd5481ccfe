package collector

import (
	"cmp"
	"maps"
	"slices"
)

// Metrics of services: what runs on the devices, image by image.

// serviceStatuses are the states of a service that the supervisor and the engine are known to report.
var serviceStatuses = []string{
	"Dead", "Downloaded", "Downloading", "Installed", "Installing", "Running", "Starting", "Stopping", "exited", "restarting",
}

// serviceState is a service of a fleet in a state.
type serviceState struct{ service, status string }

// sumServices counts the devices of each fleet by service and state.
func (v *view) sumServices() {
	if len(v.Services) == 0 {
		return
	}
	for i := range v.Devices {
		d := &v.Devices[i]
		for _, s := range v.servicesOf(d) {
			v.fleets[d.Fleet].byService.count(serviceState{cmp.Or(s.Name, unknown), cmp.Or(s.Status, unknown)})
		}
	}
}

func fleetServiceTable() group {
	return &table[fleet]{
		group:    "Services",
		series:   "10 for each service in the fleet, and 1 for each state not known yet",
		labels:   []string{"fleet"},
		subjects: fleets, subject: fleetAt, identity: fleetIdentity,
		families: []family[fleet]{{
			name:   "balena_fleet_service_devices",
			help:   "Devices by the state that a service is in on them. While a device updates, a service can be in two.",
			source: "image_install.status",
			labels: []string{"service_name", "status"},
			samples: func(f *fleet, out *samples) {
				byName := map[string]counts[string]{}
				for s, n := range f.byService {
					if byName[s.service] == nil {
						byName[s.service] = counts[string]{}
					}
					byName[s.service][s.status] = n
				}
				for _, name := range slices.Sorted(maps.Keys(byName)) {
					found := byName[name]
					states := slices.Sorted(maps.Keys(found))
					for _, status := range serviceStatuses {
						if _, ok := found[status]; !ok {
							states = append(states, status)
						}
					}
					slices.Sort(states)
					for _, status := range states {
						out.add(float64(found[status]), name, status)
					}
				}
			},
		}},
	}
}

// deviceServices is a device with the services on it.
type deviceServices struct {
	device
	services []Service
}

// each calls a function with each service once, with all its states.
func (d *deviceServices) each(f func(name string, states []Service)) {
	for rest := d.services; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Name == rest[0].Name {
			n++
		}
		f(cmp.Or(rest[0].Name, unknown), rest[:n])
		rest = rest[n:]
	}
}

func deviceServiceTable() group {
	return &table[deviceServices]{
		group:    "Services",
		series:   "1 for each service on a device",
		labels:   []string{"fleet", "uuid"},
		subjects: devices,
		subject: func(v *view, i int) deviceServices {
			return deviceServices{deviceAt(v, i), v.servicesOf(&v.Devices[i])}
		},
		identity: func(d *deviceServices, values []string) []string { return deviceIdentity(&d.device, values) },
		families: []family[deviceServices]{
			{
				name:   "balena_device_service_status",
				help:   "The state that the service is in on the device. While the device updates, it can be in two.",
				source: "image_install.status",
				labels: []string{"service_name", "status"},
				samples: func(d *deviceServices, out *samples) {
					for _, s := range d.services {
						out.add(1, cmp.Or(s.Name, unknown), cmp.Or(s.Status, unknown))
					}
				},
			},
			{
				name:   "balena_device_service_download_progress_ratio",
				help:   "How far the download of the service's image is; only during one.",
				source: "image_install.download_progress",
				labels: []string{"service_name"},
				samples: func(d *deviceServices, out *samples) {
					d.each(func(name string, states []Service) {
						progress := none
						for _, s := range states {
							if s.Progress == s.Progress { // not NaN
								progress = s.Progress
							}
						}
						out.add(percent(progress), name)
					})
				},
			},
			{
				name:   "balena_device_service_install_timestamp_seconds",
				help:   "When the newest image of the service came to the device.",
				source: "image_install.install_date",
				labels: []string{"service_name"},
				samples: func(d *deviceServices, out *samples) {
					d.each(func(name string, states []Service) {
						var newest Instant
						for _, s := range states {
							newest = max(newest, s.Installed)
						}
						out.add(newest.Seconds(), name)
					})
				},
			},
		},
	}
}
