// SPDX-License-Identifier: Apache-2.0

package balena

import "testing"

func TestLocation(t *testing.T) {
	at := func(latitude, longitude, customLatitude, customLongitude string) Location {
		return Location{ParseCoordinate(latitude, 90), ParseCoordinate(longitude, 180), ParseCoordinate(customLatitude, 90), ParseCoordinate(customLongitude, 180)}
	}
	for name, test := range map[string]struct {
		location            Location
		latitude, longitude float64
		known               bool
	}{
		"none":                       {Location{}, 0, 0, false},
		"null island":                {at("0", "0", "", ""), 0, 0, true},
		"found out":                  {at("52.52", "13.405", "", ""), 52.52, 13.405, true},
		"given by a user":            {at("52.52", "13.405", "-33.8688", "151.2093"), -33.8688, 151.2093, true},
		"given by a user alone":      {at("", "", "-90", "-180"), -90, -180, true},
		"one of them":                {at("52.52", "", "", ""), 0, 0, false},
		"beyond the poles":           {at("90.1", "13.405", "", ""), 0, 0, false},
		"beyond the date line":       {at("1", "180.000001", "", ""), 0, 0, false},
		"no numbers":                 {at("NaN", "Inf", "north", ""), 0, 0, false},
		"more decimals than matters": {at("1.23456789", "2", "", ""), 1.234568, 2, true},
	} {
		latitude, longitude, known := test.location.Degrees()
		if known != test.known || known && (latitude != test.latitude || longitude != test.longitude) {
			t.Errorf("%s: %v, %v, %v, want %v, %v, %v", name, latitude, longitude, known, test.latitude, test.longitude, test.known)
		}
	}
}
