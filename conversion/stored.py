"""The weights of a run's step as files, read part by part and compared with the digests that were saved with them."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anyorder_jax import digest, run_directory
from anyorder_jax.pretrained.tree import Leaf
from anyorder_jax.progress import Progress
from conversion.threads import in_threads
from conversion.zarr import Index, StoredArray, blocks_of


class StoredParams:
    """Reads parts of a step's weights; `finish` tells whether what was read is what was written. Threads may share one.

    Args:
      folder: RUN/checkpoints/STEP.
      all_leaves: everything that is stored there.
    """

    def __init__(self, folder: Path, all_leaves: Sequence[Leaf]) -> None:
        self.folder, self._leaves = folder, sorted(all_leaves, key=lambda leaf: leaf.path)  # as JAX orders a tree
        self._meta: Mapping[str, Any] = run_directory.read_meta(folder)
        self._digests: dict[str, dict[Any, int]] = defaultdict(dict)  # of parts that were read, each once

    @functools.cache  # noqa: B019  (lives as long as the export)
    def array(self, leaf: Leaf) -> StoredArray:
        """The array of a weight, of which nothing but the description was read.

        Raises:
          ValueError: when it is not there, or of another shape or dtype than the checkpoint's description says.
        """
        array = StoredArray(self.folder / "params", leaf.path)
        if array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise ValueError(
                f"{self.folder}: {leaf.name} is {array.dtype} {list(array.shape)}, expected {leaf.dtype} "
                f"{list(leaf.shape)} as the checkpoint's own description says. It is damaged: use another step."
            )
        return array

    def __call__(self, leaf: Leaf, index: Index) -> np.ndarray:
        """The part `index` of a weight. Parts must be the same whenever they are read again, and not overlap."""
        part = self.array(leaf).read(index)
        known, key = self._digests[leaf.name], tuple((i.start, i.stop) for i in index)
        if key not in known:
            known[key] = digest.of_part(part, index, leaf.shape)
        return part

    def compare(self) -> str:
        """Reads everything, and says in words what that has told.

        Raises:
          ValueError: as `finish`.
        """
        work = [
            (leaf, block.place_in(leaf))
            for leaf in self._leaves
            for block in blocks_of(leaf, [slice(0, dim) for dim in leaf.shape])
        ]
        with Progress(sum(leaf.num_bytes for leaf in self._leaves), "read") as bar:
            for part in in_threads(lambda item: self(*item), work):
                bar.update(part.nbytes)
        self.finish()
        if "digests" in self._meta:
            return "as they were saved (by their digests)"
        return "can be read; nothing was saved to compare them with (an early version wrote them)"

    def finish(self) -> None:
        """Raises ValueError unless all weights were read, and are those that were written."""
        found = [sum(self._digests[leaf.name].values()) % 2**32 for leaf in self._leaves]
        if digest.wrong_items({"params": found}, self._meta):
            written = self._meta["digests"]["params"]
            wrong = [leaf.name for leaf, a, b in zip(self._leaves, found, written, strict=False) if a != b]
            raise ValueError(
                f"{self.folder}: this checkpoint is damaged ({', '.join(wrong[:3])}: other bytes than were written). "
                "Name another step, or put back a copy."
            )
