#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds all images that the cluster runs with buildah, from the programs in the directory $1, and writes them to $1/images as
# archives. Only the Go image of the project's Dockerfile comes from a registry. If the registry cannot be reached, a stand-in
# replaces that image. The layers of buildah remain in $1/.storage for the next time.
set -euo pipefail

programs=$(realpath "$1")
cd "$(dirname "$0")/../.."
# shellcheck source=test/image/go-image.sh
. test/image/go-image.sh
buildah_in "$programs/.storage" # hidden from go ./...
mkdir -p "$programs/images"
work=$(mktemp -d "$store/tmp/build.XXXXXX")
clean() {
	release_store
	rm -rf --one-file-system "$work"
}
trap clean EXIT

# archive writes the image $2 to $1.tar. It is not compressed, because it remains on this machine.
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

operator=$(cd test/cluster && go list -m -f '{{.Version}}' github.com/prometheus-operator/prometheus-operator)
program localhost/pause:1 pause
program "quay.io/prometheus-operator/prometheus-operator:$operator" operator
program "quay.io/prometheus-operator/prometheus-config-reloader:$operator" prometheus-config-reloader
program localhost/prometheus:1 prometheus

# A replacement for the image in which `helm test` runs. It contains the curl of this machine and a shell.
chart=charts/balena-exporter
read -r repository tag < <(sed -n '/^test:/,$ { s/^ *repository: *//p; s/^ *tag: *//p }' "$chart/values.yaml" | paste -sd ' ')
mkdir -p "$work/curl/files/bin" "$work/curl/files/tmp"
cp "$(command -v busybox)" "$work/curl/files/bin/busybox"
for applet in sh sed grep cat; do ln -s busybox "$work/curl/files/bin/$applet"; done
curl=$(command -v curl)
cp -L "$curl" "$work/curl/files/bin/curl"
ldd "$curl" | grep -o '/[^ ]*' | while read -r library; do
	mkdir -p "$work/curl/files$(dirname "$library")"
	cp -L "$library" "$work/curl/files$library"
done
cat >"$work/curl/Dockerfile" <<-'END'
	FROM scratch
	COPY files /
	ENV PATH=/bin
	USER 100:101
END
from_context "$repository:$tag" "$work/curl" curl

go_image

version=$(cat VERSION)
# ours builds the target $2 of the project's Dockerfile ('' means its default) as the image $1.
ours() {
	buildah bud -q --layers --pull=false --platform "linux/$(go env GOARCH)" "${volumes[@]}" ${2:+--target "$2"} \
		--build-arg VERSION="$version" --build-arg REVISION=e2e --build-arg BRANCH=e2e -t "$1" . >/dev/null
	local name=${1##*/}
	archive "${name%:*}" "$1"
}
read -r repository < <(sed -n '/^image:/,/^[a-z]*:$/ s/^ *repository: *//p' "$chart/values.yaml")
ours "$repository:$version" ''
ours "localhost/balena-simulator:$version" simulator
