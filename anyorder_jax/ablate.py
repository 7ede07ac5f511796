"""Ablate: a suite of runs, their evaluation, one comparison.

    python -m anyorder_jax.ablate --suite=configs/ablations/orders.py [--num_workers=2] [--output_dir=runs/ablations]
    python -m anyorder_jax.ablate --suite=configs/ablations/orders.py:full --job=$SLURM_ARRAY_TASK_ID
    python -m anyorder_jax.ablate --suite=configs/ablations/orders.py:full --list

Each run is the real `train` and `evaluate` in processes of their own. OUTPUT/SUITE/VARIANT/SEED (OUTPUT/SUITE-full for
the size after the colon) leads to it; the run itself lies in OUTPUT/runs, named by its arguments, so that suites which
ask for the same run share it. What is there is not repeated, a run that was killed goes on; so the same command may be
given again, or on several machines that share the directory with `--only=VARIANT` or `--job=NUMBER`. The comparison is
written as comparison.json, comparison.md and index.html, a page for people.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import inspect
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from anyorder_jax import process
from anyorder_jax.evaluation import comparison, page
from anyorder_jax.evaluation import suite as suites
from anyorder_jax.evaluation.suite import Suite
from anyorder_jax.run_directory import write_text
from anyorder_jax.statistics import require_holm


def load_suite(path: str, size: str = "") -> Suite:
    """The suite that a file of configs/ablations/ describes.

    Args:
      path: the file.
      size: what its `get_suite` is told; "": nothing, its own default.

    Raises:
      ValueError: when there is no such file, no `get_suite` in it, or it does not know the size.
    """
    if not Path(path).is_file():
        raise ValueError(f"--suite: {path} is no file; the suites are in configs/ablations/.")
    found = runpy.run_path(path)
    if "get_suite" not in found:
        raise ValueError(f"--suite: {path} has no get_suite(); configs/ablations/orders.py shows the form.")
    if not size:
        return found["get_suite"]()
    if not inspect.signature(found["get_suite"]).parameters:
        raise ValueError(f"--suite: {path} has one size only; leave out ':{size}'.")
    return found["get_suite"](size)


def directory_of(path: str, size: str, output_dir: Path) -> Path:
    """Where the suite's runs go."""
    return output_dir / (Path(path).stem + (f"-{size}" if size not in ("", "small") else ""))


def evaluations(suite: Suite, workdir: Path) -> list[tuple[Path, list[str]]]:
    """(output directory, arguments of `evaluate`) of all that is asked about one run."""
    report = workdir / "report"
    found = [(report / name, [f"--checkpoint={workdir}", *more]) for name, more in suite.levels.items()]
    for step in suite.at_steps:
        folder = workdir / "checkpoints" / str(step)
        if folder.is_dir():  # a run from before the suite asked for it may not have kept it
            found.append((report / str(step), [f"--checkpoint={folder}"]))
    return [*found, (report, [f"--checkpoint={workdir}"])]


def commands(suite: Suite, variant: str, seed: int, directory: Path, workdir: Path) -> Iterator[list[str]]:
    """What is still to do of one run, in order; each is asked for when the one before is done."""
    if not (workdir / "report" / "report.json").is_file():
        arguments = suite.arguments(variant, seed, directory)
        yield ["anyorder_jax.train", *arguments, f"--config.seed={seed}", f"--workdir={workdir}"]
    for folder, arguments in evaluations(suite, workdir):
        is_end = folder == workdir / "report"
        wanted = suite.suites if is_end else ("report",)
        missing = [name for name in wanted if not (folder / f"{name}.json").is_file()]
        for more in dict.fromkeys(tuple(suite.more.get(name, ())) for name in missing):
            names = [name for name in missing if tuple(suite.more.get(name, ())) == more]
            where = [f"--suite={','.join(names)}", f"--output_dir={folder}"]
            yield ["anyorder_jax.evaluate", *suite.evaluate, *arguments, *more, *where]  # the last of two counts


def place(suite: Suite, variant: str, seed: int, directory: Path) -> Path:
    """The run's directory in OUTPUT/runs, to which OUTPUT/SUITE/VARIANT/SEED becomes a link.

    Its name is the recipe, a digest of all arguments of `train` and `evaluate`, and the seed. A directory in the link's
    place (a run that was moved here) is used as it is.
    """
    link = directory / variant / str(seed)
    if link.is_dir() and not link.is_symlink():
        return link
    arguments = [*suite.arguments(variant, seed, directory), "evaluate", *suite.evaluate]
    digest = hashlib.sha256("\0".join(arguments).encode()).hexdigest()[:10]
    recipe = Path(arguments[0].partition("=")[2]).stem
    run = directory.parent / "runs" / f"{recipe}-{digest}-{seed}"
    run.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(run, link.parent)
    if not link.is_symlink() or os.readlink(link) != target:
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    return run


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Waits for another suite that is at the same run."""
    with open(run / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Runner:
    """Runs commands, and passes SIGTERM on to those that are running: each saves and leaves, and no other starts.

    What they compile is kept in `compiled`, unless the environment names a place: most runs of a suite share programs.
    """

    def __init__(self, compiled: Path) -> None:
        self.is_stopped, self.running = False, set[subprocess.Popen[bytes]]()
        kept = {"JAX_COMPILATION_CACHE_DIR": str(compiled), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3"}
        self.environment = {**kept, **os.environ}
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_: object) -> None:
        self.is_stopped = True
        for command in tuple(self.running):
            command.terminate()

    def run(self, arguments: Sequence[str], log: IO[str]) -> int:
        """The exit code; `process.REQUEUE` when SIGTERM came before."""
        if self.is_stopped:
            return process.REQUEUE
        command = subprocess.Popen([sys.executable, "-m", *arguments], stdout=log, stderr=log, env=self.environment)
        self.running.add(command)
        if self.is_stopped:  # the signal came while it started
            command.terminate()
        code = command.wait()
        self.running.discard(command)
        return process.REQUEUE if self.is_stopped else code


def run_one(suite: Suite, variant: str, seed: int, directory: Path, runner: Runner) -> None:
    """Trains and evaluates one variant from one seed, as far as that is not done.

    Raises:
      RuntimeError: when a command fails, with the log that says why.
      InterruptedError: when SIGTERM came.
    """
    workdir = place(suite, variant, seed, directory)
    start, num_done = time.perf_counter(), 0
    with alone(workdir), open(workdir / "log.txt", "a", encoding="utf-8") as log:
        for command in commands(suite, variant, seed, directory, workdir):
            code = runner.run(command, log)
            if code == process.REQUEUE:
                raise InterruptedError(f"{variant}, seed {seed}: stopped by SIGTERM; the same command goes on.")
            if code:
                raise RuntimeError(f"{variant}, seed {seed}: `python -m {' '.join(command)}` failed; see {log.name}.")
            num_done += 1
    if num_done:
        print(f"{variant}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)


def run_all(suite: Suite, jobs: Sequence[tuple[str, int]], directory: Path, num_workers: int) -> None:
    """Runs jobs, first those that start from no other run.

    Raises:
      RuntimeError: a run failed; the others are finished first. InterruptedError: SIGTERM came.
    """
    runner = Runner(directory.parent / "compiled")
    is_second = [bool(suite.needs(name)) for name, _ in jobs]
    errors: list[BaseException] = []
    for wave in (False, True):
        with ThreadPoolExecutor(num_workers) as pool:
            pending = [
                pool.submit(run_one, suite, *job, directory, runner)
                for job, second in zip(jobs, is_second, strict=True)
                if second == wave
            ]
            errors += [error for error in (run.exception() for run in pending) if error]
    if errors:
        raise errors[0]


def jobs_of(suite: Suite, only: Sequence[str]) -> list[tuple[str, int]]:
    """(variant, seed) of all runs, those of one seed together.

    Raises:
      ValueError: for a variant that is not in the suite.
    """
    unknown = sorted(set(only) - set(suite.variants))
    if unknown:
        raise ValueError(f"--only: {unknown} not in this suite; its variants are {', '.join(suite.variants)}.")
    return [(name, seed) for seed in suite.seeds for name in suite.variants if not only or name in only]


def write_comparison(suite: Suite, directory: Path, names: Sequence[str], title: str) -> str:
    """Writes what the finished runs of these variants say; returns the Markdown."""
    workdirs = {name: [directory / name / str(seed) for seed in suite.seeds] for name in names}
    reports = {name: [suites.read_reports(workdir, suite) for workdir in found] for name, found in workdirs.items()}
    found = comparison.compare_all(suite, reports, workdirs)
    write_text(directory / "comparison.json", json.dumps(found, indent=1) + "\n")
    markdown = comparison.text(suite, found)
    write_text(directory / "comparison.md", markdown + "\n")
    write_text(directory / "index.html", page.suite_page(title, suite, found, reports, workdirs))
    if found["heatmap"]:
        from anyorder_jax.evaluation import charts  # late: it needs the extra `report`

        charts.heatmap(found["heatmap"], directory / "heatmap.png")
    return markdown


def ablate(
    path: str, output_dir: Path, num_workers: int, only: Sequence[str] = (), job: int | None = None, size: str = ""
) -> str:
    """Runs what is missing of a suite and returns the comparison as Markdown tables.

    Args:
      path: the suite's file.
      output_dir: runs go to OUTPUT/SUITE/VARIANT/SEED.
      num_workers: runs at a time.
      only: these variants (empty: all).
      job: run this one of the jobs alone, and compare nothing.
      size: "small" or "full", where the suite has sizes.

    Raises:
      ValueError: an unknown suite, size, variant or job, or statsmodels is missing.
      RuntimeError: a run failed; the others are finished first.
      InterruptedError: SIGTERM came.
    """
    suite, directory = load_suite(path, size), directory_of(path, size, output_dir)
    jobs = jobs_of(suite, only)
    if job is not None:
        if not 0 <= job < len(jobs):
            raise ValueError(f"--job: expected 0..{len(jobs) - 1}, got {job}; --list shows them.")
        run_one(suite, *jobs[job], directory, Runner(output_dir / "compiled"))
        return ""
    require_holm()
    print(f"{suite.question}\n{len(jobs)} runs in {directory}", flush=True)
    run_all(suite, jobs, directory, num_workers)
    return write_comparison(suite, directory, list(dict.fromkeys(name for name, _ in jobs)), Path(path).stem)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", required=True, help="a file of configs/ablations/, with its size after a colon")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--num_workers", type=int, default=1, help="runs at a time")
    parser.add_argument("--only", default="", help="comma-separated variants; default all")
    parser.add_argument("--job", type=int, default=None, help="run only this job (of --list), e.g. of a SLURM array")
    parser.add_argument("--list", action="store_true", help="print the jobs and run nothing")
    options = parser.parse_args()
    path, _, size = options.suite.partition(":")
    try:
        only = tuple(filter(None, options.only.split(",")))
        if options.list:
            for number, (name, seed) in enumerate(jobs_of(load_suite(path, size), only)):
                print(f"{number}\t{name}\tseed {seed}")
            return
        print(ablate(path, options.output_dir, options.num_workers, only, options.job, size))
    except InterruptedError as stopped:
        print(stopped)
        sys.exit(process.REQUEUE)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"ablate: {error}")


if __name__ == "__main__":
    main()
