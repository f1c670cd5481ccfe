// SPDX-License-Identifier: Apache-2.0

// Package simulator implements the part of the balena API that exporters of metrics use, in memory. It behaves like a real
// openBalena server. testdata contains recordings of such a server, and the tests replay them.
//
//	sim, err := simulator.New(simulator.Config{Devices: 1000, Fleets: 10, Seed: 1})
//	srv := httptest.NewServer(sim)
//
// The account is a [Dataset] or is generated from a seed. [Simulator.Tick] simulates random changes, and [Simulator.Update]
// applies given changes. [Simulator.SetFaults] injects faults, and [Simulator.Requests] returns the number of requests.
//
// A simulator in another process is controlled over HTTP: GET and PUT /simulator/faults (a JSON array of
// [Fault]), GET and DELETE /simulator/requests, PUT /simulator/tokens (a JSON array), POST /simulator/tick,
// POST /simulator/change (a number of devices), POST /simulator/clock (a duration by which to advance the clock, such as "1m").
//
// GET /simulator/model returns the fields of all resources of the edition.
//
// # What is simulated
//
// Versions 6 and 7 of the model for organizations, the user, applications, releases with their tags and images,
// services, devices, image installs, tags, device types and API keys; OData with $select, $filter, $expand,
// $orderby, $top, $skip and /$count. The status is 500 with an empty body for unknown fields, 401 for unknown resources, and
// 404 for unknown versions. Requests with an invalid token can read public fleets and device types; the status of other
// resources is 401. Like the real server, the simulator parses the request target without decoding it: the status is 400 for
// percent-encoded punctuation other than quotes of strings.
//
// There are two editions. [OpenBalena] behaves like the recorded server. [Cloud] has exactly the fields that balena-sdk
// declares for balenaCloud, which cloudmodel.json lists. It also has data that only balenaCloud provides: the releases of host
// OS and supervisor, and GET /config. If no public source documents a behavior of balenaCloud, the edition behaves like
// openBalena.
//
// The API is read-only.
package simulator
