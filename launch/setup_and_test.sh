#!/usr/bin/env bash
# From nothing to a finished smoke job on a SLURM cluster:
#
#   bash launch/setup_and_test.sh MERGED_MODEL OUTPUT_DIR
#
# 1 environment   2 BabyAI episodes   3 a configuration with these paths   4 tests on this machine
# 5 the smoke job (one GPU), waited for; its last lines are shown, and its exit code is this script's.
#
# MERGED_MODEL: a LLaDA2.x directory as `python -m conversion merge` writes it (config.json, safetensors, tokenizer).
# OUTPUT_DIR: on a file system that the nodes share. What is there already is not made again.
# ANYORDER_SBATCH: more options for sbatch, e.g. "--partition=gpu --account=lab". ANYORDER_TESTS: what pytest runs
# (default: tests). ROW_LENGTH: tokens in a row, at least the longest window of 4 steps (default: 4096).
set -euo pipefail
if [ $# -ne 2 ]; then
  echo "usage: bash launch/setup_and_test.sh MERGED_MODEL OUTPUT_DIR" >&2
  exit 2
fi
if [ ! -f "$1/config.json" ]; then
  echo "$1: no config.json there; expected a model directory that \`python -m conversion merge\` wrote." >&2
  exit 2
fi
mkdir -p "$2"
model=$(cd "$1" && pwd)
output=$(cd "$2" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."

echo "1/5 environment"
# shellcheck source=launch/setup.sh
. launch/setup.sh

echo "2/5 episodes in $output/data"
python -m anyorder_jax.collect --env=BabyAI-GoToObj-v0 "--output_dir=$output/data" --num_episodes=200 \
  --num_validation_episodes=50 --num_test_episodes=50

echo "3/5 configuration $output/recipe.py"
python_string() { python -c 'import sys; print(repr(sys.argv[1]))' "$1"; }
cat > "$output/recipe.py" << END
# Fine-tunes $model on BabyAI-GoToObj, every order of asking.
#
# python -m anyorder_jax.train --config=${output@Q}/recipe.py --workdir=${output@Q}/run

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.model.path = $(python_string "$model")
    config.model.check = "${MODEL_CHECK:-on}"  # off: also from random weights
    config.data.path = $(python_string "$output/data")
    config.data.num_episodes = 0  # all that are there
    config.data.row_length = ${ROW_LENGTH:-4096}
    if variant == "smoke":
        config.train.num_steps = 20
        config.log.validate_every_steps = config.checkpoint.save_every_steps = 10
        config.log.every_steps = 1
        config.log.num_validation_rows = 8
    return config
END

echo "4/5 tests on this machine"
read -r -a tests <<< "${ANYORDER_TESTS:-tests}"
JAX_PLATFORMS=cpu python -m pytest -q "${tests[@]}"

echo "5/5 smoke job"
read -r -a options <<< "${ANYORDER_SBATCH:-}"
log="$output/smoke.log"
code=0
env -u JAX_PLATFORMS sbatch --wait "--output=$log" "${options[@]}" launch/slurm/smoke.sbatch "$output/smoke" \
  "--config=$output/recipe.py:smoke" || code=$?
tail -n 5 "$log" || true
if [ "$code" -ne 0 ]; then echo "The smoke job failed (exit code $code); $log says why." >&2; fi
exit "$code"
