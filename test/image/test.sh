#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the container images from the Dockerfile with buildah, checks their content, and runs both: as the images' user,
# on a read-only root, in their own network and process namespaces. Needs root, and Debian's buildah and busybox-static.
#
# If no registry can be reached, the Go image of the Dockerfile is replaced by a stand-in: busybox and the Go installation of
# this machine. All files are created in a temporary directory.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

[[ $(id -u) == 0 ]] || fail 'run this test as root: it mounts images'
for program in buildah busybox; do
	command -v $program >/dev/null || fail "$program is missing: apt-get install --no-install-recommends buildah busybox-static"
done

# shellcheck source=test/image/go-image.sh
. test/image/go-image.sh
tmp=$(mktemp -d "${TMPDIR:-/var/tmp}/balena-exporter-image.XXXXXX")
buildah_in "$tmp"
trap remove_store EXIT
go_image

version=$(cat VERSION)

# build builds the image $1, the target $2 of the Dockerfile ('' is the default target), and mounts it; $tmp/$1 links there.
build() {
	echo "--- $1"
	buildah bud -q --layers --pull=false --platform "linux/$(go env GOARCH)" "${volumes[@]}" ${2:+--target "$2"} --build-arg VERSION="$version" --build-arg REVISION=revision --build-arg BRANCH=branch -t "$1" . >/dev/null
	ln -s "$(buildah mount "$(buildah from --pull-never "$1")")" "$tmp/$1"
}

# expect compares the value at a Go template path of the image's configuration with $3.
expect() {
	local got
	got=$(buildah inspect --type image --format "{{$2}}" "$1")
	[[ $got == "$3" ]] || fail "$1: $2 is $got, not $3"
}

# check checks an image: it contains only the program and the licenses, the program is static, the user is not root.
check() {
	expect "$1" .OCIv1.Config.User 65532:65532
	expect "$1" .OCIv1.Config.Entrypoint "[/bin/$1]"
	expect "$1" '(index .OCIv1.Config.Labels "org.opencontainers.image.revision")' revision
	expect "$1" '(index .OCIv1.Config.Labels "org.opencontainers.image.version")' "$version"
	local files
	files=$(cd "$tmp/$1/" && find . -type f | sort | tr '\n' ' ')
	[[ $files == "./LICENSE ./NOTICE ./bin/$1 " ]] || fail "$1 holds other files than the program and the licenses: $files"
	go version -m "$tmp/$1/bin/$1" | grep -q 'CGO_ENABLED=0' || fail "$1 is not a static program"
	echo "$(stat -c %s "$tmp/$1/bin/$1") bytes, alone with its licenses, user 65532"
}

build balena-exporter ''
expect balena-exporter .OCIv1.Config.ExposedPorts 'map[8000/tcp:{} 8001/tcp:{}]'
check balena-exporter
build balena-simulator simulator
check balena-simulator

echo '--- run'
unshare --mount --net --pid --ipc --uts --fork --kill-child --mount-proc test/image/run.sh "$tmp"
echo PASS
