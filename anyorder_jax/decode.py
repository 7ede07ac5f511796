"""Filling hidden tokens on the device: block by block, a few at a time, surest first (LLaDA2.0 report, section 6).

    hole       M  M  M  M | M  M  M  M        two blocks of 4; E is the end token
    pass 1    buy M  M  M | M  M  M  M        what is surer than `threshold`, and the surest one at least
    pass 2    buy a mug M | M  M  M  M        only the first block that is open
    pass 3    buy a mug E | E  E  E  E        an end with all before it fixed ends the unit: the rest is filled at once

An end token is not accepted while anything before it in its unit is open: it would cut off what is not yet written
(LLaDA, `confidence_eos_eot_inf`). No logits leave the device, and only hidden positions go through the head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from anyorder_jax.config import Config
from anyorder_jax.model import transformer
from anyorder_jax.model.attention import Attention, BlockCausal, Segments
from anyorder_jax.model.config import ModelConfig


class Holes(NamedTuple):
    """The hidden positions of each row, in order, int32 [B, H] each. place_BH: position in the row, not 0 (a row begins
    with a frame). unit_BH: number of the unit that it belongs to. block_BH: blocks are filled one after another; a
    negative one is no hole (padding, place 0)."""

    place_BH: Any
    unit_BH: Any
    block_BH: Any


class Filled(NamedTuple):
    """tokens_BH: int32 [B, H]. probability_BH: float32 [B, H], what the model gave each token when it was accepted (1
    for the ends after a unit's first). passes_B: int32 [B], forward passes until the row was full."""

    tokens_BH: Any
    probability_BH: Any
    passes_B: Any


class Draws(NamedTuple):
    """How a token is drawn. temperature: 0 takes the likeliest, 1 draws from the distribution. top_p: share of the
    probability, in (0, 1], that the likeliest tokens must hold together; the others are not drawn."""

    temperature: float = 0.0
    top_p: float = 1.0


LIKELIEST = Draws()

Fill = Callable[..., Filled]
"""fill(params, tokens_BL, lengths_B, holes, allowed_BHV, threshold, seeds_B, draws) -> Filled."""


class Rule(NamedTuple):
    """What of a pass is accepted, for all rows of a batch. is_before_BHH: bool [b, i, j], hole j before i in its unit.
    end_ids: what ends a unit. threshold: probability from which a token is accepted."""

    holes: Holes
    is_before_BHH: jax.Array
    end_id: int
    end_ids: np.ndarray
    threshold: Any

    @classmethod
    def of(cls, holes: Holes, end_id: int, closing_ids: Sequence[int], threshold: Any) -> Rule:
        """The rule for these holes.

        Args:
          holes: of the batch.
          end_id, closing_ids, threshold: as in `make_fill`.
        """
        is_before_BHH = (holes.unit_BH[:, :, None] == holes.unit_BH[:, None, :]) & (holes.block_BH >= 0)[:, None, :]
        is_before_BHH &= jnp.tri(holes.place_BH.shape[1], k=-1, dtype=bool)[None]
        return cls(holes, is_before_BHH, end_id, np.unique([end_id, *closing_ids]), threshold)

    def settled(
        self, is_open_BH: jax.Array, filled: Filled, drawn_BH: jax.Array, sure_BH: jax.Array,
        is_shown_BH: jax.Array | bool = True,
    ) -> tuple[jax.Array, Filled]:  # fmt: skip
        """(what is open, what is filled) after a pass.

        Args:
          is_open_BH: bool, holes that were open.
          filled: what they held.
          drawn_BH, sure_BH: of `drawn`.
          is_shown_BH: bool, holes of which the pass computed something (True: of all).
        """
        block_B1 = jnp.where(is_open_BH, self.holes.block_BH, jnp.iinfo(jnp.int32).max).min(-1, keepdims=True)
        has_open_before_BH = (self.is_before_BHH & is_open_BH[:, None, :]).any(-1)
        may_BH = is_open_BH & (self.holes.block_BH == block_B1) & is_shown_BH
        is_asked_B = may_BH.any(-1)
        may_BH &= ~(jnp.isin(drawn_BH, self.end_ids) & has_open_before_BH)
        rank_BH = jnp.where(may_BH, sure_BH, -1.0)
        is_best_BH = jnp.arange(rank_BH.shape[1])[None] == rank_BH.argmax(-1)[:, None]
        accept_BH = may_BH & ((sure_BH >= self.threshold) | is_best_BH)
        tokens_BH = jnp.where(accept_BH, drawn_BH, filled.tokens_BH)
        still_BH = is_open_BH & ~accept_BH
        is_fixed_end_BH = jnp.isin(tokens_BH, self.end_ids) & ~still_BH
        is_over_BH = still_BH & (self.is_before_BHH & is_fixed_end_BH[:, None, :]).any(-1)
        filled = Filled(
            jnp.where(is_over_BH, self.end_id, tokens_BH).astype(jnp.int32),
            jnp.where(accept_BH, sure_BH, filled.probability_BH),
            filled.passes_B + is_asked_B,
        )
        return still_BH & ~is_over_BH, filled


def drawn(logits_BHV: jax.Array, keys_B: jax.Array, draws: Draws) -> tuple[jax.Array, jax.Array]:
    """(the likeliest token of each place, or with a temperature a drawn one; the probability that the model gives it,
    at temperature 1 and among all tokens).

    Args:
      logits_BHV: float32, -inf for what may not stand.
      keys_B: a JAX key for each row, so that a row's draws are its own; unused at temperature 0.
      draws: how.
    """
    drawn_BH = logits_BHV.argmax(-1)
    if draws.temperature:
        tempered_BHV = nucleus(logits_BHV / draws.temperature, draws.top_p)
        noise_BHV = jax.vmap(lambda key: jax.random.gumbel(key, logits_BHV.shape[1:]))(keys_B)
        drawn_BH = (tempered_BHV + noise_BHV).argmax(-1)
    log_p_BHV = jax.nn.log_softmax(logits_BHV)
    return drawn_BH, jnp.exp(jnp.take_along_axis(log_p_BHV, drawn_BH[..., None], -1)[..., 0])


def keys_of(seeds_B: jax.Array, number: jax.Array) -> jax.Array:
    """Each row's key for the draws of pass `number`, of its seed: JAX keys [B]."""
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), number))(seeds_B)


def nucleus(logits_BHV: jax.Array, top_p: float) -> jax.Array:
    """The logits of the smallest set of likeliest tokens that holds `top_p` of the probability, -inf for the others
    (Holtzman et al., The curious case of neural text degeneration, 2020). Tokens as likely as its last belong to it.

    Args:
      logits_BHV: float32.
      top_p: in (0, 1]; 1: all tokens.
    """
    if top_p >= 1:
        return logits_BHV
    p_BHV = jax.nn.softmax(logits_BHV)
    falling_BHV = jnp.sort(p_BHV, axis=-1, descending=True)
    is_needed_BHV = falling_BHV.cumsum(-1) - falling_BHV < top_p  # what the likelier ones hold without it
    least_BH1 = jnp.where(is_needed_BHV, falling_BHV, jnp.inf).min(-1, keepdims=True)
    return jnp.where(p_BHV >= least_BH1, logits_BHV, -jnp.inf)


def unfilled(tokens_BL: jax.Array, holes: Holes) -> tuple[jax.Array, Filled]:
    """(bool [B, H], what is open at first; the holes as they stand)."""
    start_BH = jnp.take_along_axis(tokens_BL, holes.place_BH, 1)
    B, H = start_BH.shape
    return holes.block_BH >= 0, Filled(start_BH, jnp.ones((B, H), jnp.float32), jnp.zeros(B, jnp.int32))


def written(tokens_BL: jax.Array, holes: Holes, tokens_BH: jax.Array) -> jax.Array:
    """The rows with `tokens_BH` in their holes: int32 [B, L]."""
    rows_B1 = jnp.arange(len(tokens_BL))[:, None]
    return tokens_BL.at[rows_B1, holes.place_BH].set(
        jnp.where(holes.block_BH >= 0, tokens_BH, jnp.take_along_axis(tokens_BL, holes.place_BH, 1))
    )


def is_block_causal(config: Config) -> bool:
    """Whether a run's model was trained to write a block from the earlier ones and itself alone."""
    return config.train.objective == "block_diffusion"


def attention_of(config: Config, ids_BL: jax.Array) -> Attention:
    """Who sees whom in rows that a run's model reads once.

    Args:
      config: of the run (its objective).
      ids_BL: int32, 1 for the tokens of a row's example and 0 for padding.
    """
    return BlockCausal(config.train.block_size, ids_BL) if is_block_causal(config) else Segments(ids_BL)


def make_log_p(config: Config, model_config: ModelConfig, mesh: Mesh | None = None) -> Callable[..., jax.Array]:
    """The jitted log-probabilities at some places, of one forward pass; it is compiled once for each shape.

    Args:
      config: of the run (its compute type, LoRA and objective).
      model_config: the model's shape.
      mesh: where the weights lie (None: one device).

    Returns:
      log_p(params, tokens_BL, lengths_B, place_BH, allowed_V) -> float32 [B, H, V]: arguments as `make_fill`'s;
      place_BH: int32 [B, H], positions that are asked (0: none); allowed_V: bool [V], tokens that may stand there.
    """
    return jax.jit(_log_p_of(config, model_config, mesh))


def make_judge(config: Config, model_config: ModelConfig, mesh: Mesh | None = None) -> Callable[..., Any]:
    """The jitted log-probability of given tokens at some places, of one forward pass; nothing over V leaves the device.

    Args:
      config, model_config, mesh: as of `make_log_p`.

    Returns:
      judge(params, tokens_BL, lengths_B, place_BH, target_BH, allowed_V) -> (float32 [B, H] of the tokens `target_BH`,
      float32 [B, H] its mean under the model's own distribution); arguments as of `make_log_p`'s.
    """
    log_p_of = _log_p_of(config, model_config, mesh)

    def judge(
        params: Any, tokens_BL: jax.Array, lengths_B: jax.Array, place_BH: jax.Array, target_BH: jax.Array,
        allowed_V: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:  # fmt: skip
        log_p_BHV = log_p_of(params, tokens_BL, lengths_B, place_BH, allowed_V)
        given_BH = jnp.take_along_axis(log_p_BHV, target_BH[..., None], -1)[..., 0]
        return given_BH, (jnp.exp(log_p_BHV) * jnp.where(allowed_V[None, None], log_p_BHV, 0.0)).sum(-1)

    return jax.jit(judge)


def _log_p_of(config: Config, model_config: ModelConfig, mesh: Mesh | None) -> Callable[..., jax.Array]:
    dtype = jnp.dtype(config.model.compute_dtype)

    def log_p(
        params: Any, tokens_BL: jax.Array, lengths_B: jax.Array, place_BH: jax.Array, allowed_V: jax.Array
    ) -> jax.Array:
        positions_BL = jnp.broadcast_to(jnp.arange(tokens_BL.shape[1], dtype=jnp.int32), tokens_BL.shape)
        attention = attention_of(config, (positions_BL < lengths_B[:, None]).astype(jnp.int32))
        rows_B1 = jnp.arange(len(tokens_BL))[:, None]
        is_asked_BL = jnp.zeros(tokens_BL.shape, bool).at[rows_B1, place_BH].set(place_BH > 0)
        hidden_BLD, _, _ = transformer.hidden(
            model_config, params, tokens_BL, positions_BL, attention,
            transformer.Computation(dtype, mesh=mesh, lora_config=config.lora), is_asked_BL=is_asked_BL,
        )  # fmt: skip
        hidden_BHD = jnp.take_along_axis(hidden_BLD, place_BH[..., None], axis=1)
        logits_BHV = jnp.where(allowed_V[None, None], transformer.head(params, hidden_BHD), -jnp.inf)
        return jax.nn.log_softmax(logits_BHV)

    return log_p


def make_fill(
    config: Config, model_config: ModelConfig, end_id: int, mesh: Mesh | None = None, closing_ids: Sequence[int] = ()
) -> Fill:
    """The jitted filling; it is compiled once for each shape. Every pass computes the whole row: under full attention,
    or with block diffusion each block over itself and the earlier ones (`cached_decode` gives the same, faster).

    Args:
      config: of the run (its compute type, LoRA and objective).
      model_config: the model's shape.
      end_id: the end token, with which what follows a unit's first end is filled.
      mesh: where the weights lie (None: one device).
      closing_ids: other tokens that end a unit as well (`data.frames`).

    Returns:
      A function of
        params: the model's tree.
        tokens_BL: int32 [B, L], the mask id in the holes.
        lengths_B: int32 [B], tokens of each row; 0 for rows of padding.
        holes: `Holes`.
        allowed_BHV: bool, broadcastable to [B, H, V]: tokens that may stand there.
        threshold: probability from which a token is accepted; the report uses 0.95; above 1: one token a pass.
        seeds_B: uint32 [B], of each row's draws: a row is filled as it would be alone.
        draws: how tokens are drawn (static: other ones are compiled anew).
    """
    dtype = jnp.dtype(config.model.compute_dtype)

    def fill(
        params: Any, tokens_BL: jax.Array, lengths_B: jax.Array, holes: Holes, allowed_BHV: jax.Array,
        threshold: float, seeds_B: jax.Array, draws: Draws,
    ) -> Filled:  # fmt: skip
        places_L = jnp.arange(tokens_BL.shape[1], dtype=jnp.int32)
        positions_BL = jnp.broadcast_to(places_L, tokens_BL.shape)
        attention = attention_of(config, (positions_BL < lengths_B[:, None]).astype(jnp.int32))
        rows_B1 = jnp.arange(len(tokens_BL))[:, None]
        is_asked_BL = jnp.zeros(tokens_BL.shape, bool).at[rows_B1, holes.place_BH].set(holes.block_BH >= 0)
        rule = Rule.of(holes, end_id, closing_ids, threshold)

        def logits_of(tokens_BH: jax.Array) -> jax.Array:
            hidden_BLD, _, _ = transformer.hidden(
                model_config, params, written(tokens_BL, holes, tokens_BH), positions_BL, attention,
                transformer.Computation(dtype, mesh=mesh, lora_config=config.lora), is_asked_BL=is_asked_BL,
            )  # fmt: skip
            hidden_BHD = jnp.take_along_axis(hidden_BLD, holes.place_BH[..., None], axis=1)
            return jnp.where(allowed_BHV, transformer.head(params, hidden_BHD), -jnp.inf)

        def some_open(carry: Any) -> jax.Array:
            return carry[0].any()

        def one_pass(carry: Any) -> Any:
            is_open_BH, filled, number = carry
            drawn_BH, sure_BH = drawn(logits_of(filled.tokens_BH), keys_of(seeds_B, number), draws)
            is_open_BH, filled = rule.settled(is_open_BH, filled, drawn_BH, sure_BH)
            return is_open_BH, filled, number + 1

        return jax.lax.while_loop(some_open, one_pass, (*unfilled(tokens_BL, holes), jnp.int32(0)))[1]

    return jax.jit(fill, static_argnums=7)
