#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the exporter and a simulated balena API, both from the directory $1, until one of them ends or ctrl-C is pressed.
#   PORT, HEALTH_PORT, SIMULATOR_PORT  other ports than 8000, 8001 and 8085
#   DEVICES, FLEETS                    other numbers than the defaults of the simulator
#   EDITION                            openbalena instead of cloud
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

# alive fails with a message if one of the started programs has ended.
alive() {
	runs simulator "$simulator" && runs exporter "$exporter"
}

runs() {
	if [[ -n $2 ]] && ! kill -0 "$2" 2>/dev/null; then
		echo "demo: the $1 ended, see its message above. PORT, HEALTH_PORT and SIMULATOR_PORT choose other ports." >&2
		return 1
	fi
}

# answers succeeds if the answer to GET http://127.0.0.1:$1$2 has a line that starts with $3.
answers() {
	(
		exec 3<>"/dev/tcp/127.0.0.1/$1"
		printf 'GET %s HTTP/1.0\r\n\r\n' "$2" >&3
		grep -q "^$3" <&3
	) 2>/dev/null
}

until_answers() {
	until answers "$@"; do
		alive || exit 1
		sleep 0.1
	done
}

for variable in PORT HEALTH_PORT SIMULATOR_PORT; do
	if (exec 3<>"/dev/tcp/127.0.0.1/${!variable}") 2>/dev/null; then
		echo "demo: port ${!variable} is taken; choose another one with $variable, for example: make demo $variable=$((${!variable} + 1000))" >&2
		exit 1
	fi
done

start "$bin/balena-simulator" --listen-address="127.0.0.1:$SIMULATOR_PORT" --token="$token" --edition="${EDITION:-cloud}" \
	${DEVICES:+--devices="$DEVICES"} ${FLEETS:+--fleets="$FLEETS"}
simulator=$!
until_answers "$SIMULATOR_PORT" / HTTP/

export BALENA_TOKEN=$token BALENA_API_URL=http://127.0.0.1:$SIMULATOR_PORT
start "$bin/balena-exporter" --web.listen-address=":$PORT" --web.health-listen-address=":$HEALTH_PORT"
exporter=$!
until_answers "$PORT" /metrics 'balena_up 1'

cat <<MESSAGE

The demo is running:
  http://localhost:$PORT/fleets    all simulated fleets at a glance
  http://localhost:$PORT/problems  the devices that need somebody
  http://localhost:$PORT/metrics   what Prometheus scrapes
Ctrl-C stops it.

MESSAGE

while sleep 0.5; do
	alive
done
