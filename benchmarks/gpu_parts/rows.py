"""What the report keeps: rows in a JSON Lines file, each written when it is known. Standard library alone.

    {"part": "kernels", "name": "grouped mosaic bfloat16, even", "measure": "error", "value": 0.003, "unit": "",
     "verdict": "pass", "bound": "at most 0.02", "note": "norm 0.0021", "seconds": 31.2}

A row is one number (or word) of one thing. `verdict` is "pass" or "fail" where there is a bound, else empty; the last
row of a part has the measure "ended" and one of ENDS.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ENDS = ("pass", "fail", "hung", "killed", "skipped", "not started")
"""How a part ended. "fail": an exception, or a row that failed."""

BREAKAGES = ("hang", "raise", "kill")


class Skip(Exception):  # noqa: N818  (no error: the part says that it does not apply here)
    """Raised by a part that needs something which is not here; its sentence becomes the part's note."""


def append(path: Path, row: dict[str, Any]) -> None:
    """Adds one line and brings it to disk: what comes after may take the machine along."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[dict[str, Any]]:
    """All rows; a last line that was cut by a kill does not count.

    Raises:
      ValueError: for a broken line before the last one, naming it.
    """
    rows = []
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}:{number}: expected a row in JSON, got {line[:80]!r}.") from error
    return rows


class Rows:
    """One part's door to the file. `breakage`: "", or what happens after the part's first row (for the rehearsal)."""

    def __init__(self, path: Path, part: str, breakage: str = "") -> None:
        self.path, self.part, self.breakage = path, part, breakage
        self.start, self.failed = time.monotonic(), 0

    def add(
        self, name: str, measure: str, value: float | str, unit: str = "", *, note: str = "",
        at_most: float | None = None, at_least: float | None = None,
    ) -> None:  # fmt: skip
        """Writes one row. With a bound it passes or fails; NaN fails.

        Args:
          name: of what. measure: which number of it. value: in `unit`, or a word.
          note: what a reader has to know beside the number.
          at_most, at_least: bounds, either, both or none.
        """
        bounds = [("at most", at_most), ("at least", at_least)]
        said = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
        verdict = ""
        if said:
            is_inside = (at_most is None or float(value) <= at_most) and (at_least is None or float(value) >= at_least)
            verdict = "pass" if is_inside else "fail"
        self._write(name, measure, value, unit, verdict, said, note)

    def judge(self, name: str, measure: str, is_right: bool, note: str = "") -> None:
        """A row that is right or wrong, without a number."""
        self._write(name, measure, "yes" if is_right else "no", "", "pass" if is_right else "fail", "yes", note)

    @contextlib.contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """What fails inside is a row with its error, and the part goes on to its next case."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit, Skip):
            raise
        except Exception as error:  # whatever a compiler, a kernel or a library raises
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            self._write(name, "runs", "no", "", "fail", "yes", one_line(error))

    def _write(
        self, name: str, measure: str, value: float | str, unit: str, verdict: str, bound: str, note: str
    ) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)
        self.failed += verdict == "fail"
        row = {
            "part": self.part, "name": name, "measure": measure, "value": value, "unit": unit, "verdict": verdict,
            "bound": bound, "note": note, "seconds": round(time.monotonic() - self.start, 2),
        }  # fmt: skip
        append(self.path, row)
        if self.breakage:
            breakage, self.breakage = self.breakage, ""
            break_now(breakage)


def one_line(error: BaseException) -> str:
    """An error's kind and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "nothing"


def break_now(breakage: str) -> None:
    """What the rehearsal breaks on purpose: "hang" (with a child that hangs too), "raise" or "kill"."""
    if breakage == "hang":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        time.sleep(3600)
    if breakage == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError("broken on purpose (--break=raise)")
