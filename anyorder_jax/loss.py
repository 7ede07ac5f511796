"""The masked reconstruction loss: what a hidden token costs, and how the costs are weighed.

    loss = sum_i  w_i * -log p(x_i | everything visible)          i over hidden targets of the whole step

    "token"  w_i = 1 / #targets                                   dFactory, `same_token_labels`
    "kind"   w_i = weight_k / #targets of kind k                  k = kind of i's unit, its role
    "rate"   w_i = 1 / (t_i * #tokens that could be hidden)       MDLM (2406.07524, eq. 8), LLaDA (2502.09992, eq. 3)

A unit's end tokens after the first (`Field.END`, they fill its block) count `end_weight` each instead of 1, in sums and
in counts.

With `confidence_weight` c > 0 a hidden token that is already predicted right costs c * entropy more (confidence-aware
training, LLaDA2.0 report, section 5.2).

The counts are those of the whole step (all devices, all micro-batches), so accumulating gradients over micro-batches
gives the large batch's update exactly; the reference averages means of micro-batches instead, and returns NaN for one
without targets. Here such a step costs 0.

`head_loss` never makes logits for all positions: hidden ones are gathered, and taken through the head in as many chunks
as they fill. A chunk's gradient is computed at once (three products, where recomputing the logits takes four).
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
from anyorder_jax.model.kernels.counting import argmax, targets_first
from anyorder_jax.types import ROLES, Batch, Field

CHUNK_LOGITS = 2**26
"""Logits of a chunk on one device: 256 MiB in float32, 427 positions of a vocabulary of 157,184."""

MIN_CHUNKS = 8
"""Into how many chunks positions are cut at least: on the average half a chunk goes through the head for nothing."""


def target_weights(batch: Batch, config: LossConfig) -> jax.Array:
    """w of the module's equation: float32, the shape of `batch.tokens` ([..., L]), 0 where `is_target` is False."""
    is_target = batch.is_target.astype(jnp.float32)
    if config.end_weight != 1:
        is_target = jnp.where(batch.field == Field.END, config.end_weight, 1.0) * is_target
    if config.normalisation == "token":
        return is_target / jnp.maximum(is_target.sum(), 1.0)
    if config.normalisation == "rate":
        num_hideable = (batch.kind >= 0).sum().astype(jnp.float32)
        return is_target / (batch.rate * jnp.maximum(num_hideable, 1.0))
    by_role = jax.nn.one_hot(batch.kind, len(ROLES)) * is_target[..., None]
    counts = by_role.reshape(-1, len(ROLES)).sum(0)
    role_weights = config.role_weights()
    weights = jnp.array([role_weights[role] for role in ROLES])
    # a step with less than one target's worth of ends keeps their small weight; one without targets costs 0
    return by_role @ (weights / jnp.where(counts > 0, counts, 1.0))


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-log softmax(logits)[targets] in float32, nats. logits [..., V], targets int [...] -> float32 [...]."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


class Asked(NamedTuple):
    """The positions that go through the head, G shards of K, targets first: targets int32, weights float32, is_target
    bool, kind int8 (-1 for ends that only fill a block: no metric counts them). num_dropped: int32 [], targets that had
    no room."""

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
      target_share: in (0, 1]; 1 keeps every position.
    """

    def by_shard(x: jax.Array) -> jax.Array:
        return x.reshape(num_shards, -1, *x.shape[2:])

    is_target_GP = by_shard(batch.is_target)
    num_kept = math.ceil(target_share * is_target_GP.shape[1])
    chosen_GK = jax.vmap(targets_first)(is_target_GP)[:, :num_kept]

    def take(x: jax.Array) -> jax.Array:
        return jax.vmap(lambda x, chosen: x.at[chosen].get(unique_indices=True))(by_shard(x), chosen_GK)

    is_target_GK = take(batch.is_target)
    num_dropped = is_target_GP.sum(dtype=jnp.int32) - is_target_GK.sum(dtype=jnp.int32)
    counted_BL = jnp.where(batch.field == Field.END, -1, batch.kind)
    taken = take(hidden_BLD), take(batch.targets), take(weights_BL), is_target_GK, take(counted_BL)
    return Asked(*taken, num_dropped)


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


def _over_chunks(one: Any, total: Any, seen: Any, chunks: Chunk, number: jax.Array) -> tuple[Any, Any]:
    """`total, seen[n] = one(total, chunk n)` for the first `number` chunks; the others stay as they are in `seen`."""

    def body(n: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        total, new = one(carry[0], jax.tree.map(lambda x: x[n], chunks))
        return total, jax.tree.map(lambda x, value: x.at[n].set(value), carry[1], new)

    return jax.lax.fori_loop(0, number, body, (total, seen))


def _gathered(head_DV: jax.Array, dtype: Any, mesh: Mesh | None) -> jax.Array:
    """The head as the products take it, whole on every device (but for `tensor`): gathered once, not in every chunk.

    Narrowed where it lies, then gathered: half the bytes.
    """
    narrow_DV = sharding.constrain(head_DV.astype(dtype), ("embed", "vocab"), mesh)
    return sharding.constrain(narrow_DV, (None, "vocab"), mesh)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _chunks_cost(
    chunks: Chunk, number: jax.Array, head_DV: jax.Array, confidence_weight: float, mesh: Mesh | None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """(the cost of the first `number` chunks, (cross-entropies, was the likeliest right), both [N, G, C])."""
    head_DV = _gathered(head_DV, chunks[0].dtype, mesh)

    def one(total: jax.Array, chunk: Chunk) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        hidden, targets, weights = chunk
        cost, seen = _chunk_cost(hidden, head_DV, targets, weights, confidence_weight)
        return total + cost, seen

    return _over_chunks(one, jnp.zeros(()), _nothing_seen(chunks), chunks, number)


def _nothing_seen(chunks: Chunk) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros_like(chunks[2]), jnp.zeros_like(chunks[2], bool)


def _chunks_cost_forward(
    chunks: Chunk, number: jax.Array, head_DV: jax.Array, confidence_weight: float, mesh: Mesh | None
) -> tuple[Any, Any]:
    cost_of = functools.partial(_chunk_cost, confidence_weight=confidence_weight)
    by_shard = jax.vmap(jax.value_and_grad(cost_of, argnums=(0, 1), has_aux=True), in_axes=(0, None, 0, 0))
    whole_DV = _gathered(head_DV, chunks[0].dtype, mesh)

    def kept(grad_head_GDV: jax.Array) -> jax.Array:  # every shard sums its own; they meet once, behind the loop
        return sharding.constrain(grad_head_GDV, ("row_shard", None, "vocab"), mesh)

    def one(total: Any, chunk: Chunk) -> tuple[Any, Any]:
        hidden, targets, weights = chunk
        (cost_G, seen), (grad_hidden, grad_GDV) = by_shard(hidden, whole_DV, targets, weights)
        return (total[0] + cost_G, kept(total[1] + grad_GDV.astype(jnp.float32))), (seen, grad_hidden)

    G = chunks[0].shape[1]
    total = jnp.zeros(G), kept(jnp.zeros((G, *head_DV.shape), jnp.float32))
    seen = _nothing_seen(chunks), jnp.zeros_like(chunks[0])
    (cost_G, grad_GDV), (seen, grad_hidden) = _over_chunks(one, total, seen, chunks, number)
    return (cost_G.sum(), seen), (grad_hidden, grad_GDV.sum(0).astype(head_DV.dtype))


def _chunks_cost_backward(confidence_weight: float, mesh: Mesh | None, saved: Any, cotangents: Any) -> tuple:
    grad_hidden, grad_head = saved
    scale = cotangents[0]
    return (grad_hidden * scale.astype(grad_hidden.dtype), None, None), None, grad_head * scale.astype(grad_head.dtype)


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
      carry no gradient, and hold for targets only.
    """
    G, K = asked.targets_GK.shape
    num_chunks = min(K, max(MIN_CHUNKS, math.ceil(K * head_DV.shape[1] / chunk_logits)))
    size = math.ceil(K / num_chunks)
    num_chunks = math.ceil(K / size)
    number = (asked.is_target_GK.sum(1, dtype=jnp.int32).max() + size - 1) // size

    def cut(x: jax.Array) -> jax.Array:
        padding = ((0, 0), (0, num_chunks * size - K), *((0, 0),) * (x.ndim - 2))
        return jnp.pad(x, padding).reshape(G, num_chunks, size, *x.shape[2:]).swapaxes(0, 1)

    chunks = cut(asked.hidden_GKD), cut(asked.targets_GK), cut(asked.weights_GK)
    cost, (nll_NGC, is_right_NGC) = _chunks_cost(chunks, number, head_DV, confidence_weight, mesh)
    nll_GK, is_right_GK = (x.swapaxes(0, 1).reshape(G, -1)[:, :K] for x in (nll_NGC, is_right_NGC))
    return cost, jax.lax.stop_gradient(nll_GK), is_right_GK


def role_sums(nll_GK: jax.Array, is_right_GK: jax.Array, asked: Asked) -> dict[str, jax.Array]:
    """Sums over targets by role, to be divided on the host: `nll/<role>`, `right/<role>`, `count/<role>`."""
    by_role = jax.nn.one_hot(asked.kind_GK, len(ROLES)) * asked.is_target_GK[..., None]
    sums = {}
    for r, name in enumerate(ROLES):
        chosen = by_role[..., r]
        sums[f"nll/{name}"] = (nll_GK * chosen).sum()
        sums[f"right/{name}"] = (is_right_GK * chosen).sum()
        sums[f"count/{name}"] = chosen.sum()
    return sums
