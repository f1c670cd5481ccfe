// SPDX-License-Identifier: Apache-2.0

// Package account reads an account of a balena server. It decides what to read when, and which answers to trust.
//
// A [Reader] makes one [balena.Snapshot] per call of [Reader.Fetch]. A full refresh reads everything (full.go). Between
// full refreshes, incremental refreshes read only devices that changed, by the modification time that the server sets
// when a row is written, and apply them to the last snapshot (incremental.go; attachments.go for services and tags).
// The snapshots share data that did not change. If the answers are inconsistent, a full refresh follows. Every snapshot
// is therefore the same as that of a full refresh, with the exceptions that docs/data-freshness.md lists.
//
// The result of a refresh for the next one is a value, state: next gets the old state and returns the new one. After an
// error the old state stays, except for conclusions about the server (trust.go). After a canceled context all of it stays.
//
// The tables in fields.go define which fields are read. Two properties of the API matter for the queries:
//
//   - Without the filter is_directly_accessible_by__user, a bad token gets the public fleets, or an empty
//     list, with status 200. Every query for fleets has the filter; a bad token then gets a 401.
//   - Hardware figures are never cleared when a device disconnects.
package account
