"""What the report leaves behind: the result file, the table, and the page of docs/gpu.md. Standard library alone."""

from __future__ import annotations

import datetime
import json
import os
import re
from pathlib import Path
from typing import Any

from gpu_parts.rows import read

BEGIN, END = "<!-- gpu_report: begin -->", "<!-- gpu_report: end -->"
"""What `fill` replaces lies between these."""

Record = dict[str, Any]


def word(rows: list[dict[str, Any]], name: str) -> str:
    """What the part `machine` says that `name` is, or "unknown"."""
    return next(
        (str(row["value"]) for row in rows if (row["part"], row["name"], row["measure"]) == ("machine", name, "is")),
        "unknown",
    )


def record(rows: list[dict[str, Any]], begin: datetime.datetime, command: str) -> Record:
    """A run's result: what it ran on, and its rows with each rate's share of the measured matrix peak."""
    about = {name: word(rows, name) for name in ("card", "driver", "python", "jax", "jaxlib", "tokamax", "torch")}
    ended = [row["value"] for row in rows if row["measure"] == "ended"]
    return {
        **about, "commit": word(rows, "commit"), "date": begin.strftime("%Y-%m-%d %H:%M UTC"), "command": command,
        "minutes": round(sum(ended) / 60, 2), "rows": with_shares(rows),
    }  # fmt: skip


def with_shares(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows; those in TFLOP/s (but the peaks themselves) say which share of the measured bfloat16 peak they are."""
    peaks = [row["value"] for row in rows if row["name"] == "matrix product bfloat16"]
    if not peaks:
        return rows
    found = []
    for row in rows:
        if row["unit"] == "TFLOP/s" and row["part"] != "machine" and not isinstance(row["value"], str):
            share = f"{row['value'] / peaks[0]:.1%} of the measured bfloat16 peak"
            row = {**row, "note": "; ".join(filter(None, (share, row["note"])))}
        found.append(row)
    return found


def file_name(record: Record) -> str:
    """gpu-CARD-DATE.json."""
    card = re.sub(r"[^a-z0-9]+", "-", record["card"].lower()).strip("-")
    return f"gpu-{card}-{record['date'][:10]}.json"


def write(path: Path, record: Record) -> None:
    """A row a line, whole or not at all."""
    head = json.dumps({key: value for key, value in record.items() if key != "rows"}, indent=1, ensure_ascii=False)
    lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in record["rows"])
    partial = path.with_suffix(".partial")
    partial.write_text(head.removesuffix("\n}") + f',\n "rows": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    os.replace(partial, path)


def load(path: Path) -> Record:
    """A result file; or the rows of a run that was cut, as far as they go.

    Raises:
      ValueError: for a file that is neither.
    """
    if path.suffix == ".jsonl":
        begin = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
        return record(read(path), begin, "cut before its end")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected a result of gpu_report.py, this is no JSON ({error}).") from error
    if not isinstance(found, dict) or "rows" not in found:
        raise ValueError(f"{path}: expected a result of gpu_report.py with `rows`, got {type(found).__name__}.")
    return found


def text(record: Record) -> str:
    """Head, what ended how, and a table of every row, in Markdown."""
    rows = record["rows"]
    head = [
        f"**{record['card']}**, driver {record['driver']}, Python {record['python']}, jax {record['jax']} (jaxlib "
        f"{record['jaxlib']}), tokamax {record['tokamax']}, PyTorch {record['torch']}; commit {record['commit'][:12]}; "
        f"{record['date']}, {record['minutes']} minutes:",
        "",
        f"    {record['command']}",
        "",
    ]
    ends = [row for row in rows if row["measure"] == "ended"]
    wrong = [row for row in rows if row["verdict"] == "fail" and row["measure"] != "ended"]
    lines = ["| part | ended | seconds | rows | why |", "|---|---|---|---|---|"]
    for row in ends:
        count = sum(other["part"] == row["part"] for other in rows) - 1
        lines.append(_line(row["part"], row["verdict"], f"{row['value']:.1f}", count, row["note"]))
    lines += ["", f"What failed: {len(wrong)} row(s)." if wrong else "No row failed."]
    lines += [f"- {row['name']}: {row['measure']} {_number(row)}, {row['bound']}. {row['note']}" for row in wrong]
    lines += ["", "| part | what | measure | value | verdict | note |", "|---|---|---|---|---|---|"]
    for row in rows:
        if row["measure"] != "ended":
            verdict = f"{row['verdict']} ({row['bound']})" if row["bound"] else ""
            lines.append(_line(row["part"], row["name"], row["measure"], _number(row), verdict, row["note"]))
    return "\n".join(head + lines)


def _line(*cells: Any) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _number(row: dict[str, Any]) -> str:
    """Four digits and the unit."""
    value = row["value"]
    shown = value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return f"{shown} {row['unit']}".strip()


def fill(path: Path, record: Record) -> None:
    """Puts the text between the two marks of a page.

    Raises:
      ValueError: for a page without them.
    """
    page = path.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: expected the lines {BEGIN} and {END}, which say where the table goes.")
    path.write_text(f"{before}{BEGIN}\n{text(record)}\n{END}{after}", encoding="utf-8")
