// Package balena reads fleets and devices from the balena API, on balenaCloud or on a self-hosted
// openBalena server, and knows nothing of Prometheus.
//
// A [Client] makes one [Snapshot] per call of [Client.Fetch]: one request for all fleets, one for every
// thousand devices, and few more for what the options switch on. It issues GET requests only.
//
// That is a full sweep (sweep.go). Between two of them the client asks only for devices that changed, by the
// time the server gives to every row that is written, and puts them into the snapshot before (changes.go;
// attach.go for services and tags). The snapshots share what did not change (devices.go). Whatever does not
// add up is answered by a full sweep (trust.go), so that after every call the snapshot is what a full sweep
// would give, but for the little that docs/data-freshness.md lists.
//
// # What the API is like
//
// The API is OData behind an envelope {"d": …}, spoken in two versions that matter: v7, and v6 for
// openBalena servers older than August 2024. Some of its habits decide how this package is written:
//
//   - Percent-encoding / ( ) : , ; $ = inside options is answered 400 "Malformed url", so queries are
//     written literally and never pass through [net/url.Values].
//   - Without the filter is_directly_accessible_by__user a bad token gets the public fleets, or an empty
//     list, with status 200. Every fleet list carries the filter, whereupon a bad token is a 401.
//   - A 401 is no proof of a bad token: it is also what a server says whose database is down.
//   - Selecting a field the server does not know is a 500 with an empty body, and the whole request is
//     lost. Fields that exist on balenaCloud only are found out once and remembered.
//   - $orderby without a direction sorts descending.
//   - Hardware figures are never cleared when a device goes offline.
package balena
