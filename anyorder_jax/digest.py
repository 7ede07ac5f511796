"""Digests: a number for an array that every flipped bit changes, the same on every mesh and number of processes.

Saved beside the arrays and compared after reading, they notice what storage does not: a flipped bit inside a
compressed chunk, a missing chunk (read as zeros), a wrong piece.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def of_arrays(tree: Any) -> list[int]:
    """A digest per leaf: sum over i of (2 i + 1) bits[i], modulo 2^32, where i counts the elements in C order and bits
    are an element's bits as an unsigned integer (at most 32).

    The weights are odd, so a change of one element always changes the sum; integers add up alike in any order.
    """
    leaves = jax.tree.leaves(tree)
    if any(map(_waits_on_host, leaves)):  # one after another: together they may not fit the devices
        return [int(jax.device_get(_sums([_fetched(leaf)])[0])) for leaf in leaves]
    return [int(number) for number in jax.device_get(_sums(leaves))]


def _waits_on_host(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and leaf.sharding.memory_kind == "pinned_host"


def _fetched(leaf: Any) -> Any:
    return jax.device_put(leaf, leaf.sharding.with_memory_kind("device")) if _waits_on_host(leaf) else leaf


def of_part(part: np.ndarray, index: Sequence[slice], shape: Sequence[int]) -> int:
    """What the part `index` of an array of this shape adds to the array's digest: those of all parts sum to it.

    Row by row along the last dim, where i = first + k: sum (2 i + 1) bits = (2 first + 1) sum bits + 2 sum k bits.
    """
    bits = part.view(f"u{part.itemsize}")
    first, stride = np.zeros((), np.uint32), 1  # of each row, wherever it lies
    for dim in reversed(range(part.ndim)):
        if dim == part.ndim - 1:
            first = first + np.uint32(index[dim].start % 2**32)
        else:
            steps = np.arange(index[dim].start, index[dim].stop, dtype=np.uint64) * np.uint64(stride % 2**32)
            first = first + steps.astype(np.uint32).reshape(-1, *(1,) * (part.ndim - 2 - dim))
        stride *= shape[dim]
    weighted = np.einsum("...n,n->...", bits, np.arange(part.shape[-1], dtype=np.uint32), dtype=np.uint32)
    with np.errstate(over="ignore"):  # modulo 2^32 is meant
        rows = (2 * first + np.uint32(1)) * bits.sum(-1, dtype=np.uint32) + np.uint32(2) * weighted
    return int(rows.sum(dtype=np.uint32))


def of_json(value: Any) -> int:
    """CRC-32 of a JSON value, whatever the order of its keys."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def wrong_items(found: Mapping[str, Any], meta: Mapping[str, Any]) -> list[str]:
    """Of the items whose digests are given, those that a checkpoint's `meta` remembers as others; none for the first
    checkpoints, which had no digests."""
    written = meta.get("digests", {})
    return [item for item, digests in found.items() if item in written and digests != written[item]]


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
