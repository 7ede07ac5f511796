"""A run of text, evaluated: its weights on a mesh, its held-out episodes, its report. What `evaluate` opens."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anyorder_jax import weights
from anyorder_jax.asking import report
from anyorder_jax.asking.evaluation import Selection, evaluate, open_held_out
from anyorder_jax.asking.scorer import Scorer
from anyorder_jax.asking.subject import Subject
from anyorder_jax.collected import directory_of
from anyorder_jax.config import Config
from anyorder_jax.data import sources
from anyorder_jax.environments import registry
from anyorder_jax.task import open_task


def is_of_text(config: Config) -> bool:
    """Whether a run's episodes are running text, as far as its data are still there."""
    try:
        environment = sources.read_manifest(directory_of(config.data)).environment
    except FileNotFoundError:
        return False
    return registry.make_codec(environment, config.data.profile).is_running_text


def evaluate_text(
    subject: Subject, directory: Path, *, selection: Selection, num_windows: int, seed: int, loaded: weights.Loaded,
    say: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """Asks every question, prints the table and writes rows.jsonl and report.json.

    Args:
      subject: the checkpoint and its data.
      directory: for the report; exists.
      selection: the episodes that are asked about.
      num_windows: contexts an episode and question at most.
      seed: of the draws.
      loaded: its weights, placed.
      say: gets lines of progress.

    Returns:
      The content of report.json.

    Raises:
      FileNotFoundError, ValueError: no checkpoint or data there; parts that do not belong together.
    """
    start = time.perf_counter()
    config = subject.config
    mesh = loaded.mesh
    task = open_task(config, loaded.tokenizer)
    held_out = open_held_out(config, task, selection)
    if held_out.warning:
        say(f"warning: {held_out.warning}.")
    say(f"asking about {len(held_out.ids)} {held_out.split} episodes, on {mesh.size} device(s)")
    scorer = Scorer(config, loaded.model_config, loaded.params, task.vocabulary, mesh)
    found = evaluate(subject, task, scorer, held_out, num_windows=num_windows, seed=seed, say=say)
    is_world = bool(registry.world_of_text(task.environment, config.data.profile))
    told = "Acting: acting.json." if is_world else "Acting is left out: the data have no environment."
    about = {
        "checkpoint": str(subject.path), "step": subject.step, "environment": task.environment,
        "weights": "ema" if subject.is_average else "last",
        "seed": seed, "goals": list(selection.goals), "split": held_out.split, "warning": held_out.warning,
        "num_test_episodes": len(held_out.ids), "num_windows": num_windows,
        "context_tokens": config.data.context_tokens, "num_counted_episodes": held_out.counts.num_episodes,
        "num_skipped": len(task.skipped or ()), "mesh": dict(mesh.shape),
        "dtype": loaded.dtype,
        "acting": told, "data": {"directory": str(task.directory), "files": _files(task.directory)},
        "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip
    content, text = report.write(directory, about, found)
    print(text)
    return content


def _files(directory: Path) -> dict[str, str]:
    """The digest of every shard, as the manifest has it; what was read was compared with it."""
    splits = sources.read_manifest(directory).splits.values()
    return {shard.file.removesuffix(".zst"): shard.sha256 for shards in splits for shard in shards}
