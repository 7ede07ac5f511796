"""TrainState: what an update changes. Everything else of a run is configuration or data."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from anyorder_jax import sharding
from anyorder_jax.config import NO_LORA, LoRAConfig
from anyorder_jax.model import lora, transformer
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.optimizer import LABELS


class TrainState(NamedTuple):
    """step: int32 [], updates done. params: the model's tree. opt_state: the optimizer's, of what is trained."""

    step: jax.Array
    params: Any
    opt_state: Any


def abstract_params(
    model_config: ModelConfig,
    mesh: Mesh,
    param_dtype: Any,
    lora_config: LoRAConfig = NO_LORA,
    *,
    is_in_bits: bool = False,
) -> Any:
    """The model's tree as `ShapeDtypeStruct`s that say where each weight lies on the mesh.

    Args:
      model_config: the model's shape.
      mesh: where the weights lie.
      param_dtype: of the weights.
      lora_config: with a rank, factors are among them.
      is_in_bits: the layers' matrices are held in 8 bits, also of a model without factors (which cannot be trained so).
    """
    parameters = transformer.parameters(model_config, param_dtype, lora_config)
    if is_in_bits:
        parameters = lora.declare_in_bits(parameters)
    return jax.tree.map(
        lambda p, s: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=s),
        parameters, sharding.weight_shardings(parameters, mesh), is_leaf=lambda p: hasattr(p, "axes"),
    )  # fmt: skip


def state_shardings(
    model_config: ModelConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    param_dtype: Any,
    lora_config: LoRAConfig = NO_LORA,
    offload: bool = False,
) -> tuple[TrainState, TrainState]:
    """(shapes, shardings) of the state, without allocating it. A moment lies where its weight lies, with `offload` on
    the host.

    Args:
      model_config: the model's shape.
      optimizer: whose state it is.
      mesh: of the devices.
      param_dtype: of the weights.
      lora_config: with a rank, factors are trained.
      offload: moments wait on the host.
    """
    shapes = abstract_params(model_config, mesh, param_dtype, lora_config)
    whole = sharding.replicated(mesh)
    by_path = {_dict_keys(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}

    def place(path: Any, moment: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        weight = by_path.get(_dict_keys(path))
        lies = whole
        if (
            weight is not None and weight.ndim == moment.ndim
        ):  # its scales, fewer by block, are split as far as they can
            lies = sharding.fitting(weight.sharding, moment.shape)
        lies = sharding.on_host(lies) if offload and moment.ndim else lies
        return jax.ShapeDtypeStruct(moment.shape, moment.dtype, sharding=lies)

    opt_shapes = jax.tree_util.tree_map_with_path(place, jax.eval_shape(optimizer.init, lora.split(shapes)[0]))
    step: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
    state = TrainState(step, shapes, opt_shapes)
    return state, jax.tree.map(lambda leaf: leaf.sharding, state)


def _dict_keys(path: Any) -> tuple[str, ...]:
    """The part of a path that names a weight: an optimizer wraps the model's dictionaries in its own tuples, and
    `optax.partition` in dictionaries of labels."""
    keys = tuple(p.key for p in path if isinstance(p, jax.tree_util.DictKey))
    return tuple(itertools.dropwhile(LABELS.__contains__, keys))


def create(
    model_config: ModelConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    param_dtype: Any,
    key: jax.Array,
    lora_config: LoRAConfig = NO_LORA,
    offload: bool = False,
) -> TrainState:
    """A fresh state: weights drawn from their declared initialisers, made where they will live.

    Args:
      model_config: the model's shape.
      optimizer: whose state is made.
      mesh: of the devices.
      param_dtype: of the weights.
      key: of the draws.
      lora_config: with a rank, factors are drawn too.
      offload: moments wait on the host.
    """
    _, placed = state_shardings(model_config, optimizer, mesh, param_dtype, lora_config, offload)

    def init(key: jax.Array) -> TrainState:
        params = transformer.init(model_config, key, param_dtype, lora_config)
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(lora.split(params)[0]))

    return jax.jit(init, out_shardings=placed)(key)


def with_factors(
    base: Any, model_config: ModelConfig, placed: TrainState, param_dtype: Any, key: jax.Array, lora_config: LoRAConfig
) -> Any:
    """The parameters of a LoRA run at step 0: frozen weights that were loaded, and fresh factors.

    Args:
      base: the frozen weights, as they are held.
      model_config: the model's shape.
      placed: the state's shardings.
      param_dtype: of the weights.
      key: of the draws.
      lora_config: declares the factors.
    """
    declared, _ = lora.split(transformer.parameters(model_config, param_dtype, lora_config))
    draw = jax.jit(lambda key: transformer.draw(declared, key), out_shardings=lora.split(placed.params)[0])
    return {**base, **draw(key)}


def from_params(params: Any, optimizer: optax.GradientTransformation, placed: TrainState) -> TrainState:
    """A state at step 0 around weights that were loaded (already placed like `placed.params`)."""
    opt_state = jax.jit(optimizer.init, out_shardings=placed.opt_state)(lora.split(params)[0])
    return TrainState(jax.device_put(jnp.zeros((), jnp.int32), placed.step), params, opt_state)
