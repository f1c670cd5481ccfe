// SPDX-License-Identifier: Apache-2.0

package statuspage

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// hostileSlugs are slugs that a browser or a proxy might resolve to other pages.
var hostileSlugs = []string{
	"acme/green", "../../-/healthy", "..", ".", "...", "a/../../../b", "./a", "a/.", "a//b", "//example.com/a", "/a", "a/", "", "/", "//",
	"%2e%2e/%2e%2e/x", "%2F%2E%2E", `..\..\x`, `\\example.com\a`, "~", "~../x", "~~/~", "..;/x", "a?b=c", "a#b", "a b", " ../x", "..\t/x", "\n../x",
	"javascript:alert(1)", "https://example.com/x", "\u2025/\u2028", "?format=json", "a&amp;b", "\x00",
}

// browse resolves a link like a browser (WHATWG URL Standard): it drops tabs and line breaks, replaces \ by / and %2e by
// a dot, and cleans the path.
func browse(t *testing.T, base *url.URL, link string) *url.URL {
	t.Helper()
	link = strings.NewReplacer("\t", "", "\n", "", "\r", "", `\`, "/", "%2e", ".", "%2E", ".").Replace(link)
	u, err := base.Parse(link)
	if err != nil {
		t.Fatalf("link %q: %v", link, err)
	}
	return u
}

// TestLinksStayBehindThePrefixOfAProxy follows all links, behind a proxy that serves the exporter under a prefix.
func TestLinksStayBehindThePrefixOfAProxy(t *testing.T) {
	s := &balena.Snapshot{Time: time.Now()}
	for i, slug := range hostileSlugs {
		s.Fleets = append(s.Fleets, balena.Fleet{ID: int64(i + 1), Slug: slug, Name: slug})
	}
	var devices []balena.Device
	for i := range 250 {
		devices = append(devices, balena.Device{
			ID: int64(i + 1), FleetID: 2, UUID: hostileSlugs[i%len(hostileSlugs)], Status: []string{"operational", "../../-/healthy"}[i%2],
			OSVersion: "javascript:alert(1)", OSVariant: "dev", Attachments: &balena.Attachments{Tags: []balena.Tag{{ID: 1, Value: "//example.com"}}},
		})
	}
	s.Devices = balena.NewDevices(devices...)
	o := withLinks(s, good)
	o.DeviceURL, s.DeviceTagKeys = "", []string{"../site"}
	const runbooks = "https://example.com/runbooks"
	pages := NewHandler(o)
	mux := http.NewServeMux()
	for _, path := range Paths {
		mux.Handle(path, pages)
	}
	mux.HandleFunc("/a:b/metrics", func(http.ResponseWriter, *http.Request) {})
	proxy := http.NewServeMux()
	proxy.Handle("/some/prefix/", http.StripPrefix("/some/prefix", mux))
	server := httptest.NewServer(proxy)
	defer server.Close()

	root := server.URL + "/some/prefix/"
	titles := map[string]int{}
	seen := map[string]bool{}
	for todo := []string{root, root + "fleets/", root + "fleets/?format=json", root + "search?q=a"}; len(todo) > 0; todo = todo[1:] {
		address := todo[0]
		if seen[kindOf(t, address)] {
			continue
		}
		seen[kindOf(t, address)] = true
		response, err := server.Client().Get(address)
		if err != nil {
			t.Fatal(err)
		}
		page, err := html.Parse(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		final := response.Request.URL
		if response.StatusCode != http.StatusOK || !strings.HasPrefix(final.String(), root) {
			t.Errorf("%s: status %d at %s", address, response.StatusCode, final)
			continue
		}
		requested, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if json := strings.HasPrefix(response.Header.Get("Content-Type"), "application/json"); json != (requested.Query().Get("format") == "json") {
			t.Errorf("%s: JSON %v", address, json)
		}
		if requested.Query().Get("format") != "" {
			continue
		}
		for _, form := range find(page, "form") {
			if to := browse(t, final, attribute(form, "action")); !strings.HasPrefix(to.String(), root) {
				t.Errorf("%s: a form leads to %s", address, to)
			}
		}
		for _, h1 := range find(page, "h1") {
			if title := find(h1, "bdi")[0].FirstChild; title != nil {
				titles[title.Data]++
			} else {
				titles[""]++
			}
		}
		for _, a := range find(page, "a") {
			to := browse(t, final, attribute(a, "href"))
			if to.Host == "example.com" && (text(a) == "Documentation" || strings.HasPrefix(to.String(), runbooks)) {
				continue
			}
			if !strings.HasPrefix(to.String(), root) {
				t.Errorf("%s: the link %q leads to %s", address, attribute(a, "href"), to)
				continue
			}
			todo = append(todo, to.String())
		}
	}
	for _, slug := range hostileSlugs { // of fleets and UUIDs of devices
		// HTML shows a replacement character for NUL.
		if slug = strings.ReplaceAll(slug, "\x00", "\ufffd"); titles[slug] < 2 && slug != "" {
			t.Errorf("%d links lead to the fleet and the device %q, want 2", titles[slug], slug)
		}
	}
}

// kindOf returns an address without the values of its parameters. The test visits one page for each combination of
// parameters.
func kindOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	if len(q) > 2 && strings.Contains(u.Path, "/search") || len(q) > 3 {
		return "too many" // there are thousands of combinations
	}
	kind := u.EscapedPath()
	for _, name := range slices.Sorted(maps.Keys(q)) {
		kind += " " + name
		if name == "format" {
			kind += q.Get(name)
		}
	}
	return kind
}

func TestPathsOfSlugs(t *testing.T) {
	for slug, want := range map[string]string{
		"acme/green":      "fleets/acme/green",
		"../../-/healthy": "fleets/~../~../-/healthy",
		"a//b":            "fleets/a/~/b",
		"~a":              "fleets/~~a",
		"...":             "fleets/~...",
		"":                "fleets/~",
		"a.b/.c":          "fleets/a.b/.c",
	} {
		if got := slugPath(slug); got != want {
			t.Errorf("path of %q is %q, want %q", slug, got, want)
		}
	}
}

// FuzzPathsOfSlugs checks that the path of each slug is clean and resolves to the slug.
func FuzzPathsOfSlugs(f *testing.F) {
	for _, slug := range hostileSlugs {
		f.Add(slug)
	}
	f.Fuzz(func(t *testing.T, slug string) {
		base := &url.URL{Scheme: "https", Host: "example.com", Path: "/some/prefix/fleets"}
		u := browse(t, base, slugPath(slug))
		path, under := strings.CutPrefix(u.Path, "/some/prefix/fleets/")
		if !under || u.Host != base.Host || u.RawQuery != "" || u.Fragment != "" {
			t.Fatalf("%q leads to %s", slug, u)
		}
		if got := slugOf(path); got != slug {
			t.Errorf("%q leads to %q", slug, got)
		}
		if slices.Contains(strings.Split(u.EscapedPath()[1:], "/"), "") {
			t.Errorf("%q leads to %s, which is not clean", slug, u)
		}
	})
}
