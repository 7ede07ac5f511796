"""Orders: which conditional of the trajectory is asked in training, drawn. What is hidden there: `holes`.

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

import numpy as np

from anyorder_jax.masking import holes
from anyorder_jax.masking.granularity import Slots
from anyorder_jax.masking.holes import Choice
from anyorder_jax.types import EVIDENCE, Kind, Tokenised


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
    """Asks one decision with an expert action: next-action prediction, as it is rolled out.

    Args:
      rng: the draw's generator.
      example: a tokenised example.
      causal_step: "last": that of the last expert action (an injected one after it is hidden, not asked); "any": each
        expert action with equal chance.

    Returns:
      The choice, or None when there is no expert action.
    """
    actions = holes.asked_of(example, (Kind.ACTION,))
    if not len(actions):
        return None
    return holes.causal(example, actions[-1] if causal_step == "last" else actions[rng.integers(len(actions))])


def prefix(example: Tokenised) -> Choice | None:
    """Asks all evidence after the first observation and the first decision.

    Returns:
      The choice, or None when none follows. Without any action, the first observation alone is given.
    """
    evidence = holes.of_group(example, (Kind.OBSERVATION,))
    actions = holes.of_group(example, (Kind.ACTION,))
    if not len(evidence):
        return None
    last_given = max(evidence[0], holes.decision(example, actions[0])[-1]) if len(actions) else evidence[0]
    later = holes.asked_of(example, EVIDENCE)
    return holes.prefix(example, last_given) if (later > last_given).any() else None


def forward(rng: np.random.Generator, example: Tokenised) -> Choice | None:
    """Asks one piece of evidence that follows an action: a world model's step.

    An injected action before it is visible: what a wrong action does is learned too.

    Returns:
      The choice, or None when no evidence follows an action.
    """
    actions = holes.of_group(example, (Kind.ACTION,))
    evidence = holes.asked_of(example, EVIDENCE)
    if len(actions):
        evidence = evidence[evidence > actions[0]]
    if not len(actions) or not len(evidence):
        return None
    return holes.forward(example, evidence[rng.integers(len(evidence))])


def inverse(rng: np.random.Generator, example: Tokenised, rate: float) -> Choice | None:
    """Asks expert actions, each with probability `rate` and one at least; what follows them is seen, here all of it.

    Returns:
      The choice, or None when there is no expert action.
    """
    actions = holes.asked_of(example, (Kind.ACTION,))
    if not len(actions):
        return None
    drawn = actions[rng.random(len(actions)) < rate]
    if not len(drawn):
        drawn = actions[[rng.integers(len(actions))]]
    return holes.inverse(example, drawn, len(example.kind_U) - 1)


def goal(example: Tokenised) -> Choice | None:
    """Asks the goal, all else visible; None when there is none."""
    choice = holes.goal(example)
    return choice if choice.is_hidden_U.any() else None
