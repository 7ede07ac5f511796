"""Other ways to read a checkpoint: each undoes one known fault, and a loss that falls names it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anyorder_jax.model.config import ModelConfig

LayerWeights = Mapping[str, jax.Array]
Edit = Callable[[int, LayerWeights], LayerWeights]
"""(number of a layer, its weights) -> the weights that it is to have."""

BASES = (1e2, 1e3, 1e4, 1e5, 5e5, 6e5, 1e6, 5e6)
EPSILONS = (1e-6, 1e-5)
"""Published configurations have the first; the reference's class has the second where config.json is silent."""


class Alternative(NamedTuple):
    """A reading that undoes a fault.

    fault: its name, for programs. sentence: what is wrong, for people. config: what it is read with. layers: those that
    `edit` changes (without one the reading differs from its beginning). shift, head_shift: of ids into embedding and
    head.
    """

    fault: str
    sentence: str
    config: ModelConfig
    layers: range = range(0)
    edit: Edit | None = None
    shift: int = 0
    head_shift: int = 0

    @property
    def first(self) -> int:
        """The layer from which on it differs from the checkpoint as it is."""
        return self.layers.start if self.edit is not None else 0


def of_config(config: ModelConfig) -> Iterator[Alternative]:
    """Other rotary widths and bases, other epsilons, ids that are off by one."""
    width, head = config.rotary_dim, config.head_dim
    for other in sorted({head, head // 2, head // 4}):
        if other != width and other >= 2 and other % 2 == 0:
            changed = dataclasses.replace(config, partial_rotary_factor=other / head)
            said = f"the weights were trained with rotary positions over {other} dims of a head, not {width}"
            yield Alternative("rotary width", f"{said} (partial_rotary_factor should be {other / head:g})", changed)
    for base in BASES:
        if abs(base / config.rope_theta - 1) > 0.01:
            said = f"the weights were trained with another rotary base: {base:g} fits better than the config's "
            changed = dataclasses.replace(config, rope_theta=base)
            yield Alternative("rotary base", f"{said}rope_theta = {config.rope_theta:g}", changed)
    for epsilon in EPSILONS:
        if epsilon != config.rms_norm_eps:
            said = f"rms_norm_eps = {config.rms_norm_eps:g} is not what the weights were trained with: {epsilon:g} fits"
            yield Alternative("norm epsilon", said, dataclasses.replace(config, rms_norm_eps=epsilon))
    for shift in (1, -1):
        where = f"row {'i + 1' if shift > 0 else 'i - 1'} holds what token i needs"
        said = f"is shifted by one: {where}"
        yield Alternative("embedding shifted", f"the embedding (model.word_embeddings) {said}", config, shift=shift)
        yield Alternative("head shifted", f"the head (lm_head) {said}", config, head_shift=shift)
        both = f"the embedding and the head {said}; so may be the tokenizer's ids"
        yield Alternative("ids shifted", both, config, shift=shift, head_shift=shift)


def _turned(x: jax.Array, num_lead: int) -> jax.Array:
    """Matrices [.., in, out] whose numbers were stored as those of their transposes: turned back."""
    body = x.shape[num_lead:]
    return x.swapaxes(-1, -2).reshape(*x.shape[:num_lead], *body)


def _on(name: str, change: Callable[[jax.Array], jax.Array]) -> Edit:
    return lambda n, weights: {**weights, name: change(weights[name])}


def _turned_half(x: jax.Array, half: int) -> jax.Array:
    own = _turned(x[..., half, :], x.ndim - 3)
    return jnp.stack([own, x[..., 1, :]] if half == 0 else [x[..., 0, :], own], axis=-2)


def edits(names: Mapping[str, object]) -> Iterator[tuple[str, str, Edit]]:
    """(fault, tensors that have it, what undoes it) for a layer that has weights of these names."""
    kinds = {"expert_gate_up": "mlp.experts.*", "shared_gate_up": "mlp.shared_experts", "gate_up": "mlp"}
    for name, prefix in kinds.items():
        if name in names:
            both = f"{prefix}.gate_proj and up_proj"
            yield "gate and up swapped", both, _on(name, lambda x: x[..., ::-1, :])
            for half, part in enumerate(("gate_proj", "up_proj")):
                tensor = f"{prefix}.{part}"
                yield "transposed", tensor, _on(name, lambda x, half=half: _turned_half(x, half))  # type: ignore[misc]
    downs = {"expert_down": "mlp.experts.*.down_proj", "shared_down": "mlp.shared_experts.down_proj"}
    whole = {"query_key_value": "attention.query_key_value", "attention_output": "attention.dense"}
    for name, tensor in {**whole, "router": "mlp.gate", "down": "mlp.down_proj", **downs}.items():
        if name in names:
            num_lead = int(name == "expert_down")
            yield "transposed", tensor, _on(name, lambda x, lead=num_lead: _turned(x, lead))  # type: ignore[misc]


_VERBS = {"gate and up swapped": "are swapped", "transposed": "is stored transposed"}


def of_layers(config: ModelConfig, layers: range, names: Mapping[str, object]) -> Iterator[Alternative]:
    """Matrices that are turned or swapped, in the layers `layers`."""
    where = f"layer {layers.start}" if len(layers) == 1 else f"layers {layers.start} to {layers.stop - 1}"
    for fault, tensors, edit in edits(names):
        yield Alternative(fault, f"{where}: {tensors} {_VERBS[fault]}", config, layers, edit)


def reordered(order_E: np.ndarray) -> Edit:
    """The experts in another order: slot e gets expert order_E[e]."""

    def edit(n: int, weights: LayerWeights) -> LayerWeights:
        return {**weights, **{name: weights[name][order_E] for name in ("expert_gate_up", "expert_down")}}

    return edit


def by_layer(edits: Mapping[int, Edit]) -> Edit:
    """What is found for a layer when the pass comes to it; other layers as they are."""
    return lambda n, weights: edits[n](n, weights) if n in edits else weights


def with_bias(bias_E: np.ndarray) -> Edit:
    """The edit that gives every router these biases, float [E], in place of its own."""
    return lambda n, weights: {**weights, "expert_bias": jnp.asarray(bias_E)}


def of_orders(config: ModelConfig, layers: range) -> Iterator[Alternative]:
    """Experts whose numbers were sorted as words, as file names are: 0, 1, 10, 11, 2, ..."""
    as_words = np.array(sorted(range(config.num_experts), key=str))
    if (as_words != np.arange(config.num_experts)).any():
        said = "the experts were sorted as words (0, 1, 10, 11, 2, ...), and their routers were not"
        for order_E in (np.argsort(as_words), as_words):
            yield Alternative("experts permuted", said, config, layers, reordered(order_E))
