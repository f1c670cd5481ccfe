#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Compares .release/ with its checksums, and builds the release of this commit once more: in another directory, time zone and
# umask, and from no branch. Both have to have the same bytes. Go's cache is shared, whose contents don't depend on where they
# were built.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

if ! git diff --quiet HEAD || [[ -n $(git status --porcelain) ]]; then
	fail 'the tree has changes: commit them, because a release is built from a commit'
fi
(cd .release && sha256sum --check --quiet --strict sha256sums.txt) || fail '.release/ is not what sha256sums.txt says'
diff <(cd .release && find . -type f ! -name sha256sums.txt -printf '%P\n' | LC_ALL=C sort) <(sed 's/^[0-9a-f]*  //' .release/sha256sums.txt) ||
	fail 'sha256sums.txt does not have all files'

work=$(mktemp -d "${TMPDIR:-/var/tmp}/balena-exporter-again.XXXXXX")
trap 'rm -rf "$work"' EXIT
umask 077
git clone --quiet --no-hardlinks . "$work/in another directory"
cd "$work/in another directory"
git checkout --quiet --detach
mkdir -p bin/tools # the tools are not what is compared
old=()
for tool in promu nfpm sbom; do
	cp -L "$OLDPWD/bin/tools/$tool" bin/tools/
	old+=("--assume-old=bin/tools/$tool")
done
env --unset=SOURCE_DATE_EPOCH TZ=Asia/Kathmandu LANG=C.UTF-8 "${MAKE:-make}" --no-print-directory "${old[@]}" release
diff "$OLDPWD/.release/sha256sums.txt" .release/sha256sums.txt || fail 'the same commit gives other bytes in another directory'
echo "PASS: $(wc -l <.release/sha256sums.txt) files have the same bytes"
