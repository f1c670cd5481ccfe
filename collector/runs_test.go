package collector

import (
	"slices"
	"testing"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// numbered returns devices with ascending IDs at a distance.
func numbered(n int, distance int64) balena.Devices {
	devices := make([]balena.Device, n)
	for i := range devices {
		devices[i].ID = int64(i+1) * distance
	}
	return balena.NewDevices(devices...)
}

// TestLongRunsHaveAllRunsInOrder cuts accounts whose devices have IDs of all kinds.
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

// TestANewRunMovesNoOtherLongRun puts a run in, which most long runs must not notice.
func TestANewRunMovesNoOtherLongRun(t *testing.T) {
	runs := numbered(40_000, 10).Runs()
	before := map[*balena.Run]int{} // the length of long runs, by their first run
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
