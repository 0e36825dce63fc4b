#!/usr/bin/env bash
# render.sh writes the manifests beside it anew from the Helm chart's defaults.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../check"
exec "${GO:-go}" run ./render ../helm/forager ../k8s
