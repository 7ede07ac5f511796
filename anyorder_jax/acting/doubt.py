"""Doubt: what of the history the model itself finds improbable, so that it is hidden before it acts.

    history     o0  a0  o1  a1  o2  a2  o3      o3 is the newest: it is acted on as it is
    asked       x       x       x               each hidden in its turn, all else seen: a pass each
    surprise    .1      2.3     .2              o1 is not what the rest says: the model acts without it

Surprise is counted beyond what the model expects. Its expectation of log p is minus its entropy, so that what it cannot
know (a page that it has not seen yet) is no reason for doubt, and what contradicts the rest is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anyorder_jax.acting.generator import Generator
from anyorder_jax.acting.scores import Hole, Judged
from anyorder_jax.types import DECISION, Kind, Trajectory

TOLD = (Kind.OBSERVATION, Kind.TOOL)
"""What may be doubted: what the world says. What people want and what was done is not."""


class Doubt:
    """Finds doubtful units.

    Args:
      generator: of the checkpoint.
      kinds: what a decision is made of; it is hidden while the history is judged.
      limit: nats per token; what surprises by more is doubtful.
    """

    def __init__(self, generator: Generator, kinds: Sequence[Kind], limit: float) -> None:
        self._generator, self._kinds, self._limit = generator, tuple(kinds), limit

    def units(self, episodes: Sequence[Trajectory]) -> list[tuple[np.ndarray, int]]:
        """(numbers of the doubtful units among those that a context shows, passes) of each episode."""
        holes: list[Hole] = []
        asked: list[np.ndarray] = []
        for episode in episodes:
            question = self._generator.question(episode, self._kinds, [1] * len(self._kinds))
            example, number_U = question.example, question.number_U
            assert number_U is not None
            last = max((i for i, unit in enumerate(episode.units) if unit.kind in DECISION), default=-1)
            told = np.flatnonzero(np.isin(example.kind_U, TOLD) & (number_U < last))
            holes += [Hole(example, example.slots_GL[0] == u, question.is_hidden_L) for u in told]
            asked.append(number_U[told])
        surprise = np.array([surprise_of(judged) for judged in self._generator.scores.judge(holes)])
        parts = np.split(surprise, np.cumsum([len(numbers) for numbers in asked])[:-1])
        return [(n[own > self._limit], len(n)) for n, own in zip(asked, parts, strict=True)]


def surprise_of(judged: Judged) -> float:
    """Nats per token by which a unit is less probable than the model expects of it; 0 of an empty one."""
    return float((judged.expected_H - judged.log_p_H).mean()) if len(judged.log_p_H) else 0.0
