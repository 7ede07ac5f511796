#!/usr/bin/env bash
# Exports with code, loaded where people are: writes them here (the project installed, JAX), then opens and compares them
# in two environments of their own, with transformers 4.57 and with today's 5. Each takes about 1 GB and a few minutes.
# Usage: bash benchmarks/export_elsewhere.sh [FOLDER]      PYTHON=python3.12 chooses the interpreter of the environments
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
folder="${1:-$(mktemp -d)}"
mkdir -p "$folder"
folder="$(cd "$folder" && pwd)"
echo "everything is in $folder"
rm -rf "$folder/exports"
start=$SECONDS
(cd "$root" && PYTHONPATH="$root:$root/tests" JAX_PLATFORMS=cpu python tests/exports.py "$folder/exports")
echo "exports and our numbers: $((SECONDS - start)) s"
status=0
for version in '4.57.*' '5.*'; do
  venv="$folder/transformers-${version%%.*}"
  start=$SECONDS
  if [ ! -x "$venv/bin/python" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    # the CPU build, where the index has it apart; transformers 5 and 4 as the servers of today have them
    "$venv/bin/pip" install --quiet "torch==2.13.0" "transformers==$version" "peft>=0.17" jinja2 \
      ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"}
  fi
  echo "environment for transformers $version: $((SECONDS - start)) s"
  start=$SECONDS
  # a fresh process: nothing of this project on its path, nothing from the network
  (cd "$folder" && env -u PYTHONPATH HF_HUB_OFFLINE=1 HF_HOME="$venv/hf" \
    "$venv/bin/python" "$root/benchmarks/export_elsewhere.py" "$folder/exports") || status=1
  echo "compared in $((SECONDS - start)) s"
done
exit "$status"
