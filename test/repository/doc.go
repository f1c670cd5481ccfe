// SPDX-License-Identifier: Apache-2.0

// Package repository compares what is written about the repository as a whole with what is in it: the drawing of the
// packages, links and names in documents, the jobs on GitHub, the modules that Dependabot looks at, and the licenses of
// what is linked into the binaries.
package repository

//go:generate go test -run ^TestNotice$ . -update
