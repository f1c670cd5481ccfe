package exposition

import (
	"encoding/binary"
	"math/bits"
)

// A deflater compresses what runs have to say of a family: some kilobytes of lines that
// differ in little but hexadecimal digits. On texts so short a general compressor spends
// most of its time on finding the code that fits them best, and on looking for earlier
// text where there is none, among the digits. A deflater has one code for all texts, of
// which codeLengths is the origin, and writes what it finds at once.
type deflater struct {
	// seen tells by hash where text was last seen, counted from the first text on, modulo
	// 2^32. It is never cleared: what is not in the text under way is too far off to count,
	// and what is gets compared.
	seen  [1 << seenBits]uint32
	begin uint32 // of the text under way, counted likewise
	out   []byte
}

const (
	seenBits = 12
	shortest = 7       // match that is looked for
	longest  = 258     // match that can be expressed
	farthest = 1 << 15 // match that can be expressed
)

// deflate returns the text as deflate blocks that are not final, end at the boundary of a
// byte, and refer to no text before; valid until the next call. It returns nil for a text
// that is not for it: one that would not become half as long, or isn't ASCII.
func (d *deflater) deflate(text []byte) []byte {
	if !isASCII(text) {
		return nil
	}
	out, queue := append(d.out[:0], blockHeader...), blockHeaderRest
	pending := 0 // from here to position, text is to become literals
	for position := 0; position+8 <= len(text); {
		here, at := binary.LittleEndian.Uint64(text[position:]), d.begin+uint32(position)
		seen := &d.seen[hash(here)]
		distance := at - *seen
		*seen = at
		if distance == 0 || distance > min(uint32(position), farthest) ||
			!match(here, binary.LittleEndian.Uint64(text[position-int(distance):])) {
			// Go on where the word ends: nothing matches the digits of a UUID.
			for position++; position < len(text) && isWord[text[position]]; position++ {
			}
			continue
		}
		length := matchLength(text, position-int(distance), position)
		out, queue = appendLiterals(out, queue, text[pending:position])
		out, queue = queue.add(lengthCodes[length]).add(distanceCode(distance)).flush(out)
		position += length
		pending = position
		if last := position - 1; last+8 <= len(text) { // often a quote, after which lines differ
			d.seen[hash(binary.LittleEndian.Uint64(text[last:]))] = d.begin + uint32(last)
		}
	}
	out, queue = appendLiterals(out, queue, text[pending:])
	// Then an empty stored block: three bits 0, more up to a byte, its length and that inverted.
	queue = queue.add(symbolCodes[endOfBlock])
	queue.count = (queue.count + 3 + 7) &^ 7
	out, _ = queue.flush(out)
	d.out = append(out, 0, 0, 0xff, 0xff)
	d.begin += uint32(len(text))
	if len(d.out) > len(text)/2 {
		return nil
	}
	return d.out
}

// hash and match take the next eight bytes of text, of which the first are the lower ones.
func hash(text uint64) uint64 {
	return text << (64 - 8*shortest) * 0x9e3779b97f4a7c15 >> (64 - seenBits)
}

func match(a, b uint64) bool { return (a^b)<<(64-8*shortest) == 0 }

// isWord tells what bytes words consist of. A match begins where one ended or at any other byte.
var isWord = func() (is [256]bool) {
	for _, c := range "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		is[c] = true
	}
	return is
}()

func isASCII(text []byte) bool {
	var all uint64
	for ; len(text) >= 8; text = text[8:] {
		all |= binary.LittleEndian.Uint64(text)
	}
	for _, b := range text {
		all |= uint64(b)
	}
	return all&0x8080808080808080 == 0
}

// matchLength returns for how many bytes the text at a is that at b, which is behind it.
func matchLength(text []byte, a, b int) int {
	begin, end := b, min(len(text), b+longest)
	for b+8 <= end {
		if diff := binary.LittleEndian.Uint64(text[a:]) ^ binary.LittleEndian.Uint64(text[b:]); diff != 0 {
			return b - begin + bits.TrailingZeros64(diff)/8
		}
		a, b = a+8, b+8
	}
	for b < end && text[a] == text[b] {
		a, b = a+1, b+1
	}
	return b - begin
}

// bitQueue holds bits that are not yet written, the first of them lowest.
type bitQueue struct {
	bits  uint64
	count uint
}

func (q bitQueue) add(c code) bitQueue {
	return bitQueue{q.bits | uint64(c.bits)<<(q.count&63), q.count + uint(c.count)}
}

// flush writes all whole bytes.
func (q bitQueue) flush(out []byte) ([]byte, bitQueue) {
	out = binary.LittleEndian.AppendUint64(out, q.bits)[:len(out)+int(q.count/8)]
	return out, bitQueue{q.bits >> (q.count & 56), q.count & 7}
}

func appendLiterals(out []byte, queue bitQueue, text []byte) ([]byte, bitQueue) {
	for ; len(text) >= 4; text = text[4:] {
		out, queue = queue.add(symbolCodes[text[0]]).add(symbolCodes[text[1]]).add(symbolCodes[text[2]]).add(symbolCodes[text[3]]).flush(out)
	}
	for _, b := range text {
		queue = queue.add(symbolCodes[b])
	}
	return queue.flush(out)
}

// A code is the bits that stand for a symbol, and any that are to follow, the first one lowest.
type code struct {
	bits  uint32
	count uint8
}

// What symbols there are; see RFC 1951, section 3.2.5.
const (
	endOfBlock      = 256 // behind the literals
	lengthSymbols   = 257 // and from here on, lengths
	symbols         = 286
	distanceSymbols = 30
)

var (
	symbolCodes   = [symbols]code(canonical(codeLengths[:symbols]))
	distanceCodes = canonical(codeLengths[symbols:])
	lengthCodes   = func() (codes [longest + 1]code) {
		symbol, extra := lengthSymbols, uint8(0)
		for length := 3; length < longest; symbol++ {
			if symbol >= lengthSymbols+8 {
				extra = uint8(symbol-lengthSymbols)/4 - 1
			}
			for i := range uint32(1) << extra {
				codes[length] = symbolCodes[symbol].followedBy(i, extra)
				length++
			}
		}
		codes[longest] = symbolCodes[symbols-1]
		return codes
	}()
)

func (c code) followedBy(bits uint32, count uint8) code {
	return code{c.bits | bits<<c.count, c.count + count}
}

// distanceCode returns what stands for a distance: a symbol made of the two upper bits of
// distance-1 and how many bits there are, and the others.
func distanceCode(distance uint32) code {
	distance--
	if distance < 4 {
		return distanceCodes[distance]
	}
	extra := bits.Len32(distance) - 2
	return distanceCodes[uint32(2*extra)+distance>>extra].followedBy(distance&(1<<extra-1), uint8(extra))
}

// canonical returns the codes of the given lengths, as RFC 1951, section 3.2.2, assigns them.
func canonical(lengths []uint8) []code {
	codes := make([]code, len(lengths))
	next := uint32(0)
	for count := uint8(1); count <= 15; count++ {
		for symbol, length := range lengths {
			if length == count {
				codes[symbol] = code{bits.Reverse32(next) >> (32 - count), count}
				next++
			}
		}
		next <<= 1
	}
	return codes
}

// blockHeader begins a block that is not final and has codes of its own, and tells their
// lengths (RFC 1951, section 3.2.7); the last bits are in blockHeaderRest.
var blockHeader, blockHeaderRest = func() (out []byte, queue bitQueue) {
	put := func(c code) { out, queue = queue.add(c).flush(out) }
	number := func(n, count int) { put(code{uint32(n), uint8(count)}) }
	number(0, 1) // not final
	number(2, 2) // codes of its own
	number(symbols-257, 5)
	number(distanceSymbols-1, 5)
	number(len(lengthLengths)-4, 4)
	for _, symbol := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} {
		number(int(lengthLengths[symbol]), 3)
	}
	codes := canonical(lengthLengths[:])
	for rest := codeLengths[:]; len(rest) > 0; {
		length, times := rest[0], 1
		for times < len(rest) && rest[times] == length && (times < 7 || length == 0) {
			times++
		}
		switch {
		case length == 0: // 11 to 138 times
			put(codes[18].followedBy(uint32(times-11), 7))
		case times > 3: // once, and that again 3 to 6 times
			put(codes[length])
			put(codes[16].followedBy(uint32(times-4), 2))
		default:
			for range times {
				put(codes[length])
			}
		}
		rest = rest[times:]
	}
	return out, queue
}()

// codeLengths are the lengths of the codes of all symbols, in bits, at most 14. A test
// derives them from a sample of exposition. Bytes that are not ASCII have no code.
var codeLengths = [symbols + distanceSymbols]uint8{
	14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 11, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14,
	8, 14, 8, 14, 14, 14, 14, 14, 14, 14, 14, 13, 12, 8, 10, 9, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 14, 14, 14, 10, 14, 14,
	14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 10,
	14, 4, 5, 5, 5, 4, 5, 9, 9, 7, 14, 8, 9, 9, 8, 8, 11, 14, 8, 8, 7, 10, 9, 10, 14, 10, 9, 12, 14, 8, 14, 14,
	endOfBlock: 12, 14, 14, 14, 14, 8, 7, 9, 8, 8, 10, 9, 9, 9, 11, 12, 9, 8, 8, 8, 9, 9, 11, 14, 14, 14, 14, 14, 14, 14,
	symbols: 14, 14, 14, 14, 14, 14, 14, 14, 10, 8, 14, 12, 5, 2, 3, 3, 4, 4, 4, 4, 4, 5, 4, 5, 6, 7, 9, 14, 14, 14,
}

// lengthLengths are the lengths of the codes that stand for the above in a block's header.
var lengthLengths = [19]uint8{0, 0, 7, 6, 4, 4, 7, 5, 3, 3, 4, 5, 4, 6, 2, 0, 3, 0, 6}
