#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tests make demo: start, responses and stop; ports in use; killed programs; ctrl-C during the build. No process and no
# temporary file may remain.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
log=$work/log
pid=''
clean() {
	[[ -z $pid ]] || kill -INT -- "-$pid" 2>/dev/null || true
	wait
	rm -rf "$work"
}
trap clean EXIT

fail() {
	echo "FAIL: $*" >&2
	cat "$log" >&2
	exit 1
}

# launch runs make demo in a process group of its own, because a terminal sends ctrl-C to a process group. The demo receives
# SIGINT even if this script ignores it, as in the background of another script. TMPDIR shows temporary files that remain.
launch() {
	mkdir -p "$work/tmp"
	: >"$log" # remove the log of the previous demo
	set -m
	TMPDIR=$work/tmp env --default-signal=INT make demo "$@" >"$log" 2>&1 &
	pid=$!
	set +m
}

# descendants lists the descendants of process $1.
descendants() {
	local file line parent child
	for file in /proc/[0-9]*/stat; do
		read -r line 2>/dev/null <"$file" || continue # it has ended
		read -r _ parent _ <<<"${line##*) }"
		if [[ $parent == "$1" ]]; then
			child=${line%% *}
			echo "$child"
			descendants "$child"
		fi
	done
}

# ctrl_c interrupts the demo, waits for its end, and checks that no process and no temporary file remain.
ctrl_c() {
	local below process
	below=$(descendants $pid)
	kill -INT -- -$pid
	ended
	for process in $below; do
		! kill -0 "$process" 2>/dev/null || fail "process $process outlived ctrl-C: $(tr '\0' ' ' <"/proc/$process/cmdline")"
	done
	[[ -z $(ls -A "$work/tmp") ]] || fail "ctrl-C left in TMPDIR: $(ls -A "$work/tmp")"
}

# ended waits at most five minutes for the end of the demo, and sets status to its exit status.
ended() {
	local deadline=$((SECONDS + 300))
	while kill -0 $pid 2>/dev/null; do
		((SECONDS < deadline)) || fail 'the demo does not end'
		sleep 0.1
	done
	status=0
	wait $pid || status=$?
	pid=''
}

# start starts the demo on free ports. They are far below those that systems assign automatically. If a port is in use, start
# tries others.
start() {
	while true; do
		PORT=$((10000 + RANDOM % 10000))
		HEALTH_PORT=$((PORT + 1)) SIMULATOR_PORT=$((PORT + 2))
		launch PORT=$PORT HEALTH_PORT=$HEALTH_PORT SIMULATOR_PORT=$SIMULATOR_PORT
		until grep -q '^Ctrl-C stops it' "$log"; do
			kill -0 $pid 2>/dev/null || break
			sleep 0.1
		done
		if kill -0 $pid 2>/dev/null; then
			return
		fi
		ended
		grep -qE 'is in use|address already in use' "$log" || fail 'the demo ended before it was up'
	done
}

closed() {
	local port
	for port in $PORT $HEALTH_PORT $SIMULATOR_PORT; do
		! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || fail "something still listens on port $port"
	done
}

get() {
	(
		exec 3<>"/dev/tcp/127.0.0.1/$PORT"
		printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
		cat <&3
	)
}

echo '--- start, check the responses, stop'
start
[[ $(grep -n "http://localhost:$PORT/fleets" "$log" | cut -d: -f1) -lt $(grep -n "http://localhost:$PORT/metrics" "$log" | cut -d: -f1) ]] ||
	fail 'the demo does not print /fleets, then /metrics'
metrics=$(get /metrics)
grep -q '^balena_devices_online{fleet_name="' <<<"$metrics" || fail '/metrics has no fleets'
grep -q '<html' <<<"$(get /fleets)" || fail '/fleets is not an HTML page'

echo '--- ports in use'
ports=$PORT
for variable in PORT HEALTH_PORT SIMULATOR_PORT; do
	output=$(make demo PORT=1 HEALTH_PORT=1 SIMULATOR_PORT=1 "$variable=$ports" 2>&1) && fail "the demo starts on $variable=$ports, which is in use"
	grep -q "^demo: port $ports is in use; set $variable to another port," <<<"$output" || fail "the demo does not report that $variable is in use: $output"
done
ctrl_c
closed

for program in balena-simulator balena-exporter; do
	echo "--- $program is killed"
	start
	killed=''
	for child in $(descendants $pid); do
		if [[ $(readlink "/proc/$child/exe") == */"$program" ]]; then
			kill -KILL "$child"
			killed=$child
		fi
	done
	[[ -n $killed ]] || fail "$program does not run"
	ended
	[[ $status != 0 ]] || fail "the demo exited with status 0 without $program"
	grep -q "^demo: the ${program#balena-} ended" "$log" || fail "the demo does not report that $program ended"
	closed
done
echo '--- ctrl-C during the build'
GOCACHE=$work/cache launch PORT=1 HEALTH_PORT=1 SIMULATOR_PORT=1 # the cache is empty, so that it builds for a while
until [[ -n $(find "$work/cache" -name '*-d' -print -quit 2>/dev/null) ]]; do
	kill -0 $pid 2>/dev/null || fail 'make demo did not build'
	sleep 0.1
done
ctrl_c

echo PASS
