#!/usr/bin/env bash
# The main job on a fresh machine: set up, collect expert episodes, train, evaluate, draw the report.
# Usage: bash launch/quickstart.sh [more arguments for anyorder_jax.train, e.g. --config.masking.rate=0.3]
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
workdir=runs/quickstart
python -m anyorder_jax.train --config=configs/any_order.py --workdir="$workdir" "$@"
python -m anyorder_jax.evaluate --checkpoint="$workdir" --num_episodes=200
echo "Pictures, table and numbers: $workdir/report/"
