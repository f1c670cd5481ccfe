# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0

# Sourced by the scripts that build the project's Dockerfile with buildah, from the project's directory.

# buildah_in makes buildah keep everything in the directory $1.
buildah_in() {
	store=$1
	storage=overlay
	mkdir -p "$store/tmp"
	export TMPDIR=$store/tmp BUILDAH_ISOLATION=chroot
	if ! buildah images >/dev/null 2>&1; then
		storage=vfs # the kernel or the file system beneath has no overlays
		rm -rf "$store/storage" "$store/run"
	fi
	# Short names such as golang:1.26 mean what they mean to Docker, whatever this machine's own configuration says.
	cat >"$store/registries.conf" <<-'END'
		unqualified-search-registries = ["docker.io"]
		short-name-mode = "permissive"
	END
	export CONTAINERS_REGISTRIES_CONF=$store/registries.conf
}
buildah() { command buildah --root "$store/storage" --runroot "$store/run" --storage-driver "$storage" "$@"; }

# release_store unmounts what buildah mounted in the directory.
release_store() {
	buildah rm --all >/dev/null 2>&1 || true
	umount "$store/storage/overlay" 2>/dev/null || true # overlay mounts it upon itself
}

# remove_store removes what buildah_in made.
remove_store() {
	release_store
	rm -rf --one-file-system "$store"
}

# go_image gets the Go image that the Dockerfile builds from. Where no registry can be reached, a stand-in takes its place:
# busybox and the Go of this machine, also the next time in the same directory. The array volumes holds buildah's arguments
# that mount what the stand-in needs.
# shellcheck disable=SC2034 # they are used where this file is sourced
go_image() {
	local base applet
	base=$(sed -n 's/^FROM .*\(golang:[^ ]*\) AS build$/\1/p' Dockerfile)
	if [[ -z $base ]]; then
		echo 'the Dockerfile does not say which Go image it builds from' >&2
		return 1
	fi
	volumes=()
	if [[ ! -e $store/go-image ]] && buildah pull -q "docker.io/library/$base" >/dev/null 2>"$store/pull"; then
		echo "building from docker.io/library/$base"
		return
	fi
	echo "building from a stand-in for $base with this machine's $(go env GOVERSION): $(tail -n 1 "$store/pull")"
	mkdir -p "$store/go-image/etc/ssl/certs" "$store/go-image/bin" "$store/go-image/tmp"
	cp "$(command -v busybox)" "$store/go-image/bin/busybox"
	for applet in sh cat; do ln -sf busybox "$store/go-image/bin/$applet"; done
	cp -L /etc/ssl/certs/ca-certificates.crt "$store/go-image/etc/ssl/certs/"
	echo root:x:0:0:root:/root:/bin/sh >"$store/go-image/etc/passwd"
	cat >"$store/go-image/Dockerfile" <<-'END'
		FROM scratch
		COPY bin /bin
		COPY etc /etc
		COPY tmp /tmp
		ENV PATH=/usr/local/go/bin:/bin GOPATH=/go GOCACHE=/go/built GOTOOLCHAIN=local HOME=/root GOPROXY=file:///go/downloaded,https://proxy.golang.org,direct
	END
	buildah bud -q --layers -t "docker.io/library/$base" "$store/go-image" >/dev/null
	mkdir -p "$(go env GOMODCACHE)/cache/download" "$(go env GOCACHE)"
	volumes=(
		--volume "$(go env GOROOT):/usr/local/go:ro"
		--volume "$(go env GOMODCACHE)/cache/download:/go/downloaded:ro"
		--volume "$(go env GOCACHE):/go/built"
	)
}
