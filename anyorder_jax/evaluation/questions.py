"""Questions: windows of held-out trajectories with a hole in each, and the flat table of what was asked.

A question is one conditional of the trajectory. All of them hide whole slots of the units that the order
names:

    question       the model sees (of a window of H steps)                it is asked
    any_order@p    every unit that was not hidden                         units, hidden with probability p
    causal         goal, observations and actions of the past             the action that comes next
    forward        the same, and that action                              the observation that follows
    inverse        the past, and the observation that the action led to   the action
    goal           all observations and actions                           the goal
    past           goal, and the later half of the steps                  the earlier half
    future         goal, and the earlier half of the steps                the later half
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anyorder_jax import keys
from anyorder_jax.config import MaskingConfig
from anyorder_jax.data import units
from anyorder_jax.data.units import TokenisedTrajectory
from anyorder_jax.masking import holes
from anyorder_jax.masking.sampler import AnyOrderMaskSampler
from anyorder_jax.types import Hidden, Kind, Tokenised

CELL, WORD = 1, 2
"""Rows of `Tokenised.slots_GL`: a cell; a word (an attribute of a cell, or a joint word)."""


class Question(NamedTuple):
    """One conditional: an order, and the rate at which `any_order` hides (1 for the others)."""

    name: str
    order: str
    rate: float


class Ask(NamedTuple):
    """One window and its hole. episode: index of the trajectory it was cut from."""

    example: Tokenised
    hidden: Hidden
    episode: int


RATES = (0.15, 0.3, 0.5)
QUESTIONS = (
    *(Question(f"any_order@{rate:g}", "any_order", rate) for rate in RATES),
    *(Question(order, order, 1.0) for order in ("causal", "forward", "inverse", "goal", "past", "future")),
)
"""What the report asks."""


def fitting_steps(examples: Sequence[TokenisedTrajectory], window: int, row_length: int) -> int:
    """H: `window`, or where it is 0 (whole trajectories) as many steps as a row of `row_length` tokens holds.

    Raises:
      ValueError: when not even one step fits.
    """
    if window:
        return window
    goal, step = _longest(examples)
    if goal + step > row_length:
        raise ValueError(
            f"evaluation: a goal ({goal} tokens) and one step ({step}) do not fit into data.row_length = {row_length}."
        )
    return (row_length - goal) // step


def full_length(examples: Sequence[TokenisedTrajectory], num_steps: int) -> int:
    """L: the longest goal and `num_steps` steps, up to a multiple of 8."""
    goal, step = _longest(examples)
    return -(-(goal + num_steps * step) // 8) * 8


def _longest(examples: Sequence[TokenisedTrajectory]) -> tuple[int, int]:
    """Tokens of the longest goal and of the longest step."""
    goal = max(int(example.token_S1[0]) for example in examples)
    return goal, max(int(np.diff(example.token_S1).max()) for example in examples)


def ask(
    question: Question, examples: Sequence[TokenisedTrajectory], *, num_steps: int, limit: int, seed: int
) -> list[Ask]:
    """Cuts windows and hides in each what the question asks.

    Every window ends at a step of which the question asks something: causal at each expert action, forward at
    each later observation, the others at each step. Where an episode has more than `limit` such steps,
    `limit` of them are drawn. What follows the window is absent, as it is for a policy.

    Args:
      question: what is asked.
      examples: whole tokenised trajectories.
      num_steps: H, steps in a window.
      limit: windows an episode at most.
      seed: of the draws: window ends and random sets are functions of (seed, question, episode, step).

    Returns:
      Asks in order of episodes; episodes without such a step have none.
    """
    sampler = AnyOrderMaskSampler(MaskingConfig(rate=question.rate))
    purpose = f"evaluate {question.name}"
    asks = []
    for episode, example in enumerate(examples):
        ends = _ends(question.order, example, num_steps)
        if len(ends) > limit:
            drawn = keys.generator(seed, f"{purpose} ends", episode).choice(len(ends), limit, replace=False)
            ends = ends[np.sort(drawn)]
        for end in ends.tolist():
            window = units.window(example, end, num_steps)
            if question.order == "any_order":
                hidden = sampler(keys.generator(seed, purpose, episode, end), window)
            else:
                hidden = holes.hide(question.order, window)
            if hidden.is_target_L.any():
                asks.append(Ask(window, hidden, episode))
    return asks


def _ends(order: str, example: TokenisedTrajectory, num_steps: int) -> np.ndarray:
    """int [n]: steps at which windows of this order may end; none where a window of one step holds no transition."""
    if order in ("inverse", "forward", "past", "future") and num_steps < 2:
        return np.zeros(0, int)
    action_steps = example.step_U[(example.kind_U == Kind.ACTION) & example.is_expert_U]
    match order:
        case "causal":
            return action_steps
        case "inverse":  # an action, and the observation that it led to
            return 1 + action_steps
        case "forward" | "past" | "future":
            return np.arange(1, example.num_steps)
    return np.arange(example.num_steps)


def first_position_U(example: Tokenised) -> np.ndarray:
    """int [U]: where each unit's first token (after its marker) stands."""
    unit_L = example.slots_GL[0]
    first_U = np.full(len(example.kind_U), len(example), np.int64)
    positions = np.flatnonzero(unit_L >= 0)
    np.minimum.at(first_U, unit_L[positions], positions)
    return first_U


def offset_in_unit(example: Tokenised) -> np.ndarray:
    """int32 [L]: the token's place within its unit, from 0; -1 for frame tokens."""
    unit_L = example.slots_GL[0]
    offset_L = np.arange(len(example)) - first_position_U(example)[unit_L]
    return np.where(unit_L >= 0, offset_L, -1).astype(np.int32)
