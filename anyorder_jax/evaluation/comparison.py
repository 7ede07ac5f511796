"""Comparison: what a suite found: means over seeds, floor and ceiling, paired tests, compute, equal budgets, heat-map.

table     mean and Student's 95% interval over seeds of every measure and variant; no interval of a single seed
bounds    the same measures of predictors that were not trained: random policy, bot, the same rule without a model,
          the commonest word of each slot, the observation before copied
pairs     every variant against the first, or against the one that the suite names: the paired t-test over training
          seeds, p-values after Holm within a measure; no test of a single seed
compute   updates, tokens, targets, seconds of each variant (means over seeds)
equal     the measures at the largest budget of updates, tokens, targets and seconds that every variant reached;
          between evaluated checkpoints values are interpolated linearly; the same tests
heatmap   NLL of each variant minus the best of the column
curves    success, steps, action accuracy and NLL at each strength of each disturbance, where they were asked; every
          variant against the first by the same test, after Holm within a measure, all points together
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anyorder_jax.environments.disturbances import CLEAN, ON_ACTIONS
from anyorder_jax.evaluation.results import ACTING, Key, Results, of_each
from anyorder_jax.evaluation.suite import Suite, compare, not_measured
from anyorder_jax.metrics import read_jsonl
from anyorder_jax.statistics import Difference, adjusted, over_seeds, paired_over_seeds

BUDGETS = ("updates", "tokens", "targets", "seconds")


def _policy(name: str) -> Callable[[Key], Key | None]:
    """The same of another policy than the model's."""
    return lambda key: key._replace(predictor=name) if is_of_model(key) and key.question == ACTING else None


def _predictor(name: str) -> Callable[[Key], Key | None]:
    """The same of a predictor that is no model."""
    return lambda key: key._replace(predictor=name) if is_of_model(key) and key.question != ACTING else None


def is_of_model(key: Key) -> bool:
    """Whether it is about the model, or the model as a policy."""
    return key.predictor.partition("/")[0] == "model"


def _without_model(key: Key) -> Key | None:
    rule = key.predictor.partition("/")[2]
    return key._replace(predictor=f"no_model/{rule}") if is_of_model(key) and key.question == ACTING else None


BOUNDS: Mapping[str, Callable[[Key], Key | None]] = {
    "random policy": _policy("random"),
    "same rule, no model": _without_model,
    "bot": _policy("expert"),
    "random valid action": _policy("random_valid"),
    "most frequent": _predictor("most_frequent"),
    "copy previous": _predictor("copy_previous"),
    "unigram": _predictor("unigram"),
    "copy": _predictor("copy"),
}
"""Untrained predictors: from the key of a column to that of theirs; None where there is none."""

CURVES = {
    "success": ("success", ACTING),
    "steps / expert": ("steps_relative_to_expert", ACTING),
    "action acc.": ("action_accuracy", "causal"),
    "action nll": ("action_nll", "causal"),
}
"""What is shown over the strength of a disturbance: title -> measure and question. Who acts is the model, under the
first decoding rule that was asked."""


def compare_all(suite: Suite, results: Results, workdirs: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """The content of comparison.json.

    Args:
      suite: what was run.
      results: of every variant and seed.
      workdirs: the runs, in the same order.
    """
    compute = {name: [compute_of(workdir) for workdir in found] for name, found in workdirs.items()}
    table = compare(suite, results)
    return {
        "question": suite.question,
        "seeds": list(suite.seeds),
        "variants": {name: list(arguments) for name, arguments in suite.variants.items()},
        "against": dict(suite.against),
        "table": table,
        "bounds": bounds(suite, results),
        "not_measured": not_measured(suite, results),
        "pairs": pairs(table, suite.against),
        "compute": {
            name: {budget: float(np.mean([one[budget] for one in found])) for budget in BUDGETS}
            for name, found in compute.items()
        },
        "equal": equal(suite, results, compute),
        "heatmap": heatmap(suite, results),
        "curves": curves(results),
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


def bounds(suite: Suite, results: Results) -> dict[str, Any]:
    """{predictor: {measure: as `statistics.over_seeds`}} over the runs of the first variant that have it."""
    found: dict[str, Any] = {}
    runs = next(iter(results.values()))
    for name, of in BOUNDS.items():
        row = {}
        for title, key in suite.measures.items():
            theirs = of(key)
            values = None if theirs is None else of_each(runs, theirs)
            if values is not None:
                row[title] = over_seeds(values)
        if row:
            found[name] = row
    return found


def pairs(
    table: Mapping[str, Mapping[str, Mapping[str, Any]]], against: Mapping[str, str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """{measure: {variant: difference from what it is compared with, "p_holm" and "against" included}}.

    Args:
      table: as `suite.compare` makes it.
      against: variant -> the one that it is compared with; the others are compared with the first.
    """
    first = next(iter(table))
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for title in dict.fromkeys(title for row in table.values() for title in row):
        differences: dict[str, Difference] = {}
        for name, row in table.items():
            other = table.get(against.get(name, first), {})
            if other is not row and title in row and title in other:
                differences[name] = paired_over_seeds(row[title]["values"], other[title]["values"])
        if differences:
            found[title] = {
                name: {**one, "against": against.get(name, first)} for name, one in adjusted(differences).items()
            }
    return found


def equal(suite: Suite, results: Results, compute: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """{budget: {"at": value, "table": as `compare`, "pairs": of it}}; {} for a suite that evaluates only the end."""
    if not suite.at_steps:
        return {}
    found: dict[str, Any] = {}
    for budget in BUDGETS:
        at = min(one[budget] for runs in compute.values() for one in runs)
        table: dict[str, Any] = {}
        for name, runs in results.items():
            table[name] = {}
            for title, key in suite.measures.items():
                steps = [key._replace(step=step) for step in (*suite.at_steps, 0)]
                points = [{one.step: run.values[one] for one in steps if one in run.values} for run in runs]
                pairs_here = zip(points, compute[name], strict=True)
                values = [_at(of_step, cost, budget, at) for of_step, cost in pairs_here]
                if None not in values:
                    table[name][title] = over_seeds(np.array(values, float))
        found[budget] = {"at": at, "table": table, "pairs": pairs(table, suite.against)}
    return found


def _at(points_of: Mapping[int, float], cost: Mapping[str, float], budget: str, at: float) -> float | None:
    """A measure of one run at a budget, from what it was at some steps (0: the end). Within a run every budget grows
    evenly with its updates."""
    points = sorted((float(step or cost["updates"]), value) for step, value in points_of.items())
    updates = at / cost[budget] * cost["updates"]
    if not points or updates < points[0][0]:  # before the first checkpoint that was evaluated nothing is known
        return None
    return float(np.interp(updates, [step for step, _ in points], [value for _, value in points]))


def heatmap(suite: Suite, results: Results) -> dict[str, Any]:
    """{"columns", "rows", "nll", "relative"}: means over seeds, and their distance from the column's best; None where a
    variant was not asked. {} for a suite without."""
    if not suite.heatmap:
        return {}
    rows = list(results)
    values = [[of_each(results[row], key) for key in suite.heatmap.values()] for row in rows]
    nll = [[None if v is None else float(np.mean(v)) for v in row] for row in values]
    best = [min((v for v in column if v is not None), default=None) for column in zip(*nll, strict=True)]
    relative = [[None if v is None or b is None else v - b for v, b in zip(row, best, strict=True)] for row in nll]
    return {"columns": list(suite.heatmap), "rows": rows, "nll": nll, "relative": relative}


def curves(results: Results) -> dict[str, Any]:
    """{"rule": how the models acted, "measures": {measure: {disturbance: {strength: {variant: entry}}}}}; empty where
    no variant was disturbed.

    An entry is as `statistics.over_seeds` and, after the first variant, has its "difference" from it. The undisturbed
    point is "clean", strength "0". Success has the bot and the random policy of the first variant's runs too. Recorded
    episodes know no disturbed actions (`sticky`), so there are no accuracies there.
    """
    disturbed = {
        name: runs for name, runs in results.items() if all(any(k.disturbance for k in run.values) for run in runs)
    }
    if not disturbed:
        return {}
    first = next(iter(disturbed.values()))
    keys = [key for key in first[0].values if key.disturbance]
    rule = next(k.predictor for k in keys if k.disturbance == CLEAN and k.question == ACTING and is_of_model(k))
    table: dict[str, Any] = {}
    for title, (measure, question) in CURVES.items():
        rows = table[title] = {}
        for disturbance, strength in dict.fromkeys((key.disturbance, key.strength) for key in keys):
            if disturbance in ON_ACTIONS and question != ACTING:
                continue
            who = rule if question == ACTING else "model"
            key = Key(question, who, measure, disturbance=disturbance, strength=strength)
            here = _point(disturbed, key)
            if title == "success":
                for name, policy in (("bot", "expert"), ("random policy", "random")):
                    here |= _point({name: first}, key._replace(predictor=policy))
            rows.setdefault(disturbance, {})[f"{strength:g}"] = here
        compare_points(rows, list(disturbed))
    return {"rule": rule.removeprefix("model/"), "measures": table}


def _point(results: Results, key: Key) -> dict[str, Any]:
    return {name: over_seeds(values) for name, runs in results.items() if (values := of_each(runs, key)) is not None}


def compare_points(rows: Mapping[str, Mapping[str, Mapping[str, dict[str, Any]]]], variants: Sequence[str]) -> None:
    """Writes the "difference" of every variant from the first one into the entries of one measure.

    Args:
      rows: [disturbance][strength][variant], changed in place.
      variants: the first is what the others are compared with; what is not among them (the bot) is compared with none.
    """
    first, *others = variants
    differences = {
        (disturbance, strength, name): paired_over_seeds(point[name]["values"], point[first]["values"])
        for disturbance, by_strength in rows.items()
        for strength, point in by_strength.items()
        for name in others
        if name in point and first in point
    }
    for (disturbance, strength, name), one in adjusted(differences).items():
        rows[disturbance][strength][name]["difference"] = one


# -- Markdown ---------------------------------------------------------------------------------------


def text(suite: Suite, found: Mapping[str, Any]) -> str:
    """All tables, as Markdown."""
    parts = [suite.question, seeds_text(len(suite.seeds))]
    parts += [_table("trained on", found["table"] | found["bounds"], list(suite.measures))]
    if found["not_measured"]:
        parts += [f"Asked of none of these runs: {', '.join(found['not_measured'])}."]
    if found["pairs"]:
        first = next(iter(found["table"]))
        parts += [f"{pairs_text(first, len(suite.seeds))}:", _pairs_table(found["pairs"], first)]
    parts += ["Compute of a run (mean over seeds):", _compute_table(found["compute"])]
    for budget, one in found["equal"].items():
        parts += [f"At equal {budget} ({one['at']:,.0f}):", _table("trained on", one["table"], list(suite.measures))]
    if found["heatmap"]:
        parts += ["NLL per hidden token above the column's best (nats):", _heatmap_table(found["heatmap"])]
    for title, by_disturbance in found["curves"].get("measures", {}).items():
        test = " (p: paired t-test over seeds against the first, after Holm over all points)"
        heading = f"Disturbed, {found['curves']['rule']}: {title}{test if len(suite.seeds) > 1 else ''}:"
        parts += [heading, _curves_table(by_disturbance)]
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
            row.append(plus_minus(point.get(name)) + (f", {p_text(difference)}" if is_tested(difference) else ""))
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


def seeds_text(num_seeds: int) -> str:
    """What a table's numbers are."""
    if num_seeds == 1:
        return "One training seed: no intervals and no tests, which need several."
    return f"{num_seeds} training seeds: mean ± half of Student's 95% interval over them."


def pairs_text(first: str, num_seeds: int) -> str:
    """What stands in the table of differences."""
    if num_seeds == 1:
        return f"Difference from {first} of one training seed, which is no test: another seed may say the opposite"
    return (
        f"Difference from {first}, 95% interval and p of the paired t-test over {num_seeds} training seeds, after Holm"
    )


def plus_minus(entry: Mapping[str, Any] | None) -> str:
    """Mean ± half the interval; a single run has no interval."""
    if entry is None:
        return "–"
    if entry["low"] is None:
        return f"{entry['mean']:.3f}"
    return f"{entry['mean']:.3f} ± {(entry['high'] - entry['low']) / 2:.3f}"


def _pairs_table(pairs: Mapping[str, Any], first: str) -> str:
    rows = [["variant", *pairs]]
    rows += [
        [label, *("–" if one is None else " ".join(difference_texts(one)) for one in row)]
        for label, row in pair_rows(pairs, first)
    ]
    return _markdown(rows)


def pair_rows(pairs: Mapping[str, Any], first: str) -> list[tuple[str, list[Mapping[str, Any] | None]]]:
    """(variant, its difference in every measure); a variant that is compared with another than the first says so."""
    against = {name: one["against"] for by_name in pairs.values() for name, one in by_name.items()}
    return [
        (name if other == first else f"{name}, against {other}", [by_name.get(name) for by_name in pairs.values()])
        for name, other in against.items()
    ]


def difference_texts(one: Mapping[str, Any]) -> list[str]:
    """The difference with its interval, and what the test says; of a single seed the difference alone."""
    if one["low"] is None:
        return [f"{one['value']:+.3f}"]
    return [f"{one['value']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]", p_text(one)]


def is_tested(difference: Mapping[str, Any] | None) -> bool:
    """Whether there are seeds enough for a test."""
    return difference is not None and difference["num_seeds"] > 1


def p_text(one: Mapping[str, Any]) -> str:
    """p after Holm of a difference; in words where it was not tested."""
    p = one["p_holm"]
    if p is None:
        return "not tested: " + ("one seed" if one["num_seeds"] == 1 else "the same in every seed")
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
