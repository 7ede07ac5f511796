"""A small world for the tests of data/: a corridor of four cells, with a codec in both profiles."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from anyorder_jax.types import GRID_LEVELS, Field, Hidden, Kind, Slot, Tokenised, Trajectory, Unit

NUM_CELLS = 4
OBJECTS = ("empty", "wall", "ball", "door")
COLORS = ("none", "red", "purple")
STATES = ("none", "open", "locked")
DIRECTIONS = ("east", "west")
ACTIONS = ("left", "forward", "pickup")
GOAL_WORDS = ("go", "to", "the", "red", "purple", "ball", "door")
BPE_DIRECTORY = Path(__file__).parent / "golden" / "tokenizer"


class CorridorCodec:
    """An observation is {"cells": [[object, color, state], ...], "direction": word}."""

    name = "corridor"
    levels = GRID_LEVELS
    is_running_text = False

    def __init__(self, profile: str) -> None:
        self.profile = profile

    def lexicon(self) -> Mapping[Field, Sequence[str]]:
        fixed = {Field.TEXT: GOAL_WORDS, Field.DIRECTION: DIRECTIONS, Field.ACTION: ACTIONS}
        if self.profile == "attributes":
            return {**fixed, Field.OBJECT: OBJECTS, Field.COLOR: COLORS, Field.STATE: STATES}
        return {**fixed, Field.CELL: ["_".join(cell) for cell in itertools.product(OBJECTS, COLORS, STATES)]}

    def slots(self, unit: Unit) -> list[Slot]:
        if unit.kind is not Kind.OBSERVATION:
            field = Field.ACTION if unit.kind is Kind.ACTION else Field.TEXT
            return [Slot(word, field, cell, 0) for cell, word in enumerate(unit.text.split())]
        slots = [Slot(unit.data["direction"], Field.DIRECTION, 0, 0)]
        for c, cell in enumerate(unit.data["cells"], start=1):
            if self.profile == "attributes":
                fields = (Field.OBJECT, Field.COLOR, Field.STATE)
                slots += [Slot(word, field, c, a) for a, (word, field) in enumerate(zip(cell, fields, strict=True))]
            else:
                slots.append(Slot("_".join(cell), Field.CELL, c, 0))
        return slots

    def unit(self, kind: Kind, step: int, words: Sequence[str]) -> Unit:
        if kind is not Kind.OBSERVATION:
            return Unit(kind, step, text=" ".join(words))
        flat = list(itertools.chain.from_iterable(word.split("_") for word in words[1:]))
        if len(flat) != 3 * NUM_CELLS:
            raise ValueError(f"corridor: expected {3 * NUM_CELLS} attributes, got {flat}.")
        return Unit(
            kind,
            step,
            data={"cells": [flat[i : i + 3] for i in range(0, len(flat), 3)], "direction": words[0]},
        )


def make_trajectory(number: int, num_actions: int, goal: str = "go to the red ball") -> Trajectory:
    """Episode `number`: goal, then num_actions + 1 observations with the actions between them."""
    rng = np.random.default_rng(number)
    units = [Unit(Kind.GOAL, 0, text=goal)]
    for step in range(num_actions + 1):
        cells = [[str(rng.choice(names)) for names in (OBJECTS, COLORS, STATES)] for _ in range(NUM_CELLS)]
        units.append(Unit(Kind.OBSERVATION, step, data={"cells": cells, "direction": str(rng.choice(DIRECTIONS))}))
        if step < num_actions:
            action = str(rng.choice(ACTIONS))
            units.append(Unit(Kind.ACTION, step, text=action, is_expert=bool(rng.random() < 0.8)))
    return Trajectory(f"episode-{number}", tuple(units), source={"environment": "Corridor"})


def make_trajectories(number: int) -> list[Trajectory]:
    """So many episodes of 1 to 9 actions."""
    return [make_trajectory(i, 1 + i % 9) for i in range(number)]


def sample_tokens(rng: np.random.Generator, example: Tokenised, progress: float = 0.0) -> Hidden:
    """Hides each token with the probability of the progress, half of it and more; at least one target."""
    rate = 0.5 + progress / 2
    is_hidden_L = (rng.random(len(example)) < rate) & (example.field_L != Field.FRAME)
    is_hidden_L[np.flatnonzero(example.field_L != Field.FRAME)[-1]] = True
    return Hidden(is_hidden_L, is_hidden_L & (example.field_L != Field.FILLER), "any_order", "token", rate)


def invert(example: Tokenised, hidden: Hidden) -> Hidden:
    """Hides what `hidden` showed."""
    is_hidden_L = ~hidden.is_hidden_L & (example.field_L != Field.FRAME)
    is_target_L = is_hidden_L & (example.field_L != Field.FILLER)
    return hidden._replace(is_hidden_L=is_hidden_L, is_target_L=is_target_L, rate=1 - hidden.rate / 2)
