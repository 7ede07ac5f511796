"""LLaDA2-MoE as a masked language model: its weights, each declared once, and its forward pass.

The Flax modules below declare; the parameters themselves are a plain tree of arrays, so that jit, scan,
donation, sharding and checkpoints see nothing else. Layers of a kind are stacked on axis 0 and run by
`lax.scan`:

    embedding [V, D]     final_norm [D]     head [D, V]
    dense/   the first_k_dense_replace layers          moe/   all others       (N layers on axis 0)
      input_norm [N, D]                                  input_norm ... post_attention_norm as in dense/
      query_key_value [N, D, (H+2K)*C] (_bias)           router [N, D, E]       expert_bias [N, E]
      query_norm, key_norm [N, C]                        expert_gate_up [N, E, D, 2, F]
      attention_output [N, H*C, D] (_bias)               expert_down [N, E, F, D]
      post_attention_norm [N, D]                         shared_gate_up [N, D, 2, S]   (with a shared expert)
      gate_up [N, D, 2, I]     down [N, I, D]            shared_down [N, S, D]

With LoRA a third branch, `lora/`, holds the factors that are trained, and matrices may be held in 8 bits: `lora.py`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from anyorder_jax.config import NO_LORA, LoRAConfig
from anyorder_jax.model import lora, moe
from anyorder_jax.model.attention import Attention, BlockCausal, BlockDiffusion, attend, places
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.model.layers import (
    Initializer,
    Pair,
    Parameter,
    Rotary,
    declare,
    mlp,
    project,
    rms_norm,
    rotary,
    rotate,
    uniform,
)

Params = dict[str, Any]
Pairs = Mapping[str, Pair]
"""LoRA's factors of a layer, by the name of their weight."""

MAX_UNROLLED_LAYERS = 8
"""A stack of up to this many layers is unrolled: without the loop that stacks saved activations a CPU step of
`tiny` is 12% faster, one of 6 layers of 256 dims 7%, and they compile no slower. Deeper stacks are scanned:
compile time and memory stay those of one layer."""

_ones, _zeros = jax.nn.initializers.ones, jax.nn.initializers.zeros


class Trace(NamedTuple):
    """What happened inside, for comparisons with the reference.

    hidden_NBLD: the embeddings, every layer's output, and the final norm's (num_hidden_layers + 2 of them).
    router_logits_NBLE: float32. expert_NBLK: int32. weight_NBLK: float32; of the MoE layers.
    """

    hidden_NBLD: jax.Array
    router_logits_NBLE: jax.Array
    expert_NBLK: jax.Array
    weight_NBLK: jax.Array


class Output(NamedTuple):
    """hidden_BLD: after the final norm, compute dtype. logits_BLV: float32. expert_load_NE: int32, tokens
    (padding too) that each expert of each MoE layer got. trace: with `collect=True`."""

    hidden_BLD: jax.Array
    logits_BLV: jax.Array
    expert_load_NE: jax.Array
    trace: Trace | None


class Layer(nnx.Module):
    """A pre-norm layer: x + attention(norm x), then x + feed_forward(norm x). Declared for N layers, called
    as one."""

    def __init__(self, config: ModelConfig, num_layers: int, dtype: Any):
        self.config, self.num_layers, self.dtype = config, num_layers, dtype
        D, C = config.hidden_size, config.head_dim
        H, K = config.num_attention_heads, config.num_key_value_heads
        self.input_norm = self.weight(_ones, norm=D)
        self.query_key_value = self.weight(_normal(config), embed=D, heads=(H + 2 * K) * C)
        self.query_key_value_bias = self.weight(_zeros, heads=(H + 2 * K) * C) if config.use_qkv_bias else None
        self.query_norm = self.weight(_ones, head_width=C)
        self.key_norm = self.weight(_ones, head_width=C)
        self.attention_output = self.weight(_normal(config), heads=H * C, embed=D)
        self.attention_output_bias = self.weight(_zeros, norm=D) if config.use_bias else None
        self.post_attention_norm = self.weight(_ones, norm=D)

    def weight(self, init: Initializer, dtype: Any = None, **sizes: int) -> nnx.Param:
        return declare({"layer": self.num_layers, **sizes}, dtype or self.dtype, init)

    def feed_forward(
        self, x_BLD: jax.Array, attention: Attention, mesh: Mesh | None, pairs: Pairs, is_needed_BL: jax.Array | None
    ) -> tuple[jax.Array, moe.Routing | None, jax.Array | None]:
        """The layer's second half, of normed activations.

        Args:
          x_BLD: activations.
          attention: who may attend to whom; block routing reads it.
          mesh: where rows and experts are split.
          pairs: LoRA's factors of the layer's matrices, by name.
          is_needed_BL: bool, whose output is needed; None: of all.

        Returns:
          (y_BLD, routing, tokens per expert), the last two None in a dense layer.
        """
        raise NotImplementedError  # a layer is a DenseLayer or an MoELayer; each says its own

    def __call__(
        self, x_BLD: jax.Array, angles: Rotary, attention: Attention, mesh: Mesh | None, pairs: Pairs,
        is_needed_BL: jax.Array | None,
    ) -> tuple[jax.Array, moe.Routing | None, jax.Array | None]:  # fmt: skip
        """Returns (x_BLD, routing, tokens per expert); the last two are None in a dense layer. `is_needed_BL` is
        `moe.routed`'s."""
        eps = self.config.rms_norm_eps
        x_BLD = x_BLD + self.attention(rms_norm(x_BLD, self.input_norm[...], eps), angles, attention, mesh, pairs)
        normed_BLD = rms_norm(x_BLD, self.post_attention_norm[...], eps)
        y_BLD, routing, load_E = self.feed_forward(normed_BLD, attention, mesh, pairs, is_needed_BL)
        return x_BLD + y_BLD, routing, load_E

    def attention(
        self, x_BLD: jax.Array, angles: Rotary, attention: Attention, mesh: Mesh | None, pairs: Pairs
    ) -> jax.Array:
        """The layer's first half, of normed activations: [B, L, D].

        Args:
          x_BLD: activations.
          angles: of every position.
          attention: who may attend to whom.
          mesh: where rows are split.
          pairs: LoRA's factors of the layer's matrices, by name.
        """
        q_BLHC, k_BLKC, v_BLKC = self.heads(x_BLD, angles, pairs)
        return self.joined(attend(q_BLHC, k_BLKC, v_BLKC, attention, mesh=mesh), pairs)

    def heads(self, x_BLD: jax.Array, angles: Rotary, pairs: Pairs) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries [B, L, H, C], keys and values [B, L, K, C] of normed activations."""
        config = self.config
        B, L, _ = x_BLD.shape
        H, K, C = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        qkv = _affine(x_BLD, self.query_key_value, self.query_key_value_bias, pairs.get("query_key_value"))
        qkv = qkv.reshape(B, L, H + 2 * K, C)
        q_BLHC, k_BLKC, v_BLKC = jnp.split(qkv, (H, H + K), axis=2)
        q_BLHC = rotate(rms_norm(q_BLHC, self.query_norm[...], config.rms_norm_eps), angles)
        k_BLKC = rotate(rms_norm(k_BLKC, self.key_norm[...], config.rms_norm_eps), angles)
        return q_BLHC, k_BLKC, v_BLKC

    def joined(self, mixed_BLHC: jax.Array, pairs: Pairs) -> jax.Array:
        """What all heads say, projected: [B, L, D]."""
        mixed_BLO = mixed_BLHC.reshape(*mixed_BLHC.shape[:2], -1)
        return _affine(mixed_BLO, self.attention_output, self.attention_output_bias, pairs.get("attention_output"))


class DenseLayer(Layer):
    """A layer whose feed-forward part is one gated MLP."""

    def __init__(self, config: ModelConfig, num_layers: int, dtype: Any):
        super().__init__(config, num_layers, dtype)
        self.gate_up = self.weight(_normal(config), embed=config.hidden_size, gate_up=2, width=config.intermediate_size)
        self.down = self.weight(_normal(config), width=config.intermediate_size, embed=config.hidden_size)

    def feed_forward(
        self, x_BLD: jax.Array, attention: Attention, mesh: Mesh | None, pairs: Pairs, is_needed_BL: jax.Array | None
    ) -> tuple[jax.Array, None, None]:
        """As `Layer.feed_forward`.

        Args:
          x_BLD, attention, mesh, pairs, is_needed_BL: see there.
        """
        return mlp(x_BLD, self.gate_up[...], self.down[...], pairs.get("gate_up"), pairs.get("down")), None, None


class MoELayer(Layer):
    """A layer whose feed-forward part is routed experts plus a shared one."""

    def __init__(self, config: ModelConfig, num_layers: int, dtype: Any):
        super().__init__(config, num_layers, dtype)
        D, E, F = config.hidden_size, config.num_experts, config.moe_intermediate_size
        S = F * config.num_shared_experts
        self.router = self.weight(uniform(D), embed=D, router=E)
        self.expert_bias = self.weight(_zeros, dtype=jnp.float32, router=E)
        self.expert_gate_up = self.weight(_normal(config), expert=E, embed=D, gate_up=2, width=F)
        self.expert_down = self.weight(_normal(config), expert=E, width=F, embed=D)
        self.shared_gate_up = self.weight(_normal(config), embed=D, gate_up=2, width=S) if S else None
        self.shared_down = self.weight(_normal(config), width=S, embed=D) if S else None

    def feed_forward(
        self, x_BLD: jax.Array, attention: Attention, mesh: Mesh | None, pairs: Pairs, is_needed_BL: jax.Array | None
    ) -> tuple[jax.Array, moe.Routing, jax.Array]:
        """As `Layer.feed_forward`.

        Args:
          x_BLD, attention, mesh, pairs, is_needed_BL: see there.
        """
        weights = moe.Weights(
            self.router[...], self.expert_bias[...], self.expert_gate_up[...], self.expert_down[...],
            *pairs.get("expert_gate_up", ()), *pairs.get("expert_down", ()),
        )  # fmt: skip
        place_BL = places(attention, *x_BLD.shape[:2])
        y_TD, routing, load_E = moe.routed(self.config, x_BLD, place_BL, weights, mesh, is_needed_BL)
        y_BLD = checkpoint_name(y_TD.astype(x_BLD.dtype), "moe_out").reshape(x_BLD.shape)
        if self.shared_gate_up is not None and self.shared_down is not None:
            shared_pairs = pairs.get("shared_gate_up"), pairs.get("shared_down")
            y_BLD = y_BLD + mlp(x_BLD, self.shared_gate_up[...], self.shared_down[...], *shared_pairs)
        return y_BLD, routing, load_E


class LLaDA2(nnx.Module):
    """Declares the whole model; without dense layers the tree has no `dense`."""

    def __init__(self, config: ModelConfig, dtype: Any):
        V, D = config.vocab_size, config.hidden_size
        self.embedding = declare({"vocab": V, "embed": D}, dtype, _normal(config))
        if config.first_k_dense_replace:
            self.dense = DenseLayer(config, config.first_k_dense_replace, dtype)
        self.moe = MoELayer(config, config.num_moe_layers, dtype)
        self.final_norm = declare({"norm": D}, dtype, _ones)
        self.head = declare({"embed": D, "vocab": V}, dtype, _normal(config))


def _normal(config: ModelConfig) -> Initializer:
    return jax.nn.initializers.normal(config.initializer_range)


def _affine(x: jax.Array, weight: nnx.Param, bias: nnx.Param | None, pair: Pair | None) -> jax.Array:
    y = project(x, weight[...], pair)
    return y if bias is None else y + jnp.broadcast_to(bias[...].astype(x.dtype), y.shape)


def parameters(config: ModelConfig, param_dtype: Any, lora_config: LoRAConfig = NO_LORA) -> Params:
    """The tree of declared weights (`Parameter` leaves), without making any.

    `expert_bias` and LoRA's factors are float32 whatever `param_dtype` is.
    """
    _, declared = nnx.split(LLaDA2(config, jnp.dtype(param_dtype)))
    flat = {}
    for path, variable in nnx.to_flat_state(declared):
        shape = variable.get_value()
        flat[tuple(map(str, path))] = Parameter(shape.shape, shape.dtype, variable.axes, variable.init)
    return lora.declare(traverse_util.unflatten_dict(flat), lora_config)


def init(config: ModelConfig, key: jax.Array, param_dtype: Any, lora_config: LoRAConfig = NO_LORA) -> Params:
    """Random weights. A weight's draw depends on the key and its path only, not on which others there are.

    Args:
      config: the model's shape.
      key: of the draws.
      param_dtype: of the weights.
      lora_config: with a rank, factors are drawn too.
    """
    base = draw(parameters(config, param_dtype), key)
    return {**lora.hold(base, lora_config), **draw(lora.split(parameters(config, param_dtype, lora_config))[0], key)}


def draw(declared: Params, key: jax.Array) -> Params:
    """Random weights for (a part of) a tree of declared ones."""

    def make(path: Any, parameter: Parameter) -> jax.Array:
        name = "/".join(step.key for step in path)
        own_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
        return parameter.init(own_key, parameter.shape, parameter.dtype)

    return jax.tree_util.tree_map_with_path(make, declared, is_leaf=lambda node: isinstance(node, Parameter))


def _rematerialised(body: Callable, remat: str) -> Callable:
    """The scan body under a policy of what the backward pass recomputes.

        "none"          nothing            "dots"          all but matrix products without batch dims
        "full"          everything         "save_moe_out"  all but the routed experts' sum

    Raises:
      ValueError: for an unknown name.
    """
    policies = {
        "full": jax.checkpoint_policies.nothing_saveable,
        "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        "save_moe_out": jax.checkpoint_policies.save_only_these_names("moe_out"),
    }
    if remat == "none":
        return body
    if remat not in policies:
        raise ValueError(f"remat: unknown policy {remat!r}; known: none, {', '.join(policies)}.")
    return jax.checkpoint(body, policy=policies[remat])


class Computation(NamedTuple):
    """How a forward pass is computed, which changes its numbers by rounding alone.

    compute_dtype: of activations, and of weights as they are used. Norm statistics, softmax, router and the weighting
    of experts are float32 always. remat: what the backward pass recomputes; see `_rematerialised`. mesh: where rows and
    experts are split (None: one device); see `moe.routed`. lora_config: how LoRA's factors were declared, where the
    parameters hold some.
    """

    compute_dtype: Any = jnp.float32
    remat: str = "none"
    mesh: Mesh | None = None
    lora_config: LoRAConfig = NO_LORA


PLAIN = Computation()
"""float32 on one device, everything kept."""


def _run(
    layers: Layer, stack: tuple[Params, Params], x_BLD: jax.Array, angles: Rotary, attention: Attention,
    how: Computation, *, collect: bool, is_asked_BL: jax.Array | None = None,
) -> tuple[jax.Array, Any]:  # fmt: skip
    """Scans over stacked layers, `stack` (weights, LoRA's factors). Returns (x_BLD, (tokens per expert, (outputs,
    routing) with `collect`) by layer)."""
    graphdef, _ = nnx.split(layers)
    is_last_N = jnp.arange(layers.num_layers) == layers.num_layers - 1

    def one(x_BLD: jax.Array, own: tuple[Params, Params, jax.Array]) -> tuple[jax.Array, Any]:
        layer = nnx.merge(graphdef, lora.widen(own[0], layers.dtype))
        pairs = lora.pairs(own[1], how.lora_config, layers.dtype)
        is_needed_BL = None if is_asked_BL is None else is_asked_BL | ~own[2]
        x_BLD, routing, load_E = layer(x_BLD, angles, attention, how.mesh, pairs, is_needed_BL)
        return x_BLD, (load_E, (x_BLD, routing) if collect else None)

    unroll = layers.num_layers if layers.num_layers <= MAX_UNROLLED_LAYERS else 1
    return jax.lax.scan(_rematerialised(one, how.remat), x_BLD, (*stack, is_last_N), unroll=unroll)


def hidden(
    config: ModelConfig,
    params: Params,
    tokens_BL: jax.Array,
    positions_BL: jax.Array,
    attention: Attention,
    how: Computation = PLAIN,
    *,
    collect: bool = False,
    is_asked_BL: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, Trace | None]:
    """All but the head.

    Args:
      config, params, tokens_BL, positions_BL, attention, how, collect: see `apply`.
      is_asked_BL: bool; the others' hidden states are not what `apply` gives: the last layer, whose output nobody
        attends to, sends only those that are asked to their experts. None: all are asked.

    Returns:
      (hidden_BLD after the final norm, expert_load_NE, trace).
    """
    if isinstance(attention, BlockDiffusion | BlockCausal):
        config.refuse_straddling(attention.block_size)
    factors = lora.factors(params, how.lora_config)
    declared = LLaDA2(config, how.compute_dtype)
    angles = rotary(positions_BL, config.rotary_dim, config.rope_theta, how.compute_dtype)
    x_BLD = params["embedding"][tokens_BL].astype(how.compute_dtype)
    outputs = [x_BLD[None]]
    if "dense" in params:
        stack = params["dense"], factors.dense
        x_BLD, (_, collected) = _run(declared.dense, stack, x_BLD, angles, attention, how, collect=collect)
        outputs += [collected[0]] if collect else []
    stack = params["moe"], factors.moe
    x_BLD, (load_NE, collected) = _run(
        declared.moe, stack, x_BLD, angles, attention, how, collect=collect, is_asked_BL=is_asked_BL
    )
    x_BLD = rms_norm(x_BLD, params["final_norm"], config.rms_norm_eps)
    if not collect:
        return x_BLD, load_NE, None
    hidden_NBLD, routing = collected
    by_row = [x.reshape(len(x), *tokens_BL.shape, -1) for x in routing]
    return x_BLD, load_NE, Trace(jnp.concatenate([*outputs, hidden_NBLD, x_BLD[None]]), *by_row)


def head(params: Params, hidden_BLD: jax.Array) -> jax.Array:
    """Logits of hidden states [..., D], in their dtype and then cast: float32 [..., V], as the reference."""
    return project(hidden_BLD, params["head"]).astype(jnp.float32)


def apply(
    config: ModelConfig,
    params: Params,
    tokens_BL: jax.Array,
    positions_BL: jax.Array,
    attention: Attention,
    how: Computation = PLAIN,
    *,
    collect: bool = False,
) -> Output:
    """The forward pass: logits for every position, in one bidirectional pass.

    Args:
      config: the model's shape.
      params: the tree of the module's docstring, any float dtype.
      tokens_BL: int32 [B, L], the mask id at hidden positions.
      positions_BL: int32 [B, L], from 0 in each example, below L; other positions get NaN.
      attention: who may attend to whom; with block routing also who chooses experts together (`attention.places`).
      how: the dtype, what is recomputed, the mesh, LoRA.
      collect: also return the `Trace`.

    Raises:
      ValueError: for segment ids of another shape, an unknown `remat`, factors that `how.lora_config` does not
        describe, or blocks of block diffusion that `ModelConfig.refuse_straddling` refuses.
    """
    hidden_BLD, load_NE, trace = hidden(config, params, tokens_BL, positions_BL, attention, how, collect=collect)
    return Output(hidden_BLD, head(params, hidden_BLD), load_NE, trace)
