#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Builds the binaries for the platforms in the arguments (linux/arm/v7) with promu, into .build/, and packs each platform
# into a tarball in the directory $1, with a ZIP archive beside it for Windows. The archives depend on nothing but the commit.
set -euo pipefail
cd "$(dirname "$0")/../.."

out=$(realpath "$1")
shift
promu=$PWD/bin/tools/promu

# promu fails in a clone whose remote has no URL.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=remote.origin.url GIT_CONFIG_VALUE_0=https://github.com/balena-exporter/balena-exporter

# promu packs in a directory .release of its own, which it removes. So it works in a copy of the files that it packs; its name
# becomes the archives'.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/balena-exporter"
mapfile -t files < <(sed -n '/^tarball:/,/^[a-z]*:$/ s/^ *- //p' .promu.yml)
cp .promu.yml VERSION "${files[@]}" "$work/balena-exporter"

# promu runs tar, which reads its order, owners and times from here; and gzip writes no time when it reads from a pipe.
export TAR_OPTIONS="--sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime=@$SOURCE_DATE_EPOCH"

mkdir -p "$out"
for platform; do
	IFS=/ read -r os architecture variant <<<"$platform"
	built=$PWD/.build/$os-$architecture$variant
	GOOS=$os GOARCH=$architecture GOARM=${variant#v} "$promu" build --prefix "$built"
	(cd "$work/balena-exporter" && GIT_DIR=/dev/null GOOS=$os GOARCH=$architecture$variant "$promu" tarball --prefix "$out" "$built")
done
