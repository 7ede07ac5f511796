"""Environment: the verbs every environment offers (reset, step, expert, render, close), in units.

A world whose actions are words out of a list and whose observations are structured is an `Environment`. A world of
text, whose actions are text of any length, is a `TextEnvironment`; what else it can do it says by having the verbs of
`HasExpert`, `HasValidActions`, `HasFunctions` or `Branching`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from anyorder_jax.environments.calls import Function
from anyorder_jax.types import Codec, Kind, Unit


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


class InvalidActionError(ValueError):
    """An action that a world cannot do. The agent is told why, and the episode goes on."""


class Closed(NamedTuple):
    """Actions out of a list."""

    words: tuple[str, ...]

    def parse(self, text: str) -> object:
        """Raises ValueError for a text that is not one of the words."""
        if text not in self.words:
            raise ValueError(f"expected one of {', '.join(self.words)}, got {text!r}")
        return text


class Text(NamedTuple):
    """Actions of free text. parse: raises ValueError, with a sentence for the agent, for a text that is no action."""

    parse: Callable[[str], object]


class Start(NamedTuple):
    """How an episode begins. units: as `TextEnvironment.reset` gave them. max_steps: actions in it at most."""

    units: tuple[Unit, ...]
    max_steps: int


class TextStep(NamedTuple):
    """What one action led to. units: evidence (observations, tool results, user turns), all of the step that follows
    the action's. is_done: the episode is over. is_invalid: the action was none, and `units` say so."""

    units: tuple[Unit, ...]
    reward: float
    is_done: bool
    is_success: bool
    is_invalid: bool = False


class TextEnvironment(Protocol):
    """One session of a world of text; many live at once, in processes (`server`). What happens is a function of the
    task and the actions alone, whatever was played before.

    id: as registered. version: the software that defines the dynamics. actions: what an action is. max_steps: actions
    in the current episode at most, read after `reset`.
    """

    id: str
    version: str
    actions: Closed | Text

    @property
    def max_steps(self) -> int: ...

    def reset(self, task: str) -> Sequence[Unit]:
        """Starts the episode of a task, named by any text: system text (where there is some), goal, observation, all of
        step 0. Raises ValueError for a task that is none."""
        ...

    def step(self, action: Unit) -> TextStep:
        """Does an action that `actions.parse` accepts. Raises InvalidActionError for one that cannot be done here."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class HasExpert(Protocol):
    """A world with somebody who knows what to do."""

    expert_name: str

    def advice(self) -> Sequence[Unit]:
        """The expert's decision in the present state: thoughts (where it has some), then one action, of the present
        step. Raises ExpertError where it does not know how to go on."""
        ...


@runtime_checkable
class HasPath(Protocol):
    """A world whose expert follows a path that is fixed when the episode begins, and gives up where it was left."""

    def path(self) -> Sequence[str]:
        """The texts of the expert's actions, from the start of the episode to its end."""
        ...


@runtime_checkable
class HasValidActions(Protocol):
    """A world that can list actions that may be done now."""

    def valid_actions(self) -> Sequence[str]:
        """Texts that parse and can be done, at least one, in an order that depends on the state alone."""
        ...


@runtime_checkable
class HasFunctions(Protocol):
    """A world whose actions are calls of functions."""

    def functions(self) -> Sequence[Function]:
        """Those that may be called now."""
        ...


@runtime_checkable
class Branching(Protocol):
    """A world, of text or a grid, whose state can be copied: so other actions can be tried (early experience)."""

    def copy(self) -> Any:
        """A session of its own in the same state; what is done in one of them does not move the other."""
        ...


def parse_error(environment: TextEnvironment, text: str) -> str:
    """Why a text is no action of this world; empty for one that is."""
    try:
        environment.actions.parse(text)
    except ValueError as error:
        return " ".join(str(error).split()) or "not understood"
    return ""


def take(environment: TextEnvironment, action: Unit) -> TextStep:
    """Does an action, or tells the agent that it is none: an outcome like any other, never an error.

    What it led to has the step after the action's, also where the world, which is not told of actions that are none,
    counts otherwise.
    """
    reason = parse_error(environment, action.text or "")
    if not reason:
        try:
            step = environment.step(action)
            after = action.step + 1
            return step._replace(units=tuple(u if u.step == after else replace(u, step=after) for u in step.units))
        except InvalidActionError as error:
            reason = str(error)
    told = Unit(Kind.OBSERVATION, action.step + 1, text=f"invalid action: {reason}")
    return TextStep((told,), 0.0, False, False, is_invalid=True)
