"""Provenance: whether data are those that a run began with, wherever they lie now."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from anyorder_jax import paths
from anyorder_jax.collected import directory_of
from anyorder_jax.config import Config, parse_sources
from anyorder_jax.data import sources


def differences(began: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, what two fingerprints of data disagree about. Only what both know counts: the first versions of this
    program wrote less, and not every job reads every split.

    Args:
      began: `Task.fingerprint` as a run stored it.
      now: the same of what is there now, read.
    """

    def differs(key: str) -> bool:
        return key in began and key in now and began[key] != now[key]

    def splits(files: Mapping[str, str]) -> set[str]:
        return {file.partition("/")[0] for file in files}

    old, new = began.get("files", {}), now.get("files", {})
    both = splits(old) & splits(new)
    changed = sorted(file for file, _ in old.items() ^ new.items() if file.partition("/")[0] in both)
    found = [
        f"{file} has other contents than when the run began" if file in old and file in new
        else f"{file} is new since the run began" if file in new
        else f"{file} is gone since the run began"
        for file in dict.fromkeys(changed)
    ]  # fmt: skip
    if not both and differs("shards_sha256"):
        found.append("manifest.json lists other shards than when the run began")
    if differs("environment"):
        found.append(f"the environment was {began['environment']!r}, now {now['environment']!r}")
    if differs("vocabulary_size"):
        found.append(f"the tokenizer had {began['vocabulary_size']} tokens, now {now['vocabulary_size']}")
    elif differs("vocabulary_sha256"):
        found.append("the tokenizer has other contents than when the run began: as many tokens, but other ids")
    pairs = zip(began.get("sources", ()), now.get("sources", ()), strict=False)
    for number, (before, after) in enumerate(pairs, start=1):
        found += [f"source {number} of the mixture: {sentence}" for sentence in differences(before, after)]
    if not found and differs("tokens_sha256"):
        found.append("the same files give other tokens than when the run began: codec or tokenizer changed")
    return found


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
    if data.sources:
        places = parse_sources(data.sources)
        began = fingerprint.get("sources", [{}] * len(places))
        now = [paths.find(place, run, partial(is_same, part)) for place, part in zip(places, began, strict=True)]
        text = ",".join(f"{place}:{weight!r}" for place, weight in zip(now, places.values(), strict=True))
        return dataclasses.replace(config, data=dataclasses.replace(data, sources=text))
    found = paths.find(directory_of(data), run, partial(is_same, fingerprint))
    moved: dict[str, Any] = {"path": found} if data.path else {"cache_dir": str(Path(found).parent)}
    if not data.path and not paths.can_be_made(found):
        moved["cache_dir"] = str(run.parent / Path(data.cache_dir).name)
    return dataclasses.replace(config, data=dataclasses.replace(data, **moved))


def is_same(fingerprint: Mapping[str, Any], directory: Path) -> bool:
    """Whether there are data in a directory, and those that a run remembers."""
    with contextlib.suppress(OSError, ValueError):  # whatever else lies there under this name
        return shards_digest(sources.read_manifest(directory)) == fingerprint.get("shards_sha256")
    return False


def shards_digest(manifest: sources.Manifest) -> str:
    """A digest of the names and SHA-256 of all files that a manifest lists, in hex."""
    shards = [[shard.file, shard.sha256] for split in sorted(manifest.splits) for shard in manifest.splits[split]]
    return hashlib.sha256(json.dumps(shards).encode()).hexdigest()
