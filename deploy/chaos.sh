#!/usr/bin/env bash
# Breaks the composition for MINUTES: kill -9, pause, network cut off and restart of
# every service, the bus and the Raft leader among them, in an order that SEED gives.
# Then it looks in the run directory for groups lost or doubled, policy versions
# that went back, and an exact match below that of a quiet run, and prints a tally.
# The faults end with the run: a fast machine needs more STEPS for all MINUTES.
# Wants root on the machine of the Docker daemon.
#
#   deploy/chaos.sh                        # 30 minutes, and the quiet run before, about 20
#   MINUTES=5 STEPS=60 SEED=7 QUIET=folder OUT=folder deploy/chaos.sh
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repo"
minutes=${MINUTES:-30} steps=${STEPS:-600} seed=${SEED:-$RANDOM} actors=${ACTORS:-4}
work=$(mktemp -d)
out=${OUT:-$repo/runs/chaos-$(date -u +%Y%m%d-%H%M%S)}
project=forager-chaos
run=chaos
files=(-f "$repo/docker-compose.yml" -f "$repo/deploy/compose.chaos.yml")
export FORAGER_RUN_ID=$run FORAGER_SETTINGS=$work/settings.env
# shellcheck source=deploy/lib.sh
. deploy/lib.sh

end() {
	local code=$?
	trap - EXIT
	if [ -n "${compose:-}" ]; then
		c logs --no-color >"$out/containers.log" 2>&1 || true
		c down --volumes --timeout 50 >/dev/null 2>&1 || true
	fi
	stop_docker
	rm -rf "$work"
	exit $code
}
trap end EXIT

mkdir -p "$out"
grep -v LEARNER_STEPS deploy/settings.env >"$work/settings.env"
echo "FORAGER_LEARNER_STEPS=$steps" >>"$work/settings.env"
need_docker
quietly make image
go build -trimpath -o "$work/chaos" ./bench/chaos

learners_ended() {
	local ids
	ids=$(docker ps -aq --filter "label=com.docker.compose.project=$project" --filter label=com.docker.compose.service=learner-1 --filter status=exited
		docker ps -aq --filter "label=com.docker.compose.project=$project" --filter label=com.docker.compose.service=learner-2 --filter status=exited)
	[ "$(wc -w <<<"$ids")" -eq 2 ] && reached "$steps"
}
# train OUT COMMAND...: a whole run, with a command beside it; what it leaves goes to OUT.
train() {
	local to=$1
	shift
	c down --volumes --timeout 50 >/dev/null 2>&1 || true
	quietly c up -d --scale "actor=$actors"
	wait_for "the first step" 300 reached 1
	"$@"
	wait_for "the end of the run" $((600 + 6 * steps)) learners_ended
	quietly c stop --timeout 50 actor # their groups are handed over or given back
	sleep 5                   # replay takes what is on the way
	mkdir -p "$to/logs"
	local id
	for id in $(docker ps -aq --filter "label=com.docker.compose.project=$project" --filter label=com.docker.compose.service=actor); do
		docker logs "$id" >"$to/logs/$id.log" 2>&1
	done
	quietly c stop --timeout 50
	rm -rf "${to:?}/$run"
	run_file . "$to/$run"
}

if [ -z "${QUIET:-}" ]; then
	echo "== the quiet run, $steps steps"
	train "$out/quiet" true
	QUIET=$out/quiet/$run
fi
echo "== $minutes minutes of faults, seed $seed"
train "$out/broken" "$work/chaos" faults -project $project -for "${minutes}m" -seed "$seed" -log "$out/faults.jsonl"
echo "== what is left, in $out"
"$work/chaos" check -run "$out/broken/$run" -steps "$steps" -logs "$out/broken/logs" -reference "$QUIET"
