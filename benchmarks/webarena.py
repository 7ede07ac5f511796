"""WebArena-Verified's answers: the tasks that are scored on what is said alone, by our exporter and its own scorer.

    python benchmarks/webarena.py          minutes on one core; writes results/webarena.json

Needs ANYORDER_JAX_WEBARENA (docs/web.md), no site and no browser. Each answer is said as an action, as agents do:
oracle (what the benchmark expects; of alternatives the first), wrong (another text, said to be found), infeasible
(`report_infeasible`, of the tasks that can be answered), silent (an empty text).
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from anyorder_jax.environments.web import calls
from anyorder_jax.environments.webarena import export, folds, package, response, scorer
from anyorder_jax.environments.webarena.folds import Task
from anyorder_jax.environments.webarena.response import SUCCESS, Response

RESULT = Path(__file__).parent / "results" / "webarena.json"


def oracle(task: Task) -> str:
    """The action that says what is expected."""
    data = task.expected.get("retrieved_data")
    first = None if data is None else [one[0] if isinstance(one, list) else one for one in data]
    return Response(task.kind, task.expected["status"], first).said()


ANSWERS: dict[str, Callable[[Task], str]] = {
    "oracle": oracle,
    "wrong": lambda task: Response(task.kind, SUCCESS, ["no such answer 7.31"]).said(),
    "infeasible": lambda task: "report_infeasible('It cannot be done.')",
    "silent": lambda task: "send_msg_to_user('')",
}


def scored(tasks: Mapping[str, Task], said: Callable[[Task], str]) -> dict[str, Any]:
    """What the scorer makes of an answer to each task."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for number, task in tasks.items():
            export.write(Path(folder), number, response.of(calls.parse(said(task))))
        verdicts = scorer.score(Path(folder), list(tasks), {})
    solved = [number for number, verdict in verdicts.items() if verdict.is_success]
    rare = sorted(set(verdicts) - set(solved), key=int) if len(solved) > len(verdicts) / 2 else solved
    return {
        "tasks": len(verdicts),
        "solved": len(solved),
        "exceptions": {number: verdicts[number].reasons for number in rare},
        "errors": sum(verdict.status == "error" for verdict in verdicts.values()),
        "seconds": round(time.monotonic() - begun, 1),
    }


def main() -> None:
    directory = package.directory()
    tasks = folds.read(package.tasks_file(directory))
    alone = {number: task for number, task in tasks.items() if task.evaluators == 1}
    answerable = {number: task for number, task in alone.items() if task.expected["status"] == SUCCESS}
    found: dict[str, Any] = {
        "version": package.version(directory),
        "tasks": len(tasks),
        "scored on what is said": len(alone),
    }
    for name, said in ANSWERS.items():
        found[name] = scored(answerable if name == "infeasible" else alone, said)
        print(f"{name:12} {found[name]['solved']:4} of {found[name]['tasks']} solved in {found[name]['seconds']} s")
    RESULT.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
