// SPDX-License-Identifier: Apache-2.0

// Package account follows an account of a balena server: it decides what to ask when, and what to believe.
//
// A [Reader] makes one [balena.Snapshot] per call of [Reader.Fetch]. A full refresh reads everything (full.go). Between
// two of them an incremental refresh asks only for devices that changed, by the time that the server gives to every
// row that is written, and applies them to the last snapshot (incremental.go; attachments.go for services and tags).
// The snapshots share what did not change. Whatever does not add up is answered by a full refresh, so that after every
// call the snapshot is what a full refresh would give, but for the little that docs/data-freshness.md lists.
//
// What one refresh leaves for the next is a value, state: next takes the old one and returns the new one. An error or
// a cancelled context leaves the old one in place, but for what the failure taught about the server (trust.go).
//
// What an account is read for stands in the tables of fields.go. Two rules of the API decide how its lists are asked:
//
//   - Without the filter is_directly_accessible_by__user a bad token gets the public fleets, or an empty
//     list, with status 200. Every fleet list carries the filter, whereupon a bad token is a 401.
//   - Hardware figures are never cleared when a device goes offline.
package account
