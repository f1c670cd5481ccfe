// SPDX-License-Identifier: Apache-2.0

//go:build race

package collector_test

// raceEnabled tells that everything takes ten times as long.
const raceEnabled = true
