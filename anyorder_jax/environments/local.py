"""Local: sessions of grids in this process, asked as those of `server.Server` are; every answer is there at once.

A grid's task is its seed, as text. What a simulator raises is a fault of this program and ends it; only an expert that
gives up is an answer (`SessionError`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from anyorder_jax.environments.base import Environment, Expert, ExpertError, Start, TextStep
from anyorder_jax.environments.server import VERBS, SessionError
from anyorder_jax.types import Kind, Unit


class _Grid:
    """One session."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self._expert: Expert | None = None
        self._done: Unit | None = None
        self._step = 0

    def reset(self, task: str) -> Start:
        units = self.environment.reset(int(task))
        self._expert, self._done, self._step = None, None, 0
        return Start(tuple(units), self.environment.max_steps)

    def step(self, action: Unit) -> TextStep:
        found = self.environment.step(action.text or "")
        self._done, self._step = action, found.observation.step
        return TextStep((found.observation,), found.reward, found.is_done, found.is_success)

    def parse_error(self, text: str) -> str:
        words = self.environment.actions
        return "" if text in words else f"expected one of {', '.join(words)}, got {text!r}"

    def valid_actions(self, _: None) -> tuple[str, ...]:
        return self.environment.actions

    def advice(self, _: None) -> tuple[Unit, ...]:
        """The bot's next action; it is made just after the reset, and told what was done at each step."""
        try:
            if self._expert is None:
                if self._done is not None:
                    raise ExpertError("the expert was not asked from the start")
                self._expert = self.environment.expert()
            word = self._expert.next_action(None if self._done is None else self._done.text)
        except ExpertError as error:
            raise SessionError(str(error)) from error
        return (Unit(Kind.ACTION, self._step, text=word),)


class LocalServer:
    """Sessions of one grid, numbered from 0.

    Args:
      make: opens one environment; an episode depends on its seed alone, so each is used for many.
      num_sessions: episodes that are played at a time, >= 1.
    """

    def __init__(self, make: Callable[[], Environment], num_sessions: int) -> None:
        self.num_sessions = num_sessions
        self._sessions = [_Grid(make()) for _ in range(num_sessions)]

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(self, *exception: object) -> None:
        for session in self._sessions:
            session.environment.close()

    def submit(self, session: int, verb: str, argument: Any = None) -> Future[Any]:
        """As `server.Server.submit`; the answer has come.

        Args:
          session: number, below `num_sessions`.
          verb: one of `server.VERBS`.
          argument: see there.
        """
        assert verb in VERBS, verb
        answer: Future[Any] = Future()
        try:
            answer.set_result(getattr(self._sessions[session], verb)(argument))
        except SessionError as error:
            answer.set_exception(error)
        return answer
