"""The jitted, donated, sharded functions: one update of the state, and the sums of a validation batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from anyorder_jax import keys, sharding
from anyorder_jax.config import Config
from anyorder_jax.loss import gather_targets, head_loss, role_sums, target_weights
from anyorder_jax.model import lora, transformer
from anyorder_jax.model.attention import Attention, BlockDiffusion, Segments
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.optimizer import apply_updates, moved_average
from anyorder_jax.state import TrainState
from anyorder_jax.types import Batch

Metrics = dict[str, jax.Array]

TPU_OPTIONS = {"xla_jf_bf16_propagation": False}
"""Left alone, a TPU's compiler narrows a whole stack of float32 experts before the loop over layers, because each layer
is narrowed inside: a copy of all experts in bfloat16, throughout the forward and again the backward pass."""


def batch_loss(
    params: Any, batch: Batch, weights: jax.Array, config: Config, model_config: ModelConfig, mesh: Mesh
) -> tuple[jax.Array, Metrics]:
    """loss.py's sum over one (micro-)batch, and the sums that the log shows.

    Under block diffusion the model reads [noisy ; clean] with positions that restart, and the noisy half is asked.

    Args:
      params: the model's tree, frozen weights included.
      batch: [B, L].
      weights: float32 [B, L], of `loss.target_weights`.
      config: of the run.
      model_config: the model's shape.
      mesh: where rows and weights lie.
    """
    length = batch.tokens.shape[1]
    tokens, positions, is_asked = batch.tokens, batch.positions, batch.is_target
    attention: Attention = Segments(batch.segment_ids)
    if config.train.objective == "block_diffusion":
        tokens = jnp.concatenate([tokens, batch.targets], axis=1)
        positions = jnp.concatenate([positions, positions], axis=1)
        is_asked = jnp.concatenate([is_asked, jnp.zeros_like(is_asked)], axis=1)
        attention = BlockDiffusion(config.train.block_size, batch.segment_ids)
    hidden_BLD, load_NE, _ = transformer.hidden(
        model_config, params, tokens, positions, attention,
        transformer.Computation(
            jnp.dtype(config.model.compute_dtype), config.model.remat, mesh, config.lora
        ),
        is_asked_BL=is_asked,
    )  # fmt: skip
    asked = gather_targets(
        hidden_BLD[:, :length], batch, weights, sharding.num_row_shards(mesh), config.loss.target_share
    )
    loss, nll, is_right = head_loss(asked, params["head"], config.loss.confidence_weight, mesh=mesh)
    sums = role_sums(nll, is_right, asked) | {"targets_dropped": asked.num_dropped.astype(jnp.float32)}
    return loss, {**sums, "expert_load": load_NE.astype(jnp.float32)}


def expert_statistics(load_NE: jax.Array) -> Metrics:
    """From tokens per expert [N, E]: the busiest expert's load over the mean (1 is perfect balance, E the worst),
    averaged over layers, and the share of experts that got nothing."""
    mean = jnp.maximum(load_NE.mean(-1), 1e-9)
    return {"expert_max_load": (load_NE.max(-1) / mean).mean(), "expert_idle": (load_NE == 0).mean()}


LOAD_EDGES = (0.25, 0.5, 1.0, 2.0, 4.0)


def load_histogram(load_NE: jax.Array, first_layer: int) -> Metrics:
    """Of tokens per expert [N, E], for each layer: the share of its experts whose load over the layer's mean load lies

        load_layer03_0     none at all                 load_layer03_to_0.25   above 0, to 0.25     (to_0.5, to_1, ...)
        load_layer03_more  above the last edge

    first_layer: the number of the first MoE layer in the model.
    """
    ratio_NE = load_NE / jnp.maximum(load_NE.mean(-1, keepdims=True), 1e-9)
    edges = jnp.array([0.0, *LOAD_EDGES])
    bin_NE = jnp.searchsorted(edges, ratio_NE.reshape(-1), side="left").reshape(ratio_NE.shape)  # 0: no tokens
    share_NB = jax.nn.one_hot(bin_NE, len(edges) + 1).mean(1)
    names = ("0", *(f"to_{edge:g}" for edge in LOAD_EDGES), "more")
    return {
        f"load_layer{first_layer + n:02d}_{name}": share_NB[n, b]
        for n in range(load_NE.shape[0])
        for b, name in enumerate(names)
    }


def evened(expert_bias_NE: jax.Array, load_NE: jax.Array, rate: float) -> jax.Array:
    """The biases after an update: + rate for an expert with less than its layer's mean load, - rate for one with more
    (DeepSeek-V3, arXiv 2412.19437, section 2.1.2). No term of the loss pulls at the router. Padding is load too."""
    return expert_bias_NE + rate * jnp.sign(load_NE.mean(-1, keepdims=True) - load_NE)


def make_train_step(
    config: Config,
    model_config: ModelConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    placed: TrainState,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """`state, metrics = train_step(state, batch, loss_limit=inf)`; the old state's memory is reused (donated).

    `batch` holds accumulation_steps micro-batches, one after another. Targets are counted over all of them first, so
    that gradients, summed in float32, are those of the large batch. A step whose loss or gradient is not finite, or
    whose loss is above `loss_limit`, changes nothing; `metrics["is_applied"]` says so. With LoRA gradients and updates
    are those of the factors alone.

    Args:
      config: of the run.
      model_config: the model's shape.
      optimizer: of `make_optimizer`.
      mesh: where rows and weights lie.
      placed: the state's shardings.
    """
    num_micro = config.train.accumulation_steps
    rules = config.optimizer
    is_row_frozen = not rules.update_pad_embedding and not config.lora.rank

    def loss_of(trained: Any, frozen: Any, batch: Batch, weights: jax.Array) -> tuple[jax.Array, Metrics]:
        return batch_loss({**trained, **frozen}, batch, weights, config, model_config, mesh)

    gradient = jax.value_and_grad(loss_of, has_aux=True)

    def split(x: jax.Array) -> jax.Array:
        x = x.reshape(num_micro, x.shape[0] // num_micro, *x.shape[1:])
        return jax.lax.with_sharding_constraint(x, sharding.micro_rows(mesh))

    def step(state: TrainState, batch: Batch, loss_limit: float = jnp.inf) -> tuple[TrainState, Metrics]:
        weights = target_weights(batch, config.loss)
        trained, frozen = lora.split(state.params)
        if num_micro == 1:
            (loss, sums), grads = gradient(trained, frozen, batch, weights)
        else:

            def add(total: Any, micro: tuple[Batch, jax.Array]) -> tuple[Any, None]:
                one = gradient(trained, frozen, *micro)
                return jax.tree.map(jnp.add, total, one), None

            micros = jax.tree.map(split, (batch, weights))
            first = jax.tree.map(lambda x: x[0], micros)
            shapes = jax.eval_shape(gradient, trained, frozen, *first)
            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[0])
            wide = jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.float32), shapes[1])
            ((loss, sums), grads), _ = jax.lax.scan(add, (zeros, wide), micros)
            grads = jax.tree.map(lambda g, s: g.astype(s.dtype), grads, shapes[1])
        if is_row_frozen:  # torch's padding_idx: used, but without a gradient
            grads["embedding"] = grads["embedding"].at[model_config.pad_token_id].set(0)
        if rules.freeze_router and "moe" in grads:
            grads["moe"]["router"] = jnp.zeros_like(grads["moe"]["router"])  # no part of the norm either
        grad_norm = optax.tree.norm(grads)
        old_opt_state = sharding.fetch(state.opt_state, placed.opt_state)
        updates, opt_state = optimizer.update(grads, old_opt_state, trained)
        rounding = jax.random.fold_in(keys.key(config.seed, "rounding"), state.step)
        params = apply_updates(trained, updates, rounding if rules.stochastic_rounding else None)
        load_NE = sums.pop("expert_load")
        if rules.expert_bias_rate:
            params["moe"]["expert_bias"] = evened(params["moe"]["expert_bias"], load_NE, rules.expert_bias_rate)
        if rules.ema_decay:
            opt_state = opt_state._replace(ema=moved_average(opt_state.ema, params, state.step, rules.ema_decay))
        is_applied = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & (loss <= loss_limit)
        updated, before = (params, opt_state), (trained, old_opt_state)
        params, opt_state = jax.tree.map(lambda new, old: jnp.where(is_applied, new, old), updated, before)
        state = TrainState(state.step + 1, {**params, **frozen}, opt_state)
        metrics = expert_statistics(load_NE) | sums
        if config.log.expert_load:
            metrics |= load_histogram(load_NE, model_config.first_k_dense_replace)
        metrics |= {"loss": loss, "grad_norm": grad_norm, "is_applied": is_applied}
        return state, metrics

    whole = sharding.replicated(mesh)
    options = TPU_OPTIONS if sharding.platform(mesh) == "tpu" else None
    return jax.jit(step, donate_argnums=(0,), out_shardings=(placed, whole), compiler_options=options)


def make_validation_step(config: Config, model_config: ModelConfig, mesh: Mesh) -> Callable[[Any, Batch], Metrics]:
    """`sums = validation_step(params, rows)`: `loss` by the run's own normalisation, and the sums of `role_sums`.

    `rows` are all validation rows, a multiple of a micro-batch; they pass through the model one micro-batch after
    another. Targets are counted over all of them first, so that no sum depends on how the rows are cut.
    """
    micro_rows = config.train.batch_size // config.train.accumulation_steps

    def step(params: Any, rows: Batch) -> Metrics:
        num_micro = rows.tokens.shape[0] // micro_rows

        def split(x: jax.Array) -> jax.Array:
            x = x.reshape(num_micro, micro_rows, *x.shape[1:])
            return jax.lax.with_sharding_constraint(x, sharding.micro_rows(mesh))

        def one(micro: tuple[Batch, jax.Array]) -> tuple[jax.Array, Metrics]:
            return batch_loss(params, *micro, config, model_config, mesh)

        losses, sums = jax.lax.map(one, jax.tree.map(split, (rows, target_weights(rows, config.loss))))
        sums = jax.tree.map(lambda x: x.sum(0), sums)
        return expert_statistics(sums.pop("expert_load")) | sums | {"loss": losses.sum()}

    return jax.jit(step, out_shardings=sharding.replicated(mesh))
