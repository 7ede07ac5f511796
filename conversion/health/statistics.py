"""Numbers of single weights that tell trained from random, zero or misread ones; all of NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

CHUNK = 2**22
"""Numbers of a tensor that are looked at at once: float32 copies of it are never whole."""
SAMPLE = 2**17
NUM_ROUNDS = 8
NUM_DIRECTIONS = 16
RANDOM_SHARE = 1.15
"""`shared_directions` below this (the middle of a layer's experts): as random, which gives 1. A model of 0.3M weights
that was trained for 600 updates gives 1.3 to 2.6, and a random expert put into it 0.92 to 1.02."""
MISREAD_SPREAD = 0.6
"""Of log2 of the magnitudes. Of any matrix that was drawn or trained it is 1.4 to 1.9; bfloat16 bits that are read as
float16 have an eighth of that, as the exponent's last three bits and the fraction are the fraction."""


class Numbers(NamedTuple):
    """Of one tensor. rms: root of the mean square. spectrum: its largest singular value over that of a random matrix of
    the same shape and rms (1 for random ones; 0 where it is no matrix). log2_mean, log2_spread: mean and standard
    deviation of log2 |w| over the numbers that are not 0."""

    rms: float
    share_zero: float
    num_nonfinite: int
    spectrum: float
    log2_mean: float
    log2_spread: float


def _rows(values: np.ndarray) -> Iterator[np.ndarray]:
    """A tensor in float32, some rows of it at a time."""
    step = max(1, CHUNK // max(1, values[:1].size))
    for first in range(0, len(values), step):
        yield values[first : first + step].astype(np.float32)


def numbers(values: np.ndarray) -> Numbers:
    """The numbers of a tensor of any shape; a matrix is all of 2 dims. The magnitudes' spread is that of a sample."""
    num_used = num_finite = 0
    total = 0.0
    logs: list[np.ndarray] = []
    stride = max(1, values.size // SAMPLE)
    for part in _rows(values):
        num_finite += (finite := int(np.isfinite(part).sum()))
        if finite < part.size:
            part = np.where(np.isfinite(part), part, np.float32(0))
        num_used += int(np.count_nonzero(part))
        total += float(np.einsum("n,n->", part.reshape(-1), part.reshape(-1), dtype=np.float64))
        some = np.abs(part.reshape(-1)[::stride])
        logs.append(np.log2(some[some > 0]))
    log: np.ndarray = np.concatenate(logs) if num_used else np.zeros(1)
    log = log if log.size else np.zeros(1)
    rms = float(np.sqrt(total / max(values.size, 1)))
    share_zero = 1 - num_used / max(num_finite, 1)
    is_matrix = values.ndim == 2 and rms > 0 and num_finite == values.size
    spectrum = _spectrum(values, rms) if is_matrix else 0.0
    return Numbers(rms, share_zero, values.size - num_finite, spectrum, float(log.mean()), float(log.std()))


def _spectrum(matrix: np.ndarray, rms: float) -> float:
    """By power iteration: a little low where nothing stands out."""
    parts = list(_rows(matrix)) if matrix.size <= CHUNK else None  # what is small is widened once
    v = np.random.default_rng(0).normal(size=(matrix.shape[1],)).astype(np.float32)
    largest = 0.0
    for _ in range(NUM_ROUNDS):
        v = v / np.linalg.norm(v)
        u = [part @ v for part in parts or _rows(matrix)]
        largest = float(np.linalg.norm(np.concatenate(u)))
        v = np.sum([part.T @ own for part, own in zip(parts or _rows(matrix), u, strict=True)], axis=0)
    return largest / (rms * (np.sqrt(matrix.shape[0]) + np.sqrt(matrix.shape[1])))


def shared_directions(weight_EDF: np.ndarray) -> np.ndarray:
    """How much more of each expert lies in the directions that others of its layer use most than would by chance:
    float64 [E], 1 for a random expert, whatever its norm. What a layer reads and writes lies in a part of the width,
    and trained experts learn which. Those with even numbers are held against those with odd ones, and the other way
    round: none is held against itself.

    Args:
      weight_EDF: [E, D, F], the dim that experts share (their input or output) first.
    """
    found_E = np.ones(len(weight_EDF))
    for first in (0, 1):
        basis_DK = _directions(weight_EDF[1 - first :: 2])
        by_chance = basis_DK.shape[1] / basis_DK.shape[0]
        for e in range(first, len(weight_EDF), 2):
            wide_DF = weight_EDF[e].astype(np.float32)
            caught = float(np.square(basis_DK.T @ wide_DF).sum(dtype=np.float64))
            found_E[e] = caught / max(_square(wide_DF), 1e-30) / by_chance
    return found_E


def _square(wide: np.ndarray) -> float:
    return float(np.square(wide).sum(dtype=np.float64))


def _directions(weight_EDF: np.ndarray) -> np.ndarray:
    """An orthonormal basis [D, K] of the directions that these experts, each of norm 1, use most (by iteration)."""
    D = weight_EDF.shape[1]
    k = max(2, min(NUM_DIRECTIONS, D // 8))
    basis_DK = np.linalg.qr(np.random.default_rng(0).normal(size=(D, k)))[0].astype(np.float32)
    for _ in range(4):
        total_DK = np.zeros((D, k), np.float32)
        for own_DF in weight_EDF:
            wide_DF = own_DF.astype(np.float32)
            total_DK += wide_DF @ (wide_DF.T @ basis_DK) / max(_square(wide_DF), 1e-30)
        basis_DK = np.linalg.qr(total_DK)[0]
    return basis_DK


def random_ones(shared_E: np.ndarray) -> np.ndarray:
    """Which experts are random among others that are not: their numbers."""
    middle = float(np.median(shared_E))
    if middle < RANDOM_SHARE:
        return np.zeros(0, int)  # all of them, or hardly trained: no exception
    return np.flatnonzero(shared_E < 1 + (middle - 1) / 3)


def misread(found: Numbers) -> str:
    """How the bits of a matrix were misread; "" where they look right."""
    if 0 < found.log2_spread < MISREAD_SPREAD and -1.5 < found.log2_mean < 1.5:
        return "bfloat16 bits were read as float16"
    if found.log2_mean < -25:
        return "float16 bits were read as bfloat16"
    return ""
