package exposition

import (
	"bytes"
	"cmp"
	stdflate "compress/flate"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// sampleFamilies are families of different kinds as they are exported of devices.
var sampleFamilies = []struct {
	name   string
	labels func(*rand.Rand) string
	value  func(*rand.Rand) string
}{
	{"balena_device_info", facts, one},
	{"balena_device_release_info", release, one},
	{"balena_device_online", nothing, boolean},
	{"balena_device_connected", nothing, boolean},
	{"balena_device_undervolted", nothing, boolean},
	{"balena_device_on_target_release", nothing, boolean},
	{"balena_device_release_pinned", nothing, boolean},
	{"balena_device_web_accessible", nothing, boolean},
	{"balena_device_status", oneOf("status", "operational", "operational", "operational", "disconnected", "reduced-functionality"), one},
	{"balena_device_heartbeat_state", oneOf("state", "online", "online", "offline"), one},
	{"balena_device_update_status", oneOf("update_status", "done", "done", "none", "downloading"), one},
	{"balena_device_connectivity_change_timestamp_seconds", nothing, timestamp},
	{"balena_device_created_timestamp_seconds", nothing, timestamp},
	{"balena_device_modified_timestamp_seconds", nothing, timestamp},
	{"balena_device_cpu_usage_ratio", nothing, ratio},
	{"balena_device_cpu_temperature_celsius", nothing, degrees},
	{"balena_device_memory_used_bytes", nothing, mebibytes},
	{"balena_device_memory_size_bytes", nothing, powerOfTwo},
	{"balena_device_storage_used_bytes", nothing, mebibytes},
	{"balena_device_storage_size_bytes", nothing, powerOfTwo},
	{"balena_device_os_update_pending", nothing, boolean},
	{"balena_device_supervisor_update_pending", nothing, boolean},
}

func pick(r *rand.Rand, words ...string) string { return words[r.IntN(len(words))] }

func oneOf(label string, words ...string) func(*rand.Rand) string {
	return func(r *rand.Rand) string { return fmt.Sprintf(",%s=%q", label, pick(r, words...)) }
}

func facts(r *rand.Rand) string {
	return fmt.Sprintf(`,device_name=%q,device_type=%q,os_version=%q,os_variant="prod",supervisor_version=%q`,
		pick(r, "misty", "lucky", "quiet", "young", "bold", "dawn")+"-"+pick(r, "flower", "leaf", "field", "river", "sun", "hawk"),
		pick(r, "raspberrypi3", "raspberrypi4-64", "raspberrypi5", "generic-amd64", "jetson-nano"),
		"balenaOS "+pick(r, "2.115.18+rev4", "6.0.13+rev1", "6.5.10", "5.3.21"), pick(r, "14.13.14", "16.12.0", "17.0.3"))
}

func release(r *rand.Rand) string {
	releases := rand.New(rand.NewPCG(r.Uint64N(200), 0))
	return fmt.Sprintf(`,commit="%016x%016x",release_version="%d.%d.0"`, releases.Uint64(), releases.Uint64(), releases.IntN(4), releases.IntN(9))
}

func nothing(*rand.Rand) string     { return "" }
func one(*rand.Rand) string         { return "1" }
func boolean(r *rand.Rand) string   { return fmt.Sprint(r.IntN(5) / 4) }
func ratio(r *rand.Rand) string     { return fmt.Sprintf("0.%d", 1+r.IntN(99)) }
func degrees(r *rand.Rand) string   { return fmt.Sprint(35 + r.IntN(30)) }
func mebibytes(r *rand.Rand) string { return fmt.Sprint(r.IntN(4000) << 20) }
func powerOfTwo(r *rand.Rand) string {
	return fmt.Sprint(1 << (30 + r.IntN(5)))
}
func timestamp(r *rand.Rand) string { return fmt.Sprintf("1.79%07de+09", r.IntN(10_000_000)) }

// sample returns what a run of devices has to say of a family.
func sample(family, run, devices int) []byte {
	f := sampleFamilies[family]
	names, rest := rand.New(rand.NewPCG(uint64(run), 0)), rand.New(rand.NewPCG(uint64(run), uint64(1+family)))
	var text []byte
	for range devices {
		fleet := names
		if run%4 == 0 {
			fleet = rand.New(rand.NewPCG(names.Uint64N(3), 0)) // an account of few fleets
		}
		text = fmt.Appendf(text, "%s{fleet=\"%s/%s-%d\",uuid=\"%016x%016x\"%s} %s\n", f.name,
			pick(fleet, "acme", "kite", "northwind", "zeta"),
			pick(fleet, "kiosk", "vision", "gateways", "signage", "elevators", "greenhouse", "cold-chain", "water-meters", "delivery-robots", "charging-points"),
			fleet.IntN(200), names.Uint64(), names.Uint64(), f.labels(rest), f.value(rest))
	}
	return text
}

// inflate reads blocks that are not final, with the standard library.
func inflate(t *testing.T, deflated []byte) []byte {
	t.Helper()
	text, err := io.ReadAll(stdflate.NewReader(bytes.NewReader(append(bytes.Clone(deflated), finalBlock...))))
	if err != nil {
		t.Fatalf("reading what was deflated: %v", err)
	}
	return text
}

// Whatever the texts, what they become can be put together in any order.
func TestDeflatedTextsStandAlone(t *testing.T) {
	var d deflater
	var deflated, want []byte
	for run := range 3 {
		for family := range sampleFamilies {
			text := sample(family, run, 64)
			// In front of what came before: a reference to that would not be found.
			deflated = append(bytes.Clone(d.deflate(text)), deflated...)
			want = append(text, want...)
		}
	}
	if got := inflate(t, deflated); !bytes.Equal(got, want) {
		t.Errorf("got other text than was deflated, %d bytes instead of %d", len(got), len(want))
	}
}

func TestDeflateOfUnusualTexts(t *testing.T) {
	const once = "-some-word-once-"
	between := strings.Repeat("x", farthest-len(once))
	line := strings.Repeat("balena ", 20)
	var ascii strings.Builder
	for b := range byte(0x80) {
		ascii.WriteByte(b)
	}
	var d deflater
	for name, text := range map[string]string{
		"one byte again and again":    strings.Repeat("-", 1000),
		"matches of all lengths":      strings.Join(prefixes(strings.Repeat("a-b-c-d-e-", 30)), "\n"),
		"matches at many distances":   strings.Join(prefixes(strings.Repeat("0", 2000)), "-balena-"),
		"a match as far as can be":    once + between + once + strings.Repeat("-", 1<<17),
		"a match too far away":        once + "x" + between + once + strings.Repeat("-", 1<<17),
		"all bytes that have codes":   strings.Repeat(ascii.String(), 40),
		"a match up to the end":       strings.Repeat(line, 5),
		"literals up to the end":      strings.Repeat(line, 5) + "1234567",
		"half a megabyte of one line": strings.Repeat(string(sample(0, 0, 1)), 2000),
	} {
		if deflated := d.deflate([]byte(text)); deflated == nil {
			t.Errorf("%s: not deflated", name)
		} else if got := inflate(t, deflated); string(got) != text {
			t.Errorf("%s: got other text than was deflated, %d bytes instead of %d", name, len(got), len(text))
		}
	}
}

// prefixes returns all beginnings of a text, the shortest first.
func prefixes(text string) (all []string) {
	for i := range text {
		all = append(all, text[:i+1])
	}
	return all
}

func TestTextsThatTheCodeDoesNotSuitAreCompressedOtherwise(t *testing.T) {
	for name, text := range map[string]string{
		"another script":     strings.Repeat(`device_info{name="Насос на реке"} 1`+"\n", 64),
		"one foreign letter": strings.Repeat("device 1\n", 64) + "é 1\n",
		"nothing repeated":   `A{B="~^%&#@!;:<>?|\` + "`" + `QXZ"} 1` + "\n",
	} {
		var d deflater
		if d.deflate([]byte(text)) != nil {
			t.Errorf("%s: deflated", name)
		}
		b := NewBuilder(Layout{Headers: [][]byte{nil}, RunsTo: 1}, nil)
		b.Run(1, nil, nil, func(int) []byte { return []byte(text) })
		checkPage(t, b.Page(), text)
	}
}

// The positions of texts are counted modulo 2^32.
func TestDeflateOfMoreThanFourGigabytes(t *testing.T) {
	d := deflater{begin: 1<<32 - 10_000}
	for run := range 5 {
		text := sample(0, run, 64)
		if got := inflate(t, d.deflate(text)); !bytes.Equal(got, text) {
			t.Errorf("run %d: got other text than was deflated", run)
		}
	}
}

// FuzzDeflate has pieces of a text deflated by one deflater, and put together.
func FuzzDeflate(f *testing.F) {
	f.Add(sample(0, 0, 4), sample(2, 0, 4), uint32(0))
	f.Add(sample(1, 0, 64), []byte("a 1\na 1\na 1\n"), uint32(1<<32-1000))
	f.Add([]byte{}, []byte("\x00\xff"), uint32(1))
	f.Fuzz(func(t *testing.T, a, b []byte, begin uint32) {
		d := deflater{begin: begin}
		var deflated, want []byte
		for _, text := range [][]byte{
			a, b, bytes.Repeat(a, 8), slices.Concat(b, a, a, b), bytes.Repeat(b, 40), bytes.Repeat(ascii(slices.Concat(a, b)), 5),
		} {
			if piece := d.deflate(text); piece != nil {
				deflated = append(deflated, piece...)
				want = append(want, text...)
			}
		}
		if got := inflate(t, deflated); !bytes.Equal(got, want) {
			t.Errorf("got other text than was deflated, %d bytes instead of %d", len(got), len(want))
		}
	})
}

// ascii makes any bytes ASCII.
func ascii(b []byte) []byte {
	b = bytes.Clone(b)
	for i := range b {
		b[i] &= 0x7f
	}
	return b
}

// BenchmarkDeflate compares with the general compressor, for runs of different lengths.
func BenchmarkDeflate(b *testing.B) {
	for _, devices := range []int{64, 32, 16} {
		var texts [][]byte
		size := int64(0)
		for run := range 640 / devices {
			for family := range sampleFamilies {
				texts = append(texts, sample(family, run, devices))
				size += int64(len(texts[len(texts)-1]))
			}
		}
		compare := func(name string, compress func(text []byte) int) {
			b.Run(fmt.Sprintf("devices=%d/%s", devices, name), func(b *testing.B) {
				b.SetBytes(size)
				compressed := 0
				for b.Loop() {
					compressed = 0
					for _, text := range texts {
						compressed += compress(text)
					}
				}
				b.ReportMetric(float64(compressed)/640, "compressed-B/device")
			})
		}
		builder := NewBuilder(Layout{}, nil)
		compare("own", func(text []byte) int { return len(builder.compressRun(text).deflate) })
		compare("general", func(text []byte) int { return len(builder.compress(crc32.ChecksumIEEE(text), text).deflate) })
	}
}

// frequencies counts the symbols in the deflated text, which has one block that is not empty.
func frequencies(deflated []byte) (symbolsOf [symbols]int, distancesOf [distanceSymbols]int) {
	at := 8*len(blockHeader) + int(blockHeaderRest.count)
	next := func(count int) (n uint32) {
		for i := range count {
			n |= uint32(deflated[at/8]>>(at%8)&1) << i
			at++
		}
		return n
	}
	symbol := func(codes []code) int {
		var c code
		for {
			c.bits |= next(1) << c.count
			c.count++
			if i := slices.Index(codes, c); i >= 0 {
				return i
			}
		}
	}
	for {
		s := symbol(symbolCodes[:])
		symbolsOf[s]++
		if s == endOfBlock {
			return symbolsOf, distancesOf
		}
		if s < lengthSymbols {
			continue
		}
		if s >= lengthSymbols+8 && s < symbols-1 {
			next((s-lengthSymbols)/4 - 1)
		}
		d := symbol(distanceCodes)
		distancesOf[d]++
		next(max(0, d/2-1))
	}
}

// bestLengths returns the lengths, at most limit, of the codes with which symbols of such
// frequencies take the fewest bits, by the package-merge algorithm.
func bestLengths(frequencies []int, limit int) []uint8 {
	type coin struct {
		value   int
		symbols []int
	}
	byValue := func(a, b coin) int { return cmp.Compare(a.value, b.value) }
	var single []coin
	for symbol, f := range frequencies {
		if f > 0 {
			single = append(single, coin{f, []int{symbol}})
		}
	}
	slices.SortStableFunc(single, byValue)
	coins := single
	for range limit - 1 {
		pairs := slices.Clone(single)
		for pair := range slices.Chunk(coins, 2) {
			if len(pair) == 2 {
				pairs = append(pairs, coin{pair[0].value + pair[1].value, slices.Concat(pair[0].symbols, pair[1].symbols)})
			}
		}
		slices.SortStableFunc(pairs, byValue)
		coins = pairs
	}
	lengths := make([]uint8, len(frequencies))
	for _, c := range coins[:2*len(single)-2] {
		for _, symbol := range c.symbols {
			lengths[symbol]++
		}
	}
	return lengths
}

// The table of code lengths is the best there is for a sample, whatever else it is good for.
func TestCodeLengthsFitExposition(t *testing.T) {
	var d deflater
	var symbolsOf [symbols]int
	var distancesOf [distanceSymbols]int
	for run := range 10 {
		for family := range sampleFamilies {
			s, distances := frequencies(d.deflate(sample(family, run, 64)))
			for i, n := range s {
				symbolsOf[i] += n
			}
			for i, n := range distances {
				distancesOf[i] += n
			}
		}
	}
	for i := range symbolsOf {
		if i < 0x80 || i >= endOfBlock {
			symbolsOf[i] = max(symbolsOf[i], 10) // the rare ones are not worth codes of different lengths
		}
	}
	for i := range distancesOf {
		distancesOf[i] = max(distancesOf[i], 2)
	}
	lengths := append(bestLengths(symbolsOf[:], 14), bestLengths(distancesOf[:], 14)...)
	var lengthsOf [19]int // which symbols of the header are used how often
	for rest := lengths; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n] == rest[0] && (n < 7 || rest[0] == 0) {
			n++
		}
		switch {
		case rest[0] == 0:
			lengthsOf[18]++
		case n > 3:
			lengthsOf[rest[0]]++
			lengthsOf[16]++
		default:
			lengthsOf[rest[0]] += n
		}
		rest = rest[n:]
	}
	if !slices.Equal(lengths, codeLengths[:]) {
		t.Errorf("codeLengths should be %d", lengths)
	}
	if want := bestLengths(lengthsOf[:], 7); !slices.Equal(want, lengthLengths[:]) {
		t.Errorf("lengthLengths should be %d", want)
	}
}
