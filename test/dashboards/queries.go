// SPDX-License-Identifier: Apache-2.0

// Package dashboards extracts the queries from Grafana dashboards, so that tests can run them with Prometheus.
package dashboards

import (
	"regexp"
	"slices"
	"strings"

	"github.com/balena-exporter/balena-exporter/deploy/grafana"
)

// Panel is a panel with queries, a variable with values from a query, or an annotation.
type Panel struct {
	*grafana.Panel // of a variable or an annotation, only the title is set
	Dashboard      string
	Queries        []Query
}

// Query is a query in PromQL, with the variables of Grafana in it.
type Query struct {
	Expr string
	// Range reports whether the query is for a time range, and not only for its end.
	Range bool
	// Labels are the labels in the legend, or those from which a variable takes its values.
	Labels []string
	// Legend is the legend as it is written.
	Legend string
}

// Fill returns the query with values for the variables of Grafana.
func (q *Query) Fill(variables map[string]string) string {
	return variable.ReplaceAllStringFunc(q.Expr, func(name string) string {
		if value, ok := variables[name[1:]]; ok {
			return value
		}
		return name
	})
}

var (
	variable    = regexp.MustCompile(`\$\w+`)
	legendLabel = regexp.MustCompile(`\{\{(\w+)\}\}`)
	labelValues = regexp.MustCompile(`^label_values\((.*), *(\w+)\)$`)
	queryResult = regexp.MustCompile(`^query_result\((.*)\)$`)
	valueColumn = regexp.MustCompile(`^Value( #[A-Z])?$`)
)

// Panels returns the panels of all dashboards, and their variables. Constants of the dashboards are replaced in the queries.
func Panels() (panels []Panel) {
	for _, d := range grafana.All() {
		for _, v := range d.Templating.List {
			if v.Type != "query" {
				continue
			}
			q := newQuery(d, v.Definition, false, "")
			if m := labelValues.FindStringSubmatch(v.Definition); m != nil {
				q.Expr, q.Labels = m[1], []string{m[2]}
			} else if m := queryResult.FindStringSubmatch(v.Definition); m != nil {
				q.Expr = m[1]
			}
			panels = append(panels, Panel{&grafana.Panel{Title: "$" + v.Name}, d.UID, []Query{q}})
		}
		for _, p := range d.Panels {
			panel := Panel{Panel: p, Dashboard: d.UID}
			for _, t := range p.Targets {
				panel.Queries = append(panel.Queries, newQuery(d, t.Expr, t.Range, t.LegendFormat))
			}
			if len(panel.Queries) > 0 {
				panels = append(panels, panel)
			}
		}
	}
	return panels
}

// Annotations returns the annotations of all dashboards in the same way.
func Annotations() (annotations []Panel) {
	for _, d := range grafana.All() {
		for _, a := range d.Annotations.List {
			if a, ok := a.(*grafana.Annotation); ok { // not the one that is built into Grafana
				q := newQuery(d, a.Expr, true, a.Title+a.Text)
				if a.TagKeys != "" {
					q.Labels = append(q.Labels, strings.Split(a.TagKeys, ",")...)
				}
				annotations = append(annotations, Panel{&grafana.Panel{Title: a.Name}, d.UID, []Query{q}})
			}
		}
	}
	return annotations
}

func newQuery(d *grafana.Dashboard, expr string, over bool, legend string) Query {
	constants := map[string]string{}
	for _, v := range d.Templating.List {
		if v.Type == "constant" {
			constants[v.Name] = v.Query.(string)
		}
	}
	q := Query{Expr: expr, Range: over, Legend: legend}
	q.Expr = q.Fill(constants)
	for _, m := range legendLabel.FindAllStringSubmatch(legend, -1) {
		q.Labels = append(q.Labels, m[1])
	}
	return q
}

// Labels returns the labels that a table shows in its columns.
func (p *Panel) Labels() []string {
	return slices.DeleteFunc(slices.Clone(p.Columns), valueColumn.MatchString)
}

// String names the panel.
func (p *Panel) String() string { return p.Dashboard + ", " + p.Title }
