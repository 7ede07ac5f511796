"""Baselines for any text: what a number is worth without a model.

    unigram         each token by how often units of its role have it in the training split
    copy            the latest earlier unit of the role that is seen, token by token
    most_frequent   the commonest unit of the role in the training split, token by token

The last two give texts and no probabilities, so they have no nll.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from anyorder_jax.asking.questions import Ask
from anyorder_jax.asking.targets import Asked, Prediction
from anyorder_jax.types import Field, Kind, Tokenised

BASELINES = ("unigram", "copy", "most_frequent")


class Counts:
    """What the units of a training split hold, by role, without injected ones.

    Args:
      examples: whole tokenised episodes.
      vocab_size: V.
      end_id: the end token; a unit's first one counts, those that fill its block do not.
    """

    def __init__(self, examples: Iterable[Tokenised], vocab_size: int, end_id: int) -> None:
        self._end_id = end_id
        self._count_RV = np.zeros((len(Kind), vocab_size), np.int64)
        units: list[Counter[bytes]] = [Counter() for _ in Kind]
        self.num_episodes = 0
        for example in examples:
            self.num_episodes += 1
            own_K = np.flatnonzero((example.slots_GL[0] >= 0) & (example.field_L != Field.END))
            borders = np.flatnonzero(np.diff(example.slots_GL[0, own_K])) + 1
            for unit, span in enumerate(np.split(own_K, borders)):  # every unit has a token
                if example.is_expert_U[unit]:
                    ids, kind = example.tokens_L[span].astype(np.int32), int(example.kind_U[unit])
                    np.add.at(self._count_RV[kind], ids, 1)
                    units[kind][ids.tobytes()] += 1
        commonest = [counter.most_common(1) for counter in units]
        self._unit_R = [np.frombuffer(found[0][0], np.int32) if found else None for found in commonest]

    def predict(self, name: str, targets: Asked) -> Prediction:
        """What one of BASELINES says about the targets."""
        match name:
            case "unigram":
                return self.unigram(targets)
            case "copy":
                return self._written(targets, _seen_before)
            case "most_frequent":
                return self._written(targets, lambda ask, unit: self._unit_R[ask.example.kind_U[unit]])
        raise ValueError(f"baselines: unknown baseline {name!r}; expected one of {', '.join(BASELINES)}.")

    def unigram(self, targets: Asked) -> Prediction:
        """p(v | role) = (count(role, v) + 1) / (sum_v count + V)."""
        count_RV = self._count_RV + 1
        p_RV = count_RV / count_RV.sum(1, keepdims=True)
        chosen_R = p_RV.argmax(1)
        return Prediction(
            -np.log(p_RV[targets.kind_T, targets.truth_T]), chosen_R[targets.kind_T], p_RV.max(1)[targets.kind_T]
        )

    def _written(self, targets: Asked, source: Callable[[Ask, int], np.ndarray | None]) -> Prediction:
        """Each unit as `source` writes it, token by token: ends behind it, -1 where there is none."""
        chosen_T = np.full(len(targets.truth_T), -1, np.int64)
        is_other_T = (np.diff(targets.ask_T, prepend=-1) != 0) | (np.diff(targets.unit_T, prepend=-1) != 0)
        for span in np.split(np.arange(len(chosen_T)), np.flatnonzero(is_other_T)[1:]) if len(chosen_T) else ():
            ids = source(targets.asks[targets.ask_T[span[0]]], int(targets.unit_T[span[0]]))
            if ids is not None:
                offset = targets.offset_T[span]
                chosen_T[span] = np.where(offset < len(ids), ids[np.minimum(offset, len(ids) - 1)], self._end_id)
        return Prediction(None, chosen_T)


def _seen_before(ask: Ask, unit: int) -> np.ndarray | None:
    """The tokens of the latest unit before `unit` of its kind of which nothing is hidden; None without one."""
    example, unit_L = ask.example, ask.example.slots_GL[0]
    hidden = np.unique(unit_L[ask.hidden.is_hidden_L])
    earlier = np.setdiff1d(np.flatnonzero(example.kind_U[:unit] == example.kind_U[unit]), hidden)
    return example.tokens_L[unit_L == earlier[-1]] if len(earlier) else None
