// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestChange checks the number of changed devices and their modified_at.
func TestChange(t *testing.T) {
	for _, n := range []string{"0", "1", "30", "300"} {
		clock := newClock()
		_, srv := newSimulator(t, Config{Devices: 300, Fleets: 3, Now: clock.now}, nil)
		clock.advance(time.Hour)
		resp, err := http.Post(srv.URL+"/simulator/change", "application/json", strings.NewReader(n))
		if err != nil || resp.StatusCode != http.StatusNoContent {
			t.Fatalf("%v %v", resp, err)
		}
		if _, body := get(t, srv, "/v7/device/$count?$filter=modified_at%20gt%20"+instant(clock.now().Add(-time.Minute))); body != `{"d":`+n+`}` {
			t.Errorf("the number of changed devices is %s, want %s", body, n)
		}
	}
}

// TestAdvanceClock checks that /simulator/clock advances the clock of responses and rows.
func TestAdvanceClock(t *testing.T) {
	clock := newClock()
	sim, srv := newSimulator(t, Config{Now: clock.now}, smallAccount)
	before := clock.now()
	resp, err := http.Post(srv.URL+"/simulator/clock", "application/json", strings.NewReader(`"90m"`))
	if err != nil || resp.StatusCode != http.StatusNoContent {
		t.Fatalf("%v %v", resp, err)
	}
	sim.Update(func(st *State) { st.Device(2).Name = "x" })
	resp, err = http.Get(srv.URL + "/ping")
	if err != nil || resp.Header.Get("Date") != before.Add(90*time.Minute).UTC().Format(http.TimeFormat) {
		t.Errorf("got %v, %v, want a Date 90 minutes later", resp, err)
	}
	if _, body := get(t, srv, "/v7/device?$select=id&$filter=modified_at%20gt%20"+instant(before.Add(80*time.Minute))); body != `{"d":[{"id":2}]}` {
		t.Errorf("the changed devices are %s", body)
	}
}

func instant(t time.Time) string {
	return "datetime'" + url.PathEscape(t.UTC().Format("2006-01-02T15:04:05.000Z")) + "'"
}
