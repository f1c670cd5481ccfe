// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"maps"
	"slices"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Metrics of the services on devices.

// serviceStatuses are the states of a service that the supervisor and the engine report.
var serviceStatuses = []string{
	"Dead", "Downloaded", "Downloading", "Installed", "Installing", "Running", "Starting", "Stopping", "exited", "restarting",
}

// serviceStates returns the services of a device, with one element for each state of a service. During an update,
// several images of a service may be in the same state. Their element has the latest install date and the highest
// progress.
func serviceStates(services []balena.Service) []balena.Service {
	states := make([]balena.Service, 0, len(services))
	for _, s := range withUnknown(services) {
		if balena.DownloadProgress.Implausible(s.Progress) {
			s.Progress = balena.Null
		}
		last := len(states) - 1
		if last < 0 || states[last].Name != s.Name || states[last].Status != s.Status {
			states = append(states, s)
			continue
		}
		states[last].Installed = max(states[last].Installed, s.Installed)
		if s.Progress > states[last].Progress { // null is less than any progress
			states[last].Progress = s.Progress
		}
	}
	return states
}

// withUnknown replaces missing names and statuses of services by unknown, and sorts the services again: a service may
// really have the name unknown, and is then merged with those without a name.
func withUnknown(services []balena.Service) []balena.Service {
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

func fleetServiceTable() anyTable {
	return fleetKind.table("Services", "10 per service in the fleet, and 1 per unrecognized state in use",
		labeled("balena_fleet_devices_by_service_status", "Devices by state of a service on them. During an update, a device can be counted in several states of a service.",
			"image_install.status", []string{"service_name", "status"},
			func(f *fleet, out *samples) {
				byName := map[string]balena.Counts[string]{}
				for s, n := range f.ByService {
					if byName[s.Service] == nil {
						byName[s.Service] = balena.Counts[string]{}
					}
					byName[s.Service][s.Status] = n
				}
				for _, name := range slices.Sorted(maps.Keys(byName)) {
					addStates(out, serviceStatuses, byName[name], name)
				}
			}),
	)
}

// fleetHealthTable and deviceHealthTable sum up the services of the target release.
func fleetHealthTable() anyTable {
	return fleetKind.table("Services", "1 per fleet",
		gauge("balena_fleet_devices_healthy", "Devices in service that are connected and run their target release with all its services.",
			"device.is_running__release, image_install.status, is_provided_by__release",
			func(f *fleet) float64 {
				// No value if the services of no device in service are known.
				return onlyIf(f.inService.Devices == 0 || f.inService.Surveyed > 0, float64(f.inService.Healthy))
			}),
	)
}

func deviceHealthTable() anyTable {
	return deviceKind.table("Services", "1 per device with a target release",
		gauge("balena_device_services", "Services of the target release on the device.", "image_install.is_provided_by__release",
			func(d *device) float64 { services, _ := d.targetServices(); return services }).inLongRuns(),
		gauge("balena_device_services_running", "Services of the target release on the device with the status Running.", "image_install.status, is_provided_by__release",
			func(d *device) float64 { _, running := d.targetServices(); return running }).inLongRuns(),
		gauge("balena_device_services_exited", "Services of the target release on the device with the status exited or Dead. Some services exit on purpose. Exported only if the number is not 0.", "image_install.status, is_provided_by__release",
			func(d *device) float64 {
				_, _, exited := d.Installs.Of(d.TargetRelease)
				return onlyIf(exited != 0, float64(exited))
			}).inLongRuns(),
	)
}

// targetServices returns the number of services of the target release, and the number of them that run. It returns
// [none] if the device has no target release, or its services are not known.
func (d *device) targetServices() (services, running float64) {
	if d.TargetRelease == 0 || !d.Installs.Known() {
		return none, none
	}
	s, r, _ := d.Installs.Of(d.TargetRelease)
	return float64(s), float64(r)
}

// eachService calls a function once for each service of a device, with all its states.
func (d *device) eachService(f func(name string, states []balena.Service)) {
	all := serviceStates(d.Services())
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].Name == all[0].Name {
			n++
		}
		f(all[0].Name, all[:n])
		all = all[n:]
	}
}

func deviceServiceTable() anyTable {
	return deviceKind.table("Services", "1 per service on a device",
		labeled("balena_device_service_status", "The state of the service on the device. During an update, a service can have several states.",
			"image_install.status", []string{"service_name", "status"},
			func(d *device, out *samples) {
				for _, s := range serviceStates(d.Services()) {
					out.add(1, s.Name, s.Status)
				}
			}),
		labeled("balena_device_service_download_progress_ratio", "Progress of the download of the service's image. Exported only during a download.",
			"image_install.download_progress", []string{"service_name"},
			func(d *device, out *samples) {
				d.eachService(func(name string, states []balena.Service) {
					progress := none
					for _, s := range states {
						if s.Progress != balena.Null {
							progress = s.Progress.Float() + 0 // converts -0 to 0
						}
					}
					out.add(percent(progress), name)
				})
			}).inLongRuns(),
		labeled("balena_device_service_install_timestamp_seconds", "When the newest image of the service was installed on the device.",
			"image_install.install_date", []string{"service_name"},
			func(d *device, out *samples) {
				d.eachService(func(name string, states []balena.Service) {
					var newest balena.Instant
					for _, s := range states {
						newest = max(newest, s.Installed)
					}
					out.add(newest.Seconds(), name)
				})
			}).inLongRuns(),
	)
}
