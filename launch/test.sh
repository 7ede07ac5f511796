#!/usr/bin/env bash
# Set up on a fresh machine, then lint, type check and all tests. Usage: bash launch/test.sh [pytest arguments]
set -euo pipefail
export ANYORDER_EXTRAS="${ANYORDER_EXTRAS:-babyai,textworld,scienceworld,web,report,dev}"
command -v chromium google-chrome chromium-browser > /dev/null \
  || echo "No Chromium here (Debian: chromium, chromium-driver): tests that need it are left out." >&2
command -v java > /dev/null || echo "No java here (Debian: default-jre-headless): tests that need it are left out." >&2
# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# BFCL's tools (docs/tools.md), without the clients of every vendor that the package names
python -m pip install --quiet --no-deps 'bfcl-eval>=2026.3.23' 'mpmath>=1.3'
ruff check .
ruff format --check .
mypy
# One more worker than cores, for tests that wait; those that share a cluster or a long run stay together.
python -m pytest -n "$(($(nproc) + 1))" --dist=loadgroup "$@"
