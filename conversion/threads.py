"""Work in a few threads: enough to keep a disk busy while numbers are turned, few enough to need little memory."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")

NUM_THREADS = min(8, max(2, os.cpu_count() or 2))


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`function` of every item, in order. The first error, or an interrupt, ends it once what is running has run.

    A few items are taken ahead, not all: there may be 60,000.
    """
    pool, pending = ThreadPoolExecutor(NUM_THREADS), deque[Future[Result]]()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 4 * NUM_THREADS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_own = threading.local()


def scratch(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array of this thread in place of `np.empty`: valid until the thread asks again; no page is touched anew."""
    import numpy as np  # moving bytes does not need it

    num_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if getattr(_own, "buffer", np.empty(0)).nbytes < num_bytes:
        _own.buffer = np.empty(num_bytes, np.uint8)
    return np.ndarray(shape, dtype, _own.buffer)
