// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A recording is a request to a real openBalena API server and its response. testdata/README.md describes their origin.
type recording struct {
	Name          string
	Method        string
	URL           string
	Authorization *string
	Status        int
	Headers       map[string]string
	Body          any
	Items         int
	Truncated     bool `json:"body_truncated_to_first_items"`
}

// skipped lists the recordings that are not replayed, with the reason.
var skipped = map[string]string{
	"auth_header_trailing_newline_space":         "net/http cannot send the header",
	"err_db_statement_timeout":                   "a fault of the database; see Fault",
	"compress_br":                                "the simulator supports only gzip, the coding that Go clients accept",
	"err_pg_down_application":                    "the database is down; Fault plays it",
	"err_pg_down_badkey":                         "the database is down; Fault plays it",
	"err_pg_down_device":                         "the database is down; Fault plays it",
	"err_pg_down_jwt_device":                     "the database is down; Fault plays it",
	"err_pg_down_warm_application":               "the database is down; Fault plays it",
	"err_pg_down_warm_application_noflt":         "the database is down; Fault plays it",
	"err_pg_down_warm_device":                    "the database is down; Fault plays it",
	"err_pg_down_whoami":                         "the database is down; Fault plays it",
	"err_put_badjson":                            "writing is not simulated",
	"err_revoked_jwt_application":                "revoked session tokens are not simulated; see Fault",
	"err_transaction_timeout_150ms":              "recorded with 22,004 devices, but the dataset has 2,004",
	"ratelimit_login_09":                         "logging in is not simulated",
	"ratelimit_login_10":                         "logging in is not simulated; TestFaults checks the body of a 429",
	"ratelimit_login_11":                         "logging in is not simulated; TestFaults checks the body of a 429",
	"resin_application_1_online_count_enabled":   "an unversioned model, which is not simulated",
	"resin_application_seed_unversioned_enabled": "an unversioned model, which is not simulated",
	"resin_device_all_fields":                    "an unversioned model, which is not simulated",
	"resin_release_all_fields":                   "an unversioned model, which is not simulated",
	"v6_my_application":                          "an old alias of application with the access filter, which is not simulated",
	"v7_service_install":                         "service_install contains only service variables, which are not simulated",
}

// notInDataset lists fields that the dataset does not contain, by the suffix of the name of the recording. Only their keys are
// compared.
var notInDataset = map[string][]string{
	// Addresses and serial numbers, which exporters must not request.
	"device_all_fields_no_select": {"public_address", "ip_address", "mac_address", "storage_block_device", "cpu_id"},
	// The source and the build of a release.
	"release_fields":       {"source", "start_timestamp", "end_timestamp", "update_timestamp", "invalidation_reason", "modified_at"},
	"api_key_list":         {"key", "description", "modified_at"},
	"application_tag_list": {"created_at", "modified_at"},
	"device_tag_list":      {"created_at", "modified_at"},
	"organization_list":    {"created_at", "modified_at"},
}

// differing lists recordings whose values differ from the dataset, which was exported later, with the reason. Only status, keys
// and types are compared.
var differing = map[string]string{
	"actor_whoami_devicekey":       "the actors of devices are invented; the uuid is a placeholder in the recording",
	"err_devicekey_device_list":    "the uuid is a placeholder in the recording",
	"v6_image_fields":              "the times, sizes and locations of images are invented",
	"v7_image_fields":              "the times, sizes and locations of images are invented",
	"v7_count_and_select_same_nav": "without $orderby, the first device depends on the database",
}

// revertChanges reverts the changes on the server between most of the recordings and the export of the dataset.
func revertChanges(st *State) {
	st.Device(1).ModifiedAt = st.Device(2).ModifiedAt
	st.APIKeys.Delete(14)
	d := st.Device(2002)
	d.heartbeat("online", At(time.Date(2026, 11, 22, 13, 55, 40, 736e6, time.UTC)))
	d.ModifiedAt = d.HeartbeatChangedOn
	d = st.Device(2004)
	d.heartbeat("unknown", 0)
	d.ModifiedAt = st.Device(2003).ModifiedAt + 1
}

func loadRecordings(t *testing.T) []recording {
	t.Helper()
	f, err := os.Open("testdata/answers.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []recording
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r recording
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if len(all) < 200 {
		t.Fatalf("%d recordings, want at least 200", len(all))
	}
	return all
}

// dataset is loaded only once, because loading is slow.
var dataset = sync.OnceValues(func() (*Dataset, error) { return LoadDataset(os.DirFS("testdata/dataset")) })

func loadDataset(t testing.TB) *Dataset {
	t.Helper()
	ds, err := dataset()
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

// userTokens are the tokens of users in the recordings.
var userTokens = []string{"<named-user-api-key>", "<session-token>", "<viewer-api-key>", "<apikey>"}

func newContractServer(t *testing.T, change func(*State)) *httptest.Server {
	sim, err := New(Config{
		Dataset:    loadDataset(t),
		Tokens:     userTokens,
		DeviceKeys: map[string]int{"<device-key>": 2002},
		// The time of the recordings, some of which request changes of the last hour.
		Now: func() time.Time { return time.Date(2026, 11, 22, 13, 57, 0, 0, time.UTC) },
	})
	if err != nil {
		t.Fatal(err)
	}
	sim.Update(change)
	srv := httptest.NewServer(sim)
	t.Cleanup(srv.Close)
	return srv
}

// authorizations are the headers of the recordings with the header "Bearer $custom".
var authorizations = map[string]string{
	"auth_double_space":            "Bearer  <named-user-api-key>",
	"auth_header_lowercase_bearer": "bearer <named-user-api-key>",
	"auth_header_token_scheme":     "Token <named-user-api-key>",
	"auth_trailing_space":          "Bearer <named-user-api-key> ",
}

// TestContract replays the recordings of a real server and compares the responses.
func TestContract(t *testing.T) {
	before, after := newContractServer(t, revertChanges), newContractServer(t, func(*State) {})
	names := make(map[string]bool)
	dumped := false
	for _, r := range loadRecordings(t) {
		srv := before
		if dumped = dumped || r.Name == "v7_plan_fleets"; dumped || r.Name == "auth_trailing_space" {
			srv = after // these recordings were made after the changes
		}
		names[r.Name] = true
		if skipped[r.Name] != "" {
			continue
		}
		t.Run(r.Name, func(t *testing.T) { replay(t, srv, &r) })
	}
	for _, list := range [][]string{slices.Collect(maps.Keys(skipped)), slices.Collect(maps.Keys(differing)), slices.Collect(maps.Keys(authorizations))} {
		for _, name := range list {
			if !names[name] {
				t.Errorf("there is no recording %s", name)
			}
		}
	}
}

func replay(t *testing.T, srv *httptest.Server, r *recording) {
	res := send(t, srv, r)
	defer res.Body.Close()
	var plain io.Reader = res.Body
	if res.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		plain = z
	}
	body, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != r.Status {
		t.Fatalf("status %d, want %d; body %.300s", res.StatusCode, r.Status, body)
	}
	for _, h := range []string{"content-type", "content-encoding", "location", "retry-after"} {
		if got := res.Header.Get(h); got != r.Headers[h] {
			t.Errorf("%s %q, want %q", h, got, r.Headers[h])
		}
	}
	if r.Body == nil {
		if len(body) > 0 {
			t.Errorf("body %.300q, want none", body)
		}
		return
	}
	var got any = string(body)
	if strings.HasPrefix(r.Headers["content-type"], "application/json") {
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatalf("%v in %.300s", err, body)
		}
	}
	compare(t, r, got)
}

// send sends a recorded request without changes. Package url would change its encoding.
func send(t *testing.T, srv *httptest.Server, r *recording) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: api.localhost\r\nConnection: close\r\n", r.Method, r.URL)
	if a, ok := authorizations[r.Name]; ok {
		fmt.Fprintf(&b, "Authorization: %s\r\n", a)
	} else if r.Authorization != nil {
		fmt.Fprintf(&b, "Authorization: %s\r\n", *r.Authorization)
	}
	if encoding, ok := strings.CutPrefix(r.Name, "compress_"); ok {
		fmt.Fprintf(&b, "Accept-Encoding: %s\r\n", encoding)
	}
	if proto, ok := strings.CutPrefix(r.Name, "x_forwarded_"); ok {
		fmt.Fprintf(&b, "X-Forwarded-Proto: %s\r\n", proto)
	}
	b.WriteString("\r\n")
	if _, err := conn.Write(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: r.Method})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func compare(t *testing.T, r *recording, got any) {
	t.Helper()
	wantRows, ok := rowsOf(r.Body)
	if !ok {
		equalOrListed(t, r, r.Body, got)
		return
	}
	gotRows, ok := rowsOf(got)
	if !ok {
		t.Fatalf("body %.300v, want a list", got)
	}
	if r.Items != len(gotRows) && differing[r.Name] == "" {
		t.Errorf("%d rows, want %d", len(gotRows), r.Items)
	}
	for part, fields := range notInDataset {
		if strings.HasSuffix(r.Name, part) {
			setNull(wantRows, fields)
			setNull(gotRows, fields)
		}
	}
	// Without $orderby, the order of rows depends on the database.
	if !strings.Contains(r.URL, ";$orderby=") {
		sortNested(wantRows)
		sortNested(gotRows)
	}
	if !strings.Contains(r.URL, "&$orderby=") && !strings.Contains(r.URL, "$top=") {
		sortRows(wantRows)
		sortRows(gotRows)
	}
	if r.Truncated {
		gotRows = gotRows[:min(len(gotRows), len(wantRows))]
	}
	equalOrListed(t, r, wantRows, gotRows)
}

// equalOrListed checks that the values are equal, or for recordings in differing that only their types are equal.
func equalOrListed(t *testing.T, r *recording, want, got any) {
	t.Helper()
	diff := cmp.Diff(want, got)
	if why := differing[r.Name]; why != "" {
		if diff == "" {
			t.Errorf("listed as differing, but equal: %s", why)
		}
		diff = cmp.Diff(shape(want), shape(got))
	}
	if diff != "" {
		t.Errorf("body differs (-want +got):\n%.3000s", diff)
	}
}

func rowsOf(body any) ([]any, bool) {
	m, _ := body.(map[string]any)
	rows, ok := m["d"].([]any)
	return rows, ok
}

// setNull sets the fields of all rows to null.
func setNull(rows []any, fields []string) {
	for _, r := range rows {
		for _, f := range fields {
			if _, ok := r.(map[string]any)[f]; ok {
				r.(map[string]any)[f] = nil
			}
		}
	}
}

// shape replaces all values by their types.
func shape(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for key, e := range v {
			m[key] = shape(e)
		}
		return m
	case []any:
		s := make([]any, len(v))
		for i, e := range v {
			s[i] = shape(e)
		}
		return s
	}
	return fmt.Sprintf("%T", v)
}

func sortNested(rows []any) {
	for _, r := range rows {
		for _, v := range r.(map[string]any) {
			if nested, ok := v.([]any); ok {
				sortNested(nested)
				sortRows(nested)
			}
		}
	}
}

func sortRows(rows []any) {
	slices.SortStableFunc(rows, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
}
