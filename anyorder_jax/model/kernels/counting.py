"""Counting in place of searching and sorting: what a CPU does five to ten times faster, and others no slower."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def argmax(logits: jax.Array) -> jax.Array:
    """The first of the largest, int32 [...]: two plain reductions, which a CPU does 5 times faster than `argmax`."""
    place = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    is_top = logits == logits.max(-1, keepdims=True)
    return jnp.where(is_top, place, logits.shape[-1]).min(-1)


def targets_first(is_target_P: jax.Array) -> jax.Array:
    """The order that puts targets before all others, stable: int32 [P]. By counting: a CPU sorts ten times longer."""
    targets_P, others_P = jnp.cumsum(is_target_P), jnp.cumsum(~is_target_P)
    place_P = jnp.where(is_target_P, targets_P, targets_P[-1] + others_P) - 1
    numbers_P = jnp.arange(place_P.size, dtype=jnp.int32)
    return jnp.zeros_like(numbers_P).at[place_P].set(numbers_P, unique_indices=True)
