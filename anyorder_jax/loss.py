"""The masked reconstruction loss: what a hidden token costs, and how the costs are weighed.

    loss = sum_i  w_i * -log p(x_i | everything visible)          i over hidden targets of the whole step

    "token"  w_i = 1 / #targets                                   dFactory, `same_token_labels`
    "kind"   w_i = weight_k / #targets of kind k                  k = kind of i's unit: observation, action, other
    "rate"   w_i = 1 / (t_i * #tokens that could be hidden)       MDLM (2406.07524, eq. 8), LLaDA (2502.09992, eq. 3)

The counts are those of the whole step (all devices, all micro-batches), so accumulating gradients over micro-batches
gives the large batch's update exactly; the reference averages means of micro-batches instead, and returns NaN for one
without targets. Here such a step costs 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from anyorder_jax.config import LossConfig
from anyorder_jax.types import Batch, Kind

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


def group_sums(nll: jax.Array, is_right: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    """Sums over targets by group, to be divided on the host: `nll/<group>`, `right/<group>`, `count/<group>`."""
    by_group = jax.nn.one_hot(group_of(batch.kind), len(GROUPS)) * batch.is_target[..., None]
    sums = {}
    for g, name in enumerate(GROUPS):
        chosen = by_group[..., g]
        sums[f"nll/{name}"] = (nll * chosen).sum()
        sums[f"right/{name}"] = (is_right * chosen).sum()
        sums[f"count/{name}"] = chosen.sum()
    return sums
