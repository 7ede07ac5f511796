"""Overlap: episodes held out by their seed may still be episodes that the training split holds. Which, and how many.

training, seed 7         go to a red ball | o | left | p | forward | q
held out, seed 9000003   go to a red ball | o | left | p | forward | q     identical
held out, seed 9000004   go to a red ball | o | forward | r                begins alike: same goal, same first view
held out, seed 9000005   go to a key      | o | right | s                  neither
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from anyorder_jax.data import sources
from anyorder_jax.types import Kind, Trajectory, Unit


def _digest(trajectory: Trajectory) -> bytes:
    units = tuple(dataclasses.replace(unit, branches=()) if unit.branches else unit for unit in trajectory.units)
    record = sources.trajectory_to_record(dataclasses.replace(trajectory, units=units))["units"]
    return hashlib.blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=16).digest()


def start_of(units: Sequence[Unit]) -> bytes:
    """A digest of what stands before the first decision (thought or action): goal and first observation."""
    decisions = (i for i, unit in enumerate(units) if unit.kind in (Kind.THOUGHT, Kind.ACTION))
    return _digest(Trajectory("", tuple(units[: next(decisions, len(units))])))


class Known(NamedTuple):
    """What a training split holds: digests of its starts and of its whole episodes."""

    starts: frozenset[bytes]
    wholes: frozenset[bytes]

    @classmethod
    def of(cls, trajectories: Iterable[Trajectory]) -> Known:
        """The digests of these episodes."""
        both = {(start_of(t.units), _digest(t)) for t in trajectories}
        return cls(frozenset(start for start, _ in both), frozenset(whole for _, whole in both))

    def begins(self, units: Sequence[Unit]) -> bool:
        """Whether a training episode has the same goal and first observation."""
        return start_of(units) in self.starts

    def counts(self, trajectories: Iterable[Trajectory]) -> dict[str, int]:
        """{"num_episodes", "num_identical": of them those that are a training episode but for id and source,
        "num_same_start": those that begin like one (the identical ones included)}."""
        found = [(self.begins(t.units), _digest(t) in self.wholes) for t in trajectories]
        num_same_start, num_identical = (sum(column) for column in zip(*found, strict=True)) if found else (0, 0)
        return {"num_episodes": len(found), "num_identical": num_identical, "num_same_start": num_same_start}


def count(directory: Path | str, manifest: sources.Manifest) -> dict[str, Mapping[str, int]]:
    """`Known.counts` of each held-out split of a complete collection; empty where it has no training split."""
    held_out = [split for split in sources.SPLITS[1:] if manifest.splits.get(split)]
    if not manifest.splits.get("train") or not held_out:
        return {}
    known = Known.of(sources.iterate_trajectories(directory, "train"))
    return {split: known.counts(sources.iterate_trajectories(directory, split)) for split in held_out}


def sentence(split: str, counts: Mapping[str, int]) -> str:
    """The counts in words."""
    return (
        f"of {counts['num_episodes']} {split} episodes {counts['num_identical']} are identical to a training episode "
        f"of another seed, {counts['num_same_start']} begin like one (same goal and first observation)"
    )
