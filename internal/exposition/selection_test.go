// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// sectioned returns a page with 8 sections: a fleet, and in each section a device and its service, except one device
// without a service.
func sectioned() *Page {
	b := NewBuilder(Layout{
		{[]byte("# TYPE fleet gauge\n"), "fleet"},
		{[]byte("# TYPE device gauge\n"), "device"},
		{[]byte("# TYPE service gauge\n"), "service"},
		{[]byte("# TYPE key gauge\n"), "key"},
	}, nil)
	for i := range 8 {
		if i > 0 {
			b.EndSection()
		}
		b.Add(1, fmt.Appendf(nil, "device{n=\"%d\"} 1\n", i))
		if i != 5 {
			b.Add(2, fmt.Appendf(nil, "service{n=\"%d\"} 1\n", i))
		}
	}
	b.Append(0, []byte("fleet 1\n"))
	b.Append(3, []byte("key 1\n"))
	return b.Page()
}

func TestSelections(t *testing.T) {
	address := serve(t, HandlerOptions{Page: always(sectioned()), Live: fixed(t), Groups: []string{"fleet", "device", "service", "key"}, Parts: 8})
	const (
		fleet = "# TYPE fleet gauge\nfleet 1\n"
		key   = "# TYPE key gauge\nkey 1\n"
	)
	device := func(numbers ...int) string { return samples("device", numbers) }
	service := func(numbers ...int) string { return samples("service", numbers) }
	for query, want := range map[string]string{
		"":                                   fleet + device(0, 1, 2, 3, 4, 5, 6, 7) + service(0, 1, 2, 3, 4, 6, 7) + key + fixedText,
		"part=0/1":                           fleet + device(0, 1, 2, 3, 4, 5, 6, 7) + service(0, 1, 2, 3, 4, 6, 7) + key + fixedText,
		"part=0/2":                           fleet + device(0, 1, 2, 3) + service(0, 1, 2, 3) + key + fixedText,
		"part=1/2":                           device(4, 5, 6, 7) + service(4, 6, 7),
		"part=0/8":                           fleet + device(0) + service(0) + key + fixedText,
		"part=5/8":                           device(5),
		"collect[]=fleet":                    fleet,
		"collect[]=exporter":                 fixedText,
		"collect[]=service&collect[]=key":    service(0, 1, 2, 3, 4, 6, 7) + key,
		"collect[]=device&part=1/4":          device(2, 3),
		"collect[]=fleet&part=1/4":           "",
		"collect[]=exporter&part=1/4":        "",
		"collect[]=fleet&collect[]=fleet":    fleet,
		"collect%5B%5D=fleet&unrelated=true": fleet,
	} {
		for _, encoding := range []string{"gzip", "identity"} {
			response, body := request(t, http.MethodGet, address+"?"+query, encoding)
			got := string(body)
			if encoding == "gzip" {
				got = gunzip(t, body)
			}
			if response.StatusCode != http.StatusOK || got != want || response.ContentLength != int64(len(body)) {
				t.Errorf("%s, %s: %s, length %d of %d:\n%s\nwant\n%s", query, encoding, response.Status, response.ContentLength, len(body), got, want)
			}
		}
	}
}

func samples(family string, numbers []int) string {
	text := "# TYPE " + family + " gauge\n"
	for _, n := range numbers {
		text += fmt.Sprintf("%s{n=\"%d\"} 1\n", family, n)
	}
	return text
}

func TestInvalidSelections(t *testing.T) {
	const index = "part must be INDEX/COUNT, such as 0/6, with INDEX counted from 0\n"
	for query, want := range map[string]string{
		"collect[]=disk": "unknown group \"disk\"; valid values of collect[]: fleet, device, exporter\n",
		"collect[]=":     "unknown group \"\"; valid values of collect[]: fleet, device, exporter\n",
		"part=":          index, "part=1": index, "part=a/2": index, "part=0/b": index, "part=-1/2": index, "part=2/2": index, "part=0/0": index,
		"part=0/2/3": index, "part=0/2&part=1/2": index, "part=0/99999999999999999999": index,
		"part=0/4":  "the exporter runs with --web.parts=6, which is not divisible by 4\n",
		"part=0/12": "the exporter runs with --web.parts=6, which is not divisible by 12\n",
	} {
		address := serve(t, HandlerOptions{Page: always(sectioned()), Groups: []string{"fleet", "device"}, Parts: 6})
		if response, body := request(t, http.MethodGet, address+"?"+query, "gzip"); response.StatusCode != http.StatusBadRequest || string(body) != want {
			t.Errorf("%s: %s %q, want %q", query, response.Status, body, want)
		}
	}
	address := serve(t, HandlerOptions{Page: always(sectioned())})
	if _, body := request(t, http.MethodGet, address+"?part=1/3", "gzip"); string(body) != "the exporter does not divide expositions into parts; start it with --web.parts=3\n" {
		t.Errorf("without parts: %q", body)
	}
}

// For every number of parts, all parts together have each line of the page once, and each header in every part that needs it.
func TestPartsTogetherAreThePage(t *testing.T) {
	page := sectioned()
	whole := strings.Split(strings.TrimSpace(text(t, page)), "\n")
	slices.Sort(whole)
	for _, parts := range []int{1, 2, 4, 8} {
		var all []string
		for part := range parts {
			e := page.selected(&Selection{Part: part, Parts: parts})
			all = append(all, strings.Split(strings.TrimSpace(inflated(t, &e)), "\n")...)
		}
		slices.Sort(all)
		if all = slices.CompactFunc(all, func(a, b string) bool { return a == b && strings.HasPrefix(a, "#") }); !slices.Equal(all, whole) {
			t.Errorf("%d parts have %q, want %q", parts, all, whole)
		}
	}
}

func FuzzSelection(f *testing.F) {
	for _, query := range []string{"", "part=1/2", "collect[]=device&part=7/8", "part=%2f", "part=1/2;part=2/2", "collect[]"} {
		f.Add(query)
	}
	page := sectioned()
	h := newHandler(HandlerOptions{Page: always(page), Groups: []string{"fleet", "device", "service", "key"}, Parts: 8})
	f.Fuzz(func(t *testing.T, query string) {
		values, _ := url.ParseQuery(query)
		s, err := h.selection(values)
		if err != nil {
			return
		}
		e := page.selected(s)
		if lines := inflated(t, &e); len(lines) > len(text(t, page)) || lines != "" && !strings.HasPrefix(lines, "# TYPE ") {
			t.Errorf("%q selects %q", query, lines)
		}
	})
}
