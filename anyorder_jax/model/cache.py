"""Keys and values of finished blocks: what a block-causal model need not compute again while it writes.

    row        | block 0 | block 1 | block 2 | block 3 |        block 2 is open
    cache        k, v      k, v      .         .                made once: `prefill`
    a pass                           block                      `forward`: its tokens alone, over both

A position sees its own block and the earlier ones (`attention.BlockCausal`), so keys and values of a block depend on
nothing behind it: they are final once it is finished, and passes over a block give what passes over the row give.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from anyorder_jax.config import Config, LoRAConfig
from anyorder_jax.model import lora
from anyorder_jax.model.attention import Attention, BlockCausal, Segments, attend
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.model.layers import Rotary, rms_norm, rotary
from anyorder_jax.model.transformer import MAX_UNROLLED_LAYERS, LLaDA2, Params

Heads = tuple[jax.Array, jax.Array]
"""Keys and values of a stack of layers, [N, B, K, S, C] each in the compute dtype."""

Cache = dict[str, Heads]
"""By the stack's name in the tree, `dense` and `moe`; S positions, a multiple of the block size."""

Mix = Callable[[jax.Array, jax.Array, jax.Array, Any], jax.Array]
"""(q [B, W, H, C], k and v [B, W, K, C], the layer's keys and values in the cache) -> [B, W, H, C]."""


class OpenBlock(NamedTuple):
    """An open block of each row. tokens_BW: int32 [B, W], W the block size. start_B: int32 [B], its first position, a
    multiple of W. is_real_BW: bool [B, W], no padding."""

    tokens_BW: jax.Array
    start_B: jax.Array
    is_real_BW: jax.Array


class CachedModel:
    """The model's passes over whole rows, which fill a cache, and over open blocks, which read it. On one device.

    Args:
      config: of the run: compute type, LoRA and `train.block_size`.
      model_config: the model's shape.
      is_full: everybody sees everybody. Then no keys and values are final, and passes over an open window read those
        of an earlier state (`prefix_decode`).

    Raises:
      ValueError: for blocks that `ModelConfig.refuse_straddling` refuses.
    """

    def __init__(self, config: Config, model_config: ModelConfig, is_full: bool = False) -> None:
        if not is_full:
            model_config.refuse_straddling(config.train.block_size)
        self.block_size, self._is_full = config.train.block_size, is_full
        self._model_config, self._lora = model_config, config.lora
        self._dtype = jnp.dtype(config.model.compute_dtype)

    def angles(self, num_positions: int) -> Rotary:
        """Rotary angles of the positions 0 to `num_positions` - 1, [1, S, 1, R] each."""
        positions_1S = jnp.arange(num_positions, dtype=jnp.int32)[None]
        return rotary(positions_1S, self._model_config.rotary_dim, self._model_config.rope_theta, self._dtype)

    def prefill(self, params: Params, tokens_BS: jax.Array, lengths_B: jax.Array) -> Cache:
        """Keys and values of all positions by one pass over the rows. Those of blocks that are not finished stand for
        nothing, and are replaced by `updated` before anybody reads them.

        Args:
          params: the model's tree.
          tokens_BS: int32 [B, S], S a multiple of the block size (if not `is_full`).
          lengths_B: int32 [B], tokens of each row.
        """
        B, S = tokens_BS.shape
        ids_BS = (jnp.arange(S, dtype=jnp.int32)[None] < lengths_B[:, None]).astype(jnp.int32)
        attention: Attention = Segments(ids_BS) if self._is_full else BlockCausal(self.block_size, ids_BS)
        angles = Rotary(*(jnp.broadcast_to(x, (B, *x.shape[1:])) for x in self.angles(S)))

        def mix(q: jax.Array, k: jax.Array, v: jax.Array, _: Any) -> jax.Array:
            return attend(q, k, v, attention)

        nobody_BS = jnp.zeros(tokens_BS.shape, bool)
        return self._layers(params, tokens_BS, angles, attention, nobody_BS, mix, {})[1]

    def forward(self, params: Params, block: OpenBlock, angles: Rotary, cache: Cache) -> tuple[jax.Array, Cache]:
        """A pass over one block of each row, as the pass over the whole rows computes it.

        Args:
          params: the model's tree.
          block: the blocks.
          angles: of the cache's positions, of `angles`.
          cache: those of earlier blocks are read.

        Returns:
          (hidden [B, W, D] after the final norm, the block's own keys and values, S = W).
        """
        tokens_BW, start_B, is_real_BW = block
        place_BW = start_B[:, None] + jnp.arange(tokens_BW.shape[1], dtype=jnp.int32)[None]
        here = Rotary(*(x[0][place_BW] for x in angles))
        attention = Segments(is_real_BW.astype(jnp.int32))
        own_BWW = is_real_BW[:, :, None] == is_real_BW[:, None, :]

        def mix(q: jax.Array, k: jax.Array, v: jax.Array, kept: Heads) -> jax.Array:
            is_before_BS = jnp.arange(kept[0].shape[2])[None] < start_B[:, None]
            return _mixed(q, k, v, kept, is_before_BS, own_BWW)

        return self._layers(params, tokens_BW, here, attention, None, mix, cache)

    def _layers(
        self, params: Params, tokens_BW: jax.Array, angles: Rotary, attention: Attention,
        is_asked_BW: jax.Array | None, mix: Mix, cache: Cache,
    ) -> tuple[jax.Array, Cache]:  # fmt: skip
        """`transformer.hidden` with another attention: (hidden after the final norm, keys and values)."""
        config, lora_config = self._model_config, self._lora
        declared, factors = LLaDA2(config, self._dtype), lora.factors(params, lora_config)
        x_BWD = params["embedding"][tokens_BW].astype(self._dtype)
        made: Cache = {}
        for name in [stack for stack in ("dense", "moe") if stack in params]:
            layers = getattr(declared, name)
            graphdef, _ = nnx.split(layers)
            is_last_N = jnp.arange(layers.num_layers) == (layers.num_layers - 1 if name == "moe" else -1)

            def one(x_BWD: jax.Array, own: Any, graphdef: Any = graphdef) -> tuple[jax.Array, Heads]:
                weights, own_factors, is_last, kept = own
                layer, pairs = _layer(graphdef, weights, own_factors, lora_config, self._dtype)
                q, k, v = layer.heads(rms_norm(x_BWD, layer.input_norm[...], config.rms_norm_eps), angles, pairs)
                x_BWD = x_BWD + layer.joined(mix(q, k, v, kept), pairs)
                normed = rms_norm(x_BWD, layer.post_attention_norm[...], config.rms_norm_eps)
                is_needed = None if is_asked_BW is None else is_asked_BW | ~is_last
                y_BWD, _, _ = layer.feed_forward(normed, attention, None, pairs, is_needed)
                return x_BWD + y_BWD, (k.swapaxes(1, 2), v.swapaxes(1, 2))

            unroll = layers.num_layers if layers.num_layers <= MAX_UNROLLED_LAYERS else 1
            own = (params[name], getattr(factors, name), is_last_N, cache.get(name))
            x_BWD, made[name] = jax.lax.scan(one, x_BWD, own, unroll=unroll)
        return rms_norm(x_BWD, params["final_norm"], config.rms_norm_eps), made


def updated(cache: Cache, own: Cache, start_B: jax.Array) -> Cache:
    """The cache with a block's keys and values at its place.

    Args:
      cache: [N, B, K, S, C].
      own: [N, B, K, W, C], of `CachedModel.forward`.
      start_B: int32 [B], the first position of each row's block.
    """

    def placed(kept_NKSC: jax.Array, own_NKWC: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(kept_NKSC, own_NKWC, start, axis=2)

    by_row = jax.vmap(placed, in_axes=(1, 1, 0), out_axes=1)
    return jax.tree.map(lambda kept, new: by_row(kept, new, start_B), cache, own)


def _layer(graphdef: Any, weights: Params, factors: Params, lora_config: LoRAConfig, dtype: Any) -> tuple[Any, Any]:
    """A layer of a stack with its own weights, and LoRA's factors of them."""
    return nnx.merge(graphdef, lora.widen(weights, dtype)), lora.pairs(factors, lora_config, dtype)


def _mixed(
    q_BWHC: jax.Array, k_BWKC: jax.Array, v_BWKC: jax.Array, kept: Heads, is_before_BS: jax.Array, own_BWW: jax.Array
) -> jax.Array:
    """One softmax over the cached positions before the block and those of the block: [B, W, H, C].

    Args:
      q_BWHC, k_BWKC, v_BWKC: the block's.
      kept: the cache's, [B, K, S, C] each.
      is_before_BS: bool, cached positions that are seen.
      own_BWW: bool, who of the block sees whom.
    """
    B, W, H, C = q_BWHC.shape
    k_BKSC, v_BKSC = kept
    K, G = k_BKSC.shape[1], H // k_BKSC.shape[1]
    q_BKMC = q_BWHC.reshape(B, W, K, G, C).transpose(0, 2, 3, 1, 4).reshape(B, K, G * W, C)
    k_BKWC, v_BKWC = k_BWKC.swapaxes(1, 2), v_BWKC.swapaxes(1, 2)
    own_BMW = jnp.tile(own_BWW, (1, G, 1))
    scores = [
        jnp.where(can_see, _dot("bkmc,bksc->bkms", q_BKMC, k) / C**0.5, -jnp.inf)
        for k, can_see in ((k_BKSC, is_before_BS[:, None, None]), (k_BKWC, own_BMW[:, None]))
    ]
    top_BKM1 = jnp.maximum(*(x.max(-1, keepdims=True) for x in scores))
    exp = [jnp.exp(x - top_BKM1) for x in scores]
    total_BKM1 = sum(x.sum(-1, keepdims=True) for x in exp)
    mixed = sum(_dot("bkms,bksc->bkmc", x.astype(v.dtype), v) for x, v in zip(exp, (v_BKSC, v_BKWC), strict=True))
    mixed_BKMC = (jnp.asarray(mixed) / total_BKM1).astype(q_BWHC.dtype)
    return mixed_BKMC.reshape(B, K, G, W, C).transpose(0, 3, 1, 2, 4).reshape(B, W, H, C)


def _dot(pattern: str, *x: jax.Array) -> jax.Array:
    return jnp.einsum(pattern, *x, preferred_element_type=jnp.float32)
