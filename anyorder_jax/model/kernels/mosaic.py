"""The routed experts' products on Hopper, in 16 bits: Tokamax's kernel for rows times matrices, ours for the gradient
of the matrices.

Tokamax 0.0.17 has a kernel for that gradient too. On an H200 it gave other bits at every call and was wrong by up to
44% of the largest value (docs/gpu.md). By its source it keeps an operand of a product in registers and fills them for
the next one while the first may still run; that this is the cause was not shown. Ours keeps both operands in shared
memory.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

BLOCK_ROWS = 64
"""Rows that one step of the gradient takes: the rows of a product are filled up to a multiple of it."""
TILES = (128, 64)
"""Rows and columns of a matrix that one block of threads makes: the largest that divides them; sides that none divides
are filled up."""
LARGE = 512
"""Sides from which on matrices get the tiles that were measured."""
NUM_STAGES = 3
"""Pairs of tiles on their way: three leave room for two blocks of threads on a multiprocessor."""


@jax.custom_vjp
def mosaic_dot(x_RD: jax.Array, w_EDF: jax.Array, group_sizes_E: jax.Array) -> jax.Array:
    """As `grouped.grouped_dot`, for arrays of 16 bits; R a multiple of `BLOCK_ROWS`. Rows behind the last group hold
    anything, also in the gradient of x."""
    return _rows_times_matrices(x_RD, w_EDF, group_sizes_E)


def _forward(x_RD: jax.Array, w_EDF: jax.Array, group_sizes_E: jax.Array) -> tuple[jax.Array, tuple]:
    return mosaic_dot(x_RD, w_EDF, group_sizes_E), (x_RD, w_EDF, group_sizes_E)


def _backward(saved: tuple, grad_RF: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    x_RD, w_EDF, group_sizes_E = saved
    grad_RD = _rows_times_matrices(grad_RF, w_EDF.mT, group_sizes_E)
    return grad_RD, gradient_of_matrices(x_RD, grad_RF, group_sizes_E), None


mosaic_dot.defvjp(_forward, _backward)


def _rows_times_matrices(x_RD: jax.Array, w_EDF: jax.Array, group_sizes_E: jax.Array) -> jax.Array:
    """Tokamax's kernel by name: its default falls back to a dense expansion silently. On cards that it has no measured
    sizes for (an H200) it takes small tiles; these are its own for an H100 and matrices like ours."""
    import tokamax  # imported where they are used: nobody else needs them
    from tokamax._src.ops.ragged_dot import pallas_mosaic_gpu

    config = None
    if min(w_EDF.shape[1:]) >= LARGE:
        is_long = w_EDF.shape[1] >= 1536
        config = pallas_mosaic_gpu.Config(
            block_m=128, block_n=64, block_k=128, num_stages=4 if is_long else 2, split_k=1, persistent=False,
            grid_minor_dim=int(is_long), grid_tile_width=8 if is_long else 1,
        )  # fmt: skip
    kernel = pallas_mosaic_gpu.PallasMosaicGpuRaggedDot(config=config)
    return tokamax.ragged_dot(x_RD, w_EDF, group_sizes_E, implementation=(kernel,))


def gradient_of_matrices(
    x_RD: jax.Array, grad_RF: jax.Array, group_sizes_E: jax.Array, interpret: Any = None
) -> jax.Array:
    """Each group's x^T grad, in float32 inside: [R, D], [R, F] -> [E, D, F] in x's dtype; 0 for a group of no rows.

    A block of threads makes one tile of one expert's matrix. It walks over the group's rows in steps of `BLOCK_ROWS`
    from a multiple of it; what belongs to others in the first and the last step is set to 0 in shared memory, in both
    operands (rows of nobody may hold NaN).

    Args:
      x_RD: bfloat16 or float16, R a multiple of `BLOCK_ROWS`.
      grad_RF: x's dtype.
      group_sizes_E: int32, of any size, summing to R or less.
      interpret: `InterpretGPUParams` to run on a CPU, slowly.

    Raises:
      ValueError: for another number of rows.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import mosaic_gpu as plgpu

    R, (E,) = x_RD.shape[0], group_sizes_E.shape
    if R % BLOCK_ROWS:
        raise ValueError(f"grouped_dot, mosaic: expected a multiple of {BLOCK_ROWS} rows, got {R}.")
    sides = x_RD.shape[1], grad_RF.shape[1]
    x_RD, grad_RF = (jnp.pad(a, ((0, 0), (0, -a.shape[1] % TILES[-1]))) for a in (x_RD, grad_RF))
    D, F = x_RD.shape[1], grad_RF.shape[1]
    tile_d, tile_f = (next(tile for tile in TILES if side % tile == 0) for side in (D, F))
    transforms = plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128)

    def body(start_E: Any, end_E: Any, x_ref: Any, grad_ref: Any, out_ref: Any) -> None:
        d, f, e = (jax.lax.axis_index(name) for name in ("d", "f", "e"))
        start, end = start_E[e], end_E[e]
        first = jax.lax.div(start, BLOCK_ROWS)
        steps = jnp.where(end > start, jax.lax.div(end + BLOCK_ROWS - 1, BLOCK_ROWS) - first, 0)

        def keep_own(ref: Any, row: jax.Array) -> None:
            place = row + plgpu.broadcasted_iota(jnp.int32, ref.shape, 0, layout=plgpu.Layout.WGMMA)
            is_own = (place >= start) & (place < end)
            ref[...] = jnp.where(is_own, ref[...], jnp.zeros((), ref.dtype))

        def total(sum_ref: Any) -> jax.Array:
            def step(index: Any, x_tile: Any, grad_tile: Any) -> None:
                row = (first + index[0]) * BLOCK_ROWS

                @pl.when((row < start) | (row + BLOCK_ROWS > end))
                def _edge() -> None:
                    keep_own(x_tile, row)
                    keep_own(grad_tile, row)
                    plgpu.commit_smem()

                plgpu.wgmma(sum_ref, plgpu.transpose_ref(x_tile, (1, 0)), grad_tile)
                plgpu.wgmma_wait(1)  # the product before this one is done: its tiles may be filled again

            spec = functools.partial(plgpu.BlockSpec, transforms=transforms, delay_release=1)
            plgpu.emit_pipeline(
                step,
                grid=(steps,),
                in_specs=[
                    spec((BLOCK_ROWS, tile_d), lambda n: (first + n, d)),
                    spec((BLOCK_ROWS, tile_f), lambda n: (first + n, f)),
                ],
                max_concurrent_steps=NUM_STAGES,
            )(x_ref, grad_ref)
            return sum_ref[...]

        found = pl.run_scoped(total, plgpu.ACC((tile_d, tile_f)))

        @functools.partial(pl.run_scoped, out_tile=plgpu.SMEM((tile_d, tile_f), out_ref.dtype, transforms=transforms))
        def _store(out_tile: Any) -> None:
            out_tile[...] = found.astype(out_tile.dtype)
            plgpu.commit_smem()
            place = pl.ds(d * tile_d, tile_d), pl.ds(f * tile_f, tile_f)
            plgpu.copy_smem_to_gmem(out_tile, out_ref.at[(e, *place)])
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)

    end_E = jnp.cumsum(group_sizes_E.astype(jnp.int32))
    kernel = plgpu.kernel(
        body,
        out_type=jax.ShapeDtypeStruct((E, D, F), x_RD.dtype),
        grid=(D // tile_d, F // tile_f, E),
        grid_names=("d", "f", "e"),
        kernel_name="gradient_of_matrices",
        interpret=interpret,
    )
    return kernel(end_E - group_sizes_E, end_E, x_RD, grad_RF)[:, : sides[0], : sides[1]]
