"""A world of text where everything goes wrong that can: what an action says happens to its own process."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

from anyorder_jax.environments import registry
from anyorder_jax.environments.base import Closed, TextStep
from anyorder_jax.types import Kind, Unit

PREFIX = "Faulty-"


def register() -> None:
    """Makes the world known here and in processes that are started."""
    registry.register(PREFIX, __name__)


def ids() -> tuple[str, ...]:
    return ("Faulty-v0", "Faulty-closed-v0", "Faulty-clock-v0")


class Faulty:
    """Counts the actions; its tasks are names, "bad" is none."""

    version = "faulty 1"
    actions = Closed(("count", "raise", "die", "sleep", "hang", "print", "end"))
    max_steps = 5

    def __init__(self, environment_id: str) -> None:
        self.id = environment_id

    def reset(self, task: str) -> list[Unit]:
        if task == "bad":
            raise ValueError("bad is no task")
        self._task, self._step = task, 0
        self._tell("")
        return [Unit(Kind.GOAL, 0, text=f"Count for {task}."), Unit(Kind.OBSERVATION, 0, text="0")]

    def _tell(self, what: str) -> None:
        """Leaves a file by which a test knows this process and what it does."""
        if place := os.environ.get("FAULTY_PIDS"):
            Path(place, f"{os.getpid()}{what}").touch()

    def step(self, action: Unit) -> TextStep:
        match action.text:
            case "raise":
                raise RuntimeError("the world broke")
            case "die":
                os._exit(7)
            case "sleep":
                self._tell(".sleep")
                time.sleep(600)
            case "hang":
                self._tell(".hang")
                ctypes.PyDLL(None).usleep(600_000_000)  # keeps the interpreter's lock: no thread of Python runs
            case "print":
                print("a world that speaks")
        self._step += 1
        text = f"{time.time_ns()}" if "clock" in self.id else f"{self._step}"
        is_end = action.text == "end"
        return TextStep((Unit(Kind.OBSERVATION, self._step, text=text),), float(is_end), is_end, is_end)

    def close(self) -> None:
        pass


def session(environment_id: str) -> Faulty:
    if "closed" in environment_id:
        raise OSError("the shop is closed")
    return Faulty(environment_id)
