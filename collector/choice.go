// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"regexp"
	"slices"
)

// Trimmed returns the options without the groups that have no exported family. The data of these groups are not read.
func (o Options) Trimmed() Options {
	groups, families := map[string]bool{}, map[string]bool{}
	for d := range New(nil, o).Descriptions() {
		groups[d.Group], families[d.Name] = true, true
	}
	o.Devices = o.Devices && groups["Devices"]
	o.Releases = o.Releases && groups["Releases"]
	o.Services = o.Services && groups["Services"]
	o.Keys = o.Keys && groups["Keys"]
	o.OS = o.OS && (groups["OS"] || slices.ContainsFunc(deviceOSTable().descriptions(), func(d Description) bool { return families[d.Name] }))
	o.ServiceSummary = o.ServiceSummary && (families["balena_device_services"] || families["balena_device_services_running"] || families["balena_fleet_devices_healthy"])
	o.Location = o.Location && (families["balena_device_latitude_degrees"] || families["balena_device_longitude_degrees"])
	o.DeviceTags = o.DeviceTags && families["balena_device_tags"]
	o.FleetTags = o.FleetTags && families["balena_fleet_tags"]
	return o
}

// Unneeded returns the given fields of a device from which no exported family is derived.
func (o Options) Unneeded(fields []string) []string {
	needed := map[string]bool{}
	for d := range New(nil, o).Descriptions() {
		for _, name := range fieldName.FindAllString(d.Source, -1) {
			needed[name] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(fields), func(field string) bool { return needed[field] })
}

// fieldName matches the fields in the source of a family.
var fieldName = regexp.MustCompile(`\b[a-z_]+\b`)
