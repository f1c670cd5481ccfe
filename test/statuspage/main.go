// SPDX-License-Identifier: Apache-2.0

// Command statuspage serves the status page in three states, for the test in this directory and for
// looking at it: with data, with data that no refresh renews, and without any. It writes the addresses, and the UUID of a
// device with many problems, to its standard output as a line of JSON, and serves until its standard input ends. Unless
// -plain is given, names in the data try to do harm.
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
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"time"

	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	balenaapi "github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/problem"
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

	aged := func(age time.Duration) func() *balena.Snapshot {
		return func() *balena.Snapshot {
			now := *s
			now.Time = time.Now().Add(-age)
			return &now
		}
	}
	none := func() *balena.Snapshot { return nil }
	failed := statuspage.Status{
		LastSuccess: time.Now().Add(-4 * time.Minute), LastErrorTime: time.Now().Add(-30 * time.Second),
		LastError: trouble, Next: time.Now().Add(40 * time.Second),
	}
	over := failed
	over.Up, over.LastErrorTime = true, time.Now().Add(-3*time.Hour)

	addresses := map[string]string{"device": crowded(s).UUID}
	for state, of := range map[string]struct {
		snapshot func() *balena.Snapshot
		status   statuspage.Status
		recorder *statuspage.Recorder
	}{"good": {aged(20 * time.Second), over, recorded(s)}, "failing": {aged(4 * time.Minute), failed, nil}, "empty": {none, failed, nil}} {
		server := httptest.NewServer(statuspage.NewHandler(statuspage.Options{
			Snapshot: of.snapshot, Status: func() statuspage.Status { return of.status },
			Interval: time.Minute, DeviceURL: statuspage.DeviceURLCloud, DeviceNames: true, Version: "1.2.3",
			GrafanaURL: "https://grafana.example.com", RunbookURL: "https://github.com/balena-exporter/balena-exporter/blob/main/docs/runbooks",
			Thresholds: problem.DefaultThresholds(), Recorder: of.recorder,
			Links: []statuspage.Link{
				{Text: "Problems", Address: "/problems", About: "All devices that need somebody, by the conditions of the alerts"},
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

// crowded is the device of which the most is to be shown.
func crowded(s *balena.Snapshot) *balena.Device {
	limits := problem.DefaultThresholds()
	view := limits.Of(s, balena.Instant(s.Time.UnixMilli()))
	var most *balena.Device
	best := -1
	for d := range s.Devices.All() {
		n := len(d.Services()) + len(d.Tags())
		if n > 0 && d.CPUUsage != balena.Null {
			n += 10 * len(view.Device(d).All())
		}
		if n > best {
			most, best = d, n
		}
	}
	return most
}

// tags are the keys of the tags of devices.
var tags = []string{"site"}

// recorded returns the history of the last hours, in which now and then some devices were away.
func recorded(s *balena.Snapshot) *statuspage.Recorder {
	r := &statuspage.Recorder{}
	const points = 100
	for i := range points {
		then := *s
		then.Time = time.Now().Add((time.Duration(i) - points) * 5 * time.Minute)
		tallies := map[int64]*balena.Tally{}
		for _, f := range s.Fleets {
			tallies[f.ID] = &balena.Tally{}
		}
		for d := range s.Devices.All() {
			was := *d
			if (int(d.ID)+i/7)%29 == i%13 {
				was.Online, was.HeartbeatState = false, "offline"
			}
			if i < points/2 && d.ID%4 == 1 {
				was.RunningRelease = 0
			}
			tallies[d.FleetID].Add(&was)
		}
		if i%40 != 30 {
			r.Record(&then, maps.All(tallies))
		}
	}
	return r
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
		Options: account.Options{Devices: true, Releases: true, Services: true, DeviceTags: tags, ArchivedFleets: true},
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
