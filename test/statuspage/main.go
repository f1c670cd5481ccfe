// SPDX-License-Identifier: Apache-2.0

// Command statuspage serves the status page in three states, for the test in this directory and for
// looking at it: with data, with data that no refresh renews, and without any. It writes the addresses to
// its standard output as a line of JSON, and serves until its standard input ends. Unless -plain is given,
// names in the data try to do harm.
//
//	sleep inf | go run ./test/statuspage -plain
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	balenaapi "github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
	"github.com/balena-exporter/balena-exporter/internal/statuspage"
)

func main() {
	devices := flag.Int("devices", 3000, "number of devices")
	fleets := flag.Int("fleets", 12, "number of fleets")
	plain := flag.Bool("plain", false, "leave the names harmless")
	flag.Parse()
	if err := run(context.Background(), *devices, *fleets, *plain); err != nil {
		fmt.Fprintln(os.Stderr, "statuspage:", err)
		os.Exit(1)
	}
}

// hostile is a name that would do harm if it got into the page as it is.
const hostile = `"><script>document.title='harmed'</script><img src=x onerror="document.title='harmed'"><style>*{display:none}</style>`

// climbing is a slug that would lead out of the status page if a browser cleaned the path with it.
const climbing = "../../-/healthy"

func run(ctx context.Context, devices, fleets int, plain bool) error {
	sim, err := simulator.New(simulator.Config{Devices: devices, Fleets: fleets, Seed: 1, CloudFields: true})
	if err != nil {
		return err
	}
	trouble := "GET device, page 7: status 503 Service Unavailable"
	if !plain {
		trouble += hostile
		sim.Update(func(st *simulator.State) {
			st.Fleet(1).AppName = hostile
			st.Fleet(2).Slug = "acme/" + hostile
			st.Fleet(3).Slug = climbing
			for _, d := range st.Devices.All() {
				if d.FleetID == 1 {
					d.Name = hostile + "\u202egnp.exe"
				}
			}
		})
	}
	s, err := fetch(ctx, sim)
	if err != nil {
		return err
	}

	refreshed := func() *balena.Snapshot {
		now := *s
		now.Time = time.Now().Add(-20 * time.Second)
		return &now
	}
	old := func() *balena.Snapshot {
		now := *s
		now.Time = time.Now().Add(-4 * time.Minute)
		return &now
	}
	none := func() *balena.Snapshot { return nil }
	failed := statuspage.Status{
		LastSuccess: time.Now().Add(-4 * time.Minute), LastErrorTime: time.Now().Add(-30 * time.Second),
		LastError: trouble,
	}
	over := failed
	over.Up, over.LastErrorTime = true, time.Now().Add(-3*time.Hour)

	addresses := map[string]string{}
	for state, of := range map[string]struct {
		snapshot func() *balena.Snapshot
		status   statuspage.Status
	}{"good": {refreshed, over}, "failing": {old, failed}, "empty": {none, failed}} {
		server := httptest.NewServer(statuspage.NewHandler(statuspage.Options{
			Snapshot: of.snapshot, Status: func() statuspage.Status { return of.status },
			Interval: time.Minute, DeviceURL: statuspage.DeviceURLCloud, DeviceNames: true, Version: "1.2.3",
			Links: []statuspage.Link{
				{Text: "Fleets", Address: "/fleets", About: "All fleets, and the devices of each, worst first"},
				{Text: "Metrics", Address: "/metrics", About: "What Prometheus scrapes"},
				{Text: "Documentation", Address: "https://github.com/balena-exporter/balena-exporter#readme"},
			},
		}))
		defer server.Close()
		addresses[state] = server.URL
	}
	if err := json.NewEncoder(os.Stdout).Encode(addresses); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// fetch reads a snapshot as the exporter does.
func fetch(ctx context.Context, api http.Handler) (*balena.Snapshot, error) {
	server := httptest.NewServer(api)
	defer server.Close()
	address, err := url.Parse(server.URL)
	if err != nil {
		return nil, err
	}
	client, err := account.New(account.Config{
		Config: balenaapi.Config{URL: address, Token: balenaapi.StaticToken("token"), Timeout: time.Minute}, PageSize: 1000,
		Options: account.Options{Devices: true, Releases: true, ArchivedFleets: true},
	})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	s, err := client.Fetch(ctx)
	if err == nil && len(s.Fleets) == 0 {
		err = errors.New("the simulated account has no fleets")
	}
	return s, err
}
