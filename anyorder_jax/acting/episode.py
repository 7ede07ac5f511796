"""Episode: one episode while it is played, of text or of a grid, and the decisions that are made in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from anyorder_jax.environments.base import Start, TextStep
from anyorder_jax.environments.server import SessionError, Sessions
from anyorder_jax.types import DECISION, Kind, Trajectory, Unit


class Decision(NamedTuple):
    """What an agent writes at its turn. units: thoughts (or none), then one action; empty: it gives up, and `reason`
    says why. num_passes, num_tokens: forward passes, and tokens written with the first end of each unit, of repairs
    too. num_repairs: actions that were written anew."""

    units: tuple[Unit, ...]
    num_passes: int = 0
    num_tokens: int = 0
    num_repairs: int = 0
    reason: str = ""


@dataclass
class Episode:
    """An episode of a task in a session of a server.

    units: all that was seen and done. decisions: of the agent, in order. best_return: the highest sum of rewards on
    the way. num_invalid: actions that the world did not take; is_taken: whether it took each. num_repeated: actions
    that had been done before at the same evidence. reason: why it ended without the world saying so ("" where the world
    did).
    """

    task: str
    server: Sessions
    session: int
    units: list[Unit] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    total_reward: float = 0.0
    best_return: float = 0.0
    is_done: bool = False
    is_success: bool = False
    num_invalid: int = 0
    is_taken: list[bool] = field(default_factory=list)
    num_repeated: int = 0
    reason: str = ""
    max_steps: int = 0
    _done: set[str] = field(default_factory=set, repr=False)

    @property
    def num_steps(self) -> int:
        """Actions taken."""
        return len(self.decisions)

    @property
    def step(self) -> int:
        """The number of the step whose decision comes next."""
        return self.units[-1].step

    def trajectory(self) -> Trajectory:
        """The episode as a trajectory, with its outcome, as a shard holds it."""
        outcome = {"success": self.is_success, "return": self.total_reward, "num_steps": self.num_steps}
        return Trajectory(self.task, tuple(self.units), outcome, {"task": self.task})

    def last_action(self) -> str | None:
        """The newest action's text."""
        return next((unit.text for unit in reversed(self.units) if unit.kind == Kind.ACTION), None)

    def ask(self, verb: str, argument: Any = None) -> Future[Any]:
        """`Server.submit` of this episode's session."""
        return self.server.submit(self.session, verb, argument)

    def fail(self, reason: str) -> None:
        """Ends the episode without success, for a reason that the report shows."""
        self.is_done, self.is_success, self.reason = True, False, reason

    def decide(self, decision: Decision) -> Future[Any] | None:
        """Records a decision and begins to do its action; None where the agent gave up."""
        if not decision.units:
            self.fail(decision.reason or "the agent gave up")
            return None
        action = decision.units[-1]
        assert action.kind == Kind.ACTION and all(unit.kind in DECISION for unit in decision.units)
        place = json.dumps([self._evidence(), action.text])
        self.num_repeated += place in self._done
        self._done.add(place)
        self.units += decision.units
        self.decisions.append(decision)
        return self.ask("step", action)

    def _evidence(self) -> list[Any]:
        """What was seen since the last decision, without its time."""
        newest = self.units[self._last_decision() + 1 :]
        return [[int(unit.kind), unit.text, unit.data and dict(unit.data)] for unit in newest]

    def _last_decision(self) -> int:
        return max((i for i, unit in enumerate(self.units) if unit.kind in DECISION), default=-1)

    def begin(self, start: Start) -> None:
        """Takes the units with which the episode begins."""
        self.units, self.max_steps = list(start.units), start.max_steps

    def take(self, step: TextStep) -> None:
        """Records what the action led to; ends the episode after its last step."""
        self.units += step.units
        self.total_reward += step.reward
        self.best_return = max(self.best_return, self.total_reward)
        self.num_invalid += step.is_invalid
        self.is_taken.append(not step.is_invalid)
        self.is_done, self.is_success = step.is_done, step.is_success
        if not step.is_done and self.num_steps >= self.max_steps:
            self.fail(f"no end within {self.max_steps} steps")


def answers(episodes: Sequence[Episode], verb: str, arguments: Sequence[Any] | None = None) -> list[Any]:
    """What the session of each episode says, all asked at once; a SessionError is an answer."""
    asked = [e.ask(verb, a) for e, a in zip(episodes, arguments or [None] * len(episodes), strict=True)]
    return [_answer(future) for future in asked]


def _answer(future: Future[Any]) -> Any:
    try:
        return future.result()
    except SessionError as error:
        return error
