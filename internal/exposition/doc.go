// SPDX-License-Identifier: Apache-2.0

// Package exposition serves a large Prometheus exposition at about the cost of
// a static file. It knows nothing of what the metrics mean.
//
// The bulk of an exporter's data changes once per refresh, while scrapes come
// several times per refresh. So all work is done once: a [Builder] compresses
// the text while it is being rendered, a [Page] keeps nothing but the compressed
// bytes, and the handler of [NewHandler] puts them together with the little that
// is different at every scrape, the live part: runtime, process and request
// metrics gathered from an ordinary [prometheus.Gatherer].
//
// # How a scrape is put together
//
// The text format wants all samples of a family in one piece, but a refresh goes
// through its objects run by run, all families of a run at a time. A Builder takes the
// pieces as they come, a Page puts them in order, each family after its header:
//
//	           piece 0   piece 1   piece 2
//	family 0   ┌──────┐  ┌──────┐  ┌──────┐
//	           │  a   │  │  b   │  │  c   │     each box: text, compressed to one
//	family 1   ├──────┤  ├──────┤  ├──────┤     fragment, with its length and CRC
//	           │  d   │  │  e   │  │  f   │
//	           └──────┘  └──────┘  └──────┘
//
//	    ┌────────┬───┬───┬───┬───┬───┬───┬───────────┬─────────────┐
//	GET │ gzip   │ a │ b │ c │ d │ e │ f │ live part │ CRC, length │
//	    │ header │   │   │   │   │   │   │ (final)   │ of the text │
//	    └────────┴───┴───┴───┴───┴───┴───┴───────────┴─────────────┘
//	              as they are in memory    compressed now
//
// A client that wants no compression gets the same fragments, inflated on the
// way. Either way the length is known before the first byte is sent, and no
// second copy of the page is ever in memory.
//
// # Why this is one valid gzip file
//
// A gzip file may consist of several members, each with a header and a trailer,
// and joining finished members would be simpler. But several members in one HTTP
// body are not read by everybody: curl shows the first one and fails. So there is
// exactly one member, whose deflate stream is joined from independently made
// parts. That needs two things:
//
//   - Every fragment ends with a flush (an empty stored block). A deflate stream
//     is a sequence of bits: without the flush a fragment would end somewhere
//     within a byte, and the next could not be put behind it by copying bytes. And
//     no fragment has the mark of a final block; that comes with the live part.
//     Since every fragment is made by a compressor that takes no notice of what it
//     has seen before, it refers to no earlier text, and so can stand anywhere.
//   - The trailer holds the CRC-32 of all the text. The CRC of a joined text
//     follows from the CRCs and lengths of its parts (see combine in crc.go),
//     without touching the text, which nobody has any more. A page knows its own;
//     a scrape only carries it on over the live part.
//
// # What did not change
//
// Compression is most of the work of building a page, and rendering most of the rest.
// A Builder is given the previous page, and does neither for what is there already:
//
//   - [Builder.Keep] takes over a piece of the previous page whose text nobody has rendered
//     again. The caller decides how long pieces are. A short piece costs little when one of
//     its lines changes. A long one needs fewer bytes, since each piece is a fragment with
//     Huffman codes of its own and without history. There are tens of thousands of fragments,
//     so a fragment keeps the factor by which the CRC of all text before it is multiplied.
//   - What [Builder.Append] adds has been rendered, and is looked up by its length, CRC and a
//     64-bit hash with a seed that is random in every process, so that nobody can prepare label
//     values that collide.
//
// Either way both pages share the memory of the fragments.
//
// # Slow scrapers
//
// A scrape holds the page it started with until it ends. So it has to make
// progress (stallTimeout), to end (scrapeTimeout), and not to fall too far behind:
// scrapes of at most maxPages different pages are in flight, and one that starts
// with a newer page ends those with the oldest. Nothing is locked while bytes are
// sent, so that no scraper can hold up a refresh. See scrape.go.
package exposition
