"""The norm of every tensor as it is stored, beside that of the part of the model's tree that holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anyorder_jax.model import transformer
from anyorder_jax.pretrained.directory import open_model
from anyorder_jax.pretrained.tree import leaves
from anyorder_jax.progress import Progress
from conversion.copying import Files
from conversion.inspection import norm

TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2}
"""Relative; of a norm summed in float32, and of weights that may have been rounded on the way."""


def compare_norms(directory: str | Path, params: transformer.Params) -> dict[str, np.ndarray]:
    """The norm of every tensor of a split or merged directory beside that of the part of the tree that holds it.

    Returns:
      tensor_names str [n], norm_stored float64 [n], norm_held float64 [n].
    """
    model = open_model(directory)
    all_leaves = leaves(model.dims, params["embedding"].dtype.name)

    @jax.jit  # one program for all weights: float32 copies of them are never whole
    def of_held(params: transformer.Params) -> dict[str, jax.Array]:
        squares = {}
        for leaf in all_leaves:
            node: Any = params
            for key in leaf.path:
                node = node[key]
            for row in leaf.rows:
                part = node if row.half is None else node[..., row.half, :]
                axes = tuple(range(leaf.num_lead, part.ndim))
                squares[f"{leaf.path[0]} {row.hf}"] = jnp.square(part.astype(jnp.float32)).sum(axes)
        return squares

    held = {key: np.sqrt(np.asarray(values, np.float64)) for key, values in of_held(params).items()}
    found = []
    with Files() as files, Progress(model.num_bytes, "norms") as bar:
        for name, tensor in model.tensors.items():
            place = model.places[name]
            bar.update(tensor.num_bytes)
            if tensor.num_bytes == 0:
                continue
            is_dense = place.layer is not None and place.layer < model.dims.num_dense
            group = place.row.leaf if place.layer is None else "dense" if is_dense else "moe"
            values = held[f"{group} {place.row.hf}"]  # [layers, experts], those dims that the leaf has
            if place.layer is not None:
                values = values[place.layer - (0 if is_dense else model.dims.num_dense)]
            if place.expert is not None:
                values = values[place.expert]
            found.append((name, norm(tensor, files)[0], float(np.sqrt(np.square(values).sum()))))
    names, stored, loaded = zip(*found, strict=True)
    return {"tensor_names": np.array(names), "norm_stored": np.array(stored), "norm_held": np.array(loaded)}


def report(norms: dict[str, np.ndarray], dtype: str, *, shows_all: bool) -> bool:
    """Prints the largest relative difference, or every norm; True when it is within the tolerance."""
    if shows_all:
        print(f"{'stored':>14} {'held':>14}  tensor")
        for name, stored, held in zip(*norms.values(), strict=True):
            print(f"{stored:14.7g} {held:14.7g}  {name}")
    gap = np.abs(norms["norm_held"] - norms["norm_stored"]) / np.maximum(norms["norm_stored"], 1e-30)
    worst = int(np.argmax(gap))  # the first NaN, if there is one
    is_good = bool(gap[worst] <= TOLERANCES[dtype])
    print(
        f"norms of {len(gap)} tensors, stored and held: largest relative difference {gap[worst]:.1e} "
        f"({norms['tensor_names'][worst]}){'' if is_good else '  NOT the same tensors'}"
    )
    return is_good
