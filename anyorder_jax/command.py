"""What all commands do alike: Ctrl-C ends them in one line, and a terminal that is gone ends nothing.

    if __name__ == "__main__":
        from anyorder_jax import command

        command.begin("fit")  # above the slow imports
    ...
    with command.door("fit"):
        ...

Needs the standard library alone.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, NoReturn, TextIO

INTERRUPTED = 128 + signal.SIGINT
"""Exit status of a command that Ctrl-C ended, as shells count."""

AFTERWARDS = {
    "train": "the same command goes on from the newest checkpoint",
    "collect": "the same command goes on where this one stopped",
    "ingest": "the same command goes on where this one stopped",
    "ablate": "the same command goes on where this one stopped",
    "evaluate": "suites that were finished are written",
    "conversion": "no part of an output is left behind; the same command starts again",
    "join": "the same command starts again",
    "export_episodes": "no part of a file is left behind; the same command starts again",
}
"""What else is said when Ctrl-C ended a command."""

_programs: list[str] = []
"""The command that this process is (`begin`)."""

_SAME_PRESS_SECONDS = 1.0
"""Interrupts closer to one another are one: `timeout -s INT` sends it to the process and to its group."""


class _Steady(io.FileIO):
    """Standard output or error: what nobody is there to read (`| head`, a terminal hung up) is dropped."""

    def write(self, data: Any) -> int:  # type: ignore[override]  # of two base classes
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            return memoryview(data).nbytes


def _steady(stream: TextIO) -> TextIO:
    """The same stream, which never fails for want of a reader or of a letter in its encoding."""
    try:
        raw = _Steady(stream.fileno(), "wb", closefd=False)
        stream.flush()
    except (AttributeError, OSError, ValueError):  # None (closed), or no file (a notebook, a test)
        return stream
    is_unbuffered = getattr(stream, "write_through", False)
    errors = stream.errors if stream.errors not in (None, "strict", "surrogateescape") else "replace"
    return io.TextIOWrapper(
        raw if is_unbuffered else io.BufferedWriter(raw),  # type: ignore[arg-type]  # as CPython does it under -u
        encoding=stream.encoding, errors=errors, line_buffering=getattr(stream, "line_buffering", False),
        write_through=is_unbuffered,
    )  # fmt: skip


def begin(name: str) -> None:
    """Call in the first lines of a command's file, when it is the program that runs: from then on Ctrl-C prints no
    traceback (imports take seconds), a second one leaves at once, and printing never fails.

    Args:
      name: of the command; see `AFTERWARDS`.
    """
    _programs.append(name)
    sys.stdout, sys.stderr = _steady(sys.stdout), _steady(sys.stderr)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored: nohup, `command &`
        signal.signal(signal.SIGINT, _Interrupt())
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            leave(name)
        previous(kind, error, trace)

    sys.excepthook = hook


class _Interrupt:
    """Of SIGINT: the first raises KeyboardInterrupt, so that blocks clean up; a later one does not wait for that."""

    def __init__(self) -> None:
        self.first_seconds: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.first_seconds is None:
            self.first_seconds = now
            raise KeyboardInterrupt
        if now - self.first_seconds > _SAME_PRESS_SECONDS:
            os._exit(INTERRUPTED)


def leave(name: str) -> NoReturn:
    """Ends the command as interrupted: one line on stderr, exit status 130.

    Call when all blocks are left. A process that is this command ends without tearing the interpreter down: threads of
    libraries are in the middle of something (JAX then crashes now and then).

    Raises:
      SystemExit: in a process that is something else.
    """
    with contextlib.suppress(OSError, AttributeError):  # no terminal, nobody to tell
        head = "\n" if sys.stderr.isatty() else ""  # below ^C and a bar
        print(f"{head}{name}: interrupted" + (f"; {AFTERWARDS[name]}." if name in AFTERWARDS else "."), file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    if _programs:
        os._exit(INTERRUPTED)
    raise SystemExit(INTERRUPTED) from None


@contextlib.contextmanager
def door(name: str) -> Iterator[None]:
    """Around all that a command does: an interrupt ends it by `leave`."""
    try:
        yield
    except KeyboardInterrupt:
        leave(name)


def handle(handler: Callable[[int, FrameType | None], object], *numbers: signal.Signals) -> dict[int, Any]:
    """Sets a handler for signals, except for those that are ignored here (nohup); what was there before, by number."""
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def restore(handlers: dict[int, Any]) -> None:
    """Puts back what `handle` gave."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def clean_up_on_signals() -> None:
    """SIGTERM and a terminal's hangup end the command like an error: blocks clean up. Exit status 128 + the number."""

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    handle(stop, signal.SIGTERM, signal.SIGHUP)
