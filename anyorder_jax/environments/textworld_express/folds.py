"""Tasks of TextWorldExpress: the games, their settings, and the published folds of seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

PREFIX = "TextWorldExpress-"

_ONE_ROOM = "includeDoors=0, limitInventorySize=0"
# our name -> (the package's, its settings). They are those of TALES (microsoft/tale-suite, tales/textworld_express);
# its coin collector and Simon Says are left out: nothing is read in them that has to be understood.
GAMES = {
    "CookingWorld": ("cookingworld", f"numLocations=1, numIngredients=2, numDistractorItems=5, {_ONE_ROOM}"),
    "MapReader": ("mapreader", f"numLocations=2, maxDistanceApart=1, maxDistractorItemsPerLocation=2, {_ONE_ROOM}"),
    "Arithmetic": ("arithmetic", ""),
    "PeckingOrder": ("peckingorder", ""),
    "Sorting": ("sorting", ""),
    "TWC": ("twc", f"numLocations=1, numItemsToPutAway=1, {_ONE_ROOM}"),
}

# split -> (the package's name of the fold, its seeds). A game of another fold has other things in it.
FOLDS = {
    "train": ("train", range(1000)),
    "validation": ("dev", range(10000, 11000)),
    "test": ("test", range(20000, 21000)),
}


def ids() -> tuple[str, ...]:
    """The environment ids of every game."""
    return tuple(PREFIX + game for game in GAMES)


def tasks(environment_id: str) -> Mapping[str, Sequence[str]]:
    """The tasks of every split, in the order in which they are collected: a task is a seed, written in digits."""
    return {split: [str(seed) for seed in seeds] for split, (_, seeds) in FOLDS.items()}


def fold_of(task: str) -> tuple[int, str]:
    """The seed of a task, and the package's name of its fold. Raises ValueError for a text that is no task."""
    if task.isascii() and task.isdecimal():
        for fold, seeds in FOLDS.values():
            if int(task) in seeds:
                return int(task), fold
    folds = ", ".join(f"{seeds.start}..{seeds.stop - 1} ({split})" for split, (_, seeds) in FOLDS.items())
    raise ValueError(f"textworld_express: expected a seed of {folds} as task, got {task!r}")
