// SPDX-License-Identifier: Apache-2.0

// Package discovery provides the devices of a snapshot as targets for Prometheus: it serves target groups for http_sd, the
// service discovery over HTTP.
//
// Each device is a target group with one or several targets. Its labels are data of the API. A list is a pure function of
// a snapshot and of a [filter]. Each refresh updates the lists that were requested recently. The text for a run of
// devices is one piece of an [exposition.Page], and pieces with the same text are neither compressed nor stored again.
//
// Prometheus keeps its targets if a request fails, and drops them if a list is empty. Requests without current data
// therefore get the status 503. An empty list means that there are no devices.
package discovery
