"""Whether a layer's router and its experts belong together: who would do a slot's work best, and an even load."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy.optimize import linear_sum_assignment

from anyorder_jax.health.questions import Rows
from anyorder_jax.model import moe, transformer
from anyorder_jax.model.attention import Segments
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.model.layers import gated, rms_norm, rotary
from conversion.health.passes import LayerWeights, Reading


@functools.partial(jax.jit, static_argnames="config")
def _inputs(config: ModelConfig, weights: LayerWeights, x_BLD: jax.Array, segment_ids_BL: jax.Array) -> jax.Array:
    """What the router and the experts of a layer read: [T, D]."""
    graphdef, _ = nnx.split(transformer.MoELayer(config, 1, x_BLD.dtype))
    layer = nnx.merge(graphdef, dict(weights))
    positions_BL = jnp.broadcast_to(jnp.arange(x_BLD.shape[1])[None], x_BLD.shape[:2])
    angles = rotary(positions_BL, config.rotary_dim, config.rope_theta, x_BLD.dtype)
    normed_BLD = rms_norm(x_BLD, weights["input_norm"], config.rms_norm_eps)
    x_BLD = x_BLD + layer.attention(normed_BLD, angles, Segments(segment_ids_BL), None, {})
    return rms_norm(x_BLD, weights["post_attention_norm"], config.rms_norm_eps).reshape(-1, x_BLD.shape[-1])


@functools.partial(jax.jit, static_argnames="config")
def _worth(
    config: ModelConfig, weights: LayerWeights, x_TD: jax.Array, aim_TD: jax.Array, is_text_T: jax.Array
) -> jax.Array:
    routing = moe.route(config, x_TD, weights["router"], weights["expert_bias"], jnp.zeros(len(x_TD), jnp.int32))
    chosen_TKE = jax.nn.one_hot(routing.expert_TK, config.num_experts)
    weight_TE = jnp.einsum("tke,tk->te", chosen_TKE, routing.weight_TK * is_text_T[:, None])

    def of_expert(own: tuple[jax.Array, jax.Array]) -> jax.Array:
        gate_up_D2F, down_FD = own
        hidden = gated(jnp.einsum("td,dhf->thf", x_TD, gate_up_D2F.astype(x_TD.dtype)))
        helps_T = ((hidden @ down_FD.astype(x_TD.dtype)).astype(jnp.float32) * aim_TD).sum(-1)
        return helps_T @ weight_TE  # [slots]

    return jax.lax.map(of_expert, (weights["expert_gate_up"], weights["expert_down"])).T


def aim(rows: Rows, final_norm_D: np.ndarray, head_DV: Any) -> jax.Array:
    """The direction of the residual stream that makes each right token likelier, as the head sees it: [T, D]."""
    head_DV = jnp.asarray(head_DV)
    right_TD = head_DV[:, rows.targets.reshape(-1)].T.astype(jnp.float32)
    mean_D = head_DV.mean(1, dtype=jnp.float32)
    return (right_TD - mean_D[None]) * jnp.asarray(final_norm_D, jnp.float32)[None]


def best_order(reading: Reading, weights: LayerWeights, aim_TD: jax.Array) -> np.ndarray:
    """For each slot of the router the expert that would help its tokens most, no expert twice: int [E].

    An expert helps by what it adds to the right token's logit without further layers. In a layer whose experts stand in
    their places that is 0, 1, 2, ...
    """
    x_TD = _inputs(reading.config, weights, reading.x_BLD, reading.rows.segment_ids)
    is_text_T = jnp.asarray(reading.rows.segment_ids.reshape(-1) > 0)
    worth = np.asarray(_worth(reading.config, weights, x_TD, aim_TD, is_text_T), np.float64)
    return linear_sum_assignment(-worth)[1]


def evening_bias(reading: Reading, weights: LayerWeights, num_rounds: int = 200) -> np.ndarray:
    """Biases with which this text loads the experts evenly: float32 [E]. They are moved as training moves them, by the
    sign of what is missing, in ever smaller steps."""
    config = reading.config
    x_TD = _inputs(config, weights, reading.x_BLD, reading.rows.segment_ids)
    x_TD = x_TD[np.flatnonzero(reading.rows.segment_ids.reshape(-1))]
    places_T = jnp.zeros(len(x_TD), jnp.int32)

    def move(n: jax.Array, bias_E: jax.Array) -> jax.Array:
        chosen = moe.route(config, x_TD, weights["router"], bias_E, places_T).expert_TK
        load_E = jax.nn.one_hot(chosen, config.num_experts).sum((0, 1))
        return bias_E + 0.05 * (1 - n / num_rounds) ** 2 * jnp.sign(load_E.mean() - load_E)

    start_E = jnp.zeros(config.num_experts, jnp.float32)
    return np.asarray(jax.jit(lambda bias_E: jax.lax.fori_loop(0, num_rounds, move, bias_E))(start_E))
