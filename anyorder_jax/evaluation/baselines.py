"""Trivial predictors: what a number is worth without a model.

most frequent   each slot's commonest word in the training split; its nll is the unigram's of that slot
copy previous   the same slot of the latest earlier observation that shows it, else the most frequent
always forward  the action `forward` (any constant word)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from anyorder_jax.asking.questions import Ask
from anyorder_jax.asking.targets import Asked, Prediction, first_places
from anyorder_jax.types import Kind, Tokenised


class SlotMarginals:
    """How often each token stands at each place of each kind of unit, with one imagined count per known
    token.

        p(v | kind, place) = (count(kind, place, v) + 1) / (sum_v count + number of tokens seen in that kind)

    A place is the token's offset in its unit. Tokens never seen in the kind share the imagined count of one.
    """

    def __init__(self, examples: Iterable[Tokenised]) -> None:
        """Counts whole training examples (not windows: these would count overlaps twice), without injected
        actions.

        Raises:
          ValueError: when there is nothing to count.
        """
        columns: dict[Kind, list[np.ndarray]] = {}
        for example in examples:
            unit_L = example.slots_GL[0]
            inside_L = np.flatnonzero((unit_L >= 0) & example.is_expert_U[unit_L])
            kind_L, offset_L = example.kind_U[unit_L[inside_L]], inside_L - first_places(example)[unit_L[inside_L]]
            for kind in np.unique(kind_L):
                chosen = kind_L == kind
                pair = np.stack([offset_L[chosen], example.tokens_L[inside_L][chosen]])
                columns.setdefault(Kind(int(kind)), []).append(pair)
        if not columns:
            raise ValueError("baselines: no training example to count; expected at least one trajectory.")
        self._ids: dict[Kind, np.ndarray] = {}
        self._counts: dict[Kind, np.ndarray] = {}
        for kind, pairs in columns.items():
            places, ids = np.concatenate(pairs, axis=1)
            self._ids[kind], column = np.unique(ids, return_inverse=True)
            counts_PV = np.zeros((places.max() + 1, len(self._ids[kind])))
            np.add.at(counts_PV, (places, column), 1)
            self._counts[kind] = counts_PV

    def predict(self, targets: Asked) -> Prediction:
        """The unigram of each slot: nll and commonest token."""
        place_T = targets.offset_T
        nll_T, chosen_T = np.zeros(len(place_T)), np.full(len(place_T), -1, np.int64)
        for kind in np.unique(targets.kind_T):
            is_kind_T = targets.kind_T == kind
            nll_T[is_kind_T], chosen_T[is_kind_T] = self._look_up(
                Kind(int(kind)), place_T[is_kind_T], targets.truth_T[is_kind_T]
            )
        return Prediction(nll_T, chosen_T)

    def _look_up(self, kind: Kind, place_T: np.ndarray, truth_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if kind not in self._counts:
            raise ValueError(f"baselines: the training examples have no {kind.name.lower()} unit to count.")
        counts_PV, ids_V = self._counts[kind], self._ids[kind]
        is_known_place_T = place_T < len(counts_PV)  # longer free text than any in training
        row_TV = np.where(is_known_place_T[:, None], counts_PV[np.minimum(place_T, len(counts_PV) - 1)], 0)
        column_T = np.minimum(np.searchsorted(ids_V, truth_T), len(ids_V) - 1)
        is_known_T = ids_V[column_T] == truth_T
        seen_T = np.where(is_known_T, np.take_along_axis(row_TV, column_T[:, None], 1)[:, 0], 0)
        nll_T = np.log(row_TV.sum(1) + len(ids_V)) - np.log(seen_T + 1)
        return nll_T, ids_V[row_TV.argmax(1)]

    def action_log_marginals(self, words: Sequence[Sequence[int]]) -> np.ndarray:
        """log of each action's share in training, float [A]; -inf where it never occurs. No imagined counts:
        this is the policy without a model, and an expert's unused action stays unused.

        Args:
          words: the ids of each action word.
        """
        counts_PV, ids_V = self._counts[Kind.ACTION], self._ids[Kind.ACTION]
        first = [int(np.searchsorted(ids_V, ids[0])) for ids in words]
        counts_A = np.array(
            [
                counts_PV[0, i] if i < len(ids_V) and ids_V[i] == ids[0] else 0
                for i, ids in zip(first, words, strict=True)
            ]
        )
        with np.errstate(divide="ignore"):
            return np.log(counts_A / counts_A.sum())


def copy_previous(targets: Asked, fallback: Prediction) -> Prediction:
    """For observations: the same slot in the latest earlier observation of the window that shows it.
    Elsewhere, and where no earlier one shows it, `fallback`. It has no probabilities."""
    chosen_T = fallback.chosen_T.copy()
    start_A = np.searchsorted(targets.ask_T, np.arange(len(targets.asks) + 1))
    for a, ask in enumerate(targets.asks):
        mine = slice(start_A[a], start_A[a + 1])
        if (targets.kind_T[mine] == Kind.OBSERVATION).any():
            known_L = _latest_visible(ask)
            copied_T = known_L[targets.position_T[mine]]
            chosen_T[mine] = np.where(copied_T >= 0, copied_T, chosen_T[mine])
    return Prediction(None, chosen_T)


def _latest_visible(ask: Ask) -> np.ndarray:
    """int [L]: the id that the same slot had when an observation last showed it before; -1 for none."""
    unit_L, tokens_L = ask.example.slots_GL[0], ask.example.tokens_L
    previous_L = np.full(len(tokens_L), -1, np.int64)
    seen: np.ndarray | None = None
    for unit in np.flatnonzero(ask.example.kind_U == Kind.OBSERVATION):
        positions = np.flatnonzero(unit_L == unit)
        seen = np.full(len(positions), -1, np.int64) if seen is None else seen
        assert len(seen) == len(positions), "observations of one environment have the same number of slots"
        previous_L[positions] = seen
        seen = np.where(ask.hidden.is_hidden_L[positions], seen, tokens_L[positions])
    return previous_L


def always(ids: Sequence[int], targets: Asked, kind: Kind) -> Prediction:
    """The same word in every unit of one kind, -1 elsewhere. It has no probabilities.

    Args:
      ids: of the word.
      targets: what is asked.
      kind: of the units that get the word.
    """
    chosen_T = np.full(len(targets.truth_T), -1, np.int64)
    for t in np.flatnonzero(targets.kind_T == kind):
        place = targets.offset_T[t]
        chosen_T[t] = ids[place] if place < len(ids) else -1
    return Prediction(None, chosen_T)
