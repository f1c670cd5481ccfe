// SPDX-License-Identifier: Apache-2.0

// Package discovery tells Prometheus where the exporters on devices are: it serves the devices of a snapshot
// as target groups of http_sd, Prometheus' service discovery over HTTP.
//
// A device is one target group, whose labels are what the API tells of it, and one or several targets. A
// list is a pure function of a snapshot and of a [filter]. The lists that are asked for are made anew with
// each refresh, out of the list before: what is written of a run of devices is one piece of an
// [exposition.Page], and pieces whose text is the same are neither compressed nor stored again. A list that
// nobody asks for is not made.
//
// Prometheus keeps its targets when a request fails, and drops them when a list is empty. So a request is
// answered with 503 while there are no data; an empty list means that there are no devices.
package discovery
