"""Registry: the formats by name, and which of them a record is in."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from anyorder_jax.formats import adp, atif, messages, sharegpt, toolbench
from anyorder_jax.formats.parts import Reading, shown
from anyorder_jax.types import Trajectory

# In the order in which they are tried: the more particular first.
FORMATS: Mapping[str, ModuleType] = {
    "atif": atif,
    "adp": adp,
    "toolbench": toolbench,
    "sharegpt": sharegpt,
    "messages": messages,
}


def detect(record: Any) -> tuple[str, str]:
    """(format, why) of a record.

    Raises:
      ValueError: no format recognises it; says what it looks like and what is expected.
    """
    for name, module in FORMATS.items():
        why = module.recognise(record)
        if why is not None:
            return name, why
    looks = f"an object with {', '.join(map(repr, list(record)[:8]))}" if isinstance(record, dict) else shown(record)
    raise ValueError(
        f"not recognised: {looks}. Expected 'messages' (role, content), 'conversations' (from, value), 'steps' (ATIF), "
        "'content' with class_ (ADP) or ToolBench's records; rename its keys, or say which with --format"
    )


def read(record: Any, name: str, file: str = "", line: int = 0, reading: Reading | None = None) -> Trajectory:
    """A trajectory from one logged record.

    Args:
      record: what `json.loads` gave.
      name: one of `FORMATS`, or "auto".
      file: goes into `source.file`.
      line: goes into `source.line`: of the file, or the record's number in an array or a table, from 1.
      reading: what is allowed; gets the counts. None: nothing special.

    Raises:
      ValueError: the record is not in the format, or holds what cannot be trained on; says what and what came.
    """
    if name == "auto":
        name = detect(record)[0]
    source = {"format": name, "file": file, "line": line}
    try:
        return FORMATS[name].read(record, source, Reading() if reading is None else reading)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
