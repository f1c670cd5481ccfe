#!/usr/bin/env bash
# Runs the exporter on a simulated balena API, both from the directory $1, until one of them ends or ctrl-C.
#   PORT, HEALTH_PORT, SIMULATOR_PORT  other ports than 8000, 8001 and 8085
#   DEVICES, FLEETS                    another size than the simulator's own default
#   EDITION                            openbalena instead of cloud
set -euo pipefail

bin=$1
port=${PORT:-8000}
health_port=${HEALTH_PORT:-8001}
simulator_port=${SIMULATOR_PORT:-8085}
token=demo

simulator='' exporter=''

# start runs a program in the background. Job control gives it a process group of its own: ctrl-C reaches this script only,
# which then stops both programs once.
start() {
	set -m
	"$@" &
	set +m
}

stop() {
	trap '' INT TERM HUP
	for pid in $exporter $simulator; do
		kill -TERM "$pid" 2>/dev/null || true
	done
	wait
}
trap stop EXIT
trap 'echo; exit 0' INT TERM HUP

# alive fails with a sentence when one of the programs is gone.
alive() {
	for program in simulator exporter; do
		if [[ -n ${!program} ]] && ! kill -0 "${!program}" 2>/dev/null; then
			echo "demo: the $program ended, see its message above" >&2
			return 1
		fi
	done
}

# answers tells whether GET http://127.0.0.1:$1$2 has a line that starts with $3.
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

start "$bin/balena-simulator" --listen-address="127.0.0.1:$simulator_port" --token="$token" --edition="${EDITION:-cloud}" \
	${DEVICES:+--devices="$DEVICES"} ${FLEETS:+--fleets="$FLEETS"}
simulator=$!
until_answers "$simulator_port" / HTTP/

export BALENA_TOKEN=$token BALENA_API_URL=http://127.0.0.1:$simulator_port
start "$bin/balena-exporter" --web.listen-address=":$port" --web.health-listen-address=":$health_port"
exporter=$!
until_answers "$port" /metrics 'balena_up 1'

cat <<END

The exporter shows the simulated fleets at http://localhost:$port/metrics
Try:  curl -s localhost:$port/metrics | grep '^balena_fleet_devices_online'
Ctrl-C stops both.

END

wait -n || true
alive
