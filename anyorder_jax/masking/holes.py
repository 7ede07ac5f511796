"""Holes: what an order hides and asks at a place. The only file that decides it, for training, questions and policies.

x hidden and asked (a target), h hidden only, . visible; `at` is the unit marked ^:

    causal     g .  o0 .  t0 .  a0 .  o1 .  t1 x  a1 x  o2 h        a decision: thought and actions, nothing after them
                                                  ^
    forward    g .  o0 .  a0 .  o1 x  a1 h  o2 h                    a piece of evidence, from the past and its action
                                ^
    inverse    g .  o0 .  t0 h  a0 x  o1 .  a1 .  o2 .              actions, from all else but their own thoughts
                                ^
    chain      g .  o0 .  a0 x  o1 h  a1 h                          one unit, from those before it
                          ^
    goal       g x  o0 .  a0 .  o1 .                                what it was for
    prefix     g .  o0 .  a0 .  o1 x  a1 h  o2 x                    all later evidence, from the first decision
    past       g .  o0 x  a0 x  o1 .  a1 .                          the earlier half of the steps, from the later one
    future     g .  o0 .  a0 .  o1 x  a1 x                          and the other way round

Roles go in groups: a *decision* is thought and action, *evidence* is observation, tool result and user turn, the
*purpose* is the goal; system text is context. The thoughts and actions of one step in a row are one decision, and
nothing of it stays visible beside the part that is asked: a thought names the action, one call of a pair names the
other. (Random sets, `orders.any_order`, hide each part by itself: that is what they are for.)

Injected (non-expert) units are never asked. They stay visible, except where what follows must not be seen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from anyorder_jax.masking.granularity import Slots, slots_of
from anyorder_jax.types import DECISION, EVIDENCE, PURPOSE, Field, Hidden, Kind, Tokenised


class Choice(NamedTuple):
    """What an order hides and asks: bool [U + 1] each, the frame's entry at the end False."""

    is_hidden_U: np.ndarray
    is_target_U: np.ndarray


def later_turns(example: Tokenised, block_size: int) -> np.ndarray:
    """bool [L]: tokens of a step that is not the first of their block; what frames say is known anyhow.

        block_size 4    o0 o0 o0 a0 | a0 o1 o1 a1 | o2 ...        block 1 holds the end of step 0 and step 1:
                         .  .  .  .    .  x  x  x                 inside it full attention would show o1 to a0

    LLaDA2.2 technical report, section 3.2: in a block of several turns all after the first are hidden.
    """
    step_U1 = np.append(example.step_U, np.iinfo(np.int32).max)  # its last entry is that of frames, unit -1
    step_L = step_U1[example.slots_GL[0]]
    starts = np.arange(0, len(example), block_size)
    first_L = np.repeat(np.minimum.reduceat(step_L, starts), block_size)[: len(example)]
    return (step_L > first_L) & (example.slots_GL[0] >= 0)


def of_group(example: Tokenised, group: tuple[Kind, ...]) -> np.ndarray:
    """int [n]: the units of these kinds, in order."""
    return np.flatnonzero(np.isin(example.kind_U, group))


def asked_of(example: Tokenised, group: tuple[Kind, ...]) -> np.ndarray:
    """int [n]: those of them that may be asked (not injected)."""
    units = of_group(example, group)
    return units[example.is_expert_U[units]]


def decision(example: Tokenised, at: int) -> np.ndarray:
    """int [n]: the thoughts and actions of one step in a row that unit `at` belongs to."""
    is_part_U = np.isin(example.kind_U, DECISION) & (example.step_U == example.step_U[at])
    first = at - int(np.argmin(np.append(is_part_U[at::-1], False))) + 1
    end = at + int(np.argmin(np.append(is_part_U[at:], False)))
    return np.arange(first, end)


def causal(example: Tokenised, at: int) -> Choice:
    """The decision of action `at`, and nothing after it."""
    return _cut(example, int(decision(example, at)[0]), decision(example, at))


def forward(example: Tokenised, at: int) -> Choice:
    """Evidence `at`, and nothing after it."""
    return _cut(example, at, np.array([at]))


def inverse(example: Tokenised, at: np.ndarray, last_seen: int) -> Choice:
    """Actions `at`, without the rest of their decisions; units after `last_seen` are hidden."""
    is_hidden_U, is_target_U = _nothing(example), _nothing(example)
    for unit in at:
        is_hidden_U[decision(example, unit)] = True
    is_hidden_U[last_seen + 1 : -1] = True
    is_target_U[at] = True
    return Choice(is_hidden_U, is_target_U)


def chain(example: Tokenised, at: int) -> Choice:
    """Unit `at`, whatever it is, from those before it."""
    return _cut(example, at, np.array([at]))


def goal(example: Tokenised) -> Choice:
    """The goal, all else visible; nothing where there is none."""
    is_hidden_U = _nothing(example)
    is_hidden_U[asked_of(example, PURPOSE)] = True
    return Choice(is_hidden_U, is_hidden_U)


def prefix(example: Tokenised, last_given: int) -> Choice:
    """All evidence after unit `last_given`, and nothing else after it."""
    evidence = asked_of(example, EVIDENCE)
    return _cut(example, last_given + 1, evidence[evidence > last_given])


def half(example: Tokenised, is_future: bool) -> Choice:
    """The later half of the steps, or the earlier one, whose injected units stay visible. Purpose and system text are
    seen."""
    is_step_U = ~np.isin(example.kind_U, (*PURPOSE, Kind.SYSTEM))
    steps = np.unique(example.step_U[is_step_U])
    is_later_U = example.step_U >= steps[len(steps) // 2]
    is_hidden_U = is_step_U & (is_later_U if is_future else ~is_later_U & example.is_expert_U)
    return Choice(np.append(is_hidden_U, False), np.append(is_hidden_U & example.is_expert_U, False))


def hide(order: str, example: Tokenised) -> Hidden:
    """What an order hides in an example that ends where it asks, as a policy or a question does: nothing after it.

    Args:
      order: causal, forward, inverse, goal, past or future. `inverse` asks the last decision before the last evidence.
      example: holds what is asked.

    Raises:
      ValueError: for another order, or an example without such a unit.
    """
    actions, evidence = of_group(example, (Kind.ACTION,)), of_group(example, EVIDENCE)
    try:
        match order:
            case "causal":
                choice = causal(example, int(actions[-1]))
            case "forward":
                choice = forward(example, int(evidence[-1]))
            case "inverse":
                last = int(evidence[-1])
                choice = inverse(example, actions[actions < last][-1:], last)
            case "goal":
                choice = goal(example)
            case "past" | "future":
                choice = half(example, order == "future")
            case _:
                raise ValueError(
                    f"masking: order {order!r} names no units; expected causal, forward, inverse, goal, past or future."
                )
    except IndexError:
        raise ValueError(f"masking: the example has nothing that {order!r} asks.") from None
    return spread(example, slots_of(example, "unit"), choice, order)


def spread(
    example: Tokenised, slots: Slots, choice: Choice, order: str, granularity: str = "unit", rate: float = 1.0
) -> Hidden:
    """From slots to their tokens.

    Args:
      example: what is hidden in.
      slots: of `granularity`.
      choice: over the slots (bool [S + 1]); over units where the granularity is "unit".
      order, granularity: what the result is called.
      rate: the probability with which targets were hidden.
    """
    is_hidden_L = choice.is_hidden_U[slots.slot_L]
    is_same = choice.is_target_U is choice.is_hidden_U
    is_asked_L = is_hidden_L if is_same else choice.is_target_U[slots.slot_L]
    return Hidden(is_hidden_L, is_asked_L & (example.field_L != Field.FILLER), order, granularity, rate)


def _nothing(example: Tokenised) -> np.ndarray:
    return np.zeros(len(example.kind_U) + 1, bool)


def _cut(example: Tokenised, start: int, asked: np.ndarray) -> Choice:
    """Hides the units from `start` on, asks those of `asked` that are not injected."""
    is_hidden_U, is_target_U = _nothing(example), _nothing(example)
    is_hidden_U[start:-1] = True
    is_target_U[asked[example.is_expert_U[asked]]] = True
    return Choice(is_hidden_U, is_target_U)
