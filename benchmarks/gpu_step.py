"""A recipe's train step on the accelerator that is here: random weights, real shapes, no data.

    python benchmarks/gpu_step.py --config=configs/llada2_mini_h200.py --num_layers=4     # few layers first
    python benchmarks/gpu_step.py --config=configs/llada2_mini_h200.py                    # all 20
    python benchmarks/gpu_step.py --config=configs/llada2_mini_h200.py --num_layers=4 --torch   # and a PyTorch layer
    python benchmarks/gpu_step.py --config=configs/llada2_mini_h200.py --config.train.objective=block_diffusion

Prints tokens/s (clean ones under block diffusion) and TFLOP/s of the whole step (model FLOPs by `fit`'s formula,
without recomputation), their share of the matrix peak that the chip is measured to reach here, peak memory, the time of
each part (forward and backward, of one layer and of the head), and with --torch the same layer in PyTorch with its best
fused kernels on the same device. Any other key of the recipe can be set as for `train`:
`--config.train.batch_size=4`.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_flags

from anyorder_jax import fit, flops, keys, loss, process, recipes, sharding, state, step
from anyorder_jax.config import Config, freeze_typed
from anyorder_jax.model import attention, layers, moe, transformer
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.optimizer import make_optimizer
from anyorder_jax.types import Batch, Kind


def seconds_of(run: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call, after two that compile and warm up."""
    for _ in range(2):
        jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matrix_peak(dtype: Any, size: int, repeats: int) -> float:
    """FLOP/s of a square product of this size."""
    a = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a, b: a @ b)
    return 2 * size**3 / seconds_of(lambda: product(a, a), repeats)


def random_batch(config: Config, model: ModelConfig) -> Batch:
    """Rows of four packed documents, half of the tokens hidden."""
    rng = np.random.default_rng(0)
    shape = (config.train.batch_size, config.data.row_length)
    length = shape[1]
    document = np.arange(length, dtype=np.int32) // max(length // 4, 1)
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


def time_step(config: Config, model: ModelConfig, mesh: Any, repeats: int) -> tuple[float, float]:
    """(seconds of a whole update, GiB of memory at its peak; 0 where the device does not tell)."""
    dtype, options = config.model.param_dtype, (config.lora, config.optimizer.offload)
    params = state.abstract_params(model, mesh, dtype, config.lora)
    optimizer, _ = make_optimizer(config.optimizer, config.train.num_steps, params)
    _, placed = state.state_shardings(model, optimizer, mesh, dtype, *options)
    train_step = step.make_train_step(config, model, optimizer, mesh, placed)
    current = state.create(model, optimizer, mesh, dtype, keys.key(0, "init"), *options)
    batch = sharding.place_batch(random_batch(config, model), mesh)

    def once() -> Any:
        nonlocal current
        current, metrics = train_step(current, batch)
        return metrics

    seconds = seconds_of(once, repeats)
    memory = jax.local_devices()[0].memory_stats() or {}
    return seconds, memory.get("peak_bytes_in_use", 0) / 2**30


def time_parts(config: Config, model: ModelConfig, mesh: Any, repeats: int, only: str) -> dict[str, float]:
    """Seconds of one layer's parts and of the head, whose name holds `only`: forward and backward on a micro-batch."""
    dtype = jnp.dtype(config.model.compute_dtype)
    B, L = config.train.batch_size // config.train.accumulation_steps, config.data.row_length
    D, C, E, F = model.hidden_size, model.head_dim, model.num_experts, model.moe_intermediate_size
    H, K, S = model.num_attention_heads, model.num_key_value_heads, model.moe_intermediate_size
    key = jax.random.key(0)
    normal = lambda *shape: (0.02 * jax.random.normal(key, shape)).astype(dtype)  # noqa: E731
    x = normal(B, L, D) * 50

    def heads(number: int, length: int) -> jax.Array:
        return normal(B, length, number, C)

    def attend(kind: Any) -> Callable[..., jax.Array]:
        return lambda q, k, v: attention.attend(q, k, v, kind, mesh=mesh)

    rows: Batch = jax.tree.map(lambda rows: jnp.asarray(rows[:B]), random_batch(config, model))

    def cost(x: jax.Array, head: jax.Array) -> jax.Array:
        share = config.loss.target_share
        asked = loss.gather_targets(
            x, rows, loss.target_weights(rows, config.loss), sharding.num_row_shards(mesh), share
        )
        return loss.head_loss(asked, head, config.loss.confidence_weight, mesh=mesh)[0]

    weights = moe.Weights(normal(D, E), jnp.zeros(E), normal(E, D, 2, F), normal(E, F, D))
    qkv, output = normal(D, (H + 2 * K) * C), normal(H * C, D)
    shared = (normal(D, 2, S), normal(S, D))
    parts: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "attention projections": (
            lambda x, a, b: layers.project(layers.project(x, a)[..., : H * C], b), (x, qkv, output),
        ),
        "attention, packed documents": (
            attend(attention.Segments(rows.segment_ids)), (heads(H, L), heads(K, L), heads(K, L)),
        ),
        "attention, everybody": (attend(attention.Full()), (heads(H, L), heads(K, L), heads(K, L))),
        "attention, block diffusion of 2L": (
            attend(attention.BlockDiffusion(32)), (heads(H, 2 * L), heads(K, 2 * L), heads(K, 2 * L)),
        ),
        "routed experts": (lambda x, w: moe.routed(model, x, rows.positions, w, mesh)[0], (x, weights)),
        "shared expert": (layers.mlp, (x, *shared, None, None)),
        "head and loss": (cost, (x, normal(D, model.vocab_size))),
    }  # fmt: skip
    found = {}
    for name, (function, arguments) in ((name, part) for name, part in parts.items() if only in name):
        gradient = jax.jit(
            jax.grad(lambda *a, f=function: f(*a).astype(jnp.float32).sum(), argnums=tuple(range(len(arguments))))
        )
        found[name] = seconds_of(lambda g=gradient, a=arguments: g(*a), repeats)
    return found


def time_layer(config: Config, model: ModelConfig, mesh: Any, repeats: int) -> float:
    """Seconds of one MoE layer, forward and backward with all gradients, between embedding and final norm."""
    one = dataclasses.replace(model, num_hidden_layers=1, first_k_dense_replace=0)
    params = transformer.init(one, jax.random.key(0), config.model.compute_dtype)
    batch = random_batch(config, model)
    tokens, positions = jnp.asarray(batch.tokens), jnp.asarray(batch.positions)

    def loss(params: Any) -> jax.Array:
        hidden, _, _ = transformer.hidden(
            one, params, tokens, positions, attention.Full(), compute_dtype=config.model.compute_dtype, mesh=mesh
        )
        return hidden.astype(jnp.float32).sum()

    params.pop("head")
    gradient = jax.jit(jax.grad(loss, allow_int=True))
    return seconds_of(lambda: gradient(params), repeats)


def time_torch_layer(config: Config, model: ModelConfig, repeats: int) -> float:
    """The same in PyTorch: flash attention, grouped products where this PyTorch has them, compiled on a GPU."""
    import torch
    from step_vs_torch import Torch

    one = dataclasses.replace(model, num_hidden_layers=1, first_k_dense_replace=0)
    weights = jax.tree.map(np.asarray, transformer.init(one, jax.random.key(0), jnp.float32))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layer = Torch(one, random_batch(config, model), weights, device, getattr(torch, config.model.compute_dtype))
    run = torch.compile(layer.hidden) if device == "cuda" else layer.hidden

    def once() -> None:
        for weight in layer.weights.values():
            weight.grad = None
        run().float().sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return seconds_of(once, repeats)


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    recipe = config_flags.DEFINE_config_file("config", None, "A recipe.", flag_values=values)
    num_layers = flags.DEFINE_integer("num_layers", 0, "So many layers only (0: all).", flag_values=values)
    repeats = flags.DEFINE_integer("repeats", 10, "Timed calls; the median counts.", flag_values=values)
    peak_size = flags.DEFINE_integer("peak_size", 8192, "Size of the product that measures.", flag_values=values)
    only = flags.DEFINE_string("only", "", "Parts whose name holds this word.", flag_values=values)
    with_torch = flags.DEFINE_bool("torch", False, "Also a layer in PyTorch.", flag_values=values)
    values(recipes.in_arguments(argv))
    config = freeze_typed(recipe.value)
    process.prepare(config.mesh.num_cpu_devices)
    model = fit.model_config_of(config)
    if num_layers.value:
        model = dataclasses.replace(model, num_hidden_layers=num_layers.value)
    mesh = sharding.make_mesh(config.mesh)
    tokens = config.train.batch_size * config.data.row_length
    counted = flops.per_token(config, model)
    peak = matrix_peak(config.model.compute_dtype, peak_size.value, repeats.value)
    print(
        f"{jax.devices()[0].device_kind} x {mesh.size}, {model.num_hidden_layers} layers; a product of "
        f"{peak_size.value} rows reaches {peak / 1e12:.3g} TFLOP/s",
        flush=True,
    )
    seconds, gib = time_step(config, model, mesh, repeats.value)
    rate = tokens / seconds
    share = rate * counted.total / mesh.size / peak
    print(
        f"step of {tokens:,} tokens: {seconds * 1e3:.1f} ms, {rate:,.0f} tokens/s, "
        f"{rate * counted.total / 1e12:.3g} TFLOP/s ({share:.1%} of the measured peak), peak memory {gib:.1f} GiB",
        flush=True,
    )
    for name, part in time_parts(config, model, mesh, repeats.value, only.value).items():
        print(f"  {name:34s} {part * 1e3:9.3f} ms forward and backward, once", flush=True)
    ours = time_layer(config, model, mesh, repeats.value)
    print(f"  {'a whole layer':34s} {ours * 1e3:9.3f} ms")
    if with_torch.value:
        theirs = time_torch_layer(config, model, repeats.value)
        print(f"  {'the same layer in PyTorch':34s} {theirs * 1e3:9.3f} ms: ours is {theirs / ours:.2f} x as fast")


if __name__ == "__main__":
    main(sys.argv)
