// SPDX-License-Identifier: Apache-2.0

package account

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// The known account of these tests: devices 1 and 2 are in fleet 10, devices 3 and 4 in fleet 20. Device 4 downloads an image.
// All of them changed at time 100, and their changes are known up to then.
var (
	knownFleets  = map[int64]*balena.Fleet{10: {ID: 10, TargetRelease: 5}, 20: {ID: 20, TargetRelease: 6}}
	knownDevices = balena.NewDevices(deviceOf(1, 10), deviceOf(2, 10), deviceOf(3, 20), downloading(deviceOf(4, 20)))
)

func deviceOf(id, fleet int64) balena.Device {
	d := nullDevice
	d.ID, d.FleetID, d.UUID, d.Modified, d.TargetRelease = id, fleet, fmt.Sprint("u", id), 100, 5
	return d
}

func downloading(d balena.Device) balena.Device {
	d.Status = statusUpdating
	return d
}

func withUUID(uuid string, d balena.Device) balena.Device {
	d.UUID = uuid
	return d
}

// changesOf returns the changes after the server returned some devices, and did not return others that it was asked for.
func changesOf(present []balena.Device, absent ...int64) *changes {
	c := &changes{previous: knownDevices, answers: map[int64]*balena.Device{}}
	for i := range present {
		c.answers[present[i].ID] = &present[i]
	}
	for _, id := range absent {
		c.answers[id] = nil
	}
	return c
}

func set(ids ...int64) map[int64]bool {
	s := map[int64]bool{}
	for _, id := range ids {
		s[id] = true
	}
	return s
}

func TestUnresolvedDevices(t *testing.T) {
	for name, test := range map[string]struct {
		changes *changes
		fleets  map[int64]bool // whose IDs were listed, because their counts are wrong
		ids     map[int64]bool // in the list
		rung    int
		want    []int64
	}{
		"nothing changed":                                   {changes: changesOf(nil)},
		"a device changed":                                  {changes: changesOf([]balena.Device{deviceOf(1, 10)})},
		"a device is not in the list":                       {changes: changesOf(nil), fleets: set(10), ids: set(1), want: []int64{2}},
		"it was read, and the server does not have it":      {changes: changesOf(nil, 2), fleets: set(10), ids: set(1)},
		"a device of a fleet that was not listed":           {changes: changesOf(nil), fleets: set(10), ids: set(1, 2)},
		"a device is only in the list":                      {changes: changesOf(nil), fleets: set(10), ids: set(1, 2, 9), want: []int64{9}},
		"it is among the changes as well":                   {changes: changesOf([]balena.Device{deviceOf(9, 10)}), fleets: set(10), ids: set(1, 2, 9)},
		"it was read, and missing, just before":             {changes: changesOf(nil, 9), fleets: set(10), ids: set(1, 2, 9), want: []int64{9}},
		"a known device of another fleet is in the list":    {changes: changesOf(nil), fleets: set(10), ids: set(1, 2, 3)},
		"a changed device is not in the list of its fleet":  {changes: changesOf([]balena.Device{deviceOf(3, 10)}), fleets: set(10), ids: set(1, 2), want: []int64{3}},
		"a known device has the uuid of an added one":       {changes: changesOf([]balena.Device{withUUID("u1", deviceOf(9, 20))}), want: []int64{1}},
		"it changed, too":                                   {changes: changesOf([]balena.Device{withUUID("u1", deviceOf(9, 20)), withUUID("new", deviceOf(1, 10))})},
		"a download may have ended, without image installs": {changes: changesOf(nil), rung: byDevices, want: []int64{4}},
		"it is among the changes":                           {changes: changesOf([]balena.Device{deviceOf(4, 20)}), rung: byDevices},
		"several, in ascending order":                       {changes: changesOf(nil), fleets: set(10, 20), ids: set(9), rung: byDevices, want: []int64{1, 2, 3, 4, 9}},
	} {
		t.Run(name, func(t *testing.T) {
			added, err := test.changes.added()
			if err != nil {
				t.Fatal(err)
			}
			if got := test.changes.unresolved(test.fleets, test.ids, added, test.rung); !slices.Equal(got, test.want) {
				t.Errorf("unresolved devices %v, want %v", got, test.want)
			}
		})
	}
}

// Changes that contradict what is known are not used.
func TestInconsistentChanges(t *testing.T) {
	for name, test := range map[string]struct {
		changes *changes
		since   balena.Instant
		want    string
	}{
		"consistent":                                   {changesOf([]balena.Device{deviceOf(1, 20), deviceOf(9, 10)}, 2), 100, ""},
		"two added devices with one uuid":              {changesOf([]balena.Device{withUUID("u", deviceOf(8, 10)), withUUID("u", deviceOf(9, 20))}), 100, "two devices that were added have the same uuid"},
		"an added device with the uuid of a known one": {changesOf([]balena.Device{withUUID("u3", deviceOf(9, 10))}), 100, "device 3 has the uuid of one that was added"},
		"the known one was removed":                    {changesOf([]balena.Device{withUUID("u3", deviceOf(9, 10))}, 3), 100, ""},
		"the known one left the selected fleets":       {changesOf([]balena.Device{withUUID("u3", deviceOf(9, 10)), deviceOf(3, 30)}), 100, ""},
		"a device that changed is not among them":      {changesOf([]balena.Device{deviceOf(1, 10), deviceOf(2, 10), deviceOf(4, 20)}), 99, "device 3 changed, and the query for changes no longer returns it"},
	} {
		t.Run(name, func(t *testing.T) {
			added, err := test.changes.added()
			if err == nil {
				err = test.changes.validate(knownFleets, test.since, added)
			}
			if got := strings.TrimSuffix(fmt.Sprint(err), "<nil>"); got != test.want || err != nil && !isInconsistent(err) {
				t.Errorf("error %q, want %q", got, test.want)
			}
		})
	}
}

func TestMergedChanges(t *testing.T) {
	pinned := deviceOf(1, 10)
	pinned.PinnedRelease = 5
	returned := changesOf(nil, 4)
	returned.answers[4] = knownDevices.Find(4) // unchanged
	other := map[int64]*balena.Fleet{10: {ID: 10, TargetRelease: 7}, 20: {ID: 20, TargetRelease: 6}}
	for name, test := range map[string]struct {
		changes    *changes
		fleets     map[int64]*balena.Fleet
		retargeted map[int64]bool
		vanished   bool
		want       string // fleet and target of each device
	}{
		"nothing":                         {changesOf(nil), knownFleets, nil, false, "1:10:5 2:10:5 3:20:5 4:20:5"},
		"added, moved and removed":        {changesOf([]balena.Device{deviceOf(9, 20), deviceOf(3, 10)}, 4), knownFleets, nil, false, "1:10:5 2:10:5 3:10:5 9:20:5"},
		"missing, and in the next answer": {returned, knownFleets, nil, false, "1:10:5 2:10:5 3:20:5 4:20:5"},
		"a fleet with another target":     {changesOf(nil), other, set(10), false, "1:10:5 2:10:7 3:20:5 4:20:5"},
		"a changed device of it":          {changesOf([]balena.Device{deviceOf(2, 10)}), other, set(10), false, "1:10:5 2:10:5 3:20:5 4:20:5"},
		"a fleet that is gone":            {changesOf([]balena.Device{deviceOf(2, 20)}), map[int64]*balena.Fleet{20: knownFleets[20]}, nil, true, "2:20:5 3:20:5 4:20:5"},
	} {
		t.Run(name, func(t *testing.T) {
			test.changes.previous = test.changes.previous.With([]*balena.Device{&pinned}, nil)
			var got []string
			for d := range test.changes.merge(test.fleets, test.retargeted, test.vanished).All() {
				got = append(got, fmt.Sprintf("%d:%d:%d", d.ID, d.FleetID, d.TargetRelease))
			}
			if got := strings.Join(got, " "); got != test.want {
				t.Errorf("devices %s, want %s", got, test.want)
			}
		})
	}
}
