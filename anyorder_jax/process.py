"""What must be settled before JAX starts: how memory is allocated, how many devices the CPU pretends to be."""

from __future__ import annotations

import os
import sys

import jax

_TUNABLES = "GLIBC_TUNABLES"


def use_huge_pages() -> None:
    """Starts this program again, once, with glibc handing out memory in huge pages (Linux; elsewhere nothing).

    On a CPU every step allocates its temporaries anew, and the page faults of 4 KiB pages cost as much as the
    arithmetic of a small model: the tiny preset's step takes 0.6 times as long with huge pages
    (`benchmarks/huge_pages.py`). A value the user has set is kept.
    """
    if sys.platform == "linux" and _TUNABLES not in os.environ:
        os.environ[_TUNABLES] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def prepare(num_cpu_devices: int = 0) -> None:
    """Call before the first array: quiet libraries, and the CPU as `num_cpu_devices` devices (0: as it is)."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if num_cpu_devices:
        jax.config.update("jax_num_cpu_devices", num_cpu_devices)
