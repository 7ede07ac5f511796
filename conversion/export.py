"""From sharded device arrays into a split or merged checkpoint, a chunk at a time: `load` in the other direction."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from anyorder_jax.model import transformer
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.pretrained import names
from anyorder_jax.pretrained.load import Leaf, Window, leaves, windows
from anyorder_jax.pretrained.shards import NUMPY_DTYPES, STORED_NAMES, Spec
from conversion.copying import write_all
from conversion.writing import MAX_SHARD_BYTES, Plan, Target, config_text, make_plan, written


def _stored_dtype(leaf: Leaf, row: names.Row, dtype: str, dtypes: Mapping[str, str]) -> str:
    if dtype:
        return STORED_NAMES[dtype]
    return dtypes[row.hf] if row.hf in dtypes else STORED_NAMES[jnp.dtype(leaf.parameter.dtype).name]


def specs(
    all_leaves: list[Leaf], model_config: ModelConfig, layout: str, dtype: str, dtypes: Mapping[str, str]
) -> list[Spec]:
    """The tensors of the checkpoint in the reference's order: the experts of all layers first, then the rest."""
    stored = {row.hf: _stored_dtype(leaf, row, dtype, dtypes) for leaf in all_leaves for row in leaf.rows}
    dims = names.Dims.from_config(model_config.to_hf(), "the model")
    found = [
        Spec(name, stored[place.row.hf], place.shape)
        for name, place in names.expected(dims, layout).items()
        if not place.is_optional
    ]
    return sorted(found, key=lambda spec: ".experts." not in spec.name)  # stable


@functools.partial(jax.jit, static_argnames=("sizes", "half_axis"))
def _cut(leaf: jax.Array, start: tuple[int, ...], *, sizes: tuple[int, ...], half_axis: int | None) -> jax.Array:
    """A part of a leaf as the tree holds it. Cut and turned in two programs, as in `load`."""
    part = jax.lax.dynamic_slice(leaf, start, sizes)
    return part if half_axis is None else jnp.squeeze(part, half_axis)


@functools.partial(jax.jit, static_argnames=("is_transposed", "dtype"))
def _turn(part: jax.Array, *, is_transposed: bool, dtype: Any) -> jax.Array:
    """The part as it lies on disk: [layers, experts, *stored dims], those that the leaf has."""
    return (jnp.swapaxes(part, -1, -2) if is_transposed else part).astype(dtype)


def _part(leaf: Leaf, row: names.Row, window: Window, array: jax.Array, dtype: str) -> jax.Array:
    half_axis = None if row.half is None else leaf.num_lead + 1
    part = _cut(array, window.start, sizes=window.sizes, half_axis=half_axis)
    return _turn(part, is_transposed=row.is_transposed, dtype=NUMPY_DTYPES[dtype])


def _to_host(part: jax.Array) -> np.ndarray:
    if part.is_fully_addressable:
        return np.asarray(part)
    return np.asarray(multihost_utils.process_allgather(part, tiled=True))


def _parts(
    params: transformer.Params, all_leaves: list[Leaf], dtype: str, dtypes: Mapping[str, str]
) -> Iterator[tuple[Leaf, names.Row, Window, np.ndarray]]:
    before = None  # the device works on one part while the host writes the one before it
    for leaf in all_leaves:
        array: Any = functools.reduce(lambda node, key: node[key], leaf.path, params)
        whole = [slice(0, dim) for dim in array.shape]
        for row in leaf.rows:
            stored = _stored_dtype(leaf, row, dtype, dtypes)
            for window in windows(leaf, row, whole):
                part = _part(leaf, row, window, array, stored)
                if before is not None:
                    yield *before[:3], _to_host(before[3])
                before = leaf, row, window, part
    if before is not None:
        yield *before[:3], _to_host(before[3])


def _write_part(
    target: Target, leaf: Leaf, row: names.Row, window: Window, part: np.ndarray, layout: str, num_dense: int
) -> None:
    """Writes a part; in the merged layout the experts of a layer are neighbours, in the split one each is a tensor."""
    first = num_dense if leaf.path[0] == "moe" else 0
    tensors = part.reshape(len(window.layers), len(window.experts), *part.shape[leaf.num_lead :])
    row_bytes = tensors[0, 0, 0].nbytes
    offset = window.stored[0].start * row_bytes  # within each tensor, of which the window may hold some rows
    for layer, experts in zip(window.layers, tensors, strict=True):
        if row.merged_hf and layout == "merged":
            descriptor, start = target.place(row.merged_hf.format(i=first + layer))
            expert_bytes = leaf.parameter.shape[-1] * row_bytes  # the tree's last dim is the first on disk
            write_all(descriptor, _bytes(experts), start + window.experts.start * expert_bytes + offset)
            continue
        for expert, values in zip(window.experts, experts, strict=True):
            descriptor, start = target.place(row.hf.format(i=first + layer, e=expert))
            write_all(descriptor, _bytes(values), start + offset)


def _bytes(values: np.ndarray) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def plan_export(
    model_config: ModelConfig,
    directory: str | Path,
    layout: str,
    *,
    param_dtype: str,
    dtype: str = "",
    dtypes: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    carried: Mapping[Path, Path] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Plan:
    """What `export_params` will write; the arguments are explained there."""
    all_specs = specs(leaves(model_config, param_dtype), model_config, layout, dtype, dtypes or {})
    if config is None:
        config = model_config.to_hf(is_merged=layout == "merged", dtype=dtype or param_dtype)
    text = config_text(config, layout, dtype)
    return make_plan(directory, all_specs, text, carried=carried, max_shard_bytes=max_shard_bytes)


def export_params(
    params: transformer.Params,
    model_config: ModelConfig,
    directory: str | Path,
    layout: str,
    *,
    dtype: str = "",
    dtypes: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    carried: Mapping[Path, Path] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes the model as a split or merged checkpoint; the host holds one chunk of at most 64 MiB at a time.

    Args:
      params: the model's tree, on any mesh (with several hosts each calls this, the first one writes).
      layout: "split" or "merged".
      dtype: "bfloat16" or "float32" for every tensor, or "" to keep them: as in `dtypes`, else as the tree
        has them.
      dtypes: name of a table row -> the safetensors dtype that its tensors had when they were loaded.
      config: values of the `config.json` to carry along (None: `model_config.to_hf()`).
      carried: other files: relative path -> where it is now.

    Raises:
      ValueError: when the directory holds something, or the disk has not the room.
    """
    param_dtype = jnp.dtype(params["embedding"].dtype).name
    all_leaves = leaves(model_config, param_dtype)
    plan = plan_export(
        model_config, directory, layout, param_dtype=param_dtype, dtype=dtype, dtypes=dtypes, config=config,
        carried=carried, max_shard_bytes=max_shard_bytes,
    )  # fmt: skip
    parts = _parts(params, all_leaves, dtype, dtypes or {})
    if jax.process_index() != 0:
        for _ in parts:  # takes part in gathering
            pass
        return
    with tqdm(total=plan.num_bytes, unit="B", unit_scale=True, desc=layout) as bar, written(plan) as target:
        for leaf, row, window, part in parts:
            _write_part(target, leaf, row, window, part, layout, model_config.first_k_dense_replace)
            bar.update(part.nbytes)
