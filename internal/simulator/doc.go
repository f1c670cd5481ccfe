// SPDX-License-Identifier: Apache-2.0

// Package simulator is a balena API in memory: the part that an exporter of metrics can use. It behaves like a real
// openBalena server. Recordings of such a server are in testdata, and the tests replay them.
//
//	sim, err := simulator.New(simulator.Config{Devices: 1000, Fleets: 10, Seed: 1})
//	srv := httptest.NewServer(sim)
//
// Its content is a [Dataset] or is generated from a seed. [Simulator.Tick] simulates one step in the life of the
// account, and [Simulator.Update] makes changes of the caller's choice. [Simulator.SetFaults] injects faults, and
// [Simulator.Requests] counts requests.
//
// A simulator in another process is controlled over HTTP: GET and PUT /simulator/faults (a JSON array of
// [Fault]), GET and DELETE /simulator/requests, PUT /simulator/tokens (a JSON array), POST /simulator/tick,
// POST /simulator/change (a number of devices), POST /simulator/clock (how far to advance the clock, such as "1m").
//
// GET /simulator/model returns the fields of all resources of the edition.
//
// # What is simulated
//
// Versions 6 and 7 of the model for organizations, the user, applications, releases with their tags and images,
// services, devices, image installs, tags, device types and API keys; OData with $select, $filter, $expand,
// $orderby, $top, $skip and /$count. Unknown fields are answered with 500 and an empty body, other resources with 401,
// other versions with 404. A token that is not accepted can read public fleets and device types, and gets 401 for
// everything else. The request target is parsed without decoding it, as the real server does: percent-encoded
// punctuation is answered with 400, except for the quotes of strings.
//
// There are two editions. [OpenBalena] answers as the recorded server does. [Cloud] has exactly the fields that
// balena-sdk declares for balenaCloud, which cloudmodel.go lists. It also has what only balenaCloud has outside the
// account: the releases of host OS and supervisor, and GET /config. If no public source documents a behavior of
// balenaCloud, the edition behaves like openBalena.
//
// The API is read-only.
package simulator
