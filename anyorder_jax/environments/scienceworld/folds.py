"""Tasks of ScienceWorld: its thirty kinds, and their official variations for training, validation and test."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

PREFIX = "ScienceWorld-"
SIMPLIFICATIONS = {"easy": "easy", "plain": ""}
"""Word in an id -> what the simulator is told."""

VARIATIONS = {
    "boil": (14, 7, 9),
    "change-the-state-of-matter-of": (14, 7, 9),
    "chemistry-mix": (16, 8, 8),
    "chemistry-mix-paint-secondary-color": (18, 9, 9),
    "chemistry-mix-paint-tertiary-color": (18, 9, 9),
    "find-animal": (150, 75, 75),
    "find-living-thing": (150, 75, 75),
    "find-non-living-thing": (150, 75, 75),
    "find-plant": (150, 75, 75),
    "freeze": (14, 7, 9),
    "grow-fruit": (62, 31, 33),
    "grow-plant": (62, 31, 33),
    "identify-life-stages-1": (6, 3, 5),
    "identify-life-stages-2": (4, 2, 4),
    "inclined-plane-determine-angle": (84, 42, 42),
    "inclined-plane-friction-named-surfaces": (692, 346, 348),
    "inclined-plane-friction-unnamed-surfaces": (80, 40, 42),
    "lifespan-longest-lived": (62, 31, 32),
    "lifespan-longest-lived-then-shortest-lived": (62, 31, 32),
    "lifespan-shortest-lived": (62, 31, 32),
    "measure-melting-point-known-substance": (218, 109, 109),
    "measure-melting-point-unknown-substance": (150, 75, 75),
    "melt": (14, 7, 9),
    "mendelian-genetics-known-plant": (60, 30, 30),
    "mendelian-genetics-unknown-plant": (240, 120, 120),
    "power-component": (10, 5, 5),
    "power-component-renewable-vs-nonrenewable-energy": (10, 5, 5),
    "test-conductivity": (450, 225, 225),
    "test-conductivity-of-unknown-substances": (300, 150, 150),
    "use-thermometer": (270, 135, 135),
}
"""Kind -> how many variations are for train, validation ("dev" there) and test; they are numbered in this order."""

SHORT = tuple(kind for kind in VARIATIONS if kind.startswith(("find-", "lifespan-")))
"""Kinds that are solved in about ten actions."""

_LONG = ("boil", "change-", "freeze", "grow-", "inclined-", "melt", "mendelian-")
MAX_STEPS, MAX_STEPS_LONG = 100, 200
"""The simulator's own limit, and one for the kinds whose gold paths may be longer."""


def max_steps(kind: str) -> int:
    """Actions in an episode at most."""
    return MAX_STEPS_LONG if kind.startswith(_LONG) else MAX_STEPS


def ids() -> tuple[str, ...]:
    """ScienceWorld-easy, ScienceWorld-easy-short, ScienceWorld-easy-boil, ..., and so with "plain"."""
    parts = ("", "-short", *(f"-{kind}" for kind in VARIATIONS))
    return tuple(f"{PREFIX}{simplification}{part}" for simplification in SIMPLIFICATIONS for part in parts)


def split_id(environment_id: str) -> tuple[str, tuple[str, ...]]:
    """What the simulator is told of simplifications, and the kinds of tasks, of an id out of `ids()`."""
    simplification, _, part = environment_id.removeprefix(PREFIX).partition("-")
    kinds = {"": tuple(VARIATIONS), "short": SHORT}.get(part, (part,))
    return SIMPLIFICATIONS[simplification], kinds


def tasks(environment_id: str) -> Mapping[str, Sequence[str]]:
    """The tasks of every split, in the order in which they are collected: the first variation of each kind, then the
    second of each, so that a few episodes are of all kinds."""
    _, kinds = split_id(environment_id)
    found: dict[str, list[str]] = {}
    for number, split in enumerate(("train", "validation", "test")):
        columns = []
        for kind in kinds:
            first, count = sum(VARIATIONS[kind][:number]), VARIATIONS[kind][number]
            columns.append([f"{kind}/{variation}" for variation in range(first, first + count)])
        rounds = itertools.zip_longest(*columns)
        found[split] = [task for tasks_of_round in rounds for task in tasks_of_round if task]
    return found


def split_task(environment_id: str, task: str) -> tuple[str, int]:
    """Kind and variation of a task. Raises ValueError for a text that is none of this id."""
    kind, _, variation = task.partition("/")
    _, kinds = split_id(environment_id)
    if kind in kinds and variation.isascii() and variation.isdecimal() and int(variation) < sum(VARIATIONS[kind]):
        return kind, int(variation)
    shown = ", ".join(kinds[:3]) + (", ..." if len(kinds) > 3 else "")
    raise ValueError(f"scienceworld: expected KIND/VARIATION of {shown} as task, such as {kinds[0]}/0, got {task!r}")
