"""A run of text, evaluated: its weights on a mesh, its held-out episodes, its report. What `evaluate` opens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from anyorder_jax import run_directory, weights
from anyorder_jax.asking import report
from anyorder_jax.asking.evaluation import evaluate, open_held_out
from anyorder_jax.asking.scorer import Scorer, mesh_of
from anyorder_jax.config import Config, freeze
from anyorder_jax.data import sources
from anyorder_jax.environments import registry
from anyorder_jax.task import directory_of, open_task, with_data_of


def is_of_text(config: Config) -> bool:
    """Whether a run's episodes are running text, as far as its data are still there."""
    try:
        environment = sources.read_manifest(directory_of(config.data)).environment
    except FileNotFoundError:
        return False
    return registry.make_codec(environment, config.data.profile).is_running_text


def evaluate_text(
    path: str, directory: Path, *, num_episodes: int, num_windows: int, seed: int, goals: Sequence[str],
    mesh_text: str, say: Callable[[str], None], is_average: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Asks every question, prints the table and writes rows.jsonl and report.json.

    Args:
      path: run directory (newest checkpoint) or RUN/checkpoints/STEP.
      directory: for the report; exists.
      num_episodes: test episodes asked about at most.
      num_windows: contexts an episode and question at most.
      seed: of the draws.
      goals: only episodes whose goal holds one of these phrases (empty: all).
      mesh_text: see `scorer.mesh_of`.
      say: gets lines of progress.
      is_average: the running average of the weights in place of the last ones.

    Returns:
      The content of report.json.

    Raises:
      FileNotFoundError, ValueError: no checkpoint or data there; parts that do not belong together.
    """
    start = time.perf_counter()
    run, step = run_directory.find(path)
    mesh = mesh_of(freeze(run_directory.read_meta(path)["config"]), mesh_text)
    config, model_config, params, tokenizer = weights.load_for_inference(path, mesh, is_average=is_average)
    task = open_task(with_data_of(config, run, run_directory.read_meta(path)["data"]), tokenizer)
    held_out = open_held_out(config, task, num_episodes, goals)
    say(f"asking about {len(held_out.ids)} test episodes, on {mesh.size} device(s)")
    scorer = Scorer(config, model_config, params, task.vocabulary, mesh)
    found = evaluate(run, config, task, scorer, held_out, num_windows=num_windows, seed=seed, say=say)
    is_world = bool(task.environment) and registry.is_registered(task.environment)
    told = "Acting: acting.json." if is_world else "Acting is left out: the data have no environment."
    about = {
        "checkpoint": str(path), "step": step, "environment": task.environment, "seed": seed, "goals": list(goals),
        "weights": "ema" if is_average else "last",
        "num_test_episodes": len(held_out.ids), "num_windows": num_windows,
        "context_tokens": config.data.context_tokens, "num_counted_episodes": held_out.counts.num_episodes,
        "num_skipped": len(task.skipped or ()), "mesh": dict(mesh.shape),
        "acting": told, "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip
    content, text = report.write(directory, about, found)
    print(text)
    return content
