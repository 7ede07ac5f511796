"""A recipe's whole train step: tokens/s, TFLOP/s, seconds to compile, peak memory beside the compiler's forecast."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np

from anyorder_jax import fit, flops, hlo, keys, sharding, state, step
from anyorder_jax.config import Config
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.optimizer import make_optimizer
from gpu_parts.measuring import FULL, GIB, LORA, Size, own_recipe, peak_bytes, random_batch, recipe, seconds_of
from gpu_parts.rows import Rows

FLOORS = {"full": (20_000, "goal 30,000, stretch 40,000"), "block_diffusion": (12_000, "goal 18,000")}
"""Tokens/s (clean ones) of full fine-tuning of mini, all layers, rows of 4,096, on an H200."""


def compiled_step(config: Config, model: ModelConfig, mesh: Any) -> Any:
    """The recipe's step, compiled ahead as `fit` does."""
    dtype, options = config.model.param_dtype, (config.lora, config.optimizer.offload)
    shapes = state.abstract_params(model, mesh, dtype, config.lora)
    optimizer, _ = make_optimizer(config.optimizer, config.train.num_steps, shapes)
    abstract, placed = state.state_shardings(model, optimizer, mesh, dtype, *options)
    train_step: Any = step.make_train_step(config, model, optimizer, mesh, placed)
    return train_step.lower(abstract, fit.abstract_batch(config, mesh)).compile()


class Step:
    """A recipe's compiled step, and a state of random weights."""

    def __init__(self, config: Config, model: ModelConfig) -> None:
        self.config, self.model, self.mesh = config, model, sharding.make_mesh(config.mesh, jax.devices()[:1])
        start = time.perf_counter()
        self.compiled = compiled_step(config, model, self.mesh)
        self.compile_seconds = time.perf_counter() - start
        dtype, options = config.model.param_dtype, (config.lora, config.optimizer.offload)
        shapes = state.abstract_params(model, self.mesh, dtype, config.lora)
        optimizer, _ = make_optimizer(config.optimizer, config.train.num_steps, shapes)
        key = keys.key(config.seed, "init")
        self.state = jax.block_until_ready(state.create(model, optimizer, self.mesh, dtype, key, *options))
        self.place(1)

    def place(self, num_documents: int) -> None:
        """Chooses the batch of the next updates."""
        self.batch = sharding.place_batch(random_batch(self.config, self.model, num_documents), self.mesh)

    def __call__(self) -> dict[str, jax.Array]:
        """One update; its metrics."""
        self.state, metrics = self.compiled(self.state, self.batch)
        return metrics

    @property
    def forecast_gib(self) -> float:
        """What `fit` says of this program: arguments, temporaries, results not in place."""
        memory = self.compiled.memory_analysis()
        outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
        return (memory.argument_size_in_bytes + memory.temp_size_in_bytes + outputs) / GIB


def measure(rows: Rows, size: Size, name: str, num_layers: int, objective: str) -> None:
    """One recipe at one depth: rows named `NAME, N layers[, block diffusion]`."""
    config, model = recipe(size, name, num_layers, objective)
    what = f"{name}, {model.num_hidden_layers} layers"
    what += ", block diffusion" if objective == "block_diffusion" else ""
    run = Step(config, model)
    rows.add(what, "compiled in", run.compile_seconds, "s", note="or fetched from the cache")
    called = hlo.kernels(run.compiled.as_text())
    rows.add(what, "kernels", ", ".join(f"{kernel} x {count}" for kernel, count in called.items()) or "none")
    at_start = peak_bytes()
    tokens, counted = config.train.batch_size * config.data.row_length, flops.per_token(config, model)
    is_goal = jax.devices()[0].device_kind.endswith("H200") and name == FULL and not num_layers
    for num_documents in (1, 4):
        run.place(num_documents)
        seconds = seconds_of(run, size.of(8, toy=2))
        note = f"{config.train.batch_size} rows of {config.data.row_length}, {num_documents} document(s) a row"
        floor, goal = FLOORS[objective] if is_goal and num_documents == 1 else (None, "")
        rows.add(what, f"tokens/s, {num_documents} a row", tokens / seconds, note=f"{note}; {goal}".strip("; "),
                 at_least=floor)  # fmt: skip
        if num_documents == 1:  # the count takes every pair of a row, which is what one document has
            note = f"{counted.total / 1e9:.3f} GFLOP a token by fit's formula"
            rows.add(what, "rate", tokens * counted.total / seconds / 1e12, "TFLOP/s", note=note)
    metrics = {key: float(value) for key, value in jax.device_get(run()).items()}
    is_sound = bool(metrics["is_applied"]) and bool(np.isfinite(metrics["loss"]))
    rows.judge(what, "updates are applied", is_sound, f"loss {metrics['loss']:.4f} after {2 * (2 + size.of(8, toy=2))}")
    memory(rows, what, run, at_start)


def memory(rows: Rows, what: str, run: Step, at_start: int) -> None:
    """The peak beside the forecast. The allocator keeps one peak for the whole process: where making the weights took
    more than the updates, the updates' own is not seen and not judged."""
    rows.add(what, "forecast of fit", run.forecast_gib, "GiB")
    peak = peak_bytes()
    if not peak:
        rows.add(what, "peak", "not told", note="this device does not tell its peak")
    elif peak == at_start:
        rows.add(what, "peak", peak / GIB, "GiB", note="of making the weights; the updates' own is below")
    else:
        rows.add(what, "peak", peak / GIB, "GiB")
        away = abs(peak / GIB / run.forecast_gib - 1)
        rows.add(what, "peak away from the forecast", away, at_most=0.03)


def compile_ahead(size: Size, *, num_layers: int = 0, objective: str = "full") -> None:
    """Puts the program into the cache, where `run` in another process finds it."""
    config, model = recipe(size, own_recipe(size), num_layers, objective)
    compiled_step(config, model, sharding.make_mesh(config.mesh, jax.devices()[:1]))


def run(rows: Rows, size: Size, *, num_layers: int = 0, objective: str = "full") -> None:
    """The card's recipe; a rehearsal tries two layers always, and LoRA where a card runs all of them."""
    is_second = size.is_toy and not size.recipe and not num_layers and objective == "full"
    name = LORA if is_second else own_recipe(size)
    measure(rows, size, name, num_layers or size.of(0, toy=2), objective)
