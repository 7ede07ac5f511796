"""Scorer: the official one, `webarena-verified eval-tasks`, unmodified, run in its own environment.

    DIRECTORY/44/agent_response.json, network.har   ─►   eval_result.json there   ─►   Verdict(1.0, "success", ())

A start takes a second or two, so many tasks should be scored together.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anyorder_jax.environments.webarena import addresses as sites
from anyorder_jax.environments.webarena import package
from anyorder_jax.environments.webarena.export import RESPONSE, VERDICT, write
from anyorder_jax.environments.webarena.response import Response

START_SECONDS, TASK_SECONDS = 60.0, 5.0
"""The scorer's limit: for its start, and for each task."""
MAX_REASONS = 5


class Verdict(NamedTuple):
    """Of a task. score: 1.0 or 0.0. status: "success", "failure" or "error". reasons: why not, as the scorer says."""

    score: float
    status: str
    reasons: tuple[str, ...] = ()

    @property
    def is_success(self) -> bool:
        return self.score == 1.0


def score(directory: Path, tasks: Sequence[str], addresses: sites.Addresses) -> dict[str, Verdict]:
    """Scores exported episodes.

    Args:
      directory: with a folder for each task (`export.write`); gets the scorer's `eval_result.json` in each.
      tasks: their numbers in the benchmark.
      addresses: of the sites when they were played.

    Returns:
      Task -> its verdict. One that the scorer could not read is an "error".

    Raises:
      RuntimeError: the scorer is not there, ends with an error, or does not end in time; says what it said.
    """
    if not tasks:
        return {}
    for task in tasks:
        (directory / task / VERDICT).unlink(missing_ok=True)
    python = package.python(package.directory())
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(_config(addresses)), encoding="utf-8")
        command = [str(python), "-I", "-m", "webarena_verified", "eval-tasks", "--config", str(config)]
        command += ["--task-ids", ",".join(tasks), "--output-dir", str(directory)]
        said = _run(command, START_SECONDS + TASK_SECONDS * len(tasks))
    return {task: _verdict(directory / task, said) for task in tasks}


def score_response(task: str, response: Response, entries: Sequence[Any], addresses: sites.Addresses) -> Verdict:
    """The verdict on one episode, whose files are thrown away. Errors as `score`.

    Args:
      task: its number in the benchmark.
      response, entries: as `export.write` takes them.
      addresses: of the sites when it was played.
    """
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), task, response, entries)
        return score(Path(folder), [task], addresses)[task]


def _config(addresses: sites.Addresses) -> dict[str, Any]:
    """The scorer's own settings; it wants an address for every site of a task."""
    urls = {site: addresses.get(site, sites.NOWHERE.format(site)) for site in sites.SITES}
    return {"environments": {sites.mark(site): {"urls": [url], "active_url_idx": 0} for site, url in urls.items()}}


def _run(command: Sequence[str], seconds: float) -> str:
    """What it said, on both outputs."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "JAX"))}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            env={**variables, "PYTHONUTF8": "1"},
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"webarena: `{' '.join(command)}` did not end within {seconds:g} seconds.") from None
    if done.returncode:
        told = (done.stderr or done.stdout)[-800:]
        raise RuntimeError(f"webarena: `{' '.join(command)}` ended with {done.returncode}: {told}")
    return done.stdout + done.stderr


def _verdict(folder: Path, said: str) -> Verdict:
    path = folder / VERDICT
    if not path.is_file():
        lines = [line for line in said.splitlines() if f"Task {folder.name} failed" in line]
        lacking = f"it has no {RESPONSE}" if not (folder / RESPONSE).is_file() else "the scorer wrote no verdict"
        return Verdict(0.0, "error", tuple(lines[:1]) or (lacking,))
    found = json.loads(path.read_text(encoding="utf-8"))
    return Verdict(float(found["score"]), str(found["status"]), tuple(_reasons(found))[:MAX_REASONS])


def _reasons(found: Mapping[str, Any]) -> list[str]:
    """Why it is no success: errors, and what each evaluator missed."""
    reasons = [str(found["error_msg"])] if found.get("error_msg") else []
    for result in found.get("evaluators_results") or ():
        told = [str(result["error_msg"])] if result.get("error_msg") else []
        for assertion in result.get("assertions") or ():
            if assertion.get("status") != "success":
                told += map(str, assertion.get("assertion_msgs") or [assertion.get("assertion_name", "")])
        reasons += [f"{result.get('evaluator_name', '')}: {one}" for one in told]
    return reasons
