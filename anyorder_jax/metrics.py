"""Run logs: JSON Lines, TensorBoard events, Weights & Biases, and what the terminal shows while a run trains.

    <workdir>/metrics/train.jsonl          {"step": 50, "loss": 2.31, "nll/action": 0.92, ...}
    <workdir>/metrics/validation.jsonl     {"step": 1000, "loss": 1.97, ...}
    <workdir>/metrics/events.out.tfevents  tags train/loss, validation/loss, ...

A step is the number of updates done, from 1. JSON has no NaN or infinity: they are written as the strings
"NaN", "Infinity" and "-Infinity" (null would not say which), and `read_jsonl` turns them back into floats.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import struct
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import jax
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

from anyorder_jax import files
from anyorder_jax.progress import Bar, in_words

NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class RunLogger:
    """Writes a run's metrics; on every process but the first, a logger that does nothing.

    A line that cannot be written (a full disk) is lost and said once; training goes on, and later lines are
    written when there is room again. Lines already written stay whole.

    Args:
      workdir: the run directory; `metrics/` is made in it.
      num_steps: the length of the run, for the bar and the time left.
      config_json: the resolved configuration, as JSON text or the object it describes; shown by W&B.
      wandb_project: where W&B logs; empty: not there.
      first_step: updates done before this process (a resume). Lines and events of later steps, left by the
        interrupted run, are dropped: this run writes them again.
      process_index: default `jax.process_index()`.
      stream: the terminal; default stderr. A progress bar where it is one, else a plain line per log step.

    Raises:
      ValueError: when `metrics/` cannot be written, a file there is broken, or W&B is asked for and not
        installed or not logged in. When it cannot be reached, that is said once, and training goes on without it.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        num_steps: int,
        config_json: str | Mapping[str, Any],
        wandb_project: str = "",
        *,
        first_step: int = 0,
        process_index: int | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self.is_active = (jax.process_index() if process_index is None else process_index) == 0
        if not self.is_active:
            return
        self.directory = Path(workdir) / "metrics"
        self._warned_of: set[str] = set()
        unique = f"{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._events = self.directory / f"events.out.tfevents.{unique}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for name in ("train", "validation"):
                keep_until(self.directory / f"{name}.jsonl", first_step)
            append(self._events, first_events(first_step))
        except OSError as error:
            reason = error.__cause__ if isinstance(error.__cause__, OSError) else error
            raise ValueError(
                f"metrics: cannot write to {self.directory} ({reason.strerror or reason}). Give a --workdir on "
                "a disk with room and write permission."
            ) from error
        self._terminal = _Terminal(num_steps, first_step, stream)
        self._wandb = _open_wandb(wandb_project, self.directory, config_json, self._terminal.say)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """One log step of training; `loss`, `tokens_per_second`, `targets_per_second` show on the terminal.

        Args:
          step: updates done.
          metrics: numbers (Python, NumPy or JAX scalars) by name; names may hold "/".

        Raises:
          ValueError: for a value that is not a single number, by name.
        """
        if self.is_active:
            numbers = as_numbers(metrics)
            self._write("train", step, numbers)
            self._terminal.show(step, numbers)

    def log_validation(self, step: int, metrics: Mapping[str, Any]) -> None:
        """One validation after `step` updates; as `log`."""
        if self.is_active:
            numbers = as_numbers(metrics)
            self._write("validation", step, numbers)
            self._terminal.say(f"step {step}  validation  " + "  ".join(f"{k} {v:.4g}" for k, v in numbers.items()))

    def close(self) -> None:
        """Frees the terminal and ends the W&B run; lines are on disk already. May be called twice."""
        if self.is_active:
            self.is_active = False
            self._terminal.close()
            if self._wandb is not None:
                self._attempt("to W&B", self._wandb.finish, Exception)

    def _write(self, name: str, step: int, numbers: dict[str, float]) -> None:
        step = int(step)
        line = json.dumps({"step": step, **{key: _encode(value) for key, value in numbers.items()}}) + "\n"
        tagged = {f"{name}/{key}": value for key, value in numbers.items()}
        events = b"".join(
            record_of(Event(wall_time=time.time(), step=step, summary=scalar(tag, value)))
            for tag, value in tagged.items()
        )
        self._attempt(str(self.directory), lambda: append(self.directory / f"{name}.jsonl", line.encode()))
        self._attempt(str(self.directory), lambda: append(self._events, events))
        if self._wandb is not None:
            self._attempt("to W&B", lambda: self._wandb.log({**tagged, "step": step}), Exception)

    def _attempt(self, where: str, write: Callable[[], object], failure: type[Exception] = OSError) -> None:
        try:
            write()
        except failure as error:
            if where not in self._warned_of:
                self._warned_of.add(where)
                self._terminal.say(
                    f"metrics: cannot write {where} ({error}). Training goes on; log lines are lost until "
                    "this works again. This is said once."
                )


class _Terminal:
    """The bar of a run; where there is none, a line per log step."""

    def __init__(self, num_steps: int, first_step: int, stream: TextIO | None) -> None:
        self.num_steps, self.first_step = num_steps, first_step
        self.start = time.perf_counter()
        bar_format = "{n_fmt}/{total_fmt} |{bar}| {remaining} left{postfix}"  # fits 80 columns
        self.bar = Bar(num_steps, stream=stream, done=first_step, bar_format=bar_format)
        self.say, self.close = self.bar.say, self.bar.close

    def show(self, step: int, numbers: Mapping[str, float]) -> None:
        parts = [f"loss {numbers['loss']:.4f}"] if "loss" in numbers else []
        for noun in ("tokens", "targets"):
            if f"{noun}_per_second" in numbers:
                parts.append(f"{numbers[f'{noun}_per_second']:,.0f} {noun}/s")
        if self.bar.is_drawn:
            self.bar.move(step, "  ".join(parts))
            return
        done = max(step - self.first_step, 1)
        left = (time.perf_counter() - self.start) / done * max(self.num_steps - step, 0)
        self.say("  ".join([f"step {step}/{self.num_steps}", *parts, f"{in_words(left)} left"]))


def as_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Scalars of any library -> Python numbers.

    Raises:
      ValueError: for a value that is not a single number, by name.
    """
    numbers = {}
    for name, value in metrics.items():
        try:
            numbers[name] = value if isinstance(value, int) else float(value)
        except (TypeError, ValueError):
            raise ValueError(f"metrics: {name!r} must be a single number, got {value!r}.") from None
    return numbers


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a metrics file, oldest first. A last line without its newline (a run killed as it wrote,
    or one that is writing now) is left out.

    Raises:
      FileNotFoundError: when there is no such file.
      ValueError: for a broken line, by file and line number.
    """
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    lines = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            record = json.loads(line)
            record["step"] = int(record["step"])
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f'{path}, line {number}: expected a JSON object with a "step", got {line[:80]!r}. Repair '
                "or delete the line."
            ) from None
        lines.append({name: NONFINITE.get(value, value) if isinstance(value, str) else value
                      for name, value in record.items()})  # fmt: skip
    return lines


def keep_until(path: Path, last_step: int) -> None:
    """Drops the lines of steps after `last_step`, and a half-written last line: a crash leaves the old file or the new
    one. Also makes the file, so that a directory without permission is found here."""
    records = read_jsonl(path) if path.exists() else []
    kept = [{name: _encode(value) for name, value in record.items()} for record in records]
    lines = [json.dumps(record) + "\n" for record in kept if record["step"] <= last_step]
    files.write_whole(path, "".join(lines))


def append(path: Path, data: bytes) -> None:
    """Appends all of `data` or nothing: a disk that fills up in the middle would otherwise leave half a line,
    and glue the next one to it.

    Raises:
      OSError: when it cannot be written.
    """
    with open(path, "ab", buffering=0) as file:
        size = file.tell()
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(size)
            raise


def record_of(event: Event) -> bytes:
    """One record of a TensorBoard file (TFRecord): length, its checksum, the event, its checksum.

    Not tensorboardX.SummaryWriter: its thread dies on a full disk, and the training loop then waits for ever
    on that thread's queue.
    """
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def first_events(first_step: int) -> bytes:
    """The head of a TensorBoard file. The session's start hides what older files hold of later steps."""
    now = time.time()
    version = Event(wall_time=now, file_version="brain.Event:2")
    start = Event(wall_time=now, step=first_step + 1, session_log=SessionLog(status=SessionLog.START))
    return record_of(version) + record_of(start)


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _open_wandb(project: str, directory: Path, config_json: str | Mapping[str, Any], say: Callable[[str], None]) -> Any:
    """The W&B run, or None without a project, or when W&B cannot be reached (said once). The same run directory
    continues the same W&B run; points are placed by our own `step`, because W&B drops a step that it has seen before,
    and a resume repeats some.

    Raises:
      ValueError: W&B is not installed, not logged in, or refuses how it is set up: what a person mends once.
    """
    if not project:
        return None
    try:
        import wandb
    except ImportError:
        raise ValueError(
            f"config.log.wandb_project: W&B is not installed, but project {project!r} is set. Install it "
            "(pip install 'anyorder-jax[wandb]') or leave the project empty."
        ) from None
    config = json.loads(config_json) if isinstance(config_json, str) else dict(config_json)
    id_file = directory / "wandb_run_id"
    if not id_file.exists():
        id_file.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
    workdir = directory.parent
    run_id = id_file.read_text(encoding="utf-8").strip()
    try:
        run = wandb.init(project=project, config=config, dir=str(workdir), id=run_id, resume="allow", name=workdir.name)
        run.define_metric("*", step_metric="step")
    except Exception as error:  # whatever W&B, its service or the network raises
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        advice = "`wandb login`, or WANDB_MODE=offline and `wandb sync` later, or an empty config.log.wandb_project"
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if kinds & {"UsageError", "AuthenticationError", "ValueError"}:  # not the network
            raise ValueError(f"config.log.wandb_project: W&B refuses {project!r} ({reason}). Try {advice}.") from error
        say(f"metrics: W&B cannot be started ({reason}). Training goes on without it. To have it: {advice}.")
        return None
    return run
