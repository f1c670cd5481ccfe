// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"maps"
	"slices"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Metrics of services: what runs on the devices, image by image.

// serviceStatuses are the states of a service that the supervisor and the engine are known to report.
var serviceStatuses = []string{
	"Dead", "Downloaded", "Downloading", "Installed", "Installing", "Running", "Starting", "Stopping", "exited", "restarting",
}

// states returns the services of a device, each in each of its states once: while the device updates, several
// images of a service may be in one state. What is known of them is that of the image which is farthest.
func states(services []balena.Service) []balena.Service {
	states := make([]balena.Service, 0, len(services))
	for _, s := range named(services) {
		if balena.DownloadProgress.Implausible(s.Progress) {
			s.Progress = balena.Null
		}
		last := len(states) - 1
		if last < 0 || states[last].Name != s.Name || states[last].Status != s.Status {
			states = append(states, s)
			continue
		}
		states[last].Installed = max(states[last].Installed, s.Installed)
		if s.Progress > states[last].Progress { // null is less than any
			states[last].Progress = s.Progress
		}
	}
	return states
}

// named gives services a name and a status that have none, and puts them in order again: there may be others that
// are really called unknown, and all of them are one.
func named(services []balena.Service) []balena.Service {
	if !slices.ContainsFunc(services, func(s balena.Service) bool { return s.Name == "" || s.Status == "" }) {
		return services
	}
	services = slices.Clone(services)
	for i := range services {
		services[i].Name = cmp.Or(services[i].Name, balena.Unknown)
		services[i].Status = cmp.Or(services[i].Status, balena.Unknown)
	}
	slices.SortStableFunc(services, func(a, b balena.Service) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Status, b.Status))
	})
	return services
}

func fleetServiceTable() group {
	return &table[fleet]{
		group:    "Services",
		series:   "10 for each service in the fleet, and 1 for each state not known yet",
		labels:   []string{"fleet"},
		subjects: fleets, identity: fleetIdentity,
		families: []family[fleet]{{
			name:   "balena_fleet_devices_by_service_status",
			help:   "Devices by the state that a service is in on them. While a device updates, a service can be in two.",
			source: "image_install.status",
			labels: []string{"service_name", "status"},
			samples: func(f *fleet, out *samples) {
				byName := map[string]balena.Counts[string]{}
				for s, n := range f.ByService {
					if byName[s.Service] == nil {
						byName[s.Service] = balena.Counts[string]{}
					}
					byName[s.Service][s.Status] = n
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

// fleetHealthTable and deviceHealthTable sum up services: whether the release runs that should run.
func fleetHealthTable() group {
	return &table[fleet]{
		group:    "Services",
		series:   "1 a fleet",
		labels:   []string{"fleet"},
		subjects: fleets, identity: fleetIdentity,
		families: []family[fleet]{
			gauge("balena_fleet_devices_healthy", "Devices in service that are connected and run the release they should run, with all its services.",
				"device.is_running__release, image_install.status, is_provided_by__release",
				(*fleet).healthy),
		},
	}
}

func deviceHealthTable() group {
	return &table[device]{
		group:    "Services",
		series:   "1 a device that should run a release",
		labels:   []string{"fleet", "uuid"},
		subjects: devices, identity: deviceIdentity,
		families: []family[device]{
			gauge("balena_device_services", "Services on the device that belong to the release that it should run.", "image_install.is_provided_by__release",
				func(d *device) float64 { services, _ := d.targetServices(); return services }).steadily(),
			gauge("balena_device_services_running", "Services on the device that belong to the release that it should run, and are Running.", "image_install.status, is_provided_by__release",
				func(d *device) float64 { _, running := d.targetServices(); return running }).steadily(),
			gauge("balena_device_services_exited", "Services on the device that belong to the release that it should run, and have exited or are Dead, as some are meant to; only where there are some.", "image_install.status, is_provided_by__release",
				(*device).exitedServices).steadily(),
		},
	}
}

// healthy is none where devices can't be known to be.
func (f *fleet) healthy() float64 {
	if f.inService.Devices > 0 && f.inService.Surveyed == 0 {
		return none
	}
	return float64(f.inService.Healthy)
}

// exitedServices are those of the target release that have exited; none where there are none, which is so on most devices.
func (d *device) exitedServices() float64 {
	exited := d.Installs.Exited(d.TargetRelease)
	if exited == 0 {
		return none
	}
	return float64(exited)
}

// targetServices are the services of the target release, and those of them that run; none without a target,
// or where they are not known.
func (d *device) targetServices() (services, running float64) {
	if d.TargetRelease == 0 || !d.Installs.Known() {
		return none, none
	}
	s, r := d.Installs.Of(d.TargetRelease)
	return float64(s), float64(r)
}

// eachService calls a function with each service of a device once, with all its states.
func (d *device) eachService(f func(name string, states []balena.Service)) {
	all := states(d.Services())
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].Name == all[0].Name {
			n++
		}
		f(all[0].Name, all[:n])
		all = all[n:]
	}
}

func deviceServiceTable() group {
	return &table[device]{
		group:    "Services",
		series:   "1 for each service on a device",
		labels:   []string{"fleet", "uuid"},
		subjects: devices, identity: deviceIdentity,
		families: []family[device]{
			{
				name:   "balena_device_service_status",
				help:   "The state that the service is in on the device. While the device updates, it can be in two.",
				source: "image_install.status",
				labels: []string{"service_name", "status"},
				samples: func(d *device, out *samples) {
					for _, s := range states(d.Services()) {
						out.add(1, s.Name, s.Status)
					}
				},
			},
			{
				name:   "balena_device_service_download_progress_ratio",
				steady: true,
				help:   "How far the download of the service's image is; only during one.",
				source: "image_install.download_progress",
				labels: []string{"service_name"},
				samples: func(d *device, out *samples) {
					d.eachService(func(name string, states []balena.Service) {
						progress := none
						for _, s := range states {
							if s.Progress != balena.Null {
								progress = s.Progress.Float() + 0 // which makes 0 of -0
							}
						}
						out.add(percent(progress), name)
					})
				},
			},
			{
				name:   "balena_device_service_install_timestamp_seconds",
				steady: true,
				help:   "When the newest image of the service came to the device.",
				source: "image_install.install_date",
				labels: []string{"service_name"},
				samples: func(d *device, out *samples) {
					d.eachService(func(name string, states []balena.Service) {
						var newest balena.Instant
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
