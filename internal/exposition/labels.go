// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"fmt"
	"strings"
)

// LabelNames returns names of labels, or ends of such names, for keys that may hold any
// text: what no label name can hold becomes an underscore, as in Prometheus' own service
// discoveries. Keys that give the same name are told apart by a number.
func LabelNames(prefix string, keys []string) []string {
	names := make([]string, len(keys))
	taken := map[string]bool{}
	for i, key := range keys {
		name := prefix + strings.Map(func(r rune) rune {
			switch {
			case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
				return r
			}
			return '_'
		}, key)
		unique := name
		for n := 2; taken[unique]; n++ {
			unique = fmt.Sprintf("%s_%d", name, n)
		}
		taken[unique] = true
		names[i] = unique
	}
	return names
}
