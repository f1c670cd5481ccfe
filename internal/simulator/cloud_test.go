// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// newCloud returns the simulator of a generated account on balenaCloud after some ticks, and its server.
func newCloud(t *testing.T) (*Simulator, *httptest.Server) {
	t.Helper()
	clock := newClock()
	sim, srv := newSimulator(t, Config{Edition: Cloud, Devices: 400, Fleets: 7, Seed: 1, Now: clock.now}, nil)
	for range 50 {
		clock.advance(time.Minute)
		sim.Tick()
	}
	return sim, srv
}

// rowsAt returns the rows of the response to a request.
func rowsAt(t *testing.T, srv *httptest.Server, target string) []map[string]any {
	t.Helper()
	status, body := get(t, srv, target)
	var decoded struct{ D []map[string]any }
	if err := json.Unmarshal([]byte(body), &decoded); status != http.StatusOK || err != nil {
		t.Fatalf("%s: %d %.200s %v", target, status, body, err)
	}
	return decoded.D
}

// TestCloudHasTheDeclaredFields checks that the cloud edition accepts declared fields in all options that their type allows, and
// no other fields.
func TestCloudHasTheDeclaredFields(t *testing.T) {
	_, srv := newCloud(t)
	status := func(target string) int {
		t.Helper()
		code, body := get(t, srv, "/v7/"+target)
		if code == http.StatusInternalServerError && body != "" {
			t.Errorf("%s: status 500 with the body %.100s, want none", target, body)
		}
		return code
	}
	for resource, declared := range cloudModel {
		names := maps.Clone(declared)
		for name := range openSchema[resource].byName {
			if _, ok := names[name]; !ok {
				names[name] = declaration{}
			}
		}
		for name := range openSchema[resource].navs {
			if _, ok := names[name]; !ok {
				names[name] = declaration{}
			}
		}
		names["nope"] = declaration{}
		for name, d := range names {
			readable := d.Type != "" && d.Type != "navigation"
			followed := d.Type == "navigation" || d.Type == "reference"
			for use, known := range map[string]bool{
				"$select=" + name:                             readable,
				"$orderby=" + name + "%20asc":                 readable,
				"$filter=" + name + "%20ne%20null":            readable,
				"$expand=" + name:                             followed,
				"$filter=" + name + "/any(x:1%20eq%201)":      followed,
				"$expand=" + name + "/$count":                 followed,
				"$select=id&$filter=" + name + "/$count+ge+0": followed,
			} {
				want := map[bool]int{true: 200, false: 500}[known]
				if got := status(resource + "?$top=1&" + use); got != want {
					t.Errorf("%s?%s: %d, want %d", resource, use, got, want)
				}
			}
		}
	}
	for resource, want := range map[string]int{"image__is_part_of__release": 200, "service_install": 401, "team": 401, "nope": 401} {
		if got := status(resource + "?$top=1"); got != want {
			t.Errorf("%s: %d, want %d", resource, got, want)
		}
	}
}

// TestCloudValuesMatchTheirDeclaration checks types and nulls of values, and that navigations lead to simulated resources.
func TestCloudValuesMatchTheirDeclaration(t *testing.T) {
	_, srv := newCloud(t)
	for resource, declared := range cloudModel {
		var fields []string
		for name, d := range declared {
			if d.Type != "navigation" {
				fields = append(fields, name)
			}
		}
		rows := rowsAt(t, srv, "/v7/"+resource+"?$select="+strings.Join(fields, ","))
		if len(rows) == 0 {
			t.Errorf("%s has no rows", resource)
		}
		for _, row := range rows {
			for _, name := range fields {
				if d := declared[name]; !matchesDeclaration(row[name], d) {
					t.Errorf("%s.%s is %#v, declared as %+v", resource, name, row[name], d)
				}
			}
		}
	}
	// These navigations are not simulated.
	legacy := []string{"includes_legacy_link_to__user", "has_legacy_link_to__organization"}
	for resource, declared := range cloudModel {
		for name, d := range declared {
			_, simulated := cloudModel[d.Target]
			if nav := cloudSchema()[resource].navs[name]; simulated && nav.key == nil && nav.back == nil && !slices.Contains(legacy, name) {
				t.Errorf("%s.%s leads to %s, but has no foreign key", resource, name, d.Target)
			}
		}
	}
}

func matchesDeclaration(v any, d declaration) bool {
	if v == nil {
		return d.Null
	}
	switch d.Type {
	case "Boolean":
		_, ok := v.(bool)
		return ok
	case "Integer":
		_, ok := v.(float64)
		return ok
	case "Text", "Short Text", "Big Integer":
		_, ok := v.(string)
		return ok
	case "Date Time":
		s, _ := v.(string)
		_, err := time.Parse(time.RFC3339, s)
		return err == nil
	case "JSON":
		_, ok := v.(map[string]any)
		return ok
	case "reference":
		m, _ := v.(map[string]any)
		_, ok := m["__id"].(float64)
		return ok && len(m) == 1
	}
	return false
}

// TestCloudFieldsChange checks that fields which only balenaCloud has have different values, and change with ticks.
func TestCloudFieldsChange(t *testing.T) {
	clock := newClock()
	sim, srv := newSimulator(t, Config{Edition: Cloud, Devices: 400, Fleets: 7, Seed: 1, Now: clock.now}, nil)
	seen := make(map[string]map[string]bool)
	collect := func() {
		for resource, fields := range map[string]string{
			"device":       "is_active,is_frozen,latitude,longitude,custom_latitude,custom_longitude,location,is_accessible_by_support_until__date",
			"organization": "is_frozen,has_past_due_invoice_since__date", "application": "is_accessible_by_support_until__date",
		} {
			for _, row := range rowsAt(t, srv, "/v7/"+resource+"?$select="+fields) {
				for name, v := range row {
					if key := resource + "." + name; seen[key] == nil {
						seen[key] = map[string]bool{fmt.Sprint(v): true}
					} else {
						seen[key][fmt.Sprint(v)] = true
					}
				}
			}
		}
	}
	collect()
	for key, values := range seen {
		if len(values) < 2 && key != "organization.is_frozen" {
			t.Errorf("%s is always %v in a new account", key, values)
		}
	}
	frozen := false
	for i := 0; i < 20_000 && !frozen; i++ {
		clock.advance(15 * time.Second)
		sim.Tick()
		sim.Update(func(st *State) {
			frozen = slices.ContainsFunc(st.Organizations.All(), func(o *Organization) bool { return o.IsFrozen })
		})
	}
	for _, d := range rowsAt(t, srv, "/v7/device?$select=is_online,overall_status,is_frozen,is_active&$filter=belongs_to__application/any(a:a/organization/any(o:o/is_frozen+eq+true))") {
		if d["is_frozen"] != true && d["is_active"] == true || d["is_online"] == true {
			t.Errorf("a device of a frozen organization is %v", d)
		}
	}
	if !frozen {
		t.Error("no organization was ever frozen")
	}
}

// TestCloudWithoutToken checks that only published applications can be read without a token.
func TestCloudWithoutToken(t *testing.T) {
	sim, srv := newSimulator(t, Config{Edition: Cloud, Devices: 10, Fleets: 2, Tokens: []string{"another"}}, nil)
	hosts := rowsAt(t, srv, "/v7/application?$select=slug&$filter=is_host+eq+true&$expand=owns__release($expand=release_tag),application_tag")
	if len(hosts) != 2*len(deviceTypes) {
		t.Errorf("%d host applications, want two for each of %d device types", len(hosts), len(deviceTypes))
	}
	for resource, table := range map[string]interface{ Len() int }{"release": &sim.database.Releases, "application": &sim.database.Fleets, "application_tag": &sim.database.FleetTags} {
		rows := rowsAt(t, srv, "/v7/"+resource+"?$select=id")
		if len(rows) == 0 || len(rows) >= table.Len() {
			t.Errorf("%s: %d of %d rows can be read without a token", resource, len(rows), table.Len())
		}
	}
	for _, target := range []string{
		"device", "organization", "api_key", "application?$expand=owns__device", "application?$filter=is_directly_accessible_by__user/any(dau:1%20eq%201)",
	} {
		if status, body := get(t, srv, "/v7/"+target); status != 401 || body != "" {
			t.Errorf("%s: %d %.100s, want 401 without a body", target, status, body)
		}
	}
	if status, body := get(t, srv, "/config"); status != 200 || !strings.Contains(body, `"deviceUrlsBase":"balena-devices.com"`) {
		t.Errorf("/config: %d %s", status, body)
	}
}

// TestCloudWithDataset checks that a recorded account is the same in both editions, and that published applications do not
// belong to it.
func TestCloudWithDataset(t *testing.T) {
	_, open := newSimulator(t, Config{Dataset: loadDataset(t)}, nil)
	_, cloud := newSimulator(t, Config{Dataset: loadDataset(t), Edition: Cloud}, nil)
	for _, target := range []string{
		"/v7/device?$select=id,uuid,overall_status&$orderby=id+asc",
		"/v7/application?$select=id,slug&$orderby=id+asc&$filter=is_directly_accessible_by__user/any(dau:1%20eq%201)",
		"/v7/organization?$select=id,handle&$orderby=id+asc",
	} {
		_, want := get(t, open, target)
		if _, got := get(t, cloud, target); got != want {
			t.Errorf("%s differs between the editions", target)
		}
	}
	if rows := rowsAt(t, cloud, "/v7/application?$select=id&$filter=is_host+eq+true+and+is_public+eq+true"); len(rows) < 10 {
		t.Errorf("%d public host applications", len(rows))
	}
	if status, _ := get(t, open, "/config"); status != 404 {
		t.Errorf("/config of openBalena: %d, want 404", status)
	}
}

// TestCloudResponsesAreADataset checks that responses of the cloud edition can be loaded as a dataset.
func TestCloudResponsesAreADataset(t *testing.T) {
	_, srv := newCloud(t)
	files := make(fstest.MapFS)
	for _, resource := range []string{"organization", "device", "application", "release", "release_tag", "device_type"} {
		_, body := get(t, srv, "/v7/"+resource+map[string]string{"device_type": "?$select=id,slug,name&$expand=is_of__cpu_architecture($select=slug)"}[resource])
		files[resource+".json"] = &fstest.MapFile{Data: []byte(body)}
	}
	ds, err := LoadDataset(files)
	if err != nil {
		t.Fatal(err)
	}
	_, again := newSimulator(t, Config{Edition: Cloud, Dataset: ds}, nil)
	for _, target := range []string{
		"organization?$select=handle,is_frozen,has_past_due_invoice_since__date", "application?$select=slug,is_accessible_by_support_until__date",
		"application?$select=slug&$filter=is_directly_accessible_by__user/any(dau:1%20eq%201)",
		"device?$select=uuid,is_frozen,is_active,latitude,longitude,custom_latitude,custom_longitude,location,is_accessible_by_support_until__date",
		"release?$select=raw_version,variant,source,known_issue_list,phase", "release_tag?$select=tag_key,value",
	} {
		target += "&$orderby=id%20asc"
		_, want := get(t, srv, "/v7/"+target)
		if _, got := get(t, again, "/v7/"+target); got != want {
			t.Errorf("%s differs", target)
		}
	}
}

// TestModel checks that /simulator/model returns the fields of an edition.
func TestModel(t *testing.T) {
	for edition, want := range map[Edition]string{
		OpenBalena: "[Date Time] []", Cloud: "[] [Boolean]",
	} {
		_, srv := newSimulator(t, Config{Edition: edition}, nil)
		var model map[string]map[string]declaration
		if _, body := get(t, srv, "/simulator/model"); json.Unmarshal([]byte(body), &model) != nil {
			t.Fatal(body)
		}
		if got := fmt.Sprintf("[%s] [%s]", model["image_install"]["modified_at"].Type, model["device"]["is_frozen"].Type); got != want {
			t.Errorf("the types of edition %s are %s, want %s", edition, got, want)
		}
	}
}

func TestUnknownEdition(t *testing.T) {
	if _, err := New(Config{Edition: "azure"}); err == nil || !strings.Contains(err.Error(), `"azure"`) {
		t.Errorf("error %v, want one that contains the name", err)
	}
}
