"""What must be settled before JAX starts: freed memory, pretend devices, and the other processes of the same run.

A run is one process, or several that each see their own devices and make one mesh of them. They find one another
(`join_others`), agree when a scheduler's SIGTERM ends them (`until_sigterm`), and none waits for one that is gone
(`leave_at_once_on_error`). One of them speaks (`say`).
"""

from __future__ import annotations

import ctypes
import glob
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
from jax.experimental import multihost_utils

from anyorder_jax import command

REQUEUE = 75
"""Exit code of a run that SIGTERM stopped and the same command would go on with (EX_TEMPFAIL of sysexits.h)."""
CONNECT_SECONDS = 300
"""How long the processes wait for the last of them to start (the variable ANYORDER_CONNECT_SECONDS overrides it). One
that dies before they met is noticed no earlier."""
HEARTBEAT_SECONDS = 20
"""A process that was not heard of for so long is dead, and the others leave with an error."""
SHUTDOWN_SECONDS = 120
"""How long a process that is done waits for the others to be done."""

HEAP_BYTES = 64 * 2**20
"""What glibc reserves for a heap beside the main one: the largest block that a thread other than the main one keeps."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # malloc.h
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel*", "/dev/vfio/[0-9]*")


def prepare(num_cpu_devices: int = 0) -> None:
    """Call first in a program, before any array: quiet libraries, memory that is kept, and the CPU as
    `num_cpu_devices` devices (0: as it is)."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    is_alone = not is_one_of_several(os.environ)
    keep_freed_memory(has_one_heap=not is_alone)
    if is_alone:  # then the caller's thread runs the step of a single device, and has its temporaries in the main heap
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    if num_cpu_devices:
        jax.config.update("jax_num_cpu_devices", num_cpu_devices)


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory(has_one_heap: bool = True) -> bool:
    """Tells glibc to keep what is freed instead of giving it back (Linux without an accelerator; elsewhere nothing).

    XLA's CPU client allocates the temporaries of every step anew, and the page faults of fresh memory cost as much as
    the arithmetic of a small model. It must come before XLA's threads. The process never shrinks below its peak, which
    training does not either. What it is worth: `benchmarks/allocator.py`.

    Args:
      has_one_heap: one for all threads, and every block is kept. Else every thread has its own, as glibc makes them:
        XLA's computing threads allocate 4,000 times a step what their products pack, and in one heap they wait for one
        another. Only the main heap keeps blocks above 64 MB then, and of several devices' threads none has it.

    Returns:
      Whether it applies.
    """
    if sys.platform != "linux" or any(glob.glob(pattern) for pattern in _ACCELERATORS):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = [(_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1)]
    # a heap beside the main one that is empty for a moment would be given back
    settings.append((_M_ARENA_MAX, 1) if has_one_heap else (_M_TOP_PAD, HEAP_BYTES))
    return min(mallopt(name, value) for name, value in settings) == 1


def is_one_of_several(environ: Mapping[str, str]) -> bool:
    """Whether this process was started as one of several (see `join_others`)."""
    is_slurm = int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1
    return is_slurm or bool(environ.get("JAX_COORDINATOR_ADDRESS")) or environ.get("ANYORDER_CLUSTER") == "tpu"


def join_others(environ: Mapping[str, str] = os.environ) -> None:
    """Makes this process one of several when it was started as such; call before anything asks JAX for a device.

    started by                     told by
    srun (SLURM), several tasks    SLURM's own variables
    hand, tests, other schedulers  JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES, JAX_PROCESS_ID (all three)
    launch/tpu, launch/gke         ANYORDER_CLUSTER=tpu: the slice's own metadata

    On a CPU the processes talk through gloo.

    Raises:
      ValueError: for explicit variables that are not complete or no numbers, or when JAX does not see the GPUs that
        SLURM gave.
      RuntimeError: when the others do not come within `connect_seconds` (JAX itself ends some of them, with SIGABRT).
    """
    timeouts: dict[str, Any] = {
        "initialization_timeout": connect_seconds(environ),
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
        "shutdown_timeout_seconds": SHUTDOWN_SECONDS,
    }
    explicit = explicit_place(environ)
    gpus: list[int] | None = None
    if explicit:
        address, num_processes, process_id = explicit
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            address, num_processes, process_id, cluster_detection_method="deactivate", **timeouts
        )
    elif int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        gpus = slurm_gpus(environ)
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(cluster_detection_method="slurm", local_device_ids=gpus, **timeouts)
    elif environ.get("ANYORDER_CLUSTER") == "tpu":
        jax.distributed.initialize(**timeouts)
    if gpus and jax.local_device_count() != len(gpus):
        raise ValueError(
            f"SLURM gave this process the GPUs {gpus}, but JAX sees {jax.local_devices()}. Install the extra `cuda` "
            "(ANYORDER_EXTRAS=babyai,report,cuda), or ask SLURM for no GPU to train on the CPU."
        )


def connect_seconds(environ: Mapping[str, str]) -> int:
    """How long to wait for the other processes: ANYORDER_CONNECT_SECONDS, or CONNECT_SECONDS.

    Raises:
      ValueError: when that is no positive whole number.
    """
    text = environ.get("ANYORDER_CONNECT_SECONDS", str(CONNECT_SECONDS))
    if not text.isdigit() or int(text) == 0:
        raise ValueError(f"ANYORDER_CONNECT_SECONDS={text!r}: expected a positive number of seconds.")
    return int(text)


def explicit_place(environ: Mapping[str, str]) -> tuple[str, int, int] | None:
    """(coordinator's host:port, number of processes, this one's number) as the JAX_* variables say, or None."""
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    given = [environ.get(name, "") for name in names]
    if not any(given):
        return None
    address, num_processes, process_id = given
    if not (
        ":" in address and num_processes.isdigit() and process_id.isdigit() and int(process_id) < int(num_processes)
    ):
        shown = ", ".join(f"{name}={value!r}" for name, value in zip(names, given, strict=True))
        raise ValueError(f"{shown}: expected host:port, a number of processes P, and this process's number in 0..P-1.")
    return address, int(num_processes), int(process_id)


def slurm_gpus(environ: Mapping[str, str]) -> list[int] | None:
    """The GPUs of this SLURM task among those it can see; None without any (a CPU job).

    One task per node takes all of the node's; several share them evenly; a task bound to its own (--gpus-per-task)
    sees no other. (JAX's own rule is one GPU a task, number SLURM_LOCALID, which idles the rest of the node or fails
    under a binding.)

    Raises:
      ValueError: when the tasks of the node do not divide its GPUs.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES", "")
    count = len(visible.split(",")) if visible else 0
    tasks = -(-int(environ["SLURM_STEP_NUM_TASKS"]) // int(environ["SLURM_STEP_NUM_NODES"]))
    if count == 0:
        return None
    if tasks == 1 or environ.get("SLURM_GPUS_PER_TASK") == str(count):
        return list(range(count))
    if count % tasks:
        raise ValueError(f"SLURM: {tasks} tasks on a node cannot share its {count} GPUs; choose --ntasks-per-node.")
    first = int(environ["SLURM_LOCALID"]) * (count // tasks)
    return list(range(first, first + count // tasks))


@contextmanager
def until_sigterm() -> Iterator[Callable[[int], bool]]:
    """`is_last(step)`: whether to stop after update `step` because SIGTERM came, to this process or to another one; the
    hangup of a terminal (SIGHUP) is one as well.

    All processes are told the same step, a few after the signal: JAX's preemption service takes the furthest one's.
    It costs no communication until a signal comes. `step` counts up and every process asks at each.
    """
    if jax.process_count() > 1:
        previous = command.handle(lambda *_: os.kill(os.getpid(), signal.SIGTERM), signal.SIGHUP)
        try:
            yield multihost_utils.reached_preemption_sync_point
        finally:
            command.restore(previous)
        return
    received: list[int] = []
    previous = command.handle(lambda number, _: received.append(number), signal.SIGTERM, signal.SIGHUP)
    try:
        yield lambda step: bool(received)
    finally:
        command.restore(previous)


def is_lost_connection(error: Exception) -> bool:
    """Whether a JAX error tells that another process is gone, and not of something of our own."""
    words = ("gloo", "connection", "heartbeat", "coordination service")
    return jax.distributed.is_initialized() and any(word in str(error).lower() for word in words)


@contextmanager
def leave_at_once_on_error() -> Iterator[None]:
    """One process of several that fails says why and is gone: in an orderly exit it would wait for the others, which
    wait for it. They notice by the broken connection, or after HEARTBEAT_SECONDS."""
    try:
        yield
    except BaseException as error:
        is_error = not isinstance(error, SystemExit) or error.code not in (0, None, REQUEUE)
        if not (is_error and jax.distributed.is_initialized()):
            raise
        status = error.code if isinstance(error, SystemExit) else None
        if status is None:
            traceback.print_exc()
        elif not isinstance(status, int):  # a number has said why already
            print(f"process {jax.process_index()}: {status}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)


def say(line: str) -> None:
    """A line for the user, from the first process only."""
    if jax.process_index() == 0:
        print(line, flush=True)
