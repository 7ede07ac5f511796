# shellcheck shell=bash
# What every batch script of this folder does; sourced, from the directory that sbatch was called in (the repository).
#
# ANYORDER_VENV       a virtual environment (or conda prefix) of yours, used as it is; default: .venv, made if missing
# ANYORDER_CONTAINER  run in a container: an Apptainer image (*.sif), or any image name for pyxis/enroot
# ANYORDER_MOUNTS     directories that the container sees besides the repository, comma-separated
# JAX_PLATFORMS       default: cuda where SLURM gave GPUs, else cpu

if [ -z "${JAX_PLATFORMS:-}" ]; then
  if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then JAX_PLATFORMS=cuda; else JAX_PLATFORMS=cpu; fi
fi
export JAX_PLATFORMS
if [ "$JAX_PLATFORMS" = cuda ]; then export ANYORDER_EXTRAS="${ANYORDER_EXTRAS:-babyai,report,cuda}"; fi
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-}" # srun does not take it from sbatch by itself since SLURM 22.05
[ -n "$SRUN_CPUS_PER_TASK" ] || unset SRUN_CPUS_PER_TASK

inside=()  # what stands before `python` in a step
options=() # what srun is told
case "${ANYORDER_CONTAINER:-}" in
  "")
    # The tasks of an array start together; one of them sets up. An environment of yours, or a checkout that cannot be
    # written, needs no lock; a file system without flock has none.
    if [ -z "${ANYORDER_VENV:-}" ] && [ -w . ]; then
      exec 9> .setup.lock
      flock 9 || true
    fi
    # shellcheck source=launch/setup.sh
    . launch/setup.sh
    exec 9>&-
    ;;
  *.sif)
    inside=(apptainer exec --nv --bind "$PWD${ANYORDER_MOUNTS:+,$ANYORDER_MOUNTS}" --pwd "$PWD" "$ANYORDER_CONTAINER")
    ;;
  *)
    mounts="$PWD:$PWD"
    for folder in ${ANYORDER_MOUNTS//,/ }; do mounts+=",$folder:$folder"; done
    options=("--container-image=$ANYORDER_CONTAINER" "--container-mounts=$mounts" "--container-workdir=$PWD")
    ;;
esac

# Not so while SLURM ends the job by itself: a requeue, a preemption, scancel. The tasks have their signal then.
is_running() {
  [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]
}

# step SRUN_OPTION... -- MODULE ARGUMENT...: `python -m MODULE` on every task. A SIGTERM to this script is passed on. What
# SIGTERM stopped (exit code 75; 143 before it could save) is put back into the queue, except when it was cancelled.
# --wait: when one task has ended, the others have a minute.
step() {
  local own=() code=0 is_signalled
  while [ "$1" != -- ]; do own+=("$1"); shift; done
  shift
  # srun must not see the signal: it would kill the tasks, which are still saving.
  (trap '' TERM && exec srun --wait=60 "${options[@]}" "${own[@]}" "${inside[@]}" python -m "$@") &
  local pid=$!
  trap 'is_signalled=1; ! is_running || scancel --signal=TERM "$SLURM_JOB_ID"' TERM
  is_signalled=1
  while [ -n "$is_signalled" ]; do # a signal ends `wait`, not srun
    is_signalled=""
    code=0
    wait "$pid" || code=$?
  done
  trap - TERM
  if [ "$code" = 75 ] || [ "$code" = 143 ]; then
    if is_running; then
      echo "Stopped by a signal: job $SLURM_JOB_ID goes back into the queue."
      scontrol requeue "$SLURM_JOB_ID"
      sleep 60 # until SLURM ends this script
    fi
  fi
  return "$code"
}
