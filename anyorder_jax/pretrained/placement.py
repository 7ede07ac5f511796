"""How the weights lie on a mesh that need not be here."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from jax.sharding import AbstractMesh, AxisType

from anyorder_jax import sharding
from anyorder_jax.model import transformer
from anyorder_jax.model.config import ModelConfig


def shard_shapes(model_config: ModelConfig, sizes: Mapping[str, int]) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Path of a weight -> the shape of one device's part of it.

    Args:
      sizes: devices per axis of the mesh; axes that are not named have one.
    """
    whole = dict.fromkeys(sharding.AXES, 1) | dict(sizes)
    mesh = AbstractMesh(tuple(whole.values()), tuple(whole), axis_types=(AxisType.Auto,) * len(whole))
    parameters = transformer.parameters(model_config, "float32")
    placed = sharding.weight_shardings(parameters, mesh)  # type: ignore[arg-type]  # needs no devices
    flat = jax.tree_util.tree_flatten_with_path(parameters, is_leaf=lambda node: hasattr(node, "axes"))[0]
    shapes = [s.shard_shape(p.shape) for (_, p), s in zip(flat, jax.tree.leaves(placed), strict=True)]
    return {tuple(key.key for key in path): shape for (path, _), shape in zip(flat, shapes, strict=True)}
