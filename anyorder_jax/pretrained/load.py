"""From the byte ranges of a split or merged checkpoint into sharded device arrays, a chunk at a time.

    disk    [out, in] per expert or layer          (torch keeps a weight as [out, in])
    host    a block of at most 64 MiB: what one device needs of some layers and experts, from the mapped file,
            transposed and cast
    device  put into its place in the leaf, e.g. expert_gate_up [N, E, D, 2, F]

No leaf is ever whole on the host, and none that is sharded is whole on a device.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from anyorder_jax.model import transformer
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.model.layers import Parameter
from anyorder_jax.pretrained.directory import open_model, read_config
from anyorder_jax.pretrained.reader import Reader
from anyorder_jax.pretrained.tree import Leaf, as_tree, blocks, contiguous, leaves
from anyorder_jax.progress import Progress

CHUNK_BYTES = 64 * 2**20

Hold = Callable[[tuple[str, ...], jax.Array], Any]
"""(path of a weight, the weight) -> what stands for it in the tree."""


def as_it_is(_path: tuple[str, ...], weight: jax.Array) -> jax.Array:
    """Leaves a weight as it was read; the default of `Hold`."""
    return weight


def hold_all(params: transformer.Params, hold: Hold) -> transformer.Params:
    """`hold` of every weight of a tree."""
    flat = traverse_util.flatten_dict(params)
    del params  # what `hold` lets go of is free at once
    return traverse_util.unflatten_dict({path: hold(path, flat.pop(path)) for path in list(flat)})


@functools.partial(jax.jit, donate_argnums=0)
def _place(shard: jax.Array, part: jax.Array, start: tuple[int, ...]) -> jax.Array:
    return jax.lax.dynamic_update_slice(shard, part, start)


class _Small:
    """A shard that fits a chunk: put together on the host, without compiling anything."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, devices: Sequence[jax.Device]) -> None:
        self._devices = devices
        self._shard = np.empty(shape, dtype)

    def put(self, part: np.ndarray, where: tuple[slice, ...]) -> None:
        """Puts a part into its place."""
        self._shard[where] = part

    def finish(self) -> list[jax.Array]:
        """The shard on each of its devices."""
        return [jax.device_put(self._shard, device) for device in self._devices]


class _Large:
    """A larger shard: it grows on its devices, block after block; while one is on its way the next is read."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, devices: Sequence[jax.Device]) -> None:
        self._devices = devices
        self._shards = [jnp.zeros(shape, dtype, device=device) for device in devices]
        self._before: list[jax.Array] = []  # the block that is on its way

    def put(self, part: np.ndarray, where: tuple[slice, ...]) -> None:
        """Puts a part into its place."""
        jax.block_until_ready(self._before)
        self._before = [jax.device_put(part, device) for device in self._devices]
        start = tuple(slot.start for slot in where)
        self._shards = [_place(shard, own, start) for shard, own in zip(self._shards, self._before, strict=True)]

    def finish(self) -> list[jax.Array]:
        """The shard on each of its devices."""
        self._before = []
        return jax.block_until_ready(self._shards)


def _load_leaf(reader: Reader, leaf: Leaf, sharding: jax.sharding.Sharding) -> jax.Array:
    """The leaf on all devices of this host; those with the same part share one reading.

    All shards grow together, block by block: what lies side by side in the file is read at about the same time.
    """
    by_index: dict[tuple[tuple[int, int], ...], list[jax.Device]] = {}
    indices = sharding.addressable_devices_indices_map(leaf.shape)
    for device, index in indices.items():
        assert index is not None  # an addressable device holds a part
        key = tuple(part.indices(dim)[:2] for part, dim in zip(index, leaf.shape, strict=True))
        by_index.setdefault(key, []).append(device)
    shape = sharding.shard_shape(leaf.shape)
    make = _Small if math.prod(shape) * leaf.dtype.itemsize <= CHUNK_BYTES else _Large
    shards = [make(shape, leaf.dtype, devices) for devices in by_index.values()]
    cuts = [blocks(leaf, [slice(*pair) for pair in key], CHUNK_BYTES) for key in by_index]
    for side_by_side in zip(*cuts, strict=True):
        for shard, block in zip(shards, side_by_side, strict=True):
            shard.put(contiguous(as_tree(reader.read(leaf, block), leaf), leaf.dtype), block.where)
    arrays = [array for shard in shards for array in shard.finish()]
    return jax.make_array_from_single_device_arrays(leaf.shape, sharding, arrays)


def _check_declared(all_leaves: Sequence[Leaf], model_config: ModelConfig, dtype: Any) -> None:
    """The table of names and the model must declare the same weights."""
    flat = jax.tree_util.tree_flatten_with_path(
        transformer.parameters(model_config, dtype), is_leaf=lambda node: isinstance(node, Parameter)
    )[0]
    declared = {tuple(key.key for key in path): (p.shape, np.dtype(p.dtype)) for path, p in flat}
    derived = {leaf.path: (leaf.shape, leaf.dtype) for leaf in all_leaves}
    if declared != derived:
        differing = sorted("/".join(path) for path, _ in declared.items() ^ derived.items())
        raise ValueError(f"conversion: names.TABLE and the model disagree about {', '.join(differing)}. Correct a row.")


def read_model_config(directory: str | Path) -> ModelConfig:
    """The model that the `config.json` of a split or merged directory describes."""
    return ModelConfig.from_hf(read_config(Path(directory)))


def load_params(
    directory: str | Path,
    model_config: ModelConfig,
    shardings: Any = None,
    dtype: Any = jnp.float32,
    hold: Hold = as_it_is,
    *,
    show_progress: bool = False,
) -> transformer.Params:
    """Loads a split or merged checkpoint onto devices.

    The host holds a few blocks of at most 64 MiB beside the device arrays, and reads each byte once for the
    devices that need it.

    Args:
      show_progress: whether a line on the terminal tells how far it is.
      directory: a model directory; its layout is recognised by its tensor names.
      model_config: what `config.json` must describe.
      shardings: a tree of shardings like the parameters, or None for the first device.
      dtype: of the parameters (`expert_bias` is float32 always).
      hold: gets every weight as soon as it is loaded, and gives what stands for it in the tree.

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
    all_leaves = leaves(model.dims, jnp.dtype(dtype).name)
    _check_declared(all_leaves, model_config, dtype)
    with Progress(sum(leaf.num_bytes for leaf in all_leaves), f"load {directory}", is_shown=show_progress) as bar:
        for leaf in all_leaves:
            node = params
            placed = shardings
            for key in leaf.path[:-1]:
                node = node.setdefault(key, {})
                placed = None if placed is None else placed[key]
            sharding = first if placed is None else placed[leaf.path[-1]]
            node[leaf.path[-1]] = hold(leaf.path, _load_leaf(reader, leaf, sharding))
            bar.update(leaf.num_bytes)
    reader.warn_of_nan()
    return params
