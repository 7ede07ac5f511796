"""BFCL: whether our world and the official checker agree on the official answers, and how fast calls and copies are.

    python benchmarks/bfcl.py [--out=benchmarks/results/bfcl.json]          half a minute on one core

oracle        the official answers, played through our world; then judged by the official `multi_turn_checker`, which
              executes all of it again its own way
last dropped  the same answers without their last call
calls/s       calls parsed, executed and told, and turns checked, without resets
branches/s    copies of a session's state, each with one other call done in it

Seconds are CPU seconds of the one process, because the machine may be shared.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker

from anyorder_jax.environments import registry
from anyorder_jax.environments.base import take
from anyorder_jax.environments.bfcl import folds, generate, tools
from anyorder_jax.environments.bfcl.task import Task, official
from anyorder_jax.environments.bfcl.world import END, Session
from anyorder_jax.files import write_whole
from anyorder_jax.types import Kind, Unit

NUM_MADE = 300


def opened(name: str) -> Session:
    session = registry.make_session(folds.PREFIX + name)
    assert isinstance(session, Session)
    return session


def official_tasks() -> Iterator[tuple[Session, str]]:
    for category in folds.CATEGORIES:
        session = opened(category)
        for number in range(folds.NUM_TASKS):
            yield session, f"multi_turn_{category}_{number}"


def play(session: Session, task: str, texts: list[str]) -> bool:
    """Whether these actions solve the task."""
    session.reset(task)
    done = None
    for step, text in enumerate(texts):
        done = take(session, Unit(Kind.ACTION, step, text=text))
    return done is not None and done.is_success


def official_verdict(task: Task, transcript: list[list[list[str]]], run: str) -> bool:
    """Of the official checker, which keeps instances by the name of a run for ever: each run needs a new one."""
    entry = {"id": task.id, "initial_config": task.config, "involved_classes": list(task.classes)}
    truth = [[call.python() for call in turn] for turn in task.truth]
    return bool(multi_turn_checker(transcript, truth, entry, task.id.rsplit("_", 1)[0], run)["valid"])


def agreement() -> dict[str, Any]:
    """Both verdicts on the official answers, whole and without their last call."""
    found = {f"{how}_{judge}": 0 for how in ("oracle", "dropped") for judge in ("ours", "official")}
    start = time.process_time()
    for session, task in official_tasks():
        session.reset(task)
        path = session.path()
        last = max(place for place, text in enumerate(path) if text != END.json())
        for how, texts in (("oracle", path), ("dropped", path[:last] + path[last + 1 :])):
            found[f"{how}_ours"] += play(session, task, texts)
            found[f"{how}_official"] += official_verdict(official(task), session.transcript(), f"run-{how}")
    return {**found, "tasks": len(folds.CATEGORIES) * folds.NUM_TASKS, "seconds": time.process_time() - start}


def calls_per_second() -> dict[str, float]:
    """Of the expert's actions in the official tasks."""
    seconds, num_calls = 0.0, 0
    for session, task in official_tasks():
        session.reset(task)
        units = [Unit(Kind.ACTION, step, text=text) for step, text in enumerate(session.path())]
        start = time.process_time()
        for unit in units:
            take(session, unit)
        seconds += time.process_time() - start
        num_calls += sum(unit.text != END.json() for unit in units)
    return {"calls": num_calls, "calls_per_second": num_calls / seconds}


def branches_per_second(category: str) -> float:
    """Four other calls at each of the expert's steps."""
    seconds, count = 0.0, 0
    session = opened(category)
    for number in range(40):
        session.reset(f"multi_turn_{category}_{number}")
        for step, text in enumerate(session.path()):
            others = session.valid_actions()[:4]
            start = time.process_time()
            for other in others:
                copied = session.copy()
                take(copied, Unit(Kind.ACTION, step, text=other))
            seconds += time.process_time() - start
            count += len(others)
            take(session, Unit(Kind.ACTION, step, text=text))
    return count / seconds


def made() -> dict[str, Any]:
    """Generated tasks: how many the expert solves, how many are refused as near an official one, and their pace."""
    found = {}
    for name in folds.MADE:
        session = opened(name)
        session.reset("0")  # reads the official tasks
        start = time.process_time()
        solved = 0
        for number in [*range(NUM_MADE // 2), *range(9_000_000, 9_000_000 + NUM_MADE // 2)]:
            session.reset(str(number))
            solved += play(session, str(number), session.path())
        pace = NUM_MADE / (time.process_time() - start)
        found[name] = {"episodes": NUM_MADE, "solved": solved, "episodes_per_second": pace}
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="", help="a .json for what is printed")
    flags = parser.parse_args(arguments)
    found = {
        "version": tools.VERSION,
        "generated": generate.VERSION,
        "agreement": agreement(),
        "speed": calls_per_second(),
        "branches_per_second": {category: branches_per_second(category) for category in folds.CATEGORIES},
        "made": made(),
        "load_average": os.getloadavg(),
        "num_cpus": os.cpu_count(),
    }
    text = json.dumps(found, indent=2) + "\n"
    print(text, end="")
    if flags.out:
        write_whole(flags.out, text)


if __name__ == "__main__":
    main()
