package collector_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// TestShardsAddUp reads an account in one piece and in three, and compares everything: the sums over
// fleets added up, all else as it is.
func TestShardsAddUp(t *testing.T) {
	o := everything()
	o.ReleaseLimit = 0 // which releases are the least used differs from shard to shard
	config := simulator.Config{Dataset: dataset(t)}
	some := func(c *balena.Config) { c.Exclude = slugs("admin/kiosk_prod", "admin/greenhouse-sensors") }
	whole := samples(gather(t, newAPI(t, config, o, some).fetch(t), o))

	const shards = 3
	added := map[string]float64{}
	for i := range shards {
		a := newAPI(t, config, o, some, func(c *balena.Config) { c.Shard = balena.Shard{Index: i, Count: shards} })
		s := a.fetch(t)
		if n := len(s.Devices); n < 200 || n > 400 {
			t.Errorf("shard %d has %d of 904 devices", i, n)
		}
		for _, service := range s.Services {
			if !hasDevice(s, service.DeviceID) {
				t.Fatalf("shard %d read a service of device %d, which is not its own", i, service.DeviceID)
			}
		}
		for series, value := range samples(gather(t, s, o)) {
			name, _, _ := strings.Cut(series, "{")
			sum := name == "balena_devices_online" || name == "balena_fleet_devices" ||
				strings.HasPrefix(name, "balena_fleet_devices_") || name == "balena_fleet_service_devices"
			before, ok := added[series]
			switch {
			case sum:
				added[series] += value
			case !ok:
				added[series] = value
			case strings.HasPrefix(name, "balena_device_"):
				t.Errorf("%s is in two shards", series)
			case before != value:
				t.Errorf("%s is %v in one shard and %v in another", series, before, value)
			}
		}
	}
	for series, value := range added {
		if _, ok := whole[series]; !ok && value == 0 {
			delete(added, series)
		}
	}
	if diff := cmp.Diff(whole, added); diff != "" {
		t.Errorf("the whole (-) and the sum of the shards (+) differ:\n%.3000s", diff)
	}
}

func hasDevice(s *collector.Snapshot, id int64) bool {
	for i := range s.Devices {
		if s.Devices[i].ID == id {
			return true
		}
	}
	return false
}
