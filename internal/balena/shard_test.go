// SPDX-License-Identifier: Apache-2.0

package balena

import "testing"

func TestEveryFleetIsInExactlyOneShard(t *testing.T) {
	for _, count := range []int{0, 1, 2, 3, 17, MaxShards} {
		for fleet := int64(1); fleet <= 1000; fleet++ {
			in := 0
			for index := range max(count, 1) {
				if (Shard{index, count}).Has(fleet) {
					in++
				}
			}
			if in != 1 {
				t.Fatalf("%d of %d shards have fleet %d", in, count, fleet)
			}
		}
	}
}
