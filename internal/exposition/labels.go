// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"fmt"
	"strings"
)

// LabelNames returns unique label names for keys with any text. Characters that label
// names cannot contain become underscores, as in Prometheus' service discoveries. If
// several keys result in the same name, a number is appended.
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
