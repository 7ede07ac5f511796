"""Work in a few threads: enough to keep a disk busy while numbers are turned, few enough to need little memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

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
