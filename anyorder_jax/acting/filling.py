"""Filling: holes at places of an episode, and what a model is shown around them.

    place     3                unit 3                     {"name":"buy","arguments":{"id":7,"count":2}}
              3.1              line 1 of unit 3           "id":7,          (an argument of a call counts as a line)
              3.1.0            word 0 of that line

What a model is shown of an episode that is longer than its contexts:

    units       system goal o0 a0 o1 a1 o2 a2 o3 a3       asked o1: ends with its step; asked goal: with the last
    shown       system  M              .              system goal o0 a0 M a1

and of its past alone, where a hole is what a policy, or a model of its world, writes next:

    asked a1    system goal o0 a0 o1 M                    the decision that it belongs to, all of it, ends the context
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anyorder_jax.acting.question import Question
from anyorder_jax.data import contexts
from anyorder_jax.data.running_text import Layout
from anyorder_jax.masking import holes
from anyorder_jax.masking.granularity import slots_of
from anyorder_jax.types import DECISION, Tokenised

EVERYTHING, PAST = "everything", "past"
"""What a hole may see: all else; or what came before it."""


class Shown(NamedTuple):
    """example: the context. is_hidden_L: bool [its length], what is asked of it. place_L: int, where each of its tokens
    stands in the episode. number_U: int, the numbers of its units there."""

    example: Tokenised
    is_hidden_L: np.ndarray
    place_L: np.ndarray
    number_U: np.ndarray


def hidden_at(example: Tokenised, place: Sequence[int]) -> np.ndarray:
    """bool [L]: the tokens at a place, see the module; of a whole unit its end tokens too.

    Raises:
      ValueError: the episode has no such place.
    """
    if not 1 <= len(place) <= len(example.levels):
        raise ValueError(f"a place has one to {len(example.levels)} numbers: of {', '.join(example.levels)}.")
    unit, *parts = place
    if not 0 <= unit < len(example.kind_U):
        raise ValueError(f"there is no unit {unit}: the episode has units 0 to {len(example.kind_U) - 1}.")
    is_part_L = example.slots_GL[0] == unit
    for level, number in zip(example.levels[1:], parts, strict=False):
        slot_L = slots_of(example, level).slot_L
        found = np.unique(slot_L[is_part_L])
        if not 0 <= number < len(found):
            raise ValueError(f"there is no {level} {number}: unit {unit} has {len(found)} there (ends included).")
        is_part_L &= slot_L == found[number]
    return is_part_L


def shown_around(example: Tokenised, is_asked_L: np.ndarray, budget: int, sees: str = EVERYTHING) -> Shown:
    """What the model sees of an episode around what is asked, as far as a context goes.

    Args:
      example: the episode.
      is_asked_L: bool [L], what is asked of it; of the past alone, whole units are.
      budget: tokens of a context; 0: no limit.
      sees: EVERYTHING or PAST.

    Raises:
      ValueError: nothing is asked, or the units that are asked do not fit into one context.
    """
    if not is_asked_L.any():
        raise ValueError("nothing is hidden, so there is nothing to fill.")
    asked = np.unique(example.slots_GL[0][is_asked_L])
    end = len(example.kind_U) - 1
    if sees == PAST:
        is_asked_L, end = _to_come(example, asked)
        asked = np.unique(example.slots_GL[0][is_asked_L])
    elif budget and len(example) > budget:
        rest = asked[~np.isin(example.kind_U[asked], contexts.ALWAYS)]
        end = int(np.flatnonzero(example.step_U == example.step_U[rest[-1]])[-1]) if len(rest) else end
    shown = contexts.choose(contexts.lengths_of(example), end, budget)
    missing = [str(u) for u in asked.tolist() if u not in shown]
    if missing:
        raise ValueError(
            f"a context of the run holds {budget} tokens, and unit {', '.join(missing)} does not fit into the one that "
            "holds the last unit asked. Ask for fewer units at once."
        )
    starts = contexts.unit_starts(example)
    place_L = np.concatenate([np.arange(starts[u], starts[u + 1]) for u in shown])
    return Shown(contexts.select(example, shown), is_asked_L[place_L], place_L, shown)


def _to_come(example: Tokenised, asked: np.ndarray) -> tuple[np.ndarray, int]:
    """(bool [L] what is written, the unit that it ends with) where only the past of `asked` units is seen."""
    first, last = int(asked[0]), int(asked[-1])
    is_decision_U = np.isin(example.kind_U, DECISION)
    choice = holes.causal(example, first) if is_decision_U[first] else holes.chain(example, first)
    end = int(holes.decision(example, last)[-1]) if is_decision_U[last] else last
    hidden = holes.spread(example, slots_of(example, "unit"), choice, "chain")
    return hidden.is_hidden_L & (example.slots_GL[0] <= end), end


def question(shown: Shown, layout: Layout) -> Question:
    """The hole as a `Generator` fills it."""
    asked = np.unique(shown.example.slots_GL[0][shown.is_hidden_L])
    return Question(shown.example, shown.is_hidden_L, min(layout.blocks[shown.example.kind_U[u]] for u in asked))


def what_is_seen(example: Tokenised, shown: Shown) -> str:
    """A sentence about the units of an episode that the model sees; empty when it sees them all."""
    if len(shown.number_U) == len(example.kind_U):
        return ""
    return (
        f"the episode has {len(example)} tokens, this context {len(shown.example)}: the model sees its units "
        f"{_ranges(shown.number_U)}."
    )


def _ranges(numbers: np.ndarray) -> str:
    """0, 1, 2, 5 -> "0-2, 5"."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
