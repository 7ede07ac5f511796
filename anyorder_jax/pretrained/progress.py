"""How far a conversion or a load has come: a bar on a terminal, plain lines elsewhere (a file, a scheduler's log)."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

from tqdm import tqdm

LINE_SECONDS = 10.0
"""Between two lines in a log."""


class Progress:
    """Counts bytes up to `total` on stderr, each line headed by `what`. A context manager.

    is_shown: False: silent.
    """

    def __init__(self, total: int, what: str, *, is_shown: bool = True) -> None:
        self._total, self._what, self._is_shown = total, what, is_shown
        self._done = 0
        self._start = self._last = time.perf_counter()
        self._bar = None
        if is_shown and sys.stderr.isatty():
            # some containers have terminals of no size, on which tqdm would show nothing
            size = {} if os.get_terminal_size(sys.stderr.fileno()).columns else {"ncols": 80, "nrows": 24}
            self._bar = tqdm(total=total, unit="B", unit_scale=True, desc=what, **size)

    def __enter__(self) -> Progress:
        return self

    def update(self, num_bytes: int) -> None:
        """So many bytes more are done."""
        self._done += num_bytes
        now = time.perf_counter()
        if self._bar is not None:
            self._bar.update(num_bytes)
        elif now - self._last >= LINE_SECONDS:
            self._last = now
            left = (now - self._start) * (self._total - self._done) / max(self._done, 1)
            share = self._done / max(self._total, 1)
            self.say(f"{self._what}: {share:.0%} of {self._total / 1e9:.3f} GB, {left:.0f} s left")

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        elif self._is_shown:
            print(line, file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            if kind is None:
                self._bar.update(self._total - self._bar.n)  # headers are not counted
            self._bar.close()
        elif kind is None:
            self.say(f"{self._what}: {self._done / 1e9:.3f} GB in {time.perf_counter() - self._start:.1f} s")
