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
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "%s: error: %v\n", name, err)
		os.Exit(1)
	}
}

const (
	// memoryShare of the container's memory limit is the runtime's: the rest is for what it does not count.
	memoryShare = 0.9
	// garbageShare is how much garbage there may be, in percent of what is alive. A refresh, once a minute,
	// makes nearly all of it: collecting it more often than by default costs little and halves the peak.
	garbageShare = 20
)

// grace is how long scrapes in flight may take to end when the exporter stops. Tests have more of it.
var grace = 5 * time.Second

// run runs the exporter until the context is cancelled. Its errors are of the configuration, or of a
// listener that failed.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := parse(args, stdout)
	if err != nil || c == nil {
		return err
	}
	// The API's side: what is known of it, and how it went.
	var client *balena.Client
	metrics := collector.NewMetrics(func() time.Time { return client.TokenExpiry() }, c.maxStaleness)
	c.client.Observe = metrics.ObserveExchange
	if client, err = balena.NewClient(c.client); err != nil {
		return fmt.Errorf("--balena.ca-file: %w", err)
	}
	defer client.Close()

	// The configuration is good; from here on the log speaks.
	logger, slogger := newLoggers(stderr, c.logLevel, c.logFormat)
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
	fleets := collector.New(func() *collector.Snapshot { return loop.Snapshot() }, c.collector)
	loop = refresh.New(refresh.Config{
		Fetch: client.Fetch,
		Render: func(s, before *collector.Snapshot, previous *exposition.Page) *exposition.Page {
			b := exposition.NewBuilder(exposition.Layout(fleets.Layout()), previous)
			fleets.Render(s, before, b)
			return b.Page()
		},
		Observe:      metrics.ObserveRefresh,
		Interval:     c.interval,
		MaxStaleness: c.maxStaleness,
		Logger:       logger,
	})
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics, versioncollector.NewCollector("balena_exporter"))
	options := exposition.HandlerOptions{Page: loop.Page, Live: registry, MaxRequests: c.maxRequests, ErrorLog: slogger}
	if !c.disableExporterMetrics {
		registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		options.Registerer = registry
	}

	page := statuspage.Options{
		Snapshot:    loop.Snapshot,
		Status:      func() statuspage.Status { return statuspage.Status(loop.Status()) },
		Interval:    c.interval,
		DeviceNames: c.collector.DeviceNames,
	}
	if c.client.URL.Hostname() == balenaCloud {
		page.DeviceURL = statuspage.DeviceURLCloud
	}

	handler, err := newMux(c, exposition.NewHandler(options), statuspage.NewHandler(page))
	if err != nil {
		return err
	}
	return serve(ctx, c, handler, loop.Run, logger, slogger)
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
	ending, end := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer end()
	// The health endpoints, which were first, answer to the last.
	for _, s := range slices.Backward(servers) {
		if s.Shutdown(ending) != nil {
			_ = s.Close()
		}
	}
	running.Wait()
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
