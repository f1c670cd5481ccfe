// SPDX-License-Identifier: Apache-2.0

// Package prometheus tests the exporter with components of Prometheus: the program is scraped with the headers of
// Prometheus, and the responses are read with its parser and checked with promtool.
package prometheus

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"

	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// names are names of fleets and devices, and the names that must arrive in Prometheus. They are equal, except for invalid
// UTF-8. The balena API accepts any text.
var names = []struct{ called, arrives string }{
	{`plain`, `plain`},
	{`"quoted"`, `"quoted"`},
	{`back\slash\n`, `back\slash\n`},
	{`ends with \`, `ends with \`},
	{"two\nlines\r\n", "two\nlines\r\n"},
	{"tab\tand nul \x00", "tab\tand nul \x00"},
	{`{fleet="other"} 1`, `{fleet="other"} 1`},
	{`# HELP balena_up lies`, `# HELP balena_up lies`},
	{`<script>alert(1)</script>`, `<script>alert(1)</script>`},
	{`  blanks around  `, `  blanks around  `},
	{`Flotte süd 🚀 東京`, `Flotte süd 🚀 東京`},
	{"line\u2028separator", "line\u2028separator"},
	{"no UTF-8: \xff.", "no UTF-8: \uFFFD."},
	{strings.Repeat("long", 2500), strings.Repeat("long", 2500)},
}

// scrapers are the request headers of scrapers.
var scrapers = []struct{ name, accept, encoding string }{
	{
		"Prometheus 2",
		"application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
		"gzip",
	},
	{
		"Prometheus 3",
		"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.7,application/openmetrics-text;version=0.0.1;q=0.6," +
			"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.3",
		"gzip",
	},
	{
		"Prometheus 3 with native histograms",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7," +
			"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5," +
			"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
		"gzip",
	},
	{"Prometheus 3 set to plain text without compression", "text/plain;version=0.0.4;q=0.7,*/*;q=0.6", "identity"},
	{"curl", "*/*", ""},
}

func TestHostileNamesArriveInPrometheus(t *testing.T) {
	exporter := start(t, hostileFleets(t))

	var want []string
	for _, name := range names {
		want = append(want, name.arrives)
	}
	for _, scraper := range scrapers {
		t.Run(scraper.name, func(t *testing.T) {
			body, contentType := exporter.scrape(t, scraper.accept, scraper.encoding)
			var fleets, legacy, devices []string
			for _, series := range parse(t, body, contentType) {
				switch series.Get(model.MetricNameLabel) {
				case "balena_fleet_info":
					fleets = append(fleets, series.Get("fleet_name"))
				case "balena_devices_online":
					legacy = append(legacy, series.Get("fleet_name"))
				case "balena_device_info":
					devices = append(devices, series.Get("device_name"))
				}
			}
			for of, got := range map[string][]string{"balena_fleet_info": fleets, "balena_devices_online": legacy, "balena_device_info": devices} {
				if diff := cmp.Diff(want, got, inAnyOrder); diff != "" {
					t.Errorf("names in %s (-want +got):\n%s", of, diff)
				}
			}
		})
	}
}

func TestPromtoolCheckMetrics(t *testing.T) {
	exporter := start(t, hostileFleets(t))
	body, _ := exporter.scrape(t, "*/*", "identity")

	root := filepath.Join("..", "..")
	build := exec.CommandContext(t.Context(), "make", "-C", root, "bin/tools/promtool")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building promtool: %v\n%s", err, output)
	}
	promtool := exec.CommandContext(t.Context(), filepath.Join(root, "bin", "tools", "promtool"), "check", "metrics")
	promtool.Stdin = bytes.NewReader(body)
	if output, err := promtool.CombinedOutput(); err != nil || len(output) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, output)
	}
}

// inAnyOrder ignores the order of lists.
var inAnyOrder = cmp.Transformer("sorted", func(list []string) []string { return slices.Sorted(slices.Values(list)) })

// hostileFleets returns the URL of a balena API with a fleet and a device for each of the names.
func hostileFleets(t *testing.T) string {
	sim, err := simulator.New(simulator.Config{Tokens: []string{token}})
	if err != nil {
		t.Fatal(err)
	}
	addHostile(sim)
	api := httptest.NewServer(sim)
	t.Cleanup(api.Close)
	return api.URL
}

// addHostile adds a fleet and a device for each of the names.
func addHostile(sim *simulator.Simulator) {
	sim.Update(func(state *simulator.State) {
		for i, name := range names {
			fleet := state.AddFleet(simulator.Fleet{AppName: name.called, Slug: fmt.Sprint("acme/", i)})
			state.AddDevice(simulator.Device{FleetID: fleet.ID, Name: name.called})
		}
	})
}

// token is the token of the simulated API.
const token = "token-of-the-test"

// patience is the time limit for operations that take milliseconds on an idle machine.
const patience = 8 * time.Minute

// An exporter is a running balena-exporter.
type exporter struct{ url string }

// listening matches the log line with the address of the metrics listener.
var listening = regexp.MustCompile(`msg="Listening on" .*address=(\S+)`)

// start runs the exporter until the end of the test. It returns after the first successful refresh.
func start(t *testing.T, url string, arguments ...string) exporter {
	t.Helper()
	program := filepath.Join(t.TempDir(), "balena-exporter")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/balena-exporter")
	build.Dir = filepath.Join("..", "..")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the exporter: %v\n%s", err, output)
	}

	run := exec.Command(program, append([]string{"--web.listen-address=127.0.0.1:0", "--web.health-listen-address="}, arguments...)...)
	run.Env = append(os.Environ(), "BALENA_TOKEN="+token, "BALENA_API_URL="+url)
	log, err := run.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			t.Log(lines.Text())
			if match := listening.FindStringSubmatch(lines.Text()); match != nil && len(address) == 0 {
				address <- match[1]
			}
		}
	}()
	t.Cleanup(func() {
		if err := run.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		<-read // before Wait, which closes the pipe
		if err := run.Wait(); err != nil {
			t.Errorf("the exporter ended with %v", err)
		}
	})

	var e exporter
	select {
	case a := <-address:
		e.url = "http://" + a + "/metrics"
	case <-read:
		t.Fatal("the exporter ended")
	case <-time.After(patience):
		t.Fatal("the exporter does not listen")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for again := time.NewTicker(20 * time.Millisecond); ; {
		if body, _ := e.scrape(t, "*/*", "identity"); bytes.Contains(body, []byte("\nbalena_up 1\n")) {
			return e
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatal("the exporter does not read the API")
		}
	}
}

// scrape returns the decompressed exposition and its content type.
func (e exporter) scrape(t *testing.T, accept, encoding string) (body []byte, contentType string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	request.Header.Set("Accept-Encoding", encoding)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("the exporter returns status %s", response.Status)
	}
	var reader io.Reader = response.Body
	if encoding == "gzip" {
		if got := response.Header.Get("Content-Encoding"); got != "gzip" {
			t.Errorf("Content-Encoding is %q, not gzip", got)
		}
		if reader, err = gzip.NewReader(response.Body); err != nil {
			t.Fatal(err)
		}
	}
	if body, err = io.ReadAll(reader); err != nil {
		t.Fatal(err)
	}
	return body, response.Header.Get("Content-Type")
}

// parse returns all series of a scrape, read with the parser of Prometheus.
func parse(t *testing.T, body []byte, contentType string) []labels.Labels {
	t.Helper()
	parser, err := textparse.New(body, contentType, labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		t.Fatalf("Prometheus does not accept %q: %v", contentType, err)
	}
	var all []labels.Labels
	seen := make(map[string]bool)
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("Prometheus cannot parse the scrape: %v", err)
		}
		if entry != textparse.EntrySeries {
			continue
		}
		var series labels.Labels
		parser.Labels(&series)
		if _, timestamp, _ := parser.Series(); timestamp != nil {
			t.Errorf("series with a timestamp, which prevents it from becoming stale: %s", series)
		}
		if id := series.String(); seen[id] {
			t.Errorf("twice in one scrape: %s", id)
		} else {
			seen[id] = true
		}
		all = append(all, series)
	}
}
