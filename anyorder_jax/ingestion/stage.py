"""Stage: one piece of a log becomes a part on disk: its episodes as lines, and a table of what they are.

    STAGING/plan.json               settings and pieces
    STAGING/part-00012.jsonl        one trajectory a line, as in a shard
    STAGING/part-00012.npy          uint64 [episodes, columns], see `Column`
    STAGING/part-00012.refused      a JSON object a line: file, line, reason
    STAGING/part-00012.json         counts; written last, so a part that has it is whole

Every file is written under a name of its own and then renamed: a worker that outlives its killed parent does no harm.
"""

from __future__ import annotations

import array
import enum
import json
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from anyorder_jax.data import sources
from anyorder_jax.files import opened_whole, write_whole
from anyorder_jax.formats import registry
from anyorder_jax.formats.episode import digest, digest_of
from anyorder_jax.formats.parts import Reading
from anyorder_jax.ingestion.files import Piece, records
from anyorder_jax.types import Kind, Trajectory


class Column(enum.IntEnum):
    """Of a part's table. UNITS and CHARACTERS are the first of a column for every `Kind`."""

    OFFSET = 0  # of the line, in bytes
    LENGTH = 1  # of the line with its newline
    CONTENT = 2  # hash of the units
    ID = 3  # hash of the id
    TASK = 4  # hash of the task
    JOIN = 5  # hash of what the record is to be joined with, 0: nothing
    STEPS = 6
    UNITS = 7
    CHARACTERS = 7 + len(Kind)


NUM_COLUMNS = 7 + 2 * len(Kind)


def part_path(staging: Path, number: int, suffix: str) -> Path:
    """The path of one file of a part."""
    return staging / f"part-{number:05d}{suffix}"


def row(trajectory: Trajectory, offset: int, length: int) -> list[int]:
    """The table's row of an episode whose line begins at `offset`."""
    source = trajectory.source
    units, characters = [0] * len(Kind), [0] * len(Kind)
    for unit in trajectory.units:
        units[unit.kind] += 1
        characters[unit.kind] += len(unit.text or "")
    hashes = [digest_of(trajectory.units), digest(trajectory.id), digest(source["task"]), source.get("joined_by", "0")]
    return [
        offset, length, *(int(value, 16) for value in hashes), trajectory.outcome["num_steps"], *units, *characters,
    ]  # fmt: skip


class PartWriter:
    """Writes the lines and the table of a part."""

    def __init__(self, staging: Path, number: int):
        self._staging, self._number = staging, number
        self._rows = array.array("Q")
        self._offset = 0

    def write(self, lines: BinaryIO, trajectory: Trajectory) -> None:
        """Appends an episode to the lines."""
        line = sources.encode(trajectory) + b"\n"
        lines.write(line)
        self._rows.extend(row(trajectory, self._offset, len(line)))
        self._offset += len(line)

    def write_table(self) -> None:
        """Writes the table, after the lines."""
        table = np.frombuffer(self._rows, np.uint64) if self._rows else np.zeros(0, np.uint64)
        with opened_whole(part_path(self._staging, self._number, ".npy")) as file:
            np.save(file, table.reshape(-1, NUM_COLUMNS), allow_pickle=False)


def stage(staging: Path, number: int) -> dict[str, Any]:
    """Reads the piece `number` of the plan and writes its part, unless it is there.

    Returns:
      What stands in the part's .json: `records`, `refused` (numbers), `counts` (name -> number), `recognised`
      ({"FORMAT (why)": number}), `first_refused` (a sentence, or "").

    Raises:
      OSError: the disk refuses.
    """
    done = part_path(staging, number, ".json")
    if done.exists():
        return json.loads(done.read_bytes())
    plan = json.loads((staging / "plan.json").read_bytes())
    settings = plan["settings"]
    counts: Counter[str] = Counter()
    recognised: Counter[str] = Counter()
    num_records = num_refused = 0
    first_refused = ""
    writer = PartWriter(staging, number)
    with (
        opened_whole(part_path(staging, number, ".jsonl")) as lines,
        opened_whole(part_path(staging, number, ".refused")) as refused,
    ):
        piece = Piece(*plan["pieces"][number])
        logged = piece.file.encode("utf-8", "replace").decode()  # names of files may be no text
        for line, record, reason in records(piece):
            num_records += 1
            if not reason:
                reading = Reading(settings["drop_images"])
                try:
                    name, why = settings["format"], "as told"
                    if name == "auto":
                        name, why = registry.detect(record)
                    trajectory = registry.read(record, name, logged, line, reading)
                except ValueError as error:
                    reason = str(error)
                else:
                    writer.write(lines, trajectory)
                    recognised[f"{name} ({why})"] += 1
                    if "joined_by" not in trajectory.source:  # else its episode counts, once it is whole
                        counts += reading.counts
            if reason:
                num_refused += 1
                told = {"file": logged, "line": line, "reason": reason}
                refused.write(json.dumps(told, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
                first_refused = first_refused or f"{logged}:{line}: {reason}"
                if settings["on_bad_record"] == "stop":
                    break
    writer.write_table()
    summary = {
        "records": num_records,
        "refused": num_refused,
        "counts": counts,
        "recognised": recognised,
        "first_refused": first_refused,
    }
    write_whole(done, json.dumps(summary))
    return summary
