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

// The simulator gives every field that the exporter asks for a value in some row. A field that is null, false, zero or
// empty in all rows leaves its metric without a sample in every test and in the demo. The fields are taken from the
// requests of a reader that reads everything, so that this test needs no list of its own.
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
		// The account lives, since some fields have values only while a device is updated, or after a release.
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
		if !seen[field] && field != "application.is_host" { // which the condition for the list wants to be false
			t.Errorf("the exporter asks for %s, and the simulator gives it no value in any row", field)
		}
	}
}

// everything switches all options on that decide what is asked for, those included that are yet to be added, and asks
// for everything at each refresh.
func everything(c *account.Config) {
	for _, option := range reflect.ValueOf(&c.Options).Elem().Fields() {
		if option.Kind() == reflect.Bool {
			option.SetBool(true)
		}
	}
	c.SlowInterval = 0
}

// fieldValues tells of each field that was asked for, by resource and name, whether some row had a value of it.
type fieldValues map[string]bool

// fieldReader answers requests as a handler does, and notes the values of the fields that they ask for.
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
	if rows, ok := answer.D.([]any); ok { // and no number of rows
		f.seen.note(path.Base(r.URL.Path), split(r.URL.RawQuery, '&'), rows)
	}
	return recorder.Result(), nil
}

// note notes what rows hold of the fields that options ask for: $select, $expand, and the options of what is expanded.
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

// hasValue reports whether a value tells more than a field of which nothing is known.
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

// split splits options where the separator is in no parentheses.
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
