"""Contexts: which units of a trajectory an example shows, within a budget of tokens.

    budget 60        system goal | o0 a0 | o1 a1 | user o2 a2 | o3 a3 ...          ends at a3
                     x      x      .  .    x  x    x    x  x    x  x               o0 a0 no longer fit

System text, goal and the newest user turn always; then the last steps that fit, whole. Training examples, questions
and the policy's view are made by `context`, so what a model acts on is what it was trained on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from anyorder_jax.types import DECISION, Kind, Tokenised

ALWAYS = (Kind.SYSTEM, Kind.GOAL)
"""Kinds of units that every context shows."""


class UnitLengths(NamedTuple):
    """What choosing units takes of a trajectory: int [U] each, `Kind`, step, and tokens with the frame before it."""

    kind_U: np.ndarray
    step_U: np.ndarray
    width_U: np.ndarray


def lengths_of(example: Tokenised) -> UnitLengths:
    """The lengths of a tokenised trajectory's units."""
    return UnitLengths(example.kind_U, example.step_U, np.diff(unit_starts(example)))


def unit_starts(example: Tokenised) -> np.ndarray:
    """int [U + 1]: where the frame before each unit begins, and the end of the last unit."""
    unit_at_L = example.slots_GL[0]
    position_K = np.flatnonzero(unit_at_L >= 0)
    last_U = position_K[np.searchsorted(unit_at_L[position_K], np.arange(len(example.kind_U)), side="right") - 1]
    return np.append(0, last_U + 1)


def choose(lengths: UnitLengths, end: int, budget: int) -> np.ndarray:
    """The units that a context shows.

    Args:
      lengths: of the trajectory's units, in order of time.
      end: number of the last unit, from 0.
      budget: tokens; 0: no limit.

    Returns:
      int [n], in order: the always shown ones among units 0..end, then whole steps from the last back while they fit.
      Where the last step alone does not fit, its last units that do. At least one unit, the last.
    """
    kind_U, step_U, width_U = (array[: end + 1] for array in lengths)
    return choose_for(UnitLengths(kind_U, step_U, width_U), 1, budget)


def choose_for(lengths: UnitLengths, num_last: int, budget: int) -> np.ndarray:
    """As `choose`, of all units, the last `num_last` of which are shown in any case (holes that are to be filled)."""
    kind_U, step_U, width_U = lengths
    num_units = len(kind_U)
    if not budget or width_U.sum() <= budget:
        return np.arange(num_units)
    is_shown_U = np.isin(kind_U, ALWAYS)
    users = np.flatnonzero(kind_U == Kind.USER)
    is_shown_U[users[-1:]] = True
    is_shown_U[num_units - num_last :] = True
    room = budget - int(width_U[is_shown_U].sum())
    for step in np.unique(step_U)[::-1]:
        units = np.flatnonzero((step_U == step) & ~is_shown_U)
        if width_U[units].sum() <= room:
            is_shown_U[units] = True
            room -= int(width_U[units].sum())
            continue
        if step == step_U[-1]:
            fits = np.cumsum(width_U[units][::-1])[::-1] <= room
            is_shown_U[units[fits]] = True
        break
    return np.flatnonzero(is_shown_U)


def select(example: Tokenised, units: np.ndarray) -> Tokenised:
    """An example of these units alone (int [n], increasing), with the frames before them; slot ids dense again."""
    if len(units) == len(example.kind_U):
        return example
    starts = unit_starts(example)
    keep_L = np.concatenate([np.arange(starts[u], starts[u + 1]) for u in units])
    slots_GL = example.slots_GL[:, keep_L]
    is_slot_L = slots_GL[0] >= 0
    inner_GK = slots_GL[:, is_slot_L]
    slots_GL[:, is_slot_L] = np.cumsum(np.diff(inner_GK, axis=1, prepend=inner_GK[:, :1]) != 0, axis=1)
    return Tokenised(
        tokens_L=example.tokens_L[keep_L],
        field_L=example.field_L[keep_L],
        slots_GL=slots_GL,
        kind_U=example.kind_U[units],
        step_U=example.step_U[units],
        is_expert_U=example.is_expert_U[units],
        levels=example.levels,
    )


def joined(first: Tokenised, second: Tokenised) -> Tokenised:
    """The units of both, one after the other."""
    num_U, num_G = len(first.kind_U), first.slots_GL.max(1, keepdims=True) + 1
    second_GL = np.where(second.slots_GL >= 0, second.slots_GL + num_G, -1)
    assert num_G[0] == num_U, "every unit has a token"
    return Tokenised(
        tokens_L=np.concatenate([first.tokens_L, second.tokens_L]),
        field_L=np.concatenate([first.field_L, second.field_L]),
        slots_GL=np.concatenate([first.slots_GL, second_GL], axis=1),
        kind_U=np.concatenate([first.kind_U, second.kind_U]),
        step_U=np.concatenate([first.step_U, second.step_U]),
        is_expert_U=np.concatenate([first.is_expert_U, second.is_expert_U]),
        levels=first.levels,
    )


def context(example: Tokenised, end: int, budget: int) -> Tokenised:
    """What is shown of a trajectory up to its unit number `end`, in at most `budget` tokens.

    Longer than the budget only where the always shown units alone are (`units.Layout.max_unit_tokens` prevents that).
    """
    return select(example, choose(lengths_of(example), end, budget))


def ends(lengths: UnitLengths) -> np.ndarray:
    """int [n]: the units that a context may end with: the last of each step, and of each decision (an agent that acts
    does not see what its action will lead to)."""
    kind_U, step_U, _ = lengths
    is_decision_U = np.isin(kind_U, DECISION)
    is_over_U = np.append((step_U[1:] != step_U[:-1]) | (is_decision_U[:-1] & ~is_decision_U[1:]), True)
    return np.flatnonzero(is_over_U)
