// SPDX-License-Identifier: Apache-2.0

// The balena-exporter exports the fleets and devices of balenaCloud or of an openBalena server to Prometheus.
//
// This package has flags, wiring and lifecycle. It connects the packages collector (the metrics), internal/balena (the
// API), internal/refresh (the refresh loop) and internal/exposition (serving).
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
	// Certificates of public authorities, for container images without them.
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
	// balenaCloud is the host of the balenaCloud API. Its devices have a page in the balena dashboard.
	balenaCloud = "api.balena-cloud.com"
)

func main() {
	// The exporter does not stop when the terminal is closed or the reader of the log ends.
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go stopOn(signals, stop)
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fail(err)
	}
}

// stopOn stops the exporter at the first signal. It ends the process at the second signal, or if stopping takes too
// long: the exporter may hang in an operation that ignores contexts, such as in a file system that hangs.
func stopOn(signals <-chan os.Signal, stop func()) {
	<-signals
	stop()
	select {
	case s := <-signals:
		number, _ := s.(syscall.Signal)
		os.Exit(128 + int(number)) // the exit status that a shell reports for a process ended by a signal
	case <-time.After(stopTimeout() + flushTimeout):
		fail(fmt.Errorf("did not stop within %s", stopTimeout()))
	}
}

// fail ends the process with an error, and does not wait until the error is read.
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
	// memoryShare is the fraction of the container's memory limit that Go's runtime may use. The rest is for memory that
	// the runtime does not count.
	memoryShare = 0.9
	// garbageShare is GOGC: the garbage that triggers a collection, in percent of the live heap. Nearly all garbage is
	// made by refreshes, once a minute. Collecting it more often than by default costs little and halves the peak memory.
	garbageShare = 15
	// flushTimeout is the maximum time for writing the rest of the log when the exporter stops.
	flushTimeout = 500 * time.Millisecond
)

// grace is how long scrapes in progress may take when the exporter stops. Tests increase it.
var grace = 4 * time.Second

// stopTimeout returns the maximum time for stopping, even if something hangs: the grace of scrapes, and some time for the
// end of a refresh and for the log.
func stopTimeout() time.Duration { return grace + time.Second }

// run runs the exporter until the context is canceled. It returns errors of the configuration, or of a listener that
// failed.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := parse(args, stdout)
	if err != nil || c == nil {
		return err
	}
	if c.check {
		return checkConfig(ctx, c, stdout)
	}
	// The reader of the API, and the metrics about refreshes.
	var reader *account.Reader
	metrics := collector.NewMetrics(func() time.Time { return reader.TokenExpiry() }, c.maxStaleness)
	c.client.Observe, c.collector.ObserveImplausible = metrics.ObserveExchange, metrics.ObserveImplausible
	if reader, err = account.New(c.client); err != nil {
		return fmt.Errorf("--balena.ca-file: %w", err)
	}
	defer reader.Close()

	// The configuration is valid. From here on, errors are logged.
	queue := newLogQueue(stderr)
	logger, slogger := newLoggers(queue, c.logLevel, c.logFormat)
	direct, _ := newLoggers(stderr, c.logLevel, c.logFormat)
	queue.start(func(lost int64) {
		_ = level.Warn(direct).Log("msg", "log lines were dropped because the log was not read", "lines", lost)
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

	// The metrics for scrapers: the rendered snapshot, and metrics that are gathered for each scrape.
	fleets := collector.New(nil, c.collector)
	recorder := &statuspage.Recorder{}
	var lists *discovery.Lists // nil unless targets are served
	if c.discovery != nil {
		lists = discovery.New(*c.discovery)
	}
	loop := refresh.New(refresh.Config{
		Fetch: reader.Fetch,
		Render: func(s *balena.Snapshot) *exposition.Page {
			if lists != nil {
				lists.Refresh(s)
			}
			page := fleets.Render(s)
			recorder.Record(s, fleets.Tallies())
			return page
		},
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
	var targets http.Handler
	if lists != nil {
		targets = discovery.NewHandler(discovery.HandlerOptions{Lists: lists, Snapshot: loop.Snapshot, MaxRequests: c.maxRequests})
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

// refreshTimeout returns the maximum duration of a refresh: twice the maximum staleness. Data of a refresh that took longer
// than the maximum staleness are not served, but the next refreshes may be faster, because they read only changes. The
// duration is at least that of several requests that reach their timeout.
func refreshTimeout(c *config) time.Duration {
	const requests = 20 // 10 minutes by default
	return max(2*c.maxStaleness, requests*c.client.Timeout)
}

// limitMemory sets the runtime's memory limit from that of the container, unless GOMEMLIMIT is set or the container has no
// limit.
func limitMemory(logger log.Logger) {
	limit, err := memlimit.Set(memlimit.WithRatio(memoryShare), memlimit.WithProvider(memlimit.FromCgroup))
	if err == nil && limit > 0 && limit < math.MaxInt64 {
		_ = level.Info(logger).Log("msg", "memory limit of the Go runtime set from that of the container", "GOMEMLIMIT", limit)
	}
}

// serve serves until the context is canceled or a listener fails. It runs refreshing at the same time.
func serve(ctx context.Context, c *config, handler http.Handler, refreshing func(context.Context), logger log.Logger, slogger *slog.Logger) error {
	// Each address needs its own server, because the toolkit modifies the server while it serves.
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
			return fmt.Errorf("--web.health-listen-address: %w; use another address, or an empty one to disable the health endpoints", err)
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
				return fmt.Errorf("--web.systemd-socket: %w; start the exporter with a systemd socket unit, or without this flag", err)
			default:
				return fmt.Errorf("--web.listen-address: %w; use another address", err)
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
	// Stop the health endpoints last. Their server is the first.
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
		_ = level.Warn(logger).Log("msg", "stopping while a refresh hangs", "timeout", stopTimeout())
	}
	if err == nil {
		_ = level.Info(logger).Log("msg", "stopped")
	}
	return err
}

// listenerConfigs returns one configuration of the toolkit for each address. All sockets of systemd have one
// configuration.
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
