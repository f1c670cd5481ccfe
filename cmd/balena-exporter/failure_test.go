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

// These tests check metrics and the log during failures of the API. exporter.get and newExporter check all responses and logs
// for secrets.

// eachSecond is the shortest possible interval.
const eachSecond = "--balena.refresh-interval=1"

func smallAccount() simulator.Config { return simulator.Config{Devices: 20, Fleets: 2, Seed: 1} }

const (
	failureLine      = `msg="refresh failed"`
	firstSuccessLine = `msg="first refresh succeeded"`
	recoveryLine     = `msg="refresh succeeded again"`
)

// checkLog checks that the log has n lines that contain all words. Lines may be written with a delay.
func (e *exporter) checkLog(n int, words ...string) {
	e.t.Helper()
	eventually(e.t, "the log contains "+strings.Join(words, " "), func() bool { return len(e.stderr.lines(words...)) >= n })
	if lines := e.stderr.lines(words...); len(lines) != n {
		e.t.Errorf("%d lines of the log contain %q, want %d", len(lines), words, n)
	}
}

// waitFor waits for a scrape in which the condition holds, and returns it. The next scrape may have other data.
func (e *exporter) waitFor(what string, condition func(families) bool) (f families) {
	e.t.Helper()
	eventually(e.t, what, func() bool {
		f = e.scrape()
		return condition(f)
	})
	return f
}

func TestAPIDown(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, smallAccount())
	sim.down.Store(true)
	e := start(t, sim.url, eachSecond, "--balena.max-staleness=1h")

	// The API is unreachable at the start.
	f := e.waitForRefreshes(3, failure)
	if f.has("balena_fleet_info") || f.value("balena_up") != 0 || f.value("balena_api_requests_total", "resource", "application", "code", "error") < 3 {
		t.Error("the metrics do not report that the API is unreachable")
	}
	e.checkLog(1, "level=error", failureLine, "GET /v7/application", "connection")

	// The API becomes reachable.
	sim.down.Store(false)
	e.waitForUp(1)
	f = e.waitForRefreshes(2, success)
	if n := len(f["balena_fleet_info"].GetMetric()); n != 2 {
		t.Errorf("%d fleets, want 2", n)
	}
	e.checkLog(1, "level=info", firstSuccessLine)

	// The API is unreachable again.
	sim.down.Store(true)
	e.waitForUp(0)
	f = e.waitForRefreshes(2, failure)
	if n := len(f["balena_fleet_info"].GetMetric()); n != 2 || f.value("balena_up") != 0 {
		t.Error("the last data are not served, or balena_up is not 0")
	}
	e.checkLog(2, "level=error", failureLine, "GET /v7/application") // and another if the failure began during a refresh

	// The API is reachable again.
	sim.down.Store(false)
	e.waitForUp(1)
	e.waitForRefreshes(2, success)
	e.checkLog(1, "level=info", firstSuccessLine)
	e.checkLog(1, "level=info", recoveryLine, "failed_for=")
	e.checkLog(2, "level=error", "GET /v7/application")
}

func TestTokenIsReadAgain(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, smallAccount())
	dir := t.TempDir()
	file := write(t, dir, "token", secret+"-of-yesterday")
	e := start(t, sim.url, eachSecond, "--balena.token-file="+file, "--balena.max-staleness=1h")
	e.waitForRefreshes(2, failure)
	e.checkLog(1, "level=error", failureLine, "401", "token was not accepted")
	write(t, dir, "token", token+"\n")
	if f := e.waitForUp(1); !f.has("balena_fleet_info") {
		t.Error("there are no data with the new token")
	}
	// The exporter continues if the file is empty.
	write(t, dir, "token", "")
	e.waitForRefreshes(1, failure)
	e.checkLog(1, "level=error", failureLine, "the token is empty", file)
	write(t, dir, "token", token)
	e.waitForUp(1)
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	for name, date := range map[string]bool{"seconds": false, "date": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := serveAPI(t, smallAccount())
			const wait = 3 * time.Second
			sim.SetFaults(simulator.Faults{{Status: http.StatusTooManyRequests, RetryAfter: simulator.Duration{Duration: wait}, RetryAfterDate: date, Times: 1}})
			e := start(t, sim.url, eachSecond)
			e.waitForSample("balena_api_rate_limited_total", func(v float64) bool { return v == 1 })
			e.waitForUp(1)
			requests := sim.requests()
			least := wait
			if date {
				least -= time.Second // dates have no fractions of seconds
			}
			if waited := requests[1].at.Sub(requests[0].at); waited < least {
				t.Errorf("the next request came after %s, want at least %s", waited, least)
			}
			e.checkLog(1, "level=error", failureLine, "429", "not asking again for")
		})
	}
}

func TestSlowAPI(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, smallAccount())
	e := start(t, sim.url, eachSecond, "--balena.timeout=1s", "--balena.max-staleness=1h")
	e.waitForUp(1)
	sim.SetFaults(simulator.Faults{{Resource: "application", Latency: simulator.Duration{Duration: time.Hour}}})
	e.waitFor("the last data are served, and the request that timed out is counted", func(f families) bool {
		return f.value("balena_up") == 0 && f.has("balena_fleet_info") && f.value("balena_api_requests_total", "resource", "application", "code", "error") > 0
	})
	sim.SetFaults(nil)
	e.waitForUp(1)
	// On a busy machine other requests may time out, too, and the log may have several of these lines.
	for _, line := range []string{`msg="refresh failed".*no complete answer within 1s`, recoveryLine} {
		if !regexp.MustCompile(line).MatchString(e.stderr.String()) {
			t.Errorf("the log does not contain %q", line)
		}
	}
}

func TestStaleDataAreDropped(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, smallAccount())
	e := start(t, sim.url, eachSecond, "--balena.max-staleness=2s")
	fresh := func(f families) bool {
		return f.value("balena_up") == 1 && len(f["balena_fleet_info"].GetMetric()) == 2
	}
	e.waitFor("there are data", fresh)
	sim.down.Store(true)
	f := e.waitFor("the data are dropped", func(f families) bool {
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
			t.Errorf("%s is missing without data", name)
		}
	}
	if a := e.get(e.health + healthyPath); a.status != http.StatusOK {
		t.Errorf("the health endpoint returned %d without the API", a.status)
	}
	sim.down.Store(false)
	e.waitFor("there are data again", fresh)
}

// TestAlternatingFailures checks that each of two alternating failures is logged once.
func TestAlternatingFailures(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, smallAccount())
	sim.SetFaults(simulator.Faults{{Status: http.StatusBadGateway, Every: 2}, {Status: http.StatusServiceUnavailable}})
	e := start(t, sim.url, eachSecond)
	e.waitForRefreshes(5, failure)
	e.checkLog(1, "level=error", failureLine, "answered 502", "HTML")
	e.checkLog(1, "level=error", failureLine, "answered 503", "HTML")
	sim.SetFaults(nil)
	e.waitForUp(1)
	e.checkLog(2, "level=error")
}

func TestInvalidResponses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault simulator.Fault // of one resource, because the fault may begin during a refresh
		want  string
	}{
		"guest":              {simulator.Fault{Guest: true, Resource: "device"}, "401"},
		"HTML":               {simulator.Fault{Spoil: simulator.SpoilHTML, Resource: "application"}, "GET /v7/application"},
		"half":               {simulator.Fault{Spoil: simulator.SpoilJSON, Resource: "application"}, "GET /v7/application"},
		"types":              {simulator.Fault{Spoil: simulator.SpoilTypes, Resource: "application"}, "GET /v7/application"},
		"cut":                {simulator.Fault{CutAfter: 100, Resource: "device"}, "GET /v7/device page 1"},
		"redirect":           {simulator.Fault{Redirect: "http://example.com", Resource: "application"}, "redirect to http://example.com"},
		"404":                {simulator.Fault{Status: http.StatusNotFound, Resource: "application"}, "there is no balena API at this address"},
		"500 without a body": {simulator.Fault{Status: http.StatusInternalServerError, Resource: "application"}, "answered 500"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := serveAPI(t, smallAccount())
			e := start(t, sim.url, eachSecond, "--balena.max-staleness=1h")
			e.waitForUp(1)
			before := e.scrape()
			sim.SetFaults(simulator.Faults{test.fault})
			f := e.waitForRefreshes(2, failure)
			if len(f["balena_device_info"].GetMetric()) != len(before["balena_device_info"].GetMetric()) || f.value("balena_up") != 0 {
				t.Error("the last data are not served, or balena_up is not 0")
			}
			e.checkLog(1, "level=error")
			e.checkLog(1, "level=error", failureLine, test.want)
			sim.SetFaults(nil)
			e.waitForUp(1)
			e.checkLog(1, "level=info", recoveryLine)
		})
	}
}

// TestFailureOfARefreshPart checks that the failure of a part of the refresh does not affect other data.
func TestFailureOfARefreshPart(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, smallAccount())
	sim.SetFaults(simulator.Faults{{Resource: "api_key", Status: http.StatusInternalServerError}})
	e := start(t, sim.url, eachSecond)
	f := e.waitForRefreshes(3, success)
	if f.value("balena_up") != 1 || !f.has("balena_device_info") {
		t.Error("the failure affects other data")
	}
	if ok := f.valuesBy("balena_exporter_refresh_part_success", "part"); ok["api_key"] != 0 || ok["release"] != 1 {
		t.Errorf("balena_exporter_refresh_part_success is %v", ok)
	}
	e.checkLog(1, "level=warn", "a part of the refresh failed", "part=api_key")
	sim.SetFaults(nil)
	e.waitForSample(`balena_exporter_refresh_part_success{part="api_key"}`, func(v float64) bool { return v == 1 })
	e.checkLog(1, "level=info", "a part of the refresh succeeded again", "part=api_key")
}

// TestTokenIsNotExposed checks that no output contains the token, even if the server echoes it.
func TestTokenIsNotExposed(t *testing.T) {
	t.Parallel()
	url, _ := serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			t.Errorf("the request does not contain the token: %v", r.Header)
		}
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "cannot handle "+r.Header.Get("Authorization"))
	}))
	e := start(t, url, eachSecond, "--web.enable-pprof", "--log.level=debug")
	e.waitForRefreshes(2, failure)
	e.checkLog(1, "level=error", failureLine, "answered 500")
	for _, path := range []string{"/", "/metrics", "/debug/pprof/cmdline", "/debug/pprof/", healthyPath} {
		if a := e.get(e.url(path)); a.status != http.StatusOK {
			t.Errorf("%s returned %d", path, a.status)
		}
	}
	e.get(e.url(fleetsPath)) // contains the last error, because there are no fleets
}

// TestTokenOfTheEnvironmentIsNotExposed runs the exporter as a process, because the environment belongs to the process.
func TestTokenOfTheEnvironmentIsNotExposed(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, smallAccount())
	e := startWithToken(t, sim.url, "--web.enable-pprof", "--log.level=debug")
	e.waitForUp(1)
	if a := e.get(e.url("/debug/pprof/cmdline")); !strings.Contains(a.body, "--web.enable-pprof") {
		t.Errorf("the command line is %q", a.body)
	}
	e.get(e.url("/"))
}
