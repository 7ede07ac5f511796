"""A suite: variants of a run, each trained from several seeds, and the measures that compare them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anyorder_jax.evaluation.statistics import student_interval

MEASURES = {
    "greedy success": "acting.model/greedy.success",
    "sampled success": "acting.model/sampled.success",
    "steps / expert": "acting.model/sampled.steps_relative_to_expert",
    "causal action acc.": "world_model.causal.model.action_accuracy",
    "causal action nll": "world_model.causal.model.action_nll",
    "next-obs cell acc.": "world_model.forward.model.cell_accuracy",
    "nll/cell p=.5": "world_model.any_order@0.5.model.nll_per_cell",
    "inverse action acc.": "world_model.inverse.model.action_accuracy",
}
"""Column title -> where report.json holds it."""


@dataclass(frozen=True)
class Suite:
    """variants: name -> arguments of `anyorder_jax.train`. seeds: `--config.seed` of each repetition. evaluate: more
    arguments of `anyorder_jax.evaluate`. measures: column title -> path in report.json."""

    question: str
    variants: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    evaluate: Sequence[str] = ()
    measures: Mapping[str, str] = None  # type: ignore[assignment]  # None: MEASURES

    def __post_init__(self) -> None:
        if not self.variants or len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError(f"suite: expected variants and distinct seeds, got {self.variants} and {self.seeds}.")
        if self.measures is None:
            object.__setattr__(self, "measures", MEASURES)


def find(report: Mapping[str, Any], path: str) -> float:
    """The value at `path` of a report ("acting.model/greedy.success"; a question's name may hold a dot).

    Raises:
      KeyError: when the report has nothing there.
    """
    node: Any = report
    rest = path
    while rest:
        keys = [key for key in node if rest == key or rest.startswith(key + ".")]
        if not keys:
            raise KeyError(f"report.json has nothing at {path!r}; at {rest!r} it has {sorted(node)}.")
        node, rest = node[keys[0]], rest[len(keys[0]) + 1 :]
    return float(node["value"])


def compare(suite: Suite, reports: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Mean and 95% interval over seeds of every measure and variant.

    Args:
      suite: what was run.
      reports: variant -> report.json of every seed.

    Returns:
      {variant: {measure: {"mean", "low", "high", "values"}}}; a measure that a variant's reports lack is left out.
      The interval is Student's t over the seeds (each seed's own episodes are inside its value).
    """
    table: dict[str, Any] = {}
    for name, found in reports.items():
        table[name] = {}
        for title, path in suite.measures.items():
            try:
                values = [find(report, path) for report in found]
            except KeyError:
                continue
            mean, low, high = student_interval(np.array(values))
            table[name][title] = {"mean": mean, "low": low, "high": high, "values": values}
    return table


def text(suite: Suite, table: Mapping[str, Any]) -> str:
    """The comparison as a Markdown table: mean ± half the interval."""
    titles = [title for title in suite.measures if any(title in row for row in table.values())]
    lines = ["| trained on | " + " | ".join(titles) + " |", "|---|" + "---|" * len(titles)]
    for name, row in table.items():
        cells = []
        for title in titles:
            entry = row.get(title)
            cells.append("–" if entry is None else f"{entry['mean']:.3f} ± {(entry['high'] - entry['low']) / 2:.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def read_report(path: Path) -> dict[str, Any]:
    """A run's report.json."""
    return json.loads(path.read_text(encoding="utf-8"))
