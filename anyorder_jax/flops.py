"""Floating point operations of a training step, counted from shapes (a compiler counts a scanned layer once)."""

from __future__ import annotations

from anyorder_jax.config import Config
from anyorder_jax.model.config import ModelConfig


class Flops(dict[str, float]):
    """Floating point operations of a training step by part, for one token of the batch."""

    @property
    def total(self) -> float:
        return sum(self.values())


def per_token(config: Config, model: ModelConfig) -> Flops:
    """What the equations ask for, forward and backward (three times the forward), without recomputation:

        2 * 3 * (weights that a token meets: attention, dense or shared MLP, router, k experts; the head)
        + 12 * num_layers * keys * num_heads * head_dim             (scores and values)

    keys: the row's length (every pair of a row, also across packed documents). Under block diffusion a token is read
    twice, noisy and clean, and meets the clean keys before it and its own block: row length + block size for both. The
    head counts for `loss.target_share` of the positions.
    """
    D, L = model.hidden_size, config.data.row_length
    H, K, C = model.num_attention_heads, model.num_key_value_heads, model.head_dim
    dense, moe = model.first_k_dense_replace, model.num_moe_layers
    F = model.moe_intermediate_size
    projections = D * (H + 2 * K) * C + H * C * D
    feed_forward = dense * 3 * D * model.intermediate_size + moe * (
        3 * D * F * (model.num_experts_per_tok + model.num_shared_experts) + D * model.num_experts
    )
    is_twice = config.train.objective == "block_diffusion"
    keys = L + config.train.block_size if is_twice else L
    return Flops(
        linear=6.0 * (model.num_hidden_layers * projections + feed_forward) * (2 if is_twice else 1),
        attention=12.0 * model.num_hidden_layers * keys * H * C,
        head=6.0 * D * model.vocab_size * config.loss.target_share,
    )


def computed_per_token(config: Config, model: ModelConfig) -> float:
    """`per_token` and what rematerialisation repeats: the layers' forward pass once more, or nothing."""
    flops = per_token(config, model)
    again = 0.0 if config.model.remat == "none" else (flops["linear"] + flops["attention"]) / 3
    return flops.total + again
