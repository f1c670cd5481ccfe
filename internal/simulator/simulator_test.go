// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// testClock is a clock that only tests advance.
type testClock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *testClock {
	return &testClock{t: time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)}
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// newSimulator returns a simulator and its server. fill adds data, if it is not nil.
func newSimulator(t *testing.T, cfg Config, fill func(*State)) (*Simulator, *httptest.Server) {
	t.Helper()
	if cfg.Now == nil {
		cfg.Now = newClock().now
	}
	sim, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if fill != nil {
		sim.Update(fill)
	}
	srv := httptest.NewServer(sim)
	t.Cleanup(srv.Close)
	return sim, srv
}

// get sends a request and returns the status and the body.
func get(t *testing.T, srv *httptest.Server, target string) (int, string) {
	t.Helper()
	res := do(t, srv, http.MethodGet, target, "")
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func do(t *testing.T, srv *httptest.Server, method, target, body string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, srv.URL+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer token")
	res, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

// smallAccount adds two fleets, two releases and four devices:
//
//	1 online, on target release     3 offline, not on target release
//	2 online, pinned to release 1   4 in the other fleet, never connected
func smallAccount(st *State) {
	org := st.Organizations.Add(Organization{Name: `O "quoted"`, Handle: "org"}).ID
	nuc := st.DeviceTypes.Add(DeviceType{Slug: "nuc", Name: "NUC"}).ID
	one := st.AddFleet(Fleet{AppName: "one", OrganizationID: org, DeviceTypeID: nuc})
	st.AddFleet(Fleet{AppName: "two\nlines", Slug: "org/two", OrganizationID: org, DeviceTypeID: nuc, IsPublic: true})
	st.NewRelease(one.ID, "1.0.0")
	one.TargetReleaseID = st.NewRelease(one.ID, "2.0.0").ID
	t := st.Now()
	st.AddDevice(Device{FleetID: 1, Name: "a", RunningReleaseID: 2, CPUTemp: N(50)}).Connect(t - 3*hour)
	st.AddDevice(Device{FleetID: 1, Name: "O'Brien & co", RunningReleaseID: 1, PinnedReleaseID: 1, CPUTemp: N(0)}).Connect(t - hour/2)
	d := st.AddDevice(Device{FleetID: 1, Name: "größe ☃", RunningReleaseID: 1})
	d.Connect(t - 10*day)
	d.Disconnect(t - 2*day)
	st.AddDevice(Device{FleetID: 2, Name: "d"})
	st.Services.Add(Service{FleetID: 1, Name: "main"})
	st.Images.Add(Image{ServiceID: 1, ReleaseID: 2})
	st.Installs.Add(Install{DeviceID: 1, ImageID: 1, ReleaseID: 2, Status: "Running"})
	st.DeviceTags.Add(DeviceTag{DeviceID: 1, Key: "site", Value: "x"})
	st.ReleaseTags.Add(ReleaseTag{ReleaseID: 2, Key: "by", Value: "me"})
}

func TestQueries(t *testing.T) {
	_, srv := newSimulator(t, Config{}, smallAccount)
	for _, test := range []struct{ query, want string }{
		// Conditions on single fields.
		{"device?$select=id&$filter=id%20gt%202&$orderby=id%20asc", `[{"id":3},{"id":4}]`},
		{"device?$select=id&$filter=id%20ge%202%20and%20id%20lt%204%20and%20id%20ne%203&$orderby=id%20asc", `[{"id":2}]`},
		{"device?$select=id&$filter=id%20le%201%20or%20id%20eq%204&$orderby=id%20asc", `[{"id":1},{"id":4}]`},
		{"device?$select=id&$filter=not(id%20in%20(1,2,3))", `[{"id":4}]`},
		{"device?$select=id&$filter=id%20in%20(4,%201,9,4)&$orderby=id%20asc", `[{"id":1},{"id":4}]`},
		{"device?$select=id&$filter=device_name%20eq%20'O''Brien%20%26%20co'", `[{"id":2}]`},
		{"device?$select=id&$filter=device_name%20eq%20'O''Brien+%26+co'", `[]`},
		{"device?$select=id&$filter=startswith(device_name,'gr%C3%B6')", `[{"id":3}]`},
		{"device?$select=id&$filter=endswith(device_name,'%E2%98%83')", `[{"id":3}]`},
		// A quote may be written as %27, including doubled quotes and mixed quotes.
		{"device?$select=id&$filter=device_name%20eq%20%27a%27", `[{"id":1}]`},
		{"device?$select=id&$filter=device_name%20eq%20%27O%27%27Brien%20%26%20co%27", `[{"id":2}]`},
		{"device?$select=id&$filter=device_name%20eq%20'O%27'Brien%20%26%20co%27", `[{"id":2}]`},
		{"application(slug=%27org%2Ftwo%27)?$select=id", `[{"id":2}]`},
		{"release(belongs_to__application=1,raw_version='2.0.0')?$select=id", `[{"id":2}]`},
		{"release(belongs_to__application=2,raw_version='2.0.0')?$select=id", `[]`},
		{"device?$select=id&$filter=last_connectivity_event%20ge%20datetime%272027-03-01T11%3A30%3A00.000Z%27", `[{"id":2}]`},
		// A date may be a string.
		{"device?$select=id&$filter=last_connectivity_event%20ge%20'2027-03-01T11%3A30%3A00.000Z'", `[{"id":2}]`},
		{"device?$select=id&$filter='2027-03-01T11:30:00.000Z'%20le%20last_connectivity_event", `[{"id":2}]`},
		{"device?$select=id&$filter=last_connectivity_event%20in%20('2027-03-01T11:30:00.000Z')", `[{"id":2}]`},
		{"device?$select=id&$filter=contains(device_name,'☃')", `[{"id":3}]`},
		{"device?$select=id&$filter=is_online%20and+not(id+eq+1)", `[{"id":2}]`},
		// The operator "and" binds before "or".
		{"device?$select=id&$filter=id%20eq%201%20or%20id%20eq%202%20and%20is_online%20eq%20false", `[{"id":1}]`},
		{"device?$select=id&$filter=(id%20eq%201%20or%20id%20eq%202)%20and%20is_online%20eq%20false", `[]`},
		// eq and ne match null. Other operators do not match null, even if negated.
		{"device/$count?$filter=cpu_temp%20eq%20null", `2`},
		{"device/$count?$filter=cpu_temp%20ne%20null", `2`},
		{"device/$count?$filter=cpu_temp%20ne%2050", `3`},
		{"device/$count?$filter=cpu_temp%20lt%20100", `2`},
		{"device/$count?$filter=not(cpu_temp%20lt%20100)", `0`},
		{"device/$count?$filter=cpu_temp%20in%20(0,1)", `1`},
		{"device/$count?$filter=not(cpu_temp%20in%20(0,1))", `1`},
		// Comparisons of fields, dates, durations, arithmetic.
		{"device?$select=id&$filter=is_running__release%20ne%20should_be_running__release&$orderby=id%20asc", `[{"id":3}]`},
		{"device?$select=id&$filter=last_connectivity_event%20gt%20now()%20sub%20duration'PT1H'", `[{"id":2}]`},
		{"device?$select=id&$filter=last_connectivity_event%20lt%20now()%20sub%20duration'P1D'", `[{"id":3}]`},
		{"device?$select=id&$filter=last_connectivity_event%20ge%20datetime'2027-03-01T11:30:00.000Z'", `[{"id":2}]`},
		{"device?$select=id&$filter=id%20mul%202%20eq%208", `[{"id":4}]`},
		// Other resources.
		{"device?$select=id&$filter=belongs_to__application/any(a:a/slug%20eq%20'org/two')", `[{"id":4}]`},
		{"device?$select=id&$filter=image_install/any(i:i/installs__image/any(m:m/is_a_build_of__service/any(s:s/service_name%20eq%20'main')))", `[{"id":1}]`},
		{"device?$select=id&$filter=device_tag/any(t:t/tag_key%20eq%20'site'%20and%20t/value%20eq%20'x')", `[{"id":1}]`},
		{"device?$select=id&$filter=not(device_tag/any(t:t/tag_key%20eq%20'site'))&$orderby=id%20asc&$top=1", `[{"id":2}]`},
		{"device?$select=id&$filter=belongs_to__application/any(a:a/is_directly_accessible_by__user/any(dau:1%20eq%201))%20and%20id%20gt%202&$orderby=id%20asc", `[{"id":3},{"id":4}]`},
		{"device?$select=id&$filter=belongs_to__application%20in%20(1)%20and%20id%20gt%201&$orderby=id%20asc&$top=1", `[{"id":2}]`},
		{"application?$select=id&$filter=owns__device/$count%20gt%201", `[{"id":1}]`},
		// The default direction is descending. null is the highest value.
		{"device?$select=id&$orderby=id", `[{"id":4},{"id":3},{"id":2},{"id":1}]`},
		{"device?$select=id&$filter=id%20gt%201&$orderby=id%20desc&$top=2", `[{"id":4},{"id":3}]`},
		{"device?$select=id&$filter=id%20gt%201%20and%20id%20le%203&$orderby=id%20desc&$skip=1&$top=2", `[{"id":2}]`},
		{"device?$select=id&$filter=id%20in%20(4,1,2)&$orderby=id%20desc&$top=2", `[{"id":4},{"id":2}]`},
		{"device?$select=id&$orderby=cpu_temp%20asc,id%20desc", `[{"id":2},{"id":1},{"id":4},{"id":3}]`},
		{"device?$select=id&$orderby=cpu_temp%20desc,id%20asc&$top=1", `[{"id":3}]`},
		{"application?$select=id&$orderby=owns__device/$count%20asc", `[{"id":2},{"id":1}]`},
		{"device?$select=id&$orderby=id%20asc&$skip=1&$top=2", `[{"id":2},{"id":3}]`},
		{"device?$select=id&$orderby=id%20asc&$skip=9", `[]`},
		{"device?$select=id&$top=0", `[]`},
		// Single rows.
		{"device(2)?$select=id", `[{"id":2}]`},
		{"device(2)?$select=id&$filter=is_online%20eq%20false", `[]`},
		{"device(9)", `[]`},
		{"application(slug='org%2Ftwo')?$select=id", `[{"id":2}]`},
		{"application(1)/owns__device/$count", `3`},
		// Expanding.
		{
			"application?$select=id&$expand=owns__device/$count($filter=is_online%20eq%20true),organization($select=name)&$orderby=id%20asc",
			`[{"owns__device":2,"organization":[{"name":"O \"quoted\""}],"id":1},{"owns__device":0,"organization":[{"name":"O \"quoted\""}],"id":2}]`,
		},
		{"application(1)?$select=id&$expand=owns__device/$count,owns__device/$count($filter=is_online%20eq%20false)", `[{"owns__device":1,"id":1}]`},
		{"application(1)?$select=id&$expand=owns__device($select=id;$filter=is_online%20eq%20true;$orderby=id%20desc;$top=1)", `[{"owns__device":[{"id":2}],"id":1}]`},
		{
			"application(1)?$select=app_name,should_be_running__release&$expand=should_be_running__release($select=raw_version)",
			`[{"should_be_running__release":[{"raw_version":"2.0.0"}],"app_name":"one"}]`,
		},
		{
			"application(2)?$select=app_name,should_be_running__release&$expand=is_for__device_type($select=slug)",
			`[{"is_for__device_type":[{"slug":"nuc"}],"app_name":"two\nlines","should_be_running__release":null}]`,
		},
		{"device(4)?$select=id&$expand=is_running__release", `[{"is_running__release":[],"id":4}]`},
		{"application(1)?$select=id&$expand=service($select=service_name)", `[{"service":[{"service_name":"main"}],"id":1}]`},
		{
			"release(2)?$select=composition&$expand=release_image($select=id;$expand=image($select=id;$expand=is_a_build_of__service($select=service_name)))",
			`[{"release_image":[{"image":[{"is_a_build_of__service":[{"service_name":"main"}],"id":1}],"id":1}],"composition":{"version":"2.1","services":{"main":{}}}}]`,
		},
		{"release?$select=id&$expand=release_tag($select=value)&$orderby=id%20asc", `[{"release_tag":[],"id":1},{"release_tag":[{"value":"me"}],"id":2}]`},
		{"release_tag?$filter=release/any(r:r/belongs_to__application%20eq%201)&$select=tag_key", `[{"tag_key":"by"}]`},
		{"release?$select=id&$filter=should_be_running_on__device/any(d:d/id%20eq%203)", `[{"id":2}]`},
		{"device_type?$select=id&$filter=device_type_alias/any(a:a/is_referenced_by__alias%20eq%20'nuc')", `[{"id":8}]`},
		{"release(2)?$select=semver_major,revision,version", `[{"semver_major":2,"revision":0,"version":{"raw":"2.0.0","build":[],"major":2,"minor":0,"patch":0,"version":"2.0.0","prerelease":[]}}]`},
		// Computed fields.
		{
			"device?$select=overall_status,should_be_running__release,last_vpn_event&$orderby=id%20asc&$top=3",
			`[{"overall_status":"operational","should_be_running__release":{"__id":2},"last_vpn_event":"2027-03-01T09:00:00.000Z"},` +
				`{"overall_status":"operational","should_be_running__release":{"__id":1},"last_vpn_event":"2027-03-01T11:30:00.000Z"},` +
				`{"overall_status":"disconnected","should_be_running__release":{"__id":2},"last_vpn_event":"2027-02-27T12:00:00.000Z"}]`,
		},
	} {
		t.Run(test.query, func(t *testing.T) {
			status, body := get(t, srv, "/v7/"+test.query)
			if want := `{"d":` + strings.ReplaceAll(test.want, "\n", `\n`) + `}`; status != 200 || body != want {
				t.Errorf("got %d %s\nwant 200 %s", status, body, want)
			}
		})
	}
}

// TestManyRows checks that conditions on many rows have the same results as conditions on single rows.
func TestManyRows(t *testing.T) {
	_, srv := newSimulator(t, Config{Devices: 3 * manyRows, Fleets: 3, Seed: 1}, nil)
	for _, condition := range []string{
		"image_install/any(i:i/status%20eq%20'exited')",
		"id%20eq%207%20or%20image_install/any(i:i/status%20eq%20'exited'%20and%20i/id%20gt%20100)",
		"not(device_tag/any(t:t/tag_key%20eq%20'site'))",
		"device_tag/any(t:t/tag_key%20eq%20'owner'%20and%20id%20gt%20150)",
		"device_tag/any(id:id%20gt%20150)",
		"image_install/any(i:i/installs__image/any(m:m/is_a_build_of__service/any(s:s/service_name%20eq%20'telemetry')))",
	} {
		var one []string
		for id := 1; id <= 3*manyRows; id++ {
			if _, body := get(t, srv, fmt.Sprintf("/v7/device(%d)?$select=id&$filter=%s", id, condition)); body != `{"d":[]}` {
				one = append(one, fmt.Sprintf(`{"id":%d}`, id))
			}
		}
		want := `{"d":[` + strings.Join(one, ",") + `]}`
		if _, body := get(t, srv, "/v7/device?$select=id&$orderby=id%20asc&$filter="+condition); body != want || len(one) == 0 {
			t.Errorf("%s: the result is %s, but for single rows %s", condition, body, want)
		}
	}
}

func TestInvalidQueries(t *testing.T) {
	_, srv := newSimulator(t, Config{}, smallAccount)
	malformed := func(target string) string { return fmt.Sprintf("%q", "Malformed url: '"+target+"'") }
	for _, test := range []struct {
		target string
		status int
		body   string
	}{
		{target: "/v7/device?$select=nope", status: 500},
		{target: "/v7/device?$filter=nope%20eq%201", status: 500},
		{target: "/v7/device?$expand=nope", status: 500},
		{target: "/v7/device?$orderby=nope%20asc", status: 500},
		{target: "/v7/device?$select=id,is_frozen", status: 500},
		{target: "/v7/device?$select=logs_channel", status: 500},
		{target: "/v6/device?$select=is_pinned_on__release", status: 500},
		{target: "/v6/device?$select=id&$expand=is_pinned_on__release($select=id)", status: 500},
		{target: "/v7/device?$filter=is_online%20eq%20True", status: 500},
		{target: "/v7/device?$filter=id%20eq%20'1'", status: 500},
		{target: "/v7/device?$filter=modified_at%20gt%20'yesterday'", status: 500},
		{target: "/v7/device?$filter=device_name%20eq%20%27a", status: 500},
		{target: "/v7/image_install?$select=image", status: 500},
		{target: "/v7/organization?$select=is_frozen", status: 500},
		{target: "/v7/device?$filter=device_name%20eq%201", status: 500},
		{target: "/v7/device?$filter=id%20gt%202147483648", status: 500},
		{target: "/v7/device(2147483648)", status: 500},
		{target: "/v7/device?$filter=id%20mod%202%20eq%200", status: 500},
		{target: "/v7/device?$filter=device_name%20eq%20'a", status: 500},
		{target: "/v7/device?$filter=id", status: 200, body: `{"d":[]}`},
		{target: "/v7/devices", status: 401},
		{target: "/v8/device", status: 404},
		{target: "/v7/device?$filter=id%20in%20()", status: 400},
		{target: "/v7/device?$filter=(id%20eq%201", status: 400},
		{target: "/v7/device?$filter=id%20eq", status: 400},
		{target: "/v7/device?$filter=id%20eq%201)", status: 400},
		{target: "/v7/device?$filter=ideq1%20", status: 400},
		{target: "/v7/device?$filter=id%20eq%201%2C2", status: 400},
		{target: "/v7/device?$filter=id%20in%20(1%2C2)", status: 400},
		{target: "/v7/device?$filter=startswith%28uuid,'a'%29", status: 400},
		{target: "/v7/device?$orderby=id%3Aasc", status: 400},
		{target: "/v7/application?$expand=owns__device($select%3Did)", status: 400},
		{target: "/v7/application?$expand=owns__device(%24select=id)", status: 400},
		{target: "/v7/application?$expand=owns__device($select=id%3B$top=1)", status: 400},
		{target: "/v7/device?$select=", status: 400},
		{target: "/v7/device?$top=x", status: 400},
	} {
		t.Run(test.target, func(t *testing.T) {
			want := test.body
			if test.status == 400 {
				want = malformed(test.target)
			}
			if status, body := get(t, srv, test.target); status != test.status || body != want {
				t.Errorf("got %d %q, want %d %q", status, body, test.status, want)
			}
		})
	}
}

func TestStatusOfDevices(t *testing.T) {
	at := At(newClock().now())
	for _, test := range []struct {
		name   string
		device Device
		change func(st *State)
		v7, v6 string
	}{
		{name: "never connected", v7: "configuring", v6: "configuring"},
		{name: "provisioning", device: Device{ProvisioningState: "Post-Provisioning"}, v7: "post-provisioning", v6: "post-provisioning"},
		{name: "connected", change: func(st *State) { st.Device(1).Connect(at) }, v7: "operational", v6: "idle"},
		{name: "disconnected", change: func(st *State) { st.Device(1).Connect(at); st.Device(1).Disconnect(at) }, v7: "disconnected", v6: "offline"},
		{name: "late heartbeat", change: func(st *State) { st.Device(1).Connect(at); st.Device(1).HeartbeatState = "timeout" }, v7: "reduced-functionality", v6: "idle"},
		{name: "no VPN", change: func(st *State) { st.Device(1).Connect(at); st.Device(1).IsConnectedToVPN = false }, v7: "reduced-functionality", v6: "idle"},
		{name: "VPN disabled", device: Device{IsVPNDisabled: true}, change: func(st *State) { st.Device(1).Connect(at) }, v7: "operational", v6: "idle"},
		{name: "downloading", change: func(st *State) {
			st.Device(1).Connect(at)
			st.Installs.Add(Install{DeviceID: 1, Status: "Downloading", DownloadProgress: N(20)})
		}, v7: "updating", v6: "updating"},
		{name: "downloading without a heartbeat", change: func(st *State) {
			st.Device(1).Connect(at)
			st.Device(1).HeartbeatState = "offline"
			st.Installs.Add(Install{DeviceID: 1, Status: "Downloading", DownloadProgress: N(20)})
		}, v7: "reduced-functionality", v6: "updating"},
		{name: "inactive", device: Device{IsInactive: true}, v7: "inactive", v6: "inactive"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, srv := newSimulator(t, Config{CloudFields: true}, func(st *State) {
				st.AddFleet(Fleet{AppName: "one"})
				d := test.device
				d.FleetID = 1
				st.AddDevice(d)
				if test.change != nil {
					test.change(st)
				}
			})
			for version, want := range map[string]string{"v7": test.v7, "v6": test.v6} {
				if _, body := get(t, srv, "/"+version+"/device?$select=overall_status"); body != `{"d":[{"overall_status":"`+want+`"}]}` {
					t.Errorf("the status in %s is %s, want %s", version, body, want)
				}
			}
		})
	}
}

func TestOnlyChangedRowsAreModified(t *testing.T) {
	clock := newClock()
	sim, srv := newSimulator(t, Config{Now: clock.now}, smallAccount)
	changed := func(resource string, since time.Time) string {
		_, body := get(t, srv, "/v7/"+resource+"?$select=id&$orderby=id%20asc&$filter=modified_at%20ge%20datetime'"+since.UTC().Format(time.RFC3339)+"'")
		return body
	}
	for _, test := range []struct {
		name     string
		change   func(*State)
		resource string
		want     string
	}{
		{"a device", func(st *State) { st.Device(2).Name = "x" }, "device", `[{"id":2}]`},
		{"no change", func(st *State) { st.Device(2).Name = "x"; st.Devices.All() }, "device", `[]`},
		{"a move", func(st *State) { st.Device(3).FleetID = 2 }, "device", `[{"id":3}]`},
		{"an install, not its device", func(st *State) { st.InstallsOf(1)[0].Status = "exited" }, "device", `[]`},
		{"an install", func(st *State) { st.InstallsOf(1)[0].Status = "Running" }, "image_install", `[{"id":1}]`},
		{"a target, not the devices", func(st *State) { st.Fleet(1).TargetReleaseID = 1 }, "device", `[]`},
		{"a fleet", func(st *State) { st.RenameFleet(1, "other") }, "application", `[{"id":1}]`},
		{"a new device", func(st *State) { st.AddDevice(Device{FleetID: 1}) }, "device", `[{"id":5}]`},
		{"a late commit", func(st *State) { st.Device(1).Name = "late"; st.Device(1).ModifiedAt = At(clock.now()) - 2*hour }, "device", `[]`},
		{"a deletion", func(st *State) { st.DeleteDevice(1) }, "device", `[]`},
	} {
		t.Run(test.name, func(t *testing.T) {
			clock.advance(time.Hour)
			sim.Update(test.change)
			if got, want := changed(test.resource, clock.now()), `{"d":`+test.want+`}`; got != want {
				t.Errorf("changed: %s, want %s", got, want)
			}
		})
	}
	for target, want := range map[string]string{
		"device/$count":        `{"d":4}`,
		"image_install/$count": `{"d":0}`,
		"device_tag/$count":    `{"d":0}`,
		"application(1)?$select=slug&$expand=owns__device/$count": `{"d":[{"owns__device":2,"slug":"org/other"}]}`,
		"device(2)?$select=should_be_running__release":            `{"d":[{"should_be_running__release":{"__id":1}}]}`,
	} {
		if _, got := get(t, srv, "/v7/"+target); got != want {
			t.Errorf("%s is %s, want %s", target, got, want)
		}
	}
	// Ids are not reused.
	sim.Update(func(st *State) {
		st.DeleteDevice(5)
		if d := st.AddDevice(Device{FleetID: 1}); d.ID != 6 {
			t.Errorf("the id of a new device is %d, want 6", d.ID)
		}
		st.DeleteFleet(1)
	})
	if _, got := get(t, srv, "/v7/device?$select=id&$orderby=id%20asc"); got != `{"d":[{"id":3},{"id":4}]}` {
		t.Errorf("the devices after a fleet was deleted are %s", got)
	}
}

// TestCountsOfMovedRows checks the counts of devices after a device moved to another fleet.
func TestCountsOfMovedRows(t *testing.T) {
	sim, srv := newSimulator(t, Config{}, smallAccount)
	count := func(want string) {
		t.Helper()
		if _, got := get(t, srv, "/v7/application?$select=id&$expand=owns__device/$count&$orderby=id%20asc"); got != `{"d":[`+want+`]}` {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	count(`{"owns__device":3,"id":1},{"owns__device":1,"id":2}`)
	sim.Update(func(st *State) { st.Device(3).FleetID = 2 })
	count(`{"owns__device":2,"id":1},{"owns__device":2,"id":2}`)
	sim.Update(func(st *State) { st.Device(1).Name = "x" })
	count(`{"owns__device":2,"id":1},{"owns__device":2,"id":2}`)
	sim.Update(func(st *State) { st.DeleteDevice(1) })
	count(`{"owns__device":1,"id":1},{"owns__device":2,"id":2}`)
}

// TestLongTransactions checks that modified_at of rows is the time when the transaction began.
func TestLongTransactions(t *testing.T) {
	clock := newClock()
	sim, srv := newSimulator(t, Config{Now: clock.now}, smallAccount)
	began := clock.now().Add(time.Minute)
	clock.advance(2 * time.Minute)
	sim.Update(func(st *State) { st.Device(1).Name = "quick" })
	sim.UpdateSince(began, func(st *State) {
		st.Device(2).Name = "slow"
		if d := st.AddDevice(Device{FleetID: 2}); d.CreatedAt != At(began) || st.Now() != At(began) {
			t.Errorf("created_at is %v, want %v, when the transaction began", d.CreatedAt, began)
		}
	})
	since := func(at time.Time) string {
		_, got := get(t, srv, "/v7/device?$select=id&$orderby=id%20asc&$filter=modified_at%20gt%20"+instant(at))
		return got
	}
	if got := since(began); got != `{"d":[{"id":1}]}` {
		t.Errorf("the changes since the transaction began are %s", got)
	}
	if got := since(began.Add(-time.Millisecond)); got != `{"d":[{"id":1},{"id":2},{"id":5}]}` {
		t.Errorf("the changes since before the transaction are %s", got)
	}
}

// TestQueriesForChanges sends requests of incremental refreshes.
func TestQueriesForChanges(t *testing.T) {
	clock := newClock()
	sim, srv := newSimulator(t, Config{Now: clock.now}, smallAccount)
	since := clock.now()
	clock.advance(time.Minute)
	sim.Update(func(st *State) {
		st.Device(2).Name = "renamed"
		st.InstallsOf(1)[0].DownloadProgress = N(1)
		st.AddDevice(Device{FleetID: 2})
		st.DeviceTags.Add(DeviceTag{DeviceID: 5, Key: "site", Value: "y"})
		st.Installs.Add(Install{DeviceID: 5, ImageID: 1, ReleaseID: 2, Status: "deleted"})
	})
	const access = "belongs_to__application/any(a:a/is_directly_accessible_by__user/any(dau:1 eq 1))"
	// modified is the condition for rows that changed after since.
	modified := "modified_at gt datetime'" + since.Format("2006-01-02T15:04:05.000Z07:00") + "'"
	changed := "(" + modified + " or image_install/any(i:i/" + modified + "))"
	for _, version := range []string{"v6", "v7"} {
		for _, test := range []struct{ query, want string }{
			{"device?$select=id&$filter=" + access + " and " + changed + " and id gt 0&$orderby=id asc&$top=2", `[{"id":1},{"id":2}]`},
			{"device?$select=id&$filter=" + access + " and " + changed + " and id gt 2&$orderby=id asc&$top=2", `[{"id":5}]`},
			{"device?$select=id&$filter=" + access + " and " + modified + " and id gt 0&$orderby=id asc", `[{"id":2},{"id":5}]`},
			{"device?$select=id&$filter=belongs_to__application in (1) and " + changed + " and id gt 0&$orderby=id asc", `[{"id":1},{"id":2}]`},
			{"device?$select=id&$filter=belongs_to__application in (1,2) and id gt 2&$orderby=id asc&$top=1000", `[{"id":3},{"id":4},{"id":5}]`},
			{"device/$count?$filter=" + access + " and " + changed, `3`},
			{"device/$count?$filter=belongs_to__application in (2,7)", `2`},
			{"image_install?$select=id&$filter=" + modified + " and id gt 0&$orderby=id asc", `[{"id":1},{"id":2}]`},
			{"image_install?$select=id&$filter=status ne 'deleted' and " + modified + " and id gt 0&$orderby=id asc", `[{"id":1}]`},
			{"image_install?$select=id&$filter=device in (1,2) and id gt 0&$orderby=id asc", `[{"id":1}]`},
			{"image_install/$count?$filter=device/any(d:d/belongs_to__application in (2)) and " + modified, `1`},
			{"image_install/$count?$filter=status ne 'deleted'", `1`},
			{"image_install/$count", `2`},
			{"device_tag?$select=id&$filter=tag_key in ('site') and " + modified + " and id gt 0&$orderby=id asc", `[{"id":2}]`},
			{"device_tag?$select=id&$filter=device in (1,2) and id gt 0&$orderby=id asc", `[{"id":1}]`},
			{"device_tag?$select=id&$filter=device/any(d:d/belongs_to__application in (1,2))&$orderby=id asc", `[{"id":1},{"id":2}]`},
			{"device_tag/$count?$filter=device/any(d:d/belongs_to__application in (1))", `1`},
			{"device_tag/$count?$filter=tag_key in ('site','owner') and " + modified, `1`},
		} {
			target := "/" + version + "/" + strings.ReplaceAll(test.query, " ", "%20")
			if status, body := get(t, srv, target); body != `{"d":`+test.want+`}` {
				t.Errorf("%s: %d %s, want %s", target, status, body, test.want)
			}
		}
	}
}

// TestModifiedAtWithoutChanges checks servers whose modified_at does not show changes.
func TestModifiedAtWithoutChanges(t *testing.T) {
	for _, test := range []struct {
		name       string
		config     Config
		gt, ge     string // devices whose modified_at is after the start, or not before it
		modifiedAt string // of device 1
	}{
		{"default", Config{}, `[{"id":1},{"id":5}]`, `[{"id":1},{"id":2},{"id":3},{"id":4},{"id":5}]`, `"2027-03-01T12:01:00.000Z"`},
		{"null", Config{ModifiedAtIsNull: true}, `[]`, `[]`, `null`},
		{"constant", Config{ModifiedAtIsConstant: true}, `[{"id":5}]`, `[{"id":1},{"id":2},{"id":3},{"id":4},{"id":5}]`, `"2027-03-01T12:00:00.000Z"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			clock := newClock()
			test.config.Now = clock.now
			sim, srv := newSimulator(t, test.config, smallAccount)
			clock.advance(time.Minute)
			sim.Update(func(st *State) {
				st.Device(1).Name = "renamed"
				st.AddDevice(Device{FleetID: 1})
			})
			for target, want := range map[string]string{
				"device?$select=id&$orderby=id%20asc&$filter=modified_at%20gt%20datetime'2027-03-01T12:00:00.000Z'":      test.gt,
				"device?$select=id&$orderby=id%20asc&$filter=modified_at%20ge%20datetime'2027-03-01T12:00:00.000Z'":      test.ge,
				"device?$select=id&$orderby=id%20asc&$filter=not(modified_at%20lt%20datetime'2027-03-01T12:00:00.000Z')": test.ge,
				"device(1)?$select=modified_at": `[{"modified_at":` + test.modifiedAt + `}]`,
			} {
				if _, body := get(t, srv, "/v7/"+target); body != `{"d":`+want+`}` {
					t.Errorf("%s: %s, want %s", target, body, want)
				}
			}
		})
	}
}

// TestDate checks that the header Date is the time of the clock of the server.
func TestDate(t *testing.T) {
	clock := newClock()
	sim, srv := newSimulator(t, Config{Now: clock.now, Tokens: []string{"token"}}, smallAccount)
	sim.SetFaults(Faults{{Resource: "release", Status: 429}, {Resource: "api_key", Spoil: SpoilJSON}})
	for _, want := range []string{"Mon, 01 Mar 2027 12:00:00 GMT", "Mon, 01 Mar 2027 09:00:01 GMT"} {
		for _, target := range []string{"/v7/device", "/v6/device/$count", "/v7/device?$select=nothing", "/v7/nothing", "/v5/device", "/v7/release", "/v7/api_key", "/ping"} {
			if got := do(t, srv, http.MethodGet, target, "").Header["Date"]; len(got) != 1 || got[0] != want {
				t.Errorf("%s: Date is %q, want %q", target, got, want)
			}
		}
		clock.advance(-3*time.Hour + 1900*time.Millisecond)
	}
}

// TestSparseIDs checks ids with large gaps.
func TestSparseIDs(t *testing.T) {
	_, srv := newSimulator(t, Config{}, func(st *State) {
		st.AddFleet(Fleet{Row: Row{ID: 2_000_000_000}})
		st.AddFleet(Fleet{Row: Row{ID: 5}})
		st.AddDevice(Device{Row: Row{ID: 1_999_999_999}, FleetID: 2_000_000_000})
		st.AddDevice(Device{Row: Row{ID: 3}, FleetID: 5})
		st.AddDevice(Device{FleetID: 2_000_000_000})
	})
	for target, want := range map[string]string{
		"device?$select=id&$filter=id%20gt%203&$orderby=id%20asc":               `[{"id":1999999999},{"id":2000000000}]`,
		"application?$select=id&$expand=owns__device/$count&$orderby=id%20desc": `[{"owns__device":2,"id":2000000000},{"owns__device":1,"id":5}]`,
	} {
		if _, body := get(t, srv, "/v7/"+target); body != `{"d":`+want+`}` {
			t.Errorf("%s: %s, want %s", target, body, want)
		}
	}
}

// TestOrderOfRows checks that rows are not sorted by id without $orderby, so that tests of clients fail without it.
func TestOrderOfRows(t *testing.T) {
	clock := newClock()
	sim, srv := newSimulator(t, Config{Now: clock.now}, smallAccount)
	clock.advance(time.Second)
	sim.Update(func(st *State) { st.Device(1).Name = "x" })
	if _, got := get(t, srv, "/v7/device?$select=id"); got != `{"d":[{"id":2},{"id":3},{"id":4},{"id":1}]}` {
		t.Errorf("the order is %s, want the changed row last", got)
	}
}

func TestTokens(t *testing.T) {
	sim, srv := newSimulator(t, Config{Tokens: []string{"token"}}, smallAccount)
	const fleets = "/v7/application?$select=id&$filter=is_directly_accessible_by__user/any(dau:1%20eq%201)&$orderby=id%20asc"
	if status, body := get(t, srv, fleets); status != 200 || body != `{"d":[{"id":1},{"id":2}]}` {
		t.Fatalf("with a valid token: %d %s", status, body)
	}
	sim.SetTokens("another")
	if status, body := get(t, srv, fleets); status != 401 || body != "" {
		t.Errorf("with an invalid token: %d %q, want 401 without a body", status, body)
	}
	// Without the filter, the response contains public fleets.
	if status, body := get(t, srv, "/v7/application?$select=id"); status != 200 || body != `{"d":[{"id":2}]}` {
		t.Errorf("with an invalid token and no filter: %d %s, want the public fleet", status, body)
	}
	if status, _ := get(t, srv, "/v7/application?$select=id&$expand=owns__device/$count"); status != 401 {
		t.Errorf("devices of public fleets with an invalid token: %d, want 401", status)
	}
	sim.SetTokens()
	if status, _ := get(t, srv, fleets); status != 200 {
		t.Errorf("without configured tokens: %d, want 200", status)
	}
}

func TestVersions(t *testing.T) {
	_, srv := newSimulator(t, Config{Versions: []string{"v6"}}, smallAccount)
	if status, body := get(t, srv, "/v7/device"); status != 404 || body != "" {
		t.Errorf("v7 on a server without v7: %d %q, want 404 without a body", status, body)
	}
	if _, body := get(t, srv, "/v6/device(2)?$select=actor,should_be_running__release"); body != `{"d":[{"actor":20,"should_be_running__release":{"__id":1}}]}` {
		t.Errorf("v6 returned %s", body)
	}
	if _, body := get(t, srv, "/v6/device(1)?$select=should_be_running__release"); body != `{"d":[{"should_be_running__release":null}]}` {
		t.Errorf("v6 returned %s for a device that is not pinned", body)
	}
	if _, err := New(Config{Versions: []string{"v5"}}); err == nil || !strings.Contains(err.Error(), `"v5"`) {
		t.Errorf("version v5: error %v, want one that contains the version", err)
	}
}

func TestCloudFields(t *testing.T) {
	_, srv := newSimulator(t, Config{CloudFields: true}, smallAccount)
	if status, body := get(t, srv, "/v7/device(1)?$select=is_active,is_frozen"); status != 200 || body != `{"d":[{"is_active":true,"is_frozen":false}]}` {
		t.Errorf("%d %s", status, body)
	}
}

func TestRequestsAreCounted(t *testing.T) {
	sim, srv := newSimulator(t, Config{}, smallAccount)
	for _, target := range []string{"/v7/device", "/v6/device/$count", "/v7/device?$select=nope", "/v7/application(1)", "/ping", "/user/v1/whoami", "/v5/device", "/v7/nope"} {
		get(t, srv, target)
	}
	want := map[string]int{"device": 3, "application": 1, "ping": 1, "whoami": 1, "other": 2}
	if diff := cmp.Diff(want, sim.Requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if _, body := get(t, srv, "/simulator/requests"); !strings.Contains(body, `"device":3`) {
		t.Errorf("over HTTP: %s", body)
	}
	do(t, srv, http.MethodDelete, "/simulator/requests", "")
	if got := sim.Requests(); len(got) != 0 {
		t.Errorf("after the reset: %v", got)
	}
}

func TestControl(t *testing.T) {
	sim, srv := newSimulator(t, Config{}, smallAccount)
	const faults = `[{"resource":"device","from":2,"status":429,"retry_after":"7s"},{"spoil":"nulls","latency":"1ms"}]`
	if res := do(t, srv, http.MethodPut, "/simulator/faults", faults); res.StatusCode != 204 {
		t.Fatalf("status %d, want 204", res.StatusCode)
	}
	want := Faults{
		{Resource: "device", From: 2, Status: 429, RetryAfter: Duration{7 * time.Second}},
		{Spoil: SpoilNulls, Latency: Duration{time.Millisecond}},
	}
	if diff := cmp.Diff(want, sim.Faults()); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	if _, body := get(t, srv, "/simulator/faults"); !jsonEqual(t, body, faults) {
		t.Errorf("faults %s, want %s", body, faults)
	}
	for _, bad := range []string{`[{"stattus":500}]`, `[{"status":99}]`, `[{"spoil":"milk"}]`, `[{"resource":"devices"}]`, `[{"latency":"soon"}]`, `{}`, ``} {
		if res := do(t, srv, http.MethodPut, "/simulator/faults", bad); res.StatusCode != 400 {
			t.Errorf("faults %s: status %d, want 400", bad, res.StatusCode)
		}
	}
	do(t, srv, http.MethodPut, "/simulator/faults", `[]`)
	do(t, srv, http.MethodPut, "/simulator/tokens", `["another"]`)
	if status, _ := get(t, srv, "/v7/device"); status != 401 {
		t.Errorf("with a token that is not accepted anymore: %d, want 401", status)
	}
	if status, body := get(t, srv, "/simulator/nope"); status != 404 || !strings.Contains(body, "/simulator/faults") {
		t.Errorf("unknown path: %d %s, want 404 with the known paths", status, body)
	}
}

func jsonEqual(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal([]byte(a), &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

// TestCompression checks that the body is the same with and without compression, including cached and changed bodies.
func TestCompression(t *testing.T) {
	for _, cached := range []bool{false, true} {
		sim, srv := newSimulator(t, Config{Devices: 100, Fleets: 1, CacheResponses: cached}, nil)
		for _, faults := range []Faults{nil, {{Spoil: SpoilNulls}}} {
			sim.SetFaults(faults)
			for range 2 {
				plain := srv.Client().Transport.(*http.Transport).Clone()
				plain.DisableCompression = true
				defer plain.CloseIdleConnections()
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/v7/device?$orderby=id%20asc", nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer token")
				res, err := plain.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				want, err := io.ReadAll(res.Body)
				if err != nil || res.Header.Get("Content-Encoding") != "" {
					t.Fatalf("compressed without being requested: %v, %v", res.Header, err)
				}
				got := getGzip(t, t.Context(), srv.URL+"/v7/device?$orderby=id%20asc")
				if got.header.Get("Content-Encoding") != "gzip" || got.body != string(want) || !json.Valid(want) {
					t.Errorf("the response with headers %v is not compressed, or its body differs", got.header)
				}
			}
		}
	}
}

func TestCachedResponses(t *testing.T) {
	sim, srv := newSimulator(t, Config{CacheResponses: true}, smallAccount)
	const query = "/v7/device?$select=device_name&$filter=id%20eq%201"
	for range 2 {
		if _, body := get(t, srv, query); body != `{"d":[{"device_name":"a"}]}` {
			t.Fatal(body)
		}
	}
	sim.Update(func(st *State) { st.Device(1).Name = "b" })
	if _, body := get(t, srv, query); body != `{"d":[{"device_name":"b"}]}` {
		t.Errorf("after a change: %s", body)
	}
	sim.SetTokens("another")
	if status, _ := get(t, srv, query); status != 401 {
		t.Errorf("a cached response with an invalid token: %d, want 401", status)
	}
}

// FuzzQuery searches for queries that cause panics or invalid responses.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"device?$select=id&$filter=id%20gt%200&$orderby=id%20asc&$top=1", "application(1)?$expand=owns__device/$count($filter=is_online eq true)",
		"device?$filter=image_install/any(i:i/modified_at gt datetime'2026-11-22T14:00:00.000Z')", "device/$count?$filter=not(contains(uuid,'%2F'))",
		"application(slug='a/b')/owns__device/$count", "device?$filter=id sub 1 eq now() sub duration'P1DT2H'", "device?$filter=belongs_to__application/any(a:id eq a/id)",
	} {
		f.Add(seed)
	}
	sim, err := New(Config{Now: newClock().now})
	if err != nil {
		f.Fatal(err)
	}
	sim.Update(smallAccount)
	f.Fuzz(func(t *testing.T, target string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer token")
		r.RequestURI = "/v7/" + target
		w := httptest.NewRecorder()
		sim.ServeHTTP(w, r)
		switch w.Code {
		case 200, 400:
			if !json.Valid(w.Body.Bytes()) {
				t.Errorf("%q: not JSON: %q", target, w.Body)
			}
		case 401, 431, 500:
			if w.Body.Len() > 0 {
				t.Errorf("%q: status %d with a body: %q", target, w.Code, w.Body)
			}
		default:
			t.Errorf("%q: status %d", target, w.Code)
		}
	})
}
