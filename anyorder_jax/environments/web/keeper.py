"""Keeper: a small process between a program and the browser that it starts; the browser never outlives the program.

    program ──stdin──► keeper ──► chromium ──► its own processes          python keeper.py FOLDER READ WRITE COMMAND...
       └────────── two pipes ───────────┘

It waits until its standard input closes (the program has ended, however it died) or the browser ends. Then it kills
all that the browser has started, waits for each, so that no zombie stays, and throws the browser's folder away. It
imports nothing of this package and uses the standard library alone.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
READ, WRITE = 3, 4
"""Where a browser looks for its ends of the pipes; this process gets them under other numbers."""


def children() -> list[int]:
    """Processes whose parent this one is, also those whose own parent died. Linux; none elsewhere."""
    with contextlib.suppress(OSError):
        lists = [task / "children" for task in Path("/proc/self/task").iterdir()]
        return [int(pid) for one in lists for pid in one.read_text(encoding="ascii").split()]
    return []


def end_all(leader: int) -> None:
    """Kills the browser's process group, then whatever is left, and waits for each."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    while True:
        for pid in children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _then(wait: Callable[[], object], ended: threading.Event) -> None:
    wait()
    ended.set()


def main() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    folder, theirs = sys.argv[1], list(map(int, sys.argv[2:4]))
    for end, number in zip(theirs, (READ, WRITE), strict=True):
        os.dup2(end, number)
        os.close(end)
    browser = subprocess.Popen(
        [*sys.argv[4:], f"--user-data-dir={folder}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(READ, WRITE),
        start_new_session=True,
        env={**os.environ, "TMPDIR": folder, "HOME": folder, "TZ": "UTC", "LANG": "en_US.UTF-8"},  # alike everywhere
    )
    os.close(READ)
    os.close(WRITE)  # so that the program sees when the browser is gone

    ended = threading.Event()
    for wait in (browser.wait, sys.stdin.buffer.read):
        threading.Thread(target=_then, args=(wait, ended), daemon=True).start()
    ended.wait()
    end_all(browser.pid)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main()
