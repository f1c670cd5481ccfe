// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

func slugs(s ...string) *regexp.Regexp {
	return regexp.MustCompile("^(?:" + strings.Join(s, "|") + ")$")
}

type object = map[string]any

// raw reads a resource of the recorded data without code of the exporter.
func raw(t *testing.T, resource string) []object {
	t.Helper()
	b, err := os.ReadFile("../internal/simulator/testdata/dataset/" + resource + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ D []object }
	if err := json.Unmarshal(b, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.D
}

// str returns the text of a field, or "" for null.
func str(o object, field string) string {
	s, _ := o[field].(string)
	return s
}

// ref returns the id in a navigation property, expanded or not, or 0 for null.
func ref(o object, field string) int {
	switch v := o[field].(type) {
	case object:
		return int(v["__id"].(float64))
	case []any:
		if len(v) > 0 {
			return int(v[0].(object)["id"].(float64))
		}
	}
	return 0
}

// one returns the first element of an expanded navigation property.
func one(o object, field string) object { return o[field].([]any)[0].(object) }

// installsByDevice returns the installs of each device, by its id.
func installsByDevice(t *testing.T) map[int][]object {
	t.Helper()
	byDevice := map[int][]object{}
	for _, i := range raw(t, "image_install") {
		if str(i, "status") != "deleted" {
			byDevice[ref(i, "device")] = append(byDevice[ref(i, "device")], i)
		}
	}
	return byDevice
}

func serviceOf(install object) string {
	return str(one(one(install, "installs__image"), "is_a_build_of__service"), "service_name")
}

// seconds returns a date in seconds since 1970, or 0 for null.
func seconds(t *testing.T, date string) float64 {
	t.Helper()
	if date == "" {
		return 0
	}
	when, err := time.Parse(time.RFC3339, date)
	if err != nil {
		t.Fatal(err)
	}
	return float64(when.UnixMilli()) / 1000
}

// updateState returns the update status of a device, which is unknown if the supervisor does not report it.
func updateState(d object) string {
	if regexp.MustCompile(`^(16\.([789]|[1-9]\d)|1[789]\.)`).MatchString(str(d, "supervisor_version")) {
		return or(str(d, "update_status"), "none")
	}
	return or(str(d, "update_status"), "unknown")
}

// runningServices returns the number of services of a release, and the numbers of running and exited ones.
func runningServices(installs []object, release int) (services, running, exited float64) {
	for _, i := range installs {
		if ref(i, "is_provided_by__release") != release {
			continue
		}
		services++
		switch str(i, "status") {
		case "Running":
			running++
		case "exited", "Dead":
			exited++
		}
	}
	return services, running, exited
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// TestRecordedFleets computes all metrics of fleets and releases from the raw recorded data, and compares all samples.
func TestRecordedFleets(t *testing.T) {
	for _, version := range []balena.Version{balena.V7, balena.V6} {
		t.Run(string(version), func(t *testing.T) {
			o := allGroups()
			o.Devices, o.Keys, o.DeviceTags = false, false, false
			got := samples(parse(t, text(newAPI(t, simulator.Config{Dataset: dataset(t)}, o, pin(version)).fetch(t), o)))
			for name := range got {
				if strings.HasPrefix(name, "balena_device_") {
					delete(got, name) // see TestRecordedDevices
				}
			}

			want := map[string]float64{}
			releases := map[int]object{}
			for _, r := range raw(t, "release") {
				releases[int(r["id"].(float64))] = r
			}
			types := map[int]string{}
			for _, dt := range raw(t, "device_type") {
				types[int(dt["id"].(float64))] = str(dt, "slug")
			}
			devices, all, online := raw(t, "device"), 0, 0
			installs := installsByDevice(t)

			fleets := 0
			for _, app := range raw(t, "application") {
				if str(app, "is_of__class") != "fleet" || app["is_host"] == true {
					continue
				}
				fleets++
				slug, id := str(app, "slug"), int(app["id"].(float64))
				add := func(name string, value float64, labels ...string) {
					want[series(name, append(labels, "fleet", slug)...)] += value
				}
				flag := func(name string, on bool, labels ...string) {
					value := 0.0
					if on {
						value = 1
					}
					add(name, value, labels...)
				}
				deviceType := one(app, "is_for__device_type")
				add("balena_fleet_info", 1,
					"fleet_id", strconv.Itoa(id), "fleet_name", str(app, "app_name"), "fleet_uuid", str(app, "uuid"),
					"organization", str(one(app, "organization"), "handle"), "device_type", str(deviceType, "slug"),
					"cpu_architecture", str(one(deviceType, "is_of__cpu_architecture"), "slug"),
					"archived", strconv.FormatBool(app["is_archived"].(bool)))
				add("balena_fleet_created_timestamp_seconds", seconds(t, str(app, "created_at")))
				flag("balena_fleet_tracks_latest_release", app["should_track_latest_release"].(bool))
				target := ref(app, "should_be_running__release")
				if target != 0 {
					r := releases[target]
					add("balena_fleet_target_release_info", 1, "release_id", strconv.Itoa(target), "commit", str(r, "commit"), "release_version", str(r, "raw_version"))
					add("balena_fleet_target_release_created_timestamp_seconds", seconds(t, str(r, "created_at")))
				}
				var latest object
				for _, r := range releases {
					if ref(r, "belongs_to__application") == id && (latest == nil || str(r, "created_at") > str(latest, "created_at")) {
						latest = r
					}
				}
				if latest != nil {
					add("balena_fleet_latest_release_info", 1, "commit", str(latest, "commit"), "release_version", str(latest, "raw_version"))
					add("balena_fleet_latest_release_created_timestamp_seconds", seconds(t, str(latest, "created_at")))
					for _, status := range []string{"cancelled", "error", "failed", "interrupted", "running", "success"} {
						flag("balena_fleet_latest_release_status", status == str(latest, "status"), "status", status)
					}
				}
				// These series exist even for a fleet without devices.
				for _, name := range []string{
					"", "_online", "_connected", "_never_connected", "_undervolted", "_on_target_release", "_pinned", "_without_release",
					"_in_service", "_in_service_connected", "_in_maintenance", "_os_update_failed", "_healthy", "_on_invalidated_release", "_on_draft_release",
				} {
					add("balena_fleet_devices"+name, 0)
				}
				for _, s := range []string{"3600", "86400", "604800", "2592000"} {
					add("balena_fleet_devices_disconnected_longer_than", 0, "seconds", s)
				}
				for _, s := range []string{"inactive", "post-provisioning", "configuring", "disconnected", "updating", "reduced-functionality", "operational"} {
					add("balena_fleet_devices_by_status", 0, "status", s)
				}
				for _, s := range []string{"online", "timeout", "offline", "unknown"} {
					add("balena_fleet_devices_by_heartbeat_state", 0, "state", s)
				}
				for _, s := range []string{"none", "rejected", "downloading", "downloaded", "applying changes", "aborted", "done"} {
					add("balena_fleet_devices_by_update_status", 0, "update_status", s)
				}
				byName := series("balena_devices_online", "fleet_name", str(app, "app_name"))
				want[byName] += 0

				for _, d := range devices {
					if ref(d, "belongs_to__application") != id {
						continue
					}
					all++
					heartbeat, vpn := str(d, "api_heartbeat_state"), d["is_online"].(bool)
					connected := vpn || heartbeat == "online" || heartbeat == "timeout"
					add("balena_fleet_devices", 1)
					flag("balena_fleet_devices_online", vpn)
					if vpn {
						want[byName]++
						online++
					}
					flag("balena_fleet_devices_connected", connected)
					flag("balena_fleet_devices_undervolted", connected && d["is_undervolted"].(bool))
					// No device is inactive, in maintenance, or updates its host OS.
					inService := !app["is_archived"].(bool)
					flag("balena_fleet_devices_in_service", inService)
					flag("balena_fleet_devices_in_service_connected", inService && connected)
					flag("balena_fleet_devices_never_connected", inService && !vpn && heartbeat == "unknown" && d["last_connectivity_event"] == nil)

					status := str(d, "overall_status")
					if version == balena.V6 && status == "operational" && !vpn {
						// The VPN is disabled by configuration, which v6 does not report.
						status = "reduced-functionality"
					}
					add("balena_fleet_devices_by_status", 1, "status", status)
					add("balena_fleet_devices_by_heartbeat_state", 1, "state", heartbeat)
					add("balena_fleet_devices_by_update_status", 1, "update_status", updateState(d))
					add("balena_fleet_devices_by_device_type", 1, "device_type", types[ref(d, "is_of__device_type")])
					add("balena_fleet_devices_by_os_version", 1, "os_version", or(str(d, "os_version"), "unknown"), "os_variant", or(str(d, "os_variant"), "unknown"))
					add("balena_fleet_devices_by_supervisor_version", 1, "supervisor_version", or(str(d, "supervisor_version"), "unknown"))

					if last := seconds(t, str(d, "last_connectivity_event")); !connected {
						if version == balena.V7 {
							last = max(last, seconds(t, str(d, "changed_api_heartbeat_state_on__date")))
						}
						for _, threshold := range []int{3600, 86400, 604800, 2592000} {
							flag("balena_fleet_devices_disconnected_longer_than",
								inService && last > 0 && float64(now.Unix())-last >= float64(threshold), "seconds", strconv.Itoa(threshold))
						}
					}

					running, pinned := ref(d, "is_running__release"), ref(d, "is_pinned_on__release")
					should := target
					if pinned != 0 {
						should = pinned
					}
					flag("balena_fleet_devices_on_target_release", running != 0 && running == should)
					flag("balena_fleet_devices_pinned", pinned != 0)
					flag("balena_fleet_devices_without_release", running == 0)
					services, run, _ := runningServices(installs[int(d["id"].(float64))], should)
					flag("balena_fleet_devices_healthy", inService && connected && should != 0 && running == should && services > 0 && run == services)
					if running != 0 {
						r := releases[running]
						flag("balena_fleet_devices_on_invalidated_release", r["is_invalidated"] == true)
						flag("balena_fleet_devices_on_draft_release", r["is_final"] == false)
						add("balena_fleet_devices_by_release", 1, "commit", str(r, "commit"), "release_version", str(r, "raw_version"))
					}

					for _, i := range installs[int(d["id"].(float64))] {
						for _, status := range []string{
							"Downloading", "Downloaded", "Installing", "Installed", "Starting", "Running", "Stopping", "exited", "restarting", "Dead",
						} {
							flag("balena_fleet_devices_by_service_status", status == str(i, "status"), "service_name", serviceOf(i), "status", status)
						}
					}
				}
				tags := map[string]string{}
				for _, tag := range raw(t, "application_tag") {
					if ref(tag, "application") == id {
						tags[str(tag, "tag_key")] = str(tag, "value")
					}
				}
				if tags["env"] != "" || tags["note"] != "" {
					add("balena_fleet_tags", 1, "tag_env", tags["env"], "tag_note", tags["note"])
				}
			}

			if fleets != 13 || all != 2004 || online != 1152 {
				t.Fatalf("the recorded data have changed: %d fleets, %d devices, %d online", fleets, all, online)
			}
			if diff := sampleDiff(want, got); diff != "" {
				t.Errorf("raw data (-) and collector (+):\n%.4000s", diff)
			}
		})
	}
}

// TestRecordedDevices computes the metrics of single devices in the same way.
func TestRecordedDevices(t *testing.T) {
	for _, version := range []balena.Version{balena.V7, balena.V6} {
		t.Run(string(version), func(t *testing.T) {
			o := allGroups()
			got := samples(parse(t, text(newAPI(t, simulator.Config{Dataset: dataset(t)}, o, pin(version)).fetch(t), o)))
			for name := range got {
				if !strings.HasPrefix(name, "balena_device_") {
					delete(got, name)
				}
			}
			installs := installsByDevice(t)

			slugs, targets, archived := map[int]string{}, map[int]int{}, map[int]bool{}
			for _, app := range raw(t, "application") {
				slugs[int(app["id"].(float64))] = str(app, "slug")
				archived[int(app["id"].(float64))] = app["is_archived"].(bool)
				targets[int(app["id"].(float64))] = ref(app, "should_be_running__release")
			}
			releases := map[int]object{}
			for _, r := range raw(t, "release") {
				releases[int(r["id"].(float64))] = r
			}
			types := map[int]string{}
			for _, dt := range raw(t, "device_type") {
				types[int(dt["id"].(float64))] = str(dt, "slug")
			}
			tags := map[int]map[string]string{}
			for _, tag := range raw(t, "device_tag") {
				if tags[ref(tag, "device")] == nil {
					tags[ref(tag, "device")] = map[string]string{}
				}
				tags[ref(tag, "device")][str(tag, "tag_key")] = str(tag, "value")
			}

			want := map[string]float64{}
			for _, d := range raw(t, "device") {
				fleet := ref(d, "belongs_to__application")
				set := func(name string, value float64, labels ...string) {
					want[series("balena_device_"+name, append(labels, "fleet", slugs[fleet], "uuid", str(d, "uuid"))...)] = value
				}
				flag := func(name string, on bool) {
					value := 0.0
					if on {
						value = 1
					}
					set(name, value)
				}
				heartbeat, vpn := str(d, "api_heartbeat_state"), d["is_online"].(bool)
				connected := vpn || heartbeat == "online" || heartbeat == "timeout"
				status := str(d, "overall_status")
				if version == balena.V6 && status == "operational" && !vpn {
					status = "reduced-functionality"
				}
				set("info", 1, "device_name", str(d, "device_name"), "device_type", types[ref(d, "is_of__device_type")],
					"os_version", or(str(d, "os_version"), "unknown"), "os_variant", or(str(d, "os_variant"), "unknown"), "supervisor_version", or(str(d, "supervisor_version"), "unknown"))
				flag("online", vpn)
				flag("connected", connected)
				flag("web_accessible", d["is_web_accessible"].(bool))
				set("status", 1, "status", status)
				set("heartbeat_state", 1, "state", heartbeat)
				set("update_status", 1, "update_status", updateState(d))
				if archived[fleet] {
					flag("out_of_service", true)
				}
				flag("os_update_pending", false) // no device of the recorded data has a target of the OS or the supervisor
				if version == balena.V7 {
					flag("supervisor_update_pending", false)
				}

				running, pinned, should := ref(d, "is_running__release"), ref(d, "is_pinned_on__release"), targets[fleet]
				if pinned != 0 {
					should = pinned
				}
				flag("release_pinned", pinned != 0)
				if should != 0 {
					flag("on_target_release", running == should)
					services, run, exited := runningServices(installs[int(d["id"].(float64))], should)
					set("services", services)
					set("services_running", run)
					if exited > 0 {
						set("services_exited", exited)
					}
				}
				if running != 0 {
					set("release_info", 1, "commit", str(releases[running], "commit"), "release_version", str(releases[running], "raw_version"))
				}

				date := func(name string, when float64) {
					if when != 0 {
						set(name+"_timestamp_seconds", when)
					}
				}
				date("created", seconds(t, str(d, "created_at")))
				date("modified", seconds(t, str(d, "modified_at")))
				date("update_status_change", seconds(t, str(d, "last_update_status_event")))
				changed := seconds(t, str(d, "last_connectivity_event"))
				if version == balena.V7 {
					changed = max(changed, seconds(t, str(d, "changed_api_heartbeat_state_on__date")))
				}
				date("connectivity_change", changed)

				if progress, ok := d["overall_progress"].(float64); ok && d["provisioning_progress"] != d["overall_progress"] {
					set("update_progress_ratio", progress/100)
				}
				if connected {
					flag("undervolted", d["is_undervolted"].(bool))
					for field, name := range map[string]string{"memory_usage": "memory_used_bytes", "memory_total": "memory_size_bytes", "storage_usage": "storage_used_bytes", "storage_total": "storage_size_bytes"} {
						if mib, ok := d[field].(float64); ok {
							set(name, mib*1024*1024)
						}
					}
					if percent, ok := d["cpu_usage"].(float64); ok {
						set("cpu_usage_ratio", percent/100)
					}
					if celsius, ok := d["cpu_temp"].(float64); ok && celsius != 0 {
						set("cpu_temperature_celsius", celsius)
					}
				}
				for _, i := range installs[int(d["id"].(float64))] {
					service := serviceOf(i)
					set("service_status", 1, "service_name", service, "status", str(i, "status"))
					if percent, ok := i["download_progress"].(float64); ok {
						set("service_download_progress_ratio", percent/100, "service_name", service)
					}
					installed := series("balena_device_service_install_timestamp_seconds", "fleet", slugs[fleet], "uuid", str(d, "uuid"), "service_name", service)
					want[installed] = max(want[installed], seconds(t, str(i, "install_date")))
				}
				if tag := tags[int(d["id"].(float64))]; tag["site"] != "" || tag["owner"] != "" {
					set("tags", 1, "tag_site", tag["site"], "tag_owner", tag["owner"])
				}
			}
			if diff := sampleDiff(want, got); diff != "" {
				t.Errorf("raw data (-) and collector (+):\n%.4000s", diff)
			}
		})
	}
}
