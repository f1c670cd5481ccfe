// SPDX-License-Identifier: Apache-2.0

package balena

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// listed returns devices as a slice, by ID.
func listed(d Devices) []Device {
	var all []Device
	for device := range d.All() {
		all = append(all, *device)
	}
	slices.SortFunc(all, func(a, b Device) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// check checks the invariants of devices.
func check(t *testing.T, d Devices, want []Device) {
	t.Helper()
	if got := listed(d); !slices.EqualFunc(got, want, func(a, b Device) bool { return a.Equal(&b) }) {
		t.Fatalf("these are the devices %v, want %v", ids(got), ids(want))
	}
	if d.Len() != len(want) {
		t.Errorf("there are %d devices, and Len says %d", len(want), d.Len())
	}
	for number, runs := range d.Stripes() {
		var last int64
		for i, run := range runs {
			if n := len(run.Devices); n == 0 || n > 2*runLength {
				t.Errorf("run %d has %d devices", i, n)
			}
			if i > 0 && len(run.Devices)+len(runs[i-1].Devices) <= runLength/2 {
				t.Errorf("runs %d and %d are short enough to be one", i-1, i)
			}
			newest := Instant(0)
			for _, device := range run.Devices {
				newest = max(newest, device.Modified)
				if stripeOf(device.ID, len(d.Stripes())) != number || device.ID <= last {
					t.Errorf("device %d lies in stripe %d, behind device %d", device.ID, number, last)
				}
				last = device.ID
			}
			if run.Newest != newest {
				t.Errorf("run %d: newest is %d, want %d", i, run.Newest, newest)
			}
		}
	}
	for i := range want {
		if found := d.Find(want[i].ID); found == nil || !found.Equal(&want[i]) {
			t.Errorf("device %d is not found", want[i].ID)
		}
		if found := d.Find(want[i].ID + 1); found != nil && found.ID != want[i].ID+1 {
			t.Errorf("found device %d in place of %d", found.ID, want[i].ID+1)
		}
	}
}

func ids(devices []Device) []int64 {
	var all []int64
	for i := range devices {
		all = append(all, devices[i].ID)
	}
	return all
}

// some returns devices with every third ID.
func some(n int) []Device {
	devices := make([]Device, n)
	for i := range devices {
		devices[i] = Device{ID: int64(3 * (i + 1)), UUID: fmt.Sprint(i), Modified: Instant(i % 100), CPUUsage: Null}
	}
	return devices
}

// striped returns devices in a number of stripes.
func striped(stripes int, devices []Device) Devices {
	b := NewBuilder(Striped(stripes))
	for i := range devices {
		b.Add(&devices[i])
	}
	return b.Devices()
}

// A device never changes its stripe. Stripes are about equally large. Each of 2 stripes consists of two of 4 stripes.
func TestStripes(t *testing.T) {
	for _, distance := range []int64{1, 2, 3, 40, 64, 1000, 1 << 20, 9_999_991} {
		for _, stripes := range []int{1, 2, 3, 8, 63, MaxStripes} {
			devices := make([]int, stripes)
			for i := range int64(64_000) {
				stripe := stripeOf(i*distance, stripes)
				devices[stripe]++
				if half := stripeOf(i*distance, 2*stripes) / 2; half != stripe {
					t.Fatalf("device %d is in stripe %d of %d, and in half of %d", i*distance, stripe, stripes, half)
				}
			}
			if mean := 64_000 / stripes; slices.Min(devices) < mean*8/10 || slices.Max(devices) > mean*12/10 {
				t.Errorf("distance %d: the stripes have %v devices", distance, devices)
			}
		}
	}
}

func TestDevices(t *testing.T) {
	for _, n := range []int{0, 1, runLength - 1, runLength, runLength + 1, 2 * runLength, 1000} {
		check(t, NewDevices(some(n)...), some(n))
	}
}

// After random changes, the devices equal those of a map with the same changes. Unchanged runs are shared, by incremental
// changes and by full lists.
func TestDevicesChange(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		devices := striped([]int{1, 1, 2, 7, MaxStripes}[seed%5], some(random.IntN(500)))
		model := map[int64]Device{}
		for d := range devices.All() {
			model[d.ID] = *d
		}
		for range 20 {
			put, gone := map[int64]Device{}, map[int64]bool{}
			for range random.IntN(6) {
				d := Device{ID: 1 + random.Int64N(1600), Modified: Instant(random.IntN(300)), CPUUsage: Null}
				switch known, ok := model[d.ID]; random.IntN(4) {
				case 0: // a device that may exist or not
					put[d.ID] = d
				case 1: // an existing device, unchanged
					if ok {
						put[d.ID] = known
					}
				case 2:
					gone[d.ID] = true
				case 3: // many are removed
					for id := d.ID; id < d.ID+100; id++ {
						gone[id] = true
					}
				}
			}
			before := devices
			for id := range gone {
				delete(model, id)
			}
			maps.Copy(model, put)
			var isGone func(*Device) bool
			if len(gone) > 0 {
				isGone = func(d *Device) bool { return gone[d.ID] }
			}
			want := sorted(model)
			devices = before.With(pointers(sorted(put)), isGone)
			check(t, devices, want)

			// The builder of a full list knows the previous devices. If the list has equal devices, all runs are shared.
			full := NewBuilder(before)
			for i := range want {
				if known := full.Known(want[i].ID); known != before.Find(want[i].ID) {
					t.Errorf("seed %d: device %d is known as %v", seed, want[i].ID, known)
				}
				full.Add(&want[i])
			}
			check(t, full.Devices(), want)
			checkDifferences(t, before, devices)

			changed := 0
			for was, is := range devices.Differences(before) {
				if is == nil || was == nil || !was.Equal(is) {
					changed++
				}
			}
			shared := 0
			for _, run := range devices.Runs() {
				if slices.Contains(before.Runs(), run) {
					shared++
				}
			}
			if spoilt := len(before.Runs()) - shared; spoilt > 3*changed {
				t.Errorf("seed %d: %d devices changed, and %d runs of %d are not shared", seed, changed, spoilt, len(before.Runs()))
			}
		}
	}
}

func pointers(devices []Device) []*Device {
	all := make([]*Device, len(devices))
	for i := range devices {
		all[i] = &devices[i]
	}
	return all
}

func sorted(devices map[int64]Device) []Device {
	var all []Device
	for _, d := range devices {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b Device) int { return int(a.ID - b.ID) })
	return all
}

// differences compares the result of Differences with that for maps of the devices.
func checkDifferences(t *testing.T, before, after Devices) {
	t.Helper()
	old, now := map[int64]Device{}, map[int64]Device{}
	for d := range before.All() {
		old[d.ID] = *d
	}
	for d := range after.All() {
		now[d.ID] = *d
	}
	told := map[int64]bool{}
	for was, is := range after.Differences(before) {
		id := int64(0)
		if was != nil {
			id = was.ID
		}
		if is != nil {
			id = is.ID
		}
		told[id] = true
		a, inOld := old[id]
		b, inNow := now[id]
		if (was != nil) != inOld || (is != nil) != inNow || inOld && inNow && a.Equal(&b) {
			t.Errorf("device %d is no difference: %v %v", id, was, is)
		}
	}
	for id, a := range old {
		if b, ok := now[id]; (!ok || !a.Equal(&b)) && !told[id] {
			t.Errorf("the difference of device %d is not told", id)
		}
	}
	for id := range now {
		if _, ok := old[id]; !ok && !told[id] {
			t.Errorf("device %d came, and is not told", id)
		}
	}
}

// Devices that are appended one by one are divided like those that were read at once.
func TestDevicesThatComeFillRuns(t *testing.T) {
	var devices Devices
	for _, d := range some(1000) {
		devices = devices.With([]*Device{&d}, nil)
	}
	check(t, devices, some(1000))
	if n, want := len(devices.Runs()), len(NewDevices(some(1000)...).Runs()); n > 2*want {
		t.Errorf("they lie in %d runs, want about %d", n, want)
	}
}

// Equal compares every field.
func TestEqualKnowsAllFields(t *testing.T) {
	a := Device{Whereabouts: &Whereabouts{}, Attachments: &Attachments{Services: []Service{{}}, Tags: []Tag{{}}}}
	touchEach(t, "Device", reflect.ValueOf(&a).Elem(), func(name string) {
		var blank Device
		blank.Attachments = &Attachments{Services: []Service{{}}, Tags: []Tag{{}}}
		if a.Equal(&blank) || blank.Equal(&a) {
			t.Errorf("devices that differ in %s are equal", name)
		}
	})
	null := Device{CPUUsage: Null, Attachments: &Attachments{Services: []Service{{Progress: Null}}}}
	if same := *null.Detached(); !null.Equal(&same) {
		t.Error("a device with nulls is not equal to itself")
	}
}

// touchEach sets one field after the other to a value that is not zero, and back.
func touchEach(t *testing.T, name string, v reflect.Value, f func(name string)) {
	for i := range v.NumField() {
		field, name := v.Field(i), name+"."+v.Type().Field(i).Name
		switch field.Kind() {
		case reflect.Slice:
			touchEach(t, name, field.Index(0), f)
			continue
		case reflect.Pointer:
			touchEach(t, name, field.Elem(), f)
			continue
		case reflect.Struct:
			touchEach(t, name, field, f)
			continue
		}
		was := reflect.ValueOf(field.Interface())
		switch field.Kind() {
		case reflect.Int32, reflect.Int64:
			field.SetInt(1)
		case reflect.Float64:
			field.SetFloat(1)
		case reflect.String:
			field.SetString("x")
		case reflect.Bool:
			field.SetBool(true)
		default:
			t.Fatalf("%s is of a kind that this test does not know", name)
		}
		f(name)
		field.Set(was)
	}
}
