"""From the byte ranges of a split or merged checkpoint into sharded device arrays, a chunk at a time.

    disk    [out, in] per expert or layer          (torch keeps a weight as [out, in])
    host    a chunk of at most 64 MiB: what one device needs of some layers and experts, from the mapped file
    device  transposed, cast, and put into its place in the leaf, e.g. expert_gate_up [N, E, D, 2, F]

No leaf is ever whole on the host, and none that is sharded is whole on a device.
"""

from __future__ import annotations

import functools
import math
import mmap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from tqdm import tqdm

from anyorder_jax.model import transformer
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.model.layers import Parameter
from anyorder_jax.pretrained import names
from anyorder_jax.pretrained.directory import ModelDirectory, open_model, read_config
from anyorder_jax.pretrained.shards import NUMPY_DTYPES

CHUNK_BYTES = 64 * 2**20


class Leaf(NamedTuple):
    """A weight of the tree: its path, the rows of the table that fill it, its declaration.

    num_lead: how many leading dims count layers (1) and experts (2).
    """

    path: tuple[str, ...]
    rows: tuple[names.Row, ...]
    parameter: Parameter
    num_lead: int

    @property
    def name(self) -> str:
        return "/".join(self.path)


def leaves(model_config: ModelConfig, dtype: Any) -> list[Leaf]:
    """Every weight of the model's tree with the rows of the table that fill it.

    Raises:
      ValueError: for a weight of the model that the table of names does not have.
    """
    tree = transformer.parameters(model_config, dtype)
    flat = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: isinstance(node, Parameter))[0]
    found = []
    for key_path, parameter in flat:
        path = tuple(key.key for key in key_path)
        groups = ("top",) if len(path) == 1 else ("attention", path[0])
        rows = tuple(row for row in names.TABLE if row.group in groups and row.leaf == path[-1])
        if not rows:
            raise ValueError(f"conversion: no row of names.TABLE fills the weight {'/'.join(path)}. Add one.")
        num_lead = 0 if len(path) == 1 else 2 if rows[0].merged_hf else 1
        found.append(Leaf(path, rows, parameter, num_lead))
    return found


class Window(NamedTuple):
    """A part of a leaf's shard, as one row of the table fills it.

    layers, experts: which (counted within the leaf; 0:1 where it has none). stored: slices of the tensors on disk.
    start, sizes: where the part lies in the shard.
    """

    layers: range
    experts: range
    stored: tuple[slice, ...]
    start: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def max_bytes(self) -> int:
        """Of the stored numbers, were they float32."""
        return 4 * math.prod(self.sizes)


def windows(leaf: Leaf, row: names.Row, index: Sequence[slice]) -> Iterator[Window]:
    """Cuts the shard `index` of a leaf into parts of at most `CHUNK_BYTES`: by layers, experts, stored rows."""
    bounds = [part.indices(dim)[:2] for part, dim in zip(index, leaf.parameter.shape, strict=True)]
    lead = [*bounds[: leaf.num_lead], (0, 1), (0, 1)][:2]
    body = bounds[leaf.num_lead :]
    stored = (body[-1], body[0]) if row.is_transposed else tuple(body)
    layers, experts = range(*lead[0]), range(*lead[1])
    row_bytes = 4 * math.prod(stop - start for start, stop in stored[1:])  # float32 at most
    rows = range(*stored[0])
    row_step = max(1, min(len(rows), CHUNK_BYTES // row_bytes))
    expert_step = max(1, min(len(experts), CHUNK_BYTES // (row_bytes * len(rows))))
    layer_step = max(1, CHUNK_BYTES // (row_bytes * len(rows) * len(experts)))
    rest = tuple(slice(*pair) for pair in stored[1:])
    widths = tuple(part.stop - part.start for part in rest)
    for i in range(0, len(layers), layer_step):
        for e in range(0, len(experts), expert_step):
            for r in range(0, len(rows), row_step):
                some = layers[i : i + layer_step], experts[e : e + expert_step], rows[r : r + row_step]
                start, sizes = (i, e)[: leaf.num_lead], (len(some[0]), len(some[1]))[: leaf.num_lead]
                if row.half is not None:
                    start, sizes = (*start, 0, row.half, r), (*sizes, *widths, 1, len(some[2]))
                elif row.is_transposed:
                    start, sizes = (*start, 0, r), (*sizes, *widths, len(some[2]))
                else:
                    start, sizes = (*start, r, *(0,) * len(rest)), (*sizes, len(some[2]), *widths)
                yield Window(some[0], some[1], (slice(some[2].start, some[2].stop), *rest), start, sizes)


def has_nan(values: np.ndarray) -> bool:
    """Whether there is a NaN: an exponent of ones and a fraction, seen on the bits (seven times as fast as isnan)."""
    info = ml_dtypes.finfo(values.dtype)
    bits = values.view(f"u{values.itemsize}")
    without_sign = (1 << (info.bits - 1)) - 1
    infinity = ((1 << (info.bits - 1 - info.nmant)) - 1) << info.nmant
    return bits.size > 0 and int((bits & bits.dtype.type(without_sign)).max()) > infinity


class Reader:
    """Stored tensors as arrays over mapped files: pages of the file, never memory of ours."""

    def __init__(self, model: ModelDirectory) -> None:
        self.model = model
        self.nan_names: list[str] = []  # tensors in which NaN was seen
        self._maps: dict[Path, mmap.mmap] = {}

    def name(self, leaf: Leaf, row: names.Row, layer: int, expert: int) -> str:
        """What the tensor is called on disk; layers count within the leaf."""
        first = self.model.dims.num_dense if leaf.path[0] == "moe" else 0
        is_merged = row.merged_hf and self.model.layout == "merged"
        return (row.merged_hf if is_merged else row.hf).format(i=first + layer, e=expert)

    def view(self, leaf: Leaf, row: names.Row, layer: int, expert: int) -> np.ndarray:
        """One tensor of the split layout, whichever the layout on disk."""
        tensor = self.model.tensors[self.name(leaf, row, layer, expert)]
        if tensor.path not in self._maps:
            with tensor.path.open("rb") as file:
                self._maps[tensor.path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        whole: np.ndarray = np.ndarray(tensor.shape, NUMPY_DTYPES[tensor.dtype], self._maps[tensor.path], tensor.start)
        return whole[expert] if row.merged_hf and self.model.layout == "merged" else whole

    def chunk(self, leaf: Leaf, row: names.Row, window: Window, buffer: np.ndarray) -> np.ndarray:
        """A part of a leaf as it lies on disk, copied into `buffer` (bytes): [layers, experts, *stored dims]."""
        parts = [
            [self.view(leaf, row, layer, expert)[window.stored] for expert in window.experts] for layer in window.layers
        ]
        dtypes = {part.dtype for experts in parts for part in experts}
        dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
        shape = (len(window.layers), len(window.experts), *parts[0][0].shape)
        chunk = buffer[: math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
        for i, experts in enumerate(parts):
            for e, part in enumerate(experts):
                chunk[i, e] = part
                if has_nan(chunk[i, e]):
                    self.nan_names.append(self.name(leaf, row, window.layers[i], window.experts[e]))
        return chunk


def _without_absent_dims(chunk: Any, num_lead: int) -> Any:
    """[layers, experts, *stored dims] -> only those of the first two that the leaf has."""
    return chunk[(slice(None),) * num_lead + (0,) * (2 - num_lead)]


@functools.partial(jax.jit, static_argnames=("num_lead", "is_transposed", "dtype"))
def _turn(chunk: jax.Array, *, num_lead: int, is_transposed: bool, dtype: Any) -> jax.Array:
    """A chunk [layers, experts, *stored dims] -> the dims that the leaf has, as the tree holds them."""
    part = _without_absent_dims(chunk, num_lead)
    return (jnp.swapaxes(part, -1, -2) if is_transposed else part).astype(dtype)


@functools.partial(jax.jit, donate_argnums=0, static_argnames="is_half")
def _place(shard: jax.Array, part: jax.Array, start: tuple[int, ...], *, is_half: bool) -> jax.Array:
    """Puts a part into its place. A program of its own: fused with `_turn`, a core does 0.6 GB/s, not 0.9."""
    return jax.lax.dynamic_update_slice(shard, jnp.expand_dims(part, -2) if is_half else part, start)


def _assemble(
    reader: Reader, leaf: Leaf, index: Sequence[slice], shape: tuple[int, ...], devices: Sequence[jax.Device]
) -> list[jax.Array]:
    """A shard that fits a chunk is put together on the host, without compiling anything."""
    shard = np.empty(shape, leaf.parameter.dtype)
    buffer = np.empty(4 * math.prod(shape), np.uint8)
    for row in leaf.rows:
        for window in windows(leaf, row, index):
            chunk = _without_absent_dims(reader.chunk(leaf, row, window, buffer), leaf.num_lead)
            part = shard[tuple(slice(a, a + n) for a, n in zip(window.start, window.sizes, strict=True))]
            part[...] = (np.swapaxes(chunk, -1, -2) if row.is_transposed else chunk).reshape(window.sizes)
    return [jax.device_put(shard, device) for device in devices]


def _fill(
    reader: Reader, leaf: Leaf, index: Sequence[slice], shape: tuple[int, ...], devices: Sequence[jax.Device]
) -> list[jax.Array]:
    """A larger shard grows on the device, chunk after chunk; while one is on its way the next is read."""
    shards = [jnp.zeros(shape, leaf.parameter.dtype, device=device) for device in devices]
    largest = max(window.max_bytes for row in leaf.rows for window in windows(leaf, row, index))
    buffers = [np.empty(largest, np.uint8) for _ in range(2)]
    running: list[list[jax.Array]] = [[], []]  # what is still read from each buffer
    turn = 0
    for row in leaf.rows:
        for window in windows(leaf, row, index):
            jax.block_until_ready(running[turn])
            chunk = reader.chunk(leaf, row, window, buffers[turn])
            parts = [
                _turn(
                    jax.device_put(chunk, device),
                    num_lead=leaf.num_lead, is_transposed=row.is_transposed, dtype=leaf.parameter.dtype,
                )
                for device in devices
            ]  # fmt: skip
            running[turn] = parts
            is_half = row.half is not None
            shards = [_place(s, p, window.start, is_half=is_half) for s, p in zip(shards, parts, strict=True)]
            turn = 1 - turn
    return jax.block_until_ready(shards)


def _load_leaf(reader: Reader, leaf: Leaf, sharding: jax.sharding.Sharding) -> jax.Array:
    """The leaf on all devices of this host; those with the same part share one reading."""
    by_index: dict[tuple[tuple[int, int], ...], list[jax.Device]] = {}
    indices = sharding.addressable_devices_indices_map(leaf.parameter.shape)
    for device, index in indices.items():
        assert index is not None  # an addressable device holds a part
        key = tuple(part.indices(dim)[:2] for part, dim in zip(index, leaf.parameter.shape, strict=True))
        by_index.setdefault(key, []).append(device)
    arrays = []
    for key, devices in by_index.items():
        shape = tuple(stop - start for start, stop in key)
        is_small = math.prod(shape) * leaf.parameter.dtype.itemsize <= CHUNK_BYTES
        make = _assemble if is_small else _fill
        arrays += make(reader, leaf, [slice(*pair) for pair in key], shape, devices)
    return jax.make_array_from_single_device_arrays(leaf.parameter.shape, sharding, arrays)


def read_model_config(directory: str | Path) -> ModelConfig:
    """The model that the `config.json` of a split or merged directory describes."""
    return ModelConfig.from_hf(read_config(Path(directory)))


def load_params(
    directory: str | Path,
    model_config: ModelConfig,
    shardings: Any = None,
    dtype: Any = jnp.float32,
    *,
    show_progress: bool = False,
) -> transformer.Params:
    """Loads a split or merged checkpoint onto devices.

    The host holds two chunks of at most 64 MiB beside the device arrays, and reads each byte once for the
    devices that need it.

    Args:
      directory: a model directory; its layout is recognised by its tensor names.
      model_config: what `config.json` must describe.
      shardings: a tree of shardings like the parameters, or None for the first device.
      dtype: of the parameters (`expert_bias` is float32 always).

    Raises:
      ValueError: for a bad checkpoint (see `directory.open_model`), or one of another model than
        `model_config`.
    """
    model = open_model(directory)
    if (described := read_model_config(directory)) != model_config:
        raise ValueError(f"{directory}: config.json describes {described}, expected {model_config}.")
    reader = Reader(model)
    params: transformer.Params = {}
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    for leaf in tqdm(leaves(model_config, dtype), desc="load", unit="leaf", disable=not show_progress):
        node = params
        placed = shardings
        for key in leaf.path[:-1]:
            node = node.setdefault(key, {})
            placed = None if placed is None else placed[key]
        sharding = first if placed is None else placed[leaf.path[-1]]
        node[leaf.path[-1]] = _load_leaf(reader, leaf, sharding)
    for name in dict.fromkeys(reader.nan_names):
        warnings.warn(f"{directory}: {name} holds NaN.", stacklevel=2)
    return params
