"""Charts: loss curves of the run; success and accuracy as bars beside their baselines."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from anyorder_jax.evaluation import acting, report
from anyorder_jax.evaluation.world_model import MODEL, Results
from anyorder_jax.metrics import read_jsonl
from anyorder_jax.statistics import Estimate

MODEL_COLOR, CONTROL_COLOR, EXPERT_COLOR = "#2563a8", "#b8bec7", "#3f8f4f"
PANELS = (
    ("loss", "loss"),
    ("nll/", "nll per hidden token (nats)"),
    ("accuracy/", "accuracy on hidden tokens"),
)
"""Prefix of the metrics in a panel, and its title."""

BARS = (
    ("causal", "action_accuracy", "action\n(past only)"),
    ("inverse", "action_accuracy", "action\n(both sides)"),
    ("any_order@0.5", "cell_accuracy", "cell\n(p = 0.5)"),
    ("any_order@0.15", "cell_accuracy", "cell\n(p = 0.15)"),
    ("forward", "cell_accuracy", "cell\n(next)"),
    ("forward", "object_cell_accuracy", "object cell\n(next)"),
    ("forward", "exact_observation_rate", "whole obs.\n(next)"),
    ("goal", "exact_goal_rate", "goal"),
)


def _figure(num_panels: int, width: float, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, num_panels, squeeze=False)[0])
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e6e8eb", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    report.write_whole(path, buffer.getvalue())


def loss_curves(metrics_directory: Path, path: Path) -> bool:
    """Draws train.jsonl (thin) and validation.jsonl (dots) of a run: loss, and nll and accuracy by kind of
    unit.

    Returns:
      False, and no picture, when the run has logged nothing.

    Raises:
      ValueError: for a broken line, by file and number.
    """
    logs = {name: metrics_directory / f"{name}.jsonl" for name in ("train", "validation")}
    lines = {name: read_jsonl(log) if log.is_file() else [] for name, log in logs.items()}
    if not lines["train"]:
        return False
    names = sorted(lines["train"][-1])
    panels = [(prefix, title) for prefix, title in PANELS if any(name.startswith(prefix) for name in names)]
    figure, axes = _figure(len(panels), 4.2 * len(panels))
    for axis, (prefix, title) in zip(axes, panels, strict=True):
        for c, name in enumerate(n for n in names if n.startswith(prefix)):
            label = name.removeprefix(prefix) or "train"
            axis.plot(*_series(lines["train"], name), color=f"C{c}", linewidth=1.0, label=label)
            steps, values = _series(lines["validation"], name)
            if steps:
                known = "validation" if prefix == name else f"{label}, validation"
                axis.plot(steps, values, "o--", color=f"C{c}", markersize=4, linewidth=0.8, label=known)
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("updates", fontsize=9)
        axis.tick_params(labelsize=8)
        if prefix == "accuracy/":
            axis.set_ylim(0, 1.02)
        axis.legend(fontsize=7, frameon=False)
    _save(figure, path)
    return True


def _series(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    found = [(line["step"], line[name]) for line in lines if name in line and math.isfinite(line[name])]
    return [step for step, _ in found], [value for _, value in found]


def heatmap(found: Mapping[str, Any], path: Path) -> None:
    """NLL above the column's best, of `comparison.heatmap`; darker is worse."""
    values = np.array([[np.nan if v is None else v for v in row] for row in found["relative"]], float)
    figure, (axis,) = _figure(1, 2.6 + 0.9 * len(found["columns"]), 1.4 + 0.42 * len(found["rows"]))
    axis.grid(False)
    axis.imshow(np.sqrt(values), cmap="Oranges", aspect="auto", vmin=0)  # the root: small differences stay visible
    highest = np.nanmax(values)
    for r, row in enumerate(values):
        for c, value in enumerate(row):
            said = "–" if np.isnan(value) else f"{value:.3f}"
            axis.text(
                c, r, said, ha="center", va="center", fontsize=8, color="white" if value > highest / 2 else "#1f2328"
            )
    axis.set_xticks(range(len(found["columns"])), found["columns"], fontsize=8)
    axis.set_yticks(range(len(found["rows"])), found["rows"], fontsize=8)
    axis.set_title("NLL per hidden token above the column's best (nats)", fontsize=9, loc="left")
    _save(figure, path)


def summary_chart(world_model: Results, played: Mapping[str, Mapping[str, Estimate]], title: str, path: Path) -> None:
    """Two panels: success of every policy, and accuracies, each beside its strongest trivial baseline."""
    figure, (success, accuracy) = _figure(2, 11.5, 4.2)
    _success_bars(success, played)
    _accuracy_bars(accuracy, world_model)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    _save(figure, path)


def _whiskers(estimates: Sequence[Estimate]) -> list[list[float]]:
    return [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]


def _success_bars(axis: Axes, played: Mapping[str, Mapping[str, Estimate]]) -> None:
    names = sorted(played, key=_order)
    estimates = [played[name]["success"] for name in names]
    colors = [_policy_color(name) for name in names]
    axis.bar(range(len(names)), [e.value for e in estimates], color=colors, width=0.7)
    axis.errorbar(
        range(len(names)), [e.value for e in estimates], _whiskers(estimates), fmt="none", ecolor="#30343a",
        capsize=2, linewidth=1,
    )  # fmt: skip
    for x, estimate in enumerate(estimates):
        axis.text(x, estimate.high + 0.015, f"{estimate.value:.0%}", ha="center", va="bottom", fontsize=8)
    labels = [name.replace("no_model/", "no model\n").replace("model/", "model\n").replace("_", " ") for name in names]
    axis.set_xticks(range(len(names)), labels, fontsize=7)
    axis.set_ylim(0, 1.12)
    axis.set_title("success in the environment (95% over episodes)", fontsize=10, loc="left")
    axis.tick_params(axis="y", labelsize=8)


def _order(name: str) -> tuple[int, str]:
    """Model policies first, then the rules without a model, random, the expert."""
    return (0 if name.startswith("model/") else 1 if "/" in name else 2 if name == acting.RANDOM else 3), name


def _policy_color(name: str) -> str:
    if name.startswith("model/"):
        return MODEL_COLOR
    return EXPERT_COLOR if name == acting.EXPERT else CONTROL_COLOR


def _accuracy_bars(axis: Axes, world_model: Results) -> None:
    shown = [b for b in BARS if b[1] in world_model.get(b[0], {}).get(MODEL, {})]
    best = []
    for question, measure, _ in shown:
        by_name = world_model[question]
        rivals = [by_name[n][measure].value for n in by_name if n != MODEL and measure in by_name[n]]
        best.append(max(rivals))
    estimates = [world_model[question][MODEL][measure] for question, measure, _ in shown]
    places = range(len(shown))
    axis.bar([x - 0.2 for x in places], [e.value for e in estimates], 0.38, color=MODEL_COLOR, label="model")
    axis.bar([x + 0.2 for x in places], best, 0.38, color=CONTROL_COLOR, label="best trivial baseline")
    axis.errorbar(
        [x - 0.2 for x in places], [e.value for e in estimates], _whiskers(estimates), fmt="none",
        ecolor="#30343a", capsize=2, linewidth=1,
    )  # fmt: skip
    for x, estimate, value in zip(places, estimates, best, strict=True):
        axis.text(x - 0.2, estimate.high + 0.015, f"{estimate.value:.0%}", ha="center", va="bottom", fontsize=8)
        axis.text(x + 0.2, value + 0.015, f"{value:.0%}", ha="center", va="bottom", fontsize=7, color="#6b7280")
    axis.set_xticks(list(places), [label for _, _, label in shown], fontsize=7)
    axis.set_ylim(0, 1.12)
    axis.set_title("accuracy on held-out episodes (95% over them)", fontsize=10, loc="left")
    axis.tick_params(axis="y", labelsize=8)
    axis.legend(fontsize=8, frameon=False, ncols=2, loc="upper right", bbox_to_anchor=(1, 1.02))
