"""Gradients of both losses and four AdamW steps, by the names and in the layout of the golden files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from anyorder_jax.model import transformer
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.pretrained import names
from anyorder_jax.pretrained.tree import as_stored, leaves

NUM_STEPS = 4
MAX_PARAMETERS = 10**8
"""Beyond it gradients and moments are only made when they are asked for."""

Loss = Callable[[transformer.Params, jax.Array], jax.Array]


def as_named(tree: transformer.Params, model_config: ModelConfig) -> Iterator[tuple[str, np.ndarray]]:
    """(name of the merged layout, array as it lies on disk) of every weight; the router's bias, a buffer, is none."""
    dims = names.Dims.from_config(model_config.to_hf(), "the model")
    for leaf in leaves(dims, "float32"):
        if leaf.path[-1] == "expert_bias":
            continue
        node: Any = tree
        for key in leaf.path:
            node = node[key]
        stored = as_stored(np.asarray(node), leaf)
        first = dims.num_dense if leaf.path[0] == "moe" else 0
        for half, row in enumerate(leaf.rows):
            for layer, values in enumerate(stored[:, :, half], start=first):
                yield (row.merged_hf or row.hf).format(i=layer), values if row.merged_hf else values[0]


def compute(
    model_config: ModelConfig,
    params: transformer.Params,
    loss: Loss,
    labels: Mapping[str, np.ndarray],
    param_names: Sequence[str],
) -> dict[str, np.ndarray]:
    """The arrays `grad_*`, `adamw_*` and `*_pad_row` that `verify` writes and compares.

    Args:
      model_config: the model's shape.
      params: float32.
      loss: of some parameters and labels int32 [B, L].
      labels: "same" and "shift" -> those of the loss. AdamW (learning rate 1e-3, betas 0.9 and 0.999, epsilon 1e-8,
        decay 0.1 on every weight, clipped to norm 1) follows "same".
      param_names: the order of `grad_norms_*`; empty: our own.

    Raises:
      ValueError: for a name that the model has not.
    """
    pad, found = model_config.pad_token_id, {}

    @jax.jit
    def gradient(params: transformer.Params, labels: jax.Array) -> tuple[jax.Array, Any]:
        value, grads = jax.value_and_grad(loss)(params, labels)
        # the reference's embedding has a padding_idx, its router bias is a buffer: neither gets a gradient
        grads["embedding"] = grads["embedding"].at[pad].set(0)
        grads["moe"]["expert_bias"] = jnp.zeros_like(grads["moe"]["expert_bias"])
        return value, grads

    for variant, own_labels in labels.items():
        named = dict(as_named(gradient(params, own_labels)[1], model_config))
        unknown = [name for name in param_names if name not in named]
        if unknown:
            raise ValueError(f"--inputs: param_names has {unknown[0]}, which this model has not.")
        order = list(param_names) or list(named)
        found["param_names"] = np.array(order)
        found[f"grad_norms_{variant}"] = np.array([np.linalg.norm(named[name]) for name in order], np.float32)
        found |= {f"grad_{variant}:{name}": np.ascontiguousarray(named[name]) for name in order}

    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, 0.9, 0.999, 1e-8, weight_decay=0.1))

    @jax.jit
    def step(params: transformer.Params, state: Any, grads: Any) -> tuple[transformer.Params, Any, jax.Array]:
        updates, state = optimizer.update(grads, state, params)
        moved = optax.apply_updates(params, updates)
        moved["moe"]["expert_bias"] = params["moe"]["expert_bias"]
        return moved, state, optax.tree.norm(grads)

    state = jax.jit(optimizer.init)(params)
    found["initial_pad_row"] = np.asarray(params["embedding"][pad])
    values, norms = [], []
    for _ in range(NUM_STEPS):
        value, grads = gradient(params, labels["same"])
        params, state, norm = step(params, state, grads)
        values.append(float(value))
        norms.append(float(norm))
    found["adamw_losses"], found["adamw_grad_norms"] = np.array(values, np.float32), np.array(norms, np.float32)
    found["adamw_final_pad_row"] = np.asarray(params["embedding"][pad])
    return found
