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

var picture = flag.String("picture", "", "file to write a page to that shows what the dashboard of a fleet answers")

// TestPicture draws what Prometheus answers to the panels of a dashboard, for the documentation. It is Grafana's
// data and not Grafana: plain lines, bars and tables.
func TestPicture(t *testing.T) {
	if *picture == "" {
		t.Skip("only for the documentation: make pictures")
	}
	panels, err := Panels()
	if err != nil {
		t.Fatal(err)
	}
	w := simulate(t)
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 50_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute})
	t.Cleanup(func() { _ = engine.Close() })

	const enough = 21 // panels: a screenful
	var drawn []drawing
	for _, p := range panels {
		if p.Dashboard != "balena-fleet" || p.Type == "" || p.Type == "row" {
			continue
		}
		if len(drawn) == enough {
			break
		}
		d := drawing{Title: p.Title, Type: p.Type}
		for _, q := range p.Queries {
			for _, s := range w.ask(t, w.one, engine, &q, q.Fill(w.variables)) {
				d.Lines = append(d.Lines, newLine(s, q.Labels))
			}
		}
		if d.Type == "table" { // other queries of a table fill its columns
			d.Lines = slices.DeleteFunc(d.Lines, func(l line) bool { return l.Name == "" })
		}
		slices.SortStableFunc(d.Lines, func(a, b line) int { return cmp.Compare(b.Last, a.Last) })
		d.Lines = d.Lines[:min(len(d.Lines), 7)]
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

// drawing is a panel as it is drawn.
type drawing struct {
	Title, Type string
	Lines       []line
}

// line is a series.
type line struct {
	Name   string
	Last   float64
	Points []promql.FPoint
	// Path and Width are how it is drawn: as a line of a chart of 300 by 100, and as a bar in percent.
	Path  string
	Width float64
}

func newLine(s promql.Series, shown []string) line {
	var names []string
	for _, label := range shown {
		names = append(names, s.Metric.Get(label))
	}
	if len(names) == 0 {
		s.Metric.Range(func(l labels.Label) {
			if l.Name == "device_name" || l.Name == "status" {
				names = append(names, l.Value)
			}
		})
	}
	return line{Name: strings.Join(names, " "), Last: s.Floats[len(s.Floats)-1].F, Points: s.Floats}
}

func (d *drawing) scale() {
	most, first, last := 0.0, int64(math.MaxInt64), int64(0)
	for _, l := range d.Lines {
		for _, p := range l.Points {
			most, first, last = max(most, p.F), min(first, p.T), max(last, p.T)
		}
	}
	for i := range d.Lines {
		l := &d.Lines[i]
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

// Value is the last value for people.
func (l line) Value() string {
	const day = 86400
	switch {
	case l.Last > 1e12: // in milliseconds, as Grafana wants times
		return time.UnixMilli(int64(l.Last)).UTC().Format(time.DateOnly)
	case l.Last > day: // a duration
		return fmt.Sprintf("%.0f days", l.Last/day)
	case l.Last != math.Trunc(l.Last) && l.Last < 1.5:
		return fmt.Sprintf("%.0f %%", 100*l.Last)
	}
	return fmt.Sprintf("%.4g", l.Last)
}

var page = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>What the dashboard of a fleet answers</title><style>
body { font: 13px/1.35 system-ui, sans-serif; background: #14161a; color: #d8dade; margin: 10px; width: 1160px; overflow: hidden }
main { display: grid; grid-template-columns: repeat(6, 1fr); gap: 8px; grid-auto-flow: dense }
section { background: #1d2026; border-radius: 4px; padding: 8px 10px; overflow: hidden }
.timeseries, .bargauge, .table { grid-column: span 2 }
h2 { font-size: 12px; font-weight: 600; margin: 0 0 6px; color: #aab0ba }
.stat b { font-size: 25px; font-weight: 500; color: #73bf69 } .stat small { display: block; color: #aab0ba }
svg { width: 100%; height: 100px; display: block } path { fill: none; stroke-width: 1.6 }
.n0 { stroke: #73bf69; color: #73bf69 } .n1 { stroke: #f2495c; color: #f2495c } .n2 { stroke: #5794f2; color: #5794f2 } .n3 { stroke: #ff9830; color: #ff9830 }
.n4 { stroke: #b877d9; color: #b877d9 } .n5 { stroke: #fade2a; color: #fade2a } .n6 { stroke: #8ab8ff; color: #8ab8ff }
ul { list-style: none; margin: 4px 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0 12px; font-size: 11px } li::before { content: "■ " ; color: inherit } li span { color: #d8dade }
table { border-collapse: collapse; width: 100%; font-size: 12px } td { border-top: 1px solid #2c3038; padding: 2px 0 } td + td { text-align: right }
.bar { background: #3274d9; height: 5px; border-radius: 2px }
</style></head><body><main>
{{range .}}<section class="{{.Type}}"><h2>{{.Title}}</h2>
{{if eq .Type "stat"}}{{range $i, $l := .Lines}}{{if not $i}}<b>{{or .Name .Value}}</b>{{end}}{{end}}
{{else if eq .Type "timeseries"}}<svg viewBox="0 0 300 100" preserveAspectRatio="none">{{range $i, $l := .Lines}}<path class="n{{$i}}" vector-effect="non-scaling-stroke" d="{{.Path}}"/>{{end}}</svg>
<ul>{{range $i, $l := .Lines}}<li class="n{{$i}}"><span>{{.Name}} {{.Value}}</span></li>{{end}}</ul>
{{else}}<table>{{$bars := eq .Type "bargauge"}}{{range .Lines}}<tr><td>{{.Name}}{{if $bars}}<div class="bar" style="width: {{printf "%.0f" .Width}}%"></div>{{end}}</td><td>{{.Value}}</td></tr>{{end}}</table>{{end}}
</section>
{{end}}</main></body></html>
`))
