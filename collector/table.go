// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"cmp"
	"fmt"
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
	if d.Group == exporterHeading {
		return d.Help // gathered for each scrape, not refreshed in the background
	}
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

// kind is a kind of subject: fleets, devices, keys.
type kind[T any] struct {
	// labels identify the subject. Each family has them, before its own labels.
	labels []string
	// all yields the subjects of a view. identity appends the values of a subject's labels.
	all      func(*view) iter.Seq[T]
	identity func(s *T, values []string) []string
}

// table is a group of metric families about one kind of subject.
type table[T any] struct {
	kind[T]
	families []family[T]
}

// family is a row of a table. It defines a metric completely.
type family[T any] struct {
	Description
	// own are the labels in addition to those of the subject.
	own []string
	// long marks a family of devices that is rendered in long runs.
	long    bool
	samples func(s *T, out *samples)
}

// table returns a table of a group. series states the number of series of each family that does not state another one.
func (k kind[T]) table(group, series string, families ...family[T]) anyTable {
	for i := range families {
		f := &families[i]
		f.Group, f.Type, f.Series = group, cmp.Or(f.Type, "gauge"), cmp.Or(f.Series, series)
		f.Labels = slices.Concat(k.labels, f.own)
	}
	return &table[T]{k, families}
}

// gauge returns a family with one sample per subject, or no sample if the value is [none].
func gauge[T any](name, help, source string, value func(*T) float64) family[T] {
	return labeled(name, help, source, nil, func(s *T, out *samples) { out.add(value(s)) })
}

// labeled returns a family with labels of its own. samples adds any number of samples of a subject.
func labeled[T any](name, help, source string, own []string, samples func(*T, *samples)) family[T] {
	return family[T]{Description: Description{Name: name, Help: help, Source: source}, own: own, samples: samples}
}

// on restricts a family to some servers.
func (f family[T]) on(where string) family[T] {
	f.Only = where
	return f
}

// series states the number of series of a family that differs from that of its table.
func (f family[T]) series(series string) family[T] {
	f.Series = series
	return f
}

// inLongRuns marks a family of devices whose values rarely change. It is rendered in long runs; see [runs].
func (f family[T]) inLongRuns() family[T] {
	f.long = true
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

// onlyIf returns the value if a condition holds, and [none] otherwise.
func onlyIf(condition bool, value float64) float64 {
	if !condition {
		return none
	}
	return value
}

// anyTable is a table with any type of subject.
type anyTable interface {
	descriptions() []Description
	// filter removes the families that are not exported.
	filter(exported func(family string) bool)
	collect(v *view, ch chan<- prometheus.Metric)
	render(v *view, emit func(family int, lines []byte))
}

func (t *table[T]) filter(exported func(family string) bool) {
	t.families = slices.DeleteFunc(t.families, func(f family[T]) bool { return !exported(f.Name) })
}

func (t *table[T]) descriptions() []Description {
	all := make([]Description, len(t.families))
	for i, f := range t.families {
		all[i] = f.Description
	}
	return all
}

// collect sends every sample as a metric.
func (t *table[T]) collect(v *view, ch chan<- prometheus.Metric) {
	outs := make([]samples, len(t.families))
	for i := range outs {
		outs[i] = samples{metrics: ch, desc: t.families[i].desc()}
	}
	for subject := range t.all(v) {
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
	w := stretch[T]{kind: t.kind, subjects: slices.Collect(t.all(v))}
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
	kind[T]
	subjects []T
	written  []byte // the labels of all subjects
	ends     []int  // the end of each subject's labels in written
}

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
	out := samples{name: f.Name, extra: f.own, text: text}
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

// header returns the lines of the family before its samples.
func (d *Description) header() []byte {
	return fmt.Appendf(nil, "# HELP %s %s\n# TYPE %s %s\n", d.Name, helpEscaper.Replace(d.HelpText()), d.Name, d.Type)
}

var (
	helpEscaper  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
)

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
	return append(b, labelEscaper.Replace(s)...)
}

// appendValue writes a value in the text format. Most values are small integers, for which the
// general function is several times slower.
func appendValue(b []byte, v float64) []byte {
	if i := int64(v); float64(i) == v && i > -exactInteger && i < exactInteger && (i != 0 || !math.Signbit(v)) {
		return strconv.AppendInt(b, i, 10)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

// exactInteger is the limit up to which a float64 holds integers exactly.
const exactInteger = 1 << 53
