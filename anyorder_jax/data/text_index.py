"""Index of a split of text: where its records lie and how long their units are, kept in DATA/lengths/."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyorder_jax import files
from anyorder_jax.data import contexts, sources, units
from anyorder_jax.data.branches import Texts

CHUNK = 256
"""Records whose texts are tokenised at once while lengths are counted."""


class Index(NamedTuple):
    """Where the records of a split lie and how long their units are.

    files: names relative to the directory. file_R, offset_R, size_R: place of record r, in bytes. unit_R1: int [R + 1],
    record r has units unit_R1[r] : unit_R1[r + 1] of the arrays over units: kind_U, step_U, and width_U, tokens with
    the frame before it. num_shortened: units that are shortened. skipped: a sentence for each record that was left out.
    """

    files: list[str]
    file_R: np.ndarray
    offset_R: np.ndarray
    size_R: np.ndarray
    unit_R1: np.ndarray
    kind_U: np.ndarray
    step_U: np.ndarray
    width_U: np.ndarray
    num_shortened: int
    skipped: list[str]

    def lengths(self, r: Any) -> contexts.UnitLengths:
        """Kinds, steps and lengths of the units of record r."""
        here = slice(self.unit_R1[r], self.unit_R1[r + 1])
        return contexts.UnitLengths(self.kind_U[here], self.step_U[here], self.width_U[here])


def open_index(
    directory: Path,
    split: str,
    texts: Texts,
    limit: int = 0,
    on_bad: Callable[[str], None] | None = None,
    digests: MutableMapping[str, str] | None = None,
) -> Index:
    """The index of a split: read from beside the data when it was made of the same bytes, else made and kept there.

    Args:
      directory: with manifest.json.
      split: "train", "validation" or "test".
      texts: how text becomes tokens.
      limit: the first so many episodes; 0: all.
      on_bad: gets the sentence about each record that cannot be used, which is then left out; None: it is raised.
      digests: as `sources.read_trajectories`.

    Raises:
      FileNotFoundError, ValueError: as `sources.read_trajectories`.
    """
    manifest = sources.read_manifest(directory)
    key = _key(manifest, split, texts, limit)
    path = directory / "lengths" / f"{split}-{key}.npz"
    index = _read(path) if path.is_file() else None
    if index is not None:
        sources.check_shards(directory, split, digests)
        if index.skipped and on_bad is None:
            raise ValueError(index.skipped[0])
    else:
        index = _measure(directory, split, texts, limit, on_bad, digests)
        with contextlib.suppress(OSError):  # a read-only collection is measured anew every time
            _write(path, index)
    for sentence in index.skipped:
        if on_bad is not None:
            on_bad(sentence)
    if not len(index.file_R):
        raise ValueError(f"{directory / split}: no episode can be used; {len(index.skipped)} were left out.")
    return index


def _key(manifest: sources.Manifest, split: str, texts: Texts, limit: int) -> str:
    """A digest of everything that lengths depend on: the index of other data or another tokenizer has another."""
    shards = [[shard.file, shard.sha256] for shard in manifest.splits.get(split, ())]
    content = [shards, limit, texts.vocabulary.sha256(), *texts.layout, texts.codec.name]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _measure(
    directory: Path,
    split: str,
    texts: Texts,
    limit: int,
    on_bad: Callable[[str], None] | None,
    digests: MutableMapping[str, str] | None,
) -> Index:
    files: list[str] = []
    rows: list[tuple[int, int, int]] = []
    counts: list[int] = []
    kinds: list[int] = []
    steps: list[int] = []
    widths: list[int] = []
    skipped: list[str] = []
    num_shortened = 0

    def refuse(sentence: str) -> None:
        if on_bad is None:
            raise ValueError(sentence)
        skipped.append(sentence)

    for chunk in _chunks(sources.iterate_places(directory, split, limit, refuse, digests)):
        widths_U = iter(units.unit_widths([t for _, t in chunk], texts.codec, texts.vocabulary, texts.layout))
        for place, trajectory in chunk:
            found = [next(widths_U) for _ in trajectory.units]
            bad = next((reason for _, _, reason in found if reason), "")
            if bad:
                refuse(f"{place.path}:{place.line}: trajectory {trajectory.id}: {bad}")
                continue
            if place.path.suffix == ".zst":
                raise ValueError(
                    f"{place.path}: compressed shards cannot be read in any order, which data.context_tokens needs. "
                    "Unpack them (`zstd -d --rm`)."
                )
            name = f"{place.path.parent.name}/{place.path.name}"
            if not files or files[-1] != name:
                files.append(name)
            rows.append((len(files) - 1, place.offset, place.size))
            counts.append(len(found))
            kinds += [unit.kind for unit in trajectory.units]
            steps += [unit.step for unit in trajectory.units]
            widths += [width for width, _, _ in found]
            num_shortened += sum(is_shortened for _, is_shortened, _ in found)
    file_R, offset_R, size_R = np.array(rows, np.int64).reshape(-1, 3).T
    return Index(
        files, file_R, offset_R, size_R, np.append(0, np.cumsum(counts)).astype(np.int64), np.array(kinds, np.int8),
        np.array(steps, np.int32), np.array(widths, np.int32), num_shortened, skipped,
    )  # fmt: skip


def _chunks(items: Iterator[Any]) -> Iterator[list[Any]]:
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _write(path: Path, index: Index) -> None:
    about = {"files": index.files, "num_shortened": index.num_shortened, "skipped": index.skipped}
    arrays: dict[str, Any] = {name: x for name, x in index._asdict().items() if isinstance(x, np.ndarray)}
    with files.opened_whole(path) as file:
        np.savez(file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)


def _read(path: Path) -> Index | None:
    try:
        with np.load(path, allow_pickle=False) as content:
            about = json.loads(content["about"].tobytes())
            arrays = {name: content[name] for name in Index._fields if name in content}
            return Index(**about, **arrays)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a broken index is made again
