// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"context"
	"errors"
	"math"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	promrules "github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/util/teststorage"
)

// Prometheus evaluates the rules of a group one after the other, and new samples may become visible between any two of them.
// Wherever data disappear and reappear during an evaluation, alerts must not change.
func TestDataDisappearDuringAnEvaluation(t *testing.T) {
	for _, a := range alerts {
		if !a.kept {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			p := newPrometheus(t)
			bad, failing := well.with(a.good, a.bad), state{`balena_up{}`: constant(0)}
			for range lead {
				p.minute(t, 0, well.with(a.good))
			}
			for range a.after + 1 {
				p.minute(t, 0, bad)
			}
			want := []map[string]string{a.allLabels()}
			if diff := cmp.Diff(want, p.firing(t, a.name)); diff != "" {
				t.Fatalf("initially firing (-want +got):\n%s", diff)
			}
			for queries := range p.rules() {
				for what, s := range []state{failing, failing, bad, bad} {
					p.minute(t, queries, s)
					if diff := cmp.Diff(want, p.firing(t, a.name)); diff != "" {
						t.Fatalf("%s before rule %d (-want +got):\n%s", []string{
							"when the data ended", "while there were none", "when they came back", "while they were back",
						}[what], queries+1, diff)
					}
				}
			}
		})
	}
}

// prometheus evaluates the group of rules on fleets.
type prometheus struct {
	*teststorage.TestStorage
	group *promrules.Group
	now   int // minutes
	// exported are the visible samples.
	exported state
	// commit makes new samples visible before the query with a number.
	commit  func()
	queries int
}

func newPrometheus(t *testing.T) *prometheus {
	t.Helper()
	p := &prometheus{TestStorage: teststorage.New(t), commit: func() {}}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute})
	t.Cleanup(func() { _ = engine.Close() })
	query := promrules.EngineQueryFunc(engine, p)
	manager := promrules.NewManager(&promrules.ManagerOptions{
		Context: t.Context(), Appendable: p, Queryable: p, ExternalURL: &url.URL{}, Logger: promslog.NewNopLogger(),
		NotifyFunc: func(context.Context, string, ...*promrules.Alert) {},
		QueryFunc: func(ctx context.Context, q string, at time.Time) (promql.Vector, error) {
			if p.queries == 0 {
				p.commit()
			}
			p.queries--
			return query(ctx, q, at)
		},
	})
	file := filepath.Join(root, "deploy", "prometheus", "rules", "balena-fleets.yml")
	groups, errs := manager.LoadGroups(time.Minute, labels.EmptyLabels(), "", nil, false, file)
	if len(errs) > 0 {
		t.Fatal(errors.Join(errs...))
	}
	p.group = groups[promrules.GroupKey(file, "balena-fleets")]
	return p
}

func (p *prometheus) rules() int { return len(p.group.Rules()) }

// minute advances time by a minute. New samples become visible after a number of queries of the evaluation.
func (p *prometheus) minute(t *testing.T, queries int, exported state) {
	t.Helper()
	at := time.Unix(int64(p.now*60), 0)
	committed := false
	p.queries, p.commit = queries, func() {
		committed = true
		app := p.Appender(t.Context())
		add := func(series string, v float64) {
			metric, err := parser.NewParser(parser.Options{}).ParseMetric(series)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := app.Append(0, labels.NewBuilder(metric).Set("job", "balena-exporter").Labels(), at.Add(-time.Second).UnixMilli(), v); err != nil {
				t.Fatal(err)
			}
		}
		for series, value := range exported {
			if value != nil && !math.IsNaN(value(p.now)) {
				add(series, value(p.now))
			}
		}
		for series := range p.exported {
			if exported[series] == nil {
				add(series, math.Float64frombits(value.StaleNaN))
			}
		}
		if err := app.Commit(); err != nil {
			t.Fatal(err)
		}
		p.exported = exported
	}
	p.group.Eval(t.Context(), at)
	if !committed {
		t.Fatalf("the evaluation has at most %d queries", queries)
	}
	for _, r := range p.group.Rules() {
		if err := r.LastError(); err != nil {
			t.Fatalf("%s: %v", r.Name(), err)
		}
	}
	p.now++
}

// firing returns the labels of all firing instances of an alert.
func (p *prometheus) firing(t *testing.T, name string) []map[string]string {
	t.Helper()
	var firing []map[string]string
	for _, r := range p.group.AlertingRules() {
		for _, a := range r.ActiveAlerts() {
			if r.Name() == name && a.State == promrules.StateFiring {
				all := a.Labels.Map()
				delete(all, labels.AlertName)
				firing = append(firing, all)
			}
		}
	}
	return firing
}
