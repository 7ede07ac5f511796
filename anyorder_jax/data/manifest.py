"""Manifest: what a directory of trajectories holds, how it was made, and the SHA-256 of every shard."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etils import epath

from anyorder_jax import files
from anyorder_jax.paths import command

SCHEMA_VERSION = 1
SPLITS = ("train", "validation", "test")

_SEEDS_PER_RUN = 10**7
_SPLIT_OFFSETS = {"train": (0, 8 * 10**6), "validation": (8 * 10**6, 9 * 10**6), "test": (9 * 10**6, 10**7)}


def seed_range(seed: int, split: str) -> range:
    """The environment seeds that belong to a split: no two splits, and no two values of `seed`, share one.

    Collection takes them from the start of the range, going on to the next where the expert fails.

    Args:
      seed: of the collection, >= 0.
      split: "train", "validation" or "test".
    """
    if split not in _SPLIT_OFFSETS:
        raise ValueError(f"sources: split {split!r} is unknown; expected one of {', '.join(SPLITS)}.")
    if seed < 0:
        raise ValueError(f"sources: the seed must be >= 0, got {seed}.")
    first, end = _SPLIT_OFFSETS[split]
    return range(seed * _SEEDS_PER_RUN + first, seed * _SEEDS_PER_RUN + end)


@dataclass(frozen=True)
class Shard:
    """One file of a split. `seeds` = [first, end): all that were tried; `failures`: (seed, reason) of those
    that the expert did not solve. `file` is relative to the directory of the manifest. `sha256`: of the lines, which
    may lie there compressed (`file` + ".zst"); of the compressed file, when `file` itself ends in ".zst"."""

    file: str
    num_episodes: int
    num_steps: int
    num_bytes: int
    sha256: str
    seeds: tuple[int, int] = (0, 0)
    failures: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What a directory holds. `settings`: everything that determines the bytes of the shards. `overlap`: held-out
    split -> how many of its episodes the training split holds as well (`overlap.count`); empty: nobody counted."""

    environment: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    splits: Mapping[str, tuple[Shard, ...]] = field(default_factory=dict)
    is_complete: bool = True
    overlap: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def manifest_path(directory: Path | str) -> Path:
    """Where the manifest of a directory lies."""
    return epath.Path(directory) / "manifest.json"


def write_manifest(directory: Path | str, manifest: Manifest) -> None:
    """Writes `manifest.json`. Raises OSError with the path when the disk refuses."""
    splits = {}
    for split, shards in manifest.splits.items():
        splits[split] = {
            "num_episodes": sum(shard.num_episodes for shard in shards),
            "num_steps": sum(shard.num_steps for shard in shards),
            "num_bytes": sum(shard.num_bytes for shard in shards),
            "num_failures": sum(len(shard.failures) for shard in shards),
            "shards": [dataclasses.asdict(shard) for shard in shards],
        }
    content = {
        "schema_version": SCHEMA_VERSION,
        "environment": manifest.environment,
        "is_complete": manifest.is_complete,
        "settings": dict(manifest.settings),
        "overlap": {split: dict(counts) for split, counts in manifest.overlap.items()},
        "splits": splits,
    }
    files.write_whole(manifest_path(directory), [json.dumps(content, indent=2).encode() + b"\n"])


def _collect_command(directory: Path | str) -> str:
    return command("anyorder_jax.collect", "--env=LEVEL", "--num_episodes=NUMBER", f"--output_dir={directory}")


def read_manifest(directory: Path | str) -> Manifest:
    """Reads and checks `manifest.json`.

    Raises:
      FileNotFoundError: no such directory, or no manifest in it.
      ValueError: the manifest is broken, or of another schema version.
    """
    path = manifest_path(directory)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{path.parent}: no such directory. Collect episodes there "
            f"(`{_collect_command(path.parent)}`), or name the directory that holds them."
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: not found, so {path.parent} is no directory of trajectories. Collect into it "
            f"(`{_collect_command(path.parent)}`), or describe your own shards with `sources.write_manifest`."
        )
    try:
        content = json.loads(path.read_bytes())
        version = content["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected JSON with a schema_version ({error}). Delete the file and collect again."
        ) from error
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path}: schema_version {version!r}, but this program reads {SCHEMA_VERSION}. Collect again, "
            "or use the release that wrote it."
        )
    try:
        splits = {
            split: tuple(
                Shard(
                    **{
                        **shard,
                        "seeds": (int(shard["seeds"][0]), int(shard["seeds"][1])),
                        "failures": tuple((int(seed), str(reason)) for seed, reason in shard["failures"]),
                    }
                )
                for shard in entry["shards"]
            )
            for split, entry in content["splits"].items()
        }
        overlap = {split: dict(counts) for split, counts in content.get("overlap", {}).items()}
        return Manifest(content["environment"], content["settings"], splits, bool(content["is_complete"]), overlap)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{path}: a field is missing or malformed ({type(error).__name__}: {error}). Delete the file and "
            "collect again."
        ) from error


def listed(manifest: Manifest, split: str) -> dict[str, Shard]:
    """The split's shards by file name, without ".zst"."""
    return {Path(shard.file).name.removesuffix(".zst"): shard for shard in manifest.splits.get(split, ())}
