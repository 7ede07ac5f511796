"""Filling with a cache: for models of block diffusion, what `decode` writes, computing only the block that is open.

    prefill    | o0 a0 o1 | [action] M M | M M M M |        one pass over the row; finished blocks are kept
    pass 1..n               ^^^^^^^^^^^^                    the open block alone, over what is kept
    then                                   ^^^^^^^          once more with its last tokens: kept; the next block opens

Rows of a batch open and finish their blocks each at its own pace, and all of a batch go through the model until the
last is full. What follows a block is never seen by it, so holes may stand anywhere; a context whose holes are at the
end, a decision, is where the cache saves most. Two shapes are left to `decode.make_fill`: a group of holes filled
together that lies in two of the model's blocks, and groups that are not filled from left to right.
"""

from __future__ import annotations

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


def make_fill(config: Config, model_config: ModelConfig, end_id: int, closing_ids: Sequence[int] = ()) -> Fill:
    """The filling of `decode.make_fill`, with its arguments and results. It is compiled once for each shape.

    The same tokens in as many passes, up to the rounding of another order of sums; with a temperature other draws from
    the same distribution. `passes_B` leaves out what keeps a finished block: one pass over the block each.

    Args:
      config: of the run; its objective is block diffusion, on one device.
      model_config: the model's shape.
      end_id: the end token.
      closing_ids: other tokens that end a unit as well.

    Raises:
      ValueError: for a run of another objective: where everybody sees everybody, a new token changes all keys and
        values, and nothing can be kept.
    """
    if not decode.is_block_causal(config):
        raise ValueError(
            f"cached_decode: expected train.objective = block_diffusion, got {config.train.objective!r}, whose "
            "tokens see those behind them: nothing stays as it was. Use decode.make_fill."
        )
    model = cache.CachedModel(config, model_config)
    uncached = decode.make_fill(config, model_config, end_id, closing_ids=closing_ids)
    size = config.train.block_size

    def cached(
        params: Any, tokens_BL: jax.Array, lengths_B: jax.Array, holes: Holes, allowed_BHV: jax.Array,
        threshold: float, seeds_B: jax.Array, draws: decode.Draws,
    ) -> Filled:  # fmt: skip
        tokens_BS = jnp.pad(tokens_BL, ((0, 0), (0, -tokens_BL.shape[1] % size)))
        B, S = tokens_BS.shape
        rows_B1 = jnp.arange(B)[:, None]
        is_hole_BH = holes.block_BH >= 0
        block_BH = jnp.where(is_hole_BH, holes.place_BH // size, S // size)  # the model's, where `holes` has groups
        hole_BS = jnp.zeros((B, S), jnp.int32).at[rows_B1, jnp.where(is_hole_BH, holes.place_BH, S)].set(
            jnp.arange(holes.place_BH.shape[1], dtype=jnp.int32)[None], mode="drop"
        )  # fmt: skip
        rule = decode.Rule.of(holes, end_id, closing_ids, threshold)
        angles = model.angles(S)

        def one_pass(carry: Any) -> Any:
            is_open_BH, filled, block_B, kept, number = carry
            start_B = block_B * size
            place_BW = start_B[:, None] + jnp.arange(size, dtype=jnp.int32)[None]
            tokens_BW = jnp.take_along_axis(decode.written(tokens_BS, holes, filled.tokens_BH), place_BW, 1)
            block = cache.OpenBlock(tokens_BW, start_B, place_BW < lengths_B[:, None])
            hidden_BWD, own = model.forward(params, block, angles, kept)
            hole_BW = jnp.take_along_axis(hole_BS, place_BW, 1)
            allowed_BWV = allowed_BHV if allowed_BHV.shape[1] == 1 else allowed_BHV[_rows(allowed_BHV), hole_BW]
            logits_BWV = jnp.where(allowed_BWV, transformer.head(params, hidden_BWD), -jnp.inf)
            drawn_BW, sure_BW = decode.drawn(logits_BWV, decode.keys_of(seeds_B, number), draws)
            at_BH = holes.place_BH % size
            is_here_BH = block_BH == block_B[:, None]
            is_asked_B = (is_open_BH & is_here_BH).any(-1)
            drawn_BH, sure_BH = (jnp.take_along_axis(x, at_BH, 1) for x in (drawn_BW, sure_BW))
            is_open_BH, filled = rule.settled(is_open_BH, filled, drawn_BH, sure_BH, is_here_BH)
            next_B = jnp.minimum(jnp.where(is_asked_B, block_B, block_B + 1), S // size - 1)
            return is_open_BH, filled, next_B, cache.updated(kept, own, start_B), number + 1

        is_open_BH, filled = decode.unfilled(tokens_BS, holes)
        first_B = jnp.minimum(block_BH.min(-1), S // size - 1)
        start = (is_open_BH, filled, first_B, model.prefill(params, tokens_BS, lengths_B), jnp.int32(0))
        return jax.lax.while_loop(lambda carry: carry[0].any(), one_pass, start)[1]

    jitted = jax.jit(cached, static_argnums=7)

    def fill(
        params: Any, tokens_BL: Any, lengths_B: Any, holes: Holes, allowed_BHV: Any, threshold: float, seeds_B: Any,
        draws: decode.Draws,
    ) -> Filled:  # fmt: skip
        chosen = jitted if is_block_after_block(holes, size) else uncached
        return chosen(params, tokens_BL, lengths_B, holes, allowed_BHV, threshold, seeds_B, draws)

    return fill


def is_block_after_block(holes: Holes, block_size: int) -> bool:
    """Whether holes are filled from left to right as the model's blocks come, and none together that lie in two."""
    for places_H, groups_H in zip(np.asarray(holes.place_BH), np.asarray(holes.block_BH), strict=True):
        is_hole_H = groups_H >= 0
        groups, blocks = groups_H[is_hole_H], places_H[is_hole_H] // block_size
        order = np.argsort(groups, kind="stable")
        is_new = np.diff(groups[order]) > 0
        step = np.diff(blocks[order])
        if (step < 0).any() or (step[~is_new] != 0).any():
            return False
    return True


def _rows(x: jax.Array) -> jax.Array:
    """Row numbers [B, 1] with which one array's rows are looked up; 0 where one row stands for all."""
    return jnp.arange(x.shape[0])[:, None]
