#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0

# Boots a Debian of its own, with systemd, and lets installed.sh install the package of .release/ there. Needs root, and
# Debian's mmdebstrap, systemd-container and busybox-static.
set -euo pipefail
cd "$(dirname "$0")/../.."

architecture=$(go env GOARCH)
packages=(".release/balena-exporter_"*"_$architecture.deb")
if [[ ! -e ${packages[0]} ]]; then
	echo 'FAIL: .release/ has no package for this machine: run make release first' >&2
	exit 1
fi

work=$(mktemp -d "${TMPDIR:-/var/tmp}/balena-exporter-deb.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root

echo '--- A Debian with systemd'
for try in 1 2 3; do
	if mmdebstrap --quiet --variant=essential --include=systemd,systemd-sysv,dbus \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		bookworm "$root"; then
		break
	fi
	((try < 3)) || exit 1
	rm -rf --one-file-system "$root"
	sleep $((try * 5))
done

mkdir "$root/test"
cp "${packages[0]}" "$root/test/new.deb"
# The version before has the same files.
VERSION=0.0.1 ARCH=$architecture BINARIES=.build/linux-$architecture \
	bin/tools/nfpm package --config deploy/packages/nfpm.yaml --packager deb --target "$root/test/old.deb" >/dev/null
cp ".build/linux-$architecture/balena-simulator" test/release/installed.sh "$(command -v busybox)" "$root/test/"
cat >"$root/etc/systemd/system/installed.service" <<'END'
[Unit]
After=multi-user.target
SuccessAction=exit
SuccessActionExitStatus=0
FailureAction=exit
FailureActionExitStatus=1

[Service]
Type=oneshot
ExecStart=/test/installed.sh
StandardOutput=file:/test/output
StandardError=inherit
TimeoutStartSec=10min

[Install]
WantedBy=default.target
END
systemctl --root="$root" --quiet enable installed.service

# No systemd of this machine is asked, so that it works in a container, too.
status=0
systemd-nspawn --quiet --directory="$root" --register=no --keep-unit --private-network --console=pipe --boot \
	</dev/null >"$work/console" 2>&1 || status=$?
cat "$root/test/output" || cat "$work/console"
if [[ $status != 0 ]]; then
	echo "FAIL: the Debian ended with $status" >&2
	exit 1
fi
