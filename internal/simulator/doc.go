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
// # What is simulated
//
// Versions 6 and 7 of the model for organizations, applications, releases, devices, image installs, tags, device
// types and API keys; OData with $select, $filter, $expand, $orderby, $top, $skip and /$count. Unknown fields are
// a 500 with an empty body, other resources a 401, other versions a 404; a token that is not accepted sees public
// fleets and device types and gets 401 for the rest. The request target is parsed raw, as the real server does
// it: percent-encoded punctuation is a 400.
//
// Nothing can be written over HTTP.
package simulator
