// SPDX-License-Identifier: Apache-2.0

// Package repository checks documents and configuration against the content of the repository: the diagram of packages,
// links and names in documents, the jobs on GitHub, the modules that Dependabot watches, and the licenses of the linked
// modules.
package repository

//go:generate go test -run ^TestNotice$ . -update
