// Exporter prints which fields the exporter asks balenaCloud for, and how, as the JSON that uses.js takes. It takes them
// from the requests of a reader that reads all there is, so that nothing is listed twice.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// A use is a field of a resource, and the option in which it is named: select, expand, filter or orderby.
type use struct {
	Resource string `json:"resource"`
	Field    string `json:"field"`
	Use      string `json:"use"`
}

// An exception is a field that is asked for although it is not declared.
type exception struct {
	Resource string `json:"resource"`
	Field    string `json:"field"`
	Reason   string `json:"reason"`
	Fallback string `json:"fallback"`
}

var exceptions = []exception{
	{
		"image_install", "modified_at", "openBalena has it on all resources, and it is the best way to find what changed.",
		"Devices that download are asked for, and services with their devices.",
	},
	{
		"device_tag", "modified_at", "openBalena has it on all resources, and it is the best way to find what changed.",
		"Tags are asked for with their devices, and all tags in full refreshes.",
	},
}

func main() {
	log.SetFlags(0)
	requests, model, err := record()
	if err != nil {
		log.Fatal(err)
	}
	found := map[use]bool{}
	for _, r := range requests {
		p := parser{model: model, found: found}
		p.request(r)
	}
	uses := slices.SortedFunc(maps.Keys(found), func(a, b use) int {
		return strings.Compare(a.Resource+" "+a.Field+" "+a.Use, b.Resource+" "+b.Field+" "+b.Use)
	})
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	if err := out.Encode(map[string]any{"uses": uses, "exceptions": exceptions}); err != nil {
		log.Fatal(err)
	}
}

// A model has the target of each field that leads to a resource.
type model map[string]map[string]struct {
	Target string `json:"target"`
}

// record returns the requests of a reader that reads everything: in full, for what changed by each of the questions, and
// with devices that come and go.
func record() ([]*url.URL, model, error) {
	var mutex sync.Mutex
	now := time.Date(2026, time.November, 22, 12, 0, 0, 0, time.UTC)
	sim, err := simulator.New(simulator.Config{Edition: simulator.Cloud, Devices: 60, Fleets: 3, Seed: 1, Now: func() time.Time { return now }})
	if err != nil {
		return nil, nil, err
	}
	var requests []*url.URL
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mutex.Lock()
		requests = append(requests, r.URL)
		mutex.Unlock()
		sim.ServeHTTP(w, r)
	}))
	defer server.Close()
	address, err := url.Parse(server.URL)
	if err != nil {
		return nil, nil, err
	}
	reader, err := account.New(account.Config{
		Config:   api.Config{URL: address, Token: api.StaticToken("token"), Timeout: time.Minute, Now: func() time.Time { return now }},
		Version:  balena.V7,
		PageSize: 1000,
		Options: account.Options{
			Devices: true, Releases: true, Services: true, Keys: true, DeviceTags: []string{"site"}, FleetTags: []string{"team"},
			ArchivedFleets: true, SlowInterval: time.Minute, FullSweepInterval: 24 * time.Hour,
		},
	})
	if err != nil {
		return nil, nil, err
	}
	defer reader.Close()
	var mode balena.Mode
	for n := range 6 {
		s, err := reader.Fetch(context.Background())
		if err != nil {
			return nil, nil, err
		}
		mode = s.Reading.Mode
		now = now.Add(time.Minute)
		sim.Update(func(st *simulator.State) {
			st.DeleteDevice(10 + n)
			st.AddDevice(simulator.Device{FleetID: 1})
		})
	}
	if mode != balena.DevicesOnly {
		return nil, nil, fmt.Errorf("changes are asked for by %s: the requests of %s are missing", mode, balena.DevicesOnly)
	}
	asked := requests
	resp, err := http.Get(server.URL + "/simulator/model")
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var m model
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
		return nil, nil, err
	}
	return asked, m, nil
}

// A parser finds the uses in requests.
type parser struct {
	model model
	found map[use]bool
}

func (p parser) request(u *url.URL) {
	resource, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/v7/"), "/")
	query, err := url.PathUnescape(u.RawQuery)
	if err != nil {
		log.Fatal(err)
	}
	p.options(resource, split(quoted.ReplaceAllString(query, "0"), '&'))
}

// quoted is a string in a query, of which nothing is read.
var quoted = regexp.MustCompile(`(datetime)?'([^']|'')*'`)

// split divides a text at a separator that is in no brackets.
func split(s string, separator byte) (parts []string) {
	depth, begin := 0, 0
	for i := range len(s) {
		switch s[i] {
		case '(':
			depth++
		case ')':
			depth--
		case separator:
			if depth == 0 {
				parts, begin = append(parts, s[begin:i]), i+1
			}
		}
	}
	return append(parts, s[begin:])
}

// use notes a use, and returns to which resource the field leads.
func (p parser) use(resource, field, how string) string {
	p.found[use{resource, field, how}] = true
	return p.model[resource][field].Target
}

func (p parser) options(resource string, options []string) {
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "", "$top":
		case "$select":
			for field := range strings.SplitSeq(value, ",") {
				p.use(resource, field, "select")
			}
		case "$orderby":
			for field := range strings.SplitSeq(value, ",") {
				field, _, _ = strings.Cut(field, " ")
				p.use(resource, field, "orderby")
			}
		case "$expand":
			for _, expanded := range split(value, ',') {
				path, options, _ := strings.Cut(expanded, "(")
				field, _, _ := strings.Cut(path, "/")
				p.options(p.use(resource, field, "expand"), split(strings.TrimSuffix(options, ")"), ';'))
			}
		case "$filter":
			p.filter(resource, value)
		default:
			log.Fatalf("%s: the option %s is not known", resource, name)
		}
	}
}

var (
	path     = regexp.MustCompile(`[a-z_]+(/[a-z_]+)*(\([a-z]+:)?`)
	operator = regexp.MustCompile(`^(and|or|not|in|eq|ne|gt|ge|lt|le|null|true|false)$`)
)

// filter finds the fields in a condition: a path begins at the resource, or at the variable of an any.
func (p parser) filter(resource, condition string) {
	variables := map[string]string{}
	for _, found := range path.FindAllString(condition, -1) {
		if operator.MatchString(found) {
			continue
		}
		found, variable, binds := strings.Cut(strings.TrimSuffix(found, ":"), "/any(")
		at, fields := resource, strings.Split(found, "/")
		if target, ok := variables[fields[0]]; ok {
			at, fields = target, fields[1:]
		}
		for _, field := range fields {
			at = p.use(at, field, "filter")
		}
		if binds {
			variables[variable] = at
		}
	}
}
