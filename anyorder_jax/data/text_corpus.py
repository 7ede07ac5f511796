"""TextCorpus: examples of a split of text, cut out when they are needed; the episodes stay on the disk.

Once, the split is read and the length of every unit written down (in a file beside the data). With that alone examples
are drawn and packed; a worker then reads and tokenises the records of its row.

    episode        steps 0 ................ 11         1,900 tokens, context_tokens 1,000: 2 examples an epoch
    epoch 0        [......... 4]    [........... 9]    each ends at a step drawn from its half of the steps,
    epoch 1        [.. 1]      [........... 8]         and shows what fits before it (`contexts`)

So a long episode is not repeated at each of its steps, and every step is an end sooner or later.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyorder_jax import keys
from anyorder_jax.data import branches, contexts, packing, sources, units
from anyorder_jax.data.branches import Texts as Texts
from anyorder_jax.types import Hidden, Tokenised, Trajectory

CHUNK = 256
"""Records whose texts are tokenised at once while lengths are counted."""

CACHED_TOKENS = 2**22
"""Tokens of whole trajectories that are kept for the next example (90 MB)."""

CACHED_BRANCHES = 1024
"""Records whose branches are."""


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
        """Of record r."""
        here = slice(self.unit_R1[r], self.unit_R1[r + 1])
        return contexts.UnitLengths(self.kind_U[here], self.step_U[here], self.width_U[here])


class TextCorpus:
    """The examples of a split; see the module.

    Args:
      directory: of the data.
      index: of `open_index`.
      texts: as the index was made.
      budget: tokens of an example at most.
      seed: of the drawn ends.
      branch_share: of the draws that ask what an action leads to, so many ask it of a branch (`branches`).
    """

    def __init__(
        self, directory: Path, index: Index, texts: Texts, budget: int, seed: int, branch_share: float = 0.0
    ) -> None:
        self._directory, self._index, self._texts = directory, index, texts
        self._branch_share = branch_share
        self._branches: OrderedDict[int, dict[int, tuple[branches.Branch, ...]]] = OrderedDict()
        self._budget, self._seed = budget, seed
        total_R = np.add.reduceat(index.width_U, index.unit_R1[:-1]) if len(index.file_R) else np.zeros(0, int)
        per_record = np.maximum(1, -(-total_R // budget)).astype(int)
        self.record_E = np.repeat(np.arange(len(total_R)), per_record)
        first_E = np.repeat(np.cumsum(per_record) - per_record, per_record)
        self._share_E = (np.arange(len(self.record_E)) - first_E, np.repeat(per_record, per_record))
        self._cache: OrderedDict[int, units.TokenisedTrajectory] = OrderedDict()
        self._cached_tokens = 0
        self._ends: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._lock = threading.Lock()

    def sha256(self) -> str:
        """Of what is drawn from, in hex: the units' kinds, steps and lengths, and what an example may hold."""
        content = hashlib.sha256(repr((self._budget, self._texts.layout)).encode())
        for array in (self._index.kind_U, self._index.step_U, self._index.width_U, self._index.unit_R1):
            content.update(np.ascontiguousarray(array).tobytes())
        return content.hexdigest()

    @property
    def num_episodes(self) -> int:
        """Records that can be used."""
        return len(self._index.file_R)

    def ends(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(last unit, tokens) of each example in an epoch, int [E] each."""
        with self._lock:
            if epoch not in self._ends:
                self._ends = {e: found for e, found in self._ends.items() if e >= epoch - 1}
                self._ends[epoch] = self._draw_ends(epoch)
            return self._ends[epoch]

    def lengths(self, epoch: int) -> np.ndarray:
        """int [E]: the tokens of each example in an epoch."""
        return self.ends(epoch)[1]

    def _draw_ends(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        draw_E = keys.generator(self._seed, "end step", epoch).random(len(self.record_E))
        end_E, length_E = np.zeros((2, len(draw_E)), np.int64)
        for e, (r, part, parts, draw) in enumerate(zip(self.record_E, *self._share_E, draw_E, strict=True)):
            lengths = self._index.lengths(r)
            ends = contexts.ends(lengths)
            end_E[e] = end = ends[int((part + draw) * len(ends) / parts)]
            length_E[e] = lengths.width_U[contexts.choose(lengths, end, self._budget)].sum()
        return end_E, length_E

    def example(self, e: int, epoch: int = 0) -> Tokenised:
        """Example number e of an epoch."""
        return contexts.context(self.whole(int(self.record_E[e])), int(self.ends(epoch)[0][e]), self._budget)

    def branched(
        self, e: int, epoch: int, example: Tokenised, hidden: Hidden, rng: np.random.Generator
    ) -> tuple[Tokenised, Hidden]:
        """See `pipeline.Examples`."""
        if not self._branch_share or hidden.order not in branches.ORDERS or rng.random() >= self._branch_share:
            return example, hidden
        r = int(self.record_E[e])
        of_whole = self._branches_of(r)
        numbers = contexts.choose(self._index.lengths(r), int(self.ends(epoch)[0][e]), self._budget)
        of_unit = {u: of_whole[n] for u, n in enumerate(numbers.tolist()) if n in of_whole}
        return branches.answer(rng, example, hidden, of_unit, self._texts)

    def _branches_of(self, r: int) -> dict[int, tuple[branches.Branch, ...]]:
        with self._lock:
            if r in self._branches:
                self._branches.move_to_end(r)
                return self._branches[r]
        trajectory = self.trajectory(r)
        try:
            found = branches.of(trajectory)
        except ValueError as error:
            place = sources.place_of(self._directory, trajectory.id)
            raise ValueError(f"{place}: trajectory {trajectory.id}: {error}") from None
        with self._lock:
            self._branches[r] = found
            while len(self._branches) > CACHED_BRANCHES:
                self._branches.popitem(last=False)
        return found

    def whole(self, r: int) -> units.TokenisedTrajectory:
        """Record number r, tokenised."""
        with self._lock:
            if r in self._cache:
                self._cache.move_to_end(r)
                return self._cache[r]
        whole = self._texts.tokenise(self.trajectory(r))
        with self._lock:
            if r not in self._cache:
                self._cache[r] = whole
                self._cached_tokens += len(whole)
            while self._cached_tokens > CACHED_TOKENS and len(self._cache) > 1:
                self._cached_tokens -= len(self._cache.popitem(last=False)[1])
        return whole

    def trajectory(self, r: int) -> Trajectory:
        """Record number r, read from its file."""
        index = self._index
        path = self._directory / index.files[index.file_R[r]]
        with path.open("rb") as file:
            file.seek(int(index.offset_R[r]))
            line = file.read(int(index.size_R[r]))
        return sources.record_to_trajectory(json.loads(line), f"{path}, byte {index.offset_R[r]}")

    def name(self, e: int) -> str:
        """What errors and reports call example e."""
        return f"trajectory {self.trajectory(int(self.record_E[e])).id}"

    def pack(self, row_length: int, seed: int, block_size: int = 1, epoch: int = 0) -> packing.Plan:
        """The rows of an epoch, in which examples start at multiples of `block_size`.

        Args:
          row_length: L, tokens in a row.
          seed: of the packing.
          block_size: examples start at its multiples.
          epoch: whose examples are packed.
        """
        return packing.pack_aligned(self.lengths(epoch), row_length, seed, block_size, name=self.name)


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
    """Of everything that lengths depend on."""
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
    """Beside, then renamed: a reader sees a whole file or none."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    about = {"files": index.files, "num_shortened": index.num_shortened, "skipped": index.skipped}
    arrays: dict[str, Any] = {name: x for name, x in index._asdict().items() if isinstance(x, np.ndarray)}
    try:
        with temporary.open("wb") as file:
            np.savez(file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> Index | None:
    try:
        with np.load(path, allow_pickle=False) as content:
            about = json.loads(content["about"].tobytes())
            arrays = {name: content[name] for name in Index._fields if name in content}
            return Index(**about, **arrays)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a broken index is made again
