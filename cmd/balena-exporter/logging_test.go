// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log/level"
)

// levels are the levels of log lines, from the lowest.
var levels = []string{"debug", "info", "warn", "error"}

// TestBothLoggersWriteTheSameLines checks that both loggers write lines in the same format.
func TestBothLoggersWriteTheSameLines(t *testing.T) {
	for least, name := range levels {
		for _, format := range []string{"logfmt", "json"} {
			t.Run(name+" "+format, func(t *testing.T) {
				var out bytes.Buffer
				logger, slogger := newLoggers(&out, name, format)
				_ = level.Debug(logger).Log("msg", "from go-kit", "n", 1)
				_ = level.Info(logger).Log("msg", "from go-kit", "n", 1)
				_ = level.Warn(logger).Log("msg", "from go-kit", "n", 1)
				_ = level.Error(logger).Log("msg", "from go-kit", "n", 1)
				slogger.Debug("from slog", "n", 1)
				slogger.Info("from slog", "n", 1)
				slogger.Warn("from slog", "n", 1)
				slogger.Error("from slog", "n", 1)

				var want []string
				for _, from := range []string{"from go-kit", "from slog"} {
					for _, level := range levels[least:] {
						want = append(want, level+" "+from)
					}
				}
				var got []string
				for line := range strings.Lines(out.String()) {
					pairs := pairsOf(t, format, line)
					if pairs["caller"] == "" || !strings.HasPrefix(pairs["caller"], "logging_test.go:") {
						t.Errorf("the caller is %q, not this file: %s", pairs["caller"], line)
					}
					if pairs["n"] != "1" || len(pairs) != 5 {
						t.Errorf("the line does not have the pairs that were logged: %s", line)
					}
					got = append(got, pairs["level"]+" "+pairs["msg"])
				}
				if !slices.Equal(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		}
	}
}

func TestSlogAttributesOfTypeTimeAreKept(t *testing.T) {
	var out bytes.Buffer
	_, slogger := newLoggers(&out, "info", "logfmt")
	slogger.With("since", time.Unix(0, 0).UTC()).Info("hello", slog.Group("g", "a", 1))
	if line := out.String(); !strings.Contains(line, `since="1970-01-01 00:00:00 +0000 UTC"`) || !strings.Contains(line, "g.a=1") {
		t.Errorf("attributes are missing: %s", line)
	}
}

// TestHiddenCharactersAreEscaped checks that names cannot change how a log line is displayed.
func TestHiddenCharactersAreEscaped(t *testing.T) {
	const hidden = "a\u202eb\u2028c\u2029d\u0085e\u009bf\U000e0041g\u007fh\ufeffi\u200bj"
	for format, want := range map[string]string{
		"logfmt": `fleet="é ` + `a\u202eb\u2028c\u2029d\u0085e\u009bf\udb40\udc41g\u007fh\ufeffi\u200bj` + `"`,
		"json":   `"fleet":"é ` + `a\u202eb\u2028c\u2029d\u0085e\u009bf\udb40\udc41g\u007fh\ufeffi\u200bj` + `"`,
	} {
		var out bytes.Buffer
		logger, slogger := newLoggers(&out, "info", format)
		_ = level.Info(logger).Log("msg", "hello", "fleet", "é "+hidden)
		slogger.Info("hello", "fleet", "é "+hidden)
		if got := strings.Count(out.String(), want); got != 2 || strings.Count(out.String(), "\n") != 2 {
			t.Errorf("got %swant %s", out.String(), want)
		}
	}
}

var (
	logfmtLine = regexp.MustCompile(`^ts=\S+ caller=\S+ level=\w+ msg=`)
	logfmtPair = regexp.MustCompile(`(?:^| )([^\s="]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)`)
	tsFormat   = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)
)

// pairsOf parses a line and checks that it has the four common keys, no duplicate keys, and no second time.
func pairsOf(t *testing.T, format, line string) map[string]string {
	t.Helper()
	pairs := map[string]string{}
	add := func(key, value string) {
		if _, twice := pairs[key]; twice {
			t.Errorf("the key %s is duplicate: %s", key, line)
		}
		pairs[key] = value
	}
	if format == "json" {
		d := json.NewDecoder(strings.NewReader(line))
		if _, err := d.Token(); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			var value any
			if err := d.Decode(&value); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			add(key.(string), fmt.Sprint(value))
		}
	} else {
		if !logfmtLine.MatchString(line) {
			t.Errorf("the line does not begin with ts, caller, level and msg: %s", line)
		}
		for _, pair := range logfmtPair.FindAllStringSubmatch(strings.TrimSpace(line), -1) {
			add(pair[1], strings.Trim(pair[2], `"`))
		}
	}
	for _, key := range []string{"ts", "caller", "level", "msg"} {
		if pairs[key] == "" {
			t.Errorf("there is no %s: %s", key, line)
		}
	}
	if _, there := pairs["time"]; there {
		t.Errorf("there is a second time: %s", line)
	}
	if !tsFormat.MatchString(pairs["ts"]) {
		t.Errorf("ts is %s, not UTC with milliseconds", pairs["ts"])
	}
	if !regexp.MustCompile(`^\w+\.go:\d+$`).MatchString(pairs["caller"]) || !slices.Contains(levels, pairs["level"]) {
		t.Errorf("the caller or the level is invalid: %s", line)
	}
	return pairs
}

// TestLogOfAnExporter checks that all log lines of an exporter have this format, including those of exporter-toolkit and net/http.
func TestLogOfAnExporter(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"logfmt", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			sim := serveAPI(t, smallAccount())
			certificate := newAuthority(t).issue("127.0.0.1")
			dir := t.TempDir()
			certificate.write(t, dir)
			config := write(t, dir, "web.yml", tlsConfig)
			e := start(t, sim.url, "--log.level=debug", "--log.format="+format, "--web.config.file="+config, "--balena.refresh-interval=1")
			// A scrape without TLS.
			if a, err := get(e.client, e.url("/metrics"), nil); err == nil && a.status != 400 {
				t.Errorf("plain HTTP returned %d", a.status)
			}
			refreshed := regexp.MustCompile(`msg"?[=:]"refresh succeeded"`)
			eventually(t, "refreshes are logged at level debug", func() bool { return refreshed.MatchString(e.stderr.String()) })
			sim.down.Store(true)
			eventually(t, "the failed refresh is logged", func() bool { return strings.Contains(e.stderr.String(), "refresh failed") })
			eventually(t, "the failed handshake is logged", func() bool { return strings.Contains(e.stderr.String(), "TLS handshake error") })
			e.end()
			callers := map[string]bool{}
			for line := range strings.Lines(e.stderr.String()) {
				caller, _, _ := strings.Cut(pairsOf(t, format, line)["caller"], ":")
				callers[caller] = true
			}
			for _, want := range []string{"main.go", "journal.go", "tls_config.go", "server.go"} {
				if !callers[want] {
					t.Errorf("no line of %s", want)
				}
			}
			if e.stdout.String() != "" {
				t.Errorf("stdout is not empty: %s", e.stdout)
			}
		})
	}
}

func TestLevelError(t *testing.T) {
	t.Parallel()
	sim := serveAPI(t, smallAccount())
	sim.down.Store(true)
	e := launch(t, sim.url, "--log.level=error")
	eventually(t, "the failed refresh is logged", func() bool { return e.stderr.String() != "" })
	e.end()
	for line := range strings.Lines(e.stderr.String()) {
		if pairsOf(t, "logfmt", line)["level"] != "error" {
			t.Errorf("the level is not error: %s", line)
		}
	}
}
