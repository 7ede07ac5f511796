"""Collect: an expert plays episodes of one environment; they land in shards that any trainer can read.

    python -m anyorder_jax.collect --env=BabyAI-GoToObj-v0 --num_episodes=1500 --output_dir=data/goto
        [--num_validation_episodes=200 --num_test_episodes=200 --seed=0 --noise=0.0 --slips=0.0 --branches=0]
        [--num_workers=2 --max_seconds_per_episode=20]

    worker 0 |  seeds 0..3    8..11   ...
    worker 1 |  seeds 4..7   12..15   ...     ->     0 1 2 x 4 5 6 ...     ->    train/shard-00000.jsonl, ...
                                                                                 manifest.json

Results are taken in the order of their seeds. A seed that the expert does not solve (x) is named in the
manifest and never written; the next seed takes its place. So the bytes depend on the arguments alone,
neither on the number of workers nor on interruptions: a shard appears under its name when it is whole, and
the same command goes on where a killed one stopped. Other seeds are not always other episodes: how many of the held-out
ones the training split holds as well is counted, said, and written into the manifest (data/overlap.py).

A world with published lists of tasks (TextWorldExpress, ScienceWorld) has them taken in their order: a split then ends,
and says so, where its list ends, and what is not solved is left out.
"""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("collect")  # imports take seconds

import argparse
import collections
import dataclasses
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from anyorder_jax import command, files, paths, terminal
from anyorder_jax.data import overlap, sources
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import (
    Environment,
    ExpertError,
    HasExpert,
    HasPath,
    HasValidActions,
    TextEnvironment,
)
from anyorder_jax.environments.branching import Brancher
from anyorder_jax.environments.play import play_episode, play_text_episode
from anyorder_jax.environments.pool import Pool, serve
from anyorder_jax.progress import Progress
from anyorder_jax.types import Trajectory

# A level that fails so often in a row is beyond the expert. The weakest usable one solves 29% of its seeds.
_MAX_FAILURES_IN_A_ROW = 50


class _OutOfTimeError(BaseException):
    """Raised by the alarm. No `Exception`: neither simulator nor expert may swallow it."""


def _on_alarm(signum: int, frame: FrameType | None) -> None:
    raise _OutOfTimeError


def _open(
    environment_id: str, noise: float, slips: float, branches: int
) -> tuple[Environment | TextEnvironment, Callable[[int], Trajectory]]:
    """The environment, and what plays the episode of a seed in it; a world of text takes the seed as task, or as the
    number of a task in its list (`_seeds`)."""
    if registry.is_text(environment_id):
        session = registry.make_session(environment_id)
        asked = Brancher(session, branches, lambda: registry.make_session(environment_id)) if branches else None
        lists = registry.tasks(environment_id) or {}
        names = {s: task for split, listed in lists.items() for s, task in _numbered(listed, split)}
        return session, lambda seed: play_text_episode(session, names.get(seed, str(seed)), noise, asked, slips)
    if slips:
        raise ValueError(f"collect: slips: expected 0 ({environment_id} is a grid: it refuses no action), got {slips}.")
    environment = registry.make_environment(environment_id)
    other = Brancher(environment, branches, lambda: registry.make_environment(environment_id)) if branches else None
    return environment, lambda seed: play_episode(environment, seed, noise, other)


def _seeds(listed: Sequence[str] | None, seed: int, split: str) -> range:
    """The seeds of a split: those of `sources.seed_range`, one a task where tasks are listed."""
    seeds = sources.seed_range(seed, split)
    return seeds if listed is None else seeds[: len(listed)]


def _numbered(listed: Sequence[str], split: str) -> Iterator[tuple[int, str]]:
    """(seed, task) of a split's tasks."""
    return zip(_seeds(listed, 0, split), listed, strict=True)


def _attempt(play: Callable[[int], Trajectory], seed: int, max_seconds: float) -> tuple[bool, bytes]:
    """(solved, the line of a shard or the reason why not). Needs `_on_alarm` to be in place."""
    try:
        signal.setitimer(signal.ITIMER_REAL, max_seconds)
        try:
            return True, sources.encode(play(seed))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _OutOfTimeError:
        reason = f"no end within {max_seconds:g} seconds"
    except ExpertError as error:
        reason = str(error)
    except Exception as error:  # a seed that crashes the simulator costs that seed, not the collection
        reason = f"{type(error).__name__}: {error}"
    return False, " ".join(reason.split()).encode()


def _work(environment_id: str, noise: float, slips: float, branches: int, max_seconds: float) -> None:
    """The worker process: plays the seeds that the parent asks for."""
    signal.signal(signal.SIGALRM, _on_alarm)
    environment, play = _open(environment_id, noise, slips, branches)
    serve(lambda seed: _attempt(play, seed, max_seconds))
    environment.close()


def _solved_lines(
    pool: Pool, seeds: range, num_needed: int, environment: str, failures: list[tuple[int, str]]
) -> Iterator[tuple[int, bytes]]:
    """Yields (seed, line) of the first `num_needed` solved seeds, or of fewer where seeds are listed tasks and no more
    of them are; puts the others into `failures`."""
    num_failures_in_a_row = num_solved = 0
    for seed, is_solved, line in pool.results(seeds, num_needed):
        if is_solved:
            num_failures_in_a_row = 0
            num_solved += 1
            yield seed, line
            continue
        failures.append((seed, line.decode()))
        num_failures_in_a_row += 1
        if num_failures_in_a_row == _MAX_FAILURES_IN_A_ROW:
            reasons = collections.Counter(reason for _, reason in failures[-_MAX_FAILURES_IN_A_ROW:])
            listed = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
            raise ValueError(
                f"collect: the expert failed on {_MAX_FAILURES_IN_A_ROW} seeds of {environment} in a row, "
                f"up to seed {seed} ({listed}). It cannot play this level; choose another one."
            )
    if num_solved < num_needed and not registry.tasks(environment):
        raise ValueError(
            f"collect: seeds {seeds.start}..{seeds.stop - 1} of {environment} are used up and "
            f"{num_needed - num_solved} episodes still missing. Ask for fewer episodes."
        )


def _collect_shard(
    pool: Pool, directory: Path, file: str, seeds: range, size: int, environment: str, progress: Progress
) -> sources.Shard:
    """Writes the first `size` solved episodes of `seeds` as one shard."""
    failures: list[tuple[int, str]] = []
    num_episodes, num_steps, last_seed = 0, 0, seeds.start

    def lines() -> Iterator[bytes]:
        nonlocal num_episodes, num_steps, last_seed
        num_failures_before = 0
        for seed, line in _solved_lines(pool, seeds, size, environment, failures):
            progress.update(1, len(failures) - num_failures_before)
            num_failures_before = len(failures)
            num_episodes += 1
            num_steps += line.count(b'{"kind":"action"')
            last_seed = seed
            yield line

    num_bytes, sha256 = sources.write_shard(directory / file, lines())
    end = last_seed + 1 if num_episodes == size else seeds.stop  # the list is at its end
    return sources.Shard(file, num_episodes, num_steps, num_bytes, sha256, (seeds.start, end), tuple(failures))


def _is_intact(directory: Path, shard: sources.Shard) -> bool:
    path = directory / shard.file
    return path.is_file() and path.stat().st_size == shard.num_bytes and sources.sha256(path) == shard.sha256


def _collect_split(pool: Pool, directory: Path, manifest: sources.Manifest, split: str) -> sources.Manifest:
    """Brings one split to its full number of shards, writing the manifest after each new one.

    Returns:
      The manifest as it stands then.
    """
    num_episodes = manifest.settings["num_episodes"][split]
    if num_episodes == 0:
        return manifest
    listed = (registry.tasks(manifest.environment) or {}).get(split)
    seeds = _seeds(listed, manifest.settings["seed"], split)
    shards = list(manifest.splits.get(split, ()))
    size = manifest.settings["episodes_per_shard"]
    with Progress(num_episodes, f"collect {split}", unit="episode") as progress:
        for index in range(-(-num_episodes // size)):
            if not seeds:
                break
            size_here = min(size, num_episodes - index * size)
            old = shards[index] if index < len(shards) else None
            if old is not None and old.seeds[0] == seeds.start and _is_intact(directory, old):
                progress.skip(size_here)
            else:
                file = f"{split}/shard-{index:05d}.jsonl"
                new = _collect_shard(pool, directory, file, seeds, size_here, manifest.environment, progress)
                shards[index : index + 1] = [new]
                splits = {**manifest.splits, split: tuple(shards)}
                manifest = dataclasses.replace(manifest, splits=splits, is_complete=False)
                sources.write_manifest(directory, manifest)
            seeds = range(shards[index].seeds[1], seeds.stop)
    return manifest


def _existing(directory: Path, wanted: sources.Manifest) -> sources.Manifest:
    """The manifest of an earlier run with these arguments, or `wanted`, written, when there was none."""
    if not (directory / "manifest.json").exists():
        strays = sorted(path for split in sources.SPLITS for path in (directory / split).glob("*.jsonl*"))
        if strays:
            raise ValueError(
                f"collect: {strays[0]} is there, but no manifest says what it is. Choose another directory."
            )
        sources.write_manifest(directory, wanted)
        return wanted
    found = sources.read_manifest(directory)
    asked = {"env": wanted.environment, **wanted.settings}
    there = {"env": found.environment, **found.settings}
    different = sorted(key for key in asked.keys() | there.keys() if asked.get(key) != there.get(key))
    if different:
        listed = ", ".join(f"{key} is {there.get(key)}, asked {asked.get(key)}" for key in different)
        raise ValueError(
            f"collect: {directory} holds another collection ({listed}). Choose another directory, or delete it."
        )
    return found


@dataclasses.dataclass(frozen=True)
class Collection:
    """What is collected, and by how many.

    environment: e.g. "BabyAI-GoToObj-v0". num_episodes, num_validation_episodes, num_test_episodes: of the splits; 0
    leaves one out; fewer where a world's list of tasks ends before. seed: chooses the seed ranges of the splits
    (`sources.seed_range`), >= 0. noise: share of steps that do a wrong action (marked; see `play_episode`), in [0, 1).
    slips: of text, share of steps before which an action is tried that the world refuses (`environments/slips.py`).
    branches: K, other actions whose outcome is asked of the world at every step (`environments/branching.py`).
    num_workers: processes; 0: one per CPU; the bytes do not depend on it. max_seconds_per_episode: wall-clock limit; a
    seed that passes it counts as failed. episodes_per_shard: episodes in a file, >= 1.

    Raises:
      ValueError: for an impossible number.
    """

    environment: str
    num_episodes: int
    num_validation_episodes: int = 200
    num_test_episodes: int = 200
    seed: int = 0
    noise: float = 0.0
    slips: float = 0.0
    branches: int = 0
    num_workers: int = 0
    max_seconds_per_episode: float = 20.0
    episodes_per_shard: int = 500

    def __post_init__(self) -> None:
        for name, value, is_good, expected in (
            *((f"{split} episodes", count, count >= 0, ">= 0") for split, count in self.counts.items()),
            ("seed", self.seed, self.seed >= 0, ">= 0"),
            ("noise", self.noise, 0 <= self.noise < 1, "a share in [0, 1)"),
            ("slips", self.slips, 0 <= self.slips < 1, "a share in [0, 1)"),
            ("branches", self.branches, self.branches >= 0, ">= 0"),
            ("num_workers", self.num_workers, self.num_workers >= 0, ">= 0"),
            ("max_seconds_per_episode", self.max_seconds_per_episode, self.max_seconds_per_episode > 0, "> 0"),
            ("episodes_per_shard", self.episodes_per_shard, self.episodes_per_shard >= 1, ">= 1"),
        ):
            if not is_good:
                raise ValueError(f"collect: {name}: expected {expected}, got {value}.")

    @property
    def counts(self) -> dict[str, int]:
        """Episodes of each split."""
        return {
            "train": self.num_episodes, "validation": self.num_validation_episodes, "test": self.num_test_episodes,
        }  # fmt: skip


def collect(wanted: Collection, output_dir: str | Path) -> Path:
    """Collects episodes that an environment's expert solves. Does nothing that an earlier call has done.

    Args:
      wanted: what is collected.
      output_dir: gets `manifest.json`, `train/`, `validation/`, `test/`.

    Returns:
      `output_dir`.

    Raises:
      ValueError: an unknown environment, a directory with another collection, or a level that the expert cannot play.
      OSError: a full or read-only disk, naming the file.
      RuntimeError: a worker process died. What was written whole stays.
    """
    environment, seed, noise, branches = wanted.environment, wanted.seed, wanted.noise, wanted.branches
    # here, so that an unknown id fails before anything is written
    played, _ = _open(environment, noise, wanted.slips, branches)
    expert = getattr(played, "expert_name", "")
    if seed and registry.is_text(environment) and registry.tasks(environment):
        raise ValueError(f"collect: seed: expected 0 ({environment} has its tasks in a fixed order), got {seed}.")
    if noise and isinstance(played, HasPath):
        raise ValueError(f"collect: noise: expected 0 ({environment}'s expert cannot leave its path), got {noise}.")
    if wanted.slips and not isinstance(played, HasValidActions):
        raise ValueError(f"collect: slips: expected 0 ({environment} does not tell which actions are valid).")
    if registry.is_text(environment) and not isinstance(played, HasExpert):
        raise ValueError(f"collect: {environment} has no expert who could play. Ingest logs of an agent instead.")
    settings = {
        "seed": seed,
        "noise": float(noise),
        "expert": expert,
        "version": played.version,
        "episodes_per_shard": wanted.episodes_per_shard,
        "num_episodes": wanted.counts,
        **({"slips": wanted.slips} if wanted.slips else {}),
        **({"branches": branches} if branches else {}),
    }
    played.close()
    directory = Path(output_dir)
    worker = ["-m", "anyorder_jax.collect", "--worker", f"--env={environment}", f"--noise={noise!r}"]
    worker += [f"--slips={wanted.slips!r}", f"--branches={branches}"]
    worker += [f"--max_seconds_per_episode={wanted.max_seconds_per_episode!r}"]
    with files.only_writer("collect", directory), Pool(worker, wanted.num_workers or os.cpu_count() or 1) as pool:
        manifest = _existing(directory, sources.Manifest(environment, settings, is_complete=False))
        for split in sources.SPLITS:
            manifest = _collect_split(pool, directory, manifest, split)
        if not manifest.is_complete:
            manifest = dataclasses.replace(manifest, is_complete=True, overlap={})
            sources.write_manifest(directory, manifest)
        if not manifest.overlap and (found := overlap.count(directory, manifest)):
            sources.write_manifest(directory, dataclasses.replace(manifest, overlap=found))
    return directory


def _arguments(arguments: Sequence[str] | None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        prog="python -m anyorder_jax.collect",
        description="Collects expert episodes of one environment. The defaults are those of `Collection`.",
        argument_default=argparse.SUPPRESS,  # what is not given is not passed on: defaults live in one place
        allow_abbrev=False,
    )
    flags: tuple[tuple[str, Callable[[str], Any], str], ...] = (
        ("output_dir", paths.typed, "gets manifest.json, train/, validation/, test/"),
        ("num_episodes", int, "training episodes"),
        ("num_validation_episodes", int, "validation episodes"),
        ("num_test_episodes", int, "test episodes"),
        ("seed", int, "chooses the episode seeds"),
        ("noise", float, "share of steps that do a wrong action, marked as such"),
        ("slips", float, "of text: share of steps before which an action is tried that the world refuses"),
        ("branches", int, "other actions a step whose outcome is asked of the world, and recorded"),
        ("num_workers", int, "processes; 0: one per CPU"),
        ("max_seconds_per_episode", float, "an episode that takes longer counts as failed"),
        ("episodes_per_shard", int, "episodes in a file"),
    )
    parser.add_argument("--env", dest="environment", required=True, help="e.g. BabyAI-GoToObj-v0")
    for name, kind, text in flags:
        parser.add_argument(f"--{name}", type=kind, help=text)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parsed = vars(parser.parse_args(arguments))
    missing = sorted({"output_dir", "num_episodes"} - parsed.keys())
    if missing and "worker" not in parsed:
        parser.error(f"these are needed: {', '.join(f'--{name}' for name in missing)}")
    return parsed


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. What a person can mend is one sentence and exit code 1."""
    terminal.accept_any_letter()
    options = _arguments(arguments)
    if options.pop("worker", False):
        names = ("environment", "noise", "slips", "branches", "max_seconds_per_episode")
        _work(*(options[name] for name in names))
        return
    try:
        with command.door("collect"):
            directory = options.pop("output_dir")
            directory = collect(Collection(**options), directory)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from error
    manifest = sources.read_manifest(directory)
    for split, shards in manifest.splits.items():
        num_episodes = sum(shard.num_episodes for shard in shards)
        num_steps = sum(shard.num_steps for shard in shards)
        num_failures = sum(len(shard.failures) for shard in shards)
        where = paths.shown(directory / split)
        print(f"{where}: {num_episodes} episodes, {num_steps} steps, {num_failures} failed seeds")
        if num_episodes < (asked := manifest.settings["num_episodes"][split]):
            print(f"{where}: {asked} were asked for, but no task of the split is left.")
    for split, counts in manifest.overlap.items():
        print(f"Held out by seed: {overlap.sentence(split, counts)}.")


if __name__ == "__main__":
    command.clean_up_on_signals()
    main()
