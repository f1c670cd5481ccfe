// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"regexp"
	"slices"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Trimmed returns the options without those that no exported family needs. Their data are not read. An option is needed if an
// enabled table that depends on it has a family.
func (o Options) Trimmed() Options {
	needed := map[*bool]bool{} // by the place of the option in o, which is a copy
	for _, t := range optionalTables(&o, new(balena.Snapshot)) {
		for _, option := range t.options {
			needed[option] = needed[option] || t.enabled() && len(t.descriptions()) > 0
		}
	}
	for option, isNeeded := range needed {
		*option = *option && isNeeded
	}
	return o
}

// Unneeded returns the given fields of a device from which no exported family is derived.
func (o Options) Unneeded(fields []string) []string {
	needed := map[string]bool{}
	for d := range New(nil, o).Descriptions() {
		for _, name := range fieldName.FindAllString(d.Source, -1) {
			needed[name] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(fields), func(field string) bool { return needed[field] })
}

// fieldName matches the fields in the source of a family.
var fieldName = regexp.MustCompile(`\b[a-z_]+\b`)
