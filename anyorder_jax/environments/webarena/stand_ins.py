"""Stand-ins: a session on sites of our own (`sites`), with an oracle for the tasks that are proven there (`oracles`).

Its results are those of "WebArena-Verified tasks on stand-in sites", never WebArena's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from anyorder_jax.environments.base import ExpertError, TextStep
from anyorder_jax.environments.webarena import sites
from anyorder_jax.environments.webarena.addresses import Addresses
from anyorder_jax.environments.webarena.browser import SiteTab
from anyorder_jax.environments.webarena.folds import Task
from anyorder_jax.environments.webarena.oracles import OracleError, Plan, plan_of
from anyorder_jax.environments.webarena.oracles import Task as Asked
from anyorder_jax.environments.webarena.world import Session
from anyorder_jax.types import Kind, Unit


class StandIns:
    """The sites, served by threads of this process; all are put back before each task."""

    addresses: Addresses
    is_frozen = True
    version = "stand-in sites 1"

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._sites = self._stack.enter_context(sites.started())
        self.addresses = self._sites.addresses

    def prepare(self, tab: SiteTab, sites: Sequence[str]) -> None:
        self._sites.reset()

    def close(self) -> None:
        self._stack.close()


class StandInSession(Session):
    """A session on the stand-ins. Errors as `Session`."""

    expert_name = "oracle"

    def __init__(self, environment_id: str) -> None:
        served = StandIns()
        try:
            super().__init__(environment_id, served)
        except BaseException:
            served.close()
            raise

    def reset(self, task: str) -> list[Unit]:
        units = super().reset(task)
        self._plan = plan(self._task)
        self._done, self._advised, self._is_left = 0, "", False
        return units

    def step(self, action: Unit) -> TextStep:
        step = super().step(action)
        self._is_left |= action.text != self._advised
        self._done += 1
        return step

    def advice(self) -> list[Unit]:
        if self._plan is None or self._is_left:
            why = "there is none for this task" if self._plan is None else "its path was left"
            raise ExpertError(f"the oracle cannot go on: {why}")
        try:
            if self._done < len(self._plan.steps):
                self._advised = self._plan.steps[self._done].action(self._nodes).text()
            else:
                self._advised = self._plan.response(self._task.kind, self._nodes).said()
        except (OracleError, LookupError, ValueError, StopIteration) as error:
            raise ExpertError(f"the oracle cannot go on: {error}") from None
        return [Unit(Kind.ACTION, self._step, text=self._advised)]


def plan(task: Task) -> Plan | None:
    """What an oracle does; None where there is none."""
    return plan_of(Asked.of(task.entry))


def solved(tasks: Mapping[str, Task]) -> dict[str, Task]:
    """Those that an oracle has a plan for."""
    return {number: task for number, task in tasks.items() if plan(task)}
