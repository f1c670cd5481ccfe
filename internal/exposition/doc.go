// SPDX-License-Identifier: Apache-2.0

// Package exposition serves a large Prometheus exposition at about the cost of
// a static file. It does not know what the metrics mean.
//
// Most of an exporter's data change once per refresh, and are scraped several times
// per refresh. The work is therefore done once: a [Builder] compresses the text
// while it is rendered, a [Page] keeps only the compressed bytes, and the handler of
// [NewHandler] joins them with the live part, which differs at every scrape: runtime,
// process and request metrics gathered from an ordinary [prometheus.Gatherer].
//
// # How the answer to a scrape is assembled
//
// The text format requires all samples of a family to be together, but a refresh renders
// run by run, all families of a run at a time. A Builder accepts the pieces in any
// order, and a Page sorts them: each family after its header.
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
// A client that does not accept gzip gets the same fragments, inflated while they are
// sent. In both cases the length is known before the first byte is sent, and memory
// never holds a second copy of the page.
//
// # Parts and groups
//
// A scrape can ask for groups of families, and for a part of the pieces ([Selection]). Both are made of the same
// fragments: nothing is rendered, compressed or kept twice. The pieces of a page are divided into sections
// ([Builder.EndSection]), and a page knows the length and the CRC of the pieces that a family has in a section.
//
// # Why this is one valid gzip file
//
// A gzip file may consist of several members, each with a header and a trailer,
// and joining finished members would be simpler. But not every client reads several
// members in one HTTP body: curl shows the first one and fails. The answer is therefore
// exactly one member, whose deflate stream is joined from parts that were compressed
// independently. This has two requirements:
//
//   - Every fragment ends with a flush (an empty stored block). A deflate stream
//     is a sequence of bits: without the flush a fragment would end within a byte,
//     and the next fragment could not be appended by copying bytes. No fragment has
//     the mark of a final block; the live part has it. The compressor is reset before
//     every fragment, so that a fragment refers to no earlier text and can stand
//     anywhere.
//   - The trailer holds the CRC-32 of the whole text. The CRC of a joined text
//     follows from the CRCs and lengths of its parts (see crc.go),
//     without the text itself, which is no longer in memory. A page knows its CRC;
//     a scrape only adds the live part.
//
// # Unchanged text
//
// Compression is most of the work of building a page, and rendering most of the rest.
// A Builder knows the previous page, and avoids both for text that did not change:
//
//   - [Builder.Keep] takes a piece from the previous page. Its text is not rendered again.
//     The caller decides how long pieces are. A short piece costs little when one of
//     its lines changes. A long piece needs fewer bytes, because each piece is a fragment
//     with its own Huffman codes and without history. A page has tens of thousands of
//     fragments, so each fragment stores the factor by which the CRC of the text before it
//     is multiplied.
//   - Text added by [Builder.Append] has been rendered. It is looked up by its length, its CRC
//     and a 64-bit hash. The seed of the hash is random in every process, so that nobody can
//     prepare label values that collide.
//
// In both cases the two pages share the memory of the fragments.
//
// # Slow scrapers
//
// A scrape holds the page it started with until it ends. Three limits bound this: a scrape
// must make progress (stallTimeout), it must end (scrapeTimeout), and at most maxPages
// different pages are being sent. A scrape that starts with a newer page ends the scrapes
// of the oldest page. No lock is held while bytes are sent, so that no scraper can delay
// a refresh. See scrape.go.
package exposition
