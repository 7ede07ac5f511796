"""LoRA (Hu et al., arXiv 2106.09685): small trained factors beside frozen weights, which may be held in 8 bits.

    y = x W + alpha / rank * (x A) B        A ~ U(+-1/sqrt(in)), B = 0: the first output is the base's, bit for bit

    embedding, final_norm, head      frozen
    dense/NAME, moe/NAME             frozen; matrices in 8 bits: {bits: int8 [.., in, out], scale: float32 [.., out]}
    lora/dense/NAME/{a, b}           trained, float32: a [N, in, r], b [N, r, out]; of experts [N, E, ..];
    lora/moe/NAME/{a, b}             of gate and up a pair each, a [N, (E,) D, 2, r], b [N, (E,) r, 2, F]

Both are read from the declarations of the weights (`transformer.parameters`). Eight bits are for the matrices of the
layers, 96% of LLaDA2-mini. Embedding and head stay: rows are looked up in the one and losses made of the other outside
of the layers, where nothing widens them a layer at a time. So do norms, and the router, whose choice among experts
hangs on differences of less than a thousandth: both are small.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util

from anyorder_jax.config import LORA_TARGETS, LoRAConfig
from anyorder_jax.model.layers import Pair, Parameter, uniform

MATRICES = dict(
    zip(
        LORA_TARGETS,
        (
            ("query_key_value", "attention_output"),
            ("gate_up", "down"),
            ("shared_gate_up", "shared_down"),
            ("expert_gate_up", "expert_down"),
        ),
        strict=True,
    )
)
"""The weights that each of `config.lora.targets` names; all of them can be held in 8 bits."""

ALL_MATRICES = frozenset(name for own in MATRICES.values() for name in own)
LARGEST = 127
Tree = dict[str, Any]


def split(params: Tree) -> tuple[Tree, Tree]:
    """(what is trained, what is frozen): the factors and the rest, or everything and nothing. `{**one, **other}` joins
    them."""
    if "lora" not in params:
        return params, {}
    return {"lora": params["lora"]}, {name: node for name, node in params.items() if name != "lora"}


def is_targeted(name: str, config: LoRAConfig) -> bool:
    """Whether the weight of this name gets factors."""
    return config.rank > 0 and any(name in MATRICES[target] for target in config.targets.split(","))


def _num_lead(name: str) -> int:
    """Dims of a layer's own weight before [in, .., out]: experts."""
    return int(name in MATRICES["experts"])


def in_dim(name: str) -> int:
    """Which dim of a stacked weight [N, (E,) in, .., out] counts inputs."""
    return 1 + _num_lead(name)


def declare(declared: Tree, config: LoRAConfig) -> Tree:
    """The tree of a model's declared weights, with factors, and with bits and scales in place of matrices."""
    if not config.rank:
        return declared
    flat, factors = {}, {}
    for path, weight in traverse_util.flatten_dict(declared).items():
        name = path[-1]
        if name not in ALL_MATRICES:
            flat[path] = weight
            continue
        i = in_dim(name)
        shape, axes, r = weight.shape, weight.axes, (config.rank,)
        if is_targeted(name, config):
            a = (*shape[: i + 1], *shape[i + 1 : -1], *r), (*axes[:-1], "rank"), uniform(shape[i])
            b = (*shape[:i], *r, *shape[i + 1 :]), (*axes[:i], "rank", *axes[i + 1 :]), jax.nn.initializers.zeros
            for key, (own_shape, own_axes, init) in (("a", a), ("b", b)):
                factors["lora", *path, key] = Parameter(own_shape, jnp.dtype(jnp.float32), own_axes, init)
        flat |= {path: weight} if config.base_dtype != "int8" else _bits_and_scale(path, weight)
    return traverse_util.unflatten_dict({**flat, **factors})


def declare_in_bits(declared: Tree) -> Tree:
    """The tree of declared weights with bits and scales in place of the layers' matrices: a model that is only used can
    be held so with factors and without; `widen` reads the form off the tree."""
    flat: dict[tuple[str, ...], Parameter] = {}
    for path, weight in traverse_util.flatten_dict(declared).items():
        flat |= _bits_and_scale(path, weight) if path[-1] in ALL_MATRICES else {path: weight}
    return traverse_util.unflatten_dict(flat)


def _bits_and_scale(path: tuple[str, ...], weight: Parameter) -> dict[tuple[str, ...], Parameter]:
    i = in_dim(path[-1])
    shape, axes = ((*x[:i], *x[i + 1 :]) for x in (weight.shape, weight.axes))
    return {
        (*path, "bits"): weight._replace(dtype=jnp.dtype(jnp.int8)),
        (*path, "scale"): Parameter(shape, jnp.dtype(jnp.float32), axes, weight.init),
    }


def quantise(weight: jax.Array, in_dim: int) -> Tree:
    """Symmetric 8 bits: weight ~ bits * scale, with a scale for each output (of each layer and expert).

    scale = max |weight| over the inputs / 127; bits are rounded to the nearest, ties to even.
    """
    wide = weight.astype(jnp.float32)
    largest = jnp.abs(wide).max(in_dim, keepdims=True)
    scale = jnp.where(largest > 0, largest, 1) / LARGEST
    return {"bits": jnp.round(wide / scale).astype(jnp.int8), "scale": scale.squeeze(in_dim)}


def hold(base: Tree, config: LoRAConfig) -> Tree:
    """A plain model's tree as the configuration wants it held: matrices as bits and scales, or as they are."""
    if config.base_dtype != "int8":
        return base
    flat = traverse_util.flatten_dict(base)
    held = {path: quantise(x, in_dim(path[-1])) if path[-1] in ALL_MATRICES else x for path, x in flat.items()}
    return traverse_util.unflatten_dict(held)


def is_in_bits(node: Any) -> bool:
    """Whether a node of the tree is a matrix in 8 bits."""
    return isinstance(node, Mapping) and "bits" in node


def _wide(name: str, held: Any, num_stacked: int, dtype: Any) -> jax.Array:
    if not is_in_bits(held):
        return held
    scale = jnp.expand_dims(held["scale"], num_stacked + _num_lead(name))
    return (held["bits"].astype(jnp.float32) * scale).astype(dtype)


def widen(layer: Tree, dtype: Any) -> Tree:
    """One layer's weights as its products use them: 8 bits times their scales, in `dtype`; others as they are."""
    return {name: _wide(name, held, 0, dtype) for name, held in layer.items()}


class Factors(NamedTuple):
    """The factors of both stacks of layers: {weight: {"a": .., "b": ..}}, empty where there are none."""

    dense: Tree
    moe: Tree


def factors(params: Tree, config: LoRAConfig) -> Factors:
    """Those of a tree.

    Raises:
      ValueError: when the tree holds factors and the configuration none, or the other way round.
    """
    if ("lora" in params) != (config.rank > 0):
        raise ValueError(
            f"config.lora.rank is {config.rank}, but the parameters hold {'' if 'lora' in params else 'no '}factors. "
            "Pass the configuration that the parameters were made with."
        )
    own = params["lora"] if config.rank else {}
    return Factors(*(own.get(group, {}) for group in Factors._fields))


def pairs(layer: Tree, config: LoRAConfig, dtype: Any) -> dict[str, Pair]:
    """One layer's factors as its products use them."""
    found = {}
    for name, own in layer.items():
        lead = _num_lead(name)
        a, b = own["a"], own["b"] * (config.alpha / config.rank)
        if a.ndim == lead + 2:  # one matrix, not two side by side
            a, b = jnp.expand_dims(a, lead + 1), jnp.expand_dims(b, lead + 1)
        found[name] = Pair(a.astype(dtype), b.astype(dtype))
    return found


def fold(params: Tree, config: LoRAConfig) -> Tree:
    """The plain model's tree with W + alpha / rank * A B, computed in float32 a layer at a time and rounded once.

    What was held in 8 bits gets the dtype of the embedding.
    """
    if not config.rank:
        return params
    own, base = (traverse_util.flatten_dict(x, is_leaf=lambda _, node: is_in_bits(node)) for x in split(params))
    dtype = params["embedding"].dtype

    def folded(path: tuple[str, ...], held: Any) -> jax.Array:
        pair = {key: own["lora", *path, key] for key in "ab"} if ("lora", *path, "a") in own else None
        if pair is None and not is_in_bits(held):
            return held

        def one(layer: tuple[Any, Any]) -> jax.Array:
            weight = _wide(path[-1], layer[0], 0, jnp.float32).astype(jnp.float32)
            if layer[1] is None:
                return weight.astype(dtype)
            a, b = pairs({path[-1]: layer[1]}, config, jnp.float32)[path[-1]]
            delta = jnp.einsum("...inr,...rno->...ino", a, b, precision=jax.lax.Precision.HIGHEST)
            return (weight + delta.reshape(weight.shape)).astype(dtype)

        return jax.lax.map(one, (held, pair))

    return traverse_util.unflatten_dict({path: folded(path, held) for path, held in base.items()})
