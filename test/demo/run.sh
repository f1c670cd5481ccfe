#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the exporter and a simulated balena API, both from the directory $1, until one of them ends or ctrl-C is pressed.
#   PORT, HEALTH_PORT, SIMULATOR_PORT  ports; default: 8000, 8001 and 8085
#   DEVICES, FLEETS                    numbers of devices and fleets; default: those of the simulator
#   EDITION                            cloud or openbalena; default: cloud
set -euo pipefail

bin=$1
PORT=${PORT:-8000}
HEALTH_PORT=${HEALTH_PORT:-8001}
SIMULATOR_PORT=${SIMULATOR_PORT:-8085}
token=demo

simulator='' exporter=''

# start runs a program in the background. Job control gives it a process group of its own: only this script receives ctrl-C,
# and stops both programs once.
start() {
	set -m
	"$@" &
	set +m
}

stop() {
	trap '' INT TERM HUP
	# Stop all jobs: a signal may arrive before the variable of a program is set.
	for pid in $(jobs -p); do
		kill -TERM "$pid" 2>/dev/null || true
	done
	wait
}
trap stop EXIT
trap 'echo; exit 0' INT TERM HUP

# alive fails with a message if one of the programs has ended.
alive() {
	runs simulator "$simulator" && runs exporter "$exporter"
}

runs() {
	if [[ -n $2 ]] && ! kill -0 "$2" 2>/dev/null; then
		echo "demo: the $1 ended, see its message above. To use other ports, set PORT, HEALTH_PORT and SIMULATOR_PORT." >&2
		return 1
	fi
}

# responds succeeds if the response to GET http://127.0.0.1:$1$2 has a line that starts with $3.
responds() {
	(
		exec 3<>"/dev/tcp/127.0.0.1/$1"
		printf 'GET %s HTTP/1.0\r\n\r\n' "$2" >&3
		grep -q "^$3" <&3
	) 2>/dev/null
}

until_responds() {
	until responds "$@"; do
		alive || exit 1
		sleep 0.1
	done
}

for variable in PORT HEALTH_PORT SIMULATOR_PORT; do
	if (exec 3<>"/dev/tcp/127.0.0.1/${!variable}") 2>/dev/null; then
		echo "demo: port ${!variable} is in use; set $variable to another port, for example: make demo $variable=$((${!variable} + 1000))" >&2
		exit 1
	fi
done

start "$bin/balena-simulator" --listen-address="127.0.0.1:$SIMULATOR_PORT" --token="$token" --edition="${EDITION:-cloud}" \
	${DEVICES:+--devices="$DEVICES"} ${FLEETS:+--fleets="$FLEETS"}
simulator=$!
until_responds "$SIMULATOR_PORT" / HTTP/

export BALENA_TOKEN=$token BALENA_API_URL=http://127.0.0.1:$SIMULATOR_PORT
start "$bin/balena-exporter" --web.listen-address=":$PORT" --web.health-listen-address=":$HEALTH_PORT"
exporter=$!
until_responds "$PORT" /metrics 'balena_up 1'

cat <<MESSAGE

The demo is running:
  http://localhost:$PORT/fleets    all simulated fleets
  http://localhost:$PORT/problems  devices with problems
  http://localhost:$PORT/metrics   metrics for Prometheus
Ctrl-C stops it.

MESSAGE

while sleep 0.5; do
	alive
done
