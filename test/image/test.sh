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

tmp=$(mktemp -d "${TMPDIR:-/var/tmp}/balena-exporter-image.XXXXXX")
export TMPDIR=$tmp BUILDAH_ISOLATION=chroot
storage=overlay
buildah() { command buildah --root "$tmp/storage" --runroot "$tmp/run" --storage-driver $storage "$@"; }
clean() {
	buildah umount --all >/dev/null 2>&1 || true
	umount "$tmp/storage/overlay" 2>/dev/null || true # the overlay driver bind-mounts this directory
	rm -rf --one-file-system "$tmp"
}
trap clean EXIT
if ! buildah images >/dev/null 2>&1; then
	storage=vfs # the kernel or the file system does not support overlays
	rm -rf "$tmp/storage" "$tmp/run"
fi

# Resolve short names such as golang:1.26 like Docker, whatever the configuration of this machine is.
cat >"$tmp/registries.conf" <<'END'
unqualified-search-registries = ["docker.io"]
short-name-mode = "permissive"
END
export CONTAINERS_REGISTRIES_CONF=$tmp/registries.conf

base=$(sed -n 's/^FROM .*\(golang:[^ ]*\) AS build$/\1/p' Dockerfile)
[[ -n $base ]] || fail 'the Dockerfile does not say which Go image it builds from'
volumes=()
if buildah pull -q "docker.io/library/$base" >/dev/null 2>"$tmp/pull"; then
	echo "building from docker.io/library/$base"
else
	echo "building from a stand-in for $base with this machine's $(go env GOVERSION): $(tail -n 1 "$tmp/pull")"
	mkdir -p "$tmp/go-image/etc/ssl/certs" "$tmp/go-image/bin" "$tmp/go-image/tmp"
	cp "$(command -v busybox)" "$tmp/go-image/bin/busybox"
	for applet in sh cat; do ln -s busybox "$tmp/go-image/bin/$applet"; done
	cp -L /etc/ssl/certs/ca-certificates.crt "$tmp/go-image/etc/ssl/certs/"
	echo root:x:0:0:root:/root:/bin/sh >"$tmp/go-image/etc/passwd"
	cat >"$tmp/go-image/Dockerfile" <<'END'
FROM scratch
COPY bin /bin
COPY etc /etc
COPY tmp /tmp
ENV PATH=/usr/local/go/bin:/bin GOPATH=/go GOTOOLCHAIN=local HOME=/root GOPROXY=file:///go/downloaded,https://proxy.golang.org,direct
END
	buildah bud -q -t "docker.io/library/$base" "$tmp/go-image" >/dev/null
	volumes=(--volume "$(go env GOROOT):/usr/local/go:ro" --volume "$(go env GOMODCACHE)/cache/download:/go/downloaded:ro")
fi

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
