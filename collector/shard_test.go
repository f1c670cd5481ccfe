// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"strings"
	"testing"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// TestShardsAddUp reads an account as a whole and in three shards, and compares all series: each series of a fleet or
// device is exported by exactly one shard.
func TestShardsAddUp(t *testing.T) {
	o := allGroups()
	config := simulator.Config{Dataset: dataset(t)}
	some := func(c *account.Config) { c.Exclude = slugs("admin/kiosk_prod", "admin/greenhouse-sensors") }
	whole := samples(gather(t, newAPI(t, config, o, some).fetch(t), o))

	const shards = 3
	added := map[string]float64{}
	for i := range shards {
		a := newAPI(t, config, o, some, func(c *account.Config) { c.Shard = balena.Shard{Index: i, Count: shards} })
		s := a.fetch(t)
		services := 0
		for d := range s.Devices.All() {
			services += len(d.Services())
		}
		if len(s.Fleets) == 0 || s.Devices.Len() == 0 || services == 0 {
			t.Errorf("shard %d is empty", i)
		}
		for series, value := range samples(gather(t, s, o)) {
			before, twice := added[series]
			name, _, _ := strings.Cut(series, "{")
			switch name {
			case "balena_devices_online": // by the name of the fleet, which need not be unique
				added[series] = before + value
			case "balena_api_key_expiry_timestamp_seconds": // the same in all shards
				added[series] = value
			default:
				if twice {
					t.Errorf("%s is in two shards", series)
				}
				added[series] = value
			}
		}
	}
	if diff := sampleDiff(whole, added); diff != "" {
		t.Errorf("the whole (-) and the sum of the shards (+) differ:\n%.3000s", diff)
	}
}
