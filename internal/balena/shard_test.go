package balena

import (
	"fmt"
	"strings"
	"testing"
)

// matches evaluates a shard's filter for a uuid, knowing nothing of how filters are made.
func matches(filter, uuid string) bool {
	inner, negated := strings.CutPrefix(filter, "not(")
	inner = strings.Trim(inner, "()")
	for term := range strings.SplitSeq(inner, " or ") {
		prefix := strings.TrimSuffix(strings.TrimPrefix(strings.Trim(term, "()"), "startswith(uuid,'"), "'")
		if strings.HasPrefix(uuid, prefix) {
			return !negated
		}
	}
	return negated
}

func TestEveryDeviceIsInExactlyOneShard(t *testing.T) {
	for _, count := range []int{2, 3, 5, 16, 17, 100, MaxShards} {
		sizes := make([]int, count)
		for n := range 256 {
			var in []int
			for i := range count {
				if matches(Shard{i, count}.filter(""), fmt.Sprintf("%02x34567890abcdef", n)) {
					in = append(in, i)
				}
			}
			if len(in) != 1 {
				t.Fatalf("of %d shards, %v have the device %02x…", count, in, n)
			}
			sizes[in[0]]++
		}
		for i, size := range sizes {
			if size < 256/count || size > 256/count+1 {
				t.Errorf("shard %d of %d has %d of 256 beginnings", i, count, size)
			}
		}
		// What does not look like a uuid must be somewhere.
		for _, odd := range []string{"", "x", "ZZ", "Ab34"} {
			if !matches(Shard{count - 1, count}.filter(""), odd) {
				t.Errorf("no shard of %d has the device %q", count, odd)
			}
		}
	}
}

func TestShardFilter(t *testing.T) {
	for _, test := range []struct {
		shard Shard
		want  string
	}{
		{Shard{0, 16}, "(startswith(d/uuid,'0'))"},
		{Shard{0, 8}, "(startswith(d/uuid,'0') or startswith(d/uuid,'1'))"},
		{Shard{0, 128}, "(startswith(d/uuid,'00') or startswith(d/uuid,'01'))"},
		{Shard{1, 2}, "not(startswith(d/uuid,'0') or startswith(d/uuid,'1') or startswith(d/uuid,'2') or startswith(d/uuid,'3') or " +
			"startswith(d/uuid,'4') or startswith(d/uuid,'5') or startswith(d/uuid,'6') or startswith(d/uuid,'7'))"},
	} {
		if got := test.shard.filter("d/"); got != test.want {
			t.Errorf("%v: got %s\nwant %s", test.shard, got, test.want)
		}
	}
}
