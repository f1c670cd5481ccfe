// SPDX-License-Identifier: Apache-2.0

package account_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// What service discovery alone needs.

func withDeviceURLs(c *account.Config) { c.DeviceURLs = true }

// balenaCloud tells the domain of public device URLs. openBalena has no such resource, which is no error.
func TestDeviceURLsBase(t *testing.T) {
	for _, test := range []struct {
		edition simulator.Edition
		want    string
	}{{simulator.Cloud, "balena-devices.com"}, {simulator.OpenBalena, ""}} {
		wire := &sniffer{next: newSimulator(t, simulator.Config{Devices: 3, Fleets: 1, Edition: test.edition})}
		clock := newClock()
		client := newClient(t, serve(t, wire), withClock(clock), fewer, withDeviceURLs)
		for range 3 { // asked for once in the slow interval
			if s := fetchWithParts(t, client); s.DeviceURLsBase != test.want {
				t.Errorf("edition %s: got %q, want %q", test.edition, s.DeviceURLsBase, test.want)
			}
			clock.advance(time.Minute)
		}
		clock.advance(15 * time.Minute)
		fetchWithParts(t, client)
		asked := 0
		for _, r := range wire.requests() {
			if r.URL.Path == "/config" {
				asked++
				if r.RequestURI != "/config" {
					t.Errorf("asked for %s", r.RequestURI)
				}
			}
		}
		if asked != 2 {
			t.Errorf("edition %s: asked %d times, want 2", test.edition, asked)
		}
	}
}

// A base that is no domain is not used: Prometheus would send passwords wherever it leads.
func TestDeviceURLsBaseThatIsNone(t *testing.T) {
	for _, test := range []struct{ answer, want string }{
		{`{"deviceUrlsBase":"evil.example/x"}`, "GET /config: deviceUrlsBase is not the name of a domain"},
		{`{"deviceUrlsBase":"user@evil.example"}`, "GET /config: deviceUrlsBase is not the name of a domain"},
		{`{"deviceUrlsBase":"a\nb"}`, "GET /config: deviceUrlsBase is not the name of a domain"},
		{`{"deviceUrlsBase":7}`, "GET /config: deviceUrlsBase: found a number where a string was expected"},
		{`{"deviceUrlsBase":"a.example"} {}`, "GET /config: text follows the end of the answer"},
		{`[]`, "GET /config: found [ where { was expected"},
	} {
		sim := newSimulator(t, simulator.Config{Devices: 3, Fleets: 1, Edition: simulator.Cloud})
		client := newClient(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/config" {
				_, _ = w.Write([]byte(test.answer))
				return
			}
			sim.ServeHTTP(w, r)
		})), fewer, withDeviceURLs)
		s := fetch(t, client)
		wantError(t, part(t, s, balena.PartDeviceURLs).Err, api.BadAnswer, 200, test.want)
		if s.DeviceURLsBase != "" || s.Devices.Len() != 3 {
			t.Errorf("%s: base %q, %d devices", test.answer, s.DeviceURLsBase, s.Devices.Len())
		}
	}
}

// While the server does not answer, the last base stands in, for as long as the options say.
func TestDeviceURLsBaseStandsIn(t *testing.T) {
	sim := newSimulator(t, simulator.Config{Devices: 3, Fleets: 1, Edition: simulator.Cloud})
	clock := newClock()
	client := newClient(t, serve(t, sim), withClock(clock), fewer, withDeviceURLs)
	fetchWithParts(t, client)
	sim.SetFaults(simulator.Faults{{Resource: "config", Status: 503}})
	for _, test := range []struct {
		after time.Duration
		want  string
	}{{15 * time.Minute, "balena-devices.com"}, {5 * time.Minute, "balena-devices.com"}, {time.Second, ""}} {
		clock.advance(test.after)
		s := fetch(t, client)
		if s.DeviceURLsBase != test.want || part(t, s, balena.PartDeviceURLs).Err == nil {
			t.Errorf("%s later: got %q, want %q and an error", test.after, s.DeviceURLsBase, test.want)
		}
	}
}

// Without metrics of devices, service discovery asks for names and for who is web accessible; for local addresses only
// where they are wanted.
func TestFieldsOfTargets(t *testing.T) {
	for _, test := range []struct {
		targets, local bool
		asked          string
	}{{false, false, ""}, {true, false, "device_name is_web_accessible"}, {true, true, "device_name is_web_accessible ip_address"}} {
		wire := &sniffer{next: newSimulator(t, simulator.Config{Devices: 200, Fleets: 1, Seed: 1, Edition: simulator.Cloud})}
		s := fetchWithParts(t, newClient(t, serve(t, wire), fewer, func(c *account.Config) {
			c.Devices, c.Targets, c.LocalAddresses = false, test.targets, test.local
		}))
		asked := ""
		for _, r := range wire.requests() {
			for _, field := range []string{"device_name", "is_web_accessible", "ip_address", "cpu_usage"} {
				if r.URL.Path == "/v7/device" && strings.Contains(r.RequestURI, field) {
					asked = strings.TrimSpace(asked + " " + field)
				}
			}
		}
		asked = strings.Join(unique(strings.Fields(asked)), " ")
		if asked != test.asked {
			t.Errorf("asked for %q, want %q", asked, test.asked)
		}
		named, local := 0, 0
		for d := range s.Devices.All() {
			if d.Name != "" {
				named++
			}
			if strings.HasPrefix(d.Where().LocalAddresses, "192.168.") {
				local++
			}
		}
		if named > 0 != test.targets || local > 0 != test.local {
			t.Errorf("%d names and %d local addresses", named, local)
		}
	}
}

func unique(words []string) (once []string) {
	seen := map[string]bool{}
	for _, w := range words {
		if !seen[w] {
			seen[w] = true
			once = append(once, w)
		}
	}
	return once
}
