// SPDX-License-Identifier: Apache-2.0

// Exporter prints the fields that the exporter requests from balenaCloud, how it uses them, and the types of their values.
// The output is the JSON that uses.js reads. The fields are found in the requests of a reader that reads everything, and
// the types in its errors about answers with other values, so that no list has to be maintained.
package main

import (
	"cmp"
	"context"
	"encoding/json"
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
	"sync/atomic"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// A use is a field of a resource, and the option that names it: select, expand, filter or orderby.
type use struct {
	Resource string `json:"resource"`
	Field    string `json:"field"`
	Use      string `json:"use"`
	// Takes is the type that the reader expects, such as "a string"; empty if it does not read the value.
	Takes string `json:"takes,omitempty"`
	// Null is set if the reader accepts null too.
	Null bool `json:"null,omitempty"`
	// at is where the values are read; empty if they are not read.
	at place
}

// A place is where values of a field are read: the requested resource, and the path to the field.
type place struct{ resource, path string }

// An exception is a field that is requested although it is not declared.
type exception struct {
	Resource string `json:"resource"`
	Field    string `json:"field"`
	Reason   string `json:"reason"`
	Fallback string `json:"fallback"`
}

var exceptions = []exception{
	{
		"image_install", "modified_at", "openBalena has it on all resources, and it is the best way to find what changed.",
		"Devices that download are read, and services together with their devices.",
	},
	{
		"device_tag", "modified_at", "openBalena has it on all resources, and it is the best way to find what changed.",
		"Tags are read together with their devices, and all tags in full refreshes.",
	},
}

func main() {
	log.SetFlags(0)
	requests, model := record()
	p := parser{model: model, found: map[use]bool{}}
	for _, r := range requests {
		resource, query := resourceOf(r), must(url.PathUnescape(r.RawQuery))
		p.options(place{resource: resource}, resource, split(quoted.ReplaceAllString(query, "0"), '&'))
	}
	typed := map[use]bool{} // the same field may be read at several places
	for u := range p.found {
		if u.at != (place{}) {
			u.Takes, u.Null = takes(u.at)
			u.at = place{}
		}
		typed[u] = true
	}
	uses := slices.SortedFunc(maps.Keys(typed), func(a, b use) int {
		return cmp.Or(strings.Compare(a.Resource, b.Resource), strings.Compare(a.Field, b.Field), strings.Compare(a.Use, b.Use), strings.Compare(a.Takes, b.Takes))
	})
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	if err := out.Encode(map[string]any{"uses": uses, "exceptions": exceptions}); err != nil {
		log.Fatal(err)
	}
}

// must returns a value, or ends the program with an error.
func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// A model has the target of each field that leads to a resource.
type model map[string]map[string]struct {
	Target string `json:"target"`
}

// start is the time of the simulated accounts.
var start = time.Date(2026, time.November, 22, 12, 0, 0, 0, time.UTC)

func simulate(now func() time.Time) *simulator.Simulator {
	return must(simulator.New(simulator.Config{Edition: simulator.Cloud, Devices: 60, Fleets: 3, Seed: 1, Now: now}))
}

// newReader returns a reader that reads everything: services by themselves, or how many of them run with the devices.
func newReader(server string, now func() time.Time, services bool) *account.Reader {
	return must(account.New(account.Config{
		Config:   api.Config{URL: must(url.Parse(server)), Token: api.StaticToken("token"), Timeout: time.Minute, Now: now},
		Version:  balena.V7,
		PageSize: 1000,
		Options: account.Options{
			Devices: true, Releases: true, Services: services, ServiceSummary: true, Keys: true, OS: true, Location: true,
			DeviceTags: []string{"site", "owner*"}, FleetTags: []string{"env"}, TagLimit: 20, MaintenanceTag: simulator.MaintenanceTag,
			ArchivedFleets: true, SlowInterval: time.Minute, FullRefreshInterval: 24 * time.Hour,
		},
	}))
}

// record returns the requests of a reader: in full refreshes, in each mode of incremental refreshes, and with devices that
// are added and removed.
func record() (requests []*url.URL, m model) {
	var mutex sync.Mutex
	now := start
	clock := func() time.Time { return now }
	sim := simulate(clock)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mutex.Lock()
		requests = append(requests, r.URL)
		mutex.Unlock()
		sim.ServeHTTP(w, r)
	}))
	for services := range 2 { // read by themselves, or with the devices
		reader := newReader(server.URL, clock, services == 0)
		var mode balena.Mode
		for n := range 6 {
			mode = must(reader.Fetch(context.Background())).Reading.Mode
			now = now.Add(time.Minute)
			sim.Update(func(st *simulator.State) {
				st.DeleteDevice(10 + 6*services + n)
				st.AddDevice(simulator.Device{FleetID: 1})
			})
		}
		reader.Close()
		if mode != balena.DevicesOnly {
			log.Fatalf("the mode of incremental refreshes is %s: the requests of %s are missing", mode, balena.DevicesOnly)
		}
	}
	server.Close()
	answer := httptest.NewRecorder()
	sim.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/simulator/model", nil))
	if err := json.Unmarshal(answer.Body.Bytes(), &m); err != nil {
		log.Fatal(err)
	}
	return requests, m
}

// takes returns the type that a reader expects at a place, from its error about an object, which it never accepts. null
// reports whether it accepts null.
func takes(at place) (kind string, null bool) {
	object := readAnswer(at, map[string]any{})
	if object == "" { // the value is not read
		return "", false
	}
	path := strings.ReplaceAll(at.path, "/", `: (?:element \d+: )?`)
	matches := regexp.MustCompile(": " + path + ": found an object where (.+) was expected$").FindStringSubmatch(object)
	if matches == nil {
		log.Fatalf("an object as %s of %s: %s", at.path, at.resource, object)
	}
	return matches[1], !strings.Contains(readAnswer(at, nil), "found null where")
}

// readAnswer returns the first error of a reader for an account in which all values at a place are replaced.
func readAnswer(at place, by any) string {
	clock := func() time.Time { return start }
	sim := simulate(clock)
	var replaced atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if resourceOf(r.URL) != at.resource {
			sim.ServeHTTP(w, r)
			return
		}
		r.Header.Del("Accept-Encoding")
		answer := httptest.NewRecorder()
		sim.ServeHTTP(answer, r)
		var content any
		if json.Unmarshal(answer.Body.Bytes(), &content) != nil {
			w.WriteHeader(answer.Code) // the field is refused
			return
		}
		if replace(content, append([]string{"d"}, strings.Split(at.path, "/")...), by) {
			replaced.Store(true)
		}
		maps.Copy(w.Header(), answer.Header())
		w.Header().Del("Content-Length")
		w.WriteHeader(answer.Code)
		_ = json.NewEncoder(w).Encode(content)
	}))
	reader := newReader(server.URL, clock, at.resource != "device")
	snapshot, err := reader.Fetch(context.Background())
	reader.Close()
	server.Close()
	if !replaced.Load() {
		log.Fatalf("no answer has %s of %s", at.path, at.resource)
	}
	if err != nil {
		return err.Error()
	}
	for _, part := range snapshot.Parts {
		if part.Err != nil {
			return part.Err.Error()
		}
	}
	return ""
}

// replace sets the value at a path, in all elements of arrays along the path, and reports whether the path exists.
func replace(in any, path []string, by any) (replaced bool) {
	switch in := in.(type) {
	case []any:
		for _, element := range in {
			replaced = replace(element, path, by) || replaced
		}
	case map[string]any:
		value, has := in[path[0]]
		if has && len(path) == 1 {
			in[path[0]] = by
			return true
		}
		return has && replace(value, path[1:], by)
	}
	return replaced
}

// A parser finds the uses in requests.
type parser struct {
	model model
	found map[use]bool
}

func resourceOf(u *url.URL) string {
	resource, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/v7/"), "/")
	return resource
}

// quoted matches a string in a query, which is ignored.
var quoted = regexp.MustCompile(`(datetime)?'([^']|'')*'`)

// split splits a text at separators outside brackets.
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

// use records a use, at a place if the values are read, and returns the resource to which the field leads.
func (p parser) use(resource, field, how string, at place) string {
	p.found[use{Resource: resource, Field: field, Use: how, at: at}] = true
	return p.model[resource][field].Target
}

// below returns the place of a field of the objects at a place.
func (at place) below(field string) place {
	return place{at.resource, strings.TrimPrefix(at.path+"/"+field, "/")}
}

// options records the uses in the options of a resource that is read at a place.
func (p parser) options(at place, resource string, options []string) {
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "", "$top":
		case "$select":
			for field := range strings.SplitSeq(value, ",") {
				p.use(resource, field, "select", at.below(field))
			}
		case "$orderby":
			for field := range strings.SplitSeq(value, ",") {
				field, _, _ = strings.Cut(field, " ")
				p.use(resource, field, "orderby", place{})
			}
		case "$expand":
			for _, expanded := range split(value, ',') {
				path, options, _ := strings.Cut(expanded, "(")
				field, _, _ := strings.Cut(path, "/")
				target := p.use(resource, field, "expand", at.below(field))
				p.options(at.below(field), target, split(strings.TrimSuffix(options, ")"), ';'))
			}
		case "$filter":
			p.filter(resource, value)
		default:
			log.Fatalf("%s: unknown option %s", resource, name)
		}
	}
}

var (
	path     = regexp.MustCompile(`[a-z_]+(/[a-z_]+)*(\([a-z]+:)?`)
	operator = regexp.MustCompile(`^(and|or|not|in|eq|ne|gt|ge|lt|le|null|true|false|startswith|endswith)$`)
)

// filter finds the fields in a condition. A path begins at the resource, or at the variable of an any().
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
			at = p.use(at, field, "filter", place{})
		}
		if binds {
			variables[variable] = at
		}
	}
}
