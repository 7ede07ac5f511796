"""How soon does a small model copy? `python benchmarks/copying.py --data=DIR [--steps=300 --seeds=1 --out=FILE]`.

An observation of CookingWorld repeats what stands some hundred tokens before it: rooms are described again, things that
were taken are named. Who can copy writes it; who cannot knows only how often words occur. The recipe
`textworld_cooking` is trained for a few updates with the same everything but the optimizer and the attention's shape:

    optimizer, rate, heads x dims (key heads)     held-out nats per hidden observation token, share right, s an update
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
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from absl import logging

from anyorder_jax import recipes
from anyorder_jax.config import Config, freeze_typed
from anyorder_jax.files import write_whole
from anyorder_jax.model import presets
from anyorder_jax.training.loop import train
from benchmarks.about import about

WAYS = (
    ("adamw", 4e-3, 2, 1, 32), ("adamw", 1e-2, 2, 2, 64), ("adamw", 4e-3, 4, 2, 64),
    ("muon", 2e-2, 2, 1, 32), ("muon", 2e-2, 2, 2, 64),
)  # fmt: skip
"""(optimizer, learning rate, heads, key and value heads, dims of a head). Two heads of 32 are those of the preset
`tiny`, two of 64 those of `text`; the last is the recipe."""


def config_of(data: Path, steps: int, seed: int) -> Config:
    """The recipe, any order alone: every update asks for observations."""
    values = runpy.run_path(recipes.find_recipe("textworld_cooking"))["get_config"]()
    values.seed, values.data.path, values.masking.order = seed, str(data), "any_order"
    values.masking.rate, values.masking.rate_max = 0.15, 0.5
    values.train.num_steps = values.log.validate_every_steps = steps
    return freeze_typed(values)


def run_one(config: Config, workdir: Path) -> dict[str, float]:
    """Trains one and reads its validation."""
    train(config, workdir)
    lines = (workdir / "metrics" / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    seen = json.loads(lines[-1])
    logged = map(json.loads, (workdir / "metrics" / "train.jsonl").read_text(encoding="utf-8").splitlines())
    speed = statistics.median(line["tokens_per_second"] for line in logged)
    size = config.train.batch_size * config.data.row_length
    return {
        "nll": round(seen["nll/observation"], 4), "accuracy": round(seen["accuracy/observation"], 4),
        "seconds_per_update": round(size / speed, 4),
    }  # fmt: skip


def main() -> None:
    """Prints a row for each shape and seed, and writes all to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="episodes of CookingWorld")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", default="")
    args = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            for name, rate, heads, key_heads, dims in WAYS:
                shape = {"num_attention_heads": heads, "num_key_value_heads": key_heads, "head_dim": dims}
                presets.PRESETS["text"] = dataclasses.replace(presets.get("text"), **shape)
                with contextlib.redirect_stdout(sys.stderr):
                    config = config_of(args.data.resolve(), args.steps, seed)
                    rule = dataclasses.replace(config.optimizer, name=name, learning_rate=rate)
                    config = dataclasses.replace(config, optimizer=rule)
                    found = run_one(config, Path(folder) / f"{name}-{rate}-{heads}-{dims}-{seed}")
                way = {"optimizer": name, "learning_rate": rate, "heads": heads, "key_heads": key_heads, "dims": dims}
                rows.append({**way, "seed": seed, **found})
                print(json.dumps(rows[-1]), flush=True)
    if args.out:
        write_whole(args.out, json.dumps({**about("copying"), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
