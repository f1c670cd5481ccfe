// SPDX-License-Identifier: Apache-2.0

package balena

import (
	"cmp"
	"math"
	"strconv"
)

// Whereabouts are where a device is: on the map, and in its own networks.
type Whereabouts struct {
	Location       Location
	LocalAddresses string // ip_address: addresses on the device's own networks, separated by blanks
}

// Location is where a device is on the map. Coordinates are unknown unless they are read. The comments name the fields of the resource
// "device", which only balenaCloud has.
type Location struct {
	Latitude, Longitude             Coordinate // latitude, longitude: found out by the API
	CustomLatitude, CustomLongitude Coordinate // custom_latitude, custom_longitude: given by a user
}

// Degrees returns the coordinates in degrees. Custom ones are used before those that the API found out. It reports false
// unless both are known.
func (l Location) Degrees() (latitude, longitude float64, known bool) {
	lat, long := cmp.Or(l.CustomLatitude, l.Latitude), cmp.Or(l.CustomLongitude, l.Longitude)
	return lat.degrees(), long.degrees(), lat != 0 && long != 0
}

// Coordinate is a latitude or longitude with six decimals; 0 is unknown, so that a device whose location is not read is the
// zero value.
type Coordinate int32

const (
	perDegree = 1_000_000
	// origin is the coordinate of 0 degrees.
	origin = 200 * perDegree
)

func (c Coordinate) degrees() float64 { return float64(c-origin) / perDegree }

// ParseCoordinate reads degrees up to a limit as the API writes them, such as "52.52". Anything else is unknown.
func ParseCoordinate(s string, limit float64) Coordinate {
	degrees, err := strconv.ParseFloat(s, 64)
	if err != nil || !(math.Abs(degrees) <= limit) {
		return 0
	}
	return Coordinate(math.Round(degrees*perDegree)) + origin
}
