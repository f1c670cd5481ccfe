#!/bin/bash
# SPDX-License-Identifier: Apache-2.0

# The second half of deb.sh, in the Debian that it boots: installs the version before, starts its unit on a simulated
# account, upgrades and removes it.
set -euo pipefail
cd /test

fail() {
	echo "FAIL: $*"
	journalctl --no-pager --quiet --unit=balena-exporter | tail -n 30
	exit 1
}

# until_true waits up to five minutes for its arguments to succeed.
until_true() {
	local deadline=$((SECONDS + 300))
	until "$@" >/dev/null 2>&1; do
		((SECONDS < deadline)) || fail "waited in vain for: $*"
		sleep 0.1
	done
}

get() { ./busybox wget -q -O - "$1"; }
refreshed() { metrics=$(get http://127.0.0.1:8000/metrics) && grep -qx 'balena_up 1' <<<"$metrics"; }
version() { dpkg-query --show --showformat='${Version} ${Status}' balena-exporter; }
process() { systemctl show --property=MainPID --value balena-exporter; }

directory=/etc/balena-exporter
unit=/usr/lib/systemd/system/balena-exporter.service

echo '--- Install the version before'
dpkg --install old.deb
[[ $(version) == '0.0.1-1 install ok installed' ]] || fail "the version is $(version)"
getent passwd balena-exporter || fail 'there is no user balena-exporter'
! systemctl is-active --quiet balena-exporter || fail 'the exporter runs without a token'

echo '--- Check the unit'
said=$(systemd-analyze verify $unit 2>&1) || fail "systemd-analyze verify: $said"
[[ -z $said ]] || fail "systemd-analyze verify: $said"
# Tenths of what systemd calls exposure, from 0 to 100.
systemd-analyze security --offline=true --threshold=12 $unit | tail -n 1 || fail 'the unit is less hardened than it was'

echo '--- Start it on a simulated account'
systemd-run --quiet --unit=simulator /test/balena-simulator --listen-address=127.0.0.1:8085 --token=the-token
until_true get http://127.0.0.1:8085/ping
install -m 600 /dev/stdin $directory/token <<<the-token
sed -i 's,^#BALENA_API_URL=.*,BALENA_API_URL=http://127.0.0.1:8085,' $directory/balena-exporter.env
edited=$(<$directory/balena-exporter.env)
systemctl enable --now balena-exporter
until_true refreshed
grep -m 1 '^balena_fleet_devices_online{' <<<"$metrics" || fail 'no fleets'
get http://127.0.0.1:8001/-/healthy || fail 'it is not healthy'

# Not only configured but so: the package's user, no capabilities, and the token is neither in the environment nor in the
# arguments.
before=$(process)
status=$(</proc/"$before"/status)
user=$(id -u balena-exporter)
grep -qP "^Uid:\t$user\t$user\t$user\t$user$" <<<"$status" || fail "it runs as another user: $(grep ^Uid: <<<"$status")"
grep -qP '^CapEff:\t0+$' <<<"$status" || fail 'it has capabilities'
grep -qP '^NoNewPrivs:\t1$' <<<"$status" || fail 'it may get new privileges'
grep -qP '^Seccomp:\t2$' <<<"$status" || fail 'it may make all system calls'
! grep -qa the-token /proc/"$before"/environ /proc/"$before"/cmdline || fail 'the token is in the environment or the arguments'

echo '--- Upgrade'
dpkg --install new.deb </dev/null
[[ $(version) != 0.0.1* && $(version) == *' install ok installed' ]] || fail "the version is $(version)"
[[ $(<$directory/balena-exporter.env) == "$edited" ]] || fail 'the upgrade changed the edited environment file'
[[ $(<$directory/token) == the-token && $(stat -c '%a %U' $directory/token) == '600 root' ]] || fail 'the upgrade changed the token'
[[ $(process) != 0 && $(process) != "$before" ]] || fail 'the upgrade did not restart the exporter'
systemctl is-enabled --quiet balena-exporter || fail 'the upgrade disabled the exporter'
until_true refreshed

echo '--- Remove'
dpkg --remove balena-exporter
! systemctl is-active --quiet balena-exporter || fail 'the exporter still runs'
[[ -e $directory/token && $(<$directory/balena-exporter.env) == "$edited" ]] || fail 'removal took the settings away'
dpkg --purge balena-exporter
[[ ! -e $directory ]] || fail "purging left $(ls $directory)"
echo PASS
