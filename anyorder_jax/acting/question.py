"""Questions: examples with holes, as a generator is asked them, and what it answers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from anyorder_jax.types import DECISION, Field, Kind, Tokenised, Trajectory


class Question(NamedTuple):
    """An example with a hole: is_hidden_L: bool [L]. block_size: tokens that are filled before the next ones. number_U:
    of its units in the episode that it is made of, where it is made of one."""

    example: Tokenised
    is_hidden_L: np.ndarray
    block_size: int
    number_U: np.ndarray | None = None


class Answer(NamedTuple):
    """What was written. tokens_L: int32 [L], the example with its holes filled. probability_L: float32 [L], of each
    token when it was accepted, 1 elsewhere. num_passes: forward passes."""

    tokens_L: np.ndarray
    probability_L: np.ndarray
    num_passes: int


def next_step(episode: Trajectory, kind: Kind) -> int:
    """The step of a unit that follows the episode's last one: what an agent sees after its decision is the next."""
    last = episode.units[-1]
    return last.step + (kind in (Kind.OBSERVATION, Kind.USER) and last.kind in (*DECISION, Kind.TOOL))


def reaches_end(example: Tokenised, is_hidden_L: np.ndarray) -> np.ndarray:
    """bool [L]: hidden tokens with only hidden or end tokens behind them in their unit: there an end may stand."""
    unit_L = example.slots_GL[0]
    is_word_L = ~is_hidden_L & (example.field_L != Field.END) & (unit_L >= 0)
    last_word_U = np.full(len(example.kind_U), -1)
    places = np.flatnonzero(is_word_L)
    np.maximum.at(last_word_U, unit_L[places], places)
    return is_hidden_L & (np.arange(len(example)) > last_word_U[unit_L])
