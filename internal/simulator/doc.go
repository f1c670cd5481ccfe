// SPDX-License-Identifier: Apache-2.0

// Package simulator is a balena API in memory: the part of it that an exporter of metrics can want, with the
// behaviour of a real openBalena server, which testdata holds a record of and the tests replay.
//
//	sim, err := simulator.New(simulator.Config{Devices: 1000, Fleets: 10, Seed: 1})
//	srv := httptest.NewServer(sim)
//
// What it holds comes from a [Dataset] or is generated from a seed. It lives when [Simulator.Tick] is called, and
// changes as [Simulator.Update] wants it. [Simulator.SetFaults] makes things go wrong, [Simulator.Requests] tells
// what was asked for.
//
// A simulator in another process is controlled by its own paths: GET and PUT /simulator/faults (a JSON array of
// [Fault]), GET and DELETE /simulator/requests, PUT /simulator/tokens (a JSON array), POST /simulator/tick,
// POST /simulator/change (a number of devices), POST /simulator/clock (how far to put it forward, "1m").
//
// GET /simulator/model tells the fields of all resources of the edition.
//
// # What is simulated
//
// Versions 6 and 7 of the model for organizations, the user, applications, releases with their tags and images,
// services, devices, image installs, tags, device types and API keys; OData with $select, $filter, $expand,
// $orderby, $top, $skip and /$count. Unknown fields are a 500 with an empty body, other resources a 401, other
// versions a 404; a token that is not accepted sees public fleets and device types and gets 401 for the rest. The
// request target is parsed raw, as the real server does it: percent-encoded punctuation is a 400, but for the quotes
// of strings.
//
// There are two editions. [OpenBalena] answers as the recorded server does. [Cloud] has exactly the fields that balena-sdk declares
// of balenaCloud, which cloudmodel.go lists, and what only balenaCloud has beside the account: the releases of host OS
// and supervisor, and GET /config. Where no public source tells what balenaCloud does, it does what openBalena does.
//
// Nothing can be written over HTTP.
package simulator
