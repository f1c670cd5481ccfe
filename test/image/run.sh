#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The second half of test.sh, which runs in its own namespaces: runs the images mounted under $1 and scrapes the exporter.
set -euo pipefail

root=$1

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

busybox ip link set lo up
for image in balena-exporter balena-simulator; do
	mount --bind "$root/$image" "$root/$image"
	mount -o remount,bind,ro "$root/$image"
done

# Run a program like a container runtime: the image as root directory, the image's user, no capabilities, no new privileges.
in_image=(setpriv --no-new-privs chroot --groups='' --userspec=65532:65532)

get() { busybox wget -q -O - "$1"; }

# until_true waits up to five minutes, or until the program $1 ends, for the rest of its arguments to succeed.
until_true() {
	local pid=$1 deadline=$((SECONDS + 300))
	shift
	until "$@" >/dev/null 2>&1; do
		if ! kill -0 "$pid" 2>/dev/null || ((SECONDS > deadline)); then
			fail "waited in vain for: $*"
		fi
		sleep 0.1
	done
}

refreshed() {
	metrics=$(get http://127.0.0.1:8000/metrics) && grep -qx 'balena_up 1' <<<"$metrics"
}

for image in balena-exporter balena-simulator; do
	said=$("${in_image[@]}" "$root/$image" "/bin/$image" --version 2>&1)
	echo "$said"
	[[ $said == "$image, version $(cat VERSION) "* ]] || fail "$image --version does not say the version"
done

"${in_image[@]}" "$root/balena-simulator" /bin/balena-simulator --listen-address=127.0.0.1:8085 --token=test &
until_true $! get http://127.0.0.1:8085/ping
BALENA_TOKEN=test BALENA_API_URL=http://127.0.0.1:8085 "${in_image[@]}" "$root/balena-exporter" /bin/balena-exporter &
exporter=$!
until_true $exporter refreshed
get http://127.0.0.1:8001/-/healthy
get http://127.0.0.1:8001/-/ready
grep -m 3 '^balena_fleet_devices_online{' <<<"$metrics" || fail 'no fleets'

# Check that the settings took effect: no root, no capabilities.
status=$(cat /proc/$exporter/status)
grep -qP '^Uid:\t65532\t65532\t65532\t65532$' <<<"$status" || fail 'it runs as another user'
grep -qP '^CapEff:\t0+$' <<<"$status" || fail 'it has capabilities'
grep -E '^VmRSS' <<<"$status"

kill -TERM $exporter
wait $exporter || fail "SIGTERM ended it with $?"
