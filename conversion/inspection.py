"""What a model directory holds: parameters by kind and dtype, names amiss, memory on a mesh, norms."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from anyorder_jax import run_directory
from anyorder_jax.pretrained import names
from anyorder_jax.pretrained.directory import ModelDirectory, scan
from anyorder_jax.pretrained.shards import Stored, numpy_dtype
from anyorder_jax.pretrained.tree import has_nan
from anyorder_jax.progress import Progress
from conversion.copying import CHUNK_BYTES, Files, read_all


def kind_of(row: names.Row) -> str:
    """The kind of weight for a table of counts."""
    if row.merged_hf:
        return "experts"
    if row.leaf.startswith("shared"):
        return "shared experts"
    if row.leaf in ("embedding", "head"):
        return row.leaf
    if "norm" in row.leaf:
        return "norms"
    return {"attention": "attention", "dense": "dense MLP", "moe": "router"}[row.group]


def _count(model: ModelDirectory) -> dict[tuple[str, str], tuple[int, int, int]]:
    """(kind, dtype) -> (tensors, parameters, bytes)."""
    table: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for name, tensor in model.tensors.items():
        kind = kind_of(model.places[name].row) if name in model.places else "unknown"
        entry = table[kind, tensor.dtype]
        entry[0] += 1
        entry[1] += math.prod(tensor.shape)
        entry[2] += tensor.num_bytes
    return {key: (values[0], values[1], values[2]) for key, values in sorted(table.items())}


def norm(tensor: Stored, files: Files) -> tuple[float, int]:
    """(L2 norm, number of NaN) of a stored tensor, read 8 MiB at a time and summed in float64."""
    dtype = numpy_dtype(tensor.dtype)
    source = files.reader(tensor.path)
    buffer = memoryview(bytearray(min(CHUNK_BYTES, tensor.num_bytes)))
    total, num_nan = 0.0, 0
    for first in range(0, tensor.num_bytes, CHUNK_BYTES):
        part = buffer[: min(CHUNK_BYTES, tensor.num_bytes - first)]
        read_all(source, part, tensor.start + first)
        values = np.frombuffer(part, dtype).astype(np.float32)
        num_nan += int(np.isnan(values).sum())
        total += float(np.einsum("n,n->", values, values, dtype=np.float64))
    return math.sqrt(total), num_nan


def warn_of_nan(model: ModelDirectory) -> None:
    """Reads every value, 8 MiB at a time, and warns of NaN with the tensor's name."""
    with Files() as files, Progress(model.num_bytes, "check") as bar:
        for name, tensor in model.tensors.items():
            dtype, source = numpy_dtype(tensor.dtype), files.reader(tensor.path)
            buffer = memoryview(bytearray(min(CHUNK_BYTES, tensor.num_bytes)))
            for first in range(0, tensor.num_bytes, CHUNK_BYTES):
                part = buffer[: min(CHUNK_BYTES, tensor.num_bytes - first)]
                read_all(source, part, tensor.start + first)
                if has_nan(np.frombuffer(part, dtype)):
                    warnings.warn(f"{model.path}: {name} holds NaN.", stacklevel=3)
                    break
            bar.update(tensor.num_bytes)


def parse_mesh(text: str) -> dict[str, int]:
    """Reads `fsdp=4,expert=2` -> devices per axis; axes that are not named have one.

    Raises:
      ValueError: for an unknown axis or a size that is no whole number >= 1.
    """
    from anyorder_jax.sharding import AXES

    sizes = dict.fromkeys(AXES, 1)
    for part in filter(None, text.split(",")):
        axis, _, size = part.partition("=")
        if axis not in sizes or not size.isdecimal() or int(size) < 1:
            raise ValueError(f"--mesh: cannot use {part!r}; write axis=devices with an axis of {', '.join(AXES)}.")
        sizes[axis] = int(size)
    return sizes


def _print_memory(model_config: Any, mesh: str) -> None:
    """Prints the bytes of weights on one device of the mesh, for each dtype that the weights may be held in."""
    from anyorder_jax.pretrained.placement import shard_shapes

    sizes = parse_mesh(mesh)
    shapes = shard_shapes(model_config, sizes)
    axes = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
    for dtype, item_bytes in (("bfloat16", 2), ("float32", 4)):
        num_bytes = sum(math.prod(s) * (4 if path[-1] == "expert_bias" else item_bytes) for path, s in shapes.items())
        print(
            f"per device on {axes}: {num_bytes / 2**30:.2f} GiB of {dtype} weights, "
            f"{num_bytes * 4 / 2**30:.2f} GiB with gradients and AdamW moments of the same dtype"
        )


def _inspect_run(path: str | Path, mesh: str, is_dry_run: bool) -> int:
    """Prints what a run's newest checkpoint (or the one named) holds, from the descriptions of its arrays; compares the
    weights with the digests that were saved with them."""
    from anyorder_jax.config import freeze
    from anyorder_jax.model.config import ModelConfig
    from anyorder_jax.pretrained.tree import leaves
    from conversion.adapter import factor_leaves
    from conversion.stored import StoredParams
    from conversion.zarr import StoredArray, array_name

    run, step = run_directory.find(path)
    folder = run_directory.step_folder(path)
    meta = run_directory.read_meta(path)
    model_config, param_dtype = ModelConfig.from_hf(meta["model"]), meta["config"]["model"]["param_dtype"]
    lora_config = freeze(meta["config"]).lora
    print(f"{run}: step {step}, parameters in {param_dtype}")
    all_leaves = leaves(names.Dims.from_config(model_config.to_hf(), "the model"), param_dtype)
    if lora_config.rank:
        print(f"LoRA factors of rank {lora_config.rank}; frozen: {meta['config']['model']['path'] or 'random weights'}")
        all_leaves = factor_leaves(all_leaves, lora_config)
    print(f"{'weight':<32} {'dtype':<9} {'shape':<28} {'parameters':>16} {'GB':>9}")
    total, num_bytes, amiss = 0, 0, []
    for leaf in all_leaves:
        try:
            array = StoredArray(folder / "params", leaf.path)
        except ValueError:
            amiss.append(f"{array_name(leaf.path)} is missing")
            continue
        size = math.prod(array.shape)
        total, num_bytes = total + size, num_bytes + size * array.dtype.itemsize
        shape = str(list(array.shape))
        print(f"{leaf.name:<32} {array.dtype.name:<9} {shape:<28} {size:16,d} {size * array.dtype.itemsize / 1e9:9.3f}")
        if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
            amiss.append(f"{leaf.name} should be {leaf.dtype.name} {list(leaf.shape)}")
    print(f"{'all':<32} {'':<9} {'':<28} {total:16,d} {num_bytes / 1e9:9.3f}")
    print("; ".join(amiss) or "names and shapes: as the checkpoint's description says")
    if not amiss and not is_dry_run:
        try:
            print(f"values: {StoredParams(folder, all_leaves).compare()}")
        except ValueError as error:
            print(error)
            amiss.append("values")
    _print_memory(model_config, mesh)
    return 1 if amiss else 0


def inspect(path: str | Path, *, mesh: str = "", reads_values: bool = False, is_dry_run: bool = False) -> int:
    """Prints what the directory at `path` holds: a split or merged checkpoint, a run, or one of its steps.

    Args:
      path: of the directory.
      mesh: devices per axis for which sizes are told.
      reads_values: of a split or merged checkpoint too; those of a run are compared with their digests always.
      is_dry_run: reads no values at all.

    Returns:
      0, or 1 when tensors are missing, unknown or of a wrong shape, hold NaN, or are not those that were saved.
    """
    if run_directory.is_run(path):
        return _inspect_run(path, mesh, is_dry_run)
    model = scan(path)
    print(f"{model.path}: {model.layout} layout, model_type {model.config['model_type']!r}")
    if model.config["model_type"] != names.MODEL_TYPES[model.layout]:
        print(f"  (trainers of this layout look for model_type {names.MODEL_TYPES[model.layout]!r})")
    print(f"{'kind':<16} {'dtype':<6} {'tensors':>8} {'parameters':>16} {'GB':>9}")
    for (kind, dtype), (count, parameters, num_bytes) in _count(model).items():
        print(f"{kind:<16} {dtype:<6} {count:8d} {parameters:16,d} {num_bytes / 1e9:9.3f}")
    total = sum(math.prod(tensor.shape) for tensor in model.tensors.values())
    print(f"{'all':<16} {'':<6} {len(model.tensors):8d} {total:16,d} {model.num_bytes / 1e9:9.3f}")
    amiss = model.differences()
    print(names.describe(amiss, model.places) or "names and shapes: as config.json asks for")
    if not amiss:
        from anyorder_jax.model.config import ModelConfig

        _print_memory(ModelConfig.from_hf(dict(model.config)), mesh)
    has_nan = reads_values and not is_dry_run and _print_values(model)
    return 1 if amiss or has_nan else 0


def _print_values(model: ModelDirectory) -> bool:
    has_nan = False
    with Files() as files, Progress(model.num_bytes, "read") as bar:
        for tensor in model.tensors.values():
            value, num_nan = norm(tensor, files)
            has_nan |= num_nan > 0
            warning = f"  WARNING: {num_nan} NaN" if num_nan else ""
            print(f"{value:14.6g}  {tensor.dtype:<5} {list(tensor.shape)!s:<20} {tensor.name}{warning}")
            bar.update(tensor.num_bytes)
    return has_nan
