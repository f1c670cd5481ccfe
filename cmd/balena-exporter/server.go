package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"
)

// Bounds for clients that do not come to the point. Scrapes, which can be large, bring write deadlines of
// their own; a CPU profile takes 30 seconds by default.
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

// newMux returns what the main port serves.
func newMux(c *config, metrics, fleets http.Handler) (http.Handler, error) {
	landing, err := web.NewLandingPage(web.LandingConfig{
		Name:        name,
		Description: "Prometheus exporter for fleets of balena devices",
		Version:     version.Version,
		Links: []web.LandingLinks{
			{Address: c.telemetryPath, Text: "Metrics"},
			{Address: fleetsPath, Text: "Fleets"},
			{Address: healthyPath, Text: "Healthy"},
			{Address: readyPath, Text: "Ready"},
		},
		Profiling: map[bool]string{true: "true", false: "false"}[c.pprof],
	})
	if err != nil {
		return nil, err
	}
	mux := newHealthMux()
	mux.Handle(c.telemetryPath, metrics)
	mux.Handle(fleetsPath, fleets)
	mux.Handle(fleetsPath+"/", fleets)
	if c.telemetryPath != "/" {
		mux.Handle("/", landing)
	}
	if c.pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux, nil
}

const (
	healthyPath = "/-/healthy"
	readyPath   = "/-/ready"
	fleetsPath  = "/fleets"
)

// newHealthMux returns the health endpoints, which say that the exporter answers. They do not depend on
// the balena API: were the exporter not ready when that is down, the scrape that tells of it would be gone.
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
