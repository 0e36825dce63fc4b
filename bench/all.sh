#!/usr/bin/env bash
# Runs every peer comparison of docs/performance.md and writes their tables to
# OUT. Wants a machine with nothing else to do; the first run installs the peers
# (llama.cpp is compiled for this machine) into bench/.venv.
# Usage: bench/all.sh [OUT]   (about an hour on 2 cores)
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/performance}
mkdir -p "$out"
failed=()
for comparison in matmul generation training agreement tokens; do
  echo "== bench/$comparison.py"
  if ! python3 "bench/$comparison.py" | tee "$out/$comparison.md"; then
    failed+=("$comparison")
  fi
done
if ((${#failed[@]})); then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
