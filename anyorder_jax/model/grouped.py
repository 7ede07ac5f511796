"""Rows times matrices, group by group: the one product of the routed experts, with a kernel for every platform."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

BACKENDS = ("tiles", "ragged", "mosaic")


def best_backend(platform: str, dtype: Any) -> str:
    """The back-end of `grouped_dot` on one of `sharding.platform`'s devices."""
    is_narrow = jnp.dtype(dtype).itemsize == 2
    return {"tpu": "ragged", "hopper": "mosaic" if is_narrow else "tiles"}.get(platform, "tiles")


def grouped_dot(
    x_RD: jax.Array, w_EDF: jax.Array, group_sizes_E: jax.Array, tile: int = 1, backend: str = "tiles"
) -> jax.Array:
    """Multiplies each group of rows by its expert's matrix: [R, D], [E, D, F] -> [R, F].

        "tiles"   dense products of `tile` rows, one after another. For a CPU, where `lax.ragged_dot` does E times the
                  work.
        "ragged"  `lax.ragged_dot`: a kernel on a TPU, E masked products elsewhere (on a GPU a dense [E, R, D] buffer).
        "mosaic"  Tokamax's kernel for Hopper (16 bit), by name: its default falls back to the dense expansion silently.

    Args:
      x_RD: rows sorted by expert; R a multiple of `tile`.
      w_EDF: one matrix per expert, x's dtype.
      group_sizes_E: int32, rows of each expert, multiples of `tile`, summing to R or less.
      tile: rows multiplied at once; the others take groups of any size.
      backend: one of the above; see `best_backend`.

    Returns:
      [R, F] in x's dtype. Rows behind the last group are zero with "tiles" and "ragged", anything with "mosaic".

    Raises:
      ValueError: for an unknown back-end.
      ImportError: for "mosaic" without Tokamax (extra `cuda`).
    """
    match backend:
        case "tiles":
            return _tiled(x_RD, w_EDF, group_sizes_E, tile)
        case "ragged":
            return lax.ragged_dot(x_RD, _pinned(w_EDF), group_sizes_E)
        case "mosaic":
            import tokamax  # imported where it is used: nobody else needs it

            return tokamax.ragged_dot(x_RD, _pinned(w_EDF), group_sizes_E, implementation="mosaic_gpu")
    raise ValueError(f"grouped_dot: unknown back-end {backend!r}; known: {', '.join(BACKENDS)}.")


def _pinned(w_EDF: jax.Array) -> jax.Array:
    """The matrices in the order in which they lie in memory. The gradient wants them transposed; without the pin XLA
    transposes the whole stack of layers before the scan (28 GiB more for LLaDA2-mini)."""
    return with_layout_constraint(w_EDF, Layout((0, 1, 2)))


def _tiles(group_sizes_E: jax.Array, tile: int, num_tiles: int) -> tuple[jax.Array, jax.Array]:
    """(expert of each tile, int32 [num_tiles]; how many tiles are there)."""
    end_E = jnp.cumsum(group_sizes_E // tile)
    expert_N = (jnp.arange(num_tiles)[:, None] >= end_E[None]).sum(1, dtype=jnp.int32)
    return expert_N, end_E[-1]


def _tile_of(x: jax.Array, i: jax.Array, tile: int) -> jax.Array:
    return lax.dynamic_slice_in_dim(x, i * tile, tile)


def _put_tile(x: jax.Array, value: jax.Array, i: jax.Array, tile: int) -> jax.Array:
    return lax.dynamic_update_slice_in_dim(x, value.astype(x.dtype), i * tile, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _tiled(x_RD: jax.Array, w_EDF: jax.Array, group_sizes_E: jax.Array, tile: int) -> jax.Array:
    """`grouped_dot` as a loop over the tiles that are there, with dense products of a fixed shape.

    On a CPU as fast as one batched product at 64 dims and 1.2 to 1.8 times faster at 256 (which copies a matrix per
    tile).
    """
    R, F = x_RD.shape[0], w_EDF.shape[2]
    expert_N, num_busy = _tiles(group_sizes_E, tile, R // tile)

    def one(i: jax.Array, y_RF: jax.Array) -> jax.Array:
        return _put_tile(y_RF, _tile_of(x_RD, i, tile) @ w_EDF[expert_N[i]], i, tile)

    return lax.fori_loop(0, num_busy, one, jnp.zeros((R, F), x_RD.dtype))


def _tiled_forward(x_RD: jax.Array, w_EDF: jax.Array, group_sizes_E: jax.Array, tile: int) -> tuple[jax.Array, tuple]:
    return _tiled(x_RD, w_EDF, group_sizes_E, tile), (x_RD, w_EDF, group_sizes_E)


def _tiled_backward(tile: int, saved: tuple, grad_RF: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    x_RD, w_EDF, group_sizes_E = saved
    expert_N, num_busy = _tiles(group_sizes_E, tile, x_RD.shape[0] // tile)

    def one(i: jax.Array, grads: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        grad_x_RD, grad_w_EDF = grads
        e, grad = expert_N[i], _tile_of(grad_RF, i, tile)
        grad_x_RD = _put_tile(grad_x_RD, grad @ w_EDF[e].T, i, tile)
        product = jnp.matmul(_tile_of(x_RD, i, tile).T, grad, preferred_element_type=jnp.float32)
        return grad_x_RD, grad_w_EDF.at[e].add(product)

    zeros = jnp.zeros_like(x_RD), jnp.zeros(w_EDF.shape, jnp.float32)
    grad_x_RD, grad_w_EDF = lax.fori_loop(0, num_busy, one, zeros)
    return grad_x_RD, grad_w_EDF.astype(w_EDF.dtype), None


_tiled.defvjp(_tiled_forward, _tiled_backward)
