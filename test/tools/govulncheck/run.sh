#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs govulncheck (the program in $1) on the binaries' code. A known vulnerability fails; a vulnerability database that
# cannot be reached does not, because that says nothing about the code. GOVULNDB names another database.
set -euo pipefail

status=0
output=$("$1" ${GOVULNDB:+-db "$GOVULNDB"} ./... 2>&1) || status=$?
printf '%s\n' "$output"
if [[ $status -ne 0 && $output == *'fetching vulnerabilities:'* ]]; then
	echo 'WARNING: the vulnerability database is out of reach, so nothing was checked.' >&2
	exit 0
fi
exit "$status"
