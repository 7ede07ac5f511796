"""Branches: examples in which another action was taken, and the world's own answer to it (early experience).

    example    g .  o0 .  a0 .  o1 .  a1 .  o2 x  a2 h        `forward` asks o2
    branch     g .  o0 .  a0 .  o1 .  b1 .  p2 x              b1 in place of a1, and what b1 led to; nothing after it

    example    g .  o0 .  a0 .  o1 x  a1 h  o2 x              `prefix` asks all that follows the first action
    branch     g .  o0 .  b0 .  p1 x

Only `forward` and `prefix` are answered by branches: they ask what an action leads to. The action is none of the
expert's, so it is never asked. A branch is never longer than the example whose place it takes: first steps give way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from anyorder_jax.data import contexts, records, units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.masking import holes
from anyorder_jax.masking.granularity import slots_of
from anyorder_jax.types import DECISION, EVIDENCE, Codec, Hidden, Kind, Tokenised, Trajectory, Unit

ORDERS = ("forward", "prefix")
"""Orders that branches answer."""

Branch = tuple[Unit, ...]
"""Another action (never a target), and the evidence that it led to."""


class Texts(NamedTuple):
    """How trajectories become tokens: codec, vocabulary and layout, which belong together."""

    codec: Codec
    vocabulary: Vocabulary
    layout: units.Layout = units.DEFAULT_LAYOUT

    def tokenise(self, trajectory: Trajectory) -> units.TokenisedTrajectory:
        """The whole trajectory; errors as `units.tokenise`."""
        return units.tokenise(trajectory, self.codec, self.vocabulary, self.layout)


def of(trajectory: Trajectory) -> dict[int, tuple[Branch, ...]]:
    """{number of an action unit: its branches}, of those that have some.

    Raises:
      ValueError: for a branch that is not as `collect --branches` records one, saying where.
    """
    return {
        number: tuple(_branch(branch, unit, f"units[{number}].branches[{b}]") for b, branch in enumerate(unit.branches))
        for number, unit in enumerate(trajectory.units)
        if unit.kind == Kind.ACTION and unit.branches
    }


def _branch(record: Mapping[str, object], unit: Unit, where: str) -> Branch:
    action, led_to = record.get("action"), record.get("units")
    if not isinstance(action, str) or not isinstance(led_to, list | tuple) or not led_to:
        raise ValueError(
            f"{where}: expected an object with 'action', a text, and 'units', what it led to, got {sorted(record)}. "
            "Collect again with --branches."
        )
    evidence = [records.unit_of(part, f"{where}.units[{i}]") for i, part in enumerate(led_to)]
    if any(part.kind not in EVIDENCE or part.step < unit.step for part in evidence):
        raise ValueError(f"{where}.units: expected observations, tool results or user turns of later steps.")
    return (Unit(Kind.ACTION, unit.step, text=action, is_expert=False), *evidence)


def answer(
    rng: np.random.Generator, example: Tokenised, hidden: Hidden, of_unit: Mapping[int, Sequence[Branch]], texts: Texts
) -> tuple[Tokenised, Hidden]:
    """The example with one of its branches, and what is then hidden in it; the two as they are where none fits.

    Args:
      rng: of the draw.
      example: as it was drawn.
      hidden: of `forward` or `prefix`.
      of_unit: units of the example -> their branches.
      texts: as the example was made.
    """
    places = [u for u in sorted(of_unit) if _is_asked(example, u, hidden.order)]
    if not places:
        return example, hidden
    at = places[int(rng.integers(len(places)))]
    branch = of_unit[at][int(rng.integers(len(of_unit[at])))]
    thoughts = [u for u in holes.decision(example, at) if example.kind_U[u] == Kind.THOUGHT]  # they tell the action
    kept = np.setdiff1d(np.arange(at), thoughts)
    tail = units.tokenise(
        Trajectory("branch", branch), texts.codec, texts.vocabulary, texts.layout,
        before=[Kind(kind) for kind in example.kind_U[kept]],
    )  # fmt: skip
    other = contexts.joined(contexts.select(example, kept), tail)
    num_last = int((other.step_U >= branch[0].step).sum())
    other = contexts.select(other, contexts.choose_for(contexts.lengths_of(other), num_last, len(example)))
    if len(other) > len(example):
        return example, hidden
    first = len(other.kind_U) - len(branch) + 1  # of the evidence
    if hidden.order == "prefix":
        choice = holes.prefix(other, first - 1)
    else:
        choice = holes.forward(other, first + int(rng.integers(len(branch) - 1)))
    return other, holes.spread(other, slots_of(other, "unit"), choice, hidden.order)


def _is_asked(example: Tokenised, at: int, order: str) -> bool:
    """Whether the order may ask what action `at` leads to: evidence follows it in the example; of `prefix`, it ends the
    first decision, and an observation stands before it."""
    kind_U = example.kind_U
    if at + 1 >= len(kind_U) or kind_U[at + 1] not in EVIDENCE:
        return False
    if order == "forward":
        return True
    is_first = not np.isin(kind_U[: holes.decision(example, at)[0]], DECISION).any()
    return is_first and bool((kind_U[:at] == Kind.OBSERVATION).any())
