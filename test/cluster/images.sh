#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds every image that the cluster runs with buildah, from the programs in the directory $1, and writes them to $1/images as archives:
# no registry is asked but for the Go image of the project's Dockerfile, and where that can't be reached a stand-in takes its place.
# Buildah's layers stay in $1/.storage for the next time.
set -euo pipefail

programs=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
project=$(realpath "$here/../..")

storage=$programs/.storage # hidden from go ./...
mkdir -p "$storage/tmp" "$programs/images"
export TMPDIR=$storage/tmp BUILDAH_ISOLATION=chroot
driver=overlay
buildah() { command buildah --root "$storage/layers" --runroot "$storage/run" --storage-driver "$driver" "$@"; }
clean() {
	buildah rm --all >/dev/null 2>&1 || true # what a build that failed leaves mounted
	umount "$storage/layers/overlay" 2>/dev/null || true # overlay mounts it upon itself
	rm -rf --one-file-system "$work"
}
work=$(mktemp -d "$storage/tmp/build.XXXXXX")
trap clean EXIT
if ! buildah images >/dev/null 2>&1; then
	driver=vfs # the kernel or the file system beneath has no overlays
	rm -rf --one-file-system "$storage/layers" "$storage/run"
fi

# Short names such as golang:1.26 mean what they mean to Docker, whatever this machine's own configuration says.
cat >"$work/registries.conf" <<'END'
unqualified-search-registries = ["docker.io"]
short-name-mode = "permissive"
END
export CONTAINERS_REGISTRIES_CONF=$work/registries.conf

# archive writes the image $2 to $1.tar; not compressed, for it only goes from one directory of this machine to another.
archive() {
	rm -f "$programs/images/$1.tar"
	buildah push -q --disable-compression "$2" "oci-archive:$programs/images/$1.tar:$2"
	echo "$2"
}

# from_context makes the image $1 of a directory $2 with a Dockerfile and archives it as $3.
from_context() {
	buildah bud -q --layers -t "$1" "$2" >/dev/null
	archive "$3" "$1"
}

# program makes the image $1 of nothing but a program.
program() {
	local image=$1 name=$2
	mkdir "$work/$name"
	ln "$programs/$name" "$work/$name/" 2>/dev/null || cp "$programs/$name" "$work/$name/"
	cat >"$work/$name/Dockerfile" <<-END
		FROM scratch
		COPY $name /bin/$name
		USER 65534:65534
		WORKDIR /prometheus
		ENTRYPOINT ["/bin/$name"]
	END
	from_context "$image" "$work/$name" "$name"
}

operator=$(cd "$here" && go list -m -f '{{.Version}}' github.com/prometheus-operator/prometheus-operator)
program localhost/pause:1 pause
program "quay.io/prometheus-operator/prometheus-operator:$operator" operator
program "quay.io/prometheus-operator/prometheus-config-reloader:$operator" prometheus-config-reloader
program localhost/prometheus:1 prometheus

# The image in which `helm test` runs has curl and a shell: so has this one, with the curl of this machine.
chart=$project/charts/balena-exporter
read -r repository tag < <(sed -n '/^test:/,$ { s/^ *repository: *//p; s/^ *tag: *//p }' "$chart/values.yaml" | paste -sd ' ')
mkdir -p "$work/curl/root/bin" "$work/curl/root/tmp"
cp "$(command -v busybox)" "$work/curl/root/bin/busybox"
for applet in sh sed grep cat; do ln -s busybox "$work/curl/root/bin/$applet"; done
curl=$(command -v curl)
cp -L "$curl" "$work/curl/root/bin/curl"
ldd "$curl" | grep -o '/[^ ]*' | while read -r library; do
	mkdir -p "$work/curl/root$(dirname "$library")"
	cp -L "$library" "$work/curl/root$library"
done
cat >"$work/curl/Dockerfile" <<-'END'
	FROM scratch
	COPY root /
	ENV PATH=/bin
	USER 100:101
END
from_context "$repository:$tag" "$work/curl" curl

base=$(sed -n 's/^FROM .*\(golang:[^ ]*\) AS build$/\1/p' "$project/Dockerfile")
volumes=()
if [[ ! -e $storage/stand-in ]] && buildah pull -q --policy missing "docker.io/library/$base" >/dev/null 2>"$work/pull"; then
	echo "building from docker.io/library/$base"
else
	echo "building from a stand-in for $base with this machine's $(go env GOVERSION): $(tail -n 1 "$work/pull" 2>/dev/null || echo as the last time)"
	touch "$storage/stand-in"
	mkdir -p "$work/go/root/etc/ssl/certs" "$work/go/root/bin" "$work/go/root/tmp"
	cp "$(command -v busybox)" "$work/go/root/bin/busybox"
	for applet in sh cat; do ln -s busybox "$work/go/root/bin/$applet"; done
	cp -L /etc/ssl/certs/ca-certificates.crt "$work/go/root/etc/ssl/certs/"
	echo root:x:0:0:root:/root:/bin/sh >"$work/go/root/etc/passwd"
	cat >"$work/go/Dockerfile" <<-'END'
		FROM scratch
		COPY root /
		ENV PATH=/usr/local/go/bin:/bin GOPATH=/go GOTOOLCHAIN=local HOME=/root GOPROXY=file:///go/downloaded,https://proxy.golang.org,direct
	END
	buildah bud -q --layers -t "docker.io/library/$base" "$work/go" >/dev/null
	volumes=(--volume "$(go env GOROOT):/usr/local/go:ro" --volume "$(go env GOMODCACHE)/cache/download:/go/downloaded:ro")
fi

version=$(cat "$project/VERSION")
# ours builds the target $2 of the project's Dockerfile ('' means its default) as the image $1.
ours() {
	buildah bud -q --layers --pull=false --platform "linux/$(go env GOARCH)" "${volumes[@]}" ${2:+--target "$2"} \
		--build-arg VERSION="$version" --build-arg REVISION=e2e --build-arg BRANCH=e2e -t "$1" "$project" >/dev/null
	local name=${1##*/}
	archive "${name%:*}" "$1"
}
read -r repository < <(sed -n '/^image:/,/^[a-z]*:$/ s/^ *repository: *//p' "$chart/values.yaml")
ours "$repository:$version" ''
ours "localhost/balena-simulator:$version" simulator
