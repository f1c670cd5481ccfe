// SPDX-License-Identifier: Apache-2.0

package exposition

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

// combine returns the CRC-32 of a text ab, given the CRC-32 of a and b and the length of b in bytes.
func combine(a, b uint32, length int64) uint32 { return multiply(a, shift(length)) ^ b }

func TestCombineEqualsTheChecksumOfTheJoinedText(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	text := make([]byte, 1<<20)
	random.Read(text)
	for _, lengths := range [][2]int{
		{0, 0}, {0, 1}, {1, 0}, {1, 1}, {7, 9}, {31, 32}, {1000, 3}, {3, 1000}, {65535, 65537}, {1 << 19, 1 << 19},
	} {
		a, b := text[:lengths[0]], text[lengths[0]:lengths[0]+lengths[1]]
		got := combine(crc32.ChecksumIEEE(a), crc32.ChecksumIEEE(b), int64(len(b)))
		if want := crc32.ChecksumIEEE(text[:lengths[0]+lengths[1]]); got != want {
			t.Errorf("combine of %d and %d bytes: %08x, want %08x", lengths[0], lengths[1], got, want)
		}
	}
}

// From 4 GiB on, the length needs powers of x beyond the table, which repeats. The expected
// CRC is computed by doubling, which the test above has shown to be right.
func TestCombineOfMoreThanFourGigabytes(t *testing.T) {
	zeros := crc32.ChecksumIEEE(make([]byte, 1<<20))
	doubled := zeros
	const doublings = 13 // 8 GiB
	for i := range doublings {
		doubled = combine(doubled, doubled, 1<<(20+i))
	}
	// The same in steps of 1 MiB.
	stepped := zeros
	for range 1<<doublings - 1 {
		stepped = combine(stepped, zeros, 1<<20)
	}
	if doubled != stepped {
		t.Errorf("8 GiB of zeros: %08x by doubling, %08x step by step", doubled, stepped)
	}
}

func FuzzCombine(f *testing.F) {
	f.Add([]byte("up 1\n"), 3)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		if cut < 0 || cut > len(text) {
			t.Skip()
		}
		got := combine(crc32.ChecksumIEEE(text[:cut]), crc32.ChecksumIEEE(text[cut:]), int64(len(text)-cut))
		if want := crc32.ChecksumIEEE(text); got != want {
			t.Errorf("cut at %d: %08x, want %08x", cut, got, want)
		}
	})
}
