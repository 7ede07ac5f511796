#!/usr/bin/env bash
# A TPU slice of Google Cloud, from nothing to a finished run, with gcloud's queued resources.
#
#   bash launch/tpu/tpu.sh [--dry_run] create               ask for the slice, wait until it is there
#   bash launch/tpu/tpu.sh [--dry_run] setup                copy the repository to every worker and install it
#   bash launch/tpu/tpu.sh [--dry_run] run ARGUMENTS        anyorder_jax.train on every worker, in the background
#   bash launch/tpu/tpu.sh [--dry_run] logs                 follow what worker 0 prints
#   bash launch/tpu/tpu.sh [--dry_run] resume ARGUMENTS     after a preemption: delete, create, setup, run
#   bash launch/tpu/tpu.sh [--dry_run] watch ARGUMENTS      resume whenever it is preempted, until the run is done
#   bash launch/tpu/tpu.sh [--dry_run] delete               give the slice back
#
# --dry_run prints the commands instead of running them. Settings, as environment variables:
#   TPU_NAME   the slice's name                    (anyorder)     TPU_ZONE     (europe-west4-b)
#   TPU_TYPE   accelerator type                    (v5litepod-16) TPU_RUNTIME  its software (v2-alpha-tpuv5-lite)
#   TPU_SPOT   1: cheap, may be preempted          (1)            TPU_PROJECT  (gcloud's default)
# ARGUMENTS must say --config.checkpoint.remote=gs://BUCKET/run and --config.data.path=gs://BUCKET/episodes: a slice's
# disks go with it. The run goes on from its last checkpoint there; no step is done differently the second time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

name="${TPU_NAME:-anyorder}"
place=("--zone=${TPU_ZONE:-europe-west4-b}")
if [ -n "${TPU_PROJECT:-}" ]; then place+=("--project=$TPU_PROJECT"); fi

is_dry_run=""
if [ "${1:-}" = --dry_run ]; then is_dry_run=1; shift; fi
usage="usage: bash launch/tpu/tpu.sh [--dry_run] create|setup|run|logs|resume|watch|delete [ARGUMENTS]"
command="${1:?$usage}"
shift

cloud() { # gcloud with these arguments, or, in a dry run, its line
  if [ -n "$is_dry_run" ]; then
    printf 'gcloud'
    printf ' %q' "$@"
    printf '\n'
  else
    gcloud "$@"
  fi
}

on_workers() { # WORKER COMMAND
  cloud compute tpus tpu-vm ssh "$name" "${place[@]}" "--worker=$1" "--command=$2"
}

state() { # of the request: WAITING_FOR_RESOURCES, PROVISIONING, ACTIVE, SUSPENDING, SUSPENDED, FAILED; empty: none
  gcloud compute tpus queued-resources describe "$name" "${place[@]}" "--format=value(state.state)" 2> /dev/null || true
}

create() {
  local spot=()
  if [ "${TPU_SPOT:-1}" = 1 ]; then spot=(--spot); fi
  cloud compute tpus queued-resources create "$name" "--node-id=$name" "${place[@]}" \
    "--accelerator-type=${TPU_TYPE:-v5litepod-16}" "--runtime-version=${TPU_RUNTIME:-v2-alpha-tpuv5-lite}" "${spot[@]}"
  if [ -n "$is_dry_run" ]; then return; fi
  until [ "$(state)" = ACTIVE ]; do
    case "$(state)" in
      FAILED | SUSPENDED | "")
        echo "The request is $(state), not ACTIVE. \`gcloud compute tpus queued-resources describe $name\` says why;" \
          "then: bash launch/tpu/tpu.sh delete." >&2
        exit 1
        ;;
    esac
    echo "$(date +%H:%M:%S) $(state)"
    sleep "${TPU_POLL_SECONDS:-30}"
  done
}

setup() {
  local archive=anyorder.tar.gz
  if [ -z "$is_dry_run" ]; then git archive --format=tar.gz --output="$archive" HEAD; fi
  cloud compute tpus tpu-vm scp "$archive" "$name:" "${place[@]}" --worker=all
  if [ -z "$is_dry_run" ]; then rm "$archive"; fi
  on_workers all "mkdir -p anyorder && tar -xzf anyorder.tar.gz -C anyorder && cd anyorder && \
ANYORDER_EXTRAS=babyai,tpu,gcs bash -c '. launch/setup.sh'"
}

run() {
  local arguments
  arguments=$(printf ' %q' "$@")
  # setsid: the run outlives this connection. finished: its exit code, for `watch`.
  on_workers all "cd anyorder && rm -f finished && ANYORDER_CLUSTER=tpu JAX_PLATFORMS=tpu setsid nohup bash -c \
'.venv/bin/python -m anyorder_jax.train$arguments; echo \$? > finished' >> train.log 2>&1 < /dev/null &"
}

logs() {
  on_workers 0 "tail -n 50 -f anyorder/train.log"
}

delete() {
  cloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet
}

resume() {
  delete
  create
  setup
  run "$@"
}

watch() {
  while true; do
    case "$(state)" in
      ACTIVE)
        if code=$(on_workers 0 "cat anyorder/finished 2> /dev/null || true" 2> /dev/null) && [ -n "$code" ]; then
          echo "The run ended with exit code $code."
          exit "$code"
        fi
        ;;
      SUSPENDING | SUSPENDED | FAILED | "")
        echo "$(date +%H:%M:%S) preempted: asking for another slice"
        resume "$@"
        ;;
    esac
    sleep "${TPU_POLL_SECONDS:-30}"
  done
}

case "$command" in
  create | setup | run | logs | resume | watch | delete) "$command" "$@" ;;
  *)
    echo "$usage" >&2
    exit 2
    ;;
esac
