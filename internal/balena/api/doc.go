// SPDX-License-Identifier: Apache-2.0

// Package api sends requests to the balena API of balenaCloud or of a self-hosted openBalena server.
// It knows the form of requests, answers and errors. Package account knows what to read from an account.
// All requests are GET requests.
//
// A [Query] names a resource, its fields and a filter. [List] reads all rows page by page, [Count] counts them.
// Everything that a server sends is bounded: the bytes of an answer, the rows of a page and of a list, the pages
// of a list, the length of a text. No error contains any piece of the token.
//
// # Properties of the API
//
// The API is OData in an envelope {"d": …}. Two versions matter: v7, and v6 for openBalena servers older than
// August 2024. This package depends on the following properties:
//
//   - Percent-encoded / ( ) : , ; $ = inside options is answered with 400 "Malformed url". Queries are therefore
//     written literally and never pass through [net/url.Values].
//   - The server has no default page size and no next link. A server or a proxy with a limit truncates a page
//     without saying so. A page that is not full therefore does not end a list.
//   - Rows get ascending ids, in the order in which they are created.
//   - A 401 does not prove that the token is bad: a server whose database is down answers 401 too.
//   - A request that selects an unknown field is answered with 500 and an empty body.
//   - $orderby without a direction sorts descending.
package api
