// SPDX-License-Identifier: Apache-2.0

package exposition

import "hash/crc32"

// A CRC-32 is the remainder of a polynomial division: the text, as a polynomial over the
// integers modulo 2, modulo the polynomial P of the IEEE CRC. Appending n bytes to a text
// multiplies its polynomial by x^8n. Therefore
//
//	crc(ab) = crc(a) · x^(8·len(b)) + crc(b)   (mod P)
//
// where + is xor. The inversions of the CRC before and after the division cancel out. With a
// table of x^2, x^4, x^8, … this needs a multiplication for each bit that is set in the
// length of b.
//
// Polynomials have the bit order of the CRC: bit 31 is the coefficient of x^0, and bit 0
// that of x^31.

// shift returns x^(8·length) mod P. A CRC is multiplied by it when length bytes are
// appended to the text.
func shift(length int64) uint32 {
	const byteBits = 3 // a byte is 2^3 bits
	var product uint32 = 1 << 31
	for k := byteBits; length > 0; k, length = k+1, length>>1 {
		if length&1 != 0 {
			product = multiply(product, powers[k%len(powers)])
		}
	}
	return product
}

// powers holds x^(2^k) mod P at index k. The values repeat after 32 of them:
// x^(2^32) = x.
var powers = func() (p [32]uint32) {
	p[0] = 1 << 30 // x
	for k := 1; k < len(p); k++ {
		p[k] = multiply(p[k-1], p[k-1])
	}
	return p
}()

// multiply returns a·b mod P.
func multiply(a, b uint32) uint32 {
	var product uint32
	for ; a != 0; a <<= 1 {
		if a&(1<<31) != 0 {
			product ^= b
		}
		// b·x: shift, and subtract P if the degree became 32.
		b = b>>1 ^ crc32.IEEE&-(b&1)
	}
	return product
}
