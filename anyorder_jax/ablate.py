"""Ablate: a suite of runs, their evaluation, one comparison.

    python -m anyorder_jax.ablate --suite=configs/ablations/orders.py [--num_workers=2] [--output_dir=runs/ablations]

Each run is the real `train` and `evaluate` in processes of their own, in OUTPUT/SUITE/VARIANT/SEED. A run whose report
is there is not repeated, a run that was killed goes on; so the same command may be given again, or on several machines
that share the directory with `--only=VARIANT` or `--run=NUMBER` (`--count` says how many there are).
The comparison is written as comparison.json and comparison.md.
"""

from __future__ import annotations

import argparse
import json
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from anyorder_jax import process
from anyorder_jax.checkpoint import write_text
from anyorder_jax.evaluation import suite as suites
from anyorder_jax.evaluation.suite import Suite


def load_suite(path: str) -> Suite:
    """The suite that a file of configs/ablations/ describes.

    Raises:
      ValueError: when there is no such file, or no `get_suite` in it.
    """
    if not Path(path).is_file():
        raise ValueError(f"--suite: {path} is no file; the suites are in configs/ablations/.")
    found = runpy.run_path(path)
    if "get_suite" not in found:
        raise ValueError(f"--suite: {path} has no get_suite(); configs/ablations/orders.py shows the form.")
    return found["get_suite"]()


class Commands:
    """Runs commands, and passes SIGTERM on to those that are running: each saves and leaves, and no other starts."""

    def __init__(self) -> None:
        self.is_stopped, self.running = False, set[subprocess.Popen[bytes]]()
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_: object) -> None:
        self.is_stopped = True
        for command in tuple(self.running):
            command.terminate()

    def run(self, arguments: Sequence[str], log: IO[str]) -> int:
        """The exit code; `process.REQUEUE` when SIGTERM came before."""
        if self.is_stopped:
            return process.REQUEUE
        command = subprocess.Popen([sys.executable, "-m", *arguments], stdout=log, stderr=log)
        self.running.add(command)
        if self.is_stopped:  # the signal came while it started
            command.terminate()
        code = command.wait()
        self.running.discard(command)
        return process.REQUEUE if self.is_stopped else code


def run_one(suite: Suite, variant: str, seed: int, directory: Path, commands: Commands) -> None:
    """Trains and evaluates one variant from one seed, unless its report is there.

    Raises:
      RuntimeError: when a command fails, with the log that says why.
      InterruptedError: when SIGTERM came.
    """
    workdir = directory / variant / str(seed)
    if (workdir / "report" / "report.json").is_file():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    train = ["anyorder_jax.train", *suite.variants[variant], f"--config.seed={seed}", f"--workdir={workdir}"]
    evaluate = ["anyorder_jax.evaluate", f"--checkpoint={workdir}", *suite.evaluate]
    with open(workdir / "log.txt", "a", encoding="utf-8") as log:
        for command in (train, evaluate):
            code = commands.run(command, log)
            if code == process.REQUEUE:
                raise InterruptedError(f"{variant}, seed {seed}: stopped by SIGTERM; the same command goes on.")
            if code:
                raise RuntimeError(f"{variant}, seed {seed}: `python -m {' '.join(command)}` failed; see {log.name}.")
    print(f"{variant}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)


def ablate(path: str, output_dir: Path, num_workers: int, only: Sequence[str] = (), run: int | None = None) -> str:
    """Runs what is missing of a suite and returns the comparison as a Markdown table.

    Args:
      path: the suite's file.
      output_dir: runs go to OUTPUT/SUITE/VARIANT/SEED.
      num_workers: runs at a time.
      only: these variants (empty: all).
      run: this one of the runs alone (a task of a job array), and no comparison.

    Raises:
      ValueError: an unknown suite, variant or run. RuntimeError: a run failed; the others are finished first.
      InterruptedError: SIGTERM came.
    """
    suite, directory = load_suite(path), output_dir / Path(path).stem
    unknown = sorted(set(only) - set(suite.variants))
    if unknown:
        raise ValueError(f"--only: {unknown} not in this suite; its variants are {', '.join(suite.variants)}.")
    chosen = [name for name in suite.variants if not only or name in only]
    jobs = [(name, seed) for seed in suite.seeds for name in chosen]
    if run is not None:
        if not 0 <= run < len(jobs):
            raise ValueError(f"--run: expected a number in 0..{len(jobs) - 1}, got {run}.")
        jobs = jobs[run : run + 1]
    print(f"{suite.question}\n{len(jobs)} runs in {directory}", flush=True)
    commands = Commands()
    with ThreadPoolExecutor(num_workers) as pool:
        pending = [pool.submit(run_one, suite, *job, directory, commands) for job in jobs]
        errors = [error for error in (run.exception() for run in pending) if error]
    if errors:
        raise errors[0]
    if run is not None:
        return ""
    reports = {
        name: [suites.read_report(directory / name / str(seed) / "report" / "report.json") for seed in suite.seeds]
        for name in chosen
    }
    table = suites.compare(suite, reports)
    write_text(directory / "comparison.json", json.dumps({"question": suite.question, "table": table}, indent=1) + "\n")
    markdown = suites.text(suite, table)
    write_text(directory / "comparison.md", f"{suite.question}\n\n{markdown}\n")
    return markdown


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", required=True, help="a file of configs/ablations/")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--num_workers", type=int, default=1, help="runs at a time")
    parser.add_argument("--only", default="", help="comma-separated variants; default all")
    parser.add_argument("--run", type=int, help="only this run, counted from 0, without a comparison")
    parser.add_argument("--count", action="store_true", help="print how many runs the suite has, and do nothing")
    options = parser.parse_args()
    try:
        if options.count:
            suite = load_suite(options.suite)
            print(len(suite.variants) * len(suite.seeds))
            return
        only = tuple(filter(None, options.only.split(",")))
        print(ablate(options.suite, options.output_dir, options.num_workers, only, options.run))
    except InterruptedError as stopped:
        print(stopped)
        sys.exit(process.REQUEUE)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"ablate: {error}")


if __name__ == "__main__":
    main()
