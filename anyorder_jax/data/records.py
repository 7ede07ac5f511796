"""Records: trajectories as lines of JSON, checked at the door.

A line, wrapped here for reading:

    {"id": "BabyAI-GoToObj-v0/7",
     "units": [{"kind": "goal", "step": 0, "text": "go to a red ball"},
               {"kind": "observation", "step": 0, "data": {"image": [[[2, 5, 0], ...], ...], "direction": 3}},
               {"kind": "action", "step": 0, "text": "forward"}, ...],
     "outcome": {"success": true, "return": 0.93, "num_steps": 5},
     "source": {"environment": "BabyAI-GoToObj-v0", "seed": 7, "expert": "BabyAIBot",
                "version": "minigrid 3.2.0"}}

A unit has either text or data; `"is_expert": false` and `"branches": [...]` only where they say something. What data
holds is the business of the environment's codec, which checks it.
"""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any

from anyorder_jax.types import Kind, Trajectory, Unit

_KINDS = {kind.name.lower(): kind for kind in Kind}
_KIND_NAMES = {kind: name for name, kind in _KINDS.items()}
_TRAJECTORY_KEYS = ("id", "units", "outcome", "source")
_UNIT_KEYS = frozenset(("kind", "step", "text", "data", "is_expert", "branches"))


def trajectory_to_record(trajectory: Trajectory) -> dict[str, Any]:
    """The JSON object of a trajectory; `record_to_trajectory` is its inverse."""
    units = []
    for unit in trajectory.units:
        record: dict[str, Any] = {"kind": _KIND_NAMES[unit.kind], "step": unit.step}
        if unit.text is not None:
            record["text"] = unit.text
        if unit.data is not None:
            record["data"] = dict(unit.data)
        if not unit.is_expert:
            record["is_expert"] = False
        if unit.branches:
            record["branches"] = [dict(branch) for branch in unit.branches]
        units.append(record)
    return {
        "id": trajectory.id,
        "units": units,
        "outcome": dict(trajectory.outcome),
        "source": dict(trajectory.source),
    }


def encode(trajectory: Trajectory) -> bytes:
    """One line of a shard, without its newline."""
    text = json.dumps(trajectory_to_record(trajectory), separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def _require(condition: bool, where: str, expected: str, value: object) -> None:
    if not condition:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:60] + "..."
        raise ValueError(f"{where}: expected {expected}, got {shown}. Correct or remove this line, or collect again.")


def unit_of(record: Any, where: str) -> Unit:
    """A unit from its JSON object, checked; arguments and errors as `record_to_trajectory`."""
    _require(isinstance(record, dict), where, "an object", record)
    unknown = record.keys() - _UNIT_KEYS
    _require(not unknown, where, f"no keys but {', '.join(sorted(_UNIT_KEYS))}", sorted(unknown))
    for key in ("kind", "step"):
        _require(key in record, where, f"a field {key!r}", sorted(record))
    kind, step, text, data = record["kind"], record["step"], record.get("text"), record.get("data")
    _require(isinstance(kind, str) and kind in _KINDS, f"{where}.kind", f"one of {', '.join(_KINDS)}", kind)
    _require(type(step) is int and step >= 0, f"{where}.step", "an integer >= 0", step)
    _require((text is None) != (data is None), where, "either 'text' or 'data'", sorted(record))
    _require(text is None or isinstance(text, str), f"{where}.text", "a string", text)
    _require(data is None or isinstance(data, dict), f"{where}.data", "an object", data)
    is_expert = record.get("is_expert", True)
    _require(isinstance(is_expert, bool), f"{where}.is_expert", "true or false", is_expert)
    branches = record.get("branches", ())
    _require(
        isinstance(branches, (list, tuple)) and all(isinstance(b, dict) for b in branches),
        f"{where}.branches", "a list of objects", branches,
    )  # fmt: skip
    return Unit(_KINDS[kind], step, text, data, is_expert, tuple(branches))


def record_to_trajectory(record: Any, where: str = "record") -> Trajectory:
    """A trajectory from the JSON object of one line, checked.

    Args:
      record: what `json.loads` gave.
      where: names the record in errors, e.g. "train/shard-00000.jsonl:17".

    Raises:
      ValueError: naming the place, what was expected and what came.
    """
    _require(isinstance(record, dict), where, "a JSON object", record)
    for key in _TRAJECTORY_KEYS:
        _require(key in record, where, f"a field {key!r}", sorted(record))
    unknown = sorted(record.keys() - set(_TRAJECTORY_KEYS))
    _require(not unknown, where, f"no fields but {', '.join(_TRAJECTORY_KEYS)}", unknown)
    _require(isinstance(record["id"], str) and record["id"] != "", f"{where}: id", "a name", record["id"])
    for key in ("outcome", "source"):
        _require(isinstance(record[key], dict), f"{where}: {key}", "an object", record[key])
    _require(
        isinstance(record["units"], list) and len(record["units"]) > 0,
        f"{where}: units", "a list of at least one unit", record["units"],
    )  # fmt: skip
    units = tuple(unit_of(unit, f"{where}: units[{i}]") for i, unit in enumerate(record["units"]))
    for i in range(1, len(units)):
        _require(
            units[i].step >= units[i - 1].step, f"{where}: units[{i}].step",
            f"units in order of time (>= {units[i - 1].step})", units[i].step,
        )  # fmt: skip
    return Trajectory(record["id"], units, record["outcome"], record["source"])


def decode(line: bytes, where: str, ids: Container[str]) -> Trajectory:
    """The trajectory of one line of a shard; its id is none of `ids`. Errors as `record_to_trajectory`."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: broken JSON ({error}). Correct or remove this line, or collect again.") from error
    trajectory = record_to_trajectory(record, where)
    _require(trajectory.id not in ids, f"{where}: id", "each id once", trajectory.id)
    return trajectory
