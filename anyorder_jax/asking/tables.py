"""Tables: results as people read them on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anyorder_jax.asking.baselines import BASELINES
from anyorder_jax.statistics import Estimate

MODEL = "model"

_EVERY = ("nll_per_token", "token_accuracy")
_CALL = ("call_exact", "call_argument_accuracy")
SHOWN: Mapping[str, Sequence[str]] = {
    "any_order@0.15": _EVERY,
    "any_order@0.5": _EVERY,
    "any_order@0.3/line": ("nll_per_token", "exact_line"),
    "decision": (*_EVERY, "nll_per_unit", "exact_unit", *_CALL),
    "forward": (*_EVERY, "exact_unit", "changed_line_nll_per_token", "changed_line_token_accuracy"),
    "inverse": (*_EVERY, "exact_unit", *_CALL),
    "goal": (*_EVERY, "exact_unit"),
    "past": _EVERY,
    "future": _EVERY,
}
"""Question -> measures of the terminal's table; report.json has all of them."""


def text_table(summary: Mapping[tuple[Any, ...], Estimate]) -> str:
    """One row a question, role and measure: the model with its interval, then the baselines.

    Args:
      summary: by question, role, measure, predictor, as `rows.summarise` gives it.
    """
    lines = [
        ["question / role / measure", MODEL, "95%, episodes", "n", *(name.replace("_", " ") for name in BASELINES)]
    ]
    for question, measures in SHOWN.items():
        roles = dict.fromkeys(role for q, role, _, who in summary if q == question and who == MODEL)
        for role in roles:
            for measure in measures:
                model = summary.get((question, role, measure, MODEL))
                if model is None:
                    continue
                others = [summary.get((question, role, measure, name)) for name in BASELINES]
                lines.append([
                    f"{question:18} {role:11} {measure.replace('_', ' ')}", f"{model.value:.3f}", interval(model),
                    str(model.count), *("-" if other is None else f"{other.value:.3f}" for other in others),
                ])  # fmt: skip
    return table(lines)


def interval(estimate: Estimate) -> str:
    """[low, high], over the run's test episodes; "-" for one episode."""
    if not estimate.has_interval:
        return "-"
    return f"[{estimate.low:.3f}, {estimate.high:.3f}]"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest entry; the first is aligned left, the others right. A row of "" is a
    gap."""
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            text.ljust(width) if c == 0 else text.rjust(width)
            for c, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
