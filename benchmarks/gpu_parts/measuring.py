"""Sizes, times and errors: what all parts measure with."""

from __future__ import annotations

import dataclasses
import os
import runpy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from anyorder_jax.config import Config, freeze
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.training.shape import as_published
from anyorder_jax.types import Batch, Kind

ROOT = Path(__file__).parents[2]
GIB = 2**30
FULL_BYTES = 128 * GIB
"""A card with so much memory takes full fine-tuning of mini (125 GiB)."""
FULL, LORA = "llada2_mini_h200", "llada2_mini_lora"

T = TypeVar("T")


class Size(NamedTuple):
    """How large everything is. is_toy: the rehearsal's sizes. recipe: a file of `configs/`, or "" for the card's own.
    folder: where a part may write. What else differs is said where it is used: `size.of(8192, toy=64)`."""

    is_toy: bool
    folder: Path
    recipe: str = ""

    def of(self, card: T, *, toy: T) -> T:
        return toy if self.is_toy else card


def card_bytes() -> int:
    """Of the first device's memory, whatever share of it JAX was given; 0 where it does not tell (a CPU)."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)
    return int(limit / float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75")))


def peak_bytes() -> int:
    """The most that this process had on the first device so far; 0 where it does not tell."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


def own_recipe(size: Size) -> str:
    """The recipe that the card has room for: full fine-tuning of mini, or LoRA."""
    return size.recipe or (FULL if size.is_toy or card_bytes() >= FULL_BYTES else LORA)


def recipe(size: Size, name: str, num_layers: int = 0, objective: str = "full") -> tuple[Config, ModelConfig]:
    """(configuration, model) of `configs/NAME.py`; in a rehearsal with the smallest preset and rows of 64 tokens.

    Args:
      num_layers: so many layers only (0: all).
      objective: `train.objective`.
    """
    path = Path(name) if name.endswith(".py") else ROOT / "configs" / f"{name}.py"
    config = runpy.run_path(str(path))["get_config"]()
    config.train.objective = objective
    if size.is_toy:
        config.model.preset, config.data.row_length, config.train.block_size = "tiny", 64, 8
        config.train.accumulation_steps = min(config.train.accumulation_steps, 2)
        config.train.batch_size = 2
    frozen = freeze(config)
    model = as_published(frozen)
    return frozen, dataclasses.replace(model, num_hidden_layers=num_layers or model.num_hidden_layers)


def seconds_of(run: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call, each waited for, after two that compile and warm up."""
    for _ in range(2):
        jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class Error(NamedTuple):
    """Of an array against its reference. largest: the largest difference over the largest value (a row that is wrong
    shows here). norm: of the difference over that of the reference. NaN where a number is NaN."""

    largest: float
    norm: float


def error_of(found: Any, reference: Any) -> Error:
    """Compares in float32, on the device: a host takes seconds for a billion numbers."""
    found, reference = jnp.asarray(found, jnp.float32), jnp.asarray(reference, jnp.float32)
    if found.shape != reference.shape:
        raise ValueError(f"compared arrays: expected shape {reference.shape}, got {found.shape}.")
    if not found.size:
        return Error(0.0, 0.0)
    return Error(*(float(number) for number in _error(found, reference)))


@jax.jit
def _error(found: jax.Array, reference: jax.Array) -> tuple[jax.Array, jax.Array]:
    away, tiny = found - reference, jnp.finfo(jnp.float32).tiny
    norms = [jnp.sqrt((x * x).sum()) for x in (away, reference)]
    largest = jnp.where(jnp.isnan(away).any(), jnp.nan, jnp.abs(away).max())  # a maximum may pass over NaN
    return largest / jnp.maximum(jnp.abs(reference).max(), tiny), norms[0] / jnp.maximum(norms[1], tiny)


@jax.jit
def _are_equal(one: Any, other: Any) -> jax.Array:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
    bits = lambda x: jax.lax.bitcast_convert_type(x, unsigned[x.dtype.itemsize])  # noqa: E731
    equal = jax.tree.map(lambda a, b: (bits(a) == bits(b)).all(), one, other)
    return jnp.stack(jax.tree.leaves(equal)).all()


def are_bits_equal(one: Any, other: Any) -> bool:
    """Of two trees of arrays of the same shapes and dtypes, compared on the device."""
    return bool(_are_equal(one, other))


def worst(errors: dict[str, Error]) -> tuple[str, Error]:
    """(the name of the largest, both kinds of error at their largest over all); NaN is larger than any number."""
    name = max(errors, key=lambda key: np.nan_to_num(errors[key].largest, nan=np.inf))
    return name, Error(*(float(np.max(column)) for column in zip(*errors.values(), strict=True)))


def random_batch(config: Config, model: ModelConfig, num_documents: int = 1) -> Batch:
    """Rows of so many packed documents, half of the tokens hidden."""
    rng = np.random.default_rng(0)
    shape = (config.train.batch_size, config.data.row_length)
    length = shape[1]
    document = np.arange(length, dtype=np.int32) // max(length // num_documents, 1)
    starts = np.maximum.accumulate(np.where(np.diff(document, prepend=-1) > 0, np.arange(length), 0))
    targets = rng.integers(1, model.vocab_size - 1, shape, dtype=np.int32)
    is_target = rng.random(shape) < 0.5
    spread = lambda row: np.ascontiguousarray(np.broadcast_to(row, shape))  # noqa: E731
    return Batch(
        tokens=np.where(is_target, model.vocab_size - 1, targets).astype(np.int32), targets=targets,
        is_target=is_target, positions=spread((np.arange(length) - starts).astype(np.int32)),
        segment_ids=spread(document + 1), kind=np.full(shape, Kind.OBSERVATION, np.int8),
        field=np.zeros(shape, np.int8), rate=np.full(shape, 0.5, np.float32), example=np.zeros(shape, np.int32),
    )  # fmt: skip
