"""Slips: actions that a world refuses, made of the words of actions that it takes.

    it takes    open fridge | take red apple | take knife
    a slip      open red apple   ->   "invalid action: ..."   ->   the expert's action, for nothing has changed

An agent that has only seen an expert's episodes has never read such an answer, and does not come back from its first
mistake. An expert who follows a path can go on after a slip, where it could not after a wrong action.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

_NUM_TRIES = 8


def slip(rng: np.random.Generator, valid: Sequence[str]) -> str | None:
    """An action with one word changed for a word of another, or cut off before its last word.

    Args:
      rng: of the draws.
      valid: what the world takes now, the expert's action among it.

    Returns:
      A text that is not in `valid`; None where none was found.
    """
    for _ in range(_NUM_TRIES):
        # words stand at odd places
        one, other = (re.split(r"(\w+)", valid[int(rng.integers(len(valid)))]) for _ in range(2))
        if min(len(one), len(other)) < 3:
            continue
        if rng.random() < 0.25:
            text = "".join(one[:-2]).rstrip()
        else:
            place, of = (2 * int(rng.integers(len(parts) // 2)) + 1 for parts in (one, other))
            text = "".join([*one[:place], other[of], *one[place + 1 :]])
        if text and text not in valid:
            return text
    return None
