"""Where the step's time goes: the profiler's largest kernels, and the step's pieces one by one."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from anyorder_jax import loss, sharding
from anyorder_jax.config import Config
from anyorder_jax.model import attention, layers, moe
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.types import Batch
from gpu_parts.measuring import Size, own_recipe, random_batch, recipe, seconds_of
from gpu_parts.rows import Rows, one_line
from gpu_parts.steps import Step

LARGEST = 20


def device_times(folder: Path, platform: str) -> Counter[str]:
    """Nanoseconds of every kernel in a trace, by name without the number that tells copies apart.

    Raises:
      ValueError: when the trace holds none.
    """
    times: Counter[str] = Counter()
    files = sorted(folder.rglob("*.xplane.pb"))
    for plane in jax.profiler.ProfileData.from_file(str(files[-1])).planes if files else ():
        is_card = plane.name.startswith("/device:GPU")
        for line in plane.lines:
            is_stream = is_card and line.name.startswith("Stream")
            for event in line.events if is_stream or platform == "cpu" else ():
                if is_stream or any(key == "hlo_op" for key, _ in event.stats):
                    times[re.sub(r"[._]\d+$", "", event.name)] += int(event.duration_ns)
    if not times:
        raise ValueError(
            f"{folder}: the trace names no kernel of {platform} (planes are in {[f.name for f in files]})."
        )
    return times


def profile(rows: Rows, size: Size, name: str) -> None:
    """A few updates under the profiler; all layers, and where those do not run two."""
    for num_layers in size.of((0, 2), toy=(2,)):
        config, model = recipe(size, name, num_layers)
        what = f"{name}, {model.num_hidden_layers} layers"
        try:
            step = Step(config, model)
            seconds_of(step, 1)
            break
        except jax.errors.JaxRuntimeError as error:
            rows.add(what, "runs", "no", note=f"FALLBACK to 2 layers: {one_line(error)}")
    repeats = size.of(3, toy=2)
    folder = size.folder / "trace"
    with jax.profiler.trace(str(folder)):
        for _ in range(repeats):
            jax.block_until_ready(step())
    times = device_times(folder, jax.devices()[0].platform)
    total = sum(times.values())
    rows.add(what, "kernels of an update", total / repeats / 1e6, "ms", note=f"{len(times)} names")
    for place, (kernel, nanoseconds) in enumerate(times.most_common(LARGEST), 1):
        share = f"{nanoseconds / total:.1%} of all kernels"
        rows.add(f"{place}. {kernel[:100]}", "time in an update", nanoseconds / repeats / 1e6, "ms", note=share)


def pieces(config: Config, model: ModelConfig) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Name -> (function, arguments) of what one MoE layer and the head do with a micro-batch."""
    dtype = jnp.dtype(config.model.compute_dtype)
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    B, L = config.train.batch_size // config.train.accumulation_steps, config.data.row_length
    D, C, E, F = model.hidden_size, model.head_dim, model.num_experts, model.moe_intermediate_size
    H, K, S = model.num_attention_heads, model.num_key_value_heads, model.moe_intermediate_size
    keys = iter(jax.random.split(jax.random.key(0), 32))
    normal = lambda *shape: (0.02 * jax.random.normal(next(keys), shape)).astype(dtype)  # noqa: E731
    x = normal(B, L, D) * 50
    rows: Batch = jax.tree.map(lambda rows: jnp.asarray(rows[:B]), random_batch(config, model, 4))
    attend = lambda kind: lambda q, k, v: attention.attend(q, k, v, kind, mesh=mesh)  # noqa: E731
    heads = lambda length: (normal(B, length, H, C), normal(B, length, K, C), normal(B, length, K, C))  # noqa: E731

    def cost(x: jax.Array, head: jax.Array) -> jax.Array:
        share, num_shards = config.loss.target_share, sharding.num_row_shards(mesh)
        asked = loss.gather_targets(x, rows, loss.target_weights(rows, config.loss), num_shards, share)
        return loss.head_loss(asked, head, config.loss.confidence_weight, mesh=mesh)[0]

    weights = moe.Weights(normal(D, E), jnp.zeros(E), normal(E, D, 2, F), normal(E, F, D))
    projections = normal(D, (H + 2 * K) * C), normal(H * C, D)
    block = attention.BlockDiffusion(config.train.block_size)
    return {
        "attention projections": (
            lambda x, a, b: layers.project(layers.project(x, a)[..., : H * C], b), (x, *projections),
        ),
        "attention, packed documents": (attend(attention.Segments(rows.segment_ids)), heads(L)),
        "attention, everybody": (attend(attention.Full()), heads(L)),
        "attention, block diffusion of 2L": (attend(block), heads(2 * L)),
        "routed experts": (lambda x, w: moe.routed(model, x, rows.positions, w, mesh)[0], (x, weights)),
        "shared expert": (layers.mlp, (x, normal(D, 2, S), normal(S, D), None, None)),
        "head and loss": (cost, (x, normal(D, model.vocab_size))),
    }  # fmt: skip


def run(rows: Rows, size: Size) -> None:
    """The profile, then the pieces, each of which may fail alone."""
    name = own_recipe(size)
    with rows.attempt("profile"):
        profile(rows, size, name)
    config, model = recipe(size, name)
    config = dataclasses.replace(config, lora=dataclasses.replace(config.lora, rank=0, base_dtype=""))
    for piece, (function, arguments) in pieces(config, model).items():
        with rows.attempt(f"piece: {piece}"):
            numbers = tuple(n for n, argument in enumerate(arguments) if argument is not None)
            gradient = jax.jit(
                jax.grad(lambda *a, f=function: f(*a).astype(jnp.float32).sum(), argnums=numbers, allow_int=True)
            )
            seconds = seconds_of(lambda g=gradient, a=arguments: g(*a), size.of(10, toy=2))
            rows.add(f"piece: {piece}", "time", seconds * 1e3, "ms", note="forward and gradients, a micro-batch")
