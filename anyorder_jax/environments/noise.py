"""Noise of tools: calls that fail at first, and results that are cut. Options of every world of tools (`OPTIONS`).

Draws are functions of the task and the number of the action alone, and nested: what fails at 0.1 fails at 0.3 too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from anyorder_jax.environments.branching import draws
from anyorder_jax.environments.options import Known

OPTIONS: Known = {"errors": (0.0, 0.9), "cut": (16, 10**6)}
ERROR = '{"error": "The service is busy. Nothing was done. Call again."}'
CUT = "... [cut]"


class Noise(NamedTuple):
    """Of one task. errors: share of calls that fail before anything is done. cut: letters of a result that are told;
    0: all."""

    task: str
    errors: float = 0.0
    cut: int = 0

    @classmethod
    def of(cls, task: str, options: Mapping[str, float | str]) -> Noise:
        """What an id's options say (`options.read`)."""
        errors, cut = (options.get(name, 0) for name in OPTIONS)
        return cls(task, float(errors), int(cut))

    def fails(self, number: int) -> bool:
        """Whether the episode's call with this number (all calls counted from 0, failed ones too) fails."""
        return bool(self.errors) and draws("tool error", *self.task.encode(), number).random() < self.errors

    def told(self, result: str) -> str:
        """What the agent is told of a result."""
        if not self.cut or len(result) <= self.cut:
            return result
        return result[: self.cut - len(CUT)] + CUT

    def path(self, calls: Iterable[str], free: str = "") -> Iterator[str]:
        """Calls with each repeated until it does not fail.

        Args:
          calls: what an expert would do if nothing failed.
          free: the text of what is no call of a tool, and never fails.
        """
        number = 0
        for call in calls:
            while call != free and self.fails(number):
                number += 1
                yield call
            number += call != free
            yield call
