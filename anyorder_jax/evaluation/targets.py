"""Targets of grids: what one question asks, and the words, cells and units that it makes up."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from anyorder_jax.asking.questions import Ask
from anyorder_jax.asking.targets import Asked, collect_asked, gather, positions_of
from anyorder_jax.evaluation.questions import CELL, WORD
from anyorder_jax.types import Field, Kind, Tokenised


class Group(NamedTuple):
    """Slots of one size. of_T: int [T], the slot of each target token. size_S: its target tokens. is_whole_S:
    bool, all of its tokens are targets. ask_S, first_T: its ask, and the index of its first target token."""

    of_T: np.ndarray
    size_S: np.ndarray
    is_whole_S: np.ndarray
    ask_S: np.ndarray
    first_S: np.ndarray


@dataclass(frozen=True)
class GridTargets(Asked):
    """Asked tokens of A windows of a grid. field_T: `Field`. is_changed_T: it differs from the same token of the
    observation before (`changed_since`). words, cells, units: the slots they make up."""

    field_T: np.ndarray
    is_changed_T: np.ndarray
    words: Group
    cells: Group
    units: Group

    @property
    def episode_A(self) -> np.ndarray:
        """int [A]: the trajectory of each ask."""
        return np.array([ask.episode for ask in self.asks], np.int64)

    @property
    def num_episodes(self) -> int:
        """One more than the largest episode index."""
        return int(self.episode_A.max(initial=-1)) + 1


def _group(asks: Sequence[Ask], positions_A: Sequence[np.ndarray], ask_T: np.ndarray, row: int) -> Group:
    """The slots of granularity `row` that the target tokens belong to."""
    slots_A = [ask.example.slots_GL[row] for ask in asks]
    first_id_A = np.cumsum([0] + [int(slots.max(initial=-1)) + 1 for slots in slots_A])
    global_A = [slots[p] + f for slots, p, f in zip(slots_A, positions_A, first_id_A[:-1], strict=True)]
    full_size = np.zeros(first_id_A[-1], np.int64)
    for ask, slots, first in zip(asks, slots_A, first_id_A[:-1], strict=True):
        scored = slots[(slots >= 0) & (ask.example.field_L != Field.FILLER)]
        np.add.at(full_size, scored + first, 1)
    ids = np.concatenate(global_A) if global_A else np.zeros(0, np.int64)
    unique_S, first_S, of_T, size_S = np.unique(ids, return_index=True, return_inverse=True, return_counts=True)
    return Group(of_T, size_S, size_S == full_size[unique_S], ask_T[first_S], first_S)


def changed_since(example: Tokenised) -> np.ndarray:
    """bool [L]: tokens of an observation that differ from the same ones of the observation before, in the example.
    False where there is none before, or one of another length."""
    is_changed_L = np.zeros(len(example), bool)
    observations = np.flatnonzero(example.kind_U == Kind.OBSERVATION)
    places = [np.flatnonzero(example.slots_GL[0] == unit) for unit in observations]
    for before, now in itertools.pairwise(places):
        if len(before) == len(now):
            is_changed_L[now] = example.tokens_L[before] != example.tokens_L[now]
    return is_changed_L


def collect_targets(asks: Sequence[Ask]) -> GridTargets:
    """The table of all target tokens of the asks, of a grid."""
    asked, positions_A = collect_asked(asks), positions_of(asks)
    return GridTargets(
        **vars(asked),
        field_T=gather(asks, positions_A, lambda ask, p: ask.example.field_L[p]),
        is_changed_T=gather(asks, positions_A, lambda ask, p: changed_since(ask.example)[p], bool),
        words=_group(asks, positions_A, asked.ask_T, WORD),
        cells=_group(asks, positions_A, asked.ask_T, CELL),
        units=_group(asks, positions_A, asked.ask_T, 0),
    )
