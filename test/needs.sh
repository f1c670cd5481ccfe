#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fails if a program in the arguments is missing or Go is too old, with one sentence for each. GO is the Go command (default: go).
set -euo pipefail
cd "$(dirname "$0")/.."

failed=0
complain() {
	echo "$*" >&2
	failed=1
}

# there complains with a sentence that ends in $2 if the program $1 is missing.
there() {
	command -v "$1" >/dev/null || complain "$1 is missing: $2."
}

needs_go() {
	local go=${GO:-go} wanted have
	wanted=$(sed -n 's/^go //p' go.mod)
	if ! command -v "$go" >/dev/null; then
		complain "Go is missing: install Go $wanted or newer from https://go.dev/dl/ and put its directory bin into PATH."
		return
	fi
	have=$("$go" env GOVERSION 2>/dev/null) || have='too old to say its version'
	if [[ $have != devel* && $(printf '%s\n' "go$wanted" "$have" | sort -V | head -n 1) != "go$wanted" ]]; then
		complain "Go is too old ($have): install Go $wanted or newer from https://go.dev/dl/, or set GOTOOLCHAIN=auto."
	fi
}

for program; do
	case $program in
	go) needs_go ;;
	git) there git 'install git (Debian: apt-get install git)' ;;
	cc) there "$("${GO:-go}" env CC)" 'install a C compiler, which the race detector needs (Debian: apt-get install gcc libc6-dev)' ;;
	npm) there npm 'install Node.js 20 or newer from https://nodejs.org' ;;
	chromium) there "${CHROMIUM:-/usr/bin/chromium}" 'install Chromium (Debian: apt-get install chromium), or set CHROMIUM to its path' ;;
	busybox) there busybox 'install it (Debian: apt-get install busybox-static)' ;;
	systemd-nspawn) there systemd-nspawn 'install it (Debian: apt-get install systemd-container)' ;;
	docker) there "${DOCKER:-docker}" 'install Docker, or set DOCKER to a program that takes the same arguments' ;;
	*) there "$program" "install it (Debian: apt-get install $program)" ;;
	esac
done
exit $failed
