"""A table of how far our arrays are from those of another implementation, and which of them are past a tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

TOLERANCES = {"float32": 1e-4, "bfloat16": 0.1}
"""float32: of the largest difference (the golden files agree to a few 1e-5 across implementations).
bfloat16: of the median one, because a token that changes its expert moves its logits by whole units."""
ADAMW_TOLERANCE = 1e-3  # relative
_RELATIVE = ("grad_", "adamw_")
_REFERENCE_BF16 = "full_logits_bf16_model"


def _by_expert(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The array; routing in the order of the experts' numbers.

    The goldens list the chosen experts from the highest biased score down, which nothing computes with, and which two
    nearly equal scores may turn round.
    """
    prefix = name.rsplit("_topk_", 1)[0]
    chosen = f"{prefix}_topk_idx"
    if name not in (chosen, f"{prefix}_topk_weight") or chosen not in arrays:
        return arrays[name]
    if arrays[name].shape != arrays[chosen].shape:
        return arrays[name]
    return np.take_along_axis(arrays[name], np.argsort(arrays[chosen], axis=-1), axis=-1)


def _distance(name: str, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Where they differ (integers, names), relative to the largest entry (gradients, AdamW), or by how much."""
    if not np.issubdtype(theirs.dtype, np.floating):
        return (ours != theirs).astype(np.float64)
    scale = np.abs(theirs).max(initial=0) if name.startswith(_RELATIVE) else 1.0
    return np.abs(ours.astype(np.float64) - theirs) / (scale or 1.0)


def _tolerance(name: str, expected: Mapping[str, np.ndarray], dtype: str) -> float:
    """The tolerance of one array; in bfloat16 logits may be twice as far away as the reference's own model."""
    if name.startswith("adamw_"):
        return ADAMW_TOLERANCE
    if dtype == "bfloat16" and name.endswith("_logits") and _REFERENCE_BF16 in expected and "full_logits" in expected:
        return 2 * float(np.median(np.abs(expected[_REFERENCE_BF16] - expected["full_logits"])))
    return TOLERANCES[dtype]


def some(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def compare(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], dtype: str, tolerance: float) -> bool:
    """Prints largest and median differences of all arrays that both have, and names what has no counterpart.

    Args:
      found, expected: arrays by name.
      dtype: of the computation.
      tolerance: of every array; 0: each has its own (`_tolerance`).

    Returns:
      True when all are within the tolerance: float32 compares largest differences and every integer; bfloat16
      medians.

    Raises:
      ValueError: when they share no array.
    """
    shared = [name for name in found if name in expected]
    if not shared:
        raise ValueError(f"--against: has none of {some(list(found))}; it has {some(sorted(expected))}.")
    width = max(28, *map(len, shared))
    print(f"{'array':<{width}} {'shape':<20} {'max |d|':>10} {'median |d|':>11} {'tolerance':>10}")
    is_good = True
    for name in shared:
        ours, theirs = _by_expert(found, name), _by_expert(expected, name)
        if ours.shape != theirs.shape:
            print(f"{name:<{width}} {ours.shape!s:<20} expected shape {theirs.shape}  NO")
            is_good = False
            continue
        distance = _distance(name, ours, theirs)
        largest, median = (float(distance.max()), float(np.median(distance))) if distance.size else (0.0, 0.0)
        allowed = tolerance or _tolerance(name, expected, dtype)
        is_within = bool((largest if dtype == "float32" else median) <= allowed)  # False for NaN
        is_good &= is_within
        print(
            f"{name:<{width}} {ours.shape!s:<20} {largest:10.2e} {median:11.2e} {allowed:10.1e}"
            f"{'' if is_within else '  NO'}"
        )
    others = [name for name in expected if name not in found]
    if others:
        print(f"not compared, because this run computes no such array: {some(others)}")
    print("all within the tolerance" if is_good else "NOT all within the tolerance")
    return is_good
