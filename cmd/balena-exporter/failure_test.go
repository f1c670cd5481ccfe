// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// These tests check metrics and log during failures of the API. The exporter survives all of them. Each answer, and the
// log at the end of each exporter, is checked for secrets; see exporter.get and newExporter.

// eachSecond is the shortest possible interval.
const eachSecond = "--balena.refresh-interval=1"

func small() simulator.Config { return simulator.Config{Devices: 20, Fleets: 2, Seed: 1} }

const (
	troubleLine = `msg="refresh failed"`
	firstLine   = `msg="first refresh succeeded"`
	againLine   = `msg="refresh succeeded again"`
)

// tells checks how often the log has a line at level info or above. Lines may be written with a delay.
func (e *exporter) tells(n int, words ...string) {
	e.t.Helper()
	eventually(e.t, "the log tells "+strings.Join(words, " "), func() bool { return len(e.stderr.lines(words...)) >= n })
	if lines := e.stderr.lines(words...); len(lines) != n {
		e.t.Errorf("the log tells %q %d times, want %d", words, len(lines), n)
	}
}

// shows waits for a scrape in which the condition holds, and returns it. On a busy machine, the next scrape may have older or
// newer data.
func (e *exporter) shows(what string, condition func(families) bool) (f families) {
	e.t.Helper()
	eventually(e.t, what, func() bool {
		f = e.scrape()
		return condition(f)
	})
	return f
}

func TestAPIDown(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, small())
	sim.down.Store(true)
	e := start(t, sim.url, eachSecond, "--balena.max-staleness=1h")

	// At the start.
	f := e.refreshes(3, failure)
	if f.has("balena_fleet_info") || f.value("balena_up") != 0 || f.value("balena_api_requests_total", "resource", "application", "code", "error") < 3 {
		t.Error("the metrics do not tell that there was no API at the start")
	}
	e.tells(1, "level=error", troubleLine, "GET /v7/application", "connection")

	// Back.
	sim.down.Store(false)
	e.up(1)
	f = e.refreshes(2, success)
	if n := len(f["balena_fleet_info"].GetMetric()); n != 2 {
		t.Errorf("%d fleets, want 2", n)
	}
	e.tells(1, "level=info", firstLine)

	// Later.
	sim.down.Store(true)
	e.up(0)
	f = e.refreshes(2, failure)
	if n := len(f["balena_fleet_info"].GetMetric()); n != 2 || f.value("balena_up") != 0 {
		t.Error("the last data are not served, or balena_up does not tell that they are the last")
	}
	e.tells(2, "level=error", troubleLine, "GET /v7/application") // and another if the failure began during a refresh

	// The API works again.
	sim.down.Store(false)
	e.up(1)
	e.refreshes(2, success)
	e.tells(1, "level=info", firstLine)
	e.tells(1, "level=info", againLine, "failed_for=")
	e.tells(2, "level=error", "GET /v7/application")
}

func TestTokenIsReadAgain(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, small())
	dir := t.TempDir()
	file := write(t, dir, "token", secret+"-of-yesterday")
	e := start(t, sim.url, eachSecond, "--balena.token-file="+file, "--balena.max-staleness=1h")
	e.refreshes(2, failure)
	e.tells(1, "level=error", troubleLine, "401", "token was not accepted")
	write(t, dir, "token", token+"\n")
	if f := e.up(1); !f.has("balena_fleet_info") {
		t.Error("there are no data with the new token")
	}
	// A file that is missing for a moment is no reason to stop.
	write(t, dir, "token", "")
	e.refreshes(1, failure)
	e.tells(1, "level=error", troubleLine, "the token is empty", file)
	write(t, dir, "token", token)
	e.up(1)
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	for name, date := range map[string]bool{"seconds": false, "date": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := serveAPI(t, small())
			const wait = 3 * time.Second
			sim.SetFaults(simulator.Faults{{Status: http.StatusTooManyRequests, RetryAfter: simulator.Duration{Duration: wait}, RetryAfterDate: date, Times: 1}})
			e := start(t, sim.url, eachSecond)
			e.sample("balena_api_rate_limited_total", func(v float64) bool { return v == 1 })
			e.up(1)
			asked := sim.requests()
			least := wait
			if date {
				least -= time.Second // dates have no fractions of seconds
			}
			if waited := asked[1].at.Sub(asked[0].at); waited < least {
				t.Errorf("asked again after %s, want %s", waited, least)
			}
			e.tells(1, "level=error", troubleLine, "429", "not asking again for")
		})
	}
}

func TestSlowAPI(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, small())
	e := start(t, sim.url, eachSecond, "--balena.timeout=1s", "--balena.max-staleness=1h")
	e.up(1)
	sim.SetFaults(simulator.Faults{{Resource: "application", Latency: simulator.Duration{Duration: time.Hour}}})
	e.shows("the data stay, and the request that got no answer is counted", func(f families) bool {
		return f.value("balena_up") == 0 && f.has("balena_fleet_info") && f.value("balena_api_requests_total", "resource", "application", "code", "error") > 0
	})
	sim.SetFaults(nil)
	e.up(1)
	// The log may have it more than once, if the machine is so busy that answers without a fault take as long.
	for _, line := range []string{`msg="refresh failed".*no complete answer within 1s`, againLine} {
		if !regexp.MustCompile(line).MatchString(e.stderr.String()) {
			t.Errorf("the log does not tell %q", line)
		}
	}
}

func TestDataThatAreTooOldDisappear(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, small())
	e := start(t, sim.url, eachSecond, "--balena.max-staleness=2s")
	fresh := func(f families) bool {
		return f.value("balena_up") == 1 && len(f["balena_fleet_info"].GetMetric()) == 2
	}
	e.shows("the data are there", fresh)
	sim.down.Store(true)
	f := e.shows("the data disappear", func(f families) bool {
		for name := range f {
			if strings.HasPrefix(name, "balena_fleet_") || strings.HasPrefix(name, "balena_device") {
				return false
			}
		}
		return f.value("balena_up") == 0
	})
	for _, name := range []string{
		"balena_up", "balena_exporter_last_refresh_success_timestamp_seconds", "balena_exporter_refreshes_total",
		"balena_api_requests_total", "balena_exporter_build_info", "go_goroutines", "process_start_time_seconds",
	} {
		if !f.has(name) {
			t.Errorf("%s is gone with the data", name)
		}
	}
	if a := e.get(e.health + healthyPath); a.status != http.StatusOK {
		t.Errorf("not healthy without the API: %d", a.status)
	}
	sim.down.Store(false)
	e.shows("the data are back", fresh)
}

// A failing server alternates between answers. Each of them is logged once.
func TestTroublesThatTakeTurns(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, small())
	sim.SetFaults(simulator.Faults{{Status: http.StatusBadGateway, Every: 2}, {Status: http.StatusServiceUnavailable}})
	e := start(t, sim.url, eachSecond)
	e.refreshes(5, failure)
	e.tells(1, "level=error", troubleLine, "answered 502", "HTML")
	e.tells(1, "level=error", troubleLine, "answered 503", "HTML")
	sim.SetFaults(nil)
	e.up(1)
	e.tells(2, "level=error")
}

func TestBadAnswers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault simulator.Fault // for one resource, so that it may begin during a refresh
		want  string
	}{
		"guest":             {simulator.Fault{Guest: true, Resource: "device"}, "401"},
		"HTML":              {simulator.Fault{Spoil: simulator.SpoilHTML, Resource: "application"}, "GET /v7/application"},
		"half":              {simulator.Fault{Spoil: simulator.SpoilJSON, Resource: "application"}, "GET /v7/application"},
		"types":             {simulator.Fault{Spoil: simulator.SpoilTypes, Resource: "application"}, "GET /v7/application"},
		"cut":               {simulator.Fault{CutAfter: 100, Resource: "device"}, "GET /v7/device page 1"},
		"redirect":          {simulator.Fault{Redirect: "http://example.com", Resource: "application"}, "redirect to http://example.com"},
		"404":               {simulator.Fault{Status: http.StatusNotFound, Resource: "application"}, "there is no balena API at this address"},
		"500 without words": {simulator.Fault{Status: http.StatusInternalServerError, Resource: "application"}, "answered 500"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := serveAPI(t, small())
			e := start(t, sim.url, eachSecond, "--balena.max-staleness=1h")
			e.up(1)
			before := e.scrape()
			sim.SetFaults(simulator.Faults{test.fault})
			f := e.refreshes(2, failure)
			if len(f["balena_device_info"].GetMetric()) != len(before["balena_device_info"].GetMetric()) || f.value("balena_up") != 0 {
				t.Error("the last data are not served as they were")
			}
			e.tells(1, "level=error")
			e.tells(1, "level=error", troubleLine, test.want)
			sim.SetFaults(nil)
			e.up(1)
			e.tells(1, "level=info", againLine)
		})
	}
}

// The failure of a part of the refresh affects nothing else.
func TestOptionalCollectorFails(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, small())
	sim.SetFaults(simulator.Faults{{Resource: "api_key", Status: http.StatusInternalServerError}})
	e := start(t, sim.url, eachSecond)
	f := e.refreshes(3, success)
	if f.value("balena_up") != 1 || !f.has("balena_device_info") {
		t.Error("the failure took other data down")
	}
	if ok := f.by("balena_exporter_refresh_part_success", "part"); ok["api_key"] != 0 || ok["release"] != 1 {
		t.Errorf("balena_exporter_refresh_part_success is %v", ok)
	}
	e.tells(1, "level=warn", "a part of the refresh failed", "part=api_key")
	sim.SetFaults(nil)
	e.sample(`balena_exporter_refresh_part_success{part="api_key"}`, func(v float64) bool { return v == 1 })
	e.tells(1, "level=info", "a part of the refresh succeeded again", "part=api_key")
}

// A server that repeats requests does not get the token into the log. All output is checked.
func TestTokenIsToldNowhere(t *testing.T) {
	t.Parallel()
	url, _ := serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			t.Errorf("the token does not arrive: %v", r.Header)
		}
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "cannot handle "+r.Header.Get("Authorization"))
	}))
	e := start(t, url, eachSecond, "--web.enable-pprof", "--log.level=debug")
	e.refreshes(2, failure)
	e.tells(1, "level=error", troubleLine, "answered 500")
	for _, path := range []string{"/", "/metrics", "/debug/pprof/cmdline", "/debug/pprof/", healthyPath} {
		if a := e.get(e.url(path)); a.status != http.StatusOK {
			t.Errorf("%s answers %d", path, a.status)
		}
	}
	e.get(e.url(fleetsPath)) // shows the last error, because there are no fleets
}

// The token is in the environment, in a process of its own, because the environment is that of the process.
func TestTokenOfTheEnvironmentIsToldNowhere(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, small())
	e := startWithToken(t, sim.url, "--web.enable-pprof", "--log.level=debug")
	e.up(1)
	if a := e.get(e.url("/debug/pprof/cmdline")); !strings.Contains(a.body, "--web.enable-pprof") {
		t.Errorf("that is not the command line: %q", a.body)
	}
	e.get(e.url("/"))
}
