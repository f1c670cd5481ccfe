// SPDX-License-Identifier: Apache-2.0

// Package api asks the balena API, on balenaCloud or on a self-hosted openBalena server: one question, one answer.
// It knows what a request, an answer and an error look like, and nothing of what an account is read for; that is
// package account. It issues GET requests only.
//
// A [Query] names a resource, its fields and a filter. [List] reads all rows page by page, [Count] counts them.
// Everything that a server may send is bounded: the bytes of an answer, the rows of a page and of a list, the pages
// of a list, the length of a text. No error holds any piece of the token.
//
// # What the API is like
//
// The API is OData behind an envelope {"d": …}, spoken in two versions that matter: v7, and v6 for
// openBalena servers older than August 2024. Some of its habits decide how this package is written:
//
//   - Percent-encoding / ( ) : , ; $ = inside options is answered 400 "Malformed url", so queries are
//     written literally and never pass through [net/url.Values].
//   - The server has no page size of its own and no next link. A server or a proxy with a limit cuts a page
//     short without a word. A list therefore ends with an empty page and with nothing else.
//   - A 401 is no proof of a bad token: it is also what a server says whose database is down.
//   - Selecting a field that the server does not know is a 500 with an empty body, and the whole request is lost.
//   - $orderby without a direction sorts descending.
package api
