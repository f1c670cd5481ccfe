// SPDX-License-Identifier: Apache-2.0

// Command balena-simulator serves a balena API from memory. Use it to try the exporter without an account, with any
// number of devices, and to see how the exporter handles faults:
//
//	balena-simulator --devices=5000 --fleets=20
//	BALENA_TOKEN=anything balena-exporter --balena.api-url=http://127.0.0.1:8085
//
// Faults are set at start, or changed while it runs:
//
//	balena-simulator --fault=resource=device,status=429,retry_after=7s,every=3
//	curl -X PUT -d '[{"resource":"device","cut_after":1000}]' http://127.0.0.1:8085/simulator/faults
//
// Its README describes the editions and how programs use it. Package internal/simulator documents what is
// simulated, and all faults.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/common/version"

	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

const (
	name = "balena-simulator"

	// shutdownTimeout is how long requests in flight may take after a signal. A fault may make a request endless.
	shutdownTimeout = time.Second

	// readHeaderTimeout is the time limit for connections without a request.
	readHeaderTimeout = 10 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// options holds the values of the flags.
type options struct {
	listenAddress    string
	dataset          string
	tickInterval     time.Duration
	certFile         string
	keyFile          string
	faults           []string
	config           simulator.Config
	helpOrVersionOut bool
}

func parseFlags(args []string, out io.Writer) (*options, error) {
	o := &options{}
	app := kingpin.New(name, "Serves a simulated balena API, with generated fleets and devices, and configurable faults.")
	app.UsageWriter(out)
	app.ErrorWriter(out)
	app.Terminate(func(int) { o.helpOrVersionOut = true })
	app.Version(version.Print(name))
	app.HelpFlag.Short('h')
	app.Flag("listen-address", "Address on which to serve the API.").Default("127.0.0.1:8085").StringVar(&o.listenAddress)
	webListenAddress := app.Flag("web.listen-address", "Alias of --listen-address.").Hidden().String()
	app.Flag("devices", "Number of devices to generate.").Default("1000").IntVar(&o.config.Devices)
	app.Flag("fleets", "Number of fleets to generate.").Default("10").IntVar(&o.config.Fleets)
	app.Flag("seed", "Seed of the generated account and of its changes. The same seed generates the same account.").Default("1").Uint64Var(&o.config.Seed)
	app.Flag("dataset", "Directory with an account to serve instead of a generated one. It contains responses of the API by resource (application.json, device.json, …).").
		PlaceHolder("DIR").StringVar(&o.dataset)
	app.Flag("token", "Token to accept. Repeatable. By default, all tokens are accepted.").PlaceHolder("TOKEN").StringsVar(&o.config.Tokens)
	app.Flag("tick-interval", "Interval at which devices change. 0 disables changes.").Default("15s").DurationVar(&o.tickInterval)
	app.Flag("tls-cert-file", "Certificate for HTTPS.").PlaceHolder("FILE").StringVar(&o.certFile)
	app.Flag("tls-key-file", "Key of the certificate.").PlaceHolder("FILE").StringVar(&o.keyFile)
	app.Flag("fault", "Fault to inject, as key=value,…. Repeatable. Keys: resource, query, from, every, times, page (when); "+
		"latency, status, body, retry_after, retry_after_date, redirect, guest, spoil, max_rows, cut_after, endless, pace (what). "+
		"For example: resource=device,status=429,retry_after=30,times=3").
		PlaceHolder("FAULT").StringsVar(&o.faults)
	app.Flag("edition", "Server to simulate: openbalena, or cloud for a server with the fields of balenaCloud.").
		Default(string(simulator.OpenBalena)).EnumVar((*string)(&o.config.Edition), simulator.Editions()...)
	app.Flag("cache-answers", "Cache responses until the data change, so that benchmarks of clients do not measure the simulator.").BoolVar(&o.config.CacheResponses)
	app.Flag("api-versions", "Version of the API to serve: v6 or v7. Repeatable.").Default("v6", "v7").EnumsVar(&o.config.Versions, "v6", "v7")
	if _, err := app.Parse(args); err != nil {
		return nil, err
	}
	if *webListenAddress != "" {
		o.listenAddress = *webListenAddress
	}
	if (o.certFile == "") != (o.keyFile == "") {
		return nil, errors.New("set both --tls-cert-file and --tls-key-file, or neither")
	}
	if o.tickInterval < 0 {
		return nil, fmt.Errorf("--tick-interval=%s must not be negative; 0 disables changes", o.tickInterval)
	}
	return o, nil
}

// run serves until the context is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseFlags(args, stdout)
	if err != nil || o.helpOrVersionOut {
		return err
	}
	var faults simulator.Faults
	for _, s := range o.faults {
		f, err := simulator.ParseFault(s)
		if err != nil {
			return fmt.Errorf("--fault: %w", err)
		}
		faults = append(faults, f)
	}
	if o.dataset != "" {
		if o.config.Dataset, err = simulator.LoadDataset(os.DirFS(o.dataset)); err != nil {
			return fmt.Errorf("--dataset=%s: %w", o.dataset, err)
		}
	}
	sim, err := simulator.New(o.config)
	if err != nil {
		return err
	}
	sim.SetFaults(faults)

	timestamp := log.TimestampFormat(func() time.Time { return time.Now().UTC() }, "2006-01-02T15:04:05.000Z07:00")
	logger := log.With(log.NewLogfmtLogger(log.NewSyncWriter(stderr)), "ts", timestamp, "caller", log.DefaultCaller, "level", level.InfoValue())
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listenAddress)
	if err != nil {
		return fmt.Errorf("--listen-address: %w", err)
	}
	srv := &http.Server{
		Handler:           sim,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       simulator.IdleTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	scheme, serve := "http", srv.Serve
	if o.certFile != "" {
		scheme, serve = "https", func(l net.Listener) error { return srv.ServeTLS(l, "", "") }
		cert, err := tls.LoadX509KeyPair(o.certFile, o.keyFile)
		if err != nil {
			return fmt.Errorf("--tls-cert-file: %w", err)
		}
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	served := make(chan error, 1)
	go func() { served <- serve(listener) }()
	logger.Log("msg", "serving a simulated balena API", "url", scheme+"://"+listener.Addr().String(),
		"version", version.Version)

	ticks := make(<-chan time.Time) // receives nothing if there are no ticks
	if o.tickInterval > 0 {
		ticker := time.NewTicker(o.tickInterval)
		defer ticker.Stop()
		ticks = ticker.C
	}
	for {
		select {
		case <-ticks:
			sim.Tick()
		case err := <-served:
			return fmt.Errorf("serve: %w", err)
		case <-ctx.Done():
			logger.Log("msg", "stopping")
			grace, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
			defer cancel()
			if err := srv.Shutdown(grace); err != nil {
				return srv.Close()
			}
			return nil
		}
	}
}
