"""Digests: a number for an array that every flipped bit changes, the same on every mesh and number of processes.

Saved beside the arrays and compared after reading, they notice what storage does not: a flipped bit inside a
compressed chunk, a missing chunk (read as zeros), a wrong piece.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import jax
import jax.numpy as jnp

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def of_arrays(tree: Any) -> list[int]:
    """A digest per leaf: sum over i of (2 i + 1) bits[i], modulo 2^32, where i counts the elements in C order and bits
    are an element's bits as an unsigned integer (at most 32).

    The weights are odd, so a change of one element always changes the sum; integers add up alike in any order.
    """
    return [int(number) for number in jax.device_get(_sums(jax.tree.leaves(tree)))]


def of_json(value: Any) -> int:
    """CRC-32 of a JSON value, whatever the order of its keys."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


@jax.jit
def _sums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_sum(leaf) for leaf in leaves]


def _sum(x: jax.Array) -> jax.Array:
    bits = x.astype(jnp.uint8) if x.dtype == bool else jax.lax.bitcast_convert_type(x, _UNSIGNED[x.dtype.itemsize])
    index, stride = jnp.zeros(x.shape, jnp.uint32), 1
    for dim in reversed(range(x.ndim)):
        index += jax.lax.broadcasted_iota(jnp.uint32, x.shape, dim) * jnp.uint32(stride % 2**32)
        stride *= x.shape[dim]
    return (bits.astype(jnp.uint32) * (2 * index + 1)).sum(dtype=jnp.uint32)
