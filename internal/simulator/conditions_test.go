// SPDX-License-Identifier: Apache-2.0

package simulator

import "testing"

// TestConditions checks the responses of the API for each condition.
func TestConditions(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*State)
		target string
		want   string
	}{
		{
			"deactivated", func(st *State) { st.Device(1).Deactivate(st.Now()) },
			"/v7/device(1)?$select=is_active,overall_status", `{"is_active":false,"overall_status":"inactive"}`,
		},
		{
			"frozen", func(st *State) { st.FreezeOrganization(1, true) },
			"/v7/device(1)?$select=is_frozen,overall_status", `{"is_frozen":true,"overall_status":"disconnected"}`,
		},
		{
			"frozen organization", func(st *State) { st.FreezeOrganization(1, true) },
			"/v7/organization(1)?$select=is_frozen", `{"is_frozen":true}`,
		},
		{
			"unfrozen", func(st *State) { st.FreezeOrganization(1, true); st.FreezeOrganization(1, false) },
			"/v7/device(1)?$select=is_frozen", `{"is_frozen":false}`,
		},
		{
			"a running OS update", func(st *State) { st.Device(1).UpdateOS(OSUpdateRunning) },
			"/v7/device(1)?$select=overall_status,overall_progress", `{"overall_status":"configuring","overall_progress":50}`,
		},
		{
			"a failed OS update", func(st *State) { st.Device(1).UpdateOS(OSUpdateFailed) },
			"/v7/device(1)?$select=provisioning_state,provisioning_progress", `{"provisioning_state":"OS update failed","provisioning_progress":100}`,
		},
		{
			"a finished OS update", func(st *State) { st.Device(1).UpdateOS("") },
			"/v7/device(1)?$select=provisioning_state,provisioning_progress", `{"provisioning_state":null,"provisioning_progress":null}`,
		},
		{
			"services that do not start", func(st *State) { st.SetServices(1, "Downloaded") },
			"/v7/image_install?$select=status&$filter=device%20eq%201", `{"status":"Downloaded"}`,
		},
		{
			"a tag", func(st *State) { st.SetDeviceTag(1, "k", "a"); st.SetDeviceTag(1, "k", "b") },
			"/v7/device_tag?$select=value&$filter=tag_key%20eq%20'k'", `{"value":"b"}`,
		},
		{
			"a removed tag", func(st *State) { st.SetDeviceTag(1, "k", "a"); st.RemoveDeviceTag(1, "k") },
			"/v7/device_tag?$select=value&$filter=tag_key%20eq%20'k'", ``,
		},
		{
			"a fleet tag", func(st *State) { st.SetFleetTag(1, "k", "a"); st.SetFleetTag(1, "k", "b") },
			"/v7/application_tag?$select=value&$filter=tag_key%20eq%20'k'", `{"value":"b"}`,
		},
		{
			"a removed fleet tag", func(st *State) { st.SetFleetTag(1, "k", "a"); st.RemoveFleetTag(1, "k") },
			"/v7/application_tag?$select=value&$filter=tag_key%20eq%20'k'", ``,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			sim, srv := newSimulator(t, Config{Fleets: 1, Edition: Cloud}, nil)
			sim.Update(func(st *State) {
				st.AddDevice(Device{Row: Row{ID: 1}, FleetID: 1}).Connect(st.Now())
				target := st.Fleet(1).TargetReleaseID
				st.Installs.Add(Install{DeviceID: 1, ImageID: 1, ReleaseID: target, Status: "Running"})
			})
			sim.Update(test.change)
			if _, body := get(t, srv, test.target); body != `{"d":[`+test.want+`]}` {
				t.Errorf("got %s, want %s", body, test.want)
			}
		})
	}
}

// TestReconnect checks that a reconnect changes last_connectivity_event.
func TestReconnect(t *testing.T) {
	sim, srv := newSimulator(t, Config{Fleets: 1}, nil)
	event := func() (body string) {
		_, body = get(t, srv, "/v7/device(1)?$select=is_online,last_connectivity_event")
		return body
	}
	sim.Update(func(st *State) {
		st.AddDevice(Device{Row: Row{ID: 1}, FleetID: 1}).Connect(st.Now() - 1000)
	})
	before := event()
	sim.Update(func(st *State) { st.Device(1).Reconnect(st.Now()) })
	if after := event(); before == after || after[:len(`{"d":[{"is_online":true`)] != `{"d":[{"is_online":true` {
		t.Errorf("the event changed from %s to %s", before, after)
	}
}

// TestGeneratedConditions checks that a generated account has devices in all conditions, before and after ticks.
func TestGeneratedConditions(t *testing.T) {
	for _, edition := range []Edition{OpenBalena, Cloud} {
		sim, srv := newSimulator(t, Config{Devices: 600, Fleets: 24, Seed: 1, Edition: edition}, nil)
		conditions := []string{
			"device_tag/$count?$filter=tag_key%20eq%20'" + MaintenanceTag + "'",
			"application_tag/$count?$filter=tag_key%20eq%20'" + MaintenanceTag + "'",
			"device/$count?$filter=provisioning_state%20eq%20'OS%20update%20failed'",
			"image_install/$count?$filter=status%20in%20('Downloaded','Installed','Stopped')",
			"release/$count?$filter=is_invalidated%20eq%20true",
		}
		if edition == Cloud {
			conditions = append(conditions,
				"organization/$count?$filter=is_frozen%20eq%20true", "organization/$count?$filter=has_past_due_invoice_since__date%20ne%20null",
				"device/$count?$filter=is_frozen%20eq%20true", "device/$count?$filter=is_active%20eq%20false")
		}
		for ticks := range 2 {
			for _, condition := range conditions {
				if _, body := get(t, srv, "/v7/"+condition); body == `{"d":0}` {
					t.Errorf("%s: after %d ticks no row matches %s", edition, 100*ticks, condition)
				}
			}
			for range 100 {
				sim.Tick()
			}
		}
	}
}
