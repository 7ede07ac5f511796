"""Comparison: what a suite found: means over seeds, floor and ceiling, paired tests, compute, equal budgets, heat-map.

table     mean and Student's 95% interval over seeds of every measure and variant
bounds    the same measures of predictors that were not trained: random policy, bot, the same rule without a model,
          the commonest word of each slot, the observation before copied
pairs     every variant against the first, the same seeds and episodes: pigeonhole bootstrap over both where
          episodes.json is there, else a paired t-test over seeds; p-values after Holm within a measure
compute   updates, tokens, targets, seconds of each variant (means over seeds)
equal     the measures at the largest budget of updates, tokens, targets and seconds that every variant reached;
          between evaluated checkpoints values are interpolated linearly
heatmap   NLL of each variant minus the best of the column
curves    success, steps, action accuracy and NLL at each strength of each disturbance, where they were asked; every
          variant against the first by a paired t-test over seeds, not adjusted for the number of points
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anyorder_jax.environments.disturbances import CLEAN, ON_ACTIONS
from anyorder_jax.evaluation.statistics import Difference, holm, paired_difference, paired_over_seeds, student_interval
from anyorder_jax.evaluation.suite import Suite, compare, find
from anyorder_jax.metrics import read_jsonl

Reports = Mapping[str, Sequence[Mapping[str, Any]]]
"""variant -> what `suite.read_reports` found of every seed."""

BUDGETS = ("updates", "tokens", "targets", "seconds")
BOUNDS = {
    "random policy": (r"acting\.model/\w+\.", "acting.random."),
    "same rule, no model": (r"acting\.model/", "acting.no_model/"),
    "bot": (r"acting\.model/\w+\.", "acting.expert."),
    "most frequent": (r"\.model\.", ".most_frequent."),
    "copy previous": (r"\.model\.", ".copy_previous."),
}
"""Untrained predictors: what to replace in a measure's path to find theirs."""

CURVES = {
    "success": "acting.RULE.success",
    "steps / expert": "acting.RULE.steps_relative_to_expert",
    "action acc.": "world_model.causal.action_accuracy",
    "action nll": "world_model.causal.action_nll",
}
"""What is shown over the strength of a disturbance; RULE is the first decoding rule that was asked."""


def compare_all(suite: Suite, reports: Reports, workdirs: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """The content of comparison.json.

    Args:
      suite: what was run.
      reports: of every variant and seed.
      workdirs: the runs, in the same order.
    """
    compute = {name: [compute_of(workdir) for workdir in found] for name, found in workdirs.items()}
    return {
        "question": suite.question,
        "seeds": list(suite.seeds),
        "variants": {name: list(arguments) for name, arguments in suite.variants.items()},
        "table": compare(suite, reports),
        "bounds": bounds(suite, reports),
        "pairs": pairs(suite, reports),
        "compute": {
            name: {budget: float(np.mean([one[budget] for one in found])) for budget in BUDGETS}
            for name, found in compute.items()
        },
        "equal": equal(suite, reports, compute),
        "heatmap": heatmap(suite, reports),
        "curves": curves(reports),
    }


def compute_of(workdir: Path) -> dict[str, float]:
    """What a run cost, from its config.json and metrics/train.jsonl. tokens: positions of packed rows, padding (a
    twentieth) included. targets: tokens that the loss counted. seconds: updates times the median of the logged seconds
    per update, so that what else a machine did for a while does not count (from the speed of real tokens, so a
    twentieth too many, for every variant alike)."""
    config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    tokens_per_update = config["train"]["batch_size"] * config["data"]["row_length"]
    lines = read_jsonl(workdir / "metrics" / "train.jsonl")
    update_seconds = [tokens_per_update / line["tokens_per_second"] for line in lines]
    targets = last = 0.0
    for line, seconds in zip(lines, update_seconds, strict=True):
        targets, last = targets + (line["step"] - last) * seconds * line["targets_per_second"], line["step"]
    seconds = last * float(np.median(update_seconds)) if lines else 0.0
    return {"updates": last, "tokens": last * tokens_per_update, "targets": targets, "seconds": seconds}


def bounds(suite: Suite, reports: Reports) -> dict[str, Any]:
    """{predictor: {measure: {"mean", "low", "high"}}} over the runs of the first variant that have it."""
    found: dict[str, Any] = {}
    for name, (pattern, replacement) in BOUNDS.items():
        row = {}
        for title, path in suite.measures.items():
            theirs, num = re.subn(pattern, replacement, path)
            values = _values(next(iter(reports.values())), theirs) if num else None
            if values is not None:
                mean, low, high = student_interval(np.array(values))
                row[title] = {"mean": mean, "low": low, "high": high, "num_seeds": len(values)}
        if row:
            found[name] = row
    return found


def _values(reports: Sequence[Mapping[str, Any]], path: str) -> list[float] | None:
    """The measure of every seed; None where one lacks it."""
    try:
        return [find(report, path) for report in reports]
    except KeyError:
        return None


def pairs(suite: Suite, reports: Reports) -> dict[str, Any]:
    """{measure: {variant: Difference from the first variant, with "p_holm"}}."""
    names = list(reports)
    found: dict[str, Any] = {}
    for title, path in suite.measures.items():
        rows = {
            name: difference
            for name in names[1:]
            if (difference := _difference(reports[name], reports[names[0]], path)) is not None
        }
        adjusted = holm([difference.p for difference in rows.values()])
        if rows:
            found[title] = {
                name: {**vars(difference), "p_holm": p}
                for (name, difference), p in zip(rows.items(), adjusted, strict=True)
            }
    return found


def _difference(mine: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], path: str) -> Difference | None:
    a_S, b_S = _values(mine, path), _values(theirs, path)
    if a_S is None or b_S is None:
        return None
    a, b = _by_episode(mine, path), _by_episode(theirs, path)
    if a is not None and b is not None and a[0].shape == b[0].shape:
        return paired_difference(a, b)
    return paired_over_seeds(np.array(a_S), np.array(b_S))


def _by_episode(reports: Sequence[Mapping[str, Any]], path: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Numerators and denominators, float [S, E] each; None when a run did not keep them."""
    if path.startswith("levels."):
        level = next((name for name in reports[0]["levels"] if path.startswith(f"levels.{name}.")), "")
        return _by_episode([report["levels"][level] for report in reports], path.removeprefix(f"levels.{level}."))
    if any(path not in report.get("episodes", {}) for report in reports):
        return None
    parts = [report["episodes"][path] for report in reports]
    if len({len(top) for top, _ in parts}) != 1:
        return None
    return np.array([top for top, _ in parts]), np.array([bottom for _, bottom in parts])


def equal(suite: Suite, reports: Reports, compute: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """{budget: {"at": value, "table": as `compare`}}; {} for a suite that evaluates only the end."""
    if not suite.at_steps:
        return {}
    found: dict[str, Any] = {}
    for budget in BUDGETS:
        at = min(one[budget] for runs in compute.values() for one in runs)
        table: dict[str, Any] = {}
        for name, runs in reports.items():
            table[name] = {}
            for title, path in suite.measures.items():
                values = [_at(report, path, cost, budget, at) for report, cost in zip(runs, compute[name], strict=True)]
                if None not in values:
                    mean, low, high = student_interval(np.array(values, float))
                    table[name][title] = {"mean": mean, "low": low, "high": high, "num_seeds": len(values)}
        found[budget] = {"at": at, "table": table}
    return found


def _at(report: Mapping[str, Any], path: str, cost: Mapping[str, float], budget: str, at: float) -> float | None:
    """A measure of one run at a budget. Within a run every budget grows evenly with its updates."""
    points = {float(step): _values([found], path) for step, found in report["steps"].items()}
    points[cost["updates"]] = _values([report], path)
    known = sorted((step, values[0]) for step, values in points.items() if values is not None)
    updates = at / cost[budget] * cost["updates"]
    if not known or updates < known[0][0]:  # before the first checkpoint that was evaluated nothing is known
        return None
    return float(np.interp(updates, [step for step, _ in known], [value for _, value in known]))


def heatmap(suite: Suite, reports: Reports) -> dict[str, Any]:
    """{"columns", "rows", "nll", "relative"}: means over seeds, and their distance from the column's best; None where a
    variant was not asked. {} for a suite without."""
    if not suite.heatmap:
        return {}
    rows = list(reports)
    values = [[_values(reports[row], path) for path in suite.heatmap.values()] for row in rows]
    nll = [[None if v is None else float(np.mean(v)) for v in row] for row in values]
    best = [min((v for v in column if v is not None), default=None) for column in zip(*nll, strict=True)]
    relative = [[None if v is None or b is None else v - b for v, b in zip(row, best, strict=True)] for row in nll]
    return {"columns": list(suite.heatmap), "rows": rows, "nll": nll, "relative": relative}


# -- Markdown ---------------------------------------------------------------------------------------


def curves(reports: Reports) -> dict[str, Any]:
    """{"rule": how the models acted, "measures": {measure: {disturbance: {strength: {variant: entry}}}}}; empty where
    no variant was disturbed.

    An entry is {"mean", "low", "high", "num_seeds", "values"} and, after the first variant, "difference" from it. The
    undisturbed point is "clean", strength "0". Success has the bot and the random policy of the first variant's runs
    too. Recorded episodes know no disturbed actions (`sticky`), so there are no accuracies there.
    """
    disturbed = {name: found for name, found in reports.items() if all("curves" in one for one in found)}
    if not disturbed:
        return {}
    first = next(iter(disturbed.values()))
    (clean,) = first[0]["curves"][CLEAN]
    rule = next(name for name in clean["acting"] if name.startswith("model/"))
    table: dict[str, Any] = {}
    for title, path in CURVES.items():
        rows = table[title] = {}
        for disturbance, points in first[0]["curves"].items():
            if disturbance in ON_ACTIONS and path.startswith("world_model"):
                continue
            for number, point in enumerate(points):
                at = {name: [one["curves"][disturbance][number] for one in found] for name, found in disturbed.items()}
                here = _point(at, path.replace("RULE", rule))
                if title == "success":
                    for name, policy in (("bot", "expert"), ("random policy", "random")):
                        here |= _point({name: next(iter(at.values()))}, f"acting.{policy}.success")
                rows.setdefault(disturbance, {})[f"{point['strength']:g}"] = here
    return {"rule": rule.removeprefix("model/"), "measures": table}


def _point(at: Mapping[str, Sequence[Mapping[str, Any]]], path: str) -> dict[str, Any]:
    values = {name: np.array(one) for name, found in at.items() if (one := _values(found, path)) is not None}
    first = next(iter(at))
    entries: dict[str, Any] = {}
    for name, values_S in values.items():
        mean, low, high = student_interval(values_S)
        entries[name] = {
            "mean": mean,
            "low": low,
            "high": high,
            "num_seeds": len(values_S),
            "values": values_S.tolist(),
        }
        if name != first and first in values:
            entries[name]["difference"] = vars(paired_over_seeds(values_S, values[first]))
    return entries


def text(suite: Suite, found: Mapping[str, Any]) -> str:
    """All tables, as Markdown."""
    parts = [suite.question, _table("trained on", found["table"] | found["bounds"], list(suite.measures))]
    if found["pairs"]:
        first = next(iter(found["table"]))
        parts += [f"Difference from {first} (95% interval; p after Holm):", _pairs_table(found["pairs"])]
    parts += ["Compute of a run (mean over seeds):", _compute_table(found["compute"])]
    for budget, one in found["equal"].items():
        parts += [f"At equal {budget} ({one['at']:,.0f}):", _table("trained on", one["table"], list(suite.measures))]
    if found["heatmap"]:
        parts += ["NLL per hidden token above the column's best (nats):", _heatmap_table(found["heatmap"])]
    for title, by_disturbance in found["curves"].get("measures", {}).items():
        parts += [
            f"Disturbed, {found['curves']['rule']}: {title} (p: paired over seeds against the first, not adjusted):",
            _curves_table(by_disturbance),
        ]
    return "\n\n".join(parts)


def _curves_table(by_disturbance: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    points = {
        f"{disturbance} {strength}": point
        for disturbance, by_strength in by_disturbance.items()
        for strength, point in by_strength.items()
    }
    names = list(dict.fromkeys(name for point in points.values() for name in point))
    rows = [["disturbance, strength", *names]]
    for label, point in points.items():
        row = [label]
        for name in names:
            difference = point.get(name, {}).get("difference")
            row.append(plus_minus(point.get(name)) + (f", {p_text(difference['p'])}" if difference else ""))
        rows.append(row)
    return _markdown(rows)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|---|" + "---|" * (len(rows[0]) - 1), *body])


def _table(corner: str, table: Mapping[str, Any], titles: Sequence[str]) -> str:
    shown = [title for title in titles if any(title in row for row in table.values())]
    rows = [[corner, *shown]]
    for name, row in table.items():
        rows.append([name, *(plus_minus(row.get(title)) for title in shown)])
    return _markdown(rows)


def plus_minus(entry: Mapping[str, Any] | None) -> str:
    """Mean ± half the interval; a single run has no interval."""
    if entry is None:
        return "–"
    half = (entry["high"] - entry["low"]) / 2
    return f"{entry['mean']:.3f}" + (f" ± {half:.3f}" if entry["num_seeds"] > 1 else "")


def _pairs_table(pairs: Mapping[str, Any]) -> str:
    rows = [["variant", *pairs]]
    for name in dict.fromkeys(name for by_name in pairs.values() for name in by_name):
        rows.append([name, *(_difference_text(by_name.get(name)) for by_name in pairs.values())])
    return _markdown(rows)


def _difference_text(one: Mapping[str, float] | None) -> str:
    if one is None:
        return "–"
    return f"{one['value']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}] {p_text(one['p_holm'])}"


def p_text(p: float) -> str:
    """As far as the resamples tell."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _compute_table(compute: Mapping[str, Mapping[str, float]]) -> str:
    rows = [["variant", *BUDGETS]]
    rows += [[name, *(f"{cost[budget]:,.0f}" for budget in BUDGETS)] for name, cost in compute.items()]
    return _markdown(rows)


def _heatmap_table(found: Mapping[str, Any]) -> str:
    rows = [["trained on \\ asked", *found["columns"]]]
    for name, values in zip(found["rows"], found["relative"], strict=True):
        rows.append([name, *("–" if v is None else f"{v:.3f}" for v in values)])
    return _markdown(rows)
