"""A checkpoint one layer at a time, as the model's tree has it: no more than a layer of it is in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from anyorder_jax import run_directory
from anyorder_jax.config import freeze
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.pretrained import names
from anyorder_jax.pretrained.directory import open_model
from anyorder_jax.pretrained.reader import Reader
from anyorder_jax.pretrained.tree import Leaf, as_tree, contiguous, leaves
from conversion.orbax import own_dtype, run_reader
from conversion.zarr import Index, blocks_of

Weights = dict[str, np.ndarray]
"""The weights of one layer, by the last word of their path, without the dim that counts layers."""


class Checkpoint:
    """A split or merged directory, a run, or one of its steps (LoRA's factors folded in).

    Attributes:
      model_config: what is stored says of itself.
      tokenizer: the directory where its tokenizer should lie.

    Raises:
      ValueError: for names or shapes that are not those that the config asks for, and for a checkpoint that cannot be
        read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._read: Callable[[Leaf, Index], np.ndarray]
        if run_directory.is_run(path):
            run, step = run_directory.find(path)
            folder = run / "checkpoints" / str(step)
            meta = run_directory.read_meta(folder)
            self.model_config, dtype = ModelConfig.from_hf(meta["model"]), freeze(meta["config"]).model.param_dtype
            self.tokenizer = run / "tokenizer"
            self._read, self._finish = run_reader(folder)
        else:
            model = open_model(path)
            self.model_config, dtype = ModelConfig.from_hf(dict(model.config)), own_dtype(model)
            self.tokenizer = self.path
            self._read, self._finish = _directory_reader(Reader(model)), lambda: None
        self.dtype = dtype
        self._leaves = leaves(names.Dims.from_config(self.model_config.to_hf(), "the model"), dtype)

    @property
    def num_bytes(self) -> int:
        return sum(leaf.num_bytes for leaf in self._leaves)

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(leaf.shape) for leaf in self._leaves)

    def top(self, name: str) -> np.ndarray:
        """`embedding` [V, D], `head` [D, V] or `final_norm` [D]."""
        leaf = next(leaf for leaf in self._leaves if leaf.path == (name,))
        return np.asarray(self._read(leaf, tuple(slice(0, dim) for dim in leaf.shape)))

    def layers(self) -> Iterator[tuple[int, str, Weights]]:
        """(number, "dense" or "moe", weights) of every layer in order."""
        config = self.model_config
        for n in range(config.num_hidden_layers):
            group = "dense" if n < config.first_k_dense_replace else "moe"
            place = n if group == "dense" else n - config.first_k_dense_replace
            own = [leaf for leaf in self._leaves if leaf.path[0] == group]
            yield n, group, {leaf.path[-1]: self._layer(leaf, place) for leaf in own}

    def finish(self) -> None:
        """To be called when all was read. Raises ValueError where a run's weights are not those that were saved."""
        self._finish()

    def _layer(self, leaf: Leaf, place: int) -> np.ndarray:
        index = (slice(place, place + 1), *(slice(0, dim) for dim in leaf.shape[1:]))
        return np.asarray(self._read(leaf, index))[0]


def _directory_reader(reader: Reader) -> Callable[[Leaf, Index], np.ndarray]:
    def read(leaf: Leaf, index: Index) -> np.ndarray:
        part = np.empty([slot.stop - slot.start for slot in index], leaf.dtype)
        for block in blocks_of(leaf, index):
            part[block.where] = contiguous(as_tree(reader.read(leaf, block), leaf), leaf.dtype)
        return part

    return read
