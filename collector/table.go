// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/balena-exporter/balena-exporter/internal/exposition"
)

// Description describes a metric family.
type Description struct {
	Name   string
	Help   string
	Type   string
	Labels []string
	// Source names the fields of the API from which the value is derived.
	Source string
	// Series states the number of series.
	Series string
	// Only names the servers that have the family; empty for all servers.
	Only string
	// Group is the heading of the family in the documentation.
	Group string
}

// ScrapeGroup returns the value of the parameter collect[] of a scrape that selects the group of the family.
func (d *Description) ScrapeGroup() string {
	if d.Group == exporterHeading {
		return exposition.LiveGroup
	}
	return strings.ToLower(strings.TrimSuffix(d.Group, "s"))
}

// HelpText returns the help of the family as it is exported.
func (d *Description) HelpText() string {
	help := d.Help
	if d.Source != "" {
		help += " Source: " + d.Source + "."
	}
	if d.Only != "" {
		help += " Only on " + d.Only + "."
	}
	return help + " Refreshed in the background."
}

func (d *Description) desc() *prometheus.Desc {
	return prometheus.NewDesc(d.Name, d.HelpText(), d.Labels, nil)
}

// table is a group of metric families about one kind of subject: fleets, devices, keys.
type table[T any] struct {
	group string
	// series states the number of series of a family, unless the family has another text.
	series string
	// labels identify the subject. Each family has them, before its own labels.
	labels []string
	// subjects yields the subjects of a view. identity appends the values of a subject's labels.
	subjects func(*view) iter.Seq[T]
	identity func(s *T, values []string) []string
	families []family[T]
}

// family is a row of a table. It defines a metric completely.
type family[T any] struct {
	name string
	help string
	// source names the fields of the API from which the value is derived.
	source string
	// only names the servers that have the family; empty for all servers.
	only string
	// labels are the labels in addition to those of the subject.
	labels []string
	// series overrides the text of the table.
	series string
	// steady marks a family of devices whose values rarely change; see longRuns.
	steady  bool
	samples func(s *T, out *samples)
}

// gauge returns a family with one sample per subject, or no sample if the value is [none].
func gauge[T any](name, help, source string, value func(*T) float64) family[T] {
	return family[T]{name: name, help: help, source: source, samples: func(s *T, out *samples) {
		out.add(value(s))
	}}
}

// on restricts a family to some servers.
func (f family[T]) on(where string) family[T] {
	f.only = where
	return f
}

// steadily marks a family of devices whose values rarely change; see longRuns.
func (f family[T]) steadily() family[T] {
	f.steady = true
	return f
}

// none is the value of a missing sample: null in the API is exported neither as 0 nor as -1.
var none = math.NaN()

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// anyTable is a table with any type of subject.
type anyTable interface {
	descriptions() []Description
	// filter returns the table with the exported families only; nil if there are none.
	filter(exported func(family string) bool) anyTable
	collect(v *view, ch chan<- prometheus.Metric)
	render(v *view, emit func(family int, lines []byte))
}

func (t *table[T]) filter(exported func(family string) bool) anyTable {
	left := *t
	left.families = slices.DeleteFunc(slices.Clone(t.families), func(f family[T]) bool { return !exported(f.name) })
	if len(left.families) == 0 {
		return nil
	}
	return &left
}

func (t *table[T]) descriptions() []Description {
	d := make([]Description, len(t.families))
	for i, f := range t.families {
		series := t.series
		if f.series != "" {
			series = f.series
		}
		d[i] = Description{
			Name: f.name, Help: f.help, Type: "gauge", Source: f.source, Only: f.only, Series: series, Group: t.group,
			Labels: append(append([]string(nil), t.labels...), f.labels...),
		}
	}
	return d
}

// collect sends every sample as a metric.
func (t *table[T]) collect(v *view, ch chan<- prometheus.Metric) {
	descriptions := t.descriptions()
	outs := make([]samples, len(t.families))
	for i := range outs {
		outs[i] = samples{metrics: ch, desc: descriptions[i].desc()}
	}
	for subject := range t.subjects(v) {
		identity := t.identity(&subject, nil)
		for j := range t.families {
			outs[j].identity = identity
			t.families[j].samples(&subject, &outs[j])
		}
	}
}

// render writes every sample as text, and emits the lines by the index of the family in the table. The lines are valid
// until emit returns.
func (t *table[T]) render(v *view, emit func(family int, lines []byte)) {
	w := t.newStretch()
	w.begin(slices.Collect(t.subjects(v)))
	var lines []byte
	for i := range t.families {
		if lines = w.appendLines(lines[:0], &t.families[i]); len(lines) > 0 {
			emit(i, lines)
		}
	}
}

// stretch writes the samples of several subjects as text, family by family. The labels of a subject are escaped only
// once, not for every sample.
type stretch[T any] struct {
	labels   []string
	identity func(s *T, values []string) []string
	subjects []T
	written  []byte // the labels of all subjects
	ends     []int  // the end of each subject's labels in written
}

func (t *table[T]) newStretch() stretch[T] { return stretch[T]{labels: t.labels, identity: t.identity} }

// begin replaces the subjects.
func (w *stretch[T]) begin(subjects []T) {
	w.subjects, w.written, w.ends = subjects, w.written[:0], w.ends[:0]
}

// appendLines appends the lines of a family to text.
func (w *stretch[T]) appendLines(text []byte, f *family[T]) []byte {
	if len(w.ends) == 0 {
		var values []string
		for i := range w.subjects {
			values = w.identity(&w.subjects[i], values[:0])
			for j, name := range w.labels {
				w.written = appendLabel(w.written, j == 0, name, values[j])
			}
			w.ends = append(w.ends, len(w.written))
		}
	}
	out := samples{name: f.name, extra: f.labels, text: text}
	start := 0
	for i, end := range w.ends {
		out.labels, start = w.written[start:end], end
		f.samples(&w.subjects[i], &out)
	}
	return out.text
}

// samples receives the samples of a family, either as metrics or as text.
type samples struct {
	// As metrics:
	metrics  chan<- prometheus.Metric
	desc     *prometheus.Desc
	identity []string

	// As text:
	name   string   // of the family
	extra  []string // names of the labels in addition to those of the subject
	labels []byte   // the labels of the subject, as text
	text   []byte
}

// add adds a sample with the values of the family's own labels; [none] adds nothing.
func (s *samples) add(value float64, labels ...string) {
	if math.IsNaN(value) {
		return
	}
	if s.metrics != nil {
		all := append(append(make([]string, 0, len(s.identity)+len(labels)), s.identity...), labels...)
		for i := range all {
			all[i] = strings.ToValidUTF8(all[i], "\uFFFD")
		}
		s.metrics <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, value, all...)
		return
	}
	b := append(s.text, s.name...)
	if len(s.labels)+len(s.extra) > 0 {
		b = append(b, '{')
		b = append(b, s.labels...)
		for i, name := range s.extra {
			b = appendLabel(b, i == 0 && len(s.labels) == 0, name, labels[i])
		}
		b = append(b, '}')
	}
	b = append(b, ' ')
	b = appendValue(b, value)
	s.text = append(b, '\n')
}

func appendHeader(b []byte, d *Description) []byte {
	b = append(b, "# HELP "...)
	b = append(b, d.Name...)
	b = append(b, ' ')
	b = append(b, helpEscaper.Replace(d.HelpText())...)
	b = append(b, "\n# TYPE "...)
	b = append(b, d.Name...)
	b = append(b, ' ')
	b = append(b, d.Type...)
	return append(b, '\n')
}

var helpEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`)

// appendLabel writes name="value", after a comma unless it is the first.
func appendLabel(b []byte, first bool, name, value string) []byte {
	if !first {
		b = append(b, ',')
	}
	b = append(b, name...)
	b = append(b, '=', '"')
	b = appendEscaped(b, value)
	return append(b, '"')
}

// appendEscaped escapes the characters that the text format requires: backslash, quote and line feed. Invalid UTF-8
// becomes U+FFFD, because it would make the whole exposition invalid.
func appendEscaped(b []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	if strings.IndexByte(s, '\\') < 0 && strings.IndexByte(s, '"') < 0 && strings.IndexByte(s, '\n') < 0 {
		return append(b, s...) // the usual case, several times faster
	}
	start := 0
	for i := range len(s) {
		var escape string
		switch s[i] {
		case '\\':
			escape = `\\`
		case '"':
			escape = `\"`
		case '\n':
			escape = `\n`
		default:
			continue
		}
		b = append(append(b, s[start:i]...), escape...)
		start = i + 1
	}
	return append(b, s[start:]...)
}

// appendValue writes a value in the text format. Most values are small integers, for which the
// general function is several times slower.
func appendValue(b []byte, v float64) []byte {
	if i := int64(v); float64(i) == v && i > -exactInteger && i < exactInteger && (i != 0 || !math.Signbit(v)) {
		return strconv.AppendInt(b, i, 10)
	}
	switch {
	case math.IsInf(v, 1):
		return append(b, "+Inf"...)
	case math.IsInf(v, -1):
		return append(b, "-Inf"...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

// exactInteger is the limit up to which a float64 holds integers exactly.
const exactInteger = 1 << 53
