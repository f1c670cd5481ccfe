// SPDX-License-Identifier: Apache-2.0

package collector

import "github.com/balena-exporter/balena-exporter/internal/balena"

//go:generate go test -run ^TestCatalogIsDocumented$ . -update

// Catalog returns all families, including those of the exporter itself, with the groups in the order in which they
// are documented. The label of tags is a placeholder.
func Catalog() []Description {
	o := DefaultOptions()
	o.Services = true
	o.FleetTags, o.DeviceTags, o.Maintenance, o.Location = true, true, true, true
	all := NewMetrics(nil, 0).table.descriptions()
	for _, group := range []string{"Fleets", "Maintenance", "Organizations", "Releases", "OS", "Devices", "Services", "Tags", "Keys"} {
		for _, t := range tables(o, &balena.Snapshot{FleetTagKeys: []string{"…"}, DeviceTagKeys: []string{"…"}}) {
			for _, d := range t.descriptions() {
				if d.Group == group {
					all = append(all, d)
				}
			}
		}
	}
	return all
}
