// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// TestInService checks that the sums for alerts count only devices in service, and that a maintenance ends at its time without
// other changes.
func TestInService(t *testing.T) {
	hours := func(n int) balena.Instant { return balena.Instant(now.Add(time.Duration(n) * time.Hour).UnixMilli()) }
	connected := balena.Device{Online: true, Status: "operational", RunningRelease: 7, TargetRelease: 7, Installs: "7 2 2"}
	gone := balena.Device{HeartbeatState: "offline", Status: "disconnected", LastConnectivity: hours(-48), ProvisioningState: "OS update failed"}
	with := func(d balena.Device, change func(*balena.Device)) balena.Device {
		change(&d)
		return d
	}
	for name, test := range map[string]struct {
		fleet   balena.Fleet
		devices []balena.Device
		// want are the numbers of devices in service, connected, healthy, disconnected for a day, with a failed update of the host
		// OS, never connected, and in maintenance: at first, and three hours later.
		now, later [7]int
	}{
		"all in service":       {balena.Fleet{}, []balena.Device{connected, gone, {Status: "configuring", HeartbeatState: "unknown"}}, [7]int{3, 1, 1, 1, 1, 1, 0}, [7]int{3, 1, 1, 1, 1, 1, 0}},
		"of an archived fleet": {balena.Fleet{Archived: true}, []balena.Device{connected, gone}, [7]int{}, [7]int{}},
		"inactive by status":   {balena.Fleet{}, []balena.Device{connected, {Status: "inactive", HeartbeatState: "unknown"}}, [7]int{1, 1, 1}, [7]int{1, 1, 1}},
		"deactivated": {
			balena.Fleet{},
			[]balena.Device{with(connected, func(d *balena.Device) { d.Deactivated = true }), with(gone, func(d *balena.Device) { d.Deactivated = true })},
			[7]int{},
			[7]int{},
		},
		"frozen": {balena.Fleet{}, []balena.Device{connected, with(gone, func(d *balena.Device) { d.Frozen = true })}, [7]int{1, 1, 1}, [7]int{1, 1, 1}},
		"in maintenance": {
			balena.Fleet{},
			[]balena.Device{connected, with(gone, func(d *balena.Device) { d.Maintenance = balena.Forever })},
			[7]int{1, 1, 1, 0, 0, 0, 1},
			[7]int{1, 1, 1, 0, 0, 0, 1},
		},
		"in maintenance until a date": {
			balena.Fleet{},
			[]balena.Device{connected, with(gone, func(d *balena.Device) { d.Maintenance = hours(2) }), with(connected, func(d *balena.Device) { d.Maintenance = hours(5) })},
			[7]int{1, 1, 1, 0, 0, 0, 2},
			[7]int{2, 1, 1, 1, 1, 0, 1},
		},
		"of a fleet in maintenance until a date": {
			balena.Fleet{Maintenance: hours(2)},
			[]balena.Device{connected, gone, with(gone, func(d *balena.Device) { d.Frozen = true })},
			[7]int{0, 0, 0, 0, 0, 0, 2},
			[7]int{2, 1, 1, 1, 1},
		},
		"in maintenance and of an archived fleet": {balena.Fleet{Archived: true, Maintenance: balena.Forever}, []balena.Device{gone}, [7]int{}, [7]int{}},
		"a maintenance that is over":              {balena.Fleet{Maintenance: hours(-1)}, []balena.Device{with(connected, func(d *balena.Device) { d.Maintenance = hours(-1) })}, [7]int{1, 1, 1}, [7]int{1, 1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			test.fleet.ID, test.fleet.Slug = 1, "f"
			s := &balena.Snapshot{Time: now, Fleets: []balena.Fleet{test.fleet}}
			for i := range test.devices {
				test.devices[i].ID, test.devices[i].FleetID, test.devices[i].UUID = int64(i+1), 1, fmt.Sprint(i)
			}
			s.Devices = balena.NewDevices(test.devices...)
			c := of(nil, allGroups())
			for _, at := range []struct {
				time time.Time
				want [7]int
			}{{now, test.now}, {now.Add(3 * time.Hour), test.later}} {
				later := *s
				later.Time = at.time
				got := samples(parse(t, serve(c.Render(&later)))) // updates the previous page
				want := map[string]float64{}
				for i, family := range []string{"in_service", "in_service_connected", "healthy", "disconnected_longer_than", "os_update_failed", "never_connected", "in_maintenance"} {
					labels := []string{"fleet", "f"}
					if family == "disconnected_longer_than" {
						labels = append(labels, "seconds", "86400")
					}
					want[series("balena_fleet_devices_"+family, labels...)] = float64(at.want[i])
				}
				for name := range got {
					if _, ok := want[name]; !ok {
						delete(got, name)
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("at %s (-want +got):\n%s", at.time, diff)
				}
			}
		})
	}
}

// TestDevicesOfAnAbsentFleet checks the samples of devices after their fleet was archived, and at the end of its maintenance.
func TestDevicesOfAnAbsentFleet(t *testing.T) {
	c := of(nil, allGroups())
	device := balena.Device{ID: 1, FleetID: 1, UUID: "u", Maintenance: 5000}
	devices := balena.NewDevices(device) // the same runs in all snapshots
	for _, test := range []struct {
		fleet balena.Fleet
		out   string
		until float64
	}{
		{balena.Fleet{}, "", 5},
		{balena.Fleet{Archived: true}, "1", 5},
		{balena.Fleet{Maintenance: 9000}, "", 9},
		{balena.Fleet{Maintenance: balena.Forever}, "", math.Inf(1)},
		{balena.Fleet{}, "", 5},
	} {
		test.fleet.ID, test.fleet.Slug = 1, "f"
		got := samples(parse(t, serve(c.Render(&balena.Snapshot{Time: now, Fleets: []balena.Fleet{test.fleet}, Devices: devices}))))
		out := ""
		if v, ok := got[series("balena_device_out_of_service", "fleet", "f", "uuid", "u")]; ok {
			out = fmt.Sprint(v)
		}
		until := got[series("balena_device_maintenance_until_timestamp_seconds", "fleet", "f", "uuid", "u")]
		if out != test.out || until != test.until {
			t.Errorf("%+v: out of service %q, in maintenance until %v; want %q, %v", test.fleet, out, until, test.out, test.until)
		}
	}
}

// TestKeysOfTagsThatChange checks the labels of tags on all devices after the keys changed.
func TestKeysOfTagsThatChange(t *testing.T) {
	c := of(nil, allGroups())
	page := func(keys []string, tags ...string) string {
		var attached []balena.Tag
		for i, value := range tags {
			attached = append(attached, balena.Tag{ID: int64(i + 1), Value: value})
		}
		s := &balena.Snapshot{
			Time: now, Fleets: []balena.Fleet{{ID: 1, Slug: "f", Tags: tags}}, DeviceTagKeys: keys, FleetTagKeys: keys,
			Devices: balena.NewDevices(balena.Device{ID: 1, FleetID: 1, UUID: "u", Attachments: &balena.Attachments{Tags: attached}}),
		}
		if diff := cmp.Diff(samples(gather(t, s, allGroups())), samples(parse(t, text(s, allGroups())))); diff != "" {
			t.Errorf("gathered (-) and rendered (+) differ:\n%s", diff)
		}
		var lines []string
		for line := range strings.Lines(serve(c.Render(s))) {
			if strings.HasPrefix(line, "balena_device_tags") || strings.HasPrefix(line, "balena_fleet_tags") {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "")
	}
	for _, test := range []struct {
		keys, tags []string
		want       string
	}{
		{[]string{"site-a"}, []string{"x"}, "balena_fleet_tags{fleet=\"f\",tag_site_a=\"x\"} 1\nbalena_device_tags{fleet=\"f\",uuid=\"u\",tag_site_a=\"x\"} 1\n"},
		{
			[]string{"site-a", "site_a"},
			[]string{"x", "y"},
			"balena_fleet_tags{fleet=\"f\",tag_site_a=\"x\",tag_site_a_2=\"y\"} 1\nbalena_device_tags{fleet=\"f\",uuid=\"u\",tag_site_a=\"x\",tag_site_a_2=\"y\"} 1\n",
		},
		{[]string{"site_b"}, []string{"x"}, "balena_fleet_tags{fleet=\"f\",tag_site_b=\"x\"} 1\nbalena_device_tags{fleet=\"f\",uuid=\"u\",tag_site_b=\"x\"} 1\n"},
	} {
		if got := page(test.keys, test.tags...); got != test.want {
			t.Errorf("tags %q: %s, want %s", test.keys, got, test.want)
		}
	}
}
