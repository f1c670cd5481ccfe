// SPDX-License-Identifier: Apache-2.0

//go:build !race

package collector_test

const raceEnabled = false
