"""What stands in for webarena-verified where it is not installed: a folder like its environment, with tasks of our own
in its form, and a Python that cannot score."""

import json
import os
import sys
from pathlib import Path

import pytest

from anyorder_jax.environments.webarena import package


def task(number, sites, intent, expected, *network, template=9001, starts=None):
    """A task as the benchmark writes it."""
    kind, status, data = expected
    schema = {"type": "null"} if data is None else {"type": "array", "items": {"type": "string"}}
    said = {"task_type": kind, "status": status, "retrieved_data": data}
    asked = [{"evaluator": "AgentResponseEvaluator", "results_schema": schema, "expected": said}]
    return {
        "sites": sites, "task_id": number, "intent_template_id": template, "intent": intent, "intent_template": intent,
        "start_urls": starts or [f"__{site.upper()}__" for site in sites], "instantiation_dict": {}, "revision": 1,
        "eval": [*asked, *({"evaluator": "NetworkEventEvaluator", "expected": one} for one in network)],
    }  # fmt: skip


DONE, SHOWN = ("mutate", "SUCCESS", None), ("navigate", "SUCCESS", None)
TASKS = [
    task(1, ["gitlab"], "Show my list of things to do", SHOWN, {"url": "__GITLAB__/dashboard/todos"}, template=303),
    task(4, ["gitlab"], "Name the starred project", ("retrieve", "SUCCESS", ["Repo"]), template=9002),
    task(7, ["shopping"], "Name the cheapest lamp", ("retrieve", "NOT_FOUND_ERROR", None), template=9003),
    task(9, ["gitlab", "reddit"], "Post the project's name", DONE, {"url": "__REDDIT__/s"}, template=9008),
    task(11, ["map"], "Show the way", SHOWN, {"url": "__MAP__/way"}, template=9009),
]  # fmt: skip


def write(directory: Path, tasks=TASKS) -> Path:
    """The folder, for ANYORDER_JAX_WEBARENA."""
    packages = directory / "lib" / "python3.11" / "site-packages"
    folder = packages / "webarena_verified" / "assets" / "dataset"
    folder.mkdir(parents=True)
    (folder / "webarena-verified.json").write_text(json.dumps(tasks), encoding="utf-8")
    (packages / "webarena_verified-9.9.9.dist-info").mkdir()
    (directory / "bin").mkdir()
    (directory / "bin" / "python").symlink_to(sys.executable)
    return directory


def missing() -> str:
    """Why the official scorer cannot be run here."""
    try:
        package.python(package.directory())
    except RuntimeError as error:
        return f"needs the official scorer: {error}"
    return ""


REAL = os.environ.get(package.VARIABLE, "")
needs_scorer = pytest.mark.skipif(bool(missing()), reason=missing())
