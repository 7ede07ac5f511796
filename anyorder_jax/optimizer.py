"""Optimizers by name, warm-up and cosine decay; which weights are decayed or frozen is read from ordered pattern rules.

    name        state per weight            pick it when
    adamw       8 bytes (4 with bfloat16    there is room: the reference's
                `moment_dtype`)
    adamw8bit   2 bytes + 2/64              one GPU, or fewer: block-wise 8 bits (arXiv 2110.02861)
    adafactor   ~0                          nothing else fits (arXiv 1804.04235)
    muon        4 bytes, 8 outside layers   random weights are to learn from few updates: the layers'
                                            matrices by Muon (arXiv 2502.16982), all others by AdamW

`offload` lets any of these wait on the host between updates (step.py, sharding.fetch).
Bfloat16 weights lose updates below 1/256 of their size; `stochastic_rounding` keeps them on average.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, MuonState, scale_by_muon

from anyorder_jax.config import OptimizerConfig
from anyorder_jax.model import lora

FROZEN = ((r"expert_bias$", True), (r"", False))
"""The router's expert bias is a buffer in the reference: it chooses experts, has no gradient; step.py moves it."""

FROZEN_ROUTER = ((r"/router$", True), *FROZEN)
"""`freeze_router`: who gets which token stays as pre-training left it, but for what other layers change."""

DECAY = {
    "matrices": ((r"(norm|bias)[^/]*$", False), (r"", True)),
    "all": ((r"", True),),  # dFactory: norms and biases too
}


def match_rules(tree: Any, rules: tuple[tuple[str, Any], ...]) -> Any:
    """A tree of the first rule's value whose pattern is found in the leaf's path ("moe/attention/query_norm").

    Raises:
      ValueError: for a leaf that no rule covers.
    """

    def value_of(path: Any, _: Any) -> Any:
        name = "/".join(str(getattr(p, "key", p)) for p in path)
        for pattern, value in rules:
            if re.search(pattern, name):
                return value
        raise ValueError(f"optimizer: no rule covers {name}; the patterns are {[p for p, _ in rules]}.")

    return jax.tree_util.tree_map_with_path(value_of, tree)


def make_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Learning rate of update n (0-based): linear warm-up to `learning_rate`, cosine to `end_learning_rate`.

    The first update has learning_rate / warmup_steps, not 0 as the reference's.
    """
    warmup = min(config.warmup_steps, max(num_steps - 1, 0))
    return optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate / max(warmup, 1),
        peak_value=config.learning_rate,
        warmup_steps=max(warmup - 1, 0),
        decay_steps=max(num_steps, warmup + 1),
        end_value=config.end_learning_rate,
    )


class Moments(NamedTuple):
    """step: int32 [], updates done. first, second: trees like the parameters, of arrays or `Quantised`."""

    step: jax.Array
    first: Any
    second: Any


class Quantised(NamedTuple):
    """A moment in 8 bits: x = sign(q) * (|q| / 127)^p * scale of its block of the last dimension.

    bits: int8, the weight's shape. scale: float32, its last dimension counts blocks. p is 2 for first moments and 4 for
    second ones: what is small beside the largest of its block keeps a place of its own.
    """

    bits: jax.Array
    scale: jax.Array


BLOCK = 64
"""Numbers that share a scale."""


def _num_blocks(width: int) -> int:
    return width // BLOCK if width % BLOCK == 0 else 1


def noise(shape: tuple[int, ...], key: jax.Array) -> jax.Array:
    """uint32, random enough to round by: a hash of an element's place and the key.

    `jax.random` makes numbers fit for cryptography; of the 16 billion weights of LLaDA2-mini they took a fifth of an
    update on an H200 (docs/gpu.md). The hash is Chris Wellons' `lowbias32` (github.com/skeeto/hash-prospector, public
    domain).
    """
    first, second = jax.random.key_data(key).astype(jnp.uint32).reshape(-1)[-2:]
    place = jnp.zeros(shape[1:], jnp.uint32)
    for axis, size in enumerate(shape[1:]):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, shape[1:], axis)
    if shape:  # the first dimension apart: a stack of layers has more numbers than fit into 32 bits
        layer = _hash(jax.lax.broadcasted_iota(jnp.uint32, shape, 0) + first)
        place = layer ^ jnp.broadcast_to(place, shape)
    return _hash(_hash(place + second) ^ first)


def _hash(x: jax.Array) -> jax.Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def quantise(x: jax.Array, power: int, bits: jax.Array) -> Quantised:
    """Rounds up or down at random (`bits`: uint32, of x's shape, 16 of them used), so that decay and small gradients
    survive on average."""
    blocks = x.reshape(*x.shape[:-1], _num_blocks(x.shape[-1]), -1)
    scale = jnp.abs(blocks).max(-1)
    place = 127 * (jnp.abs(blocks) / jnp.maximum(scale, 1e-38)[..., None]) ** (1 / power)
    drawn = (bits & 0xFFFF).astype(jnp.float32).reshape(place.shape) / 65536
    place = jnp.minimum(jnp.floor(place + drawn), 127)
    return Quantised((jnp.sign(blocks) * place).astype(jnp.int8).reshape(x.shape), scale)


def dequantise(x: Quantised, power: int) -> jax.Array:
    """The moments as float32 in the weight's shape: the inverse of `quantise`, but for rounding."""
    blocks = x.bits.reshape(*x.scale.shape, -1).astype(jnp.float32)
    return (jnp.sign(blocks) * (jnp.abs(blocks) / 127) ** power * x.scale[..., None]).reshape(x.bits.shape)


def scale_by_adam(b1: float, b2: float, eps: float, moment_dtype: str) -> optax.GradientTransformation:
    """Adam (arXiv 1412.6980) whose moments are held in `moment_dtype`: "float32", "bfloat16" or "int8".

    Everything is computed in float32; what is narrower is rounded at random (a function of the update's number, so that
    a resumed run repeats it).

    Args:
      b1: decay of the first moment.
      b2: of the second.
      eps: added to its root.
      moment_dtype: see above.
    """

    def hold(x: jax.Array, power: int, bits: jax.Array) -> Any:
        if moment_dtype == "int8":
            return quantise(x, power, bits)
        return round_stochastically(x, bits) if moment_dtype == "bfloat16" else x

    def held(x: Any, power: int) -> jax.Array:
        return dequantise(x, power) if isinstance(x, Quantised) else x.astype(jnp.float32)

    def init(params: Any) -> Moments:
        def zeros(p: jax.Array) -> Any:
            if moment_dtype == "int8":
                blocks = (*p.shape[:-1], _num_blocks(p.shape[-1]))
                return Quantised(jnp.zeros(p.shape, jnp.int8), jnp.zeros(blocks, jnp.float32))
            return jnp.zeros(p.shape, jnp.dtype(moment_dtype))

        return Moments(jnp.zeros((), jnp.int32), jax.tree.map(zeros, params), jax.tree.map(zeros, params))

    def update(grads: Any, state: Moments, params: Any = None) -> tuple[Any, Moments]:
        del params
        step = state.step + 1
        leaves: Any
        treedef: Any
        leaves, treedef = jax.tree.flatten(grads)
        key = jax.random.fold_in(jax.random.key(0), step)
        corrections = 1 - b1 ** step.astype(jnp.float32), 1 - b2 ** step.astype(jnp.float32)

        def one(n: int, grad: jax.Array, first: Any, second: Any) -> tuple[jax.Array, Any, Any]:
            bits = noise(grad.shape, jax.random.fold_in(key, n))  # 16 for each moment
            grad = grad.astype(jnp.float32)
            m = b1 * held(first, 2) + (1 - b1) * grad
            v = b2 * held(second, 4) + (1 - b2) * grad * grad
            direction = (m / corrections[0]) / (jnp.sqrt(v / corrections[1]) + eps)
            return direction, hold(m, 2, bits), hold(v, 4, bits >> 16)

        moments = treedef.flatten_up_to(state.first), treedef.flatten_up_to(state.second)
        results = [one(n, *leaf) for n, leaf in enumerate(zip(leaves, *moments, strict=True))]
        directions, first, second = (treedef.unflatten(column) for column in zip(*results, strict=True))
        return directions, Moments(step, first, second)

    return optax.GradientTransformation(init, update)


def round_stochastically(x: jax.Array, bits: jax.Array) -> jax.Array:
    """float32 -> bfloat16, up or down with the probability that makes the mean exact (`bits`: uint32, of x's shape,
    16 of them used)."""
    number = jax.lax.bitcast_convert_type(x, jnp.uint32)
    rounded = jax.lax.bitcast_convert_type((number + (bits & 0xFFFF)) & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)


def apply_updates(params: Any, updates: Any, key: jax.Array | None) -> Any:
    """params + updates in float32, in the parameters' dtypes; bfloat16 ones rounded at random with a key."""
    if key is None:
        return optax.apply_updates(params, updates)
    leaves: Any
    treedef: Any
    leaves, treedef = jax.tree.flatten(params)
    summed = []
    for n, (p, u) in enumerate(zip(leaves, treedef.flatten_up_to(updates), strict=True)):
        exact = p.astype(jnp.float32) + u.astype(jnp.float32)
        is_narrow = p.dtype == jnp.bfloat16
        bits = noise(p.shape, jax.random.fold_in(key, n)) if is_narrow else None
        summed.append(exact.astype(p.dtype) if bits is None else round_stochastically(exact, bits))
    return treedef.unflatten(summed)


MUON_RMS = 0.2
"""Root mean square of Muon's updates before the learning rate: about Adam's, so that rate and decay mean the same in
both (arXiv 2502.16982, section 2.2)."""

LABELS = frozenset({"trained", "frozen", "muon", "adamw"})
"""By which `optax.partition` sorts weights: keys in front of a weight's path in the optimizer's state."""


def _is_layer_matrix(path: tuple[Any, ...]) -> bool:
    return path[-1].key in lora.ALL_MATRICES


def scale_by_matrix_muon(head_width: int, moment_dtype: str) -> optax.GradientTransformation:
    """Optax's Muon (arXiv 2502.16982) for the matrices of stacked layers [N, (E,) in, .., out]. Each layer, expert and
    head is orthogonalised by itself, gate and up too: they are matrices of their own, held in one array. (Whether one
    orthogonalisation of queries, keys and values together would do as well was not measured.)

    The momentum has the weight's shape, so it lies where the weight does. Updates are float32 with `MUON_RMS`.

    Args:
      head_width: dims of a head; the last dimension of `query_key_value` counts heads times these.
      moment_dtype: of the momentum, "float32" or "bfloat16".
    """

    def by_head(tree: Any) -> Any:
        def view(path: Any, x: jax.Array) -> jax.Array:
            return x.reshape(*x.shape[:-1], -1, head_width) if path[-1].key == "query_key_value" else x

        return jax.tree_util.tree_map_with_path(view, tree)

    def dimensions(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, x: MuonDimensionNumbers(lora.in_dim(path[-1].key), x.ndim - 1), tree
        )

    muon = scale_by_muon(mu_dtype=moment_dtype, weight_dimension_numbers=dimensions)

    def update(grads: Any, state: MuonState, params: Any = None) -> tuple[Any, MuonState]:
        del params
        directions, moved = muon.update(by_head(grads), state._replace(mu=by_head(state.mu)))

        def scaled(path: Any, x: jax.Array, grad: jax.Array) -> jax.Array:
            longer = max(x.shape[lora.in_dim(path[-1].key)], x.shape[-1])
            return (MUON_RMS * math.sqrt(longer) * x).reshape(grad.shape)

        shaped = jax.tree.map(lambda mu, old: mu.reshape(old.shape), moved.mu, state.mu)
        return jax.tree_util.tree_map_with_path(scaled, directions, grads), moved._replace(mu=shaped)

    return optax.GradientTransformation(muon.init, update)


def _rule(config: OptimizerConfig, params: Any) -> optax.GradientTransformation:
    if config.name == "muon":
        adamw = _rule(dataclasses.replace(config, name="adamw"), params)
        matrices = scale_by_matrix_muon(params["moe"]["key_norm"].shape[-1], config.moment_dtype)
        return optax.partition(
            {"muon": matrices, "adamw": adamw},
            lambda tree: jax.tree_util.tree_map_with_path(
                lambda path, _: "muon" if _is_layer_matrix(path) else "adamw", tree
            ),
        )
    if config.name == "adafactor":
        return optax.chain(
            optax.scale_by_factored_rms(decay_rate=0.8, min_dim_size_to_factor=64), optax.clip_by_block_rms(1.0)
        )
    if config.name == "adamw" and config.moment_dtype == "float32":
        return optax.scale_by_adam(config.b1, config.b2, config.eps)
    return scale_by_adam(
        config.b1, config.b2, config.eps, "int8" if config.name == "adamw8bit" else config.moment_dtype
    )


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Gradients times min(1, limit / norm). Optax divides each of them instead, of which XLA keeps a copy; a product is
    made where it is used (a tenth less time for a CPU's update)."""

    def update(grads: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, optax.EmptyState]:
        del params
        factor = limit / jnp.maximum(optax.tree.norm(grads), limit)
        return jax.tree.map(lambda grad: grad * factor.astype(grad.dtype), grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


class Averaged(NamedTuple):
    """The state of an optimizer beside a running average of what it trains: float32, a tree like the parameters."""

    inner: Any
    ema: Any


def with_average(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """`rule`, whose state has room for an average; the step fills it (`moved_average`), as it knows the new weights."""

    def init(params: Any) -> Averaged:
        # copied: what a jitted function passes through is no array of its own, and both are donated
        return Averaged(rule.init(params), jax.tree.map(lambda p: jnp.copy(p.astype(jnp.float32)), params))

    def update(grads: Any, state: Averaged, params: Any = None) -> tuple[Any, Averaged]:
        updates, inner = rule.update(grads, state.inner, params)
        return updates, Averaged(inner, state.ema)

    return optax.GradientTransformation(init, update)


def moved_average(ema: Any, params: Any, step: jax.Array, decay: float) -> Any:
    """d ema + (1 - d) params, with d = min(decay, (1 + step) / (10 + step)): short at first, or the first weights would
    weigh most of a short run. `step`: int32 [], updates done before this one."""
    d = jnp.minimum(decay, (1.0 + step) / (10.0 + step)).astype(jnp.float32)
    return jax.tree.map(lambda mean, p: d * mean + (1 - d) * p.astype(jnp.float32), ema, params)


def make_optimizer(
    config: OptimizerConfig, num_steps: int, params: Any
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The gradient transformation for what is trained of a tree like `params` (arrays or shapes; see `lora.split`), and
    its schedule for the log."""
    params, _ = lora.split(params)
    schedule = make_schedule(config, num_steps)
    rule = optax.chain(
        clip_by_global_norm(config.clip_norm),
        optax.chain(  # as optax.adamw
            _rule(config, params),
            optax.add_decayed_weights(config.weight_decay, mask=lambda tree: match_rules(tree, DECAY[config.decay])),
            optax.scale_by_learning_rate(schedule),
        ),
    )
    is_frozen = match_rules(params, FROZEN_ROUTER if config.freeze_router else FROZEN)
    labels = jax.tree.map(lambda frozen: "frozen" if frozen else "trained", is_frozen)
    optimizer = optax.partition({"trained": rule, "frozen": optax.set_to_zero()}, labels)
    return (with_average(optimizer) if config.ema_decay else optimizer), schedule
