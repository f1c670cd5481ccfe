// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"iter"
	"slices"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Metrics of the caller's API keys.

// keysOf returns the keys by name, the one that expires first of those of one name: names need not be
// unique, and series must be.
func keysOf(keys []balena.Key) []balena.Key {
	var unique []balena.Key
	index := map[string]int{}
	for _, k := range keys {
		if i, ok := index[k.Name]; ok {
			unique[i].Expiry = min(unique[i].Expiry, k.Expiry)
			continue
		}
		index[k.Name] = len(unique)
		unique = append(unique, k)
	}
	return unique
}

func keyTable() group {
	return &table[balena.Key]{
		group:    "Keys",
		series:   "1 for each name of a key that expires",
		labels:   []string{"key_name"},
		subjects: func(v *view) iter.Seq[balena.Key] { return slices.Values(v.keys) },
		identity: func(k *balena.Key, values []string) []string { return append(values, k.Name) },
		families: []family[balena.Key]{
			gauge("balena_api_key_expiry_timestamp_seconds", "When the caller's API key of this name expires. The API does not tell which of them is in use.", "api_key.expiry_date",
				func(k *balena.Key) float64 { return k.Expiry.Seconds() }),
		},
	}
}
