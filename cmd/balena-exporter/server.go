// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"regexp"
	"time"

	"github.com/prometheus/common/version"

	"github.com/balena-exporter/balena-exporter/internal/statuspage"
)

// Bounds for slow clients. Scrapes can be large and set their own write deadlines; a CPU profile takes 30 seconds by
// default.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 2 * time.Minute
	idleTimeout       = 3 * time.Minute // longer than a scrape interval of a minute or two
)

func newServer(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(newThrottle(logger.Handler()), slog.LevelWarn),
	}
}

// newMux returns the handler of the main port. targets is nil unless they are served.
func newMux(c *config, metrics, targets http.Handler, options statuspage.Options) http.Handler {
	options.Version = version.Version
	options.Links = []statuspage.Link{
		{Text: "Problems", Address: "/problems", About: "Devices and fleets with problems, by the conditions of the alerts"},
		{Text: "Fleets", Address: fleetsPath, About: "All fleets, and the devices of each fleet"},
		{Text: "Metrics", Address: c.telemetryPath, About: "Metrics for Prometheus"},
		{Text: "Documentation", Address: repository + "#readme", About: "Installation and configuration of the exporter"},
		{Text: "Documentation of the metrics", Address: documents() + "metrics.md", About: "All metrics with their labels and sources"},
		{Text: "Runbooks", Address: documents() + "runbooks", About: "Instructions for each alert"},
		{Text: "Healthy", Address: healthyPath, About: "For liveness probes"},
		{Text: "Ready", Address: readyPath, About: "For readiness probes"},
	}
	if targets != nil {
		options.Links = append(options.Links, statuspage.Link{Text: "Targets", Address: targetsPath, About: "Devices for the service discovery of Prometheus"})
	}
	if c.pprof {
		options.Links = append(options.Links, statuspage.Link{Text: "Profiles", Address: pprofPath, About: "Profiles of the exporter"})
	}
	pages := statuspage.NewHandler(options)

	mux := newHealthMux()
	for _, path := range statuspage.Paths {
		if path != "/{$}" || c.telemetryPath != "/" {
			mux.Handle(path, pages)
		}
	}
	if c.telemetryPath == "/" {
		// Without {$}, every other path would serve the metrics too.
		mux.Handle("/{$}", metrics)
	} else {
		mux.Handle(c.telemetryPath, metrics)
	}
	if targets != nil {
		mux.Handle(targetsPath, targets)
	}
	if c.pprof {
		mux.HandleFunc(pprofPath, pprof.Index)
		mux.HandleFunc(pprofPath+"cmdline", pprof.Cmdline)
		mux.HandleFunc(pprofPath+"profile", pprof.Profile)
		mux.HandleFunc(pprofPath+"symbol", pprof.Symbol)
		mux.HandleFunc(pprofPath+"trace", pprof.Trace)
	}
	return mux
}

const (
	healthyPath = "/-/healthy"
	readyPath   = "/-/ready"
	fleetsPath  = "/fleets"
	targetsPath = "/sd/devices"
	pprofPath   = "/debug/pprof/"

	repository = "https://github.com/balena-exporter/balena-exporter"
)

// documents returns the URL of the documentation of this version.
func documents() string {
	revision := "main" // for builds between versions
	if released.MatchString(version.Version) {
		revision = "v" + version.Version
	}
	return repository + "/blob/" + revision + "/docs/"
}

var released = regexp.MustCompile(`^\d+\.\d+\.\d+$`)

// newHealthMux returns the health endpoints, which report that the exporter answers. They do not depend on
// the balena API: an exporter that is not ready would not be scraped, and balena_up would be missing.
func newHealthMux() *http.ServeMux {
	mux := http.NewServeMux()
	for _, path := range []string{healthyPath, readyPath} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(w, "OK\n")
		})
	}
	return mux
}
