#!/usr/bin/env bash
# Runs the demo with the programs in the directory $1 as a newcomer would: start it, look at it, stop it; and lets a program die.
set -euo pipefail

bin=$1
demo=$(dirname "$0")/run.sh
log=$(mktemp)
pid=''
trap 'kill "$pid" 2>/dev/null || true; rm -f "$log"' EXIT
export PORT=18000 HEALTH_PORT=18001 SIMULATOR_PORT=18085 # not in the way of a demo that somebody is looking at

fail() {
	echo "FAIL: $*" >&2
	cat "$log" >&2
	exit 1
}

start() {
	set -m # so that the demo takes SIGINT, which background jobs of scripts ignore
	"$demo" "$bin" >"$log" 2>&1 &
	pid=$!
	set +m
	until grep -q '^Ctrl-C stops both' "$log"; do
		kill -0 $pid 2>/dev/null || fail 'the demo ended before it was up'
		sleep 0.1
	done
}

closed() {
	for port in $PORT $HEALTH_PORT $SIMULATOR_PORT; do
		! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || fail "something still listens on port $port"
	done
}

start
metrics=$(
	exec 3<>"/dev/tcp/127.0.0.1/$PORT"
	printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
	cat <&3
)
grep -q '^balena_devices_online{fleet_name="' <<<"$metrics" || fail 'no fleets'
kill -INT $pid
wait $pid || fail "ctrl-C ended the demo with $?"
closed

for program in balena-simulator balena-exporter; do
	start
	read -ra children <"/proc/$pid/task/$pid/children" || true # the file ends without a newline
	for child in "${children[@]}"; do
		[[ $(readlink "/proc/$child/exe") != */"$program" ]] || kill -KILL "$child"
	done
	! wait $pid || fail "the demo ended well without $program"
	closed
done
echo PASS
