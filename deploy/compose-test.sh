#!/usr/bin/env bash
# Starts the composition as a user does, with the built-in task, and looks whether
# it learns, scales while it runs, goes on after "down" and "up", and from a backup
# on new volumes. Takes about ten minutes on two cores. On a machine with nothing it installs Docker and
# Compose from Debian's packages, and starts the daemon by hand.
#
#   deploy/compose-test.sh          KEEP=1 leaves the composition running
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repo"
work=$(mktemp -d)
project=forager-test
run=${FORAGER_RUN_ID:-world-facts}
files=(-f "$repo/docker-compose.yml")
export FORAGER_SETTINGS=$work/settings.env
{ grep -v LEARNER_STEPS deploy/settings.env; echo FORAGER_LEARNER_STEPS=400; } >"$work/settings.env" # more than there is time for
# shellcheck source=deploy/lib.sh
. deploy/lib.sh

end() {
	local code=$?
	trap - EXIT
	if [ $code -ne 0 ] && [ -n "${compose:-}" ]; then
		c ps || true
		c logs --tail 15 || true
	fi
	if [ -z "${KEEP:-}" ]; then
		[ -z "${compose:-}" ] || c down --volumes --timeout 50 >/dev/null 2>&1 || true
		stop_docker
		rm -rf "$work"
	fi
	exit $code
}
trap end EXIT

need_docker
echo "${compose[*]} $("${compose[@]}" version --short)"
docker version --format 'Docker {{.Server.Version}}'
quietly make image
c down --volumes --timeout 50 >/dev/null 2>&1 || true # of a test that was killed

begun=$SECONDS
quietly c up -d --scale actor=4
all_healthy() {
	local service
	for service in nats cluster-1 cluster-2 cluster-3 replay rewardsrv retriever learner-1 learner-2; do
		healthy $service 1 || return 1
	done
	healthy actor "$1"
}
check "every container is healthy" wait_for "health" 240 all_healthy 4
echo "        $((SECONDS - begun)) s after up"

actor=$(containers actor | head -1)
foreign_keys() { ! docker cp "$actor:/certs/ca.key" - >/dev/null 2>&1 && [ "$(docker inspect -f '{{range .Mounts}}{{.Name}} {{end}}' "$actor" | tr ' ' '\n' | grep -c certs-)" -eq 1 ]; }
check "an actor has its own credentials alone" foreign_keys
status() { c run --rm operator status >"$work/status.txt" 2>&1; }
check "forager status says that all is well" wait_for "status" 60 status
sed 's/^/        /' "$work/status.txt"

check "20 steps" wait_for "step 20" 300 reached 20
early=$(exact_match 1 5)

quietly c up -d --no-recreate --scale actor=8
check "scaled to 8 actors while it runs" wait_for "8 actors" 180 healthy actor 8
now=$(steps)
check "it goes on with 8" wait_for "10 more steps" 180 reached $((now + 10))
quietly c up -d --no-recreate --scale actor=2
check "scaled to 2 actors while it runs" wait_for "2 actors" 120 healthy actor 2
now=$(steps)
check "it goes on with 2" wait_for "5 more steps" 180 reached $((now + 5))

quietly c down --timeout 50
before=$(wc -l <"$work/metrics.jsonl")
quietly c up -d --scale actor=4
check "after down and up it goes on" wait_for "10 more steps" 300 reached $((before + 10))

quietly c stop --timeout 50
saved="nats cluster-1 cluster-2 cluster-3 replay"
container_of() { docker ps -aq --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1"; }
for s in $saved; do docker cp "$(container_of "$s")":/data/. - >"$work/backup-$s.tar"; done
before=$(run_file metrics.jsonl - | tar -xO | wc -l)
quietly c down --volumes --timeout 50
# shellcheck disable=SC2086
quietly c up --no-start --no-deps $saved
for s in $saved; do docker cp - "$(container_of "$s")":/data <"$work/backup-$s.tar"; done
quietly c up -d --scale actor=4
check "from a backup, on new volumes, it goes on after step $before" wait_for "10 more steps" 300 reached $((before + 10))

last=$(steps)
consecutive() { sed -n 's/^{"step":\([0-9]*\),.*/\1/p' "$work/metrics.jsonl" | awk '$1 != NR { exit 1 }'; }
check "steps have no gap and no repeat, up to $last" consecutive
late=$(exact_match $((last - 4)) "$last")
rises() { awk -v a="$early" -v b="$late" 'BEGIN { exit !(b > a + 0.1) }'; }
check "exact match rises: $early in steps 1 to 5, $late in steps $((last - 4)) to $last" rises

restarts() { [ "$(docker inspect -f '{{.RestartCount}}' $(docker ps -q --filter "label=com.docker.compose.project=$project") | awk '{ n += $1 } END { print n }')" -eq 0 ]; }
check "nothing had to be restarted" restarts
printf '\n%d passed, %d failed\n' $passed $failed
[ $failed -eq 0 ]
