#!/bin/sh
# SPDX-License-Identifier: Apache-2.0

# Called by dpkg with "remove", "purge" or "upgrade", by rpm with the number of remaining versions. The user remains, as
# is usual in Debian and Fedora, so that its ID is not reused.
set -e

if [ "$1" = purge ]; then
	rm -f /etc/balena-exporter/token # created by the administrator, and secret
	rmdir /etc/balena-exporter 2>/dev/null || true
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
