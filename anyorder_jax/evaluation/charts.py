"""Charts: loss curves of the run; success and accuracy as bars beside their baselines."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from anyorder_jax.config import MaskingConfig
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

OTHER = "other"  # loss.py's third group
LOG_FROM = 3.0  # a panel of costs is logarithmic from this quotient of its largest and smallest value
LETTERS_PER_INCH = 16  # of the smaller texts
INK = "#1f2328"

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


as_typed = matplotlib.rc_context({"text.parse_math": False, "text.usetex": False})
"""Around what draws: a name with "$" in it is a name, never mathematics."""


def percent(share: float) -> str:
    """One decimal; only all of it is "100%" and only nothing "0%"."""
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    return "<0.1%" if share < 0.0005 else ">99.9%" if share >= 0.9995 else f"{share:.1%}"


def _figure(ratios: Sequence[float], width: float, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """A figure with panels beside each other, as wide as `ratios` say."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0])
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e6e8eb", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    report.write_whole(path, buffer.getvalue())


def _shares(axis: Axes, top: float) -> None:
    """The y axis as shares, in %."""
    axis.set_ylim(0, top)
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.tick_params(axis="y", labelsize=8)


def _costs(axis: Axes, values: Sequence[float]) -> bool:
    """The y axis as costs: logarithmic, and True, where the first ones would flatten all others."""
    known = [value for value in values if value > 0 and math.isfinite(value)]
    if not known or max(known) < LOG_FROM * min(known):
        return False
    axis.set_yscale("log", nonpositive="clip")  # a cost of 0 is drawn on the lower edge
    axis.set_ylim(min(known) / 1.15, max(known) * 1.15)
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    return True


def why_they_differ(masking: MaskingConfig | None = None) -> list[str]:
    """What a reader has to know who compares training with validation, as sentences; more of them where the masks of
    the two differ.

    Args:
      masking: of the run, where it is known.
    """
    parts = [
        "train: the mean over all updates since the point before, drawn at their middle; every update is measured "
        "before it is learned from, with new masks.",
        "validation: the weights at that update on a few fixed rows of held-out episodes, with fixed masks. A few rows "
        "are easier or harder by chance: validation may lie below training.",
    ]
    if masking is not None and masking.schedule != "constant":
        parts.append(f"Validation hides at the rate of the end of training (p = {masking.rate_end:g}), at all times.")
    if masking is not None and masking.complementary:
        parts.append("Training is also asked the inverse of every mask; validation is not.")
    return [*parts, f"{OTHER}: hidden tokens of goals, thoughts, tools, users and rewards, together."]


@as_typed
def loss_curves(metrics_directory: Path, path: Path, masking: MaskingConfig | None = None) -> bool:
    """Draws train.jsonl (lines) and validation.jsonl (dots) of a run: loss, and nll and accuracy by kind of unit, with
    what makes the two differ below.

    Args:
      metrics_directory: where the logs are.
      path: of the picture.
      masking: of the run, for the text below.

    Returns:
      False, and no picture, when the run has logged nothing.

    Raises:
      ValueError: for a broken line, by file and number.
    """
    logs = {name: metrics_directory / f"{name}.jsonl" for name in ("train", "validation")}
    lines = {name: read_jsonl(log) if log.is_file() else [] for name, log in logs.items()}
    if not lines["train"]:
        return False
    names = sorted({name for line in lines["train"] + lines["validation"] for name in line})
    panels = [(prefix, title) for prefix, title in PANELS if any(name.startswith(prefix) for name in names)]
    width = max(4.2 * len(panels), 8.4)
    figure, axes = _figure([1.0] * len(panels), width, 4.4)
    for axis, (prefix, title) in zip(axes, panels, strict=True):
        is_log = _loss_panel(axis, lines, [name for name in names if name.startswith(prefix)], prefix)
        axis.set_title(title + ", logarithmic" * is_log, fontsize=10, loc="left")
    caption = _wrapped(why_they_differ(masking), width)
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=8, color="#4b5563", linespacing=1.4)
    _save(figure, path)
    return True


def _wrapped(sentences: Sequence[str], width: float) -> str:
    """Lines that fit into a figure of so many inches."""
    return "\n".join(line for one in sentences for line in textwrap.wrap(one, int(width * LETTERS_PER_INCH)))


def _loss_panel(
    axis: Axes, lines: Mapping[str, Sequence[Mapping[str, Any]]], names: Sequence[str], prefix: str
) -> bool:
    """One panel: a color for each of `names`; training as a line, validation as dots. Returns whether it is
    logarithmic."""
    drawn: list[float] = []
    for c, name in enumerate(names):
        label = name.removeprefix(prefix)
        train, validation = _series(lines["train"], name, is_mean=True), _series(lines["validation"], name)
        axis.plot(*train, color=f"C{c}", linewidth=1.2, label=label or "train")
        axis.plot(*validation, "o:", color=f"C{c}", markersize=5, linewidth=0.8, label="" if label else "validation")
        drawn += train[1] + validation[1]
    is_log = False
    if prefix == "accuracy/":
        _shares(axis, 1.02)
    else:
        is_log = _costs(axis, drawn)
    num_lost = sum(not math.isfinite(value) for value in drawn)
    if num_lost:
        said = f"not finite: {num_lost} of {len(drawn)} values"
        axis.text(0.5, 0.02, said, transform=axis.transAxes, fontsize=8, ha="center")
    axis.set_xlabel("updates", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=8, frameon=False)
    return is_log


def _series(lines: Sequence[Mapping[str, Any]], name: str, *, is_mean: bool = False) -> tuple[list[float], list[float]]:
    """(updates done, values) of a metric; NaN, which leaves a gap, for what is not finite.

    is_mean: a value is the mean over the updates since the line before, measured with the weights before each of them:
    it stands at the middle of these.
    """
    steps, values, before = [], [], 0
    for line in lines:
        if name in line:
            steps.append((before + line["step"] - 1) / 2 if is_mean else float(line["step"]))
            values.append(line[name] if math.isfinite(line[name]) else math.nan)
        before = line["step"]
    return steps, values


@as_typed
def heatmap(found: Mapping[str, Any], path: Path) -> None:
    """NLL above the column's best, of `comparison.heatmap`; darker is worse."""
    values = np.array([[np.nan if v is None else v for v in row] for row in found["relative"]], float)
    width = 1.6 + 0.07 * max(map(len, found["rows"])) + 0.9 * len(found["columns"])
    figure, (axis,) = _figure([1.0], width, 1.4 + 0.42 * len(found["rows"]))
    axis.grid(False)
    axis.imshow(np.sqrt(values), cmap="Oranges", aspect="auto", vmin=0)  # the root: small differences stay visible
    highest = np.nanmax(values)
    for r, row in enumerate(values):
        for c, value in enumerate(row):
            said = "–" if np.isnan(value) else f"{value:.3f}"
            axis.text(c, r, said, ha="center", va="center", fontsize=8, color="white" if value > highest / 2 else INK)
    axis.set_xticks(range(len(found["columns"])), found["columns"], fontsize=8)
    axis.set_yticks(range(len(found["rows"])), found["rows"], fontsize=8)
    axis.set_title("NLL per hidden token above the column's best (nats)", fontsize=9, loc="left")
    _save(figure, path)


@as_typed
def summary_chart(world_model: Results, played: Mapping[str, Mapping[str, Estimate]], title: str, path: Path) -> None:
    """Two panels: success of every policy, and accuracies, each beside its strongest trivial baseline.

    Args:
      world_model: [question][predictor][measure].
      played: [policy][measure].
      title: above both.
      path: of the picture.
    """
    width = 14.0
    figure, (success, accuracy) = _figure([2.0, 3.0], width, 4.4)
    _success_bars(success, played)
    _accuracy_bars(accuracy, world_model)
    figure.suptitle(_wrapped([title], 0.7 * width), fontsize=11, x=0.01, ha="left")
    _save(figure, path)


def _bars(
    axis: Axes, places: Sequence[float], estimates: Sequence[Estimate], width: float, color: str | Sequence[str],
    *, ink: str = INK, label: str = "",
) -> None:  # fmt: skip
    """Bars with their 95% intervals, each with its share above."""
    values = [e.value for e in estimates]
    whiskers = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
    axis.bar(places, values, width, color=color, label=label)
    axis.errorbar(places, values, whiskers, fmt="none", ecolor=ink, capsize=2, linewidth=1)
    for x, estimate in zip(places, estimates, strict=True):
        said = percent(estimate.value)
        axis.text(x, estimate.high + 0.015, said, ha="center", va="bottom", fontsize=8, color=ink)


def _success_bars(axis: Axes, played: Mapping[str, Mapping[str, Estimate]]) -> None:
    names = sorted(played, key=_order)
    _bars(axis, range(len(names)), [played[n]["success"] for n in names], 0.7, [_policy_color(n) for n in names])
    labels = [name.replace("no_model/", "no model\n").replace("model/", "model\n").replace("_", " ") for name in names]
    axis.set_xticks(range(len(names)), labels, fontsize=7.5)
    axis.set_title("success in the environment (lines: 95% over episodes)", fontsize=10, loc="left")
    _shares(axis, 1.12)


def _order(name: str) -> tuple[int, str]:
    """Model policies first, then the rules without a model, random, the expert."""
    return (0 if name.startswith("model/") else 1 if "/" in name else 2 if name == acting.RANDOM else 3), name


def _policy_color(name: str) -> str:
    if name.startswith("model/"):
        return MODEL_COLOR
    return EXPERT_COLOR if name == acting.EXPERT else CONTROL_COLOR


def _accuracy_bars(axis: Axes, world_model: Results) -> None:
    shown = [b for b in BARS if b[1] in world_model.get(b[0], {}).get(MODEL, {})]
    estimates, best = [], []
    for question, measure, _ in shown:
        by_name = world_model[question]
        rivals = [by_name[n][measure] for n in by_name if n != MODEL and measure in by_name[n]]
        estimates.append(by_name[MODEL][measure])
        best.append(max(rivals, key=lambda rival: rival.value))
    places = range(len(shown))
    _bars(axis, [x - 0.21 for x in places], estimates, 0.38, MODEL_COLOR, label="model")
    baseline = "best trivial baseline (most frequent, copy of the last observation, a constant action)"
    _bars(axis, [x + 0.21 for x in places], best, 0.38, CONTROL_COLOR, ink="#6b7280", label=baseline)
    axis.set_xticks(list(places), [label for _, _, label in shown], fontsize=7.5)
    axis.set_title("accuracy on held-out episodes (lines: 95% over episodes)", fontsize=10, loc="left")
    axis.legend(fontsize=8, frameon=False, ncols=2, loc="upper left", bbox_to_anchor=(0, -0.12))
    _shares(axis, 1.12)
