// SPDX-License-Identifier: Apache-2.0

package collector

import (
	"iter"
	"slices"

	"github.com/balena-exporter/balena-exporter/internal/balena"
)

// Metrics of the caller's API keys.

// uniqueKeys yields one key for each name, with the earliest expiry of all keys with that name. Names of keys need
// not be unique, but series must be.
func uniqueKeys(v *view) iter.Seq[balena.Key] {
	var unique []balena.Key
	index := map[string]int{}
	for _, k := range v.Keys {
		if i, ok := index[k.Name]; ok {
			unique[i].Expiry = min(unique[i].Expiry, k.Expiry)
			continue
		}
		index[k.Name] = len(unique)
		unique = append(unique, k)
	}
	return slices.Values(unique)
}

func keyTable() anyTable {
	keys := kind[balena.Key]{
		labels:   []string{"key_name"},
		all:      uniqueKeys,
		identity: func(k *balena.Key, values []string) []string { return append(values, k.Name) },
	}
	return keys.table("Keys", "1 per name of keys that expire",
		gauge("balena_api_key_expiry_timestamp_seconds", "When the caller's API key with this name expires, or the first of several keys with this name. The API does not report which key is in use.", "api_key.expiry_date",
			func(k *balena.Key) float64 { return k.Expiry.Seconds() }),
	)
}
