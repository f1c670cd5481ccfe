#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Packs the binaries of .build/ for Debian and RPM distributions with nfpm, into the directory $1. VERSION is the packages'
# version, if not that of the file VERSION.
set -euo pipefail
cd "$(dirname "$0")/../.."

export VERSION=${VERSION:-$(cat VERSION)} ARCH BINARIES
# nfpm's names of the architectures, and the directories of the binaries.
while read -r ARCH BINARIES; do
	for packager in deb rpm; do
		bin/tools/nfpm package --config deploy/packages/nfpm.yaml --packager "$packager" --target "$1"
	done
done <<END
amd64 .build/linux-amd64
arm64 .build/linux-arm64
arm7 .build/linux-armv7
END
