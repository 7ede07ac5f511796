"""Filling that reuses what stands before the holes: faster, and not what the model was trained to compute.

    unit 1     prefix . . . . . . . | M M M M [action] M M M M       one pass over the row: keys and values are kept
    pass 1..n                         ^^^^^^^^^^^^^^^^^^^^^^^^       the rest alone, over those of the prefix
    unit 2     prefix . . . . . . . | It is 3 E [action] M M M M     the next unit: once more

With full attention a new token changes the keys and values of all others. Here those of the prefix, all before the
first hole, stay as they were when the unit was opened, with its hole masked; the passes read them as they are. The
first pass of each unit is exact, the later ones are an approximation, which nothing bounds: off unless asked for.
`docs/decoding.md` says what it was measured to cost. With block diffusion the same is exact (`cached_decode`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anyorder_jax import decode
from anyorder_jax.config import Config
from anyorder_jax.decode import Fill, Filled, Holes
from anyorder_jax.model import cache, transformer
from anyorder_jax.model.config import ModelConfig

MIN_WINDOW = 32
"""Windows have this many tokens, or twice, four times, ... as many, so that few shapes are compiled."""


def make_fill(config: Config, model_config: ModelConfig, end_id: int, closing_ids: Sequence[int] = ()) -> Fill:
    """A filling with the arguments and results of `decode.make_fill`, compiled once for each shape. `passes_B` leaves
    out what computes the prefix: one pass over the row for each unit. Where more than half of a row would be computed
    in each pass, as with holes far from its end, `decode.make_fill` itself fills.

    Args:
      config: of the run; its objective is not block diffusion, and it is on one device.
      model_config: the model's shape.
      end_id: the end token.
      closing_ids: other tokens that end a unit as well.
    """
    assert not decode.is_block_causal(config), "cached_decode is exact"
    exact = decode.make_fill(config, model_config, end_id, closing_ids=closing_ids)
    step = _step(model_config)

    @functools.cache
    def jitted(width: int) -> Any:
        return jax.jit(_make_windowed(config, model_config, end_id, closing_ids, width), static_argnums=7)

    def fill(
        params: Any, tokens_BL: Any, lengths_B: Any, holes: Holes, allowed_BHV: Any, threshold: float, seeds_B: Any,
        draws: decode.Draws,
    ) -> Filled:  # fmt: skip
        given = (params, tokens_BL, lengths_B, holes, allowed_BHV, threshold, seeds_B, draws)
        width = window(np.asarray(lengths_B), holes, step)
        return jitted(width)(*given) if 2 * width <= tokens_BL.shape[1] else exact(*given)

    return fill


def window(lengths_B: np.ndarray, holes: Holes, step: int) -> int:
    """Tokens that a pass computes: from the first hole of each row to its end, in the longest of the rows.

    Args:
      lengths_B: int [B], tokens of each row.
      holes: of the batch.
      step: a window begins at a multiple of it.
    """
    place_BH, block_BH = np.asarray(holes.place_BH), np.asarray(holes.block_BH)
    first_B = np.where(block_BH >= 0, place_BH, np.iinfo(np.int32).max).min(-1)
    most = int(np.maximum(lengths_B - first_B // step * step, 1).max())
    return MIN_WINDOW << max(-(-most // MIN_WINDOW) - 1, 0).bit_length()


def _step(model_config: ModelConfig) -> int:
    """Where a window may begin: where the tokens that choose experts together begin."""
    return model_config.block_size or 1 if model_config.expert_capacity is not None else 1


def _make_windowed(
    config: Config, model_config: ModelConfig, end_id: int, closing_ids: Sequence[int], width: int
) -> Any:
    model = cache.CachedModel(config, model_config, is_full=True)
    step = _step(model_config)

    def windowed(
        params: Any, tokens_BL: jax.Array, lengths_B: jax.Array, holes: Holes, allowed_BHV: jax.Array,
        threshold: float, seeds_B: jax.Array, draws: decode.Draws,
    ) -> Filled:  # fmt: skip
        L = tokens_BL.shape[1]
        first_B = jnp.where(holes.block_BH >= 0, holes.place_BH, L).min(-1)
        start_B = jnp.minimum(first_B, L - width) // step * step
        place_BW = start_B[:, None] + jnp.arange(width, dtype=jnp.int32)[None]
        at_BH = jnp.clip(holes.place_BH - start_B[:, None], 0, width - 1)
        rule = decode.Rule.of(holes, end_id, closing_ids, threshold)
        angles = model.angles(L)

        def refreshed(tokens_BL: jax.Array, kept: cache.Cache, is_new_B: jax.Array) -> cache.Cache:
            new = model.prefill(params, tokens_BL, lengths_B)
            return jax.tree.map(lambda a, b: jnp.where(is_new_B[None, :, None, None, None], a, b), new, kept)

        def one_pass(carry: Any) -> Any:
            is_open_BH, filled, kept, unit_B, number = carry
            tokens_now_BL = decode.written(tokens_BL, holes, filled.tokens_BH)
            lowest_BH = jnp.where(is_open_BH, holes.block_BH, jnp.iinfo(jnp.int32).max)
            now_B = jnp.take_along_axis(holes.unit_BH, lowest_BH.argmin(-1, keepdims=True), 1)[:, 0]
            now_B = jnp.where(is_open_BH.any(-1), now_B, unit_B)
            is_new_B = now_B != unit_B
            kept = jax.lax.cond(is_new_B.any(), refreshed, lambda _, kept, __: kept, tokens_now_BL, kept, is_new_B)
            tokens_BW = jnp.take_along_axis(tokens_now_BL, place_BW, 1)
            block = cache.OpenBlock(tokens_BW, start_B, place_BW < lengths_B[:, None])
            hidden_BWD, _ = model.forward(params, block, angles, kept)
            hidden_BHD = jnp.take_along_axis(hidden_BWD, at_BH[..., None], axis=1)
            logits_BHV = jnp.where(allowed_BHV, transformer.head(params, hidden_BHD), -jnp.inf)
            found = decode.drawn(logits_BHV, decode.keys_of(seeds_B, number), draws)
            is_open_BH, filled = rule.settled(is_open_BH, filled, *found)
            return is_open_BH, filled, kept, now_B, number + 1

        shapes = jax.eval_shape(model.prefill, params, tokens_BL, lengths_B)
        empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        nothing_B = jnp.full(len(tokens_BL), -1, jnp.int32)
        start = (*decode.unfilled(tokens_BL, holes), empty, nothing_B, jnp.int32(0))
        return jax.lax.while_loop(lambda carry: carry[0].any(), one_pass, start)[1]

    return windowed
