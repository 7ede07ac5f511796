"""Disturbances: an environment, or a recorded episode, seen through bad eyes or steered with a bad hand.

    occlusion    each cell is hidden (a mask token: the model's own kind of hole) with probability `strength`
    unseen       each cell is overwritten by the word "unseen", as behind a wall, with that probability
    noise        each cell gets another object, color or state (exactly one of them) with that probability
    dropped      the whole observation is hidden with that probability
    repeated     the observation shown before is shown again with that probability
    view         so many rings of cells beyond the agent's surroundings are "unseen": 1 leaves 5 x 5, 2 leaves 3 x 3
    sticky       the action done before is done again with that probability (Machado et al. 2018)
    hidden_goal  each word of the goal is hidden with that probability
    paraphrase   1: the other article; 2: and "you" in front; 3: and the color behind the noun

Observations are square grids seen from the middle of their lower edge (BabyAI's). Draws are functions of (seed,
disturbance, episode, step) and nested: what is hidden at 0.2 is hidden at 0.4 too. The expert stays an oracle: it reads
the simulator, not the observation, but its hand sticks like everybody's.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Sequence

import numpy as np

from anyorder_jax import keys
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import Environment, Expert, Step
from anyorder_jax.types import OCCLUDED, Codec, Field, Kind, Slot, Trajectory, Unit

STRENGTHS: dict[str, tuple[float, ...]] = {
    "occlusion": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
    "unseen": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
    "noise": (0.05, 0.1, 0.2, 0.4),
    "dropped": (0.1, 0.2, 0.4),
    "repeated": (0.1, 0.2, 0.4),
    "view": (1, 2),
    "sticky": (0.1, 0.25, 0.5),
    "hidden_goal": (0.25, 0.5, 1.0),
    "paraphrase": (1, 2, 3),
}
"""What each is tried at; 0 is the undisturbed episode."""

CLEAN = "clean"
"""What the one undisturbed point is called, with which every curve begins."""
ON_ACTIONS = frozenset({"sticky"})
ON_GOALS = frozenset({"hidden_goal", "paraphrase"})
UNSEEN = "unseen"


class Lens:
    """What one episode's units look like through a disturbance; fresh for each episode."""

    def __init__(self, environment_id: str, name: str, strength: float, seed: int, episode: int) -> None:
        """seed: of all draws. episode: the episode's own seed.

        Raises:
          ValueError: for an unknown disturbance.
        """
        if name not in STRENGTHS:
            raise ValueError(f"disturbances: expected one of {', '.join(STRENGTHS)}, got {name!r}.")
        self._codec = _codec(environment_id)
        self._environment_id, self._name, self._strength = environment_id, name, strength
        self._seed, self._episode = seed, episode
        self._shown: Unit | None = None

    def __call__(self, unit: Unit) -> Unit:
        """The unit as it is seen. Observations must come in order of time."""
        if unit.kind == Kind.GOAL and self._name in ON_GOALS and self._strength:
            return self._goal(unit)
        if unit.kind == Kind.OBSERVATION and self._name not in ON_GOALS | ON_ACTIONS and self._strength:
            before, self._shown = self._shown, self._observation(unit)
            if self._name == "repeated" and before is not None and self._draw(unit, 1)[0] < self._strength:
                self._shown = dataclasses.replace(before, step=unit.step)
            return self._shown
        return unit

    def _draw(self, unit: Unit, num: int) -> np.ndarray:
        """Uniform numbers of this unit, the same at every strength."""
        return keys.generator(self._seed, f"disturb {self._name}", self._episode, unit.step).random(num)

    def _goal(self, unit: Unit) -> Unit:
        if self._name == "paraphrase":
            return dataclasses.replace(unit, text=paraphrase(unit.text or "", int(self._strength)))
        return self._hide(unit, self._codec.slots(unit))

    def _hide(self, unit: Unit, slots: Sequence[Slot]) -> Unit:
        is_hidden_C = self._draw(unit, 1 + max(slot.cell for slot in slots)) < self._strength
        return dataclasses.replace(unit, data={**(unit.data or {}), OCCLUDED: np.flatnonzero(is_hidden_C).tolist()})

    def _observation(self, unit: Unit) -> Unit:
        slots = self._codec.slots(unit)
        if self._name == "occlusion":
            return self._hide(unit, [slot for slot in slots if slot.field == Field.CELL])
        if self._name == "dropped":
            is_dropped = self._draw(unit, 1)[0] < self._strength
            cells = [slot.cell for slot in slots] if is_dropped else []
            return dataclasses.replace(unit, data={**(unit.data or {}), OCCLUDED: cells})
        if self._name not in ("unseen", "noise", "view"):
            return unit
        places = [i for i, slot in enumerate(slots) if slot.field == Field.CELL]
        words = [slot.word for slot in slots]
        for place, is_hit in zip(places, self._hits(unit, len(places)), strict=True):
            if is_hit:
                words[place] = UNSEEN if self._name != "noise" else self._other(unit, place, words[place])
        return self._codec.unit(unit.kind, unit.step, words)

    def _hits(self, unit: Unit, num_cells: int) -> np.ndarray:
        """bool [cells, in reading order]: which are disturbed."""
        if self._name != "view":
            return self._draw(unit, num_cells) < self._strength
        side = math.isqrt(num_cells)
        y, x = np.divmod(np.arange(num_cells), side)
        rings = int(self._strength)
        return (np.abs(x - side // 2) > side // 2 - rings) | (y < 2 * rings)

    def _other(self, unit: Unit, place: int, word: str) -> str:
        others = _neighbours(self._environment_id)[word]
        if not others:
            return word
        rng = keys.generator(self._seed, "disturb to", self._episode, unit.step, place)
        return others[int(rng.integers(len(others)))]


@functools.cache
def _codec(environment_id: str) -> Codec:
    return registry.make_codec(environment_id, "joint")


@functools.cache
def _neighbours(environment_id: str) -> dict[str, list[str]]:
    """Each cell word -> the words that differ from it in exactly one of object, color and state."""
    joint, attributes = (registry.make_codec(environment_id, profile) for profile in ("joint", "attributes"))
    directions = joint.lexicon()[Field.DIRECTION]
    parts: dict[str, tuple[str, ...]] = {}
    for word in joint.lexicon()[Field.CELL]:
        unit = joint.unit(Kind.OBSERVATION, 0, [directions[0], *[word] * _num_cells(environment_id)])
        slots = [slot for slot in attributes.slots(unit) if slot.field != Field.DIRECTION]
        parts[word] = tuple(slot.word for slot in slots[:3])
    return {
        word: [other for other in parts if sum(a != b for a, b in zip(own, parts[other], strict=True)) == 1]
        for word, own in parts.items()
    }


@functools.cache
def _num_cells(environment_id: str) -> int:
    environment = registry.make_environment(environment_id)
    try:
        observation = environment.reset(0)[-1]
        return sum(slot.field == Field.CELL for slot in environment.codec.slots(observation))
    finally:
        environment.close()


def paraphrase(goal: str, level: int) -> str:
    """The same mission in other words of the grammar: see the module's list."""
    if level >= 1:
        goal = re.sub(r"\b(a|the)\b", lambda found: "the" if found[0] == "a" else "a", goal)
    if level >= 2:
        goal = f"you {goal}"
    if level >= 3:
        goal = re.sub(r"\b(red|green|blue|purple|yellow|grey) (ball|key|box|door|object)\b", r"\2 \1", goal)
    return goal


class Disturbed:
    """An `Environment` whose episodes are seen and steered through a disturbance."""

    def __init__(self, environment: Environment, name: str, strength: float, seed: int) -> None:
        self._inner, self._name, self._strength, self._seed = environment, name, strength, seed
        self.id, self.version, self.expert_name = environment.id, environment.version, environment.expert_name
        self.actions, self.codec = environment.actions, environment.codec
        self._done: str | None = None
        self._episode, self._num_steps = 0, 0

    @property
    def max_steps(self) -> int:
        return self._inner.max_steps

    def reset(self, seed: int) -> list[Unit]:
        """Starts the episode of `seed`."""
        self._lens = Lens(self.id, self._name, self._strength, self._seed, seed)
        self._done, self._episode, self._num_steps = None, seed, 0
        return [self._lens(unit) for unit in self._inner.reset(seed)]

    def step(self, action_word: str) -> Step:
        """Does the action, or what sticks; the observation comes through the lens."""
        if self._name == "sticky" and self._done is not None:
            rng = keys.generator(self._seed, "disturb sticky", self._episode, self._num_steps)
            action_word = self._done if rng.random() < self._strength else action_word
        self._done = action_word
        self._num_steps += 1
        step = self._inner.step(action_word)
        return step._replace(observation=self._lens(step.observation))

    def wrong_actions(self, advice: str) -> tuple[str, ...]:
        return self._inner.wrong_actions(advice)

    def render(self) -> np.ndarray:
        return self._inner.render()

    def expert(self) -> Expert:
        """The inner expert, told what was really done."""
        return _ToldExpert(self._inner.expert(), self)

    def close(self) -> None:
        self._inner.close()


class _ToldExpert:
    def __init__(self, expert: Expert, environment: Disturbed) -> None:
        self._expert, self._environment = expert, environment

    def next_action(self, previous_action: str | None) -> str:
        return self._expert.next_action(None if previous_action is None else self._environment._done)


def disturb(trajectory: Trajectory, name: str, strength: float, seed: int) -> Trajectory:
    """A recorded episode as it is seen through a disturbance; its actions are what was done.

    Args:
      trajectory: recorded from the environment that its source names.
      name: of the disturbance.
      strength: how much of it; `STRENGTHS` has each one's.
      seed: of what it draws.

    Raises:
      ValueError: for an unknown disturbance, or a trajectory whose source names no environment and seed.
    """
    source = trajectory.source
    if "environment" not in source or "seed" not in source:
        raise ValueError(f"disturbances: trajectory {trajectory.id} does not say its environment and seed.")
    lens = Lens(source["environment"], name, strength, seed, int(source["seed"]))
    return dataclasses.replace(trajectory, units=tuple(lens(unit) for unit in trajectory.units))
