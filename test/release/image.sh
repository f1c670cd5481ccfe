#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Builds the image from the Dockerfile for all platforms with buildah, and writes it to an OCI layout in the directory $1:
# one entry, an index of the platforms, which has the version as its name. Go compiles for the other platforms, and nothing
# is run in the final image, so no platform is emulated. Needs root, and Debian's buildah and busybox-static.
set -euo pipefail
cd "$(dirname "$0")/../.."

out=$(realpath "$1")
version=$(cat VERSION)

# shellcheck source=test/image/go-image.sh
. test/image/go-image.sh
buildah_in "$(mktemp -d "${TMPDIR:-/var/tmp}/balena-exporter-image.XXXXXX")"
trap remove_store EXIT
go_image

# One platform after the other: buildah 1.28 gives the variant of one, v7, to all that it builds at once, and does not know
# the build platform then. The times in the layers and the configuration are the commit's.
for platform in linux/amd64 linux/arm64 linux/arm/v7; do
	buildah bud -q --layers --pull=false --timestamp "$SOURCE_DATE_EPOCH" "${volumes[@]}" \
		--platform "$platform" --manifest image --build-arg BUILDPLATFORM="linux/$(go env GOHOSTARCH)" \
		--build-arg VERSION="$version" --build-arg REVISION="$(git rev-parse HEAD)" --build-arg BRANCH=HEAD . >/dev/null
done
rm -rf "$out"
buildah manifest push -q --all --format oci image "oci:$out:$version"
