"""Noise and disturbed names: how many tasks the expert solves at every point, and none without a call.

    python benchmarks/tool_noise.py [--num_tasks=200]          minutes on one core; writes results/tool_noise.json

Of BFCL's base category, of generated tasks, and, where ANYORDER_JAX_TOOLBENCH names its data, of ToolBench's six
splits: oracle (episodes that the expert's path solves), dropped (that it solves without its last call, which should be
0), changed (tasks of which the point changes anything that is seen: system text, turns or results).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from anyorder_jax.data import sources
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import HasPath, TextEnvironment, take
from anyorder_jax.environments.toolbench import data, names
from anyorder_jax.types import Kind, Unit

RESULT = Path(__file__).parent / "results" / "tool_noise.json"
NOISE = ("", "+errors=0.1", "+errors=0.3", "+errors=0.5", "+cut=400", "+cut=100")
BFCL = (
    *NOISE, "+words=1", "+words=2", "+words=3", "+missing_function=0.5", "+missing_function=1",
    "+missing_parameter=0.5", "+missing_parameter=1",
)  # fmt: skip
TOOLBENCH = (
    *NOISE,
    *(f"+{what}={how}" for what in ("names", "parameters") for how in names.EDITS),
    "+names=swapped+parameters=swapped",
)  # fmt: skip


def play(session: TextEnvironment, task: str, texts: Iterable[str] | None = None) -> tuple[bool, list[str], list[str]]:
    """(whether these actions solve the task, what was seen, the actions). None: the expert's path."""
    seen = [unit.text or "" for unit in session.reset(task)]
    assert isinstance(session, HasPath)
    path = list(session.path() if texts is None else texts)
    is_success = False
    for step, text in enumerate(path[: session.max_steps]):
        done = take(session, Unit(Kind.ACTION, step, text=text))
        seen += [unit.text or "" for unit in done.units]
        is_success = done.is_success
    return is_success, seen, path


def point(world: str, options: str, tasks: Iterable[str], clean: dict[str, list[str]]) -> dict[str, Any]:
    """What comes of one world's tasks at one point. clean: what is seen without options, filled by the first call."""
    session = registry.make_session(world + options)
    found = {"tasks": 0, "oracle": 0, "dropped": 0, "changed": 0}
    for task in tasks:
        is_success, seen, path = play(session, task)
        calls = [i for i, text in enumerate(path) if not text.startswith(('{"name":"end_turn"', '{"name":"Finish"'))]
        found["tasks"] += 1
        found["oracle"] += is_success
        found["dropped"] += play(session, task, path[: calls[-1]] + path[calls[-1] + 1 :])[0]
        found["changed"] += seen != clean.setdefault(task, seen)
    return found


def tasks_of(world: str, limit: int) -> list[str]:
    """Its first test tasks."""
    listed = registry.tasks(world)
    named = map(str, sources.seed_range(0, "test")) if listed is None else iter(listed["test"])
    return list(itertools.islice(named, limit))


def main() -> None:
    parser = argparse.ArgumentParser(description="The expert at every point of noise.", allow_abbrev=False)
    parser.add_argument("--num_tasks", type=int, default=200, help="of each world at most")
    limit = parser.parse_args().num_tasks
    found: dict[str, Any] = {}
    worlds = {"BFCL-base": BFCL, "BFCL-made-templates": BFCL}
    if os.environ.get(data.VARIABLE):
        worlds |= dict.fromkeys(data.ids()[::2], TOOLBENCH)
    for world, options in worlds.items():
        tasks, clean = tasks_of(world, limit), dict[str, list[str]]()
        found[world] = {"version": registry.make_session(world).version, "points": {}}
        for option in options:
            found[world]["points"][option or "clean"] = point(world, option, tasks, clean)
            print(world + option, found[world]["points"][option or "clean"], flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
