"""Floating point operations of a training step, counted from shapes (a compiler counts a scanned layer once), and over
how many devices its size is worth splitting a CPU."""

from __future__ import annotations

import dataclasses
import math
import os

from flax import traverse_util

from anyorder_jax import process
from anyorder_jax.config import Config, TrainConfig
from anyorder_jax.model import lora, transformer
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

    With LoRA 2 * 2 for the weights, which get no gradient, and 2 * 3 for the factors that a token meets.
    keys: the row's length (every pair of a row, also across packed documents). Under block diffusion a token is read
    twice, noisy and clean, and meets the clean keys before it and its own block: row length + block size for both. The
    head and the last layer's routed experts count for `asked_share` of the positions.
    """
    D, L = model.hidden_size, config.data.row_length
    H, K, C = model.num_attention_heads, model.num_key_value_heads, model.head_dim
    dense, moe = model.first_k_dense_replace, model.num_moe_layers
    F = model.moe_intermediate_size
    projections = D * (H + 2 * K) * C + H * C * D
    is_twice = config.train.objective == "block_diffusion"
    share = asked_share(config)
    routing_layers = moe - 1 + share / (2 if is_twice else 1)
    feed_forward = (
        dense * 3 * D * model.intermediate_size
        + moe * (3 * D * F * model.num_shared_experts + D * model.num_experts)
        + routing_layers * 3 * D * F * model.num_experts_per_tok
    )
    keys = L + config.train.block_size if is_twice else L
    each = 4.0 if config.lora.rank else 6.0
    flops = Flops(
        linear=each * (model.num_hidden_layers * projections + feed_forward) * (2 if is_twice else 1),
        attention=12.0 * model.num_hidden_layers * keys * H * C,
        head=each * D * model.vocab_size * share,
    )
    if config.lora.rank:
        flops["factors"] = 6.0 * factors_met(config, model) * (2 if is_twice else 1)
    return flops


def asked_share(config: Config) -> float:
    """The share of positions whose hidden states are asked for: under any-order masks their mean rate (less where a row
    holds what is never hidden), under others all; `loss.target_share` at most."""
    masking = config.masking
    if masking.order != "any_order" or max(masking.role_rates().values()) > 1:
        return config.loss.target_share
    mean = (masking.rate + (masking.rate_end or masking.rate_max or masking.rate)) / 2
    return min(0.5 if masking.complementary else mean, config.loss.target_share)


def factors_met(config: Config, model: ModelConfig) -> int:
    """How many of LoRA's numbers a token is multiplied with."""
    declared, _ = lora.split(transformer.parameters(model, config.model.param_dtype, config.lora))
    total = 0
    for factor in traverse_util.flatten_dict(declared).values():
        size = math.prod(factor.shape)
        is_routed = "expert" in factor.axes
        total += size * model.num_experts_per_tok // model.num_experts if is_routed else size
    return total


def computed_per_token(config: Config, model: ModelConfig) -> float:
    """`per_token` and what rematerialisation repeats: the layers' forward pass once more, or nothing."""
    flops = per_token(config, model)
    passes = 2 if config.lora.rank else 3  # of the weights, forward and backward
    again = flops["linear"] / passes + flops["attention"] / 3 + flops.get("factors", 0.0) / 3
    return flops.total + (0.0 if config.model.remat == "none" else again)


def forward_per_token(config: Config, model: ModelConfig, length: int) -> float:
    """FLOPs a token of a row of `length` tokens that is read once: a model that answers, not one that is trained."""
    data = dataclasses.replace(config.data, row_length=length, context_tokens=0)
    train = dataclasses.replace(config.train, objective=TrainConfig().objective)
    flops = per_token(dataclasses.replace(config, data=data, train=train), model)
    passes = 2 if config.lora.rank else 3  # of the weights, forward and backward
    return (flops["linear"] + flops["head"]) / passes + (flops["attention"] + flops.get("factors", 0.0)) / 3


def cpu_devices(config: Config, model: ModelConfig) -> int:
    """Into how many devices a run on a CPU splits it: `mesh.num_cpu_devices`; where that is 0 one for each core, if the
    mesh leaves it open and a device's part of the step is small, else 0 (as it is). `model`: the preset's shape.

    XLA runs the loops over a device's experts on one core, whatever else is idle; several devices run theirs at once.
    But a thread beside the main one keeps no block above `process.HEAP_BYTES`, and the page faults of a larger one cost
    more than is gained. So a device's temporaries, estimated from the shapes, must stay below that.
    What it is worth: `benchmarks/allocator.py`.
    """
    mesh = config.mesh
    is_open = (mesh.data, mesh.fsdp, mesh.expert, mesh.tensor) == (-1, 1, 1, 1)
    if mesh.num_cpu_devices or not is_open or config.model.path or process.is_one_of_several(os.environ):
        return mesh.num_cpu_devices
    rows = config.train.batch_size // config.train.accumulation_steps
    length = config.data.row_length * (2 if config.train.objective == "block_diffusion" else 1)
    per_layer = 32 * model.hidden_size + 2.3 * model.num_attention_heads * length  # float32 of a token, as compiled
    row_bytes = 4 * length * model.num_hidden_layers * per_layer
    fitting = (n for n in range(min(process.num_cores(), rows), 1, -1) if rows % n == 0)
    return next((n for n in fitting if rows // n * row_bytes < 0.75 * process.HEAP_BYTES), 0)
