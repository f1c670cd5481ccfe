#!/bin/sh
# SPDX-License-Identifier: Apache-2.0

# Called by dpkg with "remove", "purge" or "upgrade", by rpm with the number of versions that stay. The user stays, as
# Debian and Fedora have it, so that no other user gets its number.
set -e

if [ "$1" = purge ]; then
	rm -f /etc/balena-exporter/token # the administrator's, and a secret
	rmdir /etc/balena-exporter 2>/dev/null || true
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
