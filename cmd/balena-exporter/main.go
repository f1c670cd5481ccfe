// SPDX-License-Identifier: Apache-2.0

// The balena-exporter exports the fleets and devices of balenaCloud or of an openBalena server to Prometheus.
//
// This package is flags, wiring and lifecycle: what it wires together is in collector (the metrics) and
// in internal/balena (the API), internal/refresh (when to ask it) and internal/exposition (serving).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"
	// Certificates of public authorities, for an image that has none.
	_ "golang.org/x/crypto/x509roots/fallback"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	"github.com/balena-exporter/balena-exporter/internal/discovery"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
	"github.com/balena-exporter/balena-exporter/internal/refresh"
	"github.com/balena-exporter/balena-exporter/internal/statuspage"
)

const (
	name = "balena-exporter"
	// balenaCloud is the host of balenaCloud's API, whose devices have a page on its dashboard.
	balenaCloud = "api.balena-cloud.com"
)

func main() {
	// Neither a terminal that is closed nor a log that nobody reads any more is a reason to stop.
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go stopOn(signals, stop)
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fail(err)
	}
}

// stopOn stops the exporter at the first signal. It ends the process at the second one, or when stopping takes too
// long: the exporter may be stuck where no context reaches, such as in a file system that hangs.
func stopOn(signals <-chan os.Signal, stop func()) {
	<-signals
	stop()
	select {
	case s := <-signals:
		number, _ := s.(syscall.Signal)
		os.Exit(128 + int(number)) // as a shell reports a process that a signal ended
	case <-time.After(stopTimeout() + flushTimeout):
		fail(fmt.Errorf("did not stop within %s", stopTimeout()))
	}
}

// fail ends the process with an error, and does not wait for somebody to read it.
func fail(err error) {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_, _ = fmt.Fprintf(os.Stderr, "%s: error: %v\n", name, err)
	}()
	select {
	case <-stopped:
	case <-time.After(flushTimeout):
	}
	os.Exit(1)
}

const (
	// memoryShare of the container's memory limit is the runtime's: the rest is for what it does not count.
	memoryShare = 0.9
	// garbageShare is how much garbage there may be, in percent of what is alive. A refresh, once a minute,
	// makes nearly all of it: collecting it more often than by default costs little and halves the peak.
	garbageShare = 20
	// flushTimeout is how long the log may take to be written out when the exporter stops.
	flushTimeout = 500 * time.Millisecond
)

// grace is how long scrapes in flight may take to end when the exporter stops. Tests have more of it.
var grace = 4 * time.Second

// stopTimeout is how long stopping takes at most, whatever hangs: the grace of scrapes, and what is left to a refresh that
// is slow to notice and to the log.
func stopTimeout() time.Duration { return grace + time.Second }

// run runs the exporter until the context is cancelled. Its errors are of the configuration, or of a
// listener that failed.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := parse(args, stdout)
	if err != nil || c == nil {
		return err
	}
	if c.check {
		return checkConfig(ctx, c, stdout)
	}
	// The API's side: what is known of it, and how it went.
	var reader *account.Reader
	metrics := collector.NewMetrics(func() time.Time { return reader.TokenExpiry() }, c.maxStaleness)
	c.client.Observe, c.collector.ObserveImplausible = metrics.ObserveExchange, metrics.ObserveImplausible
	if reader, err = account.New(c.client); err != nil {
		return fmt.Errorf("--balena.ca-file: %w", err)
	}
	defer reader.Close()

	// The configuration is good; from here on the log speaks.
	queue := newLogQueue(stderr)
	logger, slogger := newLoggers(queue, c.logLevel, c.logFormat)
	direct, _ := newLoggers(stderr, c.logLevel, c.logFormat)
	queue.start(func(lost int64) {
		_ = level.Warn(direct).Log("msg", "log lines were dropped because nobody read the log", "lines", lost)
	})
	defer queue.flush(flushTimeout)
	_ = level.Info(logger).Log("msg", "starting "+name, "version", version.Info(), "build", version.BuildContext())
	for _, warning := range c.warnings {
		_ = level.Warn(logger).Log("msg", warning)
	}
	limitMemory(logger)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbageShare)
	}

	// Scrapers' side: the snapshot as rendered, and what is gathered anew for each scrape.
	var loop *refresh.Loop
	fleets := collector.New(func() *balena.Snapshot { return loop.Snapshot() }, c.collector)
	recorder := &statuspage.Recorder{}
	render := func(s *balena.Snapshot) *exposition.Page {
		page := fleets.Render(s)
		recorder.Record(s, fleets.Tallies())
		return page
	}
	var targets http.Handler
	if c.discovery != nil {
		lists := discovery.New(*c.discovery)
		targets = discovery.NewHandler(discovery.HandlerOptions{
			Lists: lists, Snapshot: func() *balena.Snapshot { return loop.Snapshot() }, MaxRequests: c.maxRequests,
		})
		exposed := render
		render = func(s *balena.Snapshot) *exposition.Page {
			lists.Refresh(s)
			return exposed(s)
		}
	}
	loop = refresh.New(refresh.Config{
		Fetch:        reader.Fetch,
		Render:       render,
		Observe:      metrics.ObserveRefresh,
		Interval:     c.interval,
		MaxStaleness: c.maxStaleness,
		Timeout:      refreshTimeout(c),
		Logger:       logger,
	})
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics, versioncollector.NewCollector("balena_exporter"))
	options := exposition.HandlerOptions{
		Page: loop.Page, Live: registry, Groups: fleets.ScrapeGroups(), Parts: c.client.Stripes, MaxRequests: c.maxRequests, ErrorLog: slogger,
	}
	if !c.disableExporterMetrics {
		registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		options.Registerer = registry
	}

	page := statuspage.Options{
		Snapshot:    loop.Snapshot,
		Status:      func() statuspage.Status { return statuspage.Status(loop.Status()) },
		Interval:    c.interval,
		DeviceNames: c.collector.DeviceNames,
		Thresholds:  c.thresholds,
		GrafanaURL:  c.grafanaURL,
		RunbookURL:  documents() + "runbooks",
		Recorder:    recorder,
	}
	if c.client.URL.Hostname() == balenaCloud {
		page.DeviceURL = statuspage.DeviceURLCloud
	}

	return serve(ctx, c, newMux(c, exposition.NewHandler(options), targets, page), loop.Run, logger, slogger)
}

// refreshTimeout returns how long a refresh may take. Data that took longer than the maximal staleness are not
// served, but the refreshes after it may be quicker, since they read only what changed: hence twice that, and
// never less than some requests that take as long as each of them may.
func refreshTimeout(c *config) time.Duration {
	const requests = 20 // 10 minutes by default
	return max(2*c.maxStaleness, requests*c.client.Timeout)
}

// limitMemory tells the runtime what the container may use, unless GOMEMLIMIT is set or nothing limits it.
func limitMemory(logger log.Logger) {
	limit, err := memlimit.Set(memlimit.WithRatio(memoryShare), memlimit.WithProvider(memlimit.FromCgroup))
	if err == nil && limit > 0 && limit < math.MaxInt64 {
		_ = level.Info(logger).Log("msg", "keeping below the memory limit of the container", "GOMEMLIMIT", limit)
	}
}

// serve serves until the context is cancelled or a listener fails, while refreshing runs beside it.
func serve(ctx context.Context, c *config, handler http.Handler, refreshing func(context.Context), logger log.Logger, slogger *slog.Logger) error {
	// Each address has a server of its own: the toolkit changes the server it is given while it serves.
	var servers []*http.Server
	listeners := listenerConfigs(c.web)
	failed := make(chan error, len(listeners)+1)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	start := func(handler http.Handler, serve func(*http.Server) error) {
		server := newServer(handler, slogger)
		servers = append(servers, server)
		running.Go(func() {
			if err := serve(server); err != nil && !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		})
	}

	if c.healthAddress != "" {
		var config net.ListenConfig
		listener, err := config.Listen(ctx, "tcp", c.healthAddress)
		if err != nil {
			return fmt.Errorf("--web.health-listen-address: %w; choose another address, or an empty one to do without", err)
		}
		_ = level.Info(logger).Log("msg", "health endpoints listen", "address", listener.Addr())
		start(newHealthMux(), func(s *http.Server) error { return s.Serve(listener) })
	}
	for _, l := range listeners {
		start(handler, func(s *http.Server) error {
			switch err := web.ListenAndServe(s, l, slogger); {
			case err == nil || errors.Is(err, http.ErrServerClosed):
				return nil
			case *l.WebSystemdSocket:
				return fmt.Errorf("--web.systemd-socket: %w; start the exporter by a systemd socket unit, or without this flag", err)
			default:
				return fmt.Errorf("--web.listen-address: %w; choose another address", err)
			}
		})
	}
	running.Go(func() { refreshing(ctx) })

	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
		_ = level.Info(logger).Log("msg", "stopping")
	}
	cancel()
	began := time.Now()
	ending, end := context.WithDeadline(context.WithoutCancel(ctx), began.Add(grace))
	defer end()
	// The health endpoints, which were first, answer to the last.
	for _, s := range slices.Backward(servers) {
		if s.Shutdown(ending) != nil {
			_ = s.Close()
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		running.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(time.Until(began.Add(stopTimeout() - flushTimeout))):
		_ = level.Warn(logger).Log("msg", "not waiting any longer for the refresh, which hangs", "timeout", stopTimeout())
	}
	if err == nil {
		_ = level.Info(logger).Log("msg", "stopped")
	}
	return err
}

// listenerConfigs returns what the toolkit is to serve on, one configuration an address; systemd's sockets
// are one.
func listenerConfigs(c *web.FlagConfig) []*web.FlagConfig {
	if *c.WebSystemdSocket {
		return []*web.FlagConfig{c}
	}
	var configs []*web.FlagConfig
	for _, address := range *c.WebListenAddresses {
		one := *c
		one.WebListenAddresses = &[]string{address}
		configs = append(configs, &one)
	}
	return configs
}
