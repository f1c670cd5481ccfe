// SPDX-License-Identifier: Apache-2.0

package balena

// Shard is one of several parts into which the fleets of an account are divided, for exporters that divide
// the work. Fleets stay whole, so that whatever is said of a fleet is said by one exporter, and is right
// without adding up; and a shard asks for the devices of its own fleets only.
type Shard struct {
	// Index is which of Count shards this is, from 0; a Count of 0 or 1 means that there is only one.
	Index, Count int
}

// MaxShards is how many shards there can be: more than anybody needs, and few enough for a typing mistake
// to be noticed.
const MaxShards = 256

// Divided reports whether there is more than one shard.
func (s Shard) Divided() bool { return s.Count > 1 }

// Has reports whether a fleet, by its ID, belongs to the shard. It always will: the ID of a fleet does not change.
func (s Shard) Has(fleet int64) bool {
	return !s.Divided() || fleet%int64(s.Count) == int64(s.Index)
}
