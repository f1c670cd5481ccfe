#!/bin/sh
# SPDX-License-Identifier: Apache-2.0

# Called by dpkg with "remove", or with "upgrade" and the next version; by rpm with the number of remaining versions.
set -e

case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl disable --now balena-exporter.service || true
	fi
	;;
esac
