"""Folds: the ids of BFCL's worlds and their lists of tasks."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from anyorder_jax.environments import noise, options
from anyorder_jax.environments.options import Known

PREFIX = "BFCL-"
CATEGORIES = ("base", "long_context", "miss_func", "miss_param")
NUM_TASKS = 200
"""In each category."""
MADE = {
    "made-wordings": "wordings", "made-templates": "templates", "made-compositions": "compositions",
    "made-classes": "classes",
}  # fmt: skip
"""Name of a generated world -> what its held-out tasks have that no training task has."""
SCHEMAS = "-schemas"
OPTIONS: Known = {"words": (1, 3), "missing_function": (0, 1), "missing_parameter": (0, 1), **noise.OPTIONS}
"""Of every id: see `disturbed` and `noise`."""

_NUM_TRAIN = 150


def ids() -> tuple[str, ...]:
    """Official and generated ones, with signatures and with schemas."""
    return tuple(PREFIX + name + how for name in (*CATEGORIES, *MADE) for how in ("", SCHEMAS))


def name_of(environment_id: str) -> tuple[str, bool]:
    """(category or generated world, whether its system text has whole schemas)."""
    name = options.plain(environment_id).removeprefix(PREFIX)
    return name.removesuffix(SCHEMAS), name.endswith(SCHEMAS)


def tasks(environment_id: str) -> Mapping[str, Sequence[str]] | None:
    """The official tasks: those of `base` are drawn by case, 150 for training and 50 for tests (the shares of
    arXiv 2510.08558 and its seed, 42; which cases it drew is not published), the other categories are tests. None for
    generated worlds, where any number is a task."""
    category, _ = name_of(environment_id)
    if category in MADE:
        return None
    numbers = list(range(NUM_TASKS))
    if category != "base":
        return {"train": [], "validation": [], "test": [f"multi_turn_{category}_{n}" for n in numbers]}
    random.Random(42).shuffle(numbers)
    chosen = {"train": sorted(numbers[:_NUM_TRAIN]), "validation": [], "test": sorted(numbers[_NUM_TRAIN:])}
    return {split: [f"multi_turn_base_{n}" for n in found] for split, found in chosen.items()}
