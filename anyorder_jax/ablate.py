"""Ablate: a suite of runs, their evaluation, one comparison.

    python -m anyorder_jax.ablate --suite=orders [--num_workers=2] [--output_dir=runs/ablations]
    python -m anyorder_jax.ablate --suite=configs/ablations/orders.py:full --job=$SLURM_ARRAY_TASK_ID
    python -m anyorder_jax.ablate --suite=configs/ablations/orders.py:full --list

Each run is the real `train` and `evaluate` in processes of their own. OUTPUT/SUITE/VARIANT/SEED (OUTPUT/SUITE-full for
the size after the colon) leads to it; the run itself lies in OUTPUT/runs, named by its arguments, so that suites which
ask for the same run share it. What is there is not repeated as long as recipe, data and questions have the same
contents (evaluation/reuse.py), a run that was killed goes on; so the same command may be given again, or on several
machines that share the directory with `--only=VARIANT` or `--job=NUMBER`. What the runs say is written as results.jsonl
(one long table, evaluation/results.py), and what is made of it as comparison.json, comparison.md and index.html, a page
for people.
"""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("ablate")  # imports take seconds

import argparse
import dataclasses
import hashlib
import inspect
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from anyorder_jax import command, files, paths, process, recipes, terminal
from anyorder_jax.config import path_keys
from anyorder_jax.evaluation import comparison, page, results, reuse
from anyorder_jax.evaluation.suite import Suite

INTERRUPT_SECONDS = 8.0
"""What is running has so long to end after Ctrl-C, then it is killed: a compiler does not listen."""


def load_suite(path: str, size: str = "") -> Suite:
    """The suite that a file of configs/ablations/ describes.

    Args:
      path: the file, or the name of one of ours.
      size: what its `get_suite` is told; "": nothing, its own default.

    Raises:
      ValueError: when there is no such file, no `get_suite` in it, or it does not know the size.
    """
    path = recipes.find_suite(path)
    found = runpy.run_path(path)
    if "get_suite" not in found:
        raise ValueError(f"--suite: {path} has no get_suite(); configs/ablations/orders.py shows the form.")
    if not size:
        return dataclasses.replace(found["get_suite"](), file=path)
    if not inspect.signature(found["get_suite"]).parameters:
        raise ValueError(f"--suite: {path} has one size only; leave out ':{size}'.")
    return dataclasses.replace(found["get_suite"](size), file=path)


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


def located(suite: Suite, arguments: Sequence[str]) -> list[str]:
    """Arguments of `train` with absolute paths: a recipe and what else is relative is looked for beside the suite's
    file first, then from the working directory; recipes also by name. Those of a suite of no file stay as they are.

    Raises:
      ValueError: for a recipe that is nowhere.
    """
    found: list[str] = []
    if not suite.file:
        return list(arguments)
    for flag, equals, value in (argument.partition("=") for argument in arguments):
        if flag == "--config":
            value = recipes.find_recipe(value, suite.file)
        elif flag.removeprefix("--config.") in path_keys():
            rule = path_keys()[flag.removeprefix("--config.")]
            value = next(filter(os.path.exists, recipes.beside(value, suite.file)), None) or rule(value)
        found.append(flag + equals + value)
    return found


def training(suite: Suite, variant: str, seed: int, directory: Path) -> list[str]:
    """The arguments that decide what `train` learns in one run of a suite.

    Args:
      suite: the suite.
      variant: one of its variants.
      seed: of the run.
      directory: OUTPUT/SUITE, with the runs that it may start from.
    """
    return [*located(suite, suite.arguments(variant, seed, directory)), f"--config.seed={seed}"]


def commands(suite: Suite, variant: str, seed: int, directory: Path, workdir: Path) -> Iterator[list[str]]:
    """What is still to do of one run, in order; each is asked for when the one before is done.

    Args:
      suite: the suite.
      variant: one of its variants.
      seed: of the run.
      directory: OUTPUT/SUITE.
      workdir: the run's directory.
    """
    if not (workdir / "report" / "report.json").is_file():
        yield ["anyorder_jax.train", *training(suite, variant, seed, directory), f"--workdir={workdir}"]
    for folder, arguments in evaluations(suite, workdir):
        is_end = folder == workdir / "report"
        wanted = suite.parts if is_end else ("report",)
        missing = [
            name
            for name in wanted
            if not reuse.is_answered(folder, name, [*suite.evaluate, *arguments, *suite.more.get(name, ())])
        ]
        for more in dict.fromkeys(tuple(suite.more.get(name, ())) for name in missing):
            names = [name for name in missing if tuple(suite.more.get(name, ())) == more]
            where = [f"--parts={','.join(names)}", f"--output_dir={folder}"]
            yield ["anyorder_jax.evaluate", *suite.evaluate, *arguments, *more, *where]  # the last of two counts


def place(suite: Suite, variant: str, seed: int, directory: Path) -> Path:
    """The run's directory in OUTPUT/runs, to which OUTPUT/SUITE/VARIANT/SEED becomes a link.

    Its name is the recipe, a digest of all arguments of `train` and `evaluate`, and the seed; of a recipe edited since
    also a digest of what it makes. A directory in the link's place (a run that was moved here) is used as it is.

    Args:
      suite: the suite.
      variant: one of its variants.
      seed: of the run.
      directory: OUTPUT/SUITE.

    Raises:
      ValueError: a recipe that cannot be read; a moved run of another one.
    """
    link = directory / variant / str(seed)
    config = reuse.configuration(training(suite, variant, seed, directory))
    if link.is_dir() and not link.is_symlink():
        reuse.refuse_other_settings(link, config)
        return link
    shown = Path(paths.shown(directory))  # as in version 0.1.0, whose runs are found again
    arguments = [*suite.arguments(variant, seed, shown), "evaluate", *reuse.in_older_words(suite.evaluate)]
    digest = hashlib.sha256("\0".join(arguments).encode()).hexdigest()[:10]
    recipe = Path(arguments[0].partition("=")[2]).stem
    bases = [place(suite, base, seed, directory) for base in suite.needs(variant)]
    run = reuse.run_of(directory.parent / "runs" / f"{recipe}-{digest}-{seed}", config, bases)
    files.make_directory(run)
    files.make_directory(link.parent)
    target = os.path.relpath(run.resolve(), link.parent.resolve())  # OUTPUT/runs or OUTPUT/SUITE may be a link
    if not link.is_symlink() or os.readlink(link) != target:
        new = link.with_name(f"{link.name}.{os.urandom(4).hex()}.tmp")
        new.symlink_to(target)
        new.replace(link)  # another machine may be doing the same
    return run


@contextmanager
def alone(run: Path, runner: Runner) -> Iterator[None]:
    """Waits for another suite that is at the same run. Raises InterruptedError when a signal comes meanwhile."""

    def wait(holder: str) -> None:
        if runner.is_stopped:
            raise InterruptedError(f"{run}: stopped while waiting for {holder}; the same command goes on.")

    with files.lock(run / "lock", wait):
        yield


class Runner:
    """Runs commands while the block runs, and passes a signal on to those that are running: no other starts.

    SIGTERM, or a terminal's hangup: each saves and leaves. Ctrl-C: each leaves, within INTERRUPT_SECONDS.
    What they compile is kept in `compiled`, unless the environment names a place: most runs of a suite share programs.
    """

    def __init__(self, compiled: Path) -> None:
        self.stopped_by, self.running = 0, set[subprocess.Popen[bytes]]()
        kept = {"JAX_COMPILATION_CACHE_DIR": str(compiled), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3"}
        self.environment = {**kept, **os.environ}

    def __enter__(self) -> Runner:
        self.previous = command.handle(self.stop, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
        return self

    def __exit__(self, *_: object) -> None:
        command.restore(self.previous)

    @property
    def is_stopped(self) -> bool:
        return self.stopped_by != 0

    def stop(self, number: int, _: FrameType | None = None) -> None:
        """The signals' handler; the second Ctrl-C of an impatient user does not wait."""
        self.stopped_by = number
        for child in tuple(self.running):
            self._pass_on(child)
        if number == signal.SIGINT:
            timer = threading.Timer(INTERRUPT_SECONDS, self._kill)
            timer.daemon = True
            timer.start()

    def _pass_on(self, child: subprocess.Popen[bytes]) -> None:
        child.send_signal(signal.SIGINT if self.stopped_by == signal.SIGINT else signal.SIGTERM)

    def _kill(self) -> None:
        for child in tuple(self.running):
            child.kill()

    def run(self, arguments: Sequence[str], log: IO[str]) -> int:
        """The exit code; `process.REQUEUE` when a signal came before."""
        if self.is_stopped:
            return process.REQUEUE
        child = subprocess.Popen([sys.executable, "-m", *arguments], stdout=log, stderr=log, env=self.environment)
        self.running.add(child)
        if self.is_stopped:  # the signal came while it started
            self._pass_on(child)
        code = child.wait()
        self.running.discard(child)
        return process.REQUEUE if self.is_stopped else code


@contextmanager
def stoppable(output_dir: Path) -> Iterator[Runner]:
    """A runner; Ctrl-C ends the block with KeyboardInterrupt once all that was running has ended."""
    with Runner(output_dir / "compiled") as runner:
        try:
            yield runner
        except (InterruptedError, RuntimeError):
            if runner.stopped_by != signal.SIGINT:
                raise
        if runner.stopped_by == signal.SIGINT:
            raise KeyboardInterrupt


def run_one(suite: Suite, variant: str, seed: int, directory: Path, runner: Runner) -> None:
    """Trains and evaluates one variant from one seed, as far as that is not done.

    Args:
      suite: the suite.
      variant: one of its variants.
      seed: of the run.
      directory: OUTPUT/SUITE.
      runner: runs a command and writes its log.

    Raises:
      RuntimeError: when a command fails, with the log that says why.
      ValueError: when the data have changed since the run was trained.
      InterruptedError: when a signal came.
    """
    workdir = place(suite, variant, seed, directory)
    start, num_done = time.perf_counter(), 0
    with alone(workdir, runner), open(workdir / "log.txt", "a", encoding="utf-8") as log:
        reuse.refuse_other_data(workdir, reuse.configuration(training(suite, variant, seed, directory)))
        for arguments in commands(suite, variant, seed, directory, workdir):
            code = runner.run(arguments, log)
            if code == process.REQUEUE:
                raise InterruptedError(f"{variant}, seed {seed}: stopped by a signal; the same command goes on.")
            if code:
                raise RuntimeError(f"{variant}, seed {seed}: `{paths.command(*arguments)}` failed; see {log.name}.")
            if arguments[0] == "anyorder_jax.evaluate":
                reuse.remember(arguments)
            num_done += 1
    if num_done:
        print(f"{variant}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)


def run_all(suite: Suite, jobs: Sequence[tuple[str, int]], directory: Path, num_workers: int, runner: Runner) -> None:
    """Runs jobs, first those that start from no other run.

    Args:
      suite: the suite.
      jobs: (variant, seed) of each run.
      directory: OUTPUT/SUITE.
      num_workers: jobs that run at a time.
      runner: runs a command and writes its log.

    Raises:
      RuntimeError: a run failed; the others are finished first. InterruptedError: a signal came.
    """
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
    """Writes what the finished runs of these variants say; returns the Markdown.

    Args:
      suite: the suite.
      directory: OUTPUT/SUITE; the tables are written there.
      names: of the variants.
      title: of the page.
    """
    workdirs = {name: [directory / name / str(seed) for seed in suite.seeds] for name in names}
    read = {
        name: [results.read(workdir, suite.levels, suite.at_steps) for workdir in found]
        for name, found in workdirs.items()
    }
    rows = (json.dumps(row) + "\n" for row in results.rows_of(read, suite.seeds))
    files.write_whole(directory / "results.jsonl", "".join(rows))
    found = comparison.compare_all(suite, read, workdirs)
    files.write_whole(directory / "comparison.json", json.dumps(found, indent=1) + "\n")
    markdown = comparison.text(suite, found)
    files.write_whole(directory / "comparison.md", markdown + "\n")
    files.write_whole(directory / "index.html", page.suite_page(title, suite, found, read, workdirs))
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
      ValueError: an unknown suite, size, variant or job.
      RuntimeError: a run failed; the others are finished first.
      InterruptedError: SIGTERM came. KeyboardInterrupt: Ctrl-C.
    """
    suite, directory = load_suite(path, size), directory_of(path, size, output_dir)
    jobs = jobs_of(suite, only)
    if job is not None:
        if not 0 <= job < len(jobs):
            raise ValueError(f"--job: expected 0..{len(jobs) - 1}, got {job}; --list shows them.")
        with stoppable(output_dir) as runner:
            run_one(suite, *jobs[job], directory, runner)
        return ""
    print(f"{suite.question}\n{len(jobs)} runs in {paths.shown(directory)}", flush=True)
    with stoppable(output_dir) as runner:
        run_all(suite, jobs, directory, num_workers, runner)
    return write_comparison(suite, directory, list(dict.fromkeys(name for name, _ in jobs)), Path(path).stem)


def main() -> None:
    """Reads the command line and does what it asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", required=True, help="a file, or one of ours by name, with a size after a colon")
    parser.add_argument("--output_dir", type=paths.typed, default=paths.absolute("runs/ablations"))
    parser.add_argument("--num_workers", type=int, default=1, help="runs at a time")
    parser.add_argument("--only", default="", help="comma-separated variants; default all")
    parser.add_argument("--job", type=int, default=None, help="run only this job (of --list), e.g. of a SLURM array")
    parser.add_argument("--list", action="store_true", help="print the jobs and run nothing")
    terminal.accept_any_letter()
    options = parser.parse_args()
    path, size = recipes.split(options.suite)
    with command.door("ablate"):
        try:
            only = tuple(filter(None, options.only.split(",")))
            if options.list:
                for number, (name, seed) in enumerate(jobs_of(load_suite(path, size), only)):
                    print(f"{number}\t{name}\tseed {seed}")
                return
            print(ablate(path, Path(options.output_dir), options.num_workers, only, options.job, size))
        except InterruptedError as stopped:
            print(stopped)
            sys.exit(process.REQUEUE)
        except (ValueError, OSError, RuntimeError) as error:
            sys.exit(f"ablate: {error}")


if __name__ == "__main__":
    main()
