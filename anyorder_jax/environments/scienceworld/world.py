"""World: a session of ScienceWorld.

    goal          Your task is to find a(n) living thing. First, focus on the thing. Then, move it to the red box ...
    observation   This room is called the hallway. In it, you see: ...
    action        go to kitchen
    observation   You move to the kitchen.

The score, in [0, 100], is the sum of the rewards (what the start is worth comes with the first action's). The
simulator's own -100, for a task that has become impossible, ends the episode with the score 0.

By itself the simulator remembers what was played before. Two things are done about that: sets are walked through in an
order that depends on no address (`-XX:hashCode=2`), and the paths that its expert keeps for other episodes are thrown
away before each. Unique numbers of objects are kept in a static field, so every session has a Java machine of its own.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import scienceworld.constants

from anyorder_jax.environments.base import ExpertError, InvalidActionError, Text, TextStep
from anyorder_jax.environments.gold import next_on
from anyorder_jax.environments.java import Client
from anyorder_jax.environments.scienceworld.folds import max_steps, split_id, split_task
from anyorder_jax.types import Kind, Unit

_UNKNOWN = "No known action matches that input."
"""The answer to an action that the simulator does not know; nothing moves then."""

_OPTIONS = ("-Xmx1g", "-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2")


def parse(text: str) -> str:
    """An action is one line of text. Raises ValueError for any other."""
    if not text.strip() or "\n" in text:
        raise ValueError(f"expected one line of text, got {text!r}")
    return text


class Session:
    """An episode at a time. The expert is the simulator's gold path, computed when it is first asked."""

    version = f"scienceworld {importlib.metadata.version('scienceworld')}"
    expert_name = "gold path"
    actions = Text(parse)

    def __init__(self, environment_id: str) -> None:
        self.id = environment_id
        self._simplification, _ = split_id(environment_id)
        jar = scienceworld.constants.JAR_PATH
        self._java = Client(environment_id, jar, _OPTIONS, _interface, is_shared=False)
        self._kind, self._variation = "", 0
        self._path: list[str] | None = None
        self._done: list[str] = []
        self._step, self._points = 0, 0.0

    @property
    def max_steps(self) -> int:
        return max_steps(self._kind)

    def reset(self, task: str) -> list[Unit]:
        self._kind, self._variation = split_task(self.id, task)
        self._path, self._done, self._step, self._points = None, [], 0, 0.0
        self._java.begin()
        observation = self._load(with_path=False)
        goal = self._java.call("getTaskDescription").strip()
        return [Unit(Kind.GOAL, 0, text=goal), Unit(Kind.OBSERVATION, 0, text=observation)]

    def _load(self, with_path: bool) -> str:
        """Begins the episode; what is seen first."""
        self._java.jvm.scienceworld.goldagent.PathFinder.precomputedExhaustivePaths().clear()
        self._java.call("load", self._kind, self._variation, self._simplification, with_path)
        self._java.call("reset")
        observation = self._java.call("step", "look around").strip()  # as its own Python side begins
        return str(observation)

    def _score(self) -> float:
        """In [-100, 100]; below 0: the task has become impossible."""
        return float(round(100 * self._java.call("getScore")))

    def step(self, action: Unit) -> TextStep:
        text = parse(action.text or "")
        self._step = action.step + 1
        observation = self._java.call("step", text).strip()
        if observation == _UNKNOWN:
            raise InvalidActionError(observation)
        self._done.append(text)
        score = self._score()
        before, self._points = self._points, max(0.0, score)
        units = (Unit(Kind.OBSERVATION, self._step, text=observation),)
        is_done = score < 0 or bool(self._java.call("getCompleted"))
        return TextStep(units, self._points - before, is_done, is_done and score == 100)

    def path(self) -> list[str]:
        """The gold path of the episode, from its start."""
        if self._path is None:
            done = self._done
            self._load(with_path=True)
            self._path = self._java.texts("getGoldActionSequence")
            for text in done:  # back to where we were
                self._java.call("step", text)
        return self._path

    def advice(self) -> list[Unit]:
        path = self.path()
        if not path or path[0].startswith("ERROR"):
            raise ExpertError("the simulator found no gold path")
        return [Unit(Kind.ACTION, self._step, text=next_on(path, self._done))]

    def valid_actions(self) -> list[str]:
        """Combinations of verb and things that the simulator lists: each thing by one of its names, so an action that
        names it otherwise is not among them and is done all the same."""
        return sorted(self._java.texts("getValidActionObjectCombinations"))

    def close(self) -> None:
        self._java.close()


def _interface(jvm: Any) -> Any:
    return jvm.scienceworld.runtime.pythonapi.PythonInterface()
