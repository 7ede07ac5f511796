"""Baselines for any text: what a number is worth without a model.

    unigram         each token by how often units of its role have it in the training split
    copy            the latest earlier unit of the role that is seen, token by token
    most_frequent   the commonest unit of the role in the training split, token by token

The last two give texts and no probabilities, so they have no nll.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from anyorder_jax.asking.questions import Ask
from anyorder_jax.asking.targets import Prediction, Targets
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
            unit_L = np.where(example.field_L == Field.END, -1, example.slots_GL[0])
            for unit in np.flatnonzero(example.is_expert_U).tolist():
                ids = example.tokens_L[unit_L == unit].astype(np.int32)
                kind = int(example.kind_U[unit])
                np.add.at(self._count_RV[kind], ids, 1)
                units[kind][ids.tobytes()] += 1
        commonest = [counter.most_common(1) for counter in units]
        self._unit_R = [np.frombuffer(found[0][0], np.int32) if found else None for found in commonest]

    def predict(self, name: str, targets: Targets) -> Prediction:
        """What one of BASELINES says about the targets."""
        match name:
            case "unigram":
                return self.unigram(targets)
            case "copy":
                return Prediction(None, _aligned(targets, self._previous(targets), self._end_id))
            case "most_frequent":
                units = {(a, u): self._unit_R[targets.asks[a].example.kind_U[u]] for a, u in _units(targets)}
                return Prediction(None, _aligned(targets, units, self._end_id))
        raise ValueError(f"baselines: unknown baseline {name!r}; expected one of {', '.join(BASELINES)}.")

    def unigram(self, targets: Targets) -> Prediction:
        """p(v | role) = (count(role, v) + 1) / (sum_v count + V)."""
        count_RV = self._count_RV + 1
        p_RV = count_RV / count_RV.sum(1, keepdims=True)
        chosen_R = p_RV.argmax(1)
        return Prediction(
            -np.log(p_RV[targets.kind_T, targets.truth_T]), chosen_R[targets.kind_T], p_RV.max(1)[targets.kind_T]
        )

    def _previous(self, targets: Targets) -> dict[tuple[int, int], np.ndarray | None]:
        return {(a, u): _seen_before(targets.asks[a], u) for a, u in _units(targets)}


def _units(targets: Targets) -> list[tuple[int, int]]:
    """(ask, unit) of every unit that has a target."""
    unit_T = [targets.asks[a].example.slots_GL[0, p] for a, p in zip(targets.ask_T, targets.position_T, strict=True)]
    return list(dict.fromkeys(zip(targets.ask_T.tolist(), map(int, unit_T), strict=True)))


def _seen_before(ask: Ask, unit: int) -> np.ndarray | None:
    """The tokens of the latest unit before `unit` of its kind of which nothing is hidden; None without one."""
    example, unit_L = ask.example, ask.example.slots_GL[0]
    hidden = np.unique(unit_L[ask.hidden.is_hidden_L])
    earlier = np.setdiff1d(np.flatnonzero(example.kind_U[:unit] == example.kind_U[unit]), hidden)
    return example.tokens_L[unit_L == earlier[-1]] if len(earlier) else None


def _aligned(targets: Targets, source: dict[tuple[int, int], np.ndarray | None], end_id: int) -> np.ndarray:
    """int [T]: the token at each target's place in its unit's source, an end behind it, -1 where there is no source."""
    chosen_T = np.full(len(targets.truth_T), -1, np.int64)
    for t, (a, place, offset) in enumerate(zip(targets.ask_T, targets.position_T, targets.offset_T, strict=True)):
        ids = source[int(a), int(targets.asks[a].example.slots_GL[0, place])]
        if ids is not None:
            chosen_T[t] = ids[offset] if offset < len(ids) else end_id
    return chosen_T
