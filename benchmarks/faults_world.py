"""The world that benchmarks/faults.py breaks: real runs of the `train` command, killed, starved of disk, compared."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from small_run import compiled_in, finish, learned, lines, same_parameters, start, start_processes  # noqa: E402

CONNECT_SECONDS = 60
"""How long processes wait for one another here (300 by default): one that is killed before they met costs this."""


class World:
    """Where the runs of one trial lie, how long they are, and the uninterrupted ones that they are compared with.

    Compiled programs are kept in `folder/compiled`, so that a process that goes on needs seconds. That this changes no
    bit is part of what is compared: the uninterrupted run compiles, those that are compared with it read.

    Args:
      folder: an empty directory.
      is_short: runs of 24 updates and 2 kills, instead of 60 and 100.
      kills: how many, if not that.
      seed: of the random moments.
    """

    def __init__(self, folder: Path, is_short: bool, kills: int = 0, seed: int = 0) -> None:
        self.folder, self.is_short, self.rng = folder, is_short, random.Random(seed)
        self.kills = kills or (2 if is_short else 100)
        self.data = folder / "data"
        self.steps, self.save_every = (24, 2) if is_short else (60, 3)
        self.sizes = [
            f"--config.train.num_steps={self.steps}",
            f"--config.checkpoint.save_every_steps={self.save_every}",
        ]
        self.environment = {
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiles in a third of the time
            **compiled_in(folder / "compiled"),
            "ANYORDER_CONNECT_SECONDS": str(CONNECT_SECONDS),
        }
        self.references: dict[int, Path] = {}
        self.lives: dict[int, float] = {}

    def start(
        self, name: str, *more: str, count: int = 1, environment: Mapping[str, str] | None = None, **keywords
    ) -> list[subprocess.Popen]:
        """The processes of run `name`, started or resumed."""
        arguments = (self.data, self.folder / name, *self.sizes, *more)
        keywords["environment"] = {**self.environment, **(environment or {})}
        return [start(*arguments, **keywords)] if count == 1 else start_processes(count, *arguments, **keywords)

    def finish(self, name: str, *more: str, count: int = 1, **keywords) -> str:
        """Runs `name` to its end and returns what the first process printed."""
        ended = [finish(one, timeout=1800) for one in self.start(name, *more, count=count, **keywords)]
        assert all(code == 0 for code, _ in ended), ended
        return ended[0][1]

    def uninterrupted(self, count: int = 1) -> Path:
        """The run directory of an uninterrupted run of `count` processes."""
        if count not in self.references:
            begin = time.perf_counter()
            self.finish(f"whole-{count}", count=count)
            self.lives[count] = time.perf_counter() - begin
            self.references[count] = self.folder / f"whole-{count}"
        return self.references[count]

    def seconds(self, count: int = 1) -> float:
        """How long an undisturbed life takes: of the long form, one that finds everything compiled."""
        self.uninterrupted(count)
        if not self.is_short and not (self.folder / f"again-{count}").exists():
            begin = time.perf_counter()
            self.finish(f"again-{count}", count=count)
            self.lives[count] = time.perf_counter() - begin
            self.check_equal(f"again-{count}", count)
        return self.lives[count]

    def check_equal(self, name: str, count: int = 1) -> None:
        """The finished run `name` repeats the uninterrupted one bit for bit."""
        whole = self.uninterrupted(count)
        assert learned(self.folder / name) == learned(whole), "other losses than the uninterrupted run's"
        same_parameters(self.folder / name, whole)

    def losses(self, name: str) -> np.ndarray:
        return np.array([line["loss"] for line in lines(self.folder / name)])

    def unfinished_saves(self, name: str) -> set[tuple[str, int]]:
        """(name, inode) of each save of run `name` that is under way, or was when its process died."""
        found = set()
        for path in (self.folder / name / "checkpoints").glob("*orbax-checkpoint-tmp*"):
            try:
                found.add((path.name, path.stat().st_ino))
            except FileNotFoundError:  # finished in between
                continue
        return found

    def kill_once(self, name: str, moment: str, count: int = 1) -> Kill | None:
        """One life of run `name`, and a kill -9 of one of its processes; None when it had finished before.

        Args:
          moment: "start": while it starts; "training": after a random number of updates and a random part of one;
            "save": in the next asynchronous save.
        """
        life = self.seconds(count)
        left_behind, logged = self.unfinished_saves(name), len(lines(self.folder / name))
        more = self.rng.randint(1, self.steps // 2)
        processes = self.start(name, count=count)
        victim = self.rng.choice(processes)
        end = time.monotonic() + self.rng.uniform(0.02, 0.5) * life
        has_come = {
            "start": lambda: time.monotonic() > end,
            "training": lambda: len(lines(self.folder / name)) >= logged + more,
            "save": lambda: bool(self.unfinished_saves(name) - left_behind),
        }[moment]
        while victim.poll() is None and not has_come():
            time.sleep(0.002)
        time.sleep(0 if moment == "start" else self.rng.uniform(0, 0.03))
        is_in_save = bool(self.unfinished_saves(name) - left_behind)
        was_alive = victim.poll() is None
        victim.kill()
        killed = time.monotonic()
        codes = [finish(one, timeout=600)[0] for one in processes if one is not victim]
        waited = time.monotonic() - killed
        finish(victim)
        if not was_alive:
            return None
        has_trained = moment != "start" or len(lines(self.folder / name)) > logged
        return Kill(is_in_save, has_trained, waited, codes)


class Kill:
    """What a kill -9 hit: whether a save was under way, whether updates had been made, how long the other processes
    lived on in seconds, and their exit codes."""

    def __init__(self, is_in_save: bool, has_trained: bool, waited: float, codes: list[int]) -> None:
        self.is_in_save, self.has_trained, self.waited, self.codes = is_in_save, has_trained, waited, codes


@contextmanager
def small_disk(folder: Path, megabytes: int = 24) -> Iterator[Path]:
    """A disk of its own (needs the right to mount)."""
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True, capture_output=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> Path:
    """Fills a disk to the last byte; the file that does it is returned."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast
