package balena

import (
	"fmt"
	"strings"
)

// Shard is one of several parts into which the devices of an account are divided, for exporters that
// divide the work. A shard reads its own devices only, and all fleets; the sums over a fleet's devices are
// those of the shard, and adding up the shards gives the whole.
//
// Devices are divided by the first two digits of their uuid, which is random: the API can filter by it
// (it has startswith, but neither modulo nor hash), shards come out equal in size whatever the fleets are
// like, and a device stays in its shard for life.
type Shard struct {
	// Index is which of Count shards this is, from 0; a Count of 0 or 1 means that there is only one.
	Index, Count int
}

// MaxShards is how many shards there can be: each has at least one of the 256 beginnings of a uuid.
const MaxShards = 256

func (s Shard) divided() bool { return s.Count > 1 }

// filter returns the condition for devices of the shard, with path before the name of the field.
func (s Shard) filter(path string) string {
	first, end := 256*s.Index/s.Count, 256*(s.Index+1)/s.Count
	if s.Index < s.Count-1 {
		return "(" + prefixes(path, first, end) + ")"
	}
	// The last shard has the rest, whatever it looks like, so that no device can fall between shards.
	return "not(" + prefixes(path, 0, first) + ")"
}

// prefixes is the condition that a uuid begins with a number from first to before end, of two hexadecimal
// digits, of which the second is left out where all sixteen are meant.
func prefixes(path string, first, end int) string {
	var terms []string
	for n := first; n < end; n++ {
		prefix := fmt.Sprintf("%02x", n)
		if n%16 == 0 && n+16 <= end {
			prefix = prefix[:1]
			n += 15
		}
		terms = append(terms, fmt.Sprintf("startswith(%suuid,'%s')", path, prefix))
	}
	return strings.Join(terms, " or ")
}
