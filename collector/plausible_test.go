// SPDX-License-Identifier: Apache-2.0

package collector_test

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// silent returns a connected device that reports no numbers.
func silent() balena.Device {
	d := balena.Device{ID: 1, FleetID: 1, UUID: "u", Online: true}
	for field := range numbers(&d) {
		field.SetFloat(float64(balena.Null))
	}
	return d
}

// numbers yields the numeric fields of a device with their Go names.
func numbers(d *balena.Device) func(yield func(reflect.Value, string) bool) {
	return func(yield func(reflect.Value, string) bool) {
		v := reflect.ValueOf(d).Elem()
		for i := range v.NumField() {
			if v.Field(i).Kind() == reflect.Float64 && !yield(v.Field(i), v.Type().Field(i).Name) {
				return
			}
		}
	}
}

func withDevice(d balena.Device) *balena.Snapshot {
	return &balena.Snapshot{
		Time: now, APIVersion: balena.V7, Fleets: []balena.Fleet{{ID: 1, Slug: "f"}}, Devices: balena.NewDevices(d),
	}
}

// implausible returns the counters of implausible values of a collector.
func implausible() (*collector.Collector, map[string]int) {
	counted := map[string]int{}
	o := allGroups()
	o.ObserveImplausible = func(field string, values int) { counted[field] += values }
	return collector.New(nil, o), counted
}

// TestEveryNumberOfADeviceIsChecked checks that implausible values of all numeric fields are detected.
func TestEveryNumberOfADeviceIsChecked(t *testing.T) {
	d := silent()
	d.ProvisioningState = "Running OS update"
	nothing := samples(gather(t, withDevice(d), allGroups()))
	fields := map[string]int{}
	for number, name := range numbers(&d) {
		c, counted := implausible()
		number.SetFloat(-1e300)
		c.Render(withDevice(d))
		if len(counted) != 1 {
			t.Errorf("%s of -1e300: counted %v, want one field", name, counted)
		}
		maps.Copy(fields, counted)
		if diff := cmp.Diff(nothing, samples(gather(t, withDevice(d), allGroups()))); diff != "" {
			t.Errorf("%s of -1e300 has a sample:\n%s", name, diff)
		}
		number.SetFloat(float64(balena.Null))
	}
	for number, name := range numbers(&d) {
		number.SetFloat(1)
		if _, added := difference(nothing, samples(gather(t, withDevice(d), allGroups()))); len(added) != 1 {
			t.Errorf("%s of 1: added: %v", name, added)
		}
		number.SetFloat(float64(balena.Null))
	}
	if want := reflect.ValueOf(fields).Len(); want != 8 {
		t.Errorf("counted by the fields %v, want 8 of them", fields)
	}
}

func TestImplausibleNumbersHaveNoSample(t *testing.T) {
	const none = ""
	for _, test := range []struct {
		family string
		set    func(*balena.Device, float64)
		want   map[float64]string
	}{
		{"balena_device_cpu_usage_ratio", func(d *balena.Device, v float64) { d.CPUUsage = balena.Number(v) }, map[float64]string{
			-5: none, math.Copysign(0, -1): "0", 100: "1", 400: "4", 1e27: none, math.Inf(1): none, math.Inf(-1): none, math.NaN(): none,
		}},
		{"balena_device_update_progress_ratio", func(d *balena.Device, v float64) { d.UpdateProgress = balena.Number(v) }, map[float64]string{
			-1: none, 0: "0", 100: "1", 1e4: none,
		}},
		{"balena_device_cpu_temperature_celsius", func(d *balena.Device, v float64) { d.CPUTemperature = balena.Number(v) }, map[float64]string{
			-273: none, -40: "-40", 0: none, 110: "110", 85000: none,
		}},
		{"balena_device_memory_used_bytes", func(d *balena.Device, v float64) { d.MemoryUsed = balena.Number(v) }, map[float64]string{
			-1: none, 0: "0", 1024: "1.073741824e+09", 1e308: none, 1e13: none,
		}},
		{"balena_device_storage_size_bytes", func(d *balena.Device, v float64) { d.StorageSize = balena.Number(v) }, map[float64]string{
			-1: none, 1 << 20: "1.099511627776e+12", -1e308: none,
		}},
	} {
		for value, want := range test.want {
			d := silent()
			test.set(&d, value)
			got := none
			if v, ok := samples(gather(t, withDevice(d), collector.DefaultOptions()))[series(test.family, "fleet", "f", "uuid", "u")]; ok {
				got = fmt.Sprint(v)
			}
			if got != want {
				t.Errorf("%s of %v: %q, want %q", test.family, value, got, want)
			}
		}
	}
}

// TestImplausibleValueIsCountedOnce checks the counters after several refreshes.
func TestImplausibleValueIsCountedOnce(t *testing.T) {
	c, counted := implausible()
	d := silent()
	downloading := func(progress float64) *balena.Attachments {
		return &balena.Attachments{Services: []balena.Service{
			{ID: 1, Name: "main", Status: "Running", Progress: balena.Null}, {ID: 2, Name: "main", Status: "Downloading", Progress: balena.Number(progress)},
		}}
	}
	s := withDevice(d)
	for _, step := range []struct {
		what          string
		change        func()
		cpu, download int // counts so far
	}{
		{"all is well", func() {}, 0, 0},
		{"a negative usage", func() { d.CPUUsage = -5 }, 1, 0},
		{"the same, and another number changes", func() { d.MemoryUsed = 7 }, 1, 0},
		{"another negative usage", func() { d.CPUUsage = -6 }, 2, 0},
		{"a good one", func() { d.CPUUsage = 6 }, 2, 0},
		{"a negative one again", func() { d.CPUUsage = -6 }, 3, 0},
		{"a download", func() { d.Attachments = downloading(50) }, 3, 0},
		{"more than all of it", func() { d.Attachments = downloading(1e6) }, 3, 1},
		{"the same, and another number changes", func() { d.MemoryUsed = 8 }, 3, 1},
		{"more still", func() { d.Attachments = downloading(1e7) }, 3, 2},
	} {
		step.change()
		s = withDevice(d)
		c.Render(s)
		want := map[string]int{"device.cpu_usage": step.cpu, "image_install.download_progress": step.download}
		maps.DeleteFunc(want, func(_ string, n int) bool { return n == 0 })
		if diff := cmp.Diff(want, counted); diff != "" {
			t.Errorf("%s:\n%s", step.what, diff)
		}
	}
	before := maps.Clone(counted)
	c.Render(s) // unchanged
	if _, err := of(s, allGroups()).Gather(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, counted); diff != "" {
		t.Errorf("the values of an unchanged snapshot were counted again:\n%s", diff)
	}
}
