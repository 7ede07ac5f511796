"""Merge: staged parts -> shards. Joins records of one episode, drops doubles, splits by task, writes.

Only the parts' tables are held in memory (56 bytes an episode); lines are copied from file to file.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from anyorder_jax.data import sources
from anyorder_jax.formats.toolbench import join
from anyorder_jax.ingestion.splits import assign
from anyorder_jax.ingestion.stage import Column, PartWriter, part_path
from anyorder_jax.types import Kind

SHARD_BYTES = 64 * 2**20
_SHARD_EPISODES = 10_000


Begin = Callable[[int, str], contextlib.AbstractContextManager[Any]]
"""Makes a progress, whose `update` is told of bytes that are done (`anyorder_jax.progress.Progress`)."""


class Merged(NamedTuple):
    """The shards of every split that has some, and what was counted.

    counts: by split `episodes`, `tasks`, `units` and `characters` (by role); and `duplicates`, `joined_records`.
    of_joined: what `source.counts` of the joined episodes says, in all.
    """

    splits: dict[str, tuple[sources.Shard, ...]]
    counts: dict[str, Any]
    of_joined: Counter[str]


class _Parts:
    """Reads lines of parts; keeps one file open."""

    def __init__(self, staging: Path):
        self._staging = staging
        self._number = -1
        self._file: BinaryIO | None = None

    def table(self, number: int) -> np.ndarray:
        """The table of a part, [episodes, columns], left on disk."""
        return np.load(part_path(self._staging, number, ".npy"), mmap_mode="r", allow_pickle=False)

    def line(self, number: int, offset: int, length: int) -> bytes:
        """A line without its newline."""
        if number != self._number:
            self.close()
            self._number = number
            self._file = open(part_path(self._staging, number, ".jsonl"), "rb")  # noqa: SIM115 (see `close`)
        assert self._file is not None
        self._file.seek(offset)
        return self._file.read(length)[:-1]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _index(parts: _Parts, num_parts: int) -> np.ndarray:
    """int64/uint64 [N, 9]: part, row, then the first seven columns, of all episodes in order."""
    tables = []
    for number in range(num_parts):
        table = parts.table(number)
        head = np.zeros((len(table), 2 + Column.UNITS), np.uint64)
        head[:, 0], head[:, 1], head[:, 2:] = number, np.arange(len(table)), table[:, : Column.UNITS]
        tables.append(head)
    return np.concatenate(tables)


def _joined(
    parts: _Parts, staging: Path, index_NC: np.ndarray, num_parts: int, begin: Begin
) -> tuple[np.ndarray, int, Counter[str]]:
    """The index with the records that belong together replaced by their episodes (written as one more part).

    Returns:
      (index, records that went into episodes of others, counts of the episodes).
    """
    keys_N = index_NC[:, 2 + Column.JOIN]
    with_key = np.flatnonzero(keys_N)
    if not len(with_key):
        return index_NC, 0, Counter()
    order = with_key[np.argsort(keys_N[with_key], kind="stable")]
    groups = np.split(order, np.flatnonzero(np.diff(keys_N[order])) + 1)
    groups.sort(key=lambda group: int(group[0]))
    writer = PartWriter(staging, num_parts)
    counts: Counter[str] = Counter()
    position_of: list[int] = []  # where the group's first record stood
    num_bytes = int(index_NC[with_key, 2 + Column.LENGTH].sum())
    with begin(num_bytes, "ingest: joining") as bar, open(part_path(staging, num_parts, ".jsonl"), "wb") as lines:
        for group in groups:
            bar.update(int(index_NC[group, 2 + Column.LENGTH].sum()))
            records = [
                json.loads(parts.line(*(int(v) for v in index_NC[i, [0, 2 + Column.OFFSET, 2 + Column.LENGTH]])))
                for i in group
            ]
            for episode in join([sources.record_to_trajectory(record) for record in records]):
                writer.write(lines, episode)
                position_of.append(int(group[0]))
                counts += Counter(episode.source.get("counts", {}))
    writer.write_table()
    table = parts.table(num_parts)
    new = np.zeros((len(table), index_NC.shape[1]), np.uint64)
    new[:, 0], new[:, 1], new[:, 2:] = num_parts, np.arange(len(table)), table[:, : Column.UNITS]
    single = np.flatnonzero(keys_N == 0)
    both = np.concatenate([index_NC[single], new])
    positions = np.concatenate([single, np.asarray(position_of, np.int64)])
    return both[np.argsort(positions, kind="stable")], len(with_key) - len(table), counts


def _first_of_each(values_N: np.ndarray) -> np.ndarray:
    """bool [N]: whether the value has not occurred before."""
    is_first_N = np.zeros(len(values_N), bool)
    is_first_N[np.unique(values_N, return_index=True)[1]] = True
    return is_first_N


def _write_split(
    parts: _Parts, directory: Path, split: str, index_NC: np.ndarray, is_renamed_N: np.ndarray,
    advance: Callable[[int], None],
) -> tuple[sources.Shard, ...]:  # fmt: skip
    """Writes the episodes of a split, in order, as shards of about 64 MB. A renamed one gets its content's hash behind
    its id, which another episode has, too."""
    lengths_N = index_NC[:, 2 + Column.LENGTH].astype(np.int64)
    shards: list[sources.Shard] = []
    first = 0
    while first < len(index_NC):
        size = int(np.searchsorted(np.cumsum(lengths_N[first : first + _SHARD_EPISODES]), SHARD_BYTES)) + 1
        rows = range(first, min(first + size, first + _SHARD_EPISODES, len(index_NC)))

        def lines(rows: range = rows) -> Iterator[bytes]:
            for i in rows:
                part, _, offset, length = (int(value) for value in index_NC[i, :4])
                line = parts.line(part, offset, length)
                if is_renamed_N[i]:
                    record = json.loads(line)
                    record["id"] += f"#{int(index_NC[i, 2 + Column.CONTENT]):016x}"
                    line = sources.encode(sources.record_to_trajectory(record))
                advance(length)
                yield line

        file = f"{split}/shard-{len(shards):05d}.jsonl"
        num_bytes, sha256 = sources.write_shard(directory / file, lines())
        num_steps = int(index_NC[rows.start : rows.stop, 2 + Column.STEPS].sum())
        shards.append(sources.Shard(file, len(rows), num_steps, num_bytes, sha256))
        first = rows.stop
    return tuple(shards)


def _by_role(parts: _Parts, index_NC: np.ndarray) -> tuple[dict[str, int], dict[str, int]]:
    """(units, characters) of each role that occurs."""
    total = np.zeros(2 * len(Kind), np.int64)
    for number in np.unique(index_NC[:, 0]):
        rows = index_NC[index_NC[:, 0] == number, 1].astype(np.int64)
        total += parts.table(int(number))[rows, Column.UNITS :].astype(np.int64).sum(axis=0)
    units, characters = total[: len(Kind)], total[len(Kind) :]
    return tuple(  # type: ignore[return-value]
        {kind.name.lower(): int(sums[kind]) for kind in Kind if units[kind]} for sums in (units, characters)
    )


def merge(staging: Path, directory: Path, num_parts: int, validation: float, test: float, begin: Begin) -> Merged:
    """Writes the shards.

    Args:
      staging: holds the parts.
      directory: gets a folder for every split that has episodes.
      num_parts: staged.
      validation: share of the tasks.
      test: share of the tasks.
      begin: of a progress: called with the bytes to come and what is done with them.

    Raises:
      ValueError: no episode is there.
      OSError: the disk refuses.
    """
    parts = _Parts(staging)
    try:
        index_NC, num_joined, of_joined = _joined(parts, staging, _index(parts, num_parts), num_parts, begin)
        if not len(index_NC):
            raise ValueError("ingest: no episode is left: the files hold no record, or all were refused as said above.")
        is_new_N = _first_of_each(index_NC[:, 2 + Column.CONTENT])
        num_duplicates = int((~is_new_N).sum())
        index_NC = index_NC[is_new_N]
        is_renamed_N = ~_first_of_each(index_NC[:, 2 + Column.ID])
        split_N = assign(index_NC[:, 2 + Column.TASK], validation, test)
        splits, counts = {}, {}
        with begin(int(index_NC[:, 2 + Column.LENGTH].sum()), "ingest: writing") as bar:
            for number, split in enumerate(sources.SPLITS):
                chosen_N = split_N == number
                here_NC = index_NC[chosen_N]
                if not len(here_NC):
                    continue
                splits[split] = _write_split(parts, directory, split, here_NC, is_renamed_N[chosen_N], bar.update)
                units, characters = _by_role(parts, here_NC)
                num_tasks = len(np.unique(here_NC[:, 2 + Column.TASK]))
                counts[split] = {
                    "episodes": len(here_NC), "tasks": num_tasks, "units": units, "characters": characters,
                }  # fmt: skip
    finally:
        parts.close()
    told = {"duplicates": num_duplicates, "joined_records": num_joined}
    return Merged(splits, {**counts, **told}, of_joined)


def refused_lines(staging: Path, num_parts: int) -> Iterator[bytes]:
    """The refused records of all parts, a JSON object each."""
    for number in range(num_parts):
        with open(part_path(staging, number, ".refused"), "rb") as file:
            for line in file:
                yield line.rstrip(b"\n")
