"""The arrays of an Orbax checkpoint as files: written as raw chunks, read from whatever Orbax wrote.

    params/_METADATA                    the tree                  (as Orbax writes it with use_ocdbt=False)
    params/moe.expert_down/.zarray      shape, chunks, dtype      (zarr version 2)
    params/moe.expert_down/3.0.0.0      one chunk: its numbers, row-major, not compressed

Written by hand because it is four times as fast: TensorStore copies every chunk into fresh memory, and Orbax wants
whole arrays on devices. Chunks end where shards of the mesh end, so that a host reads what it needs and no more.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anyorder_jax.pretrained.tree import Block, Leaf, blocks, dtype_of, steps

CHUNK_BYTES = 32 * 2**20
BLOCK_BYTES = 4 * 2**20  # read, turned and written while a processor's cache still holds it
_CACHE_BYTES = 256 * 2**20  # of chunks that TensorStore has decoded

Index = tuple[slice, ...]


def array_name(path: Sequence[str]) -> str:
    """The folder of a weight: its keys with dots between them."""
    return ".".join(path)


def chunk_shape(leaf: Leaf, shard: Sequence[int]) -> tuple[int, ...]:
    """How the array of a leaf, or shards of this shape of it, is cut into chunks of at most 32 MiB."""
    layers, experts, rows = steps(leaf, shard, CHUNK_BYTES)
    body = list(shard[leaf.num_lead :])
    body[-1 if leaf.is_transposed else 0] = rows
    return (*(layers, experts)[: leaf.num_lead], *body)


def cells(shape: Sequence[int], chunk: Sequence[int]) -> Iterator[tuple[str, Index]]:
    """(file name, what it holds) of every chunk."""
    counts = [range(-(-dim // size)) for dim, size in zip(shape, chunk, strict=True)]
    for cell in itertools.product(*counts):
        index = tuple(
            slice(at * size, min((at + 1) * size, dim)) for at, size, dim in zip(cell, chunk, shape, strict=True)
        )
        yield ".".join(map(str, cell)), index


def blocks_of(leaf: Leaf, index: Sequence[slice]) -> Iterator[Block]:
    """The blocks of a part of a leaf: some matrices each, or a chunk's rows of one where matrices are large."""
    body = [part.indices(dim) for part, dim in zip(index, leaf.shape, strict=True)][leaf.num_lead :]
    matrix_bytes = math.prod(stop - start for start, stop, _ in body) * leaf.dtype.itemsize
    return blocks(leaf, index, max(BLOCK_BYTES, min(matrix_bytes, CHUNK_BYTES)))


def write_metadata(folder: Path, all_leaves: Sequence[Leaf], chunks: Sequence[Sequence[int]]) -> None:
    """Makes the folders of all arrays and writes everything but their chunks."""
    tree = {}
    for leaf, chunk in zip(all_leaves, chunks, strict=True):
        (folder / array_name(leaf.path)).mkdir(parents=True)
        array = {
            "chunks": list(chunk), "compressor": None, "dimension_separator": ".",
            "dtype": "bfloat16" if leaf.dtype == dtype_of("bfloat16") else leaf.dtype.str, "fill_value": None,
            "filters": None, "order": "C", "shape": list(leaf.shape), "zarr_format": 2,
        }  # fmt: skip
        (folder / array_name(leaf.path) / ".zarray").write_text(json.dumps(array), encoding="utf-8")
        tree[str(leaf.path)] = {
            "key_metadata": [{"key": key, "key_type": 2} for key in leaf.path],
            "value_metadata": {"value_type": "jax.Array", "skip_deserialize": False},
        }
    description = {
        "tree_metadata": tree, "use_ocdbt": False, "use_zarr3": False, "store_array_data_equal_to_fill_value": True,
        "custom_metadata": None,
    }  # fmt: skip
    (folder / "_METADATA").write_text(json.dumps(description), encoding="utf-8")


class StoredArray:
    """One array of a checkpoint, read part by part: raw chunks from mapped files, any other through TensorStore.

    Raises:
      ValueError: when it is not there.
    """

    def __init__(self, folder: Path, path: Sequence[str]) -> None:
        self.folder = folder / array_name(path)
        self._store: Any = None
        description = self._raw_description()
        if description is None:
            self._store = _open(folder, array_name(path))
            self.shape, self.dtype = tuple(self._store.shape), np.dtype(self._store.dtype.numpy_dtype)
        else:
            self.shape, self.dtype = tuple(description["shape"]), dtype_of(description["dtype"])
            self._chunk = tuple(description["chunks"])

    def _raw_description(self) -> dict[str, Any] | None:
        file = self.folder / ".zarray"
        try:
            found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"compressor": "none such"}
            is_raw = found["compressor"] is None and found["filters"] is None and found["order"] == "C"
            return found if is_raw and found["dimension_separator"] == "." and found["fill_value"] is None else None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: cannot be read ({error}). The checkpoint is damaged: use another.") from None

    def read(self, index: Index) -> np.ndarray:
        """The part `index`; a view of the file where it lies in one raw chunk."""
        if self._store is not None:
            try:
                return self._store[index].read().result()
            except Exception as error:  # whatever a decoder raises
                reason = " ".join(str(error).split())[:300]
                raise ValueError(f"{self.folder}: the checkpoint is damaged ({reason}). Use another step.") from None
        firsts = [part.start // size for part, size in zip(index, self._chunk, strict=True)]
        lasts = [(part.stop - 1) // size for part, size in zip(index, self._chunk, strict=True)]
        if firsts == lasts:
            return self._of_chunk(tuple(firsts), index)
        part = np.empty([part.stop - part.start for part in index], self.dtype)
        for cell in itertools.product(*(range(a, b + 1) for a, b in zip(firsts, lasts, strict=True))):
            own = tuple(
                slice(max(part.start, at * size), min(part.stop, (at + 1) * size))
                for part, at, size in zip(index, cell, self._chunk, strict=True)
            )
            where = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(own, index, strict=True))
            part[where] = self._of_chunk(cell, own)
        return part

    def _of_chunk(self, cell: tuple[int, ...], index: Index) -> np.ndarray:
        file = self.folder / ".".join(map(str, cell))
        num_bytes = math.prod(self._chunk) * self.dtype.itemsize
        if not file.is_file() or file.stat().st_size != num_bytes:
            raise ValueError(f"{file}: expected a chunk of {num_bytes} bytes. The checkpoint is damaged: use another.")
        chunk = np.memmap(file, self.dtype, "r", shape=self._chunk)
        start = [at * size for at, size in zip(cell, self._chunk, strict=True)]
        return chunk[tuple(slice(p.start - s, p.stop - s) for p, s in zip(index, start, strict=True))]


@functools.cache
def _context() -> Any:
    import tensorstore

    return tensorstore.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}})


def _open(folder: Path, name: str) -> Any:
    """An array of a checkpoint in any of Orbax's formats."""
    import tensorstore

    path = f"{folder.absolute()}{os.sep}"
    kvstore: dict[str, Any] = {"driver": "file", "path": f"{path}{name}{os.sep}"}
    if (folder / "manifest.ocdbt").is_file():
        kvstore = {"driver": "ocdbt", "base": {"driver": "file", "path": path}, "path": f"{name}/"}
    try:
        description = json.loads((folder / "_METADATA").read_text(encoding="utf-8"))
        driver = "zarr3" if description.get("use_zarr3") else "zarr"
        return tensorstore.open({"driver": driver, "kvstore": kvstore}, open=True, context=_context()).result()
    except Exception as error:  # not there, or damaged
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{folder}: cannot read the weight {name} ({reason}).") from None
