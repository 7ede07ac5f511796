#!/usr/bin/env bash
# What a bare GPU machine (Python 3.12, jax with CUDA 13, flax, optax, orbax, transformers, PyTorch; no package index)
# lacks to run this project. Nothing is installed: wheels lie in .whl/ (28 MiB) and episodes, the commit and a stand-in
# in .gpu/; git ignores both folders, and they travel with the checkout.
#
#   bash benchmarks/gpu_kit.sh              where there is a network: fetches (PYTHON: one that has this project and the
#                                           extra `babyai`, for the episodes; without them the card's machine collects)
#   bash benchmarks/gpu_kit.sh run ...      on the card: unpacks the wheels into site/ and starts gpu_report.py with ...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}

fetch() {
  mkdir -p .whl .gpu/xprof/cli/tools
  rm -f .whl/*.whl
  "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_24_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d .whl \
    tokamax==0.0.17 ml_collections einshape immutabledict qwix pydantic pydantic-core annotated-types \
    typing-inspection tensorboardX grain array-record cloudpickle portpicker zstandard minigrid gymnasium \
    farama-notifications pygame-ce
  # tokamax imports xprof (32 MB of profiler) for its benchmarks alone: an empty module in its place is enough.
  for folder in .gpu/xprof .gpu/xprof/cli .gpu/xprof/cli/tools; do : > "$folder/__init__.py"; done
  : > .gpu/xprof/cli/tools/get_kernel_stats_tool.py
  git describe --always --dirty --abbrev=40 --exclude="*" > .gpu/commit
  if "$python" -c 'import anyorder_jax, minigrid' 2> /dev/null; then
    "$python" -m anyorder_jax.collect --env=BabyAI-GoToObj-v0 --num_episodes=1500 --num_validation_episodes=200 \
      --num_test_episodes=50 --output_dir=.gpu/episodes
  else
    echo "No episodes: $python lacks this project or minigrid. The card's machine will collect some."
  fi
  du -sh .whl .gpu
}

run() {
  if compgen -G ".whl/*.whl" > /dev/null; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target site .whl/*.whl
    cp -r .gpu/xprof site/
  else
    echo "No wheels in .whl: taking the packages that $python has." >&2
  fi
  exec "$python" benchmarks/gpu_report.py "$@"
}

case "${1:-fetch}" in
  fetch) fetch ;;
  run) shift && run "$@" ;;
  *)
    echo "usage: bash benchmarks/gpu_kit.sh [fetch | run ...]" >&2
    exit 2
    ;;
esac
