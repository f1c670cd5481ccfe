#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs make with each of the arguments, one after another. Prints the current part, and at the end the duration of each part.
# The first part that fails ends the script.
set -euo pipefail

number=0 times=''

# summary prints the parts that have run, with their times in seconds.
summary() {
	printf '\n%s%6d s  in total\n' "$times" "$SECONDS"
}

for part; do
	number=$((number + 1)) start=$SECONDS
	printf '\n=== %d of %d: make %s\n' "$number" $# "$part"
	read -ra arguments <<<"$part"
	if ! "${MAKE:-make}" --no-print-directory "${arguments[@]}"; then
		times+=$(printf '%6d s  make %s: FAILED' $((SECONDS - start)) "$part")$'\n'
		summary >&2
		exit 1
	fi
	times+=$(printf '%6d s  make %s' $((SECONDS - start)) "$part")$'\n'
done
summary
