"""World: a session of a TextWorldExpress game.

    goal          You are hungry! Let's cook a delicious meal. Check the cookbook in the kitchen for the recipe. ...
    observation   You are in the kitchen. In one part of the room you see a stove. There is also an oven. ...
    action        read cookbook
    observation   Gather all following ingredients and follow the directions to prepare this tasty meal. ...

The score, in [0, 100], is the sum of the rewards.
"""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

import textworld_express

from anyorder_jax.environments.base import InvalidActionError, Text, TextStep
from anyorder_jax.environments.gold import next_on
from anyorder_jax.environments.java import Client
from anyorder_jax.environments.textworld_express.folds import GAMES, PREFIX, fold_of
from anyorder_jax.types import Kind, Unit

_UNKNOWN = "Unknown action"
"""How the answer to an action begins that the game does not know; nothing has happened then."""


def parse(text: str) -> str:
    """An action is one line of text. Raises ValueError for any other."""
    if not text.strip() or "\n" in text:
        raise ValueError(f"expected one line of text, got {text!r}")
    return text


class Session:
    """An episode at a time; all sessions of a process live in one Java machine.

    The expert is the package's own gold path, which never wanders in these games (coin collector and TWC in several
    rooms, where it does, are not among them).
    """

    version = f"textworld-express {importlib.metadata.version('textworld-express')}"
    expert_name = "gold path"
    actions = Text(parse)
    max_steps = 100  # the package's limit and TALES'

    def __init__(self, environment_id: str) -> None:
        self.id = environment_id
        self._game, self._settings = GAMES[environment_id.removeprefix(PREFIX)]
        jar = textworld_express.constants.JAR_PATH
        self._java = Client(environment_id, jar, ("-Xmx1g",), _interface, is_shared=True)
        self._state: dict[str, Any] = {}
        self._path: list[str] = []
        self._done: list[str] = []
        self._step = 0

    def reset(self, task: str) -> list[Unit]:
        seed, fold = fold_of(task)
        if self._java.begin() and (problem := self._java.call("load", self._game, self._settings)):
            raise RuntimeError(f"{self.id}: {problem}")
        self._state = json.loads(self._java.call("generateNewGameJSON", seed, fold, True))
        self._path, self._done, self._step = self._java.texts("getGoldActionSequence"), [], 0
        goal = self._java.call("getTaskDescription").strip()
        return [Unit(Kind.GOAL, 0, text=goal), Unit(Kind.OBSERVATION, 0, text=self._state["observation"].strip())]

    def step(self, action: Unit) -> TextStep:
        text = parse(action.text or "")
        before, self._step = self._points(), action.step + 1
        state = json.loads(self._java.call("stepJSON", text))
        observation = state["observation"].strip()
        if observation.startswith(_UNKNOWN):
            raise InvalidActionError(observation)
        self._state = state
        self._done.append(text)
        units = (Unit(Kind.OBSERVATION, self._step, text=observation),)
        is_success = bool(state["tasksuccess"])
        return TextStep(units, self._points() - before, is_success or bool(state["taskfailure"]), is_success)

    def _points(self) -> float:
        return float(max(0, round(100 * self._state["score"])))

    def path(self) -> list[str]:
        """The gold path of the episode, from its start."""
        return self._path

    def advice(self) -> list[Unit]:
        return [Unit(Kind.ACTION, self._step, text=next_on(self._path, self._done))]

    def valid_actions(self) -> list[str]:
        """Every action that the game takes now."""
        return sorted(self._state["validActions"])

    def close(self) -> None:
        self._java.close()


def _interface(jvm: Any) -> Any:
    return jvm.textworldexpress.runtime.PythonInterface()
