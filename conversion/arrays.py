"""The .npz files of `verify`: read and checked at the door, written whole or not at all."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from anyorder_jax import files

IGNORED_LABEL = -100
TOKENS = ("input_ids", "noisy_ids", "bd_input_ids")
INPUTS = (*TOKENS, "bd_position_ids", "labels", "param_names")
"""What `verify` looks for in --inputs; anything else there is named and left alone."""


def read_arrays(path: str | Path, option: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz file.

    Args:
      option: of the command line, for the message.

    Raises:
      ValueError: when it is not there, is no .npz file, is damaged, or holds Python objects (pickles).
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{option}: {path} is not there.")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, TypeError, AttributeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{option}: {path} is no .npz file of plain arrays ({str(error).splitlines()[0]}). Write it with "
            "numpy.savez."
        ) from None


def _whole_numbers(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"--inputs: {name} is {array.dtype} {list(array.shape)}, expected whole numbers [rows, length]."
        )
    return array.astype(np.int32)


def check_inputs(arrays: Mapping[str, np.ndarray], vocab_size: int) -> dict[str, np.ndarray]:
    """Those of the arrays that `verify` runs on, int32 [B, L] each, positions of block diffusion filled in.

    Raises:
      ValueError: for none of them, other shapes or dtypes, ids outside of the vocabulary, positions that no row
        holds, or arrays that do not fit one another.
    """
    found = {name: _whole_numbers(name, arrays[name]) for name in (*TOKENS, "labels") if name in arrays}
    if not any(name in found for name in TOKENS):
        raise ValueError(f"--inputs: expected {', '.join(TOKENS)}, found {', '.join(sorted(arrays)) or 'nothing'}.")
    for name, array in found.items():
        ids = array[array != IGNORED_LABEL] if name == "labels" else array
        if ids.size and not 0 <= ids.min() <= ids.max() < vocab_size:
            raise ValueError(
                f"--inputs: {name} holds ids from {ids.min()} to {ids.max()}, expected 0 to {vocab_size - 1}, the "
                "model's vocabulary."
            )
    if "bd_input_ids" in found:
        rows, length = found["bd_input_ids"].shape
        if length % 2:
            raise ValueError(
                f"--inputs: bd_input_ids has rows of {length} ids, expected [noisy ; clean]: an even number."
            )
        positions = np.tile(np.arange(length // 2, dtype=np.int32), (rows, 2))
        if "bd_position_ids" in arrays:
            positions = _whole_numbers("bd_position_ids", arrays["bd_position_ids"])
        if positions.shape != (rows, length):
            raise ValueError(
                f"--inputs: bd_position_ids is {list(positions.shape)}, bd_input_ids is {[rows, length]}; they must "
                "agree."
            )
        if positions.size and not 0 <= positions.min() <= positions.max() < length:
            raise ValueError(
                f"--inputs: bd_position_ids holds {positions.min()} to {positions.max()}, expected 0 to {length - 1}: "
                "count from 0 in each document."
            )
        found["bd_position_ids"] = positions
    if "labels" in found:
        for name, halves in (("noisy_ids", 1), ("bd_input_ids", 2)):
            expected = found["labels"].shape
            if name in found and found[name].shape != (expected[0], halves * expected[1]):
                raise ValueError(
                    f"--inputs: {name} is {list(found[name].shape)}, labels is {list(expected)}: expected "
                    f"{[expected[0], halves * expected[1]]}."
                )
    return found


def check_outputs(path: str | Path) -> None:
    """Raises ValueError when a file cannot be made there, before anything is computed."""
    if Path(path).is_dir() or not Path(path).absolute().parent.is_dir():
        raise ValueError(f"--outputs: cannot write {path}; name a file in a directory that is there.")


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz file, exactly there, whole or not at all."""
    with files.opened_whole(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # the stub mistakes the names
