"""What a model directory holds: parameters by kind and dtype, names amiss, memory on a mesh, norms."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from anyorder_jax.pretrained import names
from anyorder_jax.pretrained.directory import ModelDirectory, scan
from anyorder_jax.pretrained.shards import NUMPY_DTYPES, Stored
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
    dtype = NUMPY_DTYPES[tensor.dtype]
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


def _bytes_per_device(model: ModelDirectory, sizes: Mapping[str, int]) -> dict[str, int]:
    """Bytes of weights on one device of the mesh, for each dtype that the weights may be held in."""
    import jax
    from jax.sharding import AbstractMesh, AxisType

    from anyorder_jax import sharding
    from anyorder_jax.model import transformer
    from anyorder_jax.model.config import ModelConfig

    mesh = AbstractMesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))
    found = {}
    for dtype in ("bfloat16", "float32"):
        parameters = transformer.parameters(ModelConfig.from_hf(dict(model.config)), dtype)
        placed = sharding.weight_shardings(parameters, mesh)  # type: ignore[arg-type]  # needs no devices
        shares = jax.tree.map(
            lambda p, s: math.prod(s.shard_shape(p.shape)) * np.dtype(p.dtype).itemsize,
            parameters, placed, is_leaf=lambda p: hasattr(p, "axes"),
        )  # fmt: skip
        found[dtype] = sum(jax.tree.leaves(shares))
    return found


def inspect(path: str | Path, *, mesh: str = "", reads_values: bool = False) -> int:
    """Prints what the directory at `path` holds.

    Returns:
      0, or 1 when tensors are missing, unknown or of a wrong shape, or hold NaN.
    """
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
        sizes = parse_mesh(mesh)
        for dtype, num_bytes in _bytes_per_device(model, sizes).items():
            axes = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
            print(
                f"per device on {axes}: {num_bytes / 2**30:.2f} GiB of {dtype} weights, "
                f"{num_bytes * 4 / 2**30:.2f} GiB with gradients and AdamW moments of the same dtype"
            )
    has_nan = reads_values and _print_values(model)
    return 1 if amiss or has_nan else 0


def _print_values(model: ModelDirectory) -> bool:
    has_nan = False
    with Files() as files, tqdm(total=model.num_bytes, unit="B", unit_scale=True, desc="read") as bar:
        for tensor in model.tensors.values():
            value, num_nan = norm(tensor, files)
            has_nan |= num_nan > 0
            bar.write(f"{value:14.6g}  {tensor.dtype:<5} {list(tensor.shape)!s:<20} {tensor.name}" + (
                f"  WARNING: {num_nan} NaN" if num_nan else ""
            ))  # fmt: skip
            bar.update(tensor.num_bytes)
    return has_nan
