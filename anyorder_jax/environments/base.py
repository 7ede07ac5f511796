"""Environment: the verbs every environment offers (reset, step, expert, render, close), in units."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from anyorder_jax.types import Codec, Unit


class Step(NamedTuple):
    """What one action led to. is_done: the episode is over (solved, failed or out of steps)."""

    observation: Unit
    reward: float
    is_done: bool
    is_success: bool


class ExpertError(RuntimeError):
    """The expert gave up on an episode. The message is the same on every machine: it stands in manifests."""


class Expert(Protocol):
    """Plays one episode. Made by `Environment.expert()` just after a reset, of no use after the next one."""

    def next_action(self, previous_action: str | None) -> str:
        """The expert's next action word.

        Args:
          previous_action: what was really done last (not always the expert's advice), None at the start.

        Raises:
          ExpertError: when the expert does not know how to go on.
        """
        ...


class Environment(Protocol):
    """One task family. Every episode is a function of the seed alone, whatever was played before.

    id: as registered. version: the software that defines the dynamics, e.g. "minigrid 3.2.0". expert_name:
    who `expert()` is, "" without one. actions: every action word. codec: between units and words.
    max_steps: the limit of the current episode, so it is read after `reset`.
    """

    id: str
    version: str
    expert_name: str
    actions: tuple[str, ...]
    codec: Codec

    @property
    def max_steps(self) -> int: ...

    def reset(self, seed: int) -> list[Unit]:
        """Starts the episode of `seed` >= 0: the goal unit, then observation 0."""
        ...

    def step(self, action_word: str) -> Step:
        """Does one action. Raises ValueError for a word that is not in `actions`."""
        ...

    def wrong_actions(self, advice: str) -> tuple[str, ...]:
        """Actions that a learner might take instead of `advice` and that the expert can recover from."""
        ...

    def render(self) -> np.ndarray:
        """The whole scene as uint8 [height, width, 3]."""
        ...

    def expert(self) -> Expert:
        """An expert for the episode that was just reset. Raises ExpertError when it cannot even begin."""
        ...

    def close(self) -> None: ...
