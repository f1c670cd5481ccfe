// SPDX-License-Identifier: Apache-2.0

package dashboards

import (
	"cmp"
	"flag"
	"fmt"
	"html/template"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

var picture = flag.String("picture", "", "file to write an HTML page to that shows the dashboard of a fleet with data")

// TestPicture draws the panels of a dashboard with the answers of Prometheus, for the documentation. It uses plain lines,
// bars and tables, not Grafana.
func TestPicture(t *testing.T) {
	if *picture == "" {
		t.Skip("only for the documentation: make pictures")
	}
	panels := Panels()
	w := simulate(t)
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 50_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute})
	t.Cleanup(func() { _ = engine.Close() })

	const lines = 7 // lines drawn per panel; Grafana scrolls instead
	var drawn []*drawing
	for _, p := range panels {
		if p.Dashboard != "balena-fleet" || p.Type == "" {
			continue
		}
		d := &drawing{Panel: p}
		for _, q := range p.Queries {
			for _, s := range w.ask(t, w.one, engine, &q, q.Fill(w.variables)) {
				d.Lines = append(d.Lines, newLine(s, &p, &q))
			}
		}
		if d.Type == "table" { // the other queries of a table fill its columns
			d.Lines = slices.DeleteFunc(d.Lines, func(l line) bool { return l.Name == "" })
		}
		slices.SortStableFunc(d.Lines, func(a, b line) int { return cmp.Compare(b.Last, a.Last) })
		d.Lines = d.Lines[:min(len(d.Lines), lines)]
		d.scale()
		drawn = append(drawn, d)
	}
	if len(drawn) == 0 {
		t.Fatal("there is nothing to draw")
	}
	file, err := os.Create(*picture)
	if err != nil {
		t.Fatal(err)
	}
	if err := page.Execute(file, drawn); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// drawing is the drawing of a panel.
type drawing struct {
	Panel
	Lines []line
}

// line is a series.
type line struct {
	Name, Color string
	Last        float64
	Points      []promql.FPoint
	// Path is the line in a chart of 300 by 100 units, Width the length of the bar in percent.
	Path  string
	Width float64

	panel *Panel
}

// colors are the colors of Grafana's palette by their names in dashboards. palette are the colors of series without one.
var (
	colors = map[string]string{
		"green": "#73bf69", "red": "#f2495c", "orange": "#ff9830", "blue": "#5794f2", "light-blue": "#8ab8ff", "purple": "#b877d9", "super-light-purple": "#deb6f2",
	}
	palette = []string{"#73bf69", "#fade2a", "#5794f2", "#ff9830", "#f2495c", "#8ab8ff", "#b877d9"}
)

func newLine(s promql.Series, p *Panel, q *Query) line {
	name := legendLabel.ReplaceAllStringFunc(q.Legend, func(label string) string { return s.Metric.Get(strings.Trim(label, "{}")) })
	if p.Type == "table" {
		var names []string
		s.Metric.Range(func(l labels.Label) {
			if l.Name == "alertname" || l.Name == "device_name" || l.Name == "status" {
				names = append(names, l.Value)
			}
		})
		name = strings.Join(names, " ")
	}
	color := p.Colors[name]
	if byName, ok := colors[color]; ok {
		color = byName
	}
	return line{Name: name, Color: color, Last: s.Floats[len(s.Floats)-1].F, Points: s.Floats, panel: p}
}

// Column and Row return the position of the top left cell, counted from one.
func (d *drawing) Column() int { return d.Position.X + 1 }
func (d *drawing) Row() int    { return d.Position.Y + 1 }

func (d *drawing) scale() {
	most, first, last := 0.0, int64(math.MaxInt64), int64(0)
	for _, l := range d.Lines {
		for _, p := range l.Points {
			most, first, last = max(most, p.F), min(first, p.T), max(last, p.T)
		}
	}
	for i := range d.Lines {
		l := &d.Lines[i]
		if l.Color == "" {
			l.Color = palette[i%len(palette)]
		}
		l.Width = 100 * l.Last / max(most, 1e-9)
		for j, p := range l.Points {
			command := "L"
			if j == 0 {
				command = "M"
			}
			x, y := 300*float64(p.T-first)/float64(max(last-first, 1)), 98-96*p.F/max(most, 1e-9)
			l.Path += fmt.Sprintf("%s%.1f %.1f", command, x, y)
		}
	}
}

// Value returns the last value in readable form.
func (l line) Value() string {
	const hour, day = 3600, 86400
	switch {
	case len(l.panel.Words) > 0 && (l.Last == 0 || l.Last == 1):
		return l.panel.Words[int(l.Last)]
	case l.Last > 1e12: // a time in milliseconds, as Grafana requires
		return time.UnixMilli(int64(l.Last)).UTC().Format(time.DateOnly)
	case l.panel.FieldConfig.Defaults["unit"] == "percentunit" || l.Last != math.Trunc(l.Last) && l.Last < 1.5:
		return fmt.Sprintf("%.0f %%", 100*l.Last)
	case l.panel.Type == "table" && l.Last >= 2*day: // a duration
		return fmt.Sprintf("%.0f days", l.Last/day)
	case l.panel.Type == "table" && l.Last >= hour:
		return fmt.Sprintf("%.0f hours", l.Last/hour)
	}
	return fmt.Sprintf("%.4g", l.Last)
}

var page = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>What the dashboard of a fleet answers</title><style>
body { font: 13px/1.35 system-ui, sans-serif; background: #14161a; color: #d8dade; margin: 10px; width: 1160px; overflow: hidden }
main { display: grid; grid-template-columns: repeat(24, 1fr); gap: 6px; grid-auto-rows: 20px }
section { background: #1d2026; border-radius: 4px; padding: 6px 9px; overflow: hidden }
h2 { font-size: 12px; font-weight: 600; margin: 0 0 6px; color: #aab0ba }
.stat b { font-size: 18px; font-weight: 500; color: #d8dade }
svg { width: 100%; height: 145px; display: block } path { fill: none; stroke-width: 1.6 }
ul { list-style: none; margin: 4px 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0 12px; font-size: 11px } li::before { content: "■ " ; color: inherit } li span { color: #d8dade }
table { border-collapse: collapse; width: 100%; font-size: 12px } td { border-top: 1px solid #2c3038; padding: 2px 0 } td + td { text-align: right }
.bar { background: #3274d9; height: 5px; border-radius: 2px }
</style></head><body><main>
{{range .}}<section class="{{.Type}}" style="grid-column: {{.Column}} / span {{.Position.Width}}; grid-row: {{.Row}} / span {{.Position.Height}}"><h2>{{.Title}}</h2>
{{if eq .Type "stat"}}{{range $i, $l := .Lines}}{{if not $i}}<b>{{or .Name .Value}}</b>{{end}}{{end}}
{{else if eq .Type "timeseries"}}<svg viewBox="0 0 300 100" preserveAspectRatio="none">{{range .Lines}}<path stroke="{{.Color}}" vector-effect="non-scaling-stroke" d="{{.Path}}"/>{{end}}</svg>
<ul>{{range .Lines}}<li style="color: {{.Color}}"><span>{{.Name}} {{.Value}}</span></li>{{end}}</ul>
{{else}}<table>{{$bars := eq .Type "bargauge"}}{{range .Lines}}<tr><td>{{.Name}}{{if $bars}}<div class="bar" style="width: {{printf "%.0f" .Width}}%"></div>{{end}}</td><td>{{.Value}}</td></tr>{{end}}</table>{{end}}
</section>
{{end}}</main></body></html>
`))
