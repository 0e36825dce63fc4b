# Functions of compose-test.sh and chaos.sh: Docker from Debian's packages, started
# by hand where no service manager does it, and waits that end.
# shellcheck shell=bash

started_daemon= # process id of the daemon that we have started

# need_docker installs what is missing and starts a daemon when none answers.
need_docker() {
	local missing=()
	command -v dockerd >/dev/null || docker info >/dev/null 2>&1 || missing+=(docker.io iptables)
	compose_command || missing+=(docker-compose)
	if [ ${#missing[@]} -gt 0 ]; then
		echo "installing ${missing[*]}"
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
	fi
	compose_command || { echo "there is neither docker compose nor docker-compose" >&2; return 1; }
	if docker info >/dev/null 2>&1; then
		return
	fi
	echo "starting dockerd, its log is $work/dockerd.log"
	dockerd >"$work/dockerd.log" 2>&1 &
	started_daemon=$!
	wait_for "the Docker daemon" 60 docker info
}

# stop_docker ends the daemon that need_docker has started.
stop_docker() {
	[ -n "$started_daemon" ] || return 0
	kill "$started_daemon"
	wait "$started_daemon" || true
}

# compose_command finds Compose: v2, the plugin, or v1, a program of its own.
compose_command() {
	if docker compose version >/dev/null 2>&1; then
		compose=(docker compose)
	elif docker-compose version >/dev/null 2>&1; then
		compose=(docker-compose)
	else
		return 1
	fi
}

# c is Compose for our project.
c() { "${compose[@]}" --project-name "$project" --project-directory "$repo" "${files[@]}" "$@"; }

# quietly COMMAND... shows what a command said only if it failed.
quietly() {
	"$@" >"$work/quietly.log" 2>&1 || { cat "$work/quietly.log"; return 1; }
}

# wait_for NAME SECONDS COMMAND... repeats the command until it succeeds.
wait_for() {
	local name=$1 deadline=$((SECONDS + $2))
	shift 2
	until "$@" >/dev/null 2>&1; do
		if [ $SECONDS -ge $deadline ]; then
			echo "given up waiting for $name" >&2
			return 1
		fi
		sleep 2
	done
}

# containers SERVICE [FILTER...] prints the ids of a service's containers.
containers() {
	local service=$1
	shift
	docker ps -q --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$service" "$@"
}

# healthy SERVICE N: exactly N containers run, and all are healthy.
healthy() {
	[ "$(containers "$1" | wc -l)" -eq "$2" ] && [ "$(containers "$1" --filter health=healthy | wc -l)" -eq "$2" ]
}

# run_file NAME FILE copies a file or folder of the run directory out of its volume,
# through whichever container has it mounted, running or not.
run_file() {
	local id
	id=$(docker ps -aq --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=replay" | head -1)
	docker cp "$id:/data/$run/$1" "$2"
}

# steps prints the newest step that is finished, 0 before the first.
steps() {
	if run_file metrics.jsonl "$work/metrics.jsonl" >/dev/null 2>&1; then
		sed -n 's/^{"step":\([0-9]*\),.*}$/\1/p' "$work/metrics.jsonl" | tail -1
	else
		echo 0
	fi
}

# reached N: step N is finished.
reached() { local now; now=$(steps); [ "${now:-0}" -ge "$1" ]; }

# exact_match FROM TO prints the mean exact match of some steps.
exact_match() {
	sed -n "$1,$2p" "$work/metrics.jsonl" | sed -n 's/.*"em":\([0-9.e-]*\).*/\1/p' | awk '{ sum += $1 } END { if (NR) printf "%.3f\n", sum / NR; else print 0 }'
}

# The tally: check NAME COMMAND... notes whether it held.
passed=0 failed=0
check() {
	local name=$1
	shift
	if "$@"; then
		passed=$((passed + 1))
		echo "ok      $name"
	else
		failed=$((failed + 1))
		echo "FAILED  $name"
	fi
}
