// SPDX-License-Identifier: Apache-2.0

//go:build race

package collector_test

// raceEnabled reports that the race detector is on, with which everything takes ten times as long.
const raceEnabled = true
