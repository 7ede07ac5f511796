"""The dtypes of weights: what safetensors and NumPy call them, and rounding from one to another on the way."""

from __future__ import annotations

import warnings

import numpy as np

from anyorder_jax.pretrained.shards import numpy_dtype
from conversion.copying import CHUNK_BYTES, read_all, write_all


def convert_range(
    source: int, source_offset: int, source_dtype: str, target: int, target_offset: int, target_dtype: str,
    num_items: int, name: str,
) -> None:  # fmt: skip
    """Copies `num_items` numbers into another dtype (bfloat16: to the nearest, ties to even), 8 MiB at a time.

    Warns, with the tensor's name, of NaN, and of numbers that the narrower dtype cannot hold.

    Args:
      source, source_offset, source_dtype: file, first byte and dtype.
      target, target_offset, target_dtype: the same of what is written.
      num_items: numbers that are copied.
      name: of the tensor.
    """
    old, new = numpy_dtype(source_dtype), numpy_dtype(target_dtype)
    chunk_items = CHUNK_BYTES // 4
    buffer = memoryview(bytearray(min(chunk_items, num_items) * old.itemsize))
    has_nan = has_overflow = False
    for first in range(0, num_items, chunk_items):
        count = min(chunk_items, num_items - first)
        part = buffer[: count * old.itemsize]
        read_all(source, part, source_offset + first * old.itemsize)
        values = np.frombuffer(part, old)
        with np.errstate(over="ignore", invalid="ignore"):
            converted = values.astype(np.float32).astype(new)
            has_nan |= bool(np.isnan(values).any())
            has_overflow |= bool((np.isinf(converted) & np.isfinite(values)).any())
        write_all(target, converted.view(np.uint8).data, target_offset + first * new.itemsize)
    if has_nan:
        warnings.warn(f"{name} holds NaN; it is written as it is.", stacklevel=2)
    if has_overflow:
        warnings.warn(f"{name} holds numbers too large for {target_dtype}; they became infinite.", stacklevel=2)
