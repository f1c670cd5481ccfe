// SPDX-License-Identifier: Apache-2.0

// Package dashboards extracts the queries from Grafana dashboards, so that tests can run them with Prometheus.
package dashboards

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/balena-exporter/balena-exporter/deploy/grafana"
)

// Panel is a panel with queries, or a variable of a dashboard.
type Panel struct {
	Dashboard, Title string
	// Type is Grafana's type of the panel; empty for a variable.
	Type    string
	Queries []Query
	// Columns are the labels that a table shows.
	Columns []string
	// Position is the position and size of the panel in a grid of 24 columns.
	Position struct{ X, Y, W, H int }
	// Unit, Words (texts of values) and Colors (of series) are Grafana's settings of the panel.
	Unit          string
	Words, Colors map[string]string
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

// Panels returns the panels of all dashboards from their JSON. Constants of the dashboards are replaced in the queries.
func Panels() ([]Panel, error) {
	panels, _, err := readAll()
	return panels, err
}

// Annotations returns the annotations of all dashboards in the same way.
func Annotations() ([]Panel, error) {
	_, annotations, err := readAll()
	return annotations, err
}

func readAll() (panels, annotations []Panel, err error) {
	for _, d := range grafana.All() {
		data, err := d.JSON()
		if err != nil {
			return nil, nil, err
		}
		of, marks, err := read(data)
		if err != nil {
			return nil, nil, fmt.Errorf("dashboard %s: %w", d.UID, err)
		}
		panels, annotations = append(panels, of...), append(annotations, marks...)
	}
	return panels, annotations, nil
}

func read(data []byte) (panels, annotations []Panel, err error) {
	var dashboard struct {
		UID        string
		Templating struct {
			List []struct {
				Name, Type, Definition string
				Query                  any
			}
		}
		Annotations struct {
			List []struct{ Name, Expr, TagKeys, TitleFormat, TextFormat string }
		}
		Panels []struct {
			Title, Type string
			GridPos     struct{ X, Y, W, H int }
			FieldConfig struct {
				Defaults struct {
					Unit     string
					Mappings []struct {
						Options map[string]struct{ Text string }
					}
				}
				Overrides []struct {
					Matcher    struct{ Options string }
					Properties []struct {
						ID    string
						Value json.RawMessage
					}
				}
			}
			Targets []struct {
				Expr, LegendFormat string
				Range              bool
			}
			Transformations []struct {
				ID      string
				Options struct {
					Include struct{ Names []string }
				}
			}
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		return nil, nil, err
	}
	constants := map[string]string{}
	for _, v := range dashboard.Templating.List {
		if v.Type == "constant" {
			constants[v.Name] = v.Query.(string)
		}
	}
	for _, a := range dashboard.Annotations.List {
		if a.Expr == "" {
			continue // built into Grafana
		}
		q := Query{Expr: a.Expr, Range: true}
		q.Expr = q.Fill(constants)
		for _, m := range legendLabel.FindAllStringSubmatch(a.TitleFormat+a.TextFormat, -1) {
			q.Labels = append(q.Labels, m[1])
		}
		if a.TagKeys != "" {
			q.Labels = append(q.Labels, strings.Split(a.TagKeys, ",")...)
		}
		annotations = append(annotations, Panel{Dashboard: dashboard.UID, Title: a.Name, Queries: []Query{q}})
	}
	for _, v := range dashboard.Templating.List {
		if v.Type != "query" {
			continue
		}
		q := Query{Expr: v.Definition}
		if m := labelValues.FindStringSubmatch(v.Definition); m != nil {
			q.Expr, q.Labels = m[1], []string{m[2]}
		} else if m := queryResult.FindStringSubmatch(v.Definition); m != nil {
			q.Expr = m[1]
		}
		panels = append(panels, Panel{Dashboard: dashboard.UID, Title: "$" + v.Name, Queries: []Query{q}})
	}
	for _, p := range dashboard.Panels {
		panel := Panel{
			Dashboard: dashboard.UID, Title: p.Title, Type: p.Type, Position: p.GridPos, Unit: p.FieldConfig.Defaults.Unit,
			Words: map[string]string{}, Colors: map[string]string{},
		}
		for _, m := range p.FieldConfig.Defaults.Mappings {
			for number, word := range m.Options {
				panel.Words[number] = word.Text
			}
		}
		for _, o := range p.FieldConfig.Overrides {
			for _, property := range o.Properties {
				var color struct{ FixedColor string }
				if property.ID == "color" && json.Unmarshal(property.Value, &color) == nil {
					panel.Colors[o.Matcher.Options] = color.FixedColor
				}
			}
		}
		for _, t := range p.Targets {
			q := Query{Expr: t.Expr, Range: t.Range, Legend: t.LegendFormat}
			q.Expr = q.Fill(constants)
			for _, m := range legendLabel.FindAllStringSubmatch(t.LegendFormat, -1) {
				q.Labels = append(q.Labels, m[1])
			}
			panel.Queries = append(panel.Queries, q)
		}
		for _, t := range p.Transformations {
			for _, name := range t.Options.Include.Names {
				if !valueColumn.MatchString(name) {
					panel.Columns = append(panel.Columns, name)
				}
			}
		}
		if len(panel.Queries) > 0 {
			panels = append(panels, panel)
		}
	}
	return panels, annotations, nil
}

// String names the panel.
func (p *Panel) String() string { return p.Dashboard + ", " + p.Title }
