"""The masked reconstruction loss: what a hidden token costs, and how the costs are weighed.

    loss = sum_i  w_i * -log p(x_i | everything visible)          i over hidden targets of the whole step

    "token"  w_i = 1 / #targets                                   dFactory, `same_token_labels`
    "kind"   w_i = weight_k / #targets of kind k                  k = kind of i's unit: observation, action, other
    "rate"   w_i = 1 / (t_i * #tokens that could be hidden)       MDLM (2406.07524, eq. 8), LLaDA (2502.09992, eq. 3)

With `confidence_weight` c > 0 a hidden token that is already predicted right costs c * entropy more (confidence-aware
training, LLaDA2.0 report, section 5.2).

The counts are those of the whole step (all devices, all micro-batches), so accumulating gradients over micro-batches
gives the large batch's update exactly; the reference averages means of micro-batches instead, and returns NaN for one
without targets. Here such a step costs 0.

`head_loss` never makes logits for all positions: hidden ones are gathered, and taken through the head in chunks whose
gradient is computed at once (three products a chunk, where recomputing them takes four).
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from anyorder_jax import sharding
from anyorder_jax.config import LossConfig
from anyorder_jax.model import transformer
from anyorder_jax.types import Batch, Kind

CHUNK_LOGITS = 2**26
"""Logits of a chunk on one device: 256 MiB in float32, 427 positions of a vocabulary of 157,184."""

GROUPS = ("observation", "action", "other")
"""Kinds of units as the "kind" normalisation and the metrics see them."""


def group_of(kind: jax.Array) -> jax.Array:
    """`Kind` values -> index into GROUPS, int32, same shape. Frame and padding (-1) fall under "other"."""
    return jnp.where(kind == Kind.OBSERVATION, 0, jnp.where(kind == Kind.ACTION, 1, 2)).astype(jnp.int32)


def target_weights(batch: Batch, config: LossConfig) -> jax.Array:
    """w of the module's equation: float32, the shape of `batch.tokens` ([..., L]), 0 where `is_target` is False."""
    is_target = batch.is_target.astype(jnp.float32)
    if config.normalisation == "token":
        return is_target / jnp.maximum(is_target.sum(), 1.0)
    if config.normalisation == "rate":
        num_hideable = (batch.kind >= 0).sum().astype(jnp.float32)
        return is_target / (batch.rate * jnp.maximum(num_hideable, 1.0))
    by_group = jax.nn.one_hot(group_of(batch.kind), len(GROUPS)) * is_target[..., None]
    counts = by_group.reshape(-1, len(GROUPS)).sum(0)
    weights = jnp.array([config.observation_weight, config.action_weight, config.other_weight])
    return by_group @ (weights / jnp.maximum(counts, 1.0))


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-log softmax(logits)[targets] in float32, nats. logits [..., V], targets int [...] -> float32 [...]."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def argmax(logits: jax.Array) -> jax.Array:
    """The first of the largest, int32 [...]: two plain reductions, which a CPU does 5 times faster than `argmax`."""
    place = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    is_top = logits == logits.max(-1, keepdims=True)
    return jnp.where(is_top, place, logits.shape[-1]).min(-1)


class Asked(NamedTuple):
    """The positions that go through the head, G shards of K: targets int32, weights float32, is_target bool, kind int8.
    num_dropped: int32 [], targets that had no room."""

    hidden_GKD: jax.Array
    targets_GK: jax.Array
    weights_GK: jax.Array
    is_target_GK: jax.Array
    kind_GK: jax.Array
    num_dropped: jax.Array


def gather_targets(
    hidden_BLD: jax.Array, batch: Batch, weights_BL: jax.Array, num_shards: int, target_share: float
) -> Asked:
    """The targets of each shard of rows, as many as fit into `target_share` of its positions; then others, of weight 0.

    Args:
      hidden_BLD: after the final norm.
      batch: what the hidden states belong to.
      weights_BL: of `target_weights`.
      num_shards: devices that hold rows of their own; every one gathers among its own.
      target_share: in (0, 1]; 1 keeps every position where it is.
    """

    def by_shard(x: jax.Array) -> jax.Array:
        return x.reshape(num_shards, -1, *x.shape[2:])

    asked = Asked(
        by_shard(hidden_BLD), by_shard(batch.targets), by_shard(weights_BL), by_shard(batch.is_target),
        by_shard(batch.kind), jnp.zeros((), jnp.int32),
    )  # fmt: skip
    num_positions = asked.is_target_GK.shape[1]
    num_kept = math.ceil(target_share * num_positions)
    if num_kept == num_positions:
        return asked
    chosen_GK = jnp.argsort(~asked.is_target_GK, axis=1, stable=True)[:, :num_kept]

    def take(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, chosen_GK.reshape(*chosen_GK.shape, *(1,) * (x.ndim - 2)), axis=1)

    taken = asked._replace(
        hidden_GKD=take(asked.hidden_GKD), targets_GK=take(asked.targets_GK), weights_GK=take(asked.weights_GK),
        is_target_GK=take(asked.is_target_GK), kind_GK=take(asked.kind_GK),
    )  # fmt: skip
    num_dropped = asked.is_target_GK.sum(dtype=jnp.int32) - taken.is_target_GK.sum(dtype=jnp.int32)
    return taken._replace(num_dropped=num_dropped)


def _chunk_cost(
    hidden: jax.Array, head_DV: jax.Array, targets: jax.Array, weights: jax.Array, confidence_weight: float
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    logits = transformer.head({"head": head_DV}, hidden)
    nll = cross_entropy(logits, targets)
    is_right = argmax(logits) == targets
    cost = nll
    if confidence_weight:
        log_p = jax.nn.log_softmax(logits, axis=-1)
        cost = nll - confidence_weight * is_right * (jnp.exp(log_p) * log_p).sum(-1)
    return (cost * weights).sum(), (nll, is_right)


Chunk = tuple[jax.Array, jax.Array, jax.Array]
"""Hidden states [G, C, D], targets [G, C], weights [G, C]; stacked over N chunks where the name says so."""


def _over_chunks(one: Any, start: Any, chunks: Chunk) -> Any:
    """`lax.scan`, without its loop when there is one chunk."""
    return jax.lax.scan(one, start, chunks, unroll=len(chunks[0]) == 1)


def _gathered(head_DV: jax.Array, dtype: Any, mesh: Mesh | None) -> jax.Array:
    """The head as the products take it, whole on every device (but for `tensor`): gathered once, not in every chunk.

    Narrowed where it lies, then gathered: half the bytes.
    """
    narrow_DV = sharding.constrain(head_DV.astype(dtype), ("embed", "vocab"), mesh)
    return sharding.constrain(narrow_DV, (None, "vocab"), mesh)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _chunks_cost(
    chunks: Chunk, head_DV: jax.Array, confidence_weight: float, mesh: Mesh | None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    head_DV = _gathered(head_DV, chunks[0].dtype, mesh)

    def one(total: jax.Array, chunk: Chunk) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        hidden, targets, weights = chunk
        cost, seen = _chunk_cost(hidden, head_DV, targets, weights, confidence_weight)
        return total + cost, seen

    return _over_chunks(one, jnp.zeros(()), chunks)


def _chunks_cost_forward(
    chunks: Chunk, head_DV: jax.Array, confidence_weight: float, mesh: Mesh | None
) -> tuple[Any, Any]:
    cost_of = functools.partial(_chunk_cost, confidence_weight=confidence_weight)
    by_shard = jax.vmap(jax.value_and_grad(cost_of, argnums=(0, 1), has_aux=True), in_axes=(0, None, 0, 0))
    whole_DV = _gathered(head_DV, chunks[0].dtype, mesh)

    def kept(grad_head_GDV: jax.Array) -> jax.Array:  # every shard sums its own; they meet once, behind the loop
        return sharding.constrain(grad_head_GDV, ("row_shard", None, "vocab"), mesh)

    def one(total: Any, chunk: Chunk) -> tuple[Any, Any]:
        hidden, targets, weights = chunk
        (cost_G, seen), (grad_hidden, grad_GDV) = by_shard(hidden, whole_DV, targets, weights)
        return (total[0] + cost_G.sum(), kept(total[1] + grad_GDV.astype(jnp.float32))), (seen, grad_hidden)

    start = jnp.zeros(()), kept(jnp.zeros((chunks[0].shape[1], *head_DV.shape), jnp.float32))
    (cost, grad_GDV), (seen, grad_hidden) = _over_chunks(one, start, chunks)
    return (cost, seen), (grad_hidden, grad_GDV.sum(0).astype(head_DV.dtype))


def _chunks_cost_backward(confidence_weight: float, mesh: Mesh | None, saved: Any, cotangents: Any) -> tuple[Any, Any]:
    grad_hidden, grad_head = saved
    scale = cotangents[0]
    return (grad_hidden * scale.astype(grad_hidden.dtype), None, None), grad_head * scale.astype(grad_head.dtype)


_chunks_cost.defvjp(_chunks_cost_forward, _chunks_cost_backward)


def head_loss(
    asked: Asked,
    head_DV: jax.Array,
    confidence_weight: float = 0.0,
    chunk_logits: int = CHUNK_LOGITS,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The module's sum over the gathered positions.

    Args:
      asked: of `gather_targets`.
      head_DV: the output matrix, any float dtype; its gradient is summed over chunks in float32.
      confidence_weight: c of the module's text.
      chunk_logits: logits that may exist at once for a shard of rows (on its device).
      mesh: where the shards lie (None: one device). The head is gathered and its gradient summed over devices once.

    Returns:
      (float32 [], the loss; float32 [G, K], cross-entropies; bool [G, K], was the likeliest token right). The last two
      carry no gradient.
    """
    G, K = asked.targets_GK.shape
    num_chunks = min(K, math.ceil(K * head_DV.shape[1] / chunk_logits))
    size = math.ceil(K / num_chunks)

    def cut(x: jax.Array) -> jax.Array:
        padding = ((0, 0), (0, num_chunks * size - K), *((0, 0),) * (x.ndim - 2))
        return jnp.pad(x, padding).reshape(G, num_chunks, size, *x.shape[2:]).swapaxes(0, 1)

    chunks = cut(asked.hidden_GKD), cut(asked.targets_GK), cut(asked.weights_GK)
    cost, (nll_NGC, is_right_NGC) = _chunks_cost(chunks, head_DV, confidence_weight, mesh)
    nll_GK, is_right_GK = (x.swapaxes(0, 1).reshape(G, -1)[:, :K] for x in (nll_NGC, is_right_NGC))
    return cost, jax.lax.stop_gradient(nll_GK), is_right_GK


def group_sums(nll_GK: jax.Array, is_right_GK: jax.Array, asked: Asked) -> dict[str, jax.Array]:
    """Sums over targets by group, to be divided on the host: `nll/<group>`, `right/<group>`, `count/<group>`."""
    by_group = jax.nn.one_hot(group_of(asked.kind_GK), len(GROUPS)) * asked.is_target_GK[..., None]
    sums = {}
    for g, name in enumerate(GROUPS):
        chosen = by_group[..., g]
        sums[f"nll/{name}"] = (nll_GK * chosen).sum()
        sums[f"right/{name}"] = (is_right_GK * chosen).sum()
        sums[f"count/{name}"] = chosen.sum()
    return sums
