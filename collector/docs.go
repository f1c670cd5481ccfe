// SPDX-License-Identifier: Apache-2.0

package collector

//go:generate go test -run ^TestCatalogueIsDocumented$ . -update

// Catalogue returns all families that there can be, those of the exporter itself included, with the groups
// in the order in which they are documented. Tags stand for those that options name.
func Catalogue() []Description {
	o := DefaultOptions()
	o.Services = true
	o.FleetTags, o.DeviceTags = []string{"…"}, []string{"…"}
	all := exporterFamilies()
	for _, group := range []string{"Fleets", "Releases", "Devices", "Services", "Tags", "Keys"} {
		for d := range New(nil, o).Descriptions() {
			if d.Group == group {
				all = append(all, d)
			}
		}
	}
	return all
}
