"""Proof: an oracle is played in a browser, and what it did is scored, whole and without its last action.

    play(tab, sites, task, plan)  ->  Played(whole, short)  ->  export  ->  the official scorer  ->  1.0 and 0.0

What is without the last action is the log of the same episode as it stood before that action.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anyorder_jax.environments.base import InvalidActionError
from anyorder_jax.environments.web.tab import LostError
from anyorder_jax.environments.webarena import addresses, export, scorer
from anyorder_jax.environments.webarena.addresses import Addresses
from anyorder_jax.environments.webarena.browser import SiteTab
from anyorder_jax.environments.webarena.oracles.registry import plan_of
from anyorder_jax.environments.webarena.oracles.steps import OracleError, Plan, Task
from anyorder_jax.environments.webarena.response import Response
from anyorder_jax.environments.webarena.sites import Sites

WHOLE, SHORT = "whole", "short"


class Said(NamedTuple):
    """An episode's end: what was said, and what was asked of the sites until then."""

    response: Response
    entries: Sequence[Any]


class Played(NamedTuple):
    """whole, short: with the last action and without. error: why a plan could not be played to its end, or "". Then the
    episode stands as it was when it ended."""

    whole: Said
    short: Said
    num_actions: int
    seconds: float
    error: str


class Proof(NamedTuple):
    """Of a task: the scores with the last action and without, and what the scorer or the oracle complained about."""

    task: Task
    whole: float
    short: float
    num_actions: int
    seconds: float
    why: str

    @property
    def is_proven(self) -> bool:
        return self.whole == 1.0 and self.short == 0.0


def tasks(path: Path, sites: Collection[str]) -> list[tuple[Task, Plan]]:
    """Those of a data file that have a plan and are on these sites alone."""
    found = [Task.of(entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    return [(task, plan) for task in found if set(task.sites) <= set(sites) and (plan := plan_of(task))]


def play(tab: SiteTab, sites: Sites, task: Task, plan: Plan) -> Played:
    """Plays a plan on sites that are put back first.

    Args:
      tab: with a browser.
      sites: that are served.
      task: whose first page is opened.
      plan: what is done there.

    Raises:
      LostError: the first page cannot be opened.
    """
    began, at = time.monotonic(), sites.addresses
    sites.reset()
    tab.forget(list(at.values()))
    tab.recorder.clear()
    tab.open(addresses.placed(task.starts[0], at))
    nodes = tab.look()
    short: Sequence[Any] = ()
    error, num_actions = "", 0
    try:
        for number, step in enumerate(plan.steps):
            if number == len(plan.steps) - 1:
                short = tab.recorder.entries()
            action = step.action(nodes)
            placed = {key: _placed(value, at) for key, value in action.arguments.items()}
            tab.do(action._replace(arguments=placed))
            num_actions, nodes = num_actions + 1, tab.look()
    except (OracleError, InvalidActionError, LostError) as problem:
        error = f"action {num_actions + 1}: {problem}"
    entries = tab.recorder.entries()
    whole = Said(_response(plan, task, nodes) if not error else Response(task.kind, "UNKNOWN_ERROR"), entries)
    left = plan.without_last()
    before = Said(_response(left, task, nodes), entries if plan.answer else short)
    return Played(whole, before, num_actions, time.monotonic() - began, error)


def _response(plan: Plan, task: Task, nodes: Sequence[Any]) -> Response:
    try:
        return plan.response(task.kind, nodes)
    except (OracleError, LookupError, ValueError, StopIteration):
        return Response(task.kind, "UNKNOWN_ERROR")


def _placed(value: Any, at: Addresses) -> Any:
    return addresses.placed(value, at) if isinstance(value, str) else value


def prove(tab: SiteTab, sites: Sites, wanted: Iterable[tuple[Task, Plan]], directory: Path) -> list[Proof]:
    """Plays and scores tasks.

    Args:
      tab: with a browser.
      sites: that are served.
      wanted: tasks with their plans.
      directory: gets the episodes' files, below `whole` and `short`.

    Raises:
      RuntimeError: the scorer cannot be run.
    """
    played: dict[str, tuple[Task, Played]] = {}
    for task, plan in wanted:
        found = play(tab, sites, task, plan)
        played[task.number] = (task, found)
        for name, said in ((WHOLE, found.whole), (SHORT, found.short)):
            export.write(directory / name, task.number, said.response, said.entries)
    verdicts: dict[str, Mapping[str, scorer.Verdict]] = {
        name: scorer.score(directory / name, list(played), sites.addresses) for name in (WHOLE, SHORT)
    }
    return [
        Proof(
            task,
            verdicts[WHOLE][number].score,
            verdicts[SHORT][number].score,
            found.num_actions,
            found.seconds,
            found.error or "; ".join(verdicts[WHOLE][number].reasons),
        )
        for number, (task, found) in played.items()
    ]
