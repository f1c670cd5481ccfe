// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// numbered returns devices with ascending IDs that differ by distance.
func numbered(n int, distance int64) balena.Devices {
	devices := make([]balena.Device, n)
	for i := range devices {
		devices[i].ID = int64(i+1) * distance
	}
	return balena.NewDevices(devices...)
}

// TestLongRunsHaveAllRunsInOrder divides accounts whose IDs have different distances.
func TestLongRunsHaveAllRunsInOrder(t *testing.T) {
	const devices = 40_000
	for _, distance := range []int64{1, 2, 3, 17, 64, 1000, 1 << 20, 9_999_991} {
		runs := numbered(devices, distance).Runs()
		var all []*balena.Run
		n := 0
		for long := range longRuns(runs) {
			if len(long) == 0 || len(long) > maxLongRun {
				t.Errorf("distance %d: a long run of %d runs", distance, len(long))
			}
			all = append(all, long...)
			n++
		}
		if !slices.Equal(all, runs) {
			t.Errorf("distance %d: runs are missing or in another order", distance)
		}
		if mean := len(runs) / n; mean < meanLongRun/2 || mean > 2*meanLongRun {
			t.Errorf("distance %d: long runs have %d runs on average, want about %d", distance, mean, meanLongRun)
		}
	}
}

// TestNewRun checks that a new run changes at most two long runs.
func TestNewRun(t *testing.T) {
	runs := numbered(40_000, 10).Runs()
	before := map[*balena.Run]int{} // length of long runs by their first run
	for long := range longRuns(runs) {
		before[long[0]] = len(long)
	}
	added := balena.NewDevices(balena.Device{ID: runs[500].Devices[0].ID - 5}).Runs()
	moved := 0
	for long := range longRuns(slices.Insert(slices.Clone(runs), 500, added...)) {
		if before[long[0]] != len(long) {
			moved++
		}
	}
	if moved > 2 {
		t.Errorf("%d long runs changed, want at most 2", moved)
	}
}

// TestRemovedRuns removes the first or another run of a long run, which changes the long run.
func TestRemovedRuns(t *testing.T) {
	devices, runs := aloneAndSeveral(t)
	o := Options{Devices: true, DeviceNames: true}
	for name, gone := range map[string]int{
		"the only one of a long run": 0, "the first of a long run": 1, "one within": 2, "the last of a long run": len(runs) - 1,
	} {
		left := slices.Delete(slices.Clone(devices), gone*len(devices)/len(runs), (gone+1)*len(devices)/len(runs))
		before := &balena.Snapshot{Fleets: []balena.Fleet{{ID: 1}}, Devices: balena.NewDevices(devices...)}
		after := &balena.Snapshot{Fleets: before.Fleets, Devices: balena.NewDevices(left...)}
		c := New(nil, o)
		c.Render(before)
		got, want := c.Render(after), New(nil, o).Render(after)
		if got.TextBytes() != want.TextBytes() || got.CompressedBytes() != want.CompressedBytes() {
			t.Errorf("%s: %d bytes, compressed %d, want %d and %d", name, got.TextBytes(), got.CompressedBytes(), want.TextBytes(), want.CompressedBytes())
		}
	}
}

// aloneAndSeveral returns the devices of a long run of one run, followed by a long run of several runs.
func aloneAndSeveral(t *testing.T) (devices []balena.Device, runs []*balena.Run) {
	for distance := int64(1); distance < 1000; distance++ {
		var before []*balena.Run
		for long := range longRuns(numbered(40_000, distance).Runs()) {
			if len(before) == 1 && beginsLongRun(before[0]) && len(long) > 2 {
				runs = append(before, long...)
				for i, run := range runs {
					for _, d := range run.Devices { // the text of each run has a different length
						devices = append(devices, balena.Device{ID: d.ID, FleetID: 1, UUID: fmt.Sprint(d.ID), Name: strings.Repeat("n", i)})
					}
				}
				return devices, runs
			}
			before = long
		}
	}
	t.Fatal("there are no such long runs")
	return nil, nil
}
