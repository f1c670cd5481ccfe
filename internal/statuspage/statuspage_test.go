// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
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
	"github.com/balena-exporter/balena-exporter/internal/problem"
)

var update = flag.Bool("update", false, "update the golden files")

// at is the time at which tests in a synctest bubble begin.
var at = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func ago(d time.Duration) balena.Instant { return balena.Instant(at.Add(-d).UnixMilli()) }

// twoFleets returns an account with two fleets whose order differs from that of their slugs.
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
		RunbookURL: "https://example.com/runbooks", Thresholds: problem.DefaultThresholds(),
	}
}

func get(t testing.TB, o Options, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	NewHandler(o).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
	return w
}

// getPage returns a page as a tree. The status must be 200.
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

// find returns the elements with a name.
func find(n *html.Node, name string) []*html.Node {
	var found []*html.Node
	for d := range n.Descendants() {
		if d.Type == html.ElementNode && d.Data == name {
			found = append(found, d)
		}
	}
	return found
}

// text returns the text of an element, with single spaces between words.
func text(n *html.Node) string {
	var words []string
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			words = append(words, strings.Fields(d.Data)...)
		}
	}
	return strings.NewReplacer(" ,", ",", " :", ":", " .", ".").Replace(strings.Join(words, " "))
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

// rows returns the texts of the cells of the first table.
func rows(root *html.Node) [][]string {
	var table [][]string
	tables := find(root, "table")
	if len(tables) == 0 {
		return nil
	}
	for _, row := range find(tables[0], "tr") {
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

// bubble runs a test in a synctest bubble.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func TestOverview(t *testing.T) {
	bubble(t, func(t *testing.T) {
		root := getPage(t, options(twoFleets(), good), "/fleets")
		want := [][]string{
			{"Fleet", "Devices", "Online", "Connected", "Status", "Problems", "Target release", "Rollout"},
			{"acme/green Greenhouse", "3", "1", "2 66 %", "2 operational 1 disconnected", "2", "1.1.0", "66 %, 2 of 3 1 pinned"},
			{"zeta/kiosk", "0", "0", "0", "no devices", "none", "none", "no target release"},
		}
		if diff := cmp.Diff(want, rows(root)); diff != "" {
			t.Errorf("table (-want +got):\n%s", diff)
		}
		if got, want := texts(find(root, "dd")), []string{"2", "3", "2 66 %", "1", "2 66 %"}; !slices.Equal(got, want) {
			t.Errorf("totals %q, want %q", got, want)
		}
		if got, want := text(find(find(root, "main")[0], "p")[0]), "Data of 1999-12-31 23:59:26 UTC, 34 s old, refreshed every 60 s. This page reloads every 60 seconds. Stop reloading"; got != want {
			t.Errorf("age %q, want %q", got, want)
		}
		wantLinks := map[string]string{
			"balena-exporter": "./", "acme/green": "./fleets/acme/green", "zeta/kiosk": "./fleets/zeta/kiosk", "2": "./problems?fleet=acme%2Fgreen",
			"JSON": "?format=json", "Stop reloading": "?hold=1", "Fleet": "?sort=-fleet", "Devices": "?sort=devices", "Online": "?sort=online",
			"Connected": "?sort=connected", "Problems": "?sort=problems", "Rollout": "?sort=rollout",
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

// threeFleets are fleets in which each column has an order of its own, an empty and an archived one.
func threeFleets() *balena.Snapshot {
	s := &balena.Snapshot{Time: at}
	var devices []balena.Device
	for i, devicesOf := range []int{2, 10, 4, 0, 20} {
		id := int64(i + 1)
		s.Fleets = append(s.Fleets, balena.Fleet{ID: id, Slug: "acme/" + []string{"b", "A", "c10", "empty", "archived"}[i], Archived: i == 4})
		for j := range devicesOf {
			connected := j*(i+2) < devicesOf*2
			devices = append(devices, balena.Device{
				ID: int64(len(devices) + 1), FleetID: id, Status: "operational", Online: connected, LastConnectivity: ago(5 * time.Hour),
				TargetRelease: 1, RunningRelease: int64(min(j, 3-i)),
			})
		}
	}
	s.Devices = balena.NewDevices(devices...)
	return s
}

func TestFleetOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for sorting, want := range map[string]string{
			"":           "A b c10",
			"fleet":      "A b c10",
			"-fleet":     "c10 b A",
			"devices":    "A c10 b",
			"-devices":   "b c10 A",
			"online":     "A b c10",
			"connected":  "c10 A b",
			"-connected": "b A c10",
			"problems":   "A c10 b",
		} {
			var got []string
			for _, row := range rows(getPage(t, options(threeFleets(), good), "/fleets?sort="+sorting))[1:] {
				got = append(got, strings.TrimPrefix(strings.Fields(row[0])[0], "acme/"))
			}
			if want := want + " empty archived"; strings.Join(got, " ") != want {
				t.Errorf("sorted by %q: %s, want %s", sorting, strings.Join(got, " "), want)
			}
		}
		if w := get(t, options(threeFleets(), good), "/fleets?sort=color"); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "Fleets cannot be sorted by color") {
			t.Errorf("invalid sort order: status %d", w.Code)
		}
	})
}

// TestArchivedFleetsAreNotInTheTotals checks that archived fleets are excluded from totals and problems, as from alerts.
func TestArchivedFleetsAreNotInTheTotals(t *testing.T) {
	root := getPage(t, options(threeFleets(), good), "/fleets")
	if got, want := texts(find(root, "dd"))[:2], []string{"5", "16"}; !slices.Equal(got, want) {
		t.Errorf("fleets and devices %q, want %q", got, want)
	}
	if !strings.Contains(text(root), "These numbers do not include devices of archived fleets.") {
		t.Error("the page does not mention it")
	}
	for _, row := range rows(root)[1:] {
		if strings.Contains(row[0], "archived") && row[5] != "none" {
			t.Errorf("the archived fleet has the problems %q", row[5])
		}
	}
}

func TestEmptyLists(t *testing.T) {
	for path, want := range map[string]string{
		"/fleets":            "There are no fleets. The token has access to no fleets, or the filters of the exporter exclude all fleets.",
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

func TestReleaseNames(t *testing.T) {
	for want, r := range map[string]balena.Release{
		"1.2.0+rev1":     {Commit: "0123456789abcdef", Version: "1.2.0+rev1"},
		"0123456":        {Commit: "0123456789abcdef"},
		"release 1":      {}, // deleted, or of another account
		"abc target abc": {Commit: "abc"},
	} {
		d := balena.Device{ID: 1, UUID: "c0ffee", FleetID: 1, RunningRelease: 1, TargetRelease: 1}
		if strings.Contains(want, "target") {
			d.TargetRelease = 2 // two builds of the same commit
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
			{"Device", "Status", "Connectivity", "Release", "OS", "Problems"},
			{"gone bbbbbbbbbbbb", "disconnected", "disconnected for 5 h", "0123456 target 1.1.0", "unknown", "offline"},
			{"held cccccccccccc", "operational", "connected", "0123456 pinned", "unknown", "development OS"},
			{"fine aaaaaaaaaaaa raspberrypi5", "operational", "connected for 3 d", "1.1.0", "balenaOS 6.5.10 supervisor 17.0.3", ""},
		}
		if diff := cmp.Diff(want, rows(root)); diff != "" {
			t.Errorf("table (-want +got):\n%s", diff)
		}
		wantLinks := map[string]string{
			"balena-exporter": "../../", "Fleets": "../../fleets", "Problems": "../../problems", "Stop reloading": "?hold=1",
			"JSON": "?format=json", "CSV": "?format=csv&limit=10000",
			"disconnected 1": "?status=disconnected", "operational 2": "?status=operational",
			"offline 1": "?problem=BalenaDeviceOffline", "development OS 1": "?problem=BalenaDevelopmentOS",
			"Device": "?sort=name", "Status": "?sort=status", "Connectivity": "?sort=connectivity", "Release": "?sort=release", "OS": "?sort=os",
			"fine": "../../devices/aaaaaaaaaaaa", "gone": "../../devices/bbbbbbbbbbbb", "held": "../../devices/cccccccccccc",
			"0123456": "?release=0123456", "1.1.0": "?release=1.1.0",
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
		{"disconnected", []string{"1 to 1 of 1 disconnected device, worst first"}, "disconnected 1"},
		{"operational", []string{"1 to 2 of 2 operational devices, worst first"}, "operational 2"},
		{"updating", nil, "updating 0"}, // the last device in this status has left it since the link was made
		{`"><script>`, nil, `"><script> 0`},
	} {
		t.Run(c.status, func(t *testing.T) {
			root := getPage(t, options(twoFleets(), good), "/fleets/acme/green?"+url.Values{"status": {c.status}}.Encode())
			if got := texts(find(root, "caption")); !slices.Equal(got[:max(0, len(got)-1)], c.caption) {
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

// TestRemarks checks the remarks on devices out of service or with an OS update, and on services that do not run.
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
		{balena.Fleet{}, balena.Device{RunningRelease: 4, TargetRelease: 5, Installs: "5 3 1 0"}, ""}, // the update is running
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
		{"offline for two hours, with history", balena.Device{Status: "disconnected", LastConnectivity: ago(2 * time.Hour), UpdateStatus: "rejected", Undervolted: true, TargetRelease: 5}},
		{"offline for two days", balena.Device{Status: "disconnected", LastConnectivity: ago(48 * time.Hour)}},
		{"reduced functionality and undervoltage", with(func(d *balena.Device) { d.Status, d.Undervolted = "reduced-functionality", true })},
		{"update rejected", with(func(d *balena.Device) { d.UpdateStatus, d.TargetRelease = "rejected", 5 })},
		{"update stuck", with(func(d *balena.Device) { d.UpdateStatus, d.UpdateChanged = "downloading", ago(3*time.Hour) })},
		{"undervoltage", with(func(d *balena.Device) { d.Undervolted = true })},
		{"disconnected for a minute", balena.Device{Status: "disconnected", LastConnectivity: ago(time.Minute)}},
		{"no status", with(func(d *balena.Device) { d.Status, d.LastConnectivity = "", ago(time.Minute) })},
		{"an unrecognized status", with(func(d *balena.Device) { d.Status = "on-fire" })},
		{"post-provisioning", with(func(d *balena.Device) { d.Status = "post-provisioning" })},
		{"configuring", with(func(d *balena.Device) { d.Status = "configuring" })},
		{"updating", with(func(d *balena.Device) { d.Status = "updating" })},
		{"connected for an hour, older", connected},
		{"connected for an hour, newer", connected},
		{"connected for a day", with(func(d *balena.Device) { d.LastConnectivity = ago(24 * time.Hour) })},
		{"inactive", with(func(d *balena.Device) { d.Status = "inactive" })},
		{"in maintenance, offline for a day", balena.Device{Status: "disconnected", LastConnectivity: ago(24 * time.Hour), Maintenance: balena.Forever}},
		{"registered, never connected yet", balena.Device{Status: "configuring", Created: ago(time.Hour)}},
		{"never connected for a week", balena.Device{Status: "disconnected", Created: ago(7 * 24 * time.Hour)}},
		{"lost for eight days", balena.Device{Status: "disconnected", LastConnectivity: ago(8 * 24 * time.Hour), OSVariant: "dev"}},
		{"lost for a year", balena.Device{Status: "disconnected", LastConnectivity: ago(365 * 24 * time.Hour)}},
	}
	s := &balena.Snapshot{Time: at, Fleets: []balena.Fleet{{ID: 1, Slug: "a/b", Name: "b"}}}
	var devices []balena.Device
	var want []string
	for i, o := range ordered {
		d := o.device
		d.Name = o.what
		// The snapshot has the reverse order, except for two devices that are ordered only by ID.
		d.ID = int64(len(ordered) - i)
		if strings.HasPrefix(d.Name, "connected for an hour") {
			d.ID = int64(100 + i)
		}
		d.FleetID = 1
		devices = append(devices, d)
		want = append(want, o.what)
	}
	slices.SortFunc(devices, func(a, b balena.Device) int { return int(a.ID - b.ID) })
	s.Devices = balena.NewDevices(devices...)
	bubble(t, func(t *testing.T) {
		var got []string
		for _, row := range rows(getPage(t, options(s, good), "/fleets/a/b"))[1:] {
			got = append(got, row[0])
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

// manyDevices returns a fleet with n devices.
func manyDevices(n int) *balena.Snapshot {
	devices := make([]balena.Device, n)
	for i := range devices {
		devices[i] = balena.Device{ID: int64(i + 1), FleetID: 1, UUID: fmt.Sprintf("%07d", i+1), Status: "operational", Online: true}
	}
	return &balena.Snapshot{
		Time: at, Fleets: []balena.Fleet{{ID: 1, Slug: "a/b", Name: "b"}}, Devices: balena.NewDevices(devices...),
	}
}

// pageLinks returns the links to other pages of a list.
func pageLinks(root *html.Node) map[string]string {
	for _, nav := range find(root, "nav") {
		if attribute(nav, "aria-label") == "Pages" {
			return links(nav)
		}
	}
	return nil
}

// TestPages follows the links between the pages of a list.
func TestPages(t *testing.T) {
	for _, c := range []struct {
		devices int
		query   string
		walk    string // the links to follow
		caption string
		first   string
		last    string
		turns   string
	}{
		{1, "", "", "1 to 1 of 1 device, worst first", "0000001", "0000001", ""},
		{100, "", "", "1 to 100 of 100 devices, worst first", "0000001", "0000100", ""},
		{101, "", "", "1 to 100 of 101 devices, worst first", "0000001", "0000100", "Last Next"},
		{101, "", "Next", "101 to 101 of 101 devices, worst first", "0000101", "0000101", "First Previous"},
		{101, "", "Last", "2 to 101 of 101 devices, worst first", "0000002", "0000101", "First Previous"},
		{101, "", "Last Previous", "1 to 100 of 101 devices, worst first", "0000001", "0000100", "Last Next"},
		{101, "?sort=-name", "Next", "101 to 101 of 101 devices, sorted by name, descending", "0000001", "0000001", "First Previous"},
		{20000, "?status=operational", "Next Next Next Previous", "201 to 300 of 20,000 operational devices, worst first", "0000201", "0000300", "First Last Next Previous"},
		{20000, "?sort=name", "Last Previous", "19,801 to 19,900 of 20,000 devices, sorted by name", "0019801", "0019900", "First Last Next Previous"},
		{20000, "?sort=-name", "Next Next First", "1 to 100 of 20,000 devices, sorted by name, descending", "0020000", "0019901", "Last Next"},
	} {
		t.Run(fmt.Sprint(c.devices, c.query, " ", c.walk), func(t *testing.T) {
			o := options(manyDevices(c.devices), good)
			root := getPage(t, o, "/fleets/a/b"+c.query)
			for step := range strings.FieldsSeq(c.walk) {
				root = getPage(t, o, "/fleets/a/b"+pageLinks(root)[step])
			}
			if got := text(find(root, "caption")[0]); got != c.caption {
				t.Errorf("caption %q, want %q", got, c.caption)
			}
			table := rows(root)
			if first, last := strings.Fields(table[1][0])[0], strings.Fields(table[len(table)-1][0])[0]; first != c.first || last != c.last {
				t.Errorf("devices %s to %s, want %s to %s", first, last, c.first, c.last)
			}
			if got := strings.Join(slices.Sorted(maps.Keys(pageLinks(root))), " "); got != c.turns {
				t.Errorf("ways to other pages %q, want %q", got, c.turns)
			}
		})
	}
}

// TestPagesHoldStill removes and changes devices on the first page before the second page is requested. The second page
// must not change.
func TestPagesHoldStill(t *testing.T) {
	o := options(manyDevices(300), good)
	next := pageLinks(getPage(t, o, "/fleets/a/b"))["Next"]
	before := rows(getPage(t, o, "/fleets/a/b"+next))
	s := manyDevices(300)
	var devices []balena.Device
	for d := range s.Devices.All() {
		switch {
		case d.ID <= 40: // removed
		case d.ID <= 60:
			d.Status, d.Online, d.LastConnectivity = "disconnected", false, balena.Instant(time.Now().Add(-2*time.Hour).UnixMilli())
			fallthrough
		default:
			devices = append(devices, *d)
		}
	}
	s.Devices = balena.NewDevices(devices...)
	root := getPage(t, options(s, good), "/fleets/a/b"+next)
	if diff := cmp.Diff(before, rows(root)); diff != "" {
		t.Errorf("the page moved (-before +after):\n%s", diff)
	}
	if got, want := text(find(root, "caption")[0]), "61 to 160 of 260 devices, worst first"; got != want {
		t.Errorf("caption %q, want %q", got, want)
	}
	// If all devices after the place were removed, the last page is shown.
	s.Devices = balena.NewDevices(devices[:20]...)
	if got, want := text(find(getPage(t, options(s, good), "/fleets/a/b"+next), "caption")[0]), "1 to 20 of 20 devices, worst first"; got != want {
		t.Errorf("beyond the end: caption %q, want %q", got, want)
	}
}

func TestHostileNamesAreTextOnly(t *testing.T) {
	const hostile = `"><script>alert(1)</script><img src=x onerror=alert(1)>{{.}}` + "\u202e\n"
	s := twoFleets()
	s.Fleets[1].Name, s.Fleets[1].Slug = hostile, "acme/"+hostile
	for d := range s.Devices.All() {
		d.Name, d.UUID, d.Type, d.OSVersion, d.SupervisorVersion, d.Status = hostile, hostile, hostile, hostile, hostile, hostile
		d.UpdateStatus, d.OSVariant, d.HeartbeatState = hostile, hostile, hostile
		d.LastConnectivity, d.Undervolted, d.Online = ago(0), true, true
	}
	s.Releases[11] = balena.Release{ID: 11, Version: hostile}
	s.Releases[10] = balena.Release{ID: 10, Commit: hostile}
	s.Parts = []balena.Part{{Name: balena.PartReleases, Err: errors.New(hostile)}}
	warning := Status{LastError: hostile, LastErrorTime: at}

	overview := getPage(t, options(s, warning), "/fleets")
	link := attribute(find(find(overview, "tbody")[0], "a")[0], "href")
	fleet := getPage(t, options(s, warning), strings.TrimPrefix(link, "."))
	device := getPage(t, options(s, warning), "/"+devicePath(hostile))
	problems := getPage(t, options(s, warning), "/problems")
	found := getPage(t, options(s, warning), "/search?"+url.Values{"q": {hostile[:40]}}.Encode())
	nothing := parse(t, get(t, options(nil, warning), "/fleets"))
	for name, root := range map[string]*html.Node{
		"overview": overview, "fleet": fleet, "device": device, "problems": problems, "search": found, "no data": nothing,
	} {
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
		if got := links(getPage(t, o, "/"+devicePath(c.uuid)))["balena dashboard"]; got != c.want {
			t.Errorf("%s with %q: link to %q, want %q", c.url, c.uuid, got, c.want)
		}
	}
}

func TestDeviceNamesCanBeHidden(t *testing.T) {
	o := options(twoFleets(), good)
	o.DeviceNames = false
	for _, target := range []string{"/fleets/acme/green", "/problems?problem=BalenaDevelopmentOS", "/devices/cccccccccccc", "/search?q=acme"} {
		for _, format := range []string{"html", "json", "csv"} {
			if format == "csv" && strings.HasPrefix(target, "/devices") {
				continue
			}
			address := target + either(strings.Contains(target, "?"), "&", "?") + strings.TrimPrefix("format="+format, "format=html")
			body := get(t, o, address).Body.String()
			if strings.Contains(body, "held") || !strings.Contains(body, "ccccccc") {
				t.Errorf("%s contains the name of a device, or does not contain its UUID", address)
			}
		}
	}
	if body := get(t, o, "/search?q=held").Body.String(); !strings.Contains(body, "No results.") {
		t.Error("a device can be found by its name")
	}
}

func TestWarnings(t *testing.T) {
	failed := Status{LastSuccess: at.Add(-34 * time.Second), LastError: "device, page 7: status 503", LastErrorTime: at.Add(-10 * time.Second), Next: at.Add(19500 * time.Millisecond)}
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
		warning  []string
		text     string // in addition to the warning
	}{
		{"no warning", twoFleets(), good, 200, nil, "34 s old"},
		{"the last refresh failed", twoFleets(), failed, 200, []string{"The last refresh failed. These data are 34 s old. device, page 7: status 503 The exporter retries in 20 s. Runbook"}, ""},
		{"an earlier refresh failed", twoFleets(), recovered, 200, nil, "The last error was 10 s ago, 1999-12-31 23:59:50 UTC: device, page 7: status 503"},
		{"a refresh hangs", late, good, 200, []string{"These data are 3 min old. The current refresh takes longer than expected. Runbook"}, ""},
		{"a part failed", partly, good, 200, []string{"Part of the data could not be read and may be outdated. release: status 500 Runbook"}, ""},
		{"a part failed, then everything", partly, failed, 200, []string{"The last refresh failed. These data are 34 s old. device, page 7: status 503 release: status 500 The exporter retries in 20 s. Runbook"}, ""},
		{"not refreshed yet", nil, Status{}, 503, nil, "The exporter has just started. The first refresh is running."},
		{"never succeeded", nil, Status{LastError: "status 401", LastErrorTime: at}, 503, []string{"The last refresh failed. status 401 The exporter is retrying now. Runbook"}, "No refresh has succeeded since the exporter started."},
		{"too old", nil, Status{LastSuccess: at.Add(-time.Hour), LastError: "status 401", LastErrorTime: at}, 503, []string{"The last refresh failed. status 401 The exporter is retrying now. Runbook"}, "The last data are 60 min old. They are stale and are not shown."},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				for _, path := range []string{"/fleets", "/fleets/acme/green", "/problems", "/search?q=a", "/devices/aaaaaaaaaaaa"} {
					w := get(t, options(c.snapshot, c.status), path)
					if w.Code != c.code {
						t.Errorf("%s: status %d, want %d", path, w.Code, c.code)
					}
					if got := w.Header().Get("Retry-After"); (got == "60") != (c.code == 503) {
						t.Errorf("%s: Retry-After %q with status %d", path, got, w.Code)
					}
					root := parse(t, w)
					if got := texts(warnings(root)); !slices.Equal(got, c.warning) {
						t.Errorf("%s: warning %q, want %q", path, got, c.warning)
					}
					if !strings.Contains(text(root), c.text) {
						t.Errorf("%s: no text %q: %s", path, c.text, text(root))
					}
				}
			})
		})
	}
}

// warnings returns the warnings.
func warnings(root *html.Node) []*html.Node {
	return slices.DeleteFunc(find(root, "section"), func(n *html.Node) bool { return attribute(n, "class") != "warning" })
}

func TestInvalidRequests(t *testing.T) {
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
		{"GET", "/fleets/acme/green?after=two", 400, "text/html; charset=utf-8"},
		{"GET", "/fleets/acme/green?after=1.x.", 400, "text/html; charset=utf-8"},
		{"GET", "/fleets/acme/green?after=1.1.&before=end", 400, "text/html; charset=utf-8"},
		{"GET", "/fleets/acme/green?sort=color", 400, "text/html; charset=utf-8"},
		{"GET", "/fleets/acme/green?limit=10001", 400, "text/html; charset=utf-8"},
		{"GET", "/fleets/acme/green?limit=-1&format=json", 400, "application/json"},
		{"GET", "/fleets/acme/green?format=csv", 200, "text/csv; charset=utf-8; header=present"},
		{"GET", "/fleets?format=csv", 400, "text/plain; charset=utf-8"},
		{"GET", "/problems?problem=Nothing", 400, "text/html; charset=utf-8"},
		{"GET", "/problems?rollout=sideways", 400, "text/html; charset=utf-8"},
		{"GET", "/problems?fleet=acme/blue", 200, "text/html; charset=utf-8"},
		{"GET", "/search?q=" + strings.Repeat("a", 201), 400, "text/html; charset=utf-8"},
		{"GET", "/search", 200, "text/html; charset=utf-8"},
		{"GET", "/search?q=aaaaaaaaaaaa", 303, ""},
		{"GET", "/devices/dddddddddddd", 404, "text/html; charset=utf-8"},
		{"GET", "/devices/dddddddddddd?format=json", 404, "application/json"},
		{"GET", "/devices", 303, ""},
		{"GET", "/devices/", 404, "text/html; charset=utf-8"},
		{"POST", "/search?q=a", 405, "text/plain; charset=utf-8"},
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

// TestPolicyAllowsTheStyleSheetAndNothingElse checks the headers of all responses, including errors and redirects.
func TestPolicyAllowsTheStyleSheetAndNothingElse(t *testing.T) {
	sheet := find(getPage(t, options(twoFleets(), good), "/fleets"), "style")[0].FirstChild.Data
	want := http.Header{
		"Content-Security-Policy":      {"default-src 'none'; style-src 'sha256-" + hash(sheet) + "'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"},
		"Cross-Origin-Resource-Policy": {"same-origin"},
		"Referrer-Policy":              {"no-referrer"},
		"X-Content-Type-Options":       {"nosniff"},
		"Cache-Control":                {"no-store"},
	}
	for target, code := range map[string]int{
		"/": 200, "/fleets": 200, "/fleets?format=json": 200, "/fleets/acme/green": 200, "/fleets/acme/blue": 404,
		"/fleets/": 301, "/fleets?format=xml": 400, "/fleets/acme/green?sort=color": 400, "/nothing": 404,
		"/problems": 200, "/problems?format=csv": 200, "/devices/aaaaaaaaaaaa": 200, "/search?q=acme": 200, "/search?q=fine": 303,
	} {
		w := get(t, options(twoFleets(), good), target)
		got := w.Header().Clone()
		for _, name := range []string{"Content-Type", "Content-Length", "Location", "Refresh", "Content-Disposition", "X-Total-Count"} {
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

// TestStructure checks the landmarks, headings, table headers and labels that screen readers use.
func TestStructure(t *testing.T) {
	for _, path := range []string{"/fleets", "/fleets/acme/green", "/problems?sort=name", "/search?q=acme"} {
		root := getPage(t, options(twoFleets(), good), path)
		if attribute(find(root, "html")[0], "lang") != "en" {
			t.Errorf("%s: no language", path)
		}
		if captions, tables := len(find(root, "caption")), len(find(root, "table")); captions != tables {
			t.Errorf("%s: %d captions of %d tables", path, captions, tables)
		}
		for _, element := range []string{"title", "h1", "main", "header", "footer"} {
			if n := len(find(root, element)); n != 1 {
				t.Errorf("%s: %d elements %s, want 1", path, n, element)
			}
		}
		for _, nav := range find(root, "nav") {
			if attribute(nav, "aria-label") == "" {
				t.Errorf("%s: navigation without a label", path)
			}
		}
		// The explicit roles are needed because narrow pages display table rows as blocks.
		columns := 0
		for _, th := range find(find(root, "table")[0], "th") {
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
		if len(find(root, "script")) > 0 || regexp.MustCompile(`(?i)http-equiv|autofocus`).MatchString(get(t, options(twoFleets(), good), path).Body.String()) {
			t.Errorf("%s: the page contains a script, http-equiv or autofocus", path)
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

func TestJSONPagination(t *testing.T) {
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

func TestFormatting(t *testing.T) {
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
