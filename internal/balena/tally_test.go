// SPDX-License-Identifier: Apache-2.0

package balena

import (
	"reflect"
	"testing"
)

// tallied has a device for each branch of the sums.
func tallied() []*Device {
	return []*Device{
		{ID: 1, Online: true, HeartbeatState: HeartbeatOnline, Undervolted: true, Maintenance: 5000, Installs: "7 2 2 0", Status: "operational", RunningRelease: 7, TargetRelease: 7, Type: "rpi"},
		{ID: 2, HeartbeatState: HeartbeatUnknown, Frozen: true},
		{ID: 3, HeartbeatState: "offline", LastConnectivity: 1000, Undervolted: true, RunningRelease: 7, TargetRelease: 8, PinnedRelease: 8, OSVersion: "balenaOS 6", SupervisorVersion: "17.0.0", ProvisioningState: "OS update failed"},
		{ID: 4, HeartbeatState: HeartbeatTimeout, UpdateStatus: "done", RunningRelease: 8, Attachments: &Attachments{Services: []Service{
			{ID: 1, Name: "main"}, {ID: 2, Name: "main", Status: Unknown}, {ID: 3, Name: "main", Status: "Running"},
		}}},
		{ID: 5, HeartbeatState: HeartbeatUnknown, SupervisorVersion: "17.0.0"},
		{ID: 6, Online: true, Deactivated: true, Status: StatusInactive},
	}
}

func TestTallyCountsDevices(t *testing.T) {
	var tally Tally
	for _, d := range tallied() {
		tally.Add(d)
	}
	want := Tally{
		Devices: 6, Online: 2, Connected: 3, Undervolted: 1, Frozen: 1, Deactivated: 1, Targeted: 2, OnTarget: 1, Pinned: 1, WithoutRelease: 3,
		ByStatus:     Counts[string]{"operational": 1, StatusInactive: 1, Unknown: 4},
		ByHeartbeat:  Counts[string]{HeartbeatOnline: 1, HeartbeatUnknown: 3, "offline": 1, HeartbeatTimeout: 1},
		ByUpdate:     Counts[string]{NoUpdate: 2, "done": 1, Unknown: 3},
		ByType:       Counts[string]{"rpi": 1, Unknown: 5},
		BySupervisor: Counts[string]{"17.0.0": 2, Unknown: 4},
		ByOS:         Counts[OS]{{Unknown, Unknown, Unknown}: 4, {"rpi", Unknown, Unknown}: 1, {Unknown, "balenaOS 6", Unknown}: 1},
		ByRelease:    Counts[int64]{7: 2, 8: 1},
		ByService:    Counts[ServiceState]{{"main", Unknown}: 1, {"main", "Running"}: 1},
		byMaintenance: map[Instant]*InService{
			0:    {Devices: 3, Connected: 1, NeverConnected: 1, OSUpdateFailed: 1, Disconnected: Counts[Instant]{1000: 1}, ByOS: Counts[OS]{{Unknown, "balenaOS 6", Unknown}: 1, {Unknown, Unknown, Unknown}: 2}},
			5000: {Devices: 1, Connected: 1, Surveyed: 1, Healthy: 1, ByOS: Counts[OS]{{"rpi", Unknown, Unknown}: 1}},
		},
	}
	if !reflect.DeepEqual(tally, want) {
		t.Errorf("counted\n%+v, want\n%+v", tally, want)
	}
}

// TestTallyFollowsDevices: a device that was added and removed again leaves nothing, and no sum is forgotten where those of
// several times of maintenance are summed up.
func TestTallyFollowsDevices(t *testing.T) {
	var all, apart, together Tally
	for i, d := range tallied() {
		all.Add(d)
		d.Maintenance = Instant(i + 1)
		apart.Add(d)
		d.Maintenance = 0
		together.Add(d)
	}
	if sums, want := apart.InService(1000), together.InService(1000); !reflect.DeepEqual(sums, want) {
		t.Errorf("summed up\n%+v, want\n%+v", sums, want)
	}
	for _, d := range tallied() {
		all.Remove(d)
	}
	v := reflect.ValueOf(all)
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Map && f.Len() > 0 || f.Kind() != reflect.Map && !f.IsZero() {
			t.Errorf("%s is %v without devices", v.Type().Field(i).Name, f)
		}
	}
}
