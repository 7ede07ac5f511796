"""Questions of grids: windows of a fixed number of steps, in which `asking.questions.ask` makes its holes.

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
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from anyorder_jax.asking.questions import Question
from anyorder_jax.data import units
from anyorder_jax.data.units import TokenisedTrajectory
from anyorder_jax.types import Kind, Tokenised

CELL, WORD = 1, 2
"""Rows of `Tokenised.slots_GL`: a cell; a word (an attribute of a cell, or a joint word)."""


RATES = (0.15, 0.3, 0.5)
QUESTIONS = (
    *(Question(f"any_order@{rate:g}", "any_order", rate) for rate in RATES),
    *(Question(order, order) for order in ("causal", "forward", "inverse", "goal", "past", "future")),
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


@dataclass(frozen=True)
class Windows:
    """Windows of `num_steps` steps, H, which end with a step. What follows is absent, as it is for a policy."""

    num_steps: int
    purpose: ClassVar[str] = "evaluate"

    def ends(self, order: str, whole: TokenisedTrajectory) -> np.ndarray:
        """int [n]: steps of which the order asks something: causal at each expert action, forward at each later
        observation, the others at each step; none where a window of one step holds no transition."""
        if order in ("inverse", "forward", "past", "future") and self.num_steps < 2:
            return np.zeros(0, int)
        action_steps = whole.step_U[(whole.kind_U == Kind.ACTION) & whole.is_expert_U]
        match order:
            case "causal":
                return action_steps
            case "inverse":  # an action, and the observation that it led to
                return 1 + action_steps
            case "forward" | "past" | "future":
                return np.arange(1, whole.num_steps)
        return np.arange(whole.num_steps)

    def context(self, whole: TokenisedTrajectory, end: int) -> Tokenised:
        """The window that ends with step `end`."""
        return units.window(whole, end, self.num_steps)
