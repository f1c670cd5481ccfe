#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Prints what CHANGELOG.md of the working directory says about the version in VERSION, for the release of the tag $1. The tag
# has to be that version, and the changelog has to say something.
set -euo pipefail

version=$(cat VERSION)
if [[ $1 != "v$version" ]]; then
	echo "The tag $1 is not the version $version of the file VERSION: tag the commit that sets the version." >&2
	exit 1
fi
notes=$(awk -v version="$version" '
	/^## / { wanted = $2 == version; next }
	wanted
' CHANGELOG.md)
if [[ $notes != *[![:space:]]* ]]; then
	echo "CHANGELOG.md has no notes for $version: give the changes a heading \"## $version / YYYY-MM-DD\"." >&2
	exit 1
fi
sed '/./,$!d' <<<"$notes"
