"""What a run is trained on: trajectories of a directory, the codec of their environment, the vocabulary."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from anyorder_jax import keys, paths
from anyorder_jax.config import Config, DataConfig
from anyorder_jax.data import sources
from anyorder_jax.data.pipeline import Corpus
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.environments import registry
from anyorder_jax.types import OCCLUDED, Codec, Kind, Trajectory


class Task(NamedTuple):
    """directory: where the shards lie. environment: the level they come from. fingerprint: what a resume compares.
    skipped: None, or the list that gets a sentence for every bad record, which is then left out."""

    directory: Path
    environment: str
    codec: Codec
    vocabulary: Vocabulary
    fingerprint: dict[str, Any]
    skipped: list[str] | None = None

    def trajectories(self, split: str, limit: int = 0) -> list[Trajectory]:
        """The split's trajectories, the first `limit` (0: all)."""
        on_bad = None if self.skipped is None else self.skipped.append
        return sources.read_trajectories(self.directory, split, limit, on_bad)

    def training(self, config: DataConfig) -> list[Trajectory]:
        """What is trained on: the first `num_episodes` of the training split, without those that `exclude_goals` names,
        a share of them without actions.

        Raises:
          ValueError: when nothing is left.
        """
        phrases = [phrase for phrase in config.exclude_goals.split(",") if phrase]
        kept = [
            trajectory
            for trajectory in self.trajectories("train", config.num_episodes)
            if not any(phrase in (unit.text or "") for unit in trajectory.units[:1] for phrase in phrases)
        ]
        if not kept:
            raise ValueError(f"config.data.exclude_goals: {config.exclude_goals!r} leaves no training episode.")
        share = config.action_free_share
        if not share:
            return kept
        draws_E = keys.generator(0, "action free").random(len(kept))  # of no seed: every run has the same ones
        return [without_actions(t) if draw < share else t for t, draw in zip(kept, draws_E, strict=True)]

    def corpus(self, trajectories: Sequence[Trajectory], window: int) -> Corpus:
        """Tokenised examples, ready for the pipeline.

        Raises:
          ValueError: for a trajectory that cannot be tokenised, with its file, line and id, unless those are skipped.
        """
        return Corpus.build(trajectories, self.codec, self.vocabulary, window, self._on_bad)

    def _on_bad(self, trajectory_id: str, reason: str) -> None:
        sentence = f"{sources.place_of(self.directory, trajectory_id)}: trajectory {trajectory_id}: {reason}"
        if self.skipped is None:
            raise ValueError(sentence)
        self.skipped.append(sentence)


def without_actions(trajectory: Trajectory) -> Trajectory:
    """The episode as a watcher records it who cannot see the actions: mask tokens in their place, which nobody asks."""
    hidden = tuple(
        dataclasses.replace(unit, data={OCCLUDED: [0]}, is_expert=False) if unit.kind == Kind.ACTION else unit
        for unit in trajectory.units
    )
    return dataclasses.replace(trajectory, units=hidden)


def directory_of(config: DataConfig) -> Path:
    """`data.path`, or the folder in the cache where this configuration's collected episodes lie (or will lie)."""
    if config.path:
        return epath.Path(config.path)
    noise = f"-noise{config.noise:g}" if config.noise else ""
    counts = f"{config.num_episodes}-{config.num_validation_episodes}-{config.num_test_episodes}"
    return Path(config.cache_dir) / f"{config.environment}-{counts}{noise}"


def is_collected(directory: Path) -> bool:
    """True when the directory holds a finished collection."""
    try:
        return sources.read_manifest(directory).is_complete
    except FileNotFoundError:
        return False


def collection(config: DataConfig, directory: Path) -> list[str]:
    """The arguments of `anyorder_jax.collect` for the episodes that a configuration names."""
    noise = [f"--noise={config.noise}"] if config.noise else []
    return [
        f"--env={config.environment}", f"--output_dir={directory}", *noise, f"--num_episodes={config.num_episodes}",
        f"--num_validation_episodes={config.num_validation_episodes}",
        f"--num_test_episodes={config.num_test_episodes}",
    ]  # fmt: skip


def with_data_of(config: Config, run: Path, fingerprint: Mapping[str, Any]) -> Config:
    """A run's configuration with the place where its episodes lie now: the one that it remembers, or, when nothing is
    there, the same one beside the run (which was copied with them), if they are the same episodes. A place that is
    gone and cannot be made again (another machine's) becomes one beside the run, where they may be collected.

    Args:
      config: of the run.
      run: its directory.
      fingerprint: of its data, as its checkpoints have it.
    """
    data = config.data

    def is_the_same(directory: Path) -> bool:
        with contextlib.suppress(OSError, ValueError):  # whatever else lies there under this name
            return _shards_digest(sources.read_manifest(directory)) == fingerprint["shards_sha256"]
        return False

    found = paths.find(directory_of(data), run, is_the_same)
    moved: dict[str, Any] = {"path": found} if data.path else {"cache_dir": str(Path(found).parent)}
    if not data.path and not paths.can_be_made(found):
        moved["cache_dir"] = str(run.parent / Path(data.cache_dir).name)
    return dataclasses.replace(config, data=dataclasses.replace(data, **moved))


def _shards_digest(manifest: sources.Manifest) -> str:
    shards = [[shard.file, shard.sha256] for split in sorted(manifest.splits) for shard in manifest.splits[split]]
    return hashlib.sha256(json.dumps(shards).encode()).hexdigest()


def collect(config: DataConfig) -> None:
    """Collects the level's expert episodes into the cache, in a process of its own.

    Raises:
      ValueError: when the collection fails; its own lines say why.
    """
    command = [sys.executable, "-m", "anyorder_jax.collect", *collection(config, directory_of(config))]
    print(f"No episodes of {config.environment} at {directory_of(config)} yet: collecting them now (once).", flush=True)
    if subprocess.run(command, check=False).returncode:
        raise ValueError(f"Collecting {config.environment} failed; the lines above say why.")


def open_task(config: Config, tokenizer: str | Path = "") -> Task:
    """Opens the data directory and makes codec and vocabulary.

    Args:
      config: the run's configuration.
      tokenizer: the tokenizer directory of a trained checkpoint; empty: `data.tokenizer`, else `model.path` when it
        has one (a model directory, or a run's tokenizer/), else the built-in word-level one.

    Raises:
      FileNotFoundError, ValueError: for a missing or unreadable data directory, by name.
    """
    directory = directory_of(config.data)
    if not (config.data.path or is_collected(directory)):
        wanted = collection(config.data, Path(paths.absolute(directory)))
        raise FileNotFoundError(
            f"{directory}: the episodes that this configuration names are not there, or not all. Collect them "
            f"(`{paths.command('anyorder_jax.collect', *wanted)}`), or put them there again."
        )
    manifest = sources.read_manifest(directory)
    environment = manifest.environment
    codec = registry.make_codec(environment, config.data.profile)
    beside_model = [Path(config.model.path), Path(config.model.path) / "tokenizer"] if config.model.path else []
    candidates = [Path(given) for given in (tokenizer, config.data.tokenizer) if given] or [
        folder for folder in beside_model if (folder / "tokenizer_config.json").is_file()
    ]
    vocabulary = Vocabulary.from_directory(candidates[0], codec) if candidates else Vocabulary.builtin(codec)
    fingerprint = {
        "environment": environment,
        "shards_sha256": _shards_digest(manifest),
        "vocabulary_size": vocabulary.size,
    }
    skipped: list[str] | None = [] if config.data.on_bad_record == "skip" else None
    return Task(directory, environment, codec, vocabulary, fingerprint, skipped)
