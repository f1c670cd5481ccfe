#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Builds everything of a release into .release/, with the binaries for the platforms in the arguments (linux/arm/v7):
#
#   balena-exporter-VERSION.OS-ARCHITECTURE.tar.gz, for Windows also .zip
#   balena-exporter_VERSION-1_ARCHITECTURE.deb, balena-exporter-VERSION-1.ARCHITECTURE.rpm
#   balena-exporter-VERSION.tgz       the Helm chart
#   image/                            the image for all platforms, an OCI layout
#   sbom/ARTIFACT.spdx.json           a software bill of materials of each of these but the chart
#   sha256sums.txt                    the SHA-256 of each file
#
# The same commit gives the same bytes, wherever and whenever it is built with the same Go.
set -euo pipefail
cd "$(dirname "$0")/../.."
umask 022
export LC_ALL=C

part() {
	local start=$SECONDS
	printf -- '--- %s\n' "$1"
	shift
	"$@"
	printf -- '%6d s\n' $((SECONDS - start))
}

chart() {
	(cd test/chart && go run ./package ../../charts/balena-exporter ../../.release)
}

sboms() {
	local platform os architecture variant built extension artifact programs
	mkdir .release/sbom
	sbom image
	for platform; do
		IFS=/ read -r os architecture variant <<<"$platform"
		built=.build/$os-$architecture$variant
		extension=$([[ $os != windows ]] || echo .exe)
		programs=("$built/balena-exporter$extension" "$built/balena-simulator$extension")
		for artifact in .release/*."$os-$architecture$variant".{tar.gz,zip}; do
			[[ ! -e $artifact ]] || sbom "${artifact##*/}" "${programs[@]}"
		done
		for artifact in $(packages_of "$os/$architecture"); do
			sbom "${artifact##*/}" "${programs[0]}"
		done
	done
}

sbom() {
	bin/tools/sbom -version "$version" -output ".release/sbom/$1.spdx.json" ".release/$1" "${@:2}"
}

# packages_of prints the packages for a platform, under the architecture's names at Debian and at RPM distributions.
packages_of() {
	case $1 in
	linux/amd64) ls .release/*_amd64.deb .release/*.x86_64.rpm ;;
	linux/arm64) ls .release/*_arm64.deb .release/*.aarch64.rpm ;;
	linux/arm) ls .release/*_armhf.deb .release/*.armv7hl.rpm ;;
	esac
}

checksums() {
	local files
	mapfile -t files < <(cd .release && find . -type f -printf '%P\n' | sort)
	(cd .release && sha256sum -- "${files[@]}" >sha256sums.txt)
}

[[ -z $(git status --porcelain) ]] || echo 'WARNING: the tree has changes, so this is not the release of a commit.' >&2
version=$(cat VERSION)
rm -rf .release
mkdir .release
part Binaries test/release/tarballs.sh .release "$@"
part Packages test/release/packages.sh .release
part Chart chart
part Image test/release/image.sh .release/image
part 'Bills of materials' sboms "$@"
part Checksums checksums
du -ch --max-depth=0 .release/* | sed 's/^/  /'
