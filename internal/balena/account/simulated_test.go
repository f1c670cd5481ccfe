// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// The simulator gives every field that the exporter reads a value in some row. If a field is null, false, zero or empty in
// all rows, its metric has no sample in any test or in the demo. The fields are taken from the requests of a reader that
// reads everything, so that this test needs no list of fields.
func TestSimulatorGivesEveryFieldAValue(t *testing.T) {
	seen := fieldValues{}
	for _, server := range []struct {
		edition simulator.Edition
		version balena.Version
	}{{simulator.Cloud, balena.V7}, {simulator.OpenBalena, balena.V7}, {simulator.OpenBalena, balena.V6}} {
		clock := newClock()
		sim := newSimulator(t, simulator.Config{Devices: 600, Fleets: 100, Seed: 1, Edition: server.edition, Now: clock.Now})
		reader := newClient(t, "http://simulator.test", withClock(clock), through(&fieldReader{t, sim, seen}), everything, func(c *account.Config) {
			c.Version = server.version
		})
		// The account changes, because some fields have values only during an update, or after a release.
		for minute := range 120 {
			if minute%10 == 0 {
				fetchWithParts(t, reader)
			}
			clock.advance(time.Minute)
			sim.Tick()
		}
	}
	if len(seen) < 50 {
		t.Errorf("only %d fields were asked for: %v", len(seen), slices.Sorted(maps.Keys(seen)))
	}
	for _, field := range slices.Sorted(maps.Keys(seen)) {
		if !seen[field] && field != "application.is_host" { // the condition for the list requires false
			t.Errorf("the exporter asks for %s, and the simulator gives it no value in any row", field)
		}
	}
}

// everything switches on all options that decide what is read, including future ones, and makes every refresh a full one.
func everything(c *account.Config) {
	for _, option := range reflect.ValueOf(&c.Options).Elem().Fields() {
		if option.Kind() == reflect.Bool {
			option.SetBool(true)
		}
	}
	c.SlowInterval = 0
}

// fieldValues reports for each requested field, by resource and name, whether some row had a value.
type fieldValues map[string]bool

// fieldReader answers requests with a handler, and records the values of the requested fields.
type fieldReader struct {
	t       *testing.T
	handler http.Handler
	seen    fieldValues
}

func (f *fieldReader) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Del("Accept-Encoding")
	r.RequestURI = r.URL.RequestURI()
	recorder := httptest.NewRecorder()
	f.handler.ServeHTTP(recorder, r)
	var answer struct{ D any }
	if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil && recorder.Code == http.StatusOK {
		f.t.Errorf("%s: %v", r.URL, err)
	}
	if rows, ok := answer.D.([]any); ok { // not a count
		f.seen.note(path.Base(r.URL.Path), split(r.URL.RawQuery, '&'), rows)
	}
	return recorder.Result(), nil
}

// note records the values of the fields that options request: $select, $expand, and the options of expanded properties.
func (v fieldValues) note(name string, options []string, rows []any) {
	see := func(field, property string) {
		v[field] = v[field] || slices.ContainsFunc(rows, func(row any) bool { return hasValue(row.(map[string]any)[property]) })
	}
	for _, option := range options {
		if fields, ok := strings.CutPrefix(option, "$select="); ok {
			for field := range strings.SplitSeq(fields, ",") {
				see(name+"."+field, field)
			}
		}
		expanded, ok := strings.CutPrefix(option, "$expand=")
		if !ok {
			continue
		}
		for _, property := range split(expanded, ',') {
			property, inner, nested := strings.Cut(property, "(")
			field := name + "." + property
			property, _, _ = strings.Cut(property, "/") // owns__device/$count
			if !nested {
				see(field, property)
				continue
			}
			var expandedRows []any
			for _, row := range rows {
				if of, ok := row.(map[string]any)[property].([]any); ok {
					expandedRows = append(expandedRows, of...)
				}
			}
			v.note(field, split(strings.TrimSuffix(inner, ")"), ';'), expandedRows)
		}
	}
}

// hasValue reports whether a value differs from that of an empty field.
func hasValue(value any) bool {
	switch v := value.(type) {
	case nil:
		return false
	case []any:
		return len(v) > 0
	case map[string]any: // the reference to another row
		return len(v) > 0
	default:
		return !reflect.ValueOf(v).IsZero()
	}
}

// split splits options at separators outside parentheses.
func split(options string, separator rune) []string {
	depth := 0
	return strings.FieldsFunc(options, func(r rune) bool {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		}
		return r == separator && depth == 0
	})
}
