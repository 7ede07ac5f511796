"""Work in a few threads: enough to keep a disk busy while numbers are turned, few enough to need little memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")

NUM_THREADS = min(8, max(2, os.cpu_count() or 2))


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`function` of every item, in order. The first error, or an interrupt, ends it once what is running has run."""
    pool = ThreadPoolExecutor(NUM_THREADS)
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_own = threading.local()


def scratch(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array of this thread in place of `np.empty`: valid until the thread asks again; no page is touched anew."""
    num_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if getattr(_own, "buffer", np.empty(0)).nbytes < num_bytes:
        _own.buffer = np.empty(num_bytes, np.uint8)
    return np.ndarray(shape, dtype, _own.buffer)
