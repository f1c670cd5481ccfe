// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/balena/account"
	balenaapi "github.com/balena-exporter/balena-exporter/internal/balena/api"
	"github.com/balena-exporter/balena-exporter/internal/exposition"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// TestPageEqualsCollector serves a snapshot as a page, with and without compression, and with the handler of client_golang,
// and compares the samples, which the parser of Prometheus reads.
func TestPageEqualsCollector(t *testing.T) {
	accounts := map[string]simulator.Config{
		"no devices":      {Fleets: 3},
		"one device":      {Devices: 1, Fleets: 1},
		"20,000 devices":  {Devices: 20_000, Fleets: 40, CloudFields: true},
		"100,000 devices": {Devices: 100_000, Fleets: 200},
	}
	for name, config := range accounts {
		t.Run(name, func(t *testing.T) {
			if config.Devices > 20_000 && testing.Short() {
				t.Skip("takes a minute of CPU, for the plain collector")
			}
			sim, err := simulator.New(config)
			if err != nil {
				t.Fatal(err)
			}
			sameEverywhere(t, sim)
		})
	}
	t.Run("hostile names", func(t *testing.T) {
		sim, err := simulator.New(simulator.Config{})
		if err != nil {
			t.Fatal(err)
		}
		addHostile(sim)
		sameEverywhere(t, sim)
	})
}

func sameEverywhere(t *testing.T, sim *simulator.Simulator) {
	t.Helper()
	snapshot := fetch(t, sim)
	fleets := collector.New(func() *balena.Snapshot { return snapshot }, collector.DefaultOptions())

	page := fleets.Render(snapshot)
	ours := exposition.NewHandler(exposition.HandlerOptions{Page: func() *exposition.Page { return page }, Live: prometheus.NewRegistry()})

	registry := prometheus.NewRegistry()
	registry.MustRegister(fleets)
	plain := promhttp.HandlerFor(registry, promhttp.HandlerOpts{DisableCompression: true})

	seed := maphash.MakeSeed()
	want := digest(t, seed, plain, "")
	if want.samples == 0 && len(snapshot.Fleets) > 0 {
		t.Fatal("the plain collector gave no samples")
	}
	for _, encoding := range []string{"gzip", "identity"} {
		if got := digest(t, seed, ours, encoding); got != want {
			t.Errorf("%s: got %d samples (digest %x), the plain collector gives %d (%x)", encoding, got.samples, got.sum, want.samples, want.sum)
		}
	}
}

func fetch(t *testing.T, sim *simulator.Simulator) *balena.Snapshot {
	t.Helper()
	api := httptest.NewServer(sim)
	defer api.Close()
	address, err := url.Parse(api.URL)
	if err != nil {
		t.Fatal(err)
	}
	client, err := account.New(account.Config{
		Config: balenaapi.Config{URL: address, Token: balenaapi.StaticToken(token), Timeout: time.Minute, UserAgent: "test"}, PageSize: 1000,
		Options: account.Options{
			Devices: true, Releases: true, ServiceSummary: true, Keys: true, OS: true, ArchivedFleets: true, SlowInterval: time.Hour, Keep: time.Hour,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	snapshot, err := client.Fetch(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

// samples is a digest of a set of samples, independent of their order. The samples themselves would need too much memory.
type samples struct {
	samples int
	sum     uint64
}

// digest reads the samples that a handler serves, with the parser of Prometheus.
func digest(t *testing.T, seed maphash.Seed, handler http.Handler, encoding string) samples {
	t.Helper()
	server := httptest.NewServer(handler)
	defer server.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept-Encoding", encoding)
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var body io.Reader = response.Body
	if encoding == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			t.Fatal(err)
		}
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	parser, err := textparse.New(text, response.Header.Get("Content-Type"), labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var found samples
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatalf("%s: %v", encoding, err)
		}
		if entry != textparse.EntrySeries {
			continue
		}
		_, timestamp, value := parser.Series()
		if timestamp != nil {
			t.Fatal("a sample has a timestamp")
		}
		var series labels.Labels
		parser.Labels(&series)
		found.samples++
		found.sum += maphash.String(seed, fmt.Sprintf("%s %x", series.WithoutEmpty(), math.Float64bits(value)))
	}
}
