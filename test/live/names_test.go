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

// names are the metrics that Prometheus has samples of, and the labels of each.
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

// check returns what a query names that nobody exports: to PromQL such a metric or label is just empty.
func (n names) check(query string) (mistakes []string) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return []string{err.Error()}
	}
	demand := func(where parser.Expr, known set, labels ...string) {
		for _, label := range labels {
			if !known[label] {
				mistakes = append(mistakes, fmt.Sprintf("nothing in %s has the label %s", where, label))
			}
		}
	}
	// labels returns the labels that an expression's result can have.
	var labels func(expr parser.Expr) set
	labels = func(expr parser.Expr) set {
		switch e := expr.(type) {
		case *parser.VectorSelector:
			known, ok := n[e.Name]
			if !ok {
				mistakes = append(mistakes, "nobody exports "+e.Name)
				return set{}
			}
			for _, m := range e.LabelMatchers {
				demand(e, known, m.Name)
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
			of := labels(e.Expr)
			demand(e.Expr, of, e.Grouping...)
			if e.Op == parser.TOPK || e.Op == parser.BOTTOMK {
				return of
			}
			return only(of, !e.Without, e.Grouping)
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
			if e.VectorMatching == nil { // with a number
				return union(left, right)
			}
			demand(e.LHS, left, e.VectorMatching.MatchingLabels...)
			demand(e.RHS, right, e.VectorMatching.MatchingLabels...)
			many, one := left, right
			if e.VectorMatching.Card == parser.CardOneToMany {
				many, one = right, left
			}
			demand(e, one, e.VectorMatching.Include...)
			switch {
			case e.Op == parser.LOR:
				return union(left, right)
			case e.VectorMatching.Card == parser.CardOneToOne && !e.Op.IsComparisonOperator():
				return only(left, e.VectorMatching.On, e.VectorMatching.MatchingLabels)
			}
			return union(many, only(one, true, e.VectorMatching.Include))
		}
		return set{}
	}
	labels(expr)
	return mistakes
}

// only returns the labels that are listed, or those that are not.
func only(of set, listed bool, list []string) set {
	some := set{}
	for label := range of {
		if slices.Contains(list, label) == listed {
			some[label] = true
		}
	}
	return some
}

func union(a, b set) set {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return both
}

func TestNamesThatNobodyExports(t *testing.T) {
	n := names{"a": {"__name__": true, "fleet": true, "uuid": true}, "b": {"__name__": true, "fleet": true, "le": true}}
	for query, want := range map[string]string{
		`sum by (fleet) (a{uuid!=""}) / on (fleet) group_left b`: "",
		`topk(1, a * on (fleet) group_right () b)`:               "",
		`c`:                                  "nobody exports c",
		`a{site="x"}`:                        `nothing in a{site="x"} has the label site`,
		`sum by (site) (a)`:                  "nothing in a has the label site",
		`max by (uuid) (max by (fleet) (a))`: "nothing in max by (fleet) (a) has the label uuid",
		`a and on (uuid) b`:                  "nothing in b has the label uuid",
		`a unless on (uuid) sum(a)`:          "nothing in sum(a) has the label uuid",
		`a * on (fleet) group_left (x) b`:    "nothing in a * on (fleet) group_left (x) b has the label x",
		`max by (uuid) (a - on (fleet) b)`:   "nothing in a - on (fleet) b has the label uuid",
		`max by (le) (histogram_quantile(.5, rate(b[5m])))`:                                                           "nothing in histogram_quantile(0.5, rate(b[5m])) has the label le",
		`label_replace(a, "site", "$1", "fleet", "(.*)") and on (site) label_replace(vector(1), "site", "x", "", "")`: "",
		`max by (uuid) (absent(a))`: "nothing in absent(a) has the label uuid",
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
