"""TextCorpus: examples of a split of text, cut out when they are needed; the episodes stay on the disk.

Once, the split is read and the length of every unit written down (in a file beside the data). With that alone examples
are drawn and packed; a worker then reads and tokenises the records of its row.

    episode        steps 0 ................ 11         1,900 tokens, context_tokens 1,000: 2 examples an epoch
    epoch 0        [......... 4]    [........... 9]    each ends at a step drawn from its half of the steps,
    epoch 1        [.. 1]      [........... 8]         and shows what fits before it (`contexts`)

So a long episode is not repeated at each of its steps, and every step is an end sooner or later.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np

from anyorder_jax import keys
from anyorder_jax.data import branches, contexts, packing, sources, units
from anyorder_jax.data.branches import Texts as Texts
from anyorder_jax.data.text_index import Index
from anyorder_jax.types import Hidden, Tokenised, Trajectory

CACHED_TOKENS = 2**22
"""Tokens of whole trajectories that are kept for the next example (90 MB)."""

CACHED_BRANCHES = 1024
"""Records whose branches are."""


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
        """A digest of what is drawn from, in hex: the units' kinds, steps and lengths, and what an example may hold."""
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

    def pack(self, row_length: int, seed: int, block_size: int = 1, epoch: int = 0) -> packing.Packing:
        """The rows of an epoch, in which examples start at multiples of `block_size`.

        Args:
          row_length: L, tokens in a row.
          seed: of the packing.
          block_size: examples start at its multiples.
          epoch: whose examples are packed.
        """
        return packing.pack_aligned(self.lengths(epoch), row_length, seed, block_size, name=self.name)
