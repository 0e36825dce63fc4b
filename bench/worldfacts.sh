#!/usr/bin/env bash
# Reproduces docs/results/world-facts.md: three seeds, the shuffled-reward
# control and the empty-retriever control, each with the defaults.
# Usage: bench/worldfacts.sh [OUT]   (about 11 minutes on 2 cores)
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/world-facts}
mkdir -p "$out"
go build -o "$out/forager" ./cmd/forager
for seed in 1 2 3; do
  "$out/forager" train --seed "$seed" --set run.root="$out" --set run.id="seed-$seed" | tee "$out/seed-$seed.log"
done
"$out/forager" train --seed 1 --set run.root="$out" --set run.id=shuffled --set learner.shuffle_rewards=true | tee "$out/shuffled.log"
echo "== the policy of seed 1 with an empty retriever"
"$out/forager" eval --run-dir "$out/seed-1" --split test --set data.empty_corpus=true | tee "$out/empty.log"
for run in seed-1 seed-2 seed-3 shuffled; do
  echo "== $run"
  sed -n '/^| metric/,/^$/p' "$out/$run/report.md"
done
