"""Blocks of the tree's weights out of the byte ranges of a split or merged checkpoint."""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from anyorder_jax.pretrained import names
from anyorder_jax.pretrained.directory import ModelDirectory
from anyorder_jax.pretrained.shards import numpy_dtype
from anyorder_jax.pretrained.tree import Block, Leaf, has_nan


class Reader:
    """Stored tensors as arrays over mapped files: pages of the file, never memory of ours. Threads may share one."""

    def __init__(self, model: ModelDirectory) -> None:
        self.model = model
        self.nan_names: set[str] = set()  # tensors in which NaN was seen
        self._maps: dict[Path, mmap.mmap] = {}

    def name(self, leaf: Leaf, row: names.Row, layer: int, expert: int) -> str:
        """What the tensor is called on disk; layers count within the leaf.

        Args:
          leaf, row: the line of the table of names.
          layer: counted within the leaf, where the tensor is a layer's.
          expert: its number, where the tensor is an expert's.
        """
        first = self.model.dims.num_dense if leaf.path[0] == "moe" else 0
        is_merged = row.merged_hf and self.model.layout == "merged"
        return (row.merged_hf if is_merged else row.hf).format(i=first + layer, e=expert)

    def view(self, leaf: Leaf, row: names.Row, layer: int, expert: int) -> np.ndarray:
        """One tensor of the split layout, whichever the layout on disk.

        Args:
          leaf, row, layer, expert: as `name`.
        """
        tensor = self.model.tensors[self.name(leaf, row, layer, expert)]
        if tensor.path not in self._maps:
            with tensor.path.open("rb") as file:
                self._maps[tensor.path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        whole: np.ndarray = np.ndarray(tensor.shape, numpy_dtype(tensor.dtype), self._maps[tensor.path], tensor.start)
        return whole[expert] if row.merged_hf and self.model.layout == "merged" else whole

    def read(self, leaf: Leaf, block: Block, empty: Callable[..., np.ndarray] = np.empty) -> np.ndarray:
        """A block as it lies on disk, copied: [layers, experts, halves, *stored dims] in the dtype on disk.

        empty: (shape, dtype) -> the array to copy into.
        """
        parts = {
            (i, e, h): self.view(leaf, row, layer, expert)[block.stored]
            for i, layer in enumerate(block.layers)
            for e, expert in enumerate(block.experts)
            for h, row in enumerate(leaf.rows)
        }
        dtypes = {part.dtype for part in parts.values()}
        dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
        shape = (len(block.layers), len(block.experts), len(leaf.rows), *parts[0, 0, 0].shape)
        stored = empty(shape, dtype)
        for (i, e, h), part in parts.items():
            stored[i, e, h] = part
            if has_nan(stored[i, e, h]):
                self.nan_names.add(self.name(leaf, leaf.rows[h], block.layers[i], block.experts[e]))
        return stored

    def warn_of_nan(self) -> None:
        """Warns of every tensor in which NaN was read, by name."""
        for name in sorted(self.nan_names):
            warnings.warn(f"{self.model.path}: {name} holds NaN.", stacklevel=3)
