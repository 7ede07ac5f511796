"""Orders: which conditional of the trajectory is asked.

One draw of each. g goal, o observation, a action; x hidden and asked (a target), h hidden only, . visible:

                g   o0  a0  o1  a1  o2  a2  o3
    any_order   .   x   .   .   x   x   .   .     every slot by itself, with probability p * its kind's scale
    suffix      .   x   .   .   x   x   x   x     any_order, and everything from a random point on (here a1)
    causal      .   .   .   .   x   h   h   h     one action; nothing later is seen
    prefix      .   .   .   x   h   x   h   x     every later observation, from goal, o0 and a0 alone
    forward     .   .   .   x   h   h   h   h     one observation, from the past and the action before it
    inverse     .   .   x   .   .   .   x   .     actions, each with probability p (at least one)
    goal        x   .   .   .   .   .   .   .     what the goal was

`causal` is what a policy is asked at run time and `suffix` is MTM's random autoregressive pattern (arXiv
2305.02968, `AUTO_MASK`). `prefix` hides the later actions as well: the prediction that is trained is that of
early experience, (o0, a0) -> what follows, and visible later actions would make it another one; they are not
asked, because nothing in o0 and a0 determines them.

Injected (non-expert) units are never targets. They stay visible, except after the cut of causal, prefix,
forward and suffix, where the future must not be seen: there they are hidden and not asked.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from anyorder_jax.masking.granularity import Slots
from anyorder_jax.types import Kind, Tokenised


class Choice(NamedTuple):
    """What a structured order hides and asks: bool [U + 1] each, the frame's entry at the end False."""

    is_hidden_U: np.ndarray
    is_target_U: np.ndarray


def any_order(rng: np.random.Generator, slots: Slots, rate_U: np.ndarray) -> np.ndarray:
    """Hides every slot independently, with the rate of its unit.

        rate_U   .5   .5   .5   .5  (frame 0)        unit granularity   g . o0 x a0 . o1 x
                                                     cell granularity   g . o0 .x..x. a0 x o1 x..x..

    Args:
      rng: the draw's generator.
      slots: the slots of the drawn granularity.
      rate_U: float64 [U + 1], in [0, 1]; 0 for the frame.

    Returns:
      bool [S + 1]: is the slot hidden.
    """
    return rng.random(len(slots.unit_S)) < rate_U[slots.unit_S]


def suffix(rng: np.random.Generator, slots: Slots, rate_U: np.ndarray) -> np.ndarray:
    """`any_order`, and everything from a unit on that is uniform over all but the first.

        any_order part       g .  o0 x  a0 .  o1 .  a1 x  o2 .
        from o1 on           g .  o0 x  a0 .  o1 x  a1 x  o2 x

    Some target has no visible future, as at run time. Arguments and result as of `any_order`; a single unit
    has no later point, and gives `any_order`.
    """
    is_hidden_S = any_order(rng, slots, rate_U)
    num_units = len(rate_U) - 1
    if num_units > 1:
        start = rng.integers(1, num_units)
        is_hidden_S |= slots.unit_S >= start
    return is_hidden_S


def causal(rng: np.random.Generator, example: Tokenised, causal_step: str) -> Choice | None:
    """Asks one expert action and hides all that follows it: next-action prediction, as it is rolled out.

        g .  o0 .  a0 .  o1 .  a1 x  o2 h  a2 h          causal_step "any" drew a1; "last" would ask a2

    Args:
      rng: the draw's generator.
      example: a tokenised example.
      causal_step: "last": the last expert action (an injected one after it is hidden, not asked); "any": each
        with equal chance.

    Returns:
      The choice, or None when there is no expert action.
    """
    actions = np.flatnonzero(_is_asked_kind(example, Kind.ACTION))
    if not len(actions):
        return None
    asked = actions[-1] if causal_step == "last" else actions[rng.integers(len(actions))]
    return _cut(example, asked, asked)


def prefix(example: Tokenised) -> Choice | None:
    """Asks every observation after the first observation and the first action, and hides all later units.

        g .  o0 .  a0 .  o1 x  a1 h  o2 x

    Returns:
      The choice, or None when no observation follows. Without any action, the first
      observation alone is given.
    """
    observations = np.flatnonzero(example.kind_U == Kind.OBSERVATION)
    actions = np.flatnonzero(example.kind_U == Kind.ACTION)
    if not len(observations):
        return None
    last_given = max(observations[0], actions[0]) if len(actions) else observations[0]
    later = observations[(observations > last_given) & example.is_expert_U[observations]]
    return _cut(example, last_given + 1, later) if len(later) else None


def forward(rng: np.random.Generator, example: Tokenised) -> Choice | None:
    """Asks one observation that follows an action, and hides what follows it: a world model's step.

        g .  o0 .  a0 .  o1 x  a1 h  o2 h

    An injected action before it is visible: what a wrong action does is learned too.

    Returns:
      The choice, or None when no observation follows an action.
    """
    actions = np.flatnonzero(example.kind_U == Kind.ACTION)
    observations = np.flatnonzero(_is_asked_kind(example, Kind.OBSERVATION))
    if len(actions):
        observations = observations[observations > actions[0]]
    if not len(actions) or not len(observations):
        return None
    asked = observations[rng.integers(len(observations))]
    return _cut(example, asked, asked)


def inverse(rng: np.random.Generator, example: Tokenised, rate: float) -> Choice | None:
    """Asks expert actions, each with probability `rate` and one at least; observations stay visible.

        g .  o0 .  a0 x  o1 .  a1 .  o2 .  a2 x  o3 .

    Returns:
      The choice, or None when there is no expert action.
    """
    actions = np.flatnonzero(_is_asked_kind(example, Kind.ACTION))
    if not len(actions):
        return None
    drawn = actions[rng.random(len(actions)) < rate]
    is_hidden_U = _nothing(example)
    is_hidden_U[drawn if len(drawn) else actions[rng.integers(len(actions))]] = True
    return Choice(is_hidden_U, is_hidden_U)


def goal(example: Tokenised) -> Choice | None:
    """Asks the goal, all else visible.

        g x  o0 .  a0 .  o1 .

    Returns:
      The choice, or None when there is no goal.
    """
    is_hidden_U = _nothing(example)
    is_hidden_U[:-1] = _is_asked_kind(example, Kind.GOAL)
    return Choice(is_hidden_U, is_hidden_U) if is_hidden_U.any() else None


def _is_asked_kind(example: Tokenised, kind: Kind) -> np.ndarray:
    return (example.kind_U == kind) & example.is_expert_U


def _nothing(example: Tokenised) -> np.ndarray:
    return np.zeros(len(example.kind_U) + 1, bool)


def _cut(example: Tokenised, start: int, asked: int | np.ndarray) -> Choice:
    """Hides the units from `start` on, asks the units `asked`."""
    is_hidden_U, is_target_U = _nothing(example), _nothing(example)
    is_hidden_U[start:-1] = True
    is_target_U[asked] = True
    return Choice(is_hidden_U, is_target_U)
