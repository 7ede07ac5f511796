"""Result rows: what was measured, as one long table; every number of a report is a group of rows, added up.

`rows.jsonl` holds one row a line, a JSON object with these columns and no others:

    schema_version  int    SCHEMA_VERSION
    run             str    name of the run directory
    seed            int    that the run was trained from (what is repeated when recipes are compared)
    source          str    of a mixture, the name of the source that the episode is of; else empty
    task            str    id of the episode that was asked about
    question        str    what was asked (`questions.QUESTIONS`; of grids also "acting", for episodes that were played)
    predictor       str    "model", or a baseline (`baselines.BASELINES`)
    measure         str    of `measures.MEASURES`; of grids those of `evaluation`
    role            str    of the asked units; empty: of all of them
    numerator       float  sum over the episode
    denominator     float  of how many things, > 0

The value of a group is sum(numerator) / sum(denominator); its interval comes from redrawing episodes.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyorder_jax import statistics
from anyorder_jax.asking.measures import MEASURES
from anyorder_jax.files import write_whole
from anyorder_jax.statistics import Estimate

SCHEMA_VERSION = 2
"""1 had no column `source`."""


class Row(NamedTuple):
    """One line of the table; see the module."""

    run: str
    seed: int
    source: str
    task: str
    question: str
    predictor: str
    measure: str
    role: str
    numerator: float
    denominator: float


COLUMNS = Row._fields
GROUPED = ("run", "seed", "source", "task", "question", "predictor", "measure", "role")
"""Columns that rows may be grouped and chosen by."""


def write(path: Path, rows: Iterable[Row]) -> None:
    """Writes the whole table, or nothing."""
    write_whole(path, "".join(_line(row) for row in rows))


def _line(row: Row) -> str:
    content = {"schema_version": SCHEMA_VERSION, **row._asdict()}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def read(path: Path) -> list[Row]:
    """The rows of a file that `write` wrote.

    Raises:
      ValueError: for a line that is none, by file and number.
    """
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                content = json.loads(line)
                version = content.pop("schema_version")
                row = Row(**({"source": "", **content} if version == 1 else content))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(
                    f"{path}:{number}: no result row ({error}). Expected an object with schema_version, "
                    f"{', '.join(COLUMNS)}; evaluate again."
                ) from None
            if version not in (1, SCHEMA_VERSION):
                raise ValueError(
                    f"{path}:{number}: schema version {version}, expected {SCHEMA_VERSION}. Evaluate again."
                )
            rows.append(row)
    return rows


def summarise(
    rows: Sequence[Row], by: Sequence[str], where: Mapping[str, Sequence[str]] | None = None
) -> dict[tuple[Any, ...], Estimate]:
    """Rows in groups, each with its value and its 95% interval over episodes.

        summarise(rows, by=("question", "predictor", "role"), where={"measure": ["nll_per_token"]})

    Args:
      rows: of one run or of several.
      by: columns of GROUPED whose values make the groups, in the order of the result's keys. What is measured and who
        predicts must be among them, or be a single one: different things are not added up.
      where: column -> the values that are looked at; others are left out.

    Returns:
      {values of `by`: estimate}, in the order of first appearance.

    Raises:
      ValueError: for a column that there is not, or a value in `where` that no row has.
    """
    chosen = _chosen(rows, {} if where is None else where)
    for column in by:
        _known(column, GROUPED, "column")
    for column in ("measure", "predictor"):
        found = sorted({getattr(row, column) for row in chosen})
        if column not in by and len(found) > 1:
            raise ValueError(
                f"rows: {', '.join(found)} cannot be added up. Group by {column!r}, or choose one in `where`."
            )
    groups: dict[tuple[Any, ...], dict[tuple[str, str, str], list[float]]] = {}
    proportions: dict[tuple[Any, ...], bool] = {}
    for row in chosen:
        key = tuple(getattr(row, column) for column in by)
        proportions[key] = row.measure in MEASURES and MEASURES[row.measure].is_proportion
        sums = groups.setdefault(key, {}).setdefault((row.run, row.source, row.task), [0.0, 0.0])
        sums[0] += row.numerator
        sums[1] += row.denominator
    estimates = {}
    for key, by_episode in groups.items():
        top_E, bottom_E = np.array(list(by_episode.values())).T
        estimate = statistics.ratio(top_E, bottom_E, is_proportion=proportions[key])
        if estimate is not None:
            estimates[key] = estimate
    return estimates


def _chosen(rows: Sequence[Row], where: Mapping[str, Sequence[str]]) -> list[Row]:
    for column, names in where.items():
        _known(column, GROUPED, "column")
        there = list(dict.fromkeys(str(getattr(row, column)) for row in rows))
        for name in names:
            _known(str(name), there, column)
    wanted = {column: set(map(str, names)) for column, names in where.items()}
    return [row for row in rows if all(str(getattr(row, column)) in names for column, names in wanted.items())]


def _known(name: str, names: Sequence[str], what: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"rows: no {what} {name!r} in these results; there is {', '.join(names) or 'none'}.{hint}")
