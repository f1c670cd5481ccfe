// SPDX-License-Identifier: Apache-2.0

package live

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// names has the metrics with samples in Prometheus, and the labels of each.
type names map[string]set

type set map[string]bool

func readNames(t *testing.T, p *server, since time.Time) names {
	t.Helper()
	var series []model.LabelSet
	parameters := url.Values{"match[]": {`{__name__!=""}`}, "start": {unix(since)}, "end": {unix(time.Now())}}
	if err := p.get(t, "/api/v1/series", parameters, &series); err != nil {
		t.Fatal(err)
	}
	n := names{}
	for _, labels := range series {
		metric := string(labels[model.MetricNameLabel])
		if n[metric] == nil {
			n[metric] = set{}
		}
		for label := range labels {
			n[metric][string(label)] = true
		}
	}
	return n
}

// check returns the unknown metrics and labels in a query. PromQL treats them as empty.
func (n names) check(query string) (mistakes []string) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return []string{err.Error()}
	}
	require := func(where parser.Expr, known set, labels ...string) {
		for _, label := range labels {
			if !known[label] {
				mistakes = append(mistakes, fmt.Sprintf("%s has no label %s", where, label))
			}
		}
	}
	// labels returns the labels that the result of an expression may have.
	var labels func(expr parser.Expr) set
	labels = func(expr parser.Expr) set {
		switch e := expr.(type) {
		case *parser.VectorSelector:
			known, ok := n[e.Name]
			if !ok {
				mistakes = append(mistakes, "unknown metric "+e.Name)
				return set{}
			}
			for _, m := range e.LabelMatchers {
				require(e, known, m.Name)
			}
			return known
		case *parser.MatrixSelector:
			return labels(e.VectorSelector)
		case *parser.SubqueryExpr:
			return labels(e.Expr)
		case *parser.ParenExpr:
			return labels(e.Expr)
		case *parser.UnaryExpr:
			return labels(e.Expr)
		case *parser.AggregateExpr:
			known := labels(e.Expr)
			require(e.Expr, known, e.Grouping...)
			if e.Op == parser.TOPK || e.Op == parser.BOTTOMK {
				return known
			}
			return filter(known, !e.Without, e.Grouping)
		case *parser.Call:
			all := set{}
			for _, argument := range e.Args {
				maps.Copy(all, labels(argument))
			}
			switch e.Func.Name {
			case "absent", "absent_over_time":
				return set{}
			case "histogram_quantile":
				delete(all, model.BucketLabel)
			case "label_replace":
				all[e.Args[1].(*parser.StringLiteral).Val] = true
			}
			return all
		case *parser.BinaryExpr:
			left, right := labels(e.LHS), labels(e.RHS)
			if e.VectorMatching == nil { // one side is a scalar
				return union(left, right)
			}
			require(e.LHS, left, e.VectorMatching.MatchingLabels...)
			require(e.RHS, right, e.VectorMatching.MatchingLabels...)
			many, one := left, right
			if e.VectorMatching.Card == parser.CardOneToMany {
				many, one = right, left
			}
			require(e, one, e.VectorMatching.Include...)
			switch {
			case e.Op == parser.LOR:
				return union(left, right)
			case e.VectorMatching.Card == parser.CardOneToOne && !e.Op.IsComparisonOperator():
				return filter(left, e.VectorMatching.On, e.VectorMatching.MatchingLabels)
			}
			return union(many, filter(one, true, e.VectorMatching.Include))
		}
		return set{}
	}
	labels(expr)
	return mistakes
}

// filter returns the labels in a list, or the others if listed is false.
func filter(labels set, listed bool, list []string) set {
	filtered := set{}
	for label := range labels {
		if slices.Contains(list, label) == listed {
			filtered[label] = true
		}
	}
	return filtered
}

func union(a, b set) set {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return both
}

func TestUnknownNames(t *testing.T) {
	n := names{"a": {"__name__": true, "fleet": true, "uuid": true}, "b": {"__name__": true, "fleet": true, "le": true}}
	for query, want := range map[string]string{
		`sum by (fleet) (a{uuid!=""}) / on (fleet) group_left b`: "",
		`topk(1, a * on (fleet) group_right () b)`:               "",
		`c`:                                  "unknown metric c",
		`a{site="x"}`:                        `a{site="x"} has no label site`,
		`sum by (site) (a)`:                  "a has no label site",
		`max by (uuid) (max by (fleet) (a))`: "max by (fleet) (a) has no label uuid",
		`a and on (uuid) b`:                  "b has no label uuid",
		`a unless on (uuid) sum(a)`:          "sum(a) has no label uuid",
		`a * on (fleet) group_left (x) b`:    "a * on (fleet) group_left (x) b has no label x",
		`max by (uuid) (a - on (fleet) b)`:   "a - on (fleet) b has no label uuid",
		`max by (le) (histogram_quantile(.5, rate(b[5m])))`:                                                           "histogram_quantile(0.5, rate(b[5m])) has no label le",
		`label_replace(a, "site", "$1", "fleet", "(.*)") and on (site) label_replace(vector(1), "site", "x", "", "")`: "",
		`max by (uuid) (absent(a))`: "absent(a) has no label uuid",
		`a{`:                        "1:3: parse error: unexpected end of input inside braces",
	} {
		var got string
		if mistakes := n.check(query); len(mistakes) > 0 {
			got = mistakes[0]
		}
		if got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}
