// SPDX-License-Identifier: Apache-2.0

package balena

// Shard is one of several parts into which the fleets of an account are divided among exporters. A fleet is never
// divided, so only one exporter exports its series, and they need not be added up. A shard reads only the
// devices of its own fleets.
type Shard struct {
	// Index is the number of the shard, from 0, among Count shards. A Count of 0 or 1 means that there is only one.
	Index, Count int
}

// MaxShards is the maximum number of shards: more than necessary, and small enough to detect typing mistakes.
const MaxShards = 256

// Divided reports whether there is more than one shard.
func (s Shard) Divided() bool { return s.Count > 1 }

// Has reports whether the fleet with an ID belongs to the shard. The result never changes, because the ID of a fleet
// does not change.
func (s Shard) Has(fleet int64) bool {
	return !s.Divided() || fleet%int64(s.Count) == int64(s.Index)
}
