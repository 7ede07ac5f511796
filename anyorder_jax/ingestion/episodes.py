"""Episodes of one file, a shard or a log of any format, as they are and without a collection made of them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from anyorder_jax.data import records, sources
from anyorder_jax.data.manifest import manifest_path
from anyorder_jax.formats import registry
from anyorder_jax.formats.parts import Reading
from anyorder_jax.ingestion import files as logs
from anyorder_jax.types import Trajectory


def read(path: str, first: int = 0, num: int = 1) -> list[Trajectory]:
    """Up to `num` episodes of a shard or of a log, from number `first` (from 0) on. Images are left out.

    Raises:
      FileNotFoundError, ValueError: when there is none, naming the place.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"--input: {path}: no such file. Name a shard (data/mine/test/shard-00000.jsonl) or a log."
        )
    if manifest_path(file.parent.parent).is_file() and file.name.startswith("shard-"):
        return sources.read_records(path, first, num)
    found = (entry for piece in logs.scan(file, lambda _: None).pieces for entry in logs.records(piece))
    chosen = list(itertools.islice(found, first, first + num))
    if not chosen:
        raise ValueError(f"--record={first}: {path} ends before it; the first is 0.")
    return [_episode(path, *entry) for entry in chosen]


def _episode(path: str, line: int, content: Any, reason: str) -> Trajectory:
    if isinstance(content, dict) and "units" in content:
        return records.record_to_trajectory(content, f"{path}:{line}")
    try:
        if reason:
            raise ValueError(reason)
        return registry.read(content, "auto", path, line, Reading(drop_images=True, is_unfinished=True))
    except ValueError as error:
        raise ValueError(f"{path}:{line}: {error}.") from None
