// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// Every family has a sample at some time in a simulated account. A family without one would not be tested, and dashboards
// with it could not be tried.
func TestEveryFamilyHasASample(t *testing.T) {
	missing := map[string]bool{}
	for d := range collector.New(nil, allGroups()).Descriptions() {
		missing[d.Name] = true
	}
	api := newAPI(t, simulator.Config{Devices: 600, Fleets: 100, Seed: 1, Edition: simulator.Cloud}, allGroups())
	for range 12 {
		families, err := of(api.fetch(t), allGroups()).Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			delete(missing, f.GetName())
		}
		for range 10 {
			api.Tick()
		}
	}
	if len(missing) > 0 {
		t.Errorf("no sample of %s", strings.Join(slices.Sorted(maps.Keys(missing)), ", "))
	}
}
