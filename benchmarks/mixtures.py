"""Options for fine-tuning mixtures, on the BabyAI recipe: `python benchmarks/mixtures.py [--out=FILE]`.

    expert_bias    biases that even the experts' load        last, ema, average   of the plain run: its last weights,
    frozen_router  the router stays as drawn                                      their running average, the mean of its
    plain          neither                                                        last three checkpoints

Each variant is trained from every seed by the recipe `any_order` (a few hundred updates only, or --steps). Measured:
the validation loss of the recipe (fixed rows), and how unevenly the experts are loaded (busiest over mean).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import runpy
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from absl import logging

from anyorder_jax import recipes, weights
from anyorder_jax.config import Config, freeze_typed
from anyorder_jax.training.loop import train
from anyorder_jax.training.run import Run
from conversion.average import average

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"ema_decay": 0.98},
    "expert_bias": {"expert_bias_rate": 0.001},
    "frozen_router": {"freeze_router": True},
}


def config_of(steps: int, seed: int, data: str, changes: dict[str, Any]) -> Config:
    """The recipe with fewer updates."""
    values = runpy.run_path(recipes.find_recipe("any_order"))["get_config"]()
    values.train.num_steps, values.seed, values.data.cache_dir = steps, seed, data
    values.log.every_steps = max(1, steps // 10)
    values.log.validate_every_steps = steps
    values.checkpoint.save_every_steps, values.checkpoint.keep_last = max(1, steps // 8), 3
    values.data.num_episodes, values.data.num_validation_episodes, values.data.num_test_episodes = 1000, 100, 50
    values.optimizer.update(changes)
    return freeze_typed(values)


def run_one(config: Config, workdir: Path) -> dict[str, dict[str, float]]:
    """Trains, and measures the weights: {"last": .., "ema": .., "average": ..}, those that there are."""
    train(config, workdir)
    found: dict[str, Any] = {"last": weights.load_for_inference(workdir)[2]}
    if config.optimizer.ema_decay:
        found["ema"] = weights.load_for_inference(workdir, is_average=True)[2]
        average(workdir, workdir.parent / f"{workdir.name}-mean", last=3)
        found["average"] = weights.load_for_inference(workdir.parent / f"{workdir.name}-mean")[2]
    nouns = Run(dataclasses.replace(config), workdir)
    results = {}
    for name, params in found.items():
        nouns.state = nouns.state._replace(params=params)
        seen = nouns.validate()
        results[name] = {"loss": seen["loss"], "expert_max_load": seen["expert_max_load"]}
    nouns.checkpointer.close()
    return results


def main() -> None:
    """Prints a row for each run, and writes all to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data", default="data", help="where episodes are kept")
    parser.add_argument("--out", default="")
    args = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            for variant, changes in VARIANTS.items():
                begun = time.perf_counter()
                config = config_of(args.steps, seed, args.data, changes)
                with contextlib.redirect_stdout(sys.stderr):
                    found = run_one(config, Path(folder) / f"{variant}-{seed}")
                seconds = round(time.perf_counter() - begun, 1)
                rows += [
                    {"variant": variant, "weights": name, "seed": seed, **values, "seconds": seconds}
                    for name, values in found.items()
                ]
                print(json.dumps(rows[-len(found) :]), flush=True)
    means = {
        f"{variant}/{name}": statistics.mean(row["loss"] for row in rows if (row["variant"], row["weights"]) == key)
        for key in {(row["variant"], row["weights"]): 0 for row in rows}
        for variant, name in [key]
    }
    content = {
        "command": f"python benchmarks/mixtures.py --steps={args.steps} --seeds={args.seeds}",
        "mean_loss": means, "rows": rows,
    }  # fmt: skip
    print(json.dumps(means))
    if args.out:
        Path(args.out).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
