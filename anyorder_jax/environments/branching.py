"""Branching: what other actions would have led to, asked of the world itself while an expert plays (early experience).

    played     o0 left  o1 forward  o2 ...
    asked      o0 right o1'                  a copy of the state does it, where the world can be copied (`Branching`);
                        o1 right    o2'      else another session, after the same actions from the start of the task

A branch is recorded in the action that was played instead (`Unit.branches`):

    {"action": "right", "units": [{"kind": "observation", "step": 1, ...}], "reward": 0.0, "is_done": false,
     "is_success": false}
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from anyorder_jax.environments.base import (
    Branching,
    Closed,
    Environment,
    HasValidActions,
    Text,
    TextEnvironment,
    TextStep,
    take,
)
from anyorder_jax.types import ROLES, Unit

World = Environment | TextEnvironment


def possible_actions(world: World) -> Sequence[str]:
    """Texts of actions that may be done now: as the world says, else all that it has.

    Raises:
      ValueError: for a world of free text that does not tell.
    """
    if isinstance(world, HasValidActions):
        return world.valid_actions()
    if isinstance(world.actions, Closed):
        return world.actions.words
    if not isinstance(world.actions, Text):
        return world.actions
    raise ValueError(f"{world.id} does not tell which actions are valid, so branches must be 0.")


def draws(purpose: str, *seed: int) -> np.random.Generator:
    """keys.generator's way to seed; importing it would bring JAX into every process that plays."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([*seed, zlib.crc32(purpose.encode())])))


class Brancher:
    """Asks a world about other actions.

    Args:
      world: the session that is played; it is never moved.
      num: K, branches of a step at most.
      reopen: opens another session of the same world, for one that cannot be copied.

    Raises:
      ValueError: for a world of free text that does not tell which actions are valid.
    """

    def __init__(self, world: World, num: int, reopen: Callable[[], World]) -> None:
        if not isinstance(world, HasValidActions):
            possible_actions(world)
        self._world, self._num, self._reopen = world, num, reopen
        self._other: World | None = None

    def ask(self, task: int | str, done: Sequence[Unit], action: Unit) -> tuple[dict[str, Any], ...]:
        """The branches of the step that comes next: K of the other actions, drawn from (task, step).

        Args:
          task: of the episode (a seed in a grid).
          done: the actions so far.
          action: that will be done now.
        """
        others = [text for text in dict.fromkeys(possible_actions(self._world)) if text != action.text]
        if len(others) > self._num:
            seed = [task] if isinstance(task, int) else [*task.encode()]
            chosen = draws("branches", *seed, len(done)).choice(len(others), self._num, replace=False)
            others = [others[i] for i in sorted(chosen.tolist())]
        return tuple(self._branch(task, done, replace(action, text=text)) for text in others)

    def close(self) -> None:
        """Closes the other session."""
        if self._other is not None:
            self._other.close()
            self._other = None

    def _branch(self, task: int | str, done: Sequence[Unit], action: Unit) -> dict[str, Any]:
        if isinstance(self._world, Branching):
            other = self._world.copy()
            step = _do(other, action)
            other.close()
        else:
            if self._other is None:
                self._other = self._reopen()
            self._other.reset(task)  # type: ignore[arg-type]  # a seed of a grid, a text of a world of text
            for earlier in done:
                _do(self._other, earlier)
            step = _do(self._other, action)
        return {
            "action": action.text, "units": [_record(unit) for unit in step.units], "reward": float(step.reward),
            "is_done": bool(step.is_done), "is_success": bool(step.is_success),
        }  # fmt: skip


def _do(world: Any, action: Unit) -> TextStep:
    """Does an action in a world of either kind."""
    if isinstance(world.actions, Closed | Text):
        return take(world, action)
    step = world.step(action.text)
    return TextStep((step.observation,), step.reward, step.is_done, step.is_success)


def _record(unit: Unit) -> dict[str, Any]:
    content = {"text": unit.text} if unit.data is None else {"data": dict(unit.data)}
    return {"kind": ROLES[unit.kind], "step": unit.step, **content}
