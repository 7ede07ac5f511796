"""Export: an episode as the two files that WebArena-Verified scores and that its leaderboard takes.

DIRECTORY/44/agent_response.json      what the agent said (`response`)
DIRECTORY/44/network.har              what its browser asked for, and what it was told (`web.har`)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anyorder_jax import files
from anyorder_jax.environments.web import har
from anyorder_jax.environments.webarena.response import Response

RESPONSE, NETWORK, VERDICT = "agent_response.json", "network.har", "eval_result.json"


def write(directory: Path, task: str, response: Response, entries: Sequence[Any] = ()) -> None:
    """Writes an episode of a task; one that is there of the same task is replaced, its verdict taken away.

    Args:
      directory: of all episodes.
      task: its number in the benchmark, "44".
      response: the agent's last words.
      entries: the requests of its browser (`har.Recorder.entries`). A log without any is refused by the scorer, so the
        blank page stands there, with which every browser begins.

    Raises:
      OSError: when the disk refuses.
    """
    folder = directory / task
    (folder / VERDICT).unlink(missing_ok=True)
    files.write_whole(folder / RESPONSE, response.json())
    network = har.log(entries or [har.blank()])
    files.write_whole(folder / NETWORK, json.dumps(network, ensure_ascii=False))
