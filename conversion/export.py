"""From the arrays of a run's checkpoint into a split or merged model directory, block by block in a few threads."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyorder_jax.model.config import ModelConfig
from anyorder_jax.pretrained import names
from anyorder_jax.pretrained.shards import STORED_NAMES, Spec, numpy_dtype
from anyorder_jax.pretrained.tree import Block, Leaf, as_stored, contiguous, has_nan, leaves
from anyorder_jax.progress import Progress
from conversion.copying import write_all
from conversion.threads import in_threads
from conversion.writing import MAX_SHARD_BYTES, Carried, Plan, Target, config_text, make_plan, written
from conversion.zarr import Index, blocks_of

Read = Callable[[Leaf, Index], np.ndarray]
"""(leaf, a part of it) -> its numbers."""


def _stored_dtype(leaf: Leaf, row: names.Row, dtype: str, dtypes: Mapping[str, str]) -> str:
    if dtype:
        return STORED_NAMES[dtype]
    return dtypes[row.hf] if row.hf in dtypes else STORED_NAMES[leaf.dtype.name]


def _specs(
    all_leaves: Sequence[Leaf], dims: names.Dims, layout: str, dtype: str, dtypes: Mapping[str, str]
) -> list[Spec]:
    """The tensors of the checkpoint in the reference's order: the experts of all layers first, then the rest."""
    stored = {row.hf: _stored_dtype(leaf, row, dtype, dtypes) for leaf in all_leaves for row in leaf.rows}
    found = [
        Spec(name, stored[place.row.hf], place.shape)
        for name, place in names.expected(dims, layout).items()
        if not place.is_optional
    ]
    return sorted(found, key=lambda spec: ".experts." not in spec.name)  # stable


class Writer:
    """Puts blocks of the tree into the open shards of a model directory. Threads may share one."""

    def __init__(self, target: Target, layout: str, num_dense: int, dtypes: Mapping[str, np.dtype]) -> None:
        self._target = target
        self._is_merged = layout == "merged"
        self._num_dense = num_dense
        self._dtypes = dtypes  # by table row
        self.nan_names: set[str] = set()

    def write(self, leaf: Leaf, block: Block, part: np.ndarray) -> int:
        """Writes a block, given as the tree has it; returns the bytes written."""
        stored = as_stored(part, leaf)
        num_bytes = 0
        for half, row in enumerate(leaf.rows):
            values = contiguous(stored[:, :, half], self._dtypes[row.hf])
            self._write_row(leaf, row, block, values)
            num_bytes += values.nbytes
        return num_bytes

    def _write_row(self, leaf: Leaf, row: names.Row, block: Block, values: np.ndarray) -> None:
        """values: [layers, experts, *stored dims]. Experts of a merged layer are neighbours; split ones stand alone."""
        first = self._num_dense if "moe" in leaf.path else 0
        row_bytes = values[0, 0, :1].nbytes
        offset = block.stored[0].start * row_bytes  # within each tensor, of which the block may hold some rows
        for layer, experts in zip(block.layers, values, strict=True):
            if row.merged_hf and self._is_merged:
                expert_bytes = leaf.shape[-1] * row_bytes  # the tree's last dim is the first on disk
                self._put(row.merged_hf.format(i=first + layer), block.experts.start * expert_bytes + offset, experts)
                continue
            for expert, own in zip(block.experts, experts, strict=True):
                self._put(row.hf.format(i=first + layer, e=expert), offset, own)

    def _put(self, name: str, offset: int, values: np.ndarray) -> None:
        if has_nan(values):
            self.nan_names.add(name)
        descriptor, start = self._target.place(name)
        write_all(descriptor, values.reshape(-1).view(np.uint8).data, start + offset)


class Form(NamedTuple):
    """How a model is written.

    layout: "split" or "merged". param_dtype: of the weights. dtype: "bfloat16" or "float32" for every tensor, or "" to
    keep them: as in `dtypes`, else as the tree has them. dtypes: name of a table row -> the safetensors dtype that its
    tensors had when they were loaded. config: values of the `config.json` to carry along (None: those of the model).
    carried: other files: relative path -> where it is now, or its text. max_shard_bytes: of tensors, in a shard.
    """

    layout: str
    param_dtype: str
    dtype: str = ""
    dtypes: Mapping[str, str] = {}
    config: Mapping[str, Any] | None = None
    carried: Carried | None = None
    max_shard_bytes: int = MAX_SHARD_BYTES


def plan_export(model_config: ModelConfig, directory: str | Path, form: Form) -> Plan:
    """What `export_params` will write."""
    dims = names.Dims.from_config(model_config.to_hf(), "the model")
    all_specs = _specs(leaves(dims, form.param_dtype), dims, form.layout, form.dtype, form.dtypes)
    config = form.config
    if config is None:
        config = model_config.to_hf(is_merged=form.layout == "merged", dtype=form.dtype or form.param_dtype)
    text = config_text(config, form.layout, form.dtype)
    return make_plan(directory, all_specs, text, carried=form.carried, max_shard_bytes=form.max_shard_bytes)


def export_params(
    read: Read,
    model_config: ModelConfig,
    directory: str | Path,
    form: Form,
    finish: Callable[[], None] = lambda: None,
) -> None:
    """Writes the model as a split or merged checkpoint; each thread holds a few blocks of at most 32 MiB.

    Args:
      read: gives a part of a weight as the tree has it.
      model_config: the model's shape.
      directory: empty, or not there.
      form: how it is written.
      finish: called when all parts have been read; may raise.

    Raises:
      ValueError: when the directory holds something, or the disk has not the room.
    """
    plan = plan_export(model_config, directory, form)
    all_leaves = leaves(names.Dims.from_config(model_config.to_hf(), "the model"), form.param_dtype)
    numpy_dtypes = {
        row.hf: numpy_dtype(_stored_dtype(leaf, row, form.dtype, form.dtypes))
        for leaf in all_leaves
        for row in leaf.rows
    }
    work = [(leaf, block) for leaf in all_leaves for block in blocks_of(leaf, [slice(0, dim) for dim in leaf.shape])]
    with Progress(plan.num_bytes, "to_hf") as bar, written(plan) as target:
        writer = Writer(target, form.layout, model_config.first_k_dense_replace, numpy_dtypes)

        def convert(item: tuple[Leaf, Block]) -> int:
            leaf, block = item
            return writer.write(leaf, block, read(leaf, block.place_in(leaf)))

        for num_bytes in in_threads(convert, work):
            bar.update(num_bytes)
        finish()
    for name in sorted(writer.nan_names):
        warnings.warn(f"{directory}: {name} holds NaN.", stacklevel=2)
