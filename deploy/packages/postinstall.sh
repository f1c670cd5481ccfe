#!/bin/sh
# SPDX-License-Identifier: Apache-2.0

# Called by dpkg with "configure" and the previous version, if any; by rpm with the number of installed versions.
set -e

if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers balena-exporter.conf
elif ! getent passwd balena-exporter >/dev/null; then
	useradd --system --user-group --no-create-home --home-dir / --shell /usr/sbin/nologin balena-exporter
fi

case "$1:$2" in
1: | configure:) first=yes ;;
*) first=no ;;
esac
if [ $first = yes ] && [ ! -e /etc/balena-exporter/token ]; then
	cat <<-'END'
		balena-exporter needs an API key of balenaCloud or openBalena:
		  printf %s YOUR_API_KEY | install -m 600 /dev/stdin /etc/balena-exporter/token
		  systemctl enable --now balena-exporter
	END
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# The installation succeeds even if the service does not start.
	[ $first = yes ] || systemctl try-restart balena-exporter.service || true
fi
