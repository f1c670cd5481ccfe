// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"regexp"
	"slices"
)

// Trimmed returns the options without the groups of which no family is exported, so that nothing is read for them.
func (o Options) Trimmed() Options {
	groups, families := map[string]bool{}, map[string]bool{}
	for d := range New(nil, o).Descriptions() {
		groups[d.Group], families[d.Name] = true, true
	}
	o.Devices = o.Devices && groups["Devices"]
	o.Releases = o.Releases && groups["Releases"]
	o.Services = o.Services && groups["Services"]
	o.Keys = o.Keys && groups["Keys"]
	o.ServiceSummary = o.ServiceSummary && (families["balena_device_services"] || families["balena_device_services_running"] || families["balena_fleet_devices_healthy"])
	o.DeviceTags = o.DeviceTags && families["balena_device_tags"]
	o.FleetTags = o.FleetTags && families["balena_fleet_tags"]
	return o
}

// Unneeded returns those of some fields of a device that no exported family is made of.
func (o Options) Unneeded(fields []string) []string {
	needed := map[string]bool{}
	for d := range New(nil, o).Descriptions() {
		for _, name := range fieldName.FindAllString(d.Source, -1) {
			needed[name] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(fields), func(field string) bool { return needed[field] })
}

// fieldName finds the fields in the source of a family.
var fieldName = regexp.MustCompile(`\b[a-z_]+\b`)
