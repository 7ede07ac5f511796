"""What must be settled before JAX starts: what happens to freed memory, how many devices the CPU pretends to be."""

from __future__ import annotations

import ctypes
import glob
import os
import sys

import jax

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel*", "/dev/vfio/[0-9]*")


def prepare(num_cpu_devices: int = 0) -> None:
    """Call first in a program, before any array: quiet libraries, memory that is kept, and the CPU as
    `num_cpu_devices` devices (0: as it is)."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    keep_freed_memory()
    if num_cpu_devices:
        jax.config.update("jax_num_cpu_devices", num_cpu_devices)


def keep_freed_memory() -> bool:
    """Tells glibc to keep what is freed instead of giving it back (Linux without an accelerator; elsewhere nothing).

    XLA's CPU client allocates the temporaries of every step anew, and the page faults of fresh memory cost as much as
    the arithmetic of a small model (`benchmarks/allocator.py`). It must come before XLA's threads, each of which would
    have its own heap. The process never shrinks below its peak, which training does not either.

    Returns:
      Whether it applies.
    """
    if sys.platform != "linux" or any(glob.glob(pattern) for pattern in _ACCELERATORS):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all((mallopt(_M_ARENA_MAX, 1), mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)))
