#!/usr/bin/env bash
# A real SLURM on this machine: munged, slurmctld and two slurmd (nodes n1, n2) on loopback.
#
#   tests/slurm/cluster.sh start DIRECTORY   installs what is missing (root, apt), starts, waits until both are idle
#   tests/slurm/cluster.sh stop DIRECTORY    stops the daemons by their pid files, takes the names out of /etc/hosts
#
# Afterwards: export SLURM_CONF=DIRECTORY/slurm.conf. Exit code 77: it cannot be done here, and the last line says why.
set -euo pipefail
directory=${2:?usage: cluster.sh start|stop DIRECTORY}
conf="$directory/slurm.conf"
mark="# anyorder_jax test cluster"

stop() {
  for name in slurmd-n1 slurmd-n2 slurmctld munged; do
    local file="$directory/$name.pid"
    [ -s "$file" ] || continue
    local pid
    pid=$(cat "$file")
    kill "$pid" 2> /dev/null || true
    for _ in $(seq 100); do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
    if kill -0 "$pid" 2> /dev/null; then kill -KILL "$pid"; fi
  done
  sed "/$mark/d" /etc/hosts > "$directory/hosts" && cat "$directory/hosts" > /etc/hosts
}

start() {
  if [ "$(id -u)" -ne 0 ]; then echo "a test cluster needs root (slurmd runs jobs as their user)"; exit 77; fi
  if ! command -v slurmctld slurmd munged > /dev/null; then
    if ! command -v apt-get > /dev/null; then echo "slurm-wlm and munge are missing, and apt-get too"; exit 77; fi
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
      slurm-wlm munge; } > "$directory/apt.log" 2>&1; then
      echo "apt-get could not install slurm-wlm and munge: $(tail -n 1 "$directory/apt.log")"
      exit 77
    fi
  fi
  local host
  host=$(hostname -s)
  # Loopback ports and job numbers (of which job.sh makes JAX's port) of this cluster's own: two test runs on one
  # machine do not meet.
  local port=$((20000 + 3 * ($$ % 6000)))
  echo "127.0.0.1 n1 n2 $mark" >> /etc/hosts
  mkdir -p "$directory/state" "$directory/spool/n1" "$directory/spool/n2"
  cat > "$conf" << END
ClusterName=anyorder
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
FirstJobId=$((1 + 64 * ($$ % 1000)))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$directory/munge.socket,cred_expire=3
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=60
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=100000,bf_interval=1
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/spool/%n
SlurmctldPidFile=$directory/slurmctld.pid
SlurmdPidFile=$directory/slurmd-%n.pid
SlurmctldLogFile=$directory/slurmctld.log
SlurmdLogFile=$directory/slurmd-%n.log
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=64 RealMemory=4000
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=64 RealMemory=4000
PartitionName=debug Nodes=n1,n2 Default=YES State=UP OverSubscribe=YES
END
  export SLURM_CONF="$conf"
  (umask 077 && dd if=/dev/urandom of="$directory/munge.key" bs=128 count=1 2> /dev/null)
  munged --force --socket="$directory/munge.socket" --key-file="$directory/munge.key" --num-threads=2 \
    --pid-file="$directory/munged.pid" --log-file="$directory/munged.log" --seed-file="$directory/munged.seed"
  slurmctld -c
  slurmd -N n1
  slurmd -N n2
  for _ in $(seq 300); do
    if [ "$(sinfo --noheader --format='%T %D' 2> /dev/null)" = "idle 2" ]; then
      echo "SLURM $(sinfo --version | cut -d' ' -f2): nodes n1 and n2 are idle; SLURM_CONF=$conf"
      return
    fi
    sleep 0.1
  done
  sinfo || true
  tail -n 5 "$directory"/*.log
  echo "the nodes did not become idle within 30 seconds" >&2
  stop
  exit 1
}

"$1"
