// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/problem"
)

// randomAccount returns an account with devices in all states.
func randomAccount(n int, seed uint64) *balena.Snapshot {
	random := rand.New(rand.NewPCG(seed, 2))
	pick := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	instantOf := func(times ...time.Duration) balena.Instant {
		if d := times[random.IntN(len(times))]; d != 0 {
			return ago(d)
		}
		return 0
	}
	s := &balena.Snapshot{Time: at, Releases: map[int64]balena.Release{
		1: {ID: 1, Version: "1.10.0"}, 2: {ID: 2, Version: "1.9.0"}, 3: {ID: 3, Commit: "0123456789"}, 4: {ID: 4, Version: "1.9.0"},
	}}
	for i := range 4 {
		s.Fleets = append(s.Fleets, balena.Fleet{ID: int64(i + 1), Slug: fmt.Sprint("acme/fleet-", i), Archived: i == 3})
	}
	devices := make([]balena.Device, n)
	for i := range devices {
		d := balena.Device{
			ID: int64(i + 1), FleetID: int64(1 + random.IntN(4)), UUID: fmt.Sprintf("%07x", random.IntN(1<<28)), Name: pick("pump ", "Pump ", "valve ") + fmt.Sprint(random.IntN(50)),
			Status: pick("operational", "updating", "disconnected", "reduced-functionality", "", "on-fire"), Online: random.IntN(2) == 0,
			LastConnectivity: instantOf(0, time.Minute, time.Hour, 3*time.Hour, 8*24*time.Hour), Created: instantOf(0, time.Hour, 90*24*time.Hour),
			UpdateStatus: pick("", "done", "rejected", "downloading"), UpdateChanged: instantOf(0, time.Minute, 3*time.Hour),
			RunningRelease: int64(random.IntN(6)), TargetRelease: int64(random.IntN(3)), PinnedRelease: int64(random.IntN(2)),
			OSVersion: pick("", "balenaOS 6.5.10", "balenaOS 6.5.9", "balenaOS 2.0"), OSVariant: pick("prod", "dev", "prod", "prod"), Undervolted: random.IntN(6) == 0,
			CPUTemperature: balena.Number(random.IntN(90)), MemoryUsed: balena.Null, MemorySize: balena.Null, StorageUsed: balena.Null, StorageSize: balena.Null,
		}
		if site := pick("", "berlin", "rome"); site != "" {
			d.Attachments = &balena.Attachments{Tags: []balena.Tag{{ID: 1, Value: site}}}
		}
		devices[i] = d
	}
	s.Devices = balena.NewDevices(devices...)
	return s
}

// TestListsMatchTheirFilters compares lists of random devices with an independent implementation of the filters, page by
// page: each filter alone and in pairs, each order, and the numbers of the choices.
func TestListsMatchTheirFilters(t *testing.T) {
	now := at
	s := randomAccount(1500, 1)
	o := options(s, good)
	s.DeviceTagKeys = []string{"site"}
	h := &handler{Options: o, walks: make(chan struct{}, maxWalks)}
	fleet := func(slug string) func(*balena.Device) bool {
		return func(d *balena.Device) bool { return s.Fleet(d.FleetID).Slug == slug }
	}
	running := func(name string) func(*balena.Device) bool {
		return func(d *balena.Device) bool {
			return cmp.Or(releaseOf(s, d.RunningRelease).String(), "none") == name
		}
	}
	view := h.view(s, now)
	set := func(d *balena.Device) problem.Set {
		if s.Fleet(d.FleetID).Archived {
			return 0
		}
		return view.Device(d)
	}
	filters := map[string]func(*balena.Device) bool{
		"status=on-fire":              func(d *balena.Device) bool { return d.Status == "on-fire" },
		"status=unknown":              func(d *balena.Device) bool { return d.Status == "" },
		"fleet=acme/fleet-1":          fleet("acme/fleet-1"),
		"fleet=acme/nothing":          fleet("acme/nothing"),
		"release=1.9.0":               running("1.9.0"), // two releases
		"release=0123456":             running("0123456"),
		"release=none":                running("none"),
		"release=release 5":           running("release 5"),
		"os=unknown":                  func(d *balena.Device) bool { return d.OSVersion == "" },
		"os=balenaOS 6.5.9":           func(d *balena.Device) bool { return d.OSVersion == "balenaOS 6.5.9" },
		"tag=site=rome":               func(d *balena.Device) bool { return len(d.Tags()) > 0 && d.Tags()[0].Value == "rome" },
		"rollout=pinned":              func(d *balena.Device) bool { return d.PinnedRelease != 0 },
		"rollout=off target":          func(d *balena.Device) bool { return d.TargetRelease != 0 && !d.OnTarget() },
		"problem=BalenaDevicesLost":   func(d *balena.Device) bool { return set(d).Has(problem.Index("BalenaDevicesLost")) },
		"problem=BalenaDevelopmentOS": func(d *balena.Device) bool { return d.OSVariant == "dev" && !s.Fleet(d.FleetID).Archived },
	}
	names := slices.Sorted(maps.Keys(filters))
	queries := [][]string{nil}
	for i, a := range names {
		queries = append(queries, []string{a})
		for _, b := range names[i+1:] {
			if first, _, _ := strings.Cut(a, "="); !strings.HasPrefix(b, first+"=") {
				queries = append(queries, []string{a, b})
			}
		}
	}
	for i, query := range queries {
		for _, of := range []string{"fleet", "problems"} {
			sorting := append([]string{""}, columns...)[i%(len(columns)+1)]
			if i%3 == 0 && sorting != "" {
				sorting = "-" + sorting
			}
			values := url.Values{"sort": {sorting}}
			alert := ""
			for _, q := range query {
				name, value, _ := strings.Cut(q, "=")
				values.Add(name, value)
				if name == "problem" {
					alert = value
				}
			}
			want := map[string]bool{}
			for d := range s.Devices.All() {
				ok := of == "fleet" || set(d) != 0 && (alert != "" || !set(d).Away())
				for _, q := range query {
					ok = ok && filters[q](d)
				}
				if ok {
					want[d.UUID] = true
				}
			}
			sel, err := parseSelection(values, 0)
			if err != nil {
				t.Fatal(err)
			}
			sel.menus = true
			var pages [][]row
			for {
				l := h.visit(s, sel, of, now)
				if l.Matching != len(want) {
					t.Fatalf("%v: %d devices match, want %d", values, l.Matching, len(want))
				}
				if len(l.rows) == 0 {
					break
				}
				if l.before != len(slices.Concat(pages...)) {
					t.Errorf("%v: %d devices before the page, want %d", values, l.before, len(slices.Concat(pages...)))
				}
				pages = append(pages, l.rows)
				last := l.rows[len(l.rows)-1].place
				if l.before+len(l.rows) == l.Matching {
					break
				}
				if sel.After, err = parsePlace(last.String()); err != nil {
					t.Fatal(err)
				}
			}
			all := slices.Concat(pages...)
			for j, r := range all {
				if !want[r.device.UUID] {
					t.Errorf("%v: the device %s is listed", values, r.device.UUID)
				}
				delete(want, r.device.UUID)
				if j > 0 && !inOrder(s, sorting, all[j-1].device, r.device) {
					t.Errorf("%v: %+v comes before %+v", values, *all[j-1].device, *r.device)
				}
			}
			if len(want) > 0 {
				t.Errorf("%v: %d devices are on no page", values, len(want))
			}
			// Backwards, the pages are the same.
			for j := len(pages) - 1; j > 0; j-- {
				sel.After, sel.Before = nil, &pages[j][0].place
				l := h.visit(s, sel, of, now)
				if got, want := uuids(l.rows), uuids(pages[j-1]); !slices.Equal(got, want) {
					t.Errorf("%v: page %d backwards has other devices than forwards", values, j)
				}
			}
			// Each choice lists the stated number of devices.
			sel.After, sel.Before = nil, nil
			for _, f := range h.visit(s, sel, of, now).filters {
				for value, n := range f.counts() {
					if n == 0 {
						continue
					}
					choice := sel
					choice.Values = sel.query(f.Name, f.prefix+value)
					if l := h.visit(s, choice, of, now); l.Matching != n {
						t.Errorf("%v: the choice of the %s %s states %d devices and lists %d", values, f.Name, value, n, l.Matching)
					}
				}
			}
		}
	}
}

// Statuses are listed by rank and then by name, and versions from the newest to the oldest. The values of tags are counted only
// for menus, unless they select devices.
func TestChoices(t *testing.T) {
	s := &balena.Snapshot{Time: at, Fleets: []balena.Fleet{{ID: 1, Slug: "a/b"}}, DeviceTagKeys: []string{"site", "owner"}}
	var devices []balena.Device
	for i, status := range []string{"zapped", "operational", "disconnected", "burning", "operational"} {
		devices = append(devices, balena.Device{
			ID: int64(i + 1), FleetID: 1, UUID: fmt.Sprint(i), Status: status, OSVersion: fmt.Sprint("balenaOS 6.", 8+i),
			Attachments: &balena.Attachments{Tags: []balena.Tag{{ID: 1, Value: "x"}, {ID: 2, Value: fmt.Sprint(i)}}},
		})
	}
	s.Devices = balena.NewDevices(devices...)
	h := &handler{Options: options(s, good), walks: make(chan struct{}, maxWalks)}
	choices := func(address string) map[string]string {
		query, err := url.ParseQuery(address)
		if err != nil {
			t.Fatal(err)
		}
		p := &page{Kind: "fleet", query: query, now: at}
		if failed := h.fillList(p, s, 1); failed != nil {
			t.Fatal(failed)
		}
		found := map[string]string{}
		for _, f := range p.List.filters {
			var values []string
			for _, c := range f.Choices() {
				values = append(values, c.Value)
			}
			found[f.Name+f.Text] = strings.Join(values, ", ")
		}
		return found
	}
	for address, tags := range map[string]map[string]string{
		"":                               {"tagsite": "site=x", "tagowner": "owner=4, owner=3, owner=2, owner=1, owner=0"},
		"format=json":                    {},
		"format=csv&tag=owner%3D3&sort=": {"tagowner": "owner=4, owner=3, owner=2, owner=1, owner=0"},
	} {
		got := choices(address)
		for name, want := range map[string]string{
			"status": "disconnected, burning, zapped, operational",
			"osOS":   "balenaOS 6.12, balenaOS 6.11, balenaOS 6.10, balenaOS 6.9, balenaOS 6.8",
		} {
			if address == "" && got[name] != want {
				t.Errorf("the choices of %s are %s, want %s", name, got[name], want)
			}
		}
		maps.DeleteFunc(got, func(name, _ string) bool { return !strings.HasPrefix(name, "tag") })
		if !maps.Equal(got, tags) {
			t.Errorf("%q: the choices of tags are %v, want %v", address, got, tags)
		}
	}
}

func uuids(rows []row) []string {
	var all []string
	for _, r := range rows {
		all = append(all, r.device.UUID)
	}
	return all
}

// inOrder reports whether device a may be listed before device b.
func inOrder(s *balena.Snapshot, sorting string, a, b *balena.Device) bool {
	name, reverse := strings.CutPrefix(sorting, "-")
	if reverse {
		a, b = b, a
	}
	release := func(d *balena.Device) string { return cmp.Or(releaseOf(s, d.RunningRelease).String(), "none") }
	var c int
	switch name {
	case "name":
		c = natural(a.Name, b.Name)
	case "fleet":
		c = cmp.Compare(s.Fleet(a.FleetID).Slug, s.Fleet(b.FleetID).Slug)
	case "status":
		c = cmp.Compare(statusRank(statusOf(a)), statusRank(statusOf(b)))
	case "connectivity":
		c = -cmp.Compare(a.ConnectivityChanged(), b.ConnectivityChanged())
	case "release":
		c = natural(release(a), release(b))
	case "os":
		c = natural(osOf(a), osOf(b))
	default:
		return true // TestWorstFirst
	}
	return c <= 0
}

func TestNaturalOrder(t *testing.T) {
	ordered := []string{"", "-", "1", "02", "2", "10", "100", "a", "a1", "a2", "A10", "ab", "balenaOS 6.5.9", "balenaOS 6.5.10", "balenaOS 10.0", "é"}
	for i, a := range ordered {
		for j, b := range ordered {
			got := natural(a, b)
			if want := cmp.Compare(i, j); got != want && !(a == "02" && b == "2" || a == "2" && b == "02") {
				t.Errorf("natural(%q, %q) = %d, want %d", a, b, got, want)
			}
		}
	}
}

// FuzzPlaces checks that places are parsed from their text form.
func FuzzPlaces(f *testing.F) {
	f.Add(int64(1), "a.b", int64(2))
	f.Add(int64(-1), "end", int64(0))
	f.Fuzz(func(t *testing.T, rank int64, text string, id int64) {
		p := place{rank, text, id}
		if got, err := parsePlace(p.String()); err != nil || *got != p {
			t.Errorf("%+v became %+v, %v", p, got, err)
		}
	})
}

func captions(root *html.Node) []string { return texts(find(root, "caption")) }

func TestProblemsPage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := twoFleets()
		lost := balena.Device{ID: 4, UUID: "dddddddddddd", Name: "lost", FleetID: 1, Status: "disconnected", HeartbeatState: "offline", LastConnectivity: ago(30 * 24 * time.Hour)}
		hot := balena.Device{ID: 5, UUID: "eeeeeeeeeeee", Name: "hot", FleetID: 1, Status: "operational", Online: true, CPUTemperature: 95, OSVariant: "dev"}
		s.Devices = s.Devices.With([]*balena.Device{&lost, &hot}, nil)
		s.Fleets[0].LatestRelease = balena.Release{ID: 30, Status: "failed", Created: ago(time.Hour)}
		root := getPage(t, options(s, good), "/problems")
		want := []string{
			"Fleets with problems",
			"offline – 1 device, newest first",
			"overheating – 1 device, newest first",
			"development OS – 1 device, newest first",
		}
		if diff := gocmp.Diff(want, captions(root)); diff != "" {
			t.Errorf("tables (-want +got):\n%s", diff)
		}
		var devices []string
		for _, th := range find(root, "th") {
			if attribute(th, "scope") == "row" {
				devices = append(devices, text(th))
			}
		}
		if want := []string{"zeta/kiosk", "gone bbbbbbbbbbbb", "hot eeeeeeeeeeee", "held cccccccccccc"}; !slices.Equal(devices, want) {
			t.Errorf("rows %q, want %q", devices, want)
		}
		all := links(root)
		for name, want := range map[string]string{
			"lost 1": "?problem=BalenaDevicesLost", "offline 1": "?problem=BalenaDeviceOffline", "development OS 2": "?problem=BalenaDevelopmentOS",
			"Runbook for BalenaDeviceOffline": "https://example.com/runbooks/BalenaDeviceOffline.md",
			"last build failed":               "https://example.com/runbooks/BalenaReleaseBuildFailed.md", "gone": "./devices/bbbbbbbbbbbb", "acme/green": "./fleets/acme/green",
			"CSV": "?format=csv&limit=10000", "JSON": "?format=json",
		} {
			if all[name] != want {
				t.Errorf("link %q: address %q, want %q", name, all[name], want)
			}
		}

		// Lost devices have a choice of their own.
		root = getPage(t, options(s, good), "/problems?problem=BalenaDevicesLost")
		if got, want := captions(root), []string{"lost – 1 device, newest first"}; !slices.Equal(got, want) {
			t.Errorf("lost devices: %q, want %q", got, want)
		}
		if got := links(root)["lost 1"]; got != "?" {
			t.Errorf("the current choice links to %q, want ?", got)
		}
		// With an explicit order there is one table.
		root = getPage(t, options(s, good), "/problems?fleet=zeta/kiosk&sort=name")
		if got, want := captions(root), []string{"Fleets with problems", "1 to 1 of 1 device, sorted by name"}; !slices.Equal(got, want) {
			t.Errorf("of a fleet: %q, want %q", got, want)
		}
		root = getPage(t, options(s, good), "/problems?fleet=zeta/kiosk&status=updating")
		if got := text(root); !strings.Contains(got, "No device with problems matches the filters.") || len(find(root, "table")) > 0 {
			t.Errorf("without such devices: %s", got)
		}
		s.Devices = balena.Devices{}
		s.Fleets[0].LatestRelease = balena.Release{}
		if got := text(getPage(t, options(s, good), "/problems")); !strings.Contains(got, "No device has problems.") {
			t.Errorf("without problems: %s", got)
		}
	})
}

// TestFleetsLargelyOffline checks that both the fleet and its devices are listed.
func TestFleetsLargelyOffline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var devices []balena.Device
		for i := range 10 {
			devices = append(devices, balena.Device{ID: int64(i + 1), UUID: fmt.Sprint("device-", i), FleetID: 1, Status: "disconnected", LastConnectivity: ago(2 * time.Hour), Online: i < 5})
		}
		s := &balena.Snapshot{Time: at, Fleets: []balena.Fleet{{ID: 1, Slug: "a/b"}}, Devices: balena.NewDevices(devices...)}
		root := getPage(t, options(s, good), "/problems")
		if got, want := rows(root)[1], []string{"a/b", "largely offline", "5 of 10"}; !slices.Equal(got, want) {
			t.Errorf("fleet %q, want %q", got, want)
		}
		if got, want := captions(root)[1], "offline – 5 devices, newest first"; got != want {
			t.Errorf("devices %q, want %q", got, want)
		}
		if got := text(getPage(t, options(s, good), "/fleets/a/b")); !strings.Contains(got, "largely offline Runbook for BalenaFleetLargelyOffline") {
			t.Errorf("the page of the fleet does not show the problem: %s", got)
		}
	})
}

func TestProblemsJSON(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var got struct {
			Problems []causeCount `json:"problems"`
			Matching int          `json:"matching_devices"`
			Filters  url.Values   `json:"filters"`
			List     []struct {
				UUID     string
				Problems []struct{ Problem string }
			} `json:"device_list"`
		}
		if err := json.Unmarshal(get(t, options(twoFleets(), good), "/problems?format=json&fleet=acme/green&hold=1").Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		want := []causeCount{{"BalenaDeviceOffline", problem.Warning, 1}, {"BalenaDevelopmentOS", problem.Info, 1}}
		if !slices.Equal(got.Problems, want) || got.Matching != 2 || got.Filters.Encode() != "fleet=acme%2Fgreen" || got.List[0].Problems[0].Problem != "BalenaDeviceOffline" {
			t.Errorf("%+v", got)
		}
	})
}

func TestSearch(t *testing.T) {
	s := twoFleets()
	for d := range s.Devices.All() {
		if d.ID == 3 {
			d.Attachments = &balena.Attachments{Tags: []balena.Tag{{ID: 1, Value: "Berlin Mitte"}}}
		}
	}
	twin := balena.Device{ID: 4, UUID: "abbbbbbbbbbb", Name: "Fine too", FleetID: 1, Status: "operational", Online: true}
	s.Devices = s.Devices.With([]*balena.Device{&twin}, nil)
	for _, c := range []struct {
		query, to string   // to is where the only result is
		fleets    []string // found
		devices   []string // with what they were found by
	}{
		{"aaaaaaaaaaaa", "devices/aaaaaaaaaaaa", nil, nil},
		{"  BBBB ", "devices/bbbbbbbbbbbb", nil, nil},
		{"a", "", []string{"acme/green", "zeta/kiosk"}, []string{"fine UUID", "Fine too UUID", "gone fleet", "held fleet"}},
		{"fin", "", nil, []string{"fine name", "Fine too name"}},
		{"fine", "", nil, []string{"fine name or UUID", "Fine too name"}},
		{"INE T", "devices/abbbbbbbbbbb", nil, nil},
		{"greenh", "", []string{"acme/green"}, []string{"fine fleet", "gone fleet", "held fleet"}},
		{"1.1.0", "devices/aaaaaaaaaaaa", nil, nil},
		{"0123456789", "", nil, []string{"gone release", "held release"}},
		{"6.5", "devices/aaaaaaaaaaaa", nil, nil},
		{"mitte", "devices/cccccccccccc", nil, nil},
		{"nothing at all", "", nil, nil},
		{"\x00", "", nil, nil},
	} {
		t.Run(c.query, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o := options(s, good)
				s.DeviceTagKeys = []string{"site"}
				w := get(t, o, "/search?"+url.Values{"q": {c.query}}.Encode())
				if c.to != "" {
					if w.Code != http.StatusSeeOther || w.Header().Get("Location") != c.to {
						t.Errorf("status %d to %q, want %q: %s", w.Code, w.Header().Get("Location"), c.to, w.Body)
					}
					return
				}
				root := parse(t, w)
				var fleets, devices []string
				for _, li := range find(find(root, "main")[0], "ul") {
					if attribute(li, "class") == "links" {
						fleets = texts(find(li, "li"))
					}
				}
				for _, th := range find(root, "th") {
					if attribute(th, "scope") == "row" {
						_, by, _ := strings.Cut(text(th), " found by ")
						devices = append(devices, text(find(th, "a")[0])+" "+by)
					}
				}
				if !slices.Equal(fleets, c.fleets) || !slices.Equal(devices, c.devices) {
					t.Errorf("found the fleets %q and the devices %q, want %q and %q", fleets, devices, c.fleets, c.devices)
				}
				if len(c.fleets)+len(c.devices) == 0 && !strings.Contains(text(root), "No results.") {
					t.Error("no message about missing results")
				}
				if got := attribute(find(root, "input")[0], "value"); got != strings.TrimSpace(strings.ReplaceAll(c.query, "\x00", "\ufffd")) {
					t.Errorf("the field holds %q", got)
				}
			})
		})
	}
}

// TestSearchInManyDevices checks that results are divided into pages.
func TestSearchInManyDevices(t *testing.T) {
	s := manyFleets(20_000, 3)
	root := getPage(t, options(s, good), "/search?q=device")
	if got, want := captions(root), []string{"1 to 100 of 20,000 devices, best match first"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	root = getPage(t, options(s, good), "/search"+pageLinks(root)["Next"])
	if got := rows(root)[1][0]; !strings.HasPrefix(got, "device 100 ") {
		t.Errorf("the second page begins with %q", got)
	}
}

func TestCSV(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := twoFleets()
		s.Devices.Find(2).Name = `=cmd|'/c calc'!A1`
		s.Devices.Find(3).Name = "a,\"b\"\nc"
		w := get(t, options(s, good), "/fleets/acme/green?format=csv&limit=2")
		records, err := csv.NewReader(w.Body).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		want := [][]string{
			{"uuid", "device_name", "fleet", "status", "connected", "connectivity_change", "release", "target_release", "release_pinned", "device_type", "os_version", "os_variant", "supervisor_version", "update_status", "problems"},
			{"bbbbbbbbbbbb", `'=cmd|'/c calc'!A1`, "acme/green", "disconnected", "false", "1999-12-31T19:00:00Z", "0123456", "1.1.0", "false", "", "", "", "", "", "BalenaDeviceOffline"},
			{"cccccccccccc", "a,\"b\"\nc", "acme/green", "operational", "true", "", "0123456", "0123456", "true", "", "", "dev", "", "rejected", "BalenaDevelopmentOS"},
		}
		if diff := gocmp.Diff(want, records); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
		if got := w.Header().Get("X-Total-Count"); got != "3" {
			t.Errorf("X-Total-Count %s, want 3", got)
		}
	})
	if w := get(t, options(manyDevices(20_000), good), "/fleets/a/b?format=csv&limit=10000"); strings.Count(w.Body.String(), "\n") != 10_001 {
		t.Errorf("%d lines, want 10,001", strings.Count(w.Body.String(), "\n"))
	}
}

// TestReload checks which pages reload, and that the links of a stopped page lead to stopped pages.
func TestReload(t *testing.T) {
	for target, want := range map[string]string{
		"/": "60", "/fleets": "60", "/fleets/acme/green?status=operational": "60", "/problems": "60", "/devices/aaaaaaaaaaaa": "60",
		"/search?q=acme": "", "/fleets?format=json": "", "/problems?format=csv": "", "/fleets?hold=1": "", "/fleets/acme/green?hold=1&sort=name": "", "/?hold=1": "",
	} {
		if got := get(t, options(twoFleets(), good), target).Header().Get("Refresh"); got != want {
			t.Errorf("%s: Refresh %q, want %q", target, got, want)
		}
	}
	o := options(nil, Status{})
	o.Interval = time.Second
	if got := get(t, o, "/fleets").Header().Get("Refresh"); got != "30" {
		t.Errorf("without data, at a short interval: Refresh %q, want 30", got)
	}
	for _, target := range []string{"/fleets", "/fleets/acme/green", "/problems", "/devices/aaaaaaaaaaaa", "/search?q=acme"} {
		held := target + either(strings.Contains(target, "?"), "&", "?") + "hold=1"
		for name, to := range links(getPage(t, options(twoFleets(), good), held)) {
			if !strings.Contains(to, "hold=1") && !strings.HasPrefix(to, "https:") && !strings.HasPrefix(name, "Reload every") && name != "JSON" && name != "CSV" {
				t.Errorf("%s: the link %q to %q does not lead to a stopped page", held, name, to)
			}
		}
	}
}
