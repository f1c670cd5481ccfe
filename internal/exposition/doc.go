// SPDX-License-Identifier: Apache-2.0

// Package exposition serves a large Prometheus exposition with about the CPU of a static
// file.
//
// Most data of an exporter change once per refresh, but are scraped several times per
// refresh. They are compressed only once: a [Builder] compresses the text while it is
// rendered, a [Page] contains only the compressed bytes, and the handler of [NewHandler]
// joins them with the live part, which differs at every scrape: runtime, process and
// request metrics of a [prometheus.Gatherer].
//
// # Structure of a response
//
// The text format requires all samples of a family to be together, but a refresh renders
// all families of a run at a time. A Builder accepts the pieces in any order, and a Page
// sorts them by family.
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
// For clients that do not accept gzip, the same fragments are inflated while they are sent.
// In both cases the length is known before the first byte is sent, and there is only one
// copy of the page in memory.
//
// # Parts and groups
//
// A scrape can request groups of families, and a part of the pieces ([Selection]). Both consist of the same fragments as the
// page. The pieces of a page are divided into sections ([Builder.EndSection]), and a page contains the length and the CRC of
// the pieces of each family in each section.
//
// # Format of the gzip file
//
// A gzip file may consist of several members, each with a header and a trailer. But some
// clients do not support several members in an HTTP body: curl shows the first one and
// fails. A response is therefore one member, whose deflate stream is joined from parts that
// were compressed independently. This has two requirements:
//
//   - Each fragment ends with a flush (an empty stored block). A deflate stream is a
//     sequence of bits. Without the flush, a fragment would end within a byte, and the next
//     fragment could not be appended by copying bytes. Only the live part has a final
//     block. The compressor is reset before each fragment, so that fragments do not refer
//     to earlier text.
//   - The trailer contains the CRC-32 of the whole text. It is computed from the CRCs and
//     lengths of the parts (see crc.go). A page contains its CRC, and a scrape only adds
//     the live part.
//
// # Unchanged text
//
// Compressing needs most of the CPU of building a page, and rendering most of the rest.
// A Builder avoids both for text that is on the previous page:
//
//   - [Builder.Keep] adds a piece of the previous page. Its text is not rendered again. The
//     caller decides the length of pieces. A short piece needs little CPU if a line changes.
//     A long piece needs fewer bytes, because each piece is a fragment with separate Huffman
//     codes and no history. A page has tens of thousands of fragments, so each fragment
//     contains the factor by which the CRC of the text before it is multiplied.
//   - Text added by [Builder.Append] is rendered, but not compressed again. It is identified
//     by its length, its CRC and a 64-bit hash. The seed of the hash is random in each
//     process, so that collisions of label values cannot be prepared.
//
// In both cases the two pages share the memory of the fragments.
//
// # Slow scrapers
//
// A scrape holds its page until it ends. There are three limits: a scrape must make progress
// (stallTimeout), it must end (scrapeTimeout), and at most maxPages different pages are sent
// at a time. A scrape of a newer page ends the scrapes of the oldest page. No lock is held
// while bytes are sent, so that scrapers cannot delay a refresh. See scrape.go.
package exposition
