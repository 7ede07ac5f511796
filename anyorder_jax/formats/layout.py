"""Layout: what an exported record says beside its turns, so that ingesting it gives the very units that were exported.

    messages   system  user  user         assistant (reasoning, content, 2 calls)   tool    tool
    units      system  goal  observation  thought action action action             tool    tool
    layout     kind, step and mark of each unit, in order; a digest of all; outcome and source

It stands under `extra.anyorder_jax`, which other programs leave alone. Where a record was changed since, so that the
digest is another one, it is read like anybody's log, and counted (`changed_exports`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from anyorder_jax.formats.episode import Source, digest_of, name_of, task_of
from anyorder_jax.formats.parts import Reading
from anyorder_jax.types import DECISION, ROLES, Kind, Trajectory, Unit

KEY, VERSION = "anyorder_jax", 1
_OF_INGESTION = ("format", "file", "line", "task", "counts", "records", "joined_by")
"""Keys of a source that reading writes anew."""


def describe(trajectory: Trajectory) -> dict[str, Any]:
    """The `extra` of an exported record."""
    source, outcome = trajectory.source, trajectory.outcome
    extra: dict[str, Any] = {}
    task = source.get("task", source.get("seed"))
    if task is not None:
        extra["task_id"] = str(task)
    if isinstance(outcome.get("success"), bool):
        extra["success"] = outcome["success"]
    if isinstance(outcome.get("return"), int | float):
        extra["reward"] = outcome["return"]
    extra[KEY] = {
        "version": VERSION, "units": [_entry(unit) for unit in trajectory.units], "digest": digest_of(trajectory.units),
        "outcome": dict(outcome), "source": dict(source),
    }  # fmt: skip
    return extra


def _entry(unit: Unit) -> dict[str, Any]:
    entry: dict[str, Any] = {"kind": ROLES[unit.kind], "step": unit.step}
    if not unit.is_expert:
        entry["is_expert"] = False
    if not unit.text:
        entry["is_empty"] = True
    return entry


def restore(
    record: Mapping[str, Any], texts: Callable[[], Sequence[str]], source: Source, reading: Reading
) -> Trajectory | None:
    """The trajectory that a record was exported from; None for any other record.

    Args:
      record: as read.
      texts: of the record's turns: every text that is not empty, in order.
      source: format, file and line.
      reading: gets the counts.

    Raises:
      ValueError: the agent never speaks.
    """
    extra = record.get("extra")
    layout = extra.get(KEY) if isinstance(extra, dict) else None
    if layout is None:
        return None
    try:
        units = tuple(_units(layout, iter(texts())))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        units = ()
    if not units or digest_of(units) != layout["digest"]:
        reading.counts["changed_exports"] += 1
        return None
    if not any(unit.kind in DECISION for unit in units) and not reading.is_unfinished:
        raise ValueError("the agent has no turn in it, so there is nothing to learn")
    outcome, was = ({**value} if isinstance(value := layout.get(key), dict) else {} for key in ("outcome", "source"))
    if not (type(outcome.get("num_steps")) is int and 0 <= outcome["num_steps"] < 2**32):
        outcome["num_steps"] = len({unit.step for unit in units if unit.kind in DECISION})
    kept = {key: value for key, value in was.items() if key not in _OF_INGESTION}
    whole = {"environment": "", **kept, **source, "task": task_of(record, units)}
    return Trajectory(name_of(record, units), units, outcome, whole)


def _units(layout: Any, texts: Iterator[str]) -> Iterator[Unit]:
    """Raises one of several errors for a layout that does not fit the texts."""
    if layout["version"] != VERSION:
        raise ValueError("of another version")
    step = 0
    for entry in layout["units"]:
        if type(entry["step"]) is not int or entry["step"] < step:
            raise ValueError("not in order of time")
        step = entry["step"]
        text = "" if entry.get("is_empty") else next(texts, "")
        yield Unit(Kind(ROLES.index(entry["kind"])), step, text, is_expert=entry.get("is_expert", True) is True)
    if next(texts, None) is not None:
        raise ValueError("more texts than units")
