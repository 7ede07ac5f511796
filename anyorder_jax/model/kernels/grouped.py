"""Rows times matrices, group by group: the one product of the routed experts, with a kernel for every platform."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

BACKENDS = ("pieces", "tiles", "ragged", "mosaic")


def best_backend(platform: str, dtype: Any) -> str:
    """The back-end of `grouped_dot` on one of `sharding.platform`'s devices."""
    is_narrow = jnp.dtype(dtype).itemsize == 2
    choices = {"cpu": "pieces", "tpu": "ragged", "hopper": "mosaic" if is_narrow else "tiles"}
    return choices.get(platform, "tiles")


def grouped_dot(
    x_RD: jax.Array, w_EDF: jax.Array, group_sizes_E: jax.Array, tile: int = 1, backend: str = "tiles"
) -> jax.Array:
    """Multiplies each group of rows by its expert's matrix: [R, D], [E, D, F] -> [R, F].

        "tiles"   dense products of `tile` rows, one after another. Runs everywhere, where `lax.ragged_dot` may do E
                  times the work.
        "pieces"  the same with small tiles, as products of 8, 4, 2 and 1 of them. For a CPU: a tenth faster.
        "ragged"  `lax.ragged_dot`: a kernel on a TPU, E masked products elsewhere (on a GPU a dense [E, R, D] buffer).
        "mosaic"  kernels for Hopper, 16 bit (`mosaic.py`).

    Args:
      x_RD: rows sorted by expert; R a multiple of `tile`.
      w_EDF: one matrix per expert, x's dtype.
      group_sizes_E: int32, rows of each expert, multiples of `tile`, summing to R or less.
      tile: what groups are rounded up to, in rows; the others take groups of any size.
      backend: one of the above; see `best_backend`.

    Returns:
      [R, F] in x's dtype. Rows behind the last group are zero, with "mosaic" anything.

    Raises:
      ValueError: for an unknown back-end.
      ImportError: for "mosaic" without Tokamax (extra `cuda`).
    """
    match backend:
        case "tiles":
            return _tiled(x_RD, w_EDF, group_sizes_E, (tile,))
        case "pieces":
            return _tiled(x_RD, w_EDF, group_sizes_E, (8 * tile, 4 * tile, 2 * tile, tile))
        case "ragged":
            return lax.ragged_dot(x_RD, _pinned(w_EDF), group_sizes_E)
        case "mosaic":
            from anyorder_jax.model.kernels import mosaic  # where it is used: nobody else needs it

            rows = x_RD.shape[0]
            x_RD = jnp.pad(x_RD, ((0, -rows % mosaic.BLOCK_ROWS), (0, 0)))  # behind the last group
            return mosaic.mosaic_dot(x_RD, _pinned(w_EDF), group_sizes_E)[:rows]
    raise ValueError(f"grouped_dot: unknown back-end {backend!r}; known: {', '.join(BACKENDS)}.")


def _pinned(w_EDF: jax.Array) -> jax.Array:
    """The matrices in the order in which they lie in memory. The gradient wants them transposed; without the pin XLA
    transposes the whole stack of layers before the scan (28 GiB more for LLaDA2-mini)."""
    return with_layout_constraint(w_EDF, Layout((0, 1, 2)))


class Pieces(NamedTuple):
    """Products of the same number of rows: their experts and first rows, int32 [N], of which the first `number`
    are there."""

    rows: int
    expert_N: jax.Array
    first_N: jax.Array
    number: jax.Array


def _pieces(group_sizes_E: jax.Array, sizes: Sequence[int], num_rows: int) -> list[Pieces]:
    """Cuts every group into pieces of the first size, and the rest into pieces of the others.

        sizes 8, 4, 2, 1: a group of 21 rows    | 8 | 8 | 4 | 1 |

    Large pieces multiply faster, small ones leave fewer empty rows.

    Args:
      sizes: in rows, each the next one's double. Groups are multiples of the last one.
    """
    (E,) = group_sizes_E.shape
    start_E, rest_E = jnp.cumsum(group_sizes_E) - group_sizes_E, group_sizes_E
    found = []
    for rows in sizes:
        count_E = rest_E // rows
        end_E = jnp.cumsum(count_E)
        n_N = jnp.arange(num_rows // rows if rows == sizes[0] else min(num_rows // rows, E), dtype=jnp.int32)
        expert_N = (n_N[:, None] >= end_E[None]).sum(1, dtype=jnp.int32)
        first_N = start_E[expert_N] + (n_N - (end_E - count_E)[expert_N]) * rows
        if n_N.size:
            found.append(Pieces(rows, expert_N, first_N, end_E[-1]))
        start_E, rest_E = start_E + count_E * rows, rest_E - count_E * rows
    return found


def _put(x: jax.Array, value: jax.Array, first: jax.Array) -> jax.Array:
    return lax.dynamic_update_slice_in_dim(x, value.astype(x.dtype), first, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _tiled(x_RD: jax.Array, w_EDF: jax.Array, group_sizes_E: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """`grouped_dot` as loops over the pieces that are there, with dense products of a fixed shape.

    On a CPU as fast as one batched product at 64 dims and 1.2 to 1.8 times faster at 256 (which copies a matrix per
    tile).
    """
    y_RF = jnp.zeros((x_RD.shape[0], w_EDF.shape[2]), x_RD.dtype)
    for pieces in _pieces(group_sizes_E, sizes, x_RD.shape[0]):

        def one(n: jax.Array, y_RF: jax.Array, pieces: Pieces = pieces) -> jax.Array:
            first = pieces.first_N[n]
            rows = lax.dynamic_slice_in_dim(x_RD, first, pieces.rows)
            return _put(y_RF, rows @ w_EDF[pieces.expert_N[n]], first)

        y_RF = lax.fori_loop(0, pieces.number, one, y_RF)
    return y_RF


def _tiled_forward(
    x_RD: jax.Array, w_EDF: jax.Array, group_sizes_E: jax.Array, sizes: tuple[int, ...]
) -> tuple[jax.Array, tuple]:
    return _tiled(x_RD, w_EDF, group_sizes_E, sizes), (x_RD, w_EDF, group_sizes_E)


def _tiled_backward(sizes: tuple[int, ...], saved: tuple, grad_RF: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    x_RD, w_EDF, group_sizes_E = saved
    grads = jnp.zeros_like(x_RD), jnp.zeros(w_EDF.shape, jnp.float32)
    for pieces in _pieces(group_sizes_E, sizes, x_RD.shape[0]):

        def one(
            n: jax.Array, grads: tuple[jax.Array, jax.Array], pieces: Pieces = pieces
        ) -> tuple[jax.Array, jax.Array]:
            grad_x_RD, grad_w_EDF = grads
            e, first = pieces.expert_N[n], pieces.first_N[n]
            rows, grad = (lax.dynamic_slice_in_dim(x, first, pieces.rows) for x in (x_RD, grad_RF))
            product = jnp.matmul(rows.T, grad, preferred_element_type=jnp.float32)
            return _put(grad_x_RD, grad @ w_EDF[e].T, first), grad_w_EDF.at[e].add(product)

        grads = lax.fori_loop(0, pieces.number, one, grads)
    grad_x_RD, grad_w_EDF = grads
    return grad_x_RD, grad_w_EDF.astype(w_EDF.dtype), None


_tiled.defvjp(_tiled_forward, _tiled_backward)
