"""How far something has come: a bar on a terminal, plain lines elsewhere (a file, a scheduler's log)."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

LINE_SECONDS = 10.0
"""Between two lines in a log."""


class Bar:
    """The bar, where the stream is a terminal; elsewhere there is none, and `say` writes plain lines.

    What cannot be shown (a log's disk is full, the terminal hung up) is dropped: whom to tell?

    Args:
      total: at the end of the bar.
      stream: default stderr; None with `is_shown=False`.
      is_shown: False: silent.
      done: what counts as done at the start.
      style: how it looks, in tqdm's words (`desc`, `unit`, `bar_format`, ...).
    """

    def __init__(
        self, total: int, *, stream: TextIO | None = None, is_shown: bool = True, done: int = 0, **style: object
    ) -> None:
        self._stream = (stream or sys.stderr) if is_shown else None
        self._bar = None
        if self._stream is not None and self._stream.isatty():
            # some containers have terminals of no size, on which tqdm would show nothing
            is_sized = os.get_terminal_size(self._stream.fileno()).columns > 0
            size = {"dynamic_ncols": True} if is_sized else {"ncols": 80, "nrows": 24}
            self._bar = tqdm(total=total, initial=done, file=self._stream, **size, **style)

    @property
    def is_drawn(self) -> bool:
        """Whether there is one; else lines tell how far it is."""
        return self._bar is not None

    def move(self, done: int, note: str = "") -> None:
        """So much is done; the note stands behind the bar."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                is_new = note != (self._bar.postfix or "")
                if is_new:
                    self._bar.set_postfix_str(note, refresh=False)
                self._bar.update(done - self._bar.n)
                if is_new:
                    self._bar.refresh()

    def shorten(self, count: int) -> None:
        """So much less has to be done."""
        if self._bar is not None:
            self._bar.total -= count

    def say(self, line: str) -> None:
        """A line above the bar."""
        with contextlib.suppress(OSError):
            if self._bar is not None:
                self._bar.write(line, file=self._stream)
            elif self._stream is not None:
                print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Leaves the bar as it stands and goes to the next line."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()


class Progress:
    """Counts bytes, or things, up to `total` on stderr, each line headed by `what`. A context manager.

    Args:
      total: what there is to do.
      what: is done, for people.
      unit: the noun of what is counted; "B" for bytes, which a finished count fills up (headers are not counted).
      is_shown: False: silent.
    """

    def __init__(self, total: int, what: str, *, unit: str = "B", is_shown: bool = True) -> None:
        self._total, self._what, self._unit = total, what, unit
        self._done = self._num_failed = 0
        self._start = self._last = time.perf_counter()
        self._bar = Bar(total, is_shown=is_shown, desc=what, unit=unit, unit_scale=unit == "B")

    def __enter__(self) -> Progress:
        return self

    def update(self, count: int, num_failed: int = 0) -> None:
        """So many more are done, and so many failed on the way; how many did so far stands at the end of the line."""
        self._done += count
        self._num_failed += num_failed
        now = time.perf_counter()
        self._bar.move(self._done, self._note())
        if not self._bar.is_drawn and now - self._last >= LINE_SECONDS:
            self._last = now
            self.say(self._line(now - self._start))

    def skip(self, count: int) -> None:
        """So many were done before, and count neither as done nor as to do."""
        self._total -= count
        self._bar.shorten(count)

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._bar.say(line)

    def _note(self) -> str:
        return f"{self._num_failed} failed" if self._num_failed else ""

    def _line(self, seconds: float) -> str:
        if self._unit == "B":
            left = seconds * (self._total - self._done) / max(self._done, 1)
            return (
                f"{self._what}: {self._done / max(self._total, 1):.0%} of {self._total / 1e9:.3f} GB, {left:.0f} s left"
            )
        rate = self._done / max(seconds, 1e-9)
        told = [f"{self._done}/{self._total} {self._unit}s", f"{rate:.0f}/s", self._note()]
        return f"{self._what}: {', '.join(filter(None, told))}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._start
        is_bytes, has_succeeded = self._unit == "B", kind is None
        if self._bar.is_drawn:
            if is_bytes and has_succeeded:
                self._bar.move(self._total)
        elif is_bytes and has_succeeded:
            self.say(f"{self._what}: {self._done / 1e9:.3f} GB in {seconds:.1f} s")
        elif not is_bytes and (self._done or self._num_failed):  # also after an error: this many are there
            self.say(self._line(seconds))
        self._bar.close()


def in_words(seconds: float) -> str:
    """75 -> "01:15"; with hours where there are some."""
    return tqdm.format_interval(seconds)
