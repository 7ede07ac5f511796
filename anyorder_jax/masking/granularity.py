"""Granularity: which tokens are hidden together.

The same example, numbered by each granularity ("-" is frame; a tokenizer cut the word "door" in two):

    tokens      <goal> go  to  <end> <observation> red ball grey do  or  <action> left
    unit          -    0   0    0         -         1   1    1   1   1      -      2
    cell          -    0   1    2         -         3   3    4   4   4      -      5
    attribute     -    0   1    2         -         3   4    5   6   6      -      7
    token         -    0   1    2         -         3   4    5   6   7      -      8

What the model sees when the slot of "do" is hidden (M is the mask token):

    unit        <goal> go  to  <end> <observation>  M   M    M   M   M   <action> left
    cell        <goal> go  to  <end> <observation> red ball  M   M   M   <action> left
    attribute   <goal> go  to  <end> <observation> red ball grey M   M   <action> left
    token       <goal> go  to  <end> <observation> red ball grey M   or  <action> left
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from anyorder_jax.types import TEXT_NAMES, Tokenised, offered_spans


class Slots(NamedTuple):
    """The slots of one granularity.

    slot_L: int32 [L], the slot of each token, -1 for frame. unit_S: int [S + 1], the unit of each slot; -1
    in the frame's entry at the end.
    """

    slot_L: np.ndarray
    unit_S: np.ndarray


def slots_of(example: Tokenised, granularity: str) -> Slots:
    """The example's slots at `granularity`.

    Raises:
      ValueError: when the example's renderer does not offer that span.
    """
    offered = offered_spans(example.levels)
    if granularity not in offered:
        raise ValueError(
            f"masking.granularity: {granularity!r} is no span of these trajectories; they offer {', '.join(offered)}."
        )
    level = granularity if granularity in example.levels else TEXT_NAMES[granularity]
    slot_L = example.slots_GL[example.levels.index(level)]
    unit_S = np.full(slot_L.max(initial=-1) + 2, -1)
    unit_S[slot_L] = example.slots_GL[0]
    return Slots(slot_L, unit_S)
