// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// families are the families of device types, by the prefix of their slugs.
var families = []struct{ prefix, slug, name, manufacturer, manufacturerName string }{
	{"raspberrypi", "raspberrypi", "Raspberry Pi", "raspberrypi-foundation", "Raspberry Pi Foundation"},
	{"jetson-", "jetson", "Jetson", "nvidia", "NVIDIA"},
	{"intel-", "nuc", "NUC", "intel", "Intel"},
	{"fincm", "fin", "balenaFin", "balena", "balena"},
}

// family returns the id of the family of a device type, or 0 if it has no family. It adds the family if it is new.
func (db *database) family(slug string) int {
	for _, f := range families {
		if !strings.HasPrefix(slug, f.prefix) {
			continue
		}
		for _, known := range db.Families.rows {
			if known.Slug == f.slug {
				return known.ID
			}
		}
		m := &Manufacturer{Row: rowAt(catalogTime), Slug: f.manufacturer, Name: f.manufacturerName}
		db.Manufacturers.insert(m)
		family := &Family{Row: rowAt(catalogTime), Slug: f.slug, Name: f.name, ManufacturerID: m.ID}
		db.Families.insert(family)
		return family.ID
	}
	return 0
}

// catalogTime is the creation time of all device types: the beginning of 2024.
const catalogTime Time = 1704067200000

// logo returns the logo as a data URL.
func (*view) logo(t *DeviceType) string {
	svg := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><title>%s</title><rect width="64" height="64"/></svg>`, t.Slug)
	return "data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString([]byte(svg))
}

// contract returns the description of the hardware and of how to flash it.
func (c *view) contract(t *DeviceType) jsonText {
	type object = map[string]any
	arch := ""
	if a, ok := c.db.Architectures.find(t.ArchitectureID).(*Architecture); ok {
		arch = a.Slug
	}
	boot := object{"defaultBoot": "sdcard"}
	if arch == "amd64" {
		boot = object{"defaultBoot": "internal", "altBoot": []string{"usb_mass_storage"}}
	}
	b, err := json.Marshal(object{
		"slug": t.Slug, "version": "1", "type": "hw.device-type", "name": t.Name, "aliases": []string{t.Slug},
		"data":     object{"arch": arch, "hdmi": true, "led": false, "connectivity": object{"bluetooth": true, "wifi": true}, "media": boot, "is_private": false},
		"partials": object{"bootDevice": []string{"Connect power to the {{name}}"}},
	})
	if err != nil {
		panic(err) // strings can always be encoded
	}
	return jsonText(b)
}
