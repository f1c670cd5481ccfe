package dashboards

import (
	"maps"
	"math"
	"net/http/httptest"
	"net/url"
	"slices"
	"sort"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/version"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/balena-exporter/balena-exporter/collector"
	"github.com/balena-exporter/balena-exporter/internal/balena"
	"github.com/balena-exporter/balena-exporter/internal/simulator"
)

// The simulated account: in the fleet that is looked at are more devices than any panel may show.
const (
	devices, fleets = 800, 8
	fleetID         = 1
	refreshes       = 15
	interval        = time.Minute
)

// mostSeries is how many lines, bars or rows a panel may have: a hundred devices, which is the most that
// can be chosen, or the states and versions of a fleet.
const mostSeries = 100

// world is an account that was exported for a while: by one exporter, and by two at the same time.
type world struct {
	one, two   *teststorage.TestStorage
	begin, end time.Time
	variables  map[string]string
	// labels are the labels of each metric that was seen.
	labels map[string]map[string]bool
}

// simulate exports a simulated account with every kind of trouble in it. Time passes at once.
func simulate(t *testing.T) *world {
	t.Helper()
	w := &world{one: teststorage.New(t), two: teststorage.New(t), begin: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), labels: map[string]map[string]bool{}}
	var passed atomic.Int64 // since the beginning
	now := func() time.Time { return w.begin.Add(time.Duration(passed.Load())) }

	sim, err := simulator.New(simulator.Config{Devices: devices, Fleets: fleets, Seed: 1, CloudFields: true, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(sim)
	t.Cleanup(api.Close)
	address, err := url.Parse(api.URL)
	if err != nil {
		t.Fatal(err)
	}
	metrics := collector.NewMetrics(func() time.Time { return w.begin.Add(7 * 24 * time.Hour) }, math.MaxInt64)
	client, err := balena.NewClient(balena.Config{
		URL: address, Token: balena.StaticToken("token"), Timeout: time.Minute, PageSize: 1000, Now: now, Observe: metrics.ObserveExchange,
		Options: balena.Options{Devices: true, Releases: true, Services: true, Keys: true, ArchivedFleets: true, SlowInterval: interval, Keep: time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)

	var snapshot *balena.Snapshot
	options := collector.DefaultOptions()
	options.Services = true
	version.Version = "0.0.0" // which the linker sets
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collector.New(func() *balena.Snapshot { return snapshot }, options), metrics, versioncollector.NewCollector("balena_exporter"),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)

	var device string
	sim.Update(func(st *simulator.State) {
		st.NewRelease(2, "9.9.9").Status = "failed"
		for _, d := range st.Devices.All() {
			if d.FleetID == fleetID && d.RunningReleaseID != 0 && d.IsConnectedToVPN {
				device = d.UUID
			}
		}
	})
	for i := range refreshes {
		sim.Tick()
		sim.Update(func(st *simulator.State) {
			for _, d := range st.Devices.All() {
				if d.UUID == device { // simulated life may take it elsewhere
					d.IsConnectedToVPN, d.HeartbeatState = true, "online"
					d.Status, d.UpdateStatus, d.DownloadProgress, d.LastUpdateStatusEvent = "Downloading", "downloading", simulator.N(40), st.Now()
					d.CPUUsage, d.CPUTemp = simulator.N(50), simulator.N(60)
					d.MemoryUsage, d.MemoryTotal, d.StorageUsage, d.StorageTotal = simulator.N(1), simulator.N(2), simulator.N(3), simulator.N(4)
				}
			}
		})
		sim.SetFaults(nil)
		fails := i > 0 && i%5 == 0
		if fails {
			sim.SetFaults(simulator.Faults{{Resource: "device", Status: 429, RetryAfter: simulator.Duration{Duration: time.Second}}})
		}
		s, err := client.Fetch(t.Context())
		if fails != (err != nil) {
			t.Fatalf("refresh %d: %v", i, err)
		}
		if err == nil {
			snapshot = s
		}
		metrics.ObserveRefresh(s, err, time.Second)
		w.end = now()
		w.scrape(t, registry)
		passed.Add(int64(interval))
	}

	n := 0
	for d := range snapshot.Devices.All() {
		if d.FleetID == fleetID {
			n++
		}
	}
	if n <= mostSeries {
		t.Fatalf("the fleet has %d devices, too few to see whether panels show all of them", n)
	}
	w.variables = map[string]string{
		"organization": ".+", "fleet": snapshot.Fleets[fleetID-1].Slug, "device": device, "top": "20", "job": ".+", "instance": ".+", "__rate_interval": "5m",
	}
	return w
}

// scrape appends what is exported now.
func (w *world) scrape(t *testing.T, registry *prometheus.Registry) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	samples, err := expfmt.ExtractSamples(&expfmt.DecodeOptions{}, families...)
	if err != nil {
		t.Fatal(err)
	}
	// What Prometheus adds of its own.
	for name, value := range map[model.LabelValue]model.SampleValue{"up": 1, "scrape_duration_seconds": 0.1, "scrape_samples_scraped": model.SampleValue(len(samples))} {
		samples = append(samples, &model.Sample{Metric: model.Metric{model.MetricNameLabel: name}, Value: value})
	}
	for storage, instances := range map[*teststorage.TestStorage][]string{w.one: {"a:8000"}, w.two: {"a:8000", "b:8000"}} {
		appender := storage.Appender(t.Context())
		for _, instance := range instances {
			for _, s := range samples {
				b := labels.NewBuilder(labels.FromStrings("job", "balena-exporter", "instance", instance))
				for name, value := range s.Metric {
					b.Set(string(name), string(value))
				}
				series := b.Labels()
				if _, err := appender.Append(0, series, w.end.UnixMilli(), float64(s.Value)); err != nil {
					t.Fatal(err)
				}
				known := w.labels[series.Get(model.MetricNameLabel)]
				if known == nil {
					known = map[string]bool{}
					w.labels[series.Get(model.MetricNameLabel)] = known
				}
				series.Range(func(l labels.Label) { known[l.Name] = true })
			}
		}
		if err := appender.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// ask runs a query as Grafana does, and returns its series in order.
func (w *world) ask(t *testing.T, storage *teststorage.TestStorage, engine *promql.Engine, q *Query, expr string) promql.Matrix {
	t.Helper()
	var query promql.Query
	var err error
	if q.Range {
		query, err = engine.NewRangeQuery(t.Context(), storage, nil, expr, w.begin.Add(5*interval), w.end, interval)
	} else {
		query, err = engine.NewInstantQuery(t.Context(), storage, nil, expr, w.end)
	}
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	defer query.Close()
	result := query.Exec(t.Context())
	if result.Err != nil {
		t.Fatalf("%s: %v", expr, result.Err)
	}
	if len(result.Warnings) > 0 {
		t.Errorf("%s: %v", expr, result.Warnings)
	}
	var matrix promql.Matrix
	switch value := result.Value.(type) {
	case promql.Matrix:
		matrix = value
	case promql.Vector:
		for _, s := range value {
			matrix = append(matrix, promql.Series{Metric: s.Metric, Floats: []promql.FPoint{{T: s.T, F: s.F}}})
		}
	default:
		t.Fatalf("%s: the answer is a %s", expr, value.Type())
	}
	own := make(promql.Matrix, len(matrix)) // Close takes back the points
	for i, s := range matrix {
		own[i] = promql.Series{Metric: s.Metric, Floats: slices.Clone(s.Floats)}
	}
	sort.Sort(own)
	return own
}

func TestDashboards(t *testing.T) {
	panels, err := Panels()
	if err != nil {
		t.Fatal(err)
	}
	w := simulate(t)
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 50_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute})
	t.Cleanup(func() { _ = engine.Close() })
	promQL := parser.NewParser(parser.Options{})

	for _, p := range panels {
		t.Run(p.String(), func(t *testing.T) {
			variables := maps.Clone(w.variables)
			if p.Dashboard == "balena-fleets" {
				variables["fleet"] = ".+" // all of them
			}
			answered := map[string]bool{}
			for _, q := range p.Queries {
				expr := q.Fill(variables)
				parsed, err := promQL.ParseExpr(expr)
				if err != nil {
					t.Fatalf("%s: %v", expr, err)
				}
				w.check(t, parsed)

				answer := w.ask(t, w.one, engine, &q, expr)
				if len(answer) == 0 {
					t.Errorf("%s has no answer", expr)
				}
				if p.Type != "" && len(answer) > mostSeries {
					t.Errorf("%s has %d series, at most %d can be shown", expr, len(answer), mostSeries)
				}
				for _, series := range answer {
					series.Metric.Range(func(l labels.Label) { answered[l.Name] = true })
				}
				for _, label := range q.Labels {
					if !answered[label] {
						t.Errorf("%s has no label %s, which is shown", expr, label)
					}
				}
				if p.Dashboard != "balena-exporter" && p.Type != "" {
					if diff := cmp.Diff(answer, w.ask(t, w.two, engine, &q, expr), cmp.Comparer(labels.Equal)); diff != "" {
						t.Errorf("%s gives something else when two exporters are scraped (-one +two):\n%s", expr, diff)
					}
				}
			}
			for _, column := range p.Columns {
				if !answered[column] {
					t.Errorf("no query has the label %s for a column", column)
				}
			}
		})
	}
}

// check looks for metrics and labels that nobody exports: PromQL takes them for empty.
func (w *world) check(t *testing.T, expr parser.Expr) {
	t.Helper()
	// below are all labels of the metrics in an expression.
	below := func(node parser.Node) map[string]bool {
		all := map[string]bool{}
		parser.Inspect(node, func(n parser.Node, _ []parser.Node) error {
			if s, ok := n.(*parser.VectorSelector); ok {
				maps.Copy(all, w.labels[s.Name])
			}
			return nil
		})
		return all
	}
	demand := func(where parser.Node, names ...string) {
		known := below(where)
		for _, name := range names {
			if !known[name] {
				t.Errorf("%s: no metric in it has the label %s", where, name)
			}
		}
	}
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			if w.labels[n.Name] == nil {
				t.Errorf("%s: nobody exports %s", n, n.Name)
				return nil
			}
			for _, m := range n.LabelMatchers {
				demand(n, m.Name)
			}
		case *parser.AggregateExpr:
			demand(n.Expr, n.Grouping...)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				demand(n.LHS, n.VectorMatching.MatchingLabels...)
				demand(n.RHS, n.VectorMatching.MatchingLabels...)
				demand(n.RHS, n.VectorMatching.Include...)
			}
		}
		return nil
	})
}
