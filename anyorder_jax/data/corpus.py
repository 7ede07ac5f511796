"""Corpus: a split in memory, every example a window of steps or a whole trajectory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from anyorder_jax.data import branches, packing, units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.types import Codec, Hidden, Tokenised, Trajectory


class Corpus(NamedTuple):
    """All examples of a split, ready to be cut out.

    trajectories: tokenised, whole. ids: their record ids. record_E, end_step_E: int32, example e is the
    window of trajectory record_E[e] that ends at end_step_E[e]. length_E: int32, its tokens. window: steps, 0
    for whole ones. branches_R: of each trajectory, or empty: then none is asked; branch_share and texts: as in
    `text_corpus.TextCorpus`.
    """

    trajectories: tuple[units.TokenisedTrajectory, ...]
    ids: tuple[str, ...]
    record_E: np.ndarray
    end_step_E: np.ndarray
    length_E: np.ndarray
    window: int
    branches_R: tuple[Mapping[int, tuple[branches.Branch, ...]], ...] = ()
    branch_share: float = 0.0
    texts: branches.Texts | None = None

    @classmethod
    def build(
        cls,
        trajectories: Sequence[Trajectory],
        codec: Codec,
        vocabulary: Vocabulary,
        window: int,
        on_bad: Callable[[str, str], None] | None = None,
        layout: units.Layout = units.DEFAULT_LAYOUT,
        branch_share: float = 0.0,
    ) -> Corpus:
        """Tokenises everything once.

        Args:
          trajectories: the split's records.
          codec: of their environment.
          vocabulary: made from that codec.
          window: H > 0: one example for every step at which a window of H steps can end, the last observation
            (which no action follows) included; 0: one example a trajectory.
          on_bad: gets the id of a trajectory that cannot be used and the reason; if it returns, the trajectory is left
            out. None: the reason is raised.
          layout: of running text.
          branch_share: of the draws that ask what an action leads to, so many ask it of a branch.

        Raises:
          ValueError: for a trajectory without steps, or with words that the vocabulary lacks, by its id.
        """
        tokenised: list[units.TokenisedTrajectory] = []
        ids: list[str] = []
        branches_R: list[Mapping[int, tuple[branches.Branch, ...]]] = []
        record_E, end_step_E, length_E = [], [], []
        for trajectory in trajectories:
            try:
                whole = units.tokenise(trajectory, codec, vocabulary, layout)
                if whole.num_steps == 0:
                    raise ValueError("expected a goal and at least one step, got no step.")
                if branch_share:
                    branches_R.append(branches.of(trajectory))
            except ValueError as error:
                if on_bad is None:
                    raise ValueError(f"trajectory {trajectory.id}: {error}") from error
                on_bad(trajectory.id, str(error))
                continue
            end_S = np.arange(whole.num_steps) if window else np.array([whole.num_steps - 1])
            first_S = np.maximum(0, end_S - (window or whole.num_steps) + 1)
            record_E.append(np.full(len(end_S), len(tokenised)))
            tokenised.append(whole)
            ids.append(trajectory.id)
            end_step_E.append(end_S)
            length_E.append(whole.token_S1[0] + whole.token_S1[end_S + 1] - whole.token_S1[first_S])

        def join(parts: list[np.ndarray]) -> np.ndarray:
            return np.concatenate(parts).astype(np.int32) if parts else np.zeros(0, np.int32)

        return cls(
            tuple(tokenised), tuple(ids), join(record_E), join(end_step_E), join(length_E), window,
            tuple(branches_R), branch_share, branches.Texts(codec, vocabulary, layout),
        )  # fmt: skip

    def sha256(self) -> str:
        """Of the token ids, fields, kinds and steps of all trajectories, in hex: what records, codec and tokenizer
        together made of them."""
        digest = hashlib.sha256()
        for whole in self.trajectories:
            for array in (whole.tokens_L, whole.field_L, whole.kind_U, whole.step_U, whole.is_expert_U):
                digest.update(len(array).to_bytes(8, "little") + array.tobytes())
        return digest.hexdigest()

    def example(self, e: int, epoch: int = 0) -> Tokenised:
        """Example number e, the same in every epoch."""
        whole = self.trajectories[self.record_E[e]]
        return units.window(whole, int(self.end_step_E[e]), self.window) if self.window else whole

    def branched(
        self, e: int, epoch: int, example: Tokenised, hidden: Hidden, rng: np.random.Generator
    ) -> tuple[Tokenised, Hidden]:
        """See `Examples`."""
        if not self.branch_share or hidden.order not in branches.ORDERS or rng.random() >= self.branch_share:
            return example, hidden
        assert self.texts is not None
        r = int(self.record_E[e])
        whole, of_whole = self.trajectories[r], self.branches_R[r]
        end = int(self.end_step_E[e])
        first = max(0, end - self.window + 1) if self.window else 0
        num_goals = int(whole.unit_S1[0])
        skipped = int(whole.unit_S1[first]) - num_goals  # units between the goal and the window
        of_unit = {n - skipped: of_whole[n] for n in of_whole if num_goals <= n - skipped < len(example.kind_U)}
        return branches.answer(rng, example, hidden, of_unit, self.texts)

    def lengths(self, epoch: int = 0) -> np.ndarray:
        """int [E]: the tokens of each example, the same in every epoch."""
        return self.length_E

    def name(self, e: int) -> str:
        """What errors and reports call example e."""
        where = f", {self.window} steps to step {self.end_step_E[e]}" if self.window else ""
        return f"trajectory {self.ids[self.record_E[e]]}{where}"

    def pack(self, row_length: int, seed: int, block_size: int = 1, epoch: int = 0) -> packing.Packing:
        """The packing of rows, in which examples start at multiples of `block_size`; the same in every epoch.

        Args:
          row_length: L, tokens in a row.
          seed: of the packing.
          block_size: examples start at its multiples.
          epoch: whose examples are packed.

        Raises:
          ValueError: if an example is longer than a row, by its name.
        """
        return packing.pack_aligned(self.length_E, row_length, seed, block_size, name=self.name)
