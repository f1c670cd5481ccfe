// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

var update = flag.Bool("update", false, "write the golden files anew")

// at is the time at which the tests in a bubble of synctest begin.
var at = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func ago(d time.Duration) balena.Instant { return balena.Instant(at.Add(-d).UnixMilli()) }

// twoFleets is an account of two fleets in an order other than that of their slugs.
func twoFleets() *balena.Snapshot {
	return &balena.Snapshot{
		Time: at.Add(-34 * time.Second),
		Fleets: []balena.Fleet{
			{ID: 1, Slug: "zeta/kiosk", Name: "kiosk", Organization: "zeta"},
			{ID: 2, Slug: "acme/green", Name: "Greenhouse", Organization: "acme", TargetRelease: 11, TracksLatest: true},
		},
		Devices: balena.NewDevices(
			balena.Device{ID: 1, UUID: "aaaaaaaaaaaa", Name: "fine", FleetID: 2, Status: "operational", Online: true, HeartbeatState: "online", RunningRelease: 11, TargetRelease: 11, LastConnectivity: ago(72 * time.Hour), Type: "raspberrypi5", OSVersion: "balenaOS 6.5.10", OSVariant: "prod", SupervisorVersion: "17.0.3"},
			balena.Device{ID: 2, UUID: "bbbbbbbbbbbb", Name: "gone", FleetID: 2, Status: "disconnected", HeartbeatState: "offline", RunningRelease: 10, TargetRelease: 11, LastConnectivity: ago(5 * time.Hour), Undervolted: true},
			balena.Device{ID: 3, UUID: "cccccccccccc", Name: "held", FleetID: 2, Status: "operational", HeartbeatState: "online", RunningRelease: 10, PinnedRelease: 10, TargetRelease: 10, UpdateStatus: "rejected", OSVariant: "dev"},
		),
		Releases: map[int64]balena.Release{
			10: {ID: 10, Commit: "0123456789abcdef"},
			11: {ID: 11, Commit: "fedcba9876543210", Version: "1.1.0"},
		},
	}
}

var good = Status{Up: true, LastSuccess: at.Add(-34 * time.Second)}

func options(s *balena.Snapshot, status Status) Options {
	return Options{
		Snapshot: func() *balena.Snapshot { return s }, Status: func() Status { return status },
		Interval: time.Minute, DeviceURL: DeviceURLCloud, DeviceNames: true,
	}
}

func get(t testing.TB, o Options, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	NewHandler(o).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
	return w
}

// getPage returns a page that must be well, as a tree.
func getPage(t testing.TB, o Options, target string) *html.Node {
	t.Helper()
	w := get(t, o, target)
	if w.Code != http.StatusOK {
		t.Fatalf("GET %s: %d\n%s", target, w.Code, w.Body)
	}
	return parse(t, w)
}

func parse(t testing.TB, w *httptest.ResponseRecorder) *html.Node {
	t.Helper()
	root, err := html.Parse(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// find returns the elements of a name.
func find(n *html.Node, name string) []*html.Node {
	var found []*html.Node
	for d := range n.Descendants() {
		if d.Type == html.ElementNode && d.Data == name {
			found = append(found, d)
		}
	}
	return found
}

// text is the text of an element, with single blanks between the words and its parts.
func text(n *html.Node) string {
	var words []string
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			words = append(words, strings.Fields(d.Data)...)
		}
	}
	return strings.NewReplacer(" ,", ",", " :", ":").Replace(strings.Join(words, " "))
}

func texts(nodes []*html.Node) []string {
	var all []string
	for _, n := range nodes {
		all = append(all, text(n))
	}
	return all
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// rows returns the table of a page, cell by cell.
func rows(root *html.Node) [][]string {
	var table [][]string
	for _, row := range find(root, "tr") {
		var cells []string
		for d := range row.ChildNodes() {
			if d.Type == html.ElementNode {
				cells = append(cells, text(d))
			}
		}
		table = append(table, cells)
	}
	return table
}

func links(root *html.Node) map[string]string {
	all := map[string]string{}
	for _, a := range find(root, "a") {
		all[text(a)] = attribute(a, "href")
	}
	return all
}

// bubble runs a test at the time at.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func TestOverview(t *testing.T) {
	bubble(t, func(t *testing.T) {
		root := getPage(t, options(twoFleets(), good), "/fleets")
		want := [][]string{
			{"Fleet", "Devices", "Online", "Connected", "Status", "Target release", "Rollout"},
			{"acme/green Greenhouse", "3", "1", "2 66 %", "2 operational 1 disconnected", "1.1.0", "66 %, 2 of 3 1 pinned"},
			{"zeta/kiosk", "0", "0", "0", "no devices", "none", "nothing to roll out"},
		}
		if diff := cmp.Diff(want, rows(root)); diff != "" {
			t.Errorf("table (-want +got):\n%s", diff)
		}
		if got, want := texts(find(root, "dd")), []string{"2", "3", "2 66 %", "1", "2 66 %"}; !slices.Equal(got, want) {
			t.Errorf("totals %q, want %q", got, want)
		}
		if got, want := text(find(find(root, "main")[0], "p")[0]), "Data of 1999-12-31 23:59:26 UTC, 34 s old, refreshed every 60 s."; got != want {
			t.Errorf("age %q, want %q", got, want)
		}
		wantLinks := map[string]string{
			"balena-exporter": "./", "acme/green": "fleets/acme/green", "zeta/kiosk": "fleets/zeta/kiosk", "The same as JSON": "?format=json",
		}
		if diff := cmp.Diff(wantLinks, links(root)); diff != "" {
			t.Errorf("links (-want +got):\n%s", diff)
		}
	})
}

func TestBarsAreAsLongAsTheNumbers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		root := getPage(t, options(twoFleets(), good), "/fleets/acme/green")
		var got []string
		for _, r := range find(find(root, "svg")[0], "rect") {
			got = append(got, fmt.Sprint(attribute(r, "class"), " ", attribute(r, "x"), " ", attribute(r, "width")))
		}
		if want := []string{"operational 0.0 666.7", "disconnected 666.7 333.3"}; !slices.Equal(got, want) {
			t.Errorf("bar %q, want %q", got, want)
		}
	})
}

func TestArchivedFleetsComeLast(t *testing.T) {
	s := twoFleets()
	s.Fleets[1].Archived = true
	got := rows(getPage(t, options(s, good), "/fleets"))
	if got[1][0] != "zeta/kiosk" || got[2][0] != "acme/green archived Greenhouse" {
		t.Errorf("fleets in the order %q, %q", got[1][0], got[2][0])
	}
}

func TestNothingToList(t *testing.T) {
	for path, want := range map[string]string{
		"/fleets":            "The token may see no fleet, or none is chosen.",
		"/fleets/zeta/kiosk": "The fleet has no devices.",
	} {
		s := twoFleets()
		if path == "/fleets" {
			s.Fleets, s.Devices = nil, balena.Devices{}
		}
		root := getPage(t, options(s, good), path)
		if tables := find(root, "table"); len(tables) > 0 || !strings.Contains(text(root), want) {
			t.Errorf("%s: %d tables, and the text %q", path, len(tables), text(find(root, "main")[0]))
		}
	}
}

func TestReleasesByTheBestNameThereIs(t *testing.T) {
	for want, r := range map[string]balena.Release{
		"1.2.0+rev1":        {Commit: "0123456789abcdef", Version: "1.2.0+rev1"},
		"0123456":           {Commit: "0123456789abcdef"},
		"release 1":         {}, // deleted, or somebody else's
		"abc should be abc": {Commit: "abc"},
	} {
		d := balena.Device{ID: 1, UUID: "c0ffee", FleetID: 1, RunningRelease: 1, TargetRelease: 1}
		if strings.Contains(want, "should be") {
			d.TargetRelease = 2 // two builds of one commit
		}
		s := &balena.Snapshot{
			Time: at, Fleets: []balena.Fleet{{ID: 1, Slug: "a/b", Name: "b"}},
			Devices:  balena.NewDevices(d),
			Releases: map[int64]balena.Release{1: r, 2: r},
		}
		if got := rows(getPage(t, options(s, good), "/fleets/a/b"))[1][3]; got != want {
			t.Errorf("release %+v appears as %q, want %q", r, got, want)
		}
	}
}

func TestFleetPage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		root := getPage(t, options(twoFleets(), good), "/fleets/acme/green")
		want := [][]string{
			{"Device", "Status", "Last change", "Release", "OS", "Remarks"},
			{"gone bbbbbbb", "disconnected", "5 h ago", "0123456 should be 1.1.0", "not known", ""},
			{"held ccccccc", "operational", "not known", "0123456", "not known", "update rejected pinned development OS"},
			{"fine aaaaaaa raspberrypi5", "operational", "3 d ago", "1.1.0", "balenaOS 6.5.10 supervisor 17.0.3", ""},
		}
		if diff := cmp.Diff(want, rows(root)); diff != "" {
			t.Errorf("table (-want +got):\n%s", diff)
		}
		wantLinks := map[string]string{
			"balena-exporter": "../../", "Fleets": "../../fleets", "The same as JSON": "?format=json&page=1",
			"All 3": "?", "disconnected 1": "?status=disconnected", "operational 2": "?status=operational",
			"fine": "https://dashboard.balena-cloud.com/devices/aaaaaaaaaaaa/summary",
			"gone": "https://dashboard.balena-cloud.com/devices/bbbbbbbbbbbb/summary",
			"held": "https://dashboard.balena-cloud.com/devices/cccccccccccc/summary",
		}
		if diff := cmp.Diff(wantLinks, links(root)); diff != "" {
			t.Errorf("links (-want +got):\n%s", diff)
		}
	})
}

func TestFilterByStatus(t *testing.T) {
	for _, c := range []struct {
		status  string
		caption []string
		current string
	}{
		{"disconnected", []string{"1 to 1 of 1 devices disconnected, worst first"}, "disconnected 1"},
		{"operational", []string{"1 to 2 of 2 devices operational, worst first"}, "operational 2"},
		{"updating", nil, "updating 0"}, // the last device in this status has left it since the link was made
		{`"><script>`, nil, `"><script> 0`},
	} {
		t.Run(c.status, func(t *testing.T) {
			root := getPage(t, options(twoFleets(), good), "/fleets/acme/green?"+url.Values{"status": {c.status}}.Encode())
			if got := texts(find(root, "caption")); !slices.Equal(got, c.caption) {
				t.Errorf("captions %q, want %q", got, c.caption)
			}
			var current []string
			for _, a := range find(root, "a") {
				if attribute(a, "aria-current") == "true" {
					current = append(current, text(a))
				}
			}
			if !slices.Equal(current, []string{c.current}) {
				t.Errorf("current filter %q, want %q", current, c.current)
			}
		})
	}
}

// What is remarked of a device that is absent on purpose, or that something is wrong with.
func TestRemarks(t *testing.T) {
	for _, test := range []struct {
		fleet  balena.Fleet
		device balena.Device
		want   string
	}{
		{balena.Fleet{}, balena.Device{Frozen: true}, "frozen"},
		{balena.Fleet{}, balena.Device{Maintenance: balena.Forever}, "maintenance until further notice"},
		{balena.Fleet{}, balena.Device{Maintenance: balena.Instant(at.Add(time.Hour).UnixMilli())}, "maintenance until " + at.Add(time.Hour).UTC().Format(time.RFC3339)},
		{balena.Fleet{}, balena.Device{Maintenance: ago(time.Second)}, ""},
		{balena.Fleet{Maintenance: balena.Forever}, balena.Device{Maintenance: ago(time.Second)}, "maintenance until further notice"},
		{balena.Fleet{}, balena.Device{ProvisioningState: "OS update failed"}, "OS update failed"},
		{balena.Fleet{}, balena.Device{ProvisioningState: "Running OS update"}, "OS update running"},
		{balena.Fleet{}, balena.Device{RunningRelease: 5, TargetRelease: 5, Installs: "5 3 1 0"}, "1 of 3 services running"},
		{balena.Fleet{}, balena.Device{RunningRelease: 5, TargetRelease: 5, Installs: "5 3 3 0"}, ""},
		{balena.Fleet{}, balena.Device{RunningRelease: 4, TargetRelease: 5, Installs: "5 3 1 0"}, ""}, // it is on its way
	} {
		bubble(t, func(t *testing.T) {
			test.fleet.ID, test.fleet.Slug = 1, "a/b"
			test.device.ID, test.device.UUID, test.device.FleetID = 1, "aaaaaaaaaaaa", 1
			s := &balena.Snapshot{Time: at, Fleets: []balena.Fleet{test.fleet}, Devices: balena.NewDevices(test.device)}
			if got := rows(getPage(t, options(s, good), "/fleets/a/b"))[1][5]; got != test.want {
				t.Errorf("remarks of %+v: %q, want %q", test.device, got, test.want)
			}
		})
	}
}

func TestWorstFirst(t *testing.T) {
	connected := balena.Device{Status: "operational", Online: true, LastConnectivity: ago(time.Hour)}
	with := func(change func(*balena.Device)) balena.Device {
		d := connected
		change(&d)
		return d
	}
	ordered := []struct {
		what   string
		device balena.Device
	}{
		{"disconnected for two days", balena.Device{Status: "disconnected", LastConnectivity: ago(48 * time.Hour)}},
		{"disconnected for an hour, with history", balena.Device{Status: "disconnected", LastConnectivity: ago(time.Hour), UpdateStatus: "rejected", Undervolted: true, TargetRelease: 5}},
		{"reduced functionality", with(func(d *balena.Device) { d.Status = "reduced-functionality" })},
		{"a status that is not known", with(func(d *balena.Device) { d.Status = "on-fire" })},
		{"no status", with(func(d *balena.Device) { d.Status = "" })},
		{"inactive", with(func(d *balena.Device) { d.Status = "inactive" })},
		{"post-provisioning", with(func(d *balena.Device) { d.Status = "post-provisioning" })},
		{"configuring, never connected", balena.Device{Status: "configuring"}},
		{"configuring", with(func(d *balena.Device) { d.Status = "configuring" })},
		{"updating", with(func(d *balena.Device) { d.Status = "updating" })},
		{"two defects", with(func(d *balena.Device) { d.UpdateStatus, d.TargetRelease = "aborted", 5 })},
		{"a failed update of its host OS for two days", with(func(d *balena.Device) {
			d.ProvisioningState, d.LastConnectivity = "OS update failed", ago(48*time.Hour)
		})},
		{"a service that does not run for less", with(func(d *balena.Device) {
			d.RunningRelease, d.TargetRelease, d.Installs, d.LastConnectivity = 5, 5, "5 2 1", ago(47*time.Hour)
		})},
		{"undervoltage for a day", with(func(d *balena.Device) { d.Undervolted, d.LastConnectivity = true, ago(24*time.Hour) })},
		{"undervoltage", with(func(d *balena.Device) { d.Undervolted = true })},
		{"connected for a day", with(func(d *balena.Device) { d.LastConnectivity = ago(24 * time.Hour) })},
		{"connected for an hour, older", connected},
		{"connected for an hour, newer", connected},
	}
	s := &balena.Snapshot{Time: at, Fleets: []balena.Fleet{{ID: 1, Slug: "a/b", Name: "b"}}}
	var devices []balena.Device
	var want []string
	for i, o := range ordered {
		d := o.device
		d.Name = o.what
		// In the snapshot they are the other way round, but for the last two, which only their ID orders.
		d.ID = int64(len(ordered) - i)
		if i >= len(ordered)-2 {
			d.ID = int64(100 + i)
		}
		d.FleetID = 1
		devices = append(devices, d)
		want = append(want, o.what)
	}
	slices.SortFunc(devices, func(a, b balena.Device) int { return int(a.ID - b.ID) })
	s.Devices = balena.NewDevices(devices...)
	var got []string
	for _, row := range rows(getPage(t, options(s, good), "/fleets/a/b"))[1:] {
		got = append(got, row[0])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

// manyDevices is one fleet of so many devices.
func manyDevices(n int) *balena.Snapshot {
	devices := make([]balena.Device, n)
	for i := range devices {
		devices[i] = balena.Device{ID: int64(i + 1), FleetID: 1, UUID: fmt.Sprintf("%07d", i+1), Status: "operational", Online: true}
	}
	return &balena.Snapshot{
		Time: at, Fleets: []balena.Fleet{{ID: 1, Slug: "a/b", Name: "b"}}, Devices: balena.NewDevices(devices...),
	}
}

func TestPages(t *testing.T) {
	for _, c := range []struct {
		devices     int
		query       string
		caption     string
		first, last string
		turns       map[string]string
	}{
		{1, "", "1 to 1 of 1 devices, worst first", "0000001", "0000001", nil},
		{100, "", "1 to 100 of 100 devices, worst first", "0000001", "0000100", nil},
		{101, "", "1 to 100 of 101 devices, worst first", "0000001", "0000100", map[string]string{"Next": "?page=2", "Last": "?page=2"}},
		{101, "?page=2", "101 to 101 of 101 devices, worst first", "0000101", "0000101", map[string]string{"First": "?page=1", "Previous": "?page=1"}},
		{20000, "?page=7&status=operational", "601 to 700 of 20,000 devices operational, worst first", "0000601", "0000700", map[string]string{
			"First": "?page=1&status=operational", "Previous": "?page=6&status=operational",
			"Next": "?page=8&status=operational", "Last": "?page=200&status=operational",
		}},
		// There may be fewer devices than when the link was made.
		{250, "?page=99", "201 to 250 of 250 devices, worst first", "0000201", "0000250", map[string]string{"First": "?page=1", "Previous": "?page=2"}},
	} {
		t.Run(fmt.Sprint(c.devices, c.query), func(t *testing.T) {
			root := getPage(t, options(manyDevices(c.devices), good), "/fleets/a/b"+c.query)
			if got := text(find(root, "caption")[0]); got != c.caption {
				t.Errorf("caption %q, want %q", got, c.caption)
			}
			table := rows(root)
			if first, last := strings.Fields(table[1][0])[0], strings.Fields(table[len(table)-1][0])[0]; first != c.first || last != c.last {
				t.Errorf("devices %s to %s, want %s to %s", first, last, c.first, c.last)
			}
			var turns map[string]string
			for _, nav := range find(root, "nav") {
				if attribute(nav, "aria-label") == "Pages" {
					turns = links(nav)
				}
			}
			if diff := cmp.Diff(c.turns, turns); diff != "" {
				t.Errorf("links (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHostileNamesAreTextOnly(t *testing.T) {
	const hostile = `"><script>alert(1)</script><img src=x onerror=alert(1)>{{.}}` + "\u202e\n"
	s := twoFleets()
	s.Fleets[1].Name, s.Fleets[1].Slug = hostile, "acme/"+hostile
	for d := range s.Devices.All() {
		d.Name, d.UUID, d.Type, d.OSVersion, d.SupervisorVersion, d.Status = hostile, hostile, hostile, hostile, hostile, hostile
		d.UpdateStatus, d.OSVariant = hostile, hostile
	}
	s.Releases[11] = balena.Release{ID: 11, Version: hostile}
	s.Releases[10] = balena.Release{ID: 10, Commit: hostile}
	s.Parts = []balena.Part{{Name: balena.PartReleases, Err: errors.New(hostile)}}
	trouble := Status{LastError: hostile, LastErrorTime: at}

	overview := getPage(t, options(s, trouble), "/fleets")
	link := attribute(find(find(overview, "tbody")[0], "a")[0], "href")
	fleet := getPage(t, options(s, trouble), "/"+link)
	nothing := parse(t, get(t, options(nil, trouble), "/fleets"))
	for name, root := range map[string]*html.Node{"overview": overview, "fleet": fleet, "no data": nothing} {
		for _, element := range []string{"script", "img"} {
			if n := len(find(root, element)); n > 0 {
				t.Errorf("%s: %d elements %s", name, n, element)
			}
		}
		if !strings.Contains(text(root), `"><script>alert(1)</script><img src=x onerror=alert(1)>{{.}}`) {
			t.Errorf("%s: the name is not shown", name)
		}
		for d := range root.Descendants() {
			for _, a := range d.Attr {
				if strings.HasPrefix(a.Key, "on") || strings.HasPrefix(a.Val, "javascript:") {
					t.Errorf("%s: attribute %s=%q", name, a.Key, a.Val)
				}
			}
		}
	}
}

func TestDeviceAddresses(t *testing.T) {
	s := twoFleets()
	first := s.Devices.Find(1)
	for _, c := range []struct{ url, uuid, want string }{
		{"", "aa", ""},
		{DeviceURLCloud, "aa", "https://dashboard.balena-cloud.com/devices/aa/summary"},
		{DeviceURLCloud, "a/../?#", "https://dashboard.balena-cloud.com/devices/a%2F..%2F%3F%23/summary"},
	} {
		first.UUID = c.uuid
		o := options(s, good)
		o.DeviceURL = c.url
		if got := links(getPage(t, o, "/fleets/acme/green"))["fine"]; got != c.want {
			t.Errorf("%s with %q leads to %q, want %q", c.url, c.uuid, got, c.want)
		}
	}
}

func TestNamesOfDevicesCanStayAway(t *testing.T) {
	o := options(twoFleets(), good)
	o.DeviceNames = false
	for _, format := range []string{"", "?format=json"} {
		body := get(t, o, "/fleets/acme/green"+format).Body.String()
		if strings.Contains(body, "held") || !strings.Contains(body, "ccccccc") {
			t.Errorf("%q has the name of a device, or not its UUID", format)
		}
	}
}

func TestWhatIsWrongWithTheData(t *testing.T) {
	failed := Status{LastSuccess: at.Add(-34 * time.Second), LastError: "device, page 7: status 503", LastErrorTime: at.Add(-10 * time.Second)}
	recovered := failed
	recovered.Up = true
	partly := twoFleets()
	partly.Parts = []balena.Part{{Name: balena.PartDeviceTypes}, {Name: balena.PartReleases, Err: errors.New("status 500")}}
	late := twoFleets()
	late.Time = at.Add(-181 * time.Second)
	for _, c := range []struct {
		name     string
		snapshot *balena.Snapshot
		status   Status
		code     int
		trouble  []string
		says     string // beside the trouble
	}{
		{"nothing", twoFleets(), good, 200, nil, "34 s old"},
		{"the last refresh failed", twoFleets(), failed, 200, []string{"The last refresh failed. These data are 34 s old. device, page 7: status 503"}, ""},
		{"one failed before", twoFleets(), recovered, 200, nil, "The last error was 10 s ago, 1999-12-31 23:59:50 UTC: device, page 7: status 503"},
		{"a refresh hangs", late, good, 200, []string{"These data are 3 min old. The refresh takes longer than it should."}, ""},
		{"a part failed", partly, good, 200, []string{"Part of the data could not be read and may be old. release: status 500"}, ""},
		{"a part failed, then everything", partly, failed, 200, []string{"The last refresh failed. These data are 34 s old. device, page 7: status 503 release: status 500"}, ""},
		{"not refreshed yet", nil, Status{}, 503, nil, "The exporter has just started, and the first data are on their way."},
		{"never succeeded", nil, Status{LastError: "status 401", LastErrorTime: at}, 503, []string{"The last refresh failed. status 401"}, "No refresh has succeeded since the exporter started."},
		{"too old", nil, Status{LastSuccess: at.Add(-time.Hour), LastError: "status 401", LastErrorTime: at}, 503, []string{"The last refresh failed. status 401"}, "The last data are 60 min old, which is too old to be shown."},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				for _, path := range []string{"/fleets", "/fleets/acme/green"} {
					w := get(t, options(c.snapshot, c.status), path)
					if w.Code != c.code {
						t.Errorf("%s: status %d, want %d", path, w.Code, c.code)
					}
					if got := w.Header().Get("Retry-After"); (got == "60") != (c.code == 503) {
						t.Errorf("%s: Retry-After %q with status %d", path, got, w.Code)
					}
					root := parse(t, w)
					if got := texts(find(root, "section")); !slices.Equal(got, c.trouble) {
						t.Errorf("%s: trouble %q, want %q", path, got, c.trouble)
					}
					if !strings.Contains(text(root), c.says) {
						t.Errorf("%s: does not say %q: %s", path, c.says, text(root))
					}
				}
			})
		})
	}
}

func TestAnswersToRequestsThatMakeNoSense(t *testing.T) {
	for _, c := range []struct {
		method, target string
		code           int
		contentType    string
	}{
		{"GET", "/fleets/acme/blue", 404, "text/html; charset=utf-8"},
		{"GET", "/fleets/acme/blue?format=json", 404, "application/json"},
		{"GET", "/fleets/acme", 404, "text/html; charset=utf-8"},
		{"GET", "/fleets/acme%2Fgreen", 200, "text/html; charset=utf-8"},
		{"GET", "/fleets/", 301, ""},
		{"GET", "/fleets/acme/green?page=0", 400, "text/html; charset=utf-8"},
		{"GET", "/fleets/acme/green?page=two", 400, "text/html; charset=utf-8"},
		{"GET", "/fleets?format=xml", 400, "text/plain; charset=utf-8"},
		{"HEAD", "/fleets", 200, "text/html; charset=utf-8"},
		{"POST", "/fleets", 405, "text/plain; charset=utf-8"},
	} {
		w := httptest.NewRecorder()
		NewHandler(options(twoFleets(), good)).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), c.method, c.target, nil))
		if got := w.Header().Get("Content-Type"); w.Code != c.code || got != c.contentType {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.target, w.Code, got, c.code, c.contentType)
		}
	}
}

// TestPolicyAllowsTheStyleSheetAndNothingElse checks the header of all answers, errors and redirects included.
func TestPolicyAllowsTheStyleSheetAndNothingElse(t *testing.T) {
	sheet := find(getPage(t, options(twoFleets(), good), "/fleets"), "style")[0].FirstChild.Data
	want := http.Header{
		"Content-Security-Policy":      {"default-src 'none'; style-src 'sha256-" + hash(sheet) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
		"Cross-Origin-Resource-Policy": {"same-origin"},
		"Referrer-Policy":              {"no-referrer"},
		"X-Content-Type-Options":       {"nosniff"},
		"Cache-Control":                {"no-store"},
	}
	for target, code := range map[string]int{
		"/": 200, "/fleets": 200, "/fleets?format=json": 200, "/fleets/acme/green": 200, "/fleets/acme/blue": 404,
		"/fleets/": 301, "/fleets?format=xml": 400, "/fleets/acme/green?page=0": 400, "/nothing": 404,
	} {
		w := get(t, options(twoFleets(), good), target)
		got := w.Header().Clone()
		for _, name := range []string{"Content-Type", "Content-Length", "Location"} {
			got.Del(name)
		}
		if diff := cmp.Diff(want, got); diff != "" || w.Code != code {
			t.Errorf("%s: status %d, want %d; header (-want +got):\n%s", target, w.Code, code, diff)
		}
	}
	root := getPage(t, options(twoFleets(), good), "/fleets/acme/green")
	for d := range root.Descendants() {
		if attribute(d, "style") != "" {
			t.Errorf("element %s has a style attribute, which the policy forbids", d.Data)
		}
	}
}

// TestStructure checks what readers of screen readers find their way by.
func TestStructure(t *testing.T) {
	for _, path := range []string{"/fleets", "/fleets/acme/green"} {
		root := getPage(t, options(twoFleets(), good), path)
		if attribute(find(root, "html")[0], "lang") != "en" {
			t.Errorf("%s: no language", path)
		}
		for _, element := range []string{"title", "h1", "main", "header", "footer", "table", "caption"} {
			if n := len(find(root, element)); n != 1 {
				t.Errorf("%s: %d elements %s, want 1", path, n, element)
			}
		}
		for _, nav := range find(root, "nav") {
			if attribute(nav, "aria-label") == "" {
				t.Errorf("%s: navigation without a label", path)
			}
		}
		// The roles stay where a narrow page shows the rows of the table as blocks.
		columns := 0
		for _, th := range find(root, "th") {
			switch {
			case attribute(th, "scope") == "col" && attribute(th, "role") == "columnheader":
				columns++
			case attribute(th, "scope") != "row" || attribute(th, "role") != "rowheader":
				t.Errorf("%s: header cell %q without scope or role", path, text(th))
			}
		}
		for _, row := range find(find(root, "tbody")[0], "tr") {
			cells := 1
			for _, td := range find(row, "td") {
				cells++
				if attribute(td, "role") != "cell" || attribute(td, "data-label") == "" {
					t.Errorf("%s: cell %q without role or label", path, text(td))
				}
			}
			if cells != columns {
				t.Errorf("%s: %d cells under %d columns", path, cells, columns)
			}
		}
		if len(find(root, "script")) > 0 || regexp.MustCompile(`(?i)http-equiv`).MatchString(get(t, options(twoFleets(), good), path).Body.String()) {
			t.Errorf("%s: the page does something by itself", path)
		}
	}
}

func TestJSON(t *testing.T) {
	failed := Status{LastError: "status 503", LastErrorTime: at.Add(-10 * time.Second)}
	for _, c := range []struct {
		golden, target string
		options        Options
	}{
		{"fleets", "/fleets?format=json", options(twoFleets(), good)},
		{"fleet", "/fleets/acme/green?format=json", options(twoFleets(), failed)},
		{"unknown", "/fleets/acme/blue?format=json", options(twoFleets(), good)},
		{"nothing", "/fleets?format=json", options(nil, failed)},
	} {
		t.Run(c.golden, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := get(t, c.options, c.target)
				got := fmt.Sprintf("%d %s\n%s", w.Code, w.Header().Get("Content-Type"), w.Body)
				file := "testdata/" + c.golden + ".golden"
				if *update {
					if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", file, diff)
				}
			})
		})
	}
}

func TestJSONLeadsThroughAllDevices(t *testing.T) {
	o := options(manyDevices(250), good)
	seen := map[string]bool{}
	requests := 0
	for next := "?format=json&status=operational"; next != ""; requests++ {
		var answer struct {
			Next string `json:"next"`
			List []struct {
				UUID string `json:"uuid"`
			} `json:"device_list"`
		}
		if err := json.Unmarshal(get(t, o, "/fleets/a/b"+next).Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		for _, d := range answer.List {
			seen[d.UUID] = true
		}
		next = answer.Next
	}
	if len(seen) != 250 || requests != 3 {
		t.Errorf("%d devices in %d requests, want 250 in 3", len(seen), requests)
	}
}

func TestTextForPeople(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 20000: "20,000", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 0: "0 s", 119 * time.Second: "119 s", 2 * time.Minute: "2 min", 119 * time.Minute: "119 min",
		2 * time.Hour: "2 h", 47 * time.Hour: "47 h", 48 * time.Hour: "2 d", 9000 * time.Hour: "375 d",
	} {
		if got := strings.ReplaceAll(duration(d), "\u00a0", " "); got != want {
			t.Errorf("duration(%v) = %q, want %q", d, got, want)
		}
	}
}
