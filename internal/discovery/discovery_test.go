// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// account returns an account with a fleet of two devices, and a fleet of one disconnected device.
func account() *balena.Snapshot {
	tags := func(values ...string) *balena.Attachments {
		a := &balena.Attachments{}
		for i, v := range values {
			t := balena.Tag{Value: v}
			if v != "-" {
				t.ID = int64(i + 1)
			}
			a.Tags = append(a.Tags, t)
		}
		return a
	}
	return &balena.Snapshot{
		DeviceTagKeys: []string{"site", "own-er"}, FleetTagKeys: []string{"region", "note"},
		Fleets: []balena.Fleet{
			{ID: 1, Slug: "acme/kiosks", Name: "Kiosks", Organization: "acme", Tags: []string{"north", ""}},
			{ID: 2, Slug: "acme/gates", Name: "Gates", Organization: "acme"},
		},
		Devices: balena.NewDevices(
			balena.Device{
				ID: 10, FleetID: 1, UUID: "aa00", Name: "dark-hail", Type: "raspberrypi4-64", Status: "operational", HeartbeatState: "online", Online: true,
				OSVersion: "balenaOS 6.5.10", OSVariant: "prod", SupervisorVersion: "17.0.3", RunningRelease: 7, WebAccessible: true,
				Whereabouts: &balena.Whereabouts{LocalAddresses: "169.254.1.1 192.168.1.7 fd00::7"}, Attachments: tags("berlin", "-"),
			},
			balena.Device{ID: 11, FleetID: 1, UUID: "bb00", Name: "Frog №2", Status: "reduced-functionality", HeartbeatState: "timeout", Whereabouts: &balena.Whereabouts{LocalAddresses: "::1 fd00::8"}, Attachments: tags("", "Zoë")},
			balena.Device{ID: 12, FleetID: 2, UUID: "cc00", Name: "---", Status: "offline", HeartbeatState: "offline"},
		),
		Releases:       map[int64]balena.Release{7: {ID: 7, Commit: "c0ffee", Version: "1.2.3"}},
		DeviceURLsBase: "balena-devices.com",
	}
}

func options() Options {
	return Options{Address: None, DeviceNames: true, DeviceTags: []string{"site", "own-er"}}
}

func template(t *testing.T, s string) *Template {
	t.Helper()
	parsed, err := ParseTemplate(s)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// serve returns a handler that serves a snapshot.
func serve(s *balena.Snapshot, o Options) http.Handler {
	lists := New(o)
	lists.Refresh(s)
	return NewHandler(HandlerOptions{Lists: lists, Snapshot: func() *balena.Snapshot { return s }, MaxRequests: 4})
}

func get(h http.Handler, query string, header ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, "/sd/devices?"+query, nil)
	for pair := range slices.Chunk(header, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t testing.TB, resp *http.Response) string {
	t.Helper()
	defer func() { _ = resp.Body.Close() }()
	var r io.Reader = resp.Body
	if resp.Header.Get("Content-Encoding") == "gzip" {
		unzip, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		r = unzip
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// group is a parsed target group.
type group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

func groups(t testing.TB, text string) (list []group) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		t.Fatalf("not a list of target groups: %v\n%s", err, text)
	}
	return list
}

// targets returns the targets of a list, in order.
func targets(t testing.TB, resp *http.Response) string {
	t.Helper()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", resp.StatusCode, body(t, resp))
	}
	var all []string
	for _, g := range groups(t, body(t, resp)) {
		all = append(all, g.Targets...)
	}
	return strings.Join(all, " ")
}

func TestList(t *testing.T) {
	o := options()
	o.Ports, o.Scheme, o.Path = []int{9100, 8080}, "https", "/device/metrics"
	const want = `[{"targets":["aa00:9100","aa00:8080"],"labels":{"__scheme__":"https","__metrics_path__":"/device/metrics",` +
		`"__meta_balena_device_uuid":"aa00","__meta_balena_device_name":"dark-hail","__meta_balena_device_type":"raspberrypi4-64",` +
		`"__meta_balena_device_status":"operational","__meta_balena_device_online":"true","__meta_balena_device_connected":"true",` +
		`"__meta_balena_device_web_accessible":"true","__meta_balena_device_os_version":"balenaOS 6.5.10","__meta_balena_device_os_variant":"prod",` +
		`"__meta_balena_device_supervisor_version":"17.0.3","__meta_balena_device_commit":"c0ffee","__meta_balena_device_release_version":"1.2.3",` +
		`"__meta_balena_device_tag_site":"berlin","__meta_balena_device_tagpresent_site":"true",` +
		`"__meta_balena_fleet":"acme/kiosks","__meta_balena_fleet_id":"1","__meta_balena_fleet_name":"Kiosks","__meta_balena_organization":"acme",` +
		`"__meta_balena_fleet_tag_region":"north"}},
{"targets":["bb00:9100","bb00:8080"],"labels":{"__scheme__":"https","__metrics_path__":"/device/metrics",` +
		`"__meta_balena_device_uuid":"bb00","__meta_balena_device_name":"Frog №2",` +
		`"__meta_balena_device_status":"reduced-functionality","__meta_balena_device_online":"false","__meta_balena_device_connected":"true",` +
		`"__meta_balena_device_web_accessible":"false",` +
		`"__meta_balena_device_tagpresent_site":"true","__meta_balena_device_tag_own_er":"Zoë","__meta_balena_device_tagpresent_own_er":"true",` +
		`"__meta_balena_fleet":"acme/kiosks","__meta_balena_fleet_id":"1","__meta_balena_fleet_name":"Kiosks","__meta_balena_organization":"acme",` +
		`"__meta_balena_fleet_tag_region":"north"}},
{"targets":["cc00:9100","cc00:8080"],"labels":{"__scheme__":"https","__metrics_path__":"/device/metrics",` +
		`"__meta_balena_device_uuid":"cc00","__meta_balena_device_name":"---",` +
		`"__meta_balena_device_status":"offline","__meta_balena_device_online":"false","__meta_balena_device_connected":"false",` +
		`"__meta_balena_device_web_accessible":"false",` +
		`"__meta_balena_fleet":"acme/gates","__meta_balena_fleet_id":"2","__meta_balena_fleet_name":"Gates","__meta_balena_organization":"acme"}}]
`
	h := serve(account(), o)
	for _, encoding := range []string{"gzip", "identity"} {
		resp := get(h, "", "Accept-Encoding", encoding)
		if diff := cmp.Diff(want, body(t, resp)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", encoding, diff)
		}
		header := resp.Header
		if header.Get("Content-Type") != "application/json" || header.Get("Cache-Control") != "private, no-cache" || header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: header %v", encoding, header)
		}
	}
}

func TestDeviceNamesCanBeHidden(t *testing.T) {
	o := options()
	o.DeviceNames = false
	if text := body(t, get(serve(account(), o), "")); strings.Contains(text, "dark-hail") || strings.Contains(text, "device_name") {
		t.Errorf("the list contains a name: %s", text)
	}
}

func TestAddresses(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"none":                      {func(*Options) {}, "aa00 bb00 cc00"},
		"none with ports":           {func(o *Options) { o.Ports = []int{9100, 80} }, "aa00:9100 aa00:80 bb00:9100 bb00:80 cc00:9100 cc00:80"},
		"a template":                {func(o *Options) { o.Template = template(t, "{uuid}.tailnet.example:9100") }, "aa00.tailnet.example:9100 bb00.tailnet.example:9100 cc00.tailnet.example:9100"},
		"a template with ports":     {func(o *Options) { o.Template, o.Ports = template(t, "d-{uuid}"), []int{1, 2} }, "d-aa00:1 d-aa00:2 d-bb00:1 d-bb00:2 d-cc00:1 d-cc00:2"},
		"a template with names":     {func(o *Options) { o.Template = template(t, "{name}.vpn") }, "dark-hail.vpn frog--2.vpn cc00.vpn"},
		"public":                    {func(o *Options) { o.Address = Public }, "aa00.balena-devices.com:443"},
		"public with a base":        {func(o *Options) { o.Address, o.URLsBase = Public, "devices.example.com" }, "aa00.devices.example.com:443"},
		"public with a port":        {func(o *Options) { o.Address, o.URLsBase = Public, "devices.example.com:8443" }, "aa00.devices.example.com:8443"},
		"local":                     {func(o *Options) { o.Address, o.Ports = Local, []int{9100} }, "192.168.1.7:9100 [fd00::8]:9100"},
		"local, the port elsewhere": {func(o *Options) { o.Address = Local }, "192.168.1.7 [fd00::8]"},
	} {
		o := options()
		test.change(&o)
		if got := targets(t, get(serve(account(), o), "")); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}

func TestLocalAddresses(t *testing.T) {
	for addresses, want := range map[string]string{
		"": "", "127.0.0.1": "", "0.0.0.0 ::": "", "fe80::1%eth0 10.0.0.1": "10.0.0.1", "169.254.169.254": "", "224.0.0.1": "", "ff02::1": "",
		"::ffff:10.1.2.3": "10.1.2.3", "::ffff:127.0.0.1": "", "2001:db8::1": "[2001:db8::1]", "x 10.0.0.2/24 10.0.0.3": "10.0.0.3", "evil.example 8.8.8.8": "8.8.8.8",
	} {
		if got := localAddress(addresses); got != want {
			t.Errorf("%q: got %q, want %q", addresses, got, want)
		}
	}
}

// Prometheus may send a password to a target. A UUID that is not a label of a host name must not lead to another host.
func TestDevicesWithAHostileUUIDHaveNoTarget(t *testing.T) {
	for _, uuid := range []string{"evil.example:80/", "evil.example", "a@b", "", "a b", "a:1", "-a", strings.Repeat("a", 64), "ä"} {
		s := account()
		s.Devices = balena.NewDevices(balena.Device{ID: 1, FleetID: 1, UUID: uuid, Name: "!", WebAccessible: true})
		for _, change := range []func(*Options){
			func(*Options) {}, func(o *Options) { o.Address = Public }, func(o *Options) { o.Template = template(t, "{uuid}.x") }, func(o *Options) { o.Template = template(t, "{name}.x") },
		} {
			o := options()
			change(&o)
			if got := body(t, get(serve(s, o), "")); got != "[]\n" {
				t.Errorf("%q: %s", uuid, got)
			}
		}
	}
}

func TestInvalidTemplates(t *testing.T) {
	for s, want := range map[string]string{
		"host:9100": "use {uuid} or {name}", "{id}.x": "unknown placeholder {id}", "http://{uuid}.x": "must be a host name", "{uuid}.x/metrics": "must be a host name",
		"{uuid}.x:0": "must be a host name", "{uuid}.x:70000": "must be a host name", "{uuid}.x:": "must be a host name", "{uuid} x": "must be a host name", "{uuid": "use {uuid} or {name}",
		"{uuid}}": "must be a host name", "u@{uuid}": "must be a host name", "": "use {uuid} or {name}", "x:{uuid}": "must be a host name",
	} {
		if _, err := ParseTemplate(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", s, err, want)
		}
	}
}

func TestFilters(t *testing.T) {
	o := options()
	o.Ports = []int{1, 2, 3}
	h := serve(account(), o)
	for query, want := range map[string]string{
		"fleet=acme/gates":                            "cc00:1 cc00:2 cc00:3",
		"fleet=acme/gates&port=2":                     "cc00:2",
		"port=3&port=1":                               "aa00:1 aa00:3 bb00:1 bb00:3 cc00:1 cc00:3",
		"connected=true&port=1":                       "aa00:1 bb00:1",
		"connected=false&port=1":                      "cc00:1",
		"fleet=acme/gates&connected=true":             "",
		"fleet=acme/gates&fleet=acme%2Fkiosks&port=1": "aa00:1 bb00:1 cc00:1",
		"fleet=gone":                                  "",
		"tag=site&port=1":                             "aa00:1 bb00:1",
		"tag=site=berlin&port=1":                      "aa00:1",
		"tag=site=&port=1":                            "bb00:1",
		"tag=own-er&tag=site&port=1":                  "bb00:1",
		"tag=own-er=Zo%C3%AB&port=1":                  "bb00:1",
		"tag=site=berlin&tag=own-er&port=1":           "",
	} {
		if got := targets(t, get(h, query)); got != want {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
}

func TestInvalidParameters(t *testing.T) {
	o := options()
	o.Ports = []int{9100, 8080}
	const parameters = "valid parameters: fleet=SLUG, tag=KEY or tag=KEY=VALUE (keys: site, own-er), connected=true or connected=false, port=9100 or port=8080\n"
	for query, want := range map[string]string{
		"online=true":                        `unknown parameter "online"; ` + parameters,
		"connected=yes":                      `invalid value "yes" of connected: it must be true or false, given once; ` + parameters,
		"connected=true&connected=true":      `invalid value "true" of connected: it must be true or false, given once; ` + parameters,
		"port=80":                            `invalid value "80" of port: it must be one of --sd.port; ` + parameters,
		"port=":                              `invalid value "" of port: it must be one of --sd.port; ` + parameters,
		"tag=sight":                          `invalid value "sight" of tag: it must be KEY or KEY=VALUE with a key of --collector.device.tags; ` + parameters,
		"fleet=":                             `fleet must be the slug of a fleet, such as acme/kiosks; ` + parameters,
		"fleet=%zz":                          "the query is invalid; escape special characters, such as & as %26\n",
		"fleet=" + strings.Repeat("x", 5000): "the query is longer than 4096 bytes; select devices by tag or by connected, or use relabeling\n",
		strings.Repeat("y", 100) + "=1":      `unknown parameter "` + strings.Repeat("y", 64) + `…"; ` + parameters,
	} {
		resp := get(serve(account(), o), query)
		if got := body(t, resp); resp.StatusCode != http.StatusBadRequest || got != want {
			t.Errorf("%.40s: got %d %q, want %q", query, resp.StatusCode, got, want)
		}
	}
	const fewer = "unknown parameter \"x\"; valid parameters: fleet=SLUG, connected=true or connected=false\n"
	if got := body(t, get(serve(&balena.Snapshot{}, Options{Address: None}), "x=1")); got != fewer {
		t.Errorf("got %q, want %q", got, fewer)
	}
}

// An empty list makes Prometheus drop all targets. It is served only if there are no devices.
func TestMissingDataAreNotAnEmptyList(t *testing.T) {
	var current *balena.Snapshot
	lists := New(options())
	h := NewHandler(HandlerOptions{Lists: lists, Snapshot: func() *balena.Snapshot { return current }})
	check := func(when string, status int, want string) {
		t.Helper()
		resp := get(h, "")
		if got := body(t, resp); resp.StatusCode != status || !strings.Contains(got, want) {
			t.Errorf("%s: got %d %q, want %d with %q", when, resp.StatusCode, got, status, want)
		}
	}
	check("before the first refresh", 503, "no refresh has succeeded yet")
	current = account()
	check("before the lists have the snapshot", 503, "no refresh has succeeded yet")
	lists.Refresh(current)
	check("with data", 200, `"aa00"`)
	current = nil
	check("when the data are stale", 503, "stale")
	current = &balena.Snapshot{}
	lists.Refresh(current)
	check("without devices", 200, "[]\n")

	o := options()
	o.Address = Public
	s := account()
	s.DeviceURLsBase = ""
	resp := get(serve(s, o), "")
	if got := body(t, resp); resp.StatusCode != 503 || !strings.Contains(got, "--sd.device-urls-base") {
		t.Errorf("without a base: %d %q", resp.StatusCode, got)
	}
}

func TestETag(t *testing.T) {
	s := account()
	lists := New(options())
	lists.Refresh(s)
	h := NewHandler(HandlerOptions{Lists: lists, Snapshot: func() *balena.Snapshot { return s }})
	tag := func() string { return get(h, "").Header.Get("ETag") }
	first := tag()
	if !strings.HasPrefix(first, `W/"`) || get(h, "connected=true").Header.Get("ETag") == first {
		t.Errorf("the list has the tag %s", first)
	}
	for _, header := range []string{first, `"x", ` + first, strings.TrimPrefix(first, "W/"), "*"} {
		resp := get(h, "", "If-None-Match", header)
		if got := body(t, resp); resp.StatusCode != http.StatusNotModified || got != "" || resp.Header.Get("ETag") != first {
			t.Errorf("If-None-Match %s: %d %q %v", header, resp.StatusCode, got, resp.Header)
		}
	}
	if resp := get(h, "", "If-None-Match", `"x"`); resp.StatusCode != http.StatusOK {
		t.Errorf("another tag: %d", resp.StatusCode)
	}

	// A change of data that the list does not contain does not change the tag.
	hotter := *s.Devices.Find(10)
	hotter.CPUTemperature = 80
	next := *s
	next.Devices = s.Devices.With([]*balena.Device{&hotter}, nil)
	lists.Refresh(&next)
	if got := tag(); got != first {
		t.Errorf("the tag is %s, want %s as before", got, first)
	}
	renamed := hotter
	renamed.Name = "other"
	next.Devices = next.Devices.With([]*balena.Device{&renamed}, nil)
	lists.Refresh(&next)
	if got := tag(); got == first {
		t.Error("the list changed, but its tag did not")
	}
}

func TestMethods(t *testing.T) {
	h := serve(account(), options())
	for method, want := range map[string]int{http.MethodGet: 200, http.MethodHead: 200, http.MethodPost: 405} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/sd/devices", nil))
		if w.Code != want || (w.Body.Len() > 0) == (method == http.MethodHead) {
			t.Errorf("%s: %d %q", method, w.Code, w.Body)
		}
		if want == 405 && w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %v", method, w.Header())
		}
	}
}

// Lists that are updated from the previous list equal lists that are rendered from scratch, whatever changes.
func TestListsFollowSnapshots(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 0))
		o := options()
		o.Address = []Address{None, Public, Local}[r.IntN(3)]
		if o.Address == None {
			o.Ports = []int{1, 2}
		}
		queries := []string{"", "connected=true", "connected=false", "fleet=f/1", "fleet=f/1&fleet=f/2&connected=true", "tag=site"}
		if o.Ports != nil {
			queries = append(queries, "port=2")
		}
		var current *balena.Snapshot
		lists := New(o)
		h := NewHandler(HandlerOptions{Lists: lists, Snapshot: func() *balena.Snapshot { return current }})
		texts := map[string]string{} // by tag
		for step := range 30 {
			current = change(r, current)
			lists.Refresh(current)
			fresh := serve(current, o)
			for _, query := range queries {
				if r.IntN(3) == 0 {
					continue // it is made anew all the same
				}
				resp, want := get(h, query, "Accept-Encoding", "gzip"), get(fresh, query)
				if resp.StatusCode != want.StatusCode {
					t.Fatalf("seed %d, step %d, %q: status %d, want %d", seed, step, query, resp.StatusCode, want.StatusCode)
				}
				text := body(t, resp)
				if diff := cmp.Diff(body(t, want), text); diff != "" {
					t.Fatalf("seed %d, step %d, %q (-want +got):\n%s", seed, step, query, diff)
				}
				if resp.StatusCode != http.StatusOK {
					continue
				}
				groups(t, text)
				tag := resp.Header.Get("ETag")
				if known, ok := texts[tag]; ok && known != text {
					t.Fatalf("seed %d, step %d, %q: two texts have the tag %s", seed, step, query, tag)
				}
				texts[tag] = text
			}
		}
	}
}

// change returns a snapshot with a few differences to another snapshot, which may be nil.
func change(r *rand.Rand, before *balena.Snapshot) *balena.Snapshot {
	s := &balena.Snapshot{Releases: map[int64]balena.Release{}, DeviceURLsBase: "a.example", DeviceTagKeys: []string{"site", "own-er"}, FleetTagKeys: []string{"region", "note"}}
	if before != nil {
		s.DeviceURLsBase, s.Devices = before.DeviceURLsBase, before.Devices
		s.Fleets = slices.Clone(before.Fleets)
		maps.Copy(s.Releases, before.Releases)
	} else {
		for id := range int64(4) {
			s.Fleets = append(s.Fleets, balena.Fleet{ID: id + 1, Slug: fmt.Sprintf("f/%d", id+1), Name: "f", Organization: "o"})
		}
	}
	if r.IntN(8) == 0 {
		s.DeviceURLsBase = []string{"", "a.example", "b.example"}[r.IntN(3)]
	}
	if r.IntN(8) == 0 {
		s.Fleets[r.IntN(4)].Name = fmt.Sprint(r.IntN(3))
	}
	if r.IntN(4) == 0 {
		id := int64(1 + r.IntN(4))
		s.Releases[id] = balena.Release{ID: id, Commit: fmt.Sprint("c", id), Version: fmt.Sprint(r.IntN(3))}
	}
	if r.IntN(4) == 0 {
		return s
	}
	put := map[int64]*balena.Device{}
	n := r.IntN(6)
	if before == nil {
		n = 400
	}
	for range n {
		id := int64(1 + r.IntN(500))
		d := &balena.Device{ID: id, UUID: fmt.Sprintf("%x", id)}
		if known := s.Devices.Find(id); known != nil {
			*d = *known
		}
		switch r.IntN(5) {
		case 0:
			d.CPUUsage = balena.Number(r.IntN(100))
		case 1:
			d.Online = !d.Online
		default:
			d.FleetID, d.RunningRelease, d.WebAccessible = int64(1+r.IntN(4)), int64(r.IntN(5)), r.IntN(3) == 0
			d.Whereabouts = &balena.Whereabouts{LocalAddresses: []string{"", "10.0.0.1", "fd00::1"}[r.IntN(3)]}
			d.Attachments = nil
			if r.IntN(2) == 0 {
				d.Attachments = &balena.Attachments{Tags: []balena.Tag{{ID: id, Value: fmt.Sprint(r.IntN(2))}, {}}}
			}
		}
		d.FleetID = max(d.FleetID, 1)
		put[id] = d
	}
	sorted := slices.SortedFunc(func(yield func(*balena.Device) bool) {
		for _, d := range put {
			if !yield(d) {
				return
			}
		}
	}, func(a, b *balena.Device) int { return int(a.ID - b.ID) })
	var gone func(*balena.Device) bool
	switch r.IntN(8) {
	case 0:
		gone = func(d *balena.Device) bool { return d.ID%int64(2+n) == 0 }
	case 1:
		gone = func(d *balena.Device) bool { return d.ID < int64(r.IntN(100)) }
	case 2:
		gone = func(*balena.Device) bool { return true }
	}
	s.Devices = s.Devices.With(sorted, gone)
	return s
}

// Lists are rendered only after a request. The least recently requested lists are removed first.
func TestListsAreBounded(t *testing.T) {
	now := time.Unix(1e9, 0)
	lists := New(options())
	lists.now = func() time.Time { now = now.Add(time.Millisecond); return now }
	s := account()
	lists.Refresh(s)
	if len(lists.lists) != 0 {
		t.Fatal("a list was rendered without a request")
	}
	filterOf := func(query string) *filter {
		t.Helper()
		f, err := lists.options.parseFilter(query)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	ask := func(slug string) {
		t.Helper()
		if _, ok := lists.list(filterOf("fleet=" + slug)); !ok {
			t.Fatal("there is no list")
		}
	}
	kept := func(slug string) bool { return lists.lists[filterOf("fleet="+slug).key] != nil }
	for i := range 3 * maxLists {
		ask(fmt.Sprint(i))
		ask("kept")
	}
	if len(lists.lists) != maxLists || !kept("kept") || !kept(fmt.Sprint(3*maxLists-1)) || kept("0") {
		t.Errorf("%d lists are kept", len(lists.lists))
	}
	now = now.Add(idle)
	ask("kept")
	lists.Refresh(s)
	if len(lists.lists) != 1 || !kept("kept") {
		t.Errorf("%d lists are kept after a while", len(lists.lists))
	}
}

// Queries with the same parameters have one list, whatever their order, and repeated parameters are checked only once.
func TestEqualQueriesShareAList(t *testing.T) {
	o := options()
	tag := "tag=" + o.DeviceTags[0]
	want, err := o.parseFilter("fleet=a%2Fb&fleet=c%2Fd&" + tag)
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{
		"fleet=c%2Fd&fleet=a%2Fb&" + tag,
		tag + "&fleet=a/b&fleet=c/d&fleet=a/b",
		"fleet=a/b&fleet=c/d" + strings.Repeat("&"+tag, 100),
	} {
		f, err := o.parseFilter(query)
		if err != nil {
			t.Fatal(err)
		}
		if f.key != want.key || len(f.fleets) != 2 || len(f.conditions) != 1 {
			t.Errorf("%s: the key is %q, with %d fleets and %d conditions, want %q with 2 and 1", query, f.key, len(f.fleets), len(f.conditions), want.key)
		}
	}
}

// FuzzLabels uses any text in names, tags and versions. Each list is valid JSON with the same texts, truncated.
func FuzzLabels(f *testing.F) {
	f.Add("name", "tag", "1.0", "slug")
	f.Add("\"}],[{\"targets\":[\"evil:80\"]}", "\\\n\r\t\x00\u2028", "</script>", "a/b")
	f.Add("\xff\xfe\xed\xa0\x80", strings.Repeat("ä", 100), strings.Repeat("x", 129), "\x7f")
	f.Add(strings.Repeat("\x80", 200), strings.Repeat("€", 50), strings.Repeat("a", 127)+"🚜", "ü")
	f.Fuzz(func(t *testing.T, name, tag, version, slug string) {
		s := account()
		s.Fleets[0].Slug, s.Fleets[0].Name, s.Fleets[0].Tags = slug, name, []string{tag, version}
		d := *s.Devices.Find(10)
		d.Name, d.OSVersion, d.Type, d.Status = name, version, tag, name
		d.Attachments = &balena.Attachments{Tags: []balena.Tag{{ID: 1, Value: tag}, {ID: 2, Value: version}}}
		s.Devices = balena.NewDevices(d)
		text := body(t, get(serve(s, options()), ""))
		list := groups(t, text)
		if len(list) != 1 || !reflect.DeepEqual(list[0].Targets, []string{"aa00"}) {
			t.Fatalf("not one group with one target: %s", text)
		}
		for label, want := range map[string]string{
			"device_name": name, "device_os_version": version, "device_type": tag, "device_status": name, "device_tag_site": tag, "device_tag_own_er": version,
			"fleet_name": name, "fleet_tag_region": tag, "fleet_tag_note": version,
		} {
			got := list[0].Labels["__meta_balena_"+label]
			if whole := valid(want); !strings.HasPrefix(whole, got) && utf8.ValidString(want) {
				t.Errorf("%s: got %q of %q", label, got, want)
			} else if utf8.ValidString(want) && (len(want) <= 128 && got != want || len(want) > 128 && (len(got) > 128 || len(got) < 125)) {
				t.Errorf("%s: got %q of %q", label, got, want)
			}
		}
		if got := list[0].Labels["__meta_balena_fleet"]; utf8.ValidString(slug) && got != slug {
			t.Errorf("fleet: got %q, want %q", got, slug)
		}
	})
}

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// Requests and refreshes may run concurrently.
func TestListsAreSafeForConcurrentUse(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var current atomic.Pointer[balena.Snapshot]
	lists := New(options())
	h := NewHandler(HandlerOptions{Lists: lists, Snapshot: current.Load})
	next := func() {
		s := change(r, current.Load())
		lists.Refresh(s)
		current.Store(s)
	}
	next()
	var asking sync.WaitGroup
	for _, query := range []string{"", "connected=true", "fleet=f/1", "fleet=f/2"} {
		asking.Go(func() {
			for range 20 {
				resp := get(h, query, "Accept-Encoding", "gzip")
				if text := body(t, resp); resp.StatusCode != http.StatusOK {
					t.Errorf("status %d: %s", resp.StatusCode, text)
				} else {
					groups(t, text)
				}
			}
		})
	}
	for range 50 {
		next()
	}
	asking.Wait()
}
