"""Page: a suite's results as one self-contained HTML file: tables, curves, films, and the viewer that one clicks.

No script, style, font or picture comes from elsewhere; light and dark follow the reader's system. `page.html` holds the
style and the viewer's script; here is what is put into it.
"""

from __future__ import annotations

import base64
import datetime
import html
import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from anyorder_jax.environments.disturbances import CLEAN
from anyorder_jax.evaluation import svg
from anyorder_jax.evaluation.comparison import (
    BUDGETS,
    difference_texts,
    pair_rows,
    pairs_text,
    plus_minus,
    seeds_text,
)
from anyorder_jax.evaluation.results import Results
from anyorder_jax.evaluation.suite import Suite
from anyorder_jax.metrics import read_jsonl
from anyorder_jax.statistics import over_seeds

TEMPLATE = Path(__file__).with_name("page.html")
DIAGRAMS = (("any_order@0.5", "observation"), ("forward", "observation"), ("causal", "action"))

VIEWER = """<h2>Hide something</h2>
<section id="viewer">
<p class="pale">{note}</p>
<div class="bar"><label>model <select id="model"></select></label><label>episode <select id="window"></select></label>
<button id="clear">show all</button></div>
<div id="legend" class="key" aria-label="what the marks mean"></div>
<div class="answering"><div><div id="goal"></div><div id="steps"></div></div>
<div id="panel" aria-live="polite"></div></div>
</section>"""
ONE_HOLE = "One hole at a time: the answers were computed when the page was written."
LIVE = "Any number of holes: the model answers as you click."


def fill_template(title: str, content: str, data: Mapping[str, Any]) -> str:
    """The page. content: HTML. data: what the script reads; nothing in it can end the script element. Below stands when
    it was written, and by which version."""
    page = TEMPLATE.read_text(encoding="utf-8").replace("@@TITLE@@", html.escape(title))
    content = f'{content}\n<footer class="pale">{html.escape(written())}</footer>'
    encoded = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    before, after = page.split("@@CONTENT@@")
    middle, end = after.split("@@DATA@@")
    return f"{before}{content}{middle}{encoded}{end}"


def written() -> str:
    """When a page was written, in UTC, and by which version."""
    now = datetime.datetime.now(datetime.UTC)
    try:
        version = f"anyorder-jax {metadata.version('anyorder-jax')}"
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        version = "anyorder-jax, not installed"
    return f"Written {now:%Y-%m-%d %H:%M} UTC by {version} with jax {metadata.version('jax')}."


def viewer_page(run: str, windows: Sequence[Mapping[str, Any]], is_live: bool = True) -> str:
    """The viewer alone, whose answers come from the server that sends the page, or are in it.

    Args:
      run: the name of what answers.
      windows: as `viewer.Reader.described` says them (or `answered`, where nobody serves), one at least.
      is_live: whether a server answers.
    """
    title = f"What “{run}” puts into a hole"
    places = ", ".join(dict.fromkeys(window["environment"] for window in windows if "environment" in window))
    about = f"{len(windows)} windows of the test split of {places or 'the run'}."
    viewer = VIEWER.format(note=LIVE if is_live else ONE_HOLE)
    content = f"<h1>{html.escape(title)}</h1><p>{html.escape(about)}</p>{viewer}"
    return fill_template(title, content, {"viewer": {"live": is_live, "models": [{"name": run, "windows": windows}]}})


def suite_page(
    title: str,
    suite: Suite,
    found: Mapping[str, Any],
    results: Results,
    workdirs: Mapping[str, Sequence[Path]],
) -> str:
    """The page of a suite.

    Args:
      title: the suite's name.
      suite: what was run.
      found: the comparison (`comparison.compare_all`).
      results: of every variant and seed.
      workdirs: the runs: curves, films and the viewer's answers are read from them.
    """
    title = f"Suite {title}"
    first = next(iter(found["table"]))
    titles = list(suite.measures)
    parts = [
        f"<h1>{html.escape(title)}</h1><p>{html.escape(suite.question)}</p>",
        f'<p class="pale">{seeds_text(len(suite.seeds))} In italics: predictors that were not trained.</p>',
        _results(found["table"], found["bounds"], titles),
    ]
    if found["not_measured"]:
        parts.append(
            f'<p class="pale">Asked of none of these runs: {html.escape(", ".join(found["not_measured"]))}.</p>'
        )
    models = _models(workdirs)
    if models:
        parts.append(VIEWER.format(note=ONE_HOLE))
    if found["pairs"]:
        note = pairs_text(first, len(suite.seeds)) + (". Bold: p < 0.05." if len(suite.seeds) > 1 else ".")
        parts += [f'<h2>Differences</h2><p class="pale">{html.escape(note)}</p>', _pairs(found["pairs"], first)]
    if found["heatmap"]:
        parts += ["<h2>Conditionals</h2><p class='pale'>NLL per hidden token above the column's best, in nats.</p>"]
        parts += [_heatmap(found["heatmap"])]
    parts += _curves(workdirs) + _robustness(found["curves"], list(workdirs)) + _reliability(results)
    parts += ["<h2>Compute</h2>", _compute(found["compute"])]
    for budget, one in found["equal"].items():
        parts += [f"<h3>At equal {budget} ({one['at']:,.0f})</h3>", _results(one["table"], {}, titles)]
    parts += [*_films(workdirs), "<h2>Variants</h2>", _variants(found["variants"])]
    viewer = {"live": False, "models": models} if models else None
    return fill_template(title, "\n".join(part for part in parts if part), {"viewer": viewer})


def _table(rows: Iterable[Sequence[str]], classes: Sequence[str] = ()) -> str:
    """Cells are HTML already; the first row is the head."""
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    for number, row in enumerate(body):
        name = f' class="{classes[number]}"' if classes and classes[number] else ""
        cells = "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row)
        lines.append(f"<tr{name}>{cells}</tr>")
    return f'<div class="scroll" tabindex="0"><table>{"".join(lines)}</table></div>'


def _results(table: Mapping[str, Any], bounds: Mapping[str, Any], titles: Sequence[str]) -> str:
    rows = {**table, **bounds}
    shown = [title for title in titles if any(title in row for row in rows.values())]
    lines = [["", *map(html.escape, shown)]]
    for name, row in rows.items():
        lines.append([html.escape(name), *(plus_minus(row.get(title)) for title in shown)])
    return _table(lines, [""] * len(table) + ["bound"] * len(bounds))


def _pairs(pairs: Mapping[str, Any], first: str) -> str:
    rows = [["", *map(html.escape, pairs)]]
    rows += [[html.escape(label), *map(_difference, row)] for label, row in pair_rows(pairs, first)]
    return _table(rows)


def _difference(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "–"
    sure = ' class="sure"' if one["p_holm"] is not None and one["p_holm"] < 0.05 else ""
    return f"<td{sure}>{'<br>'.join(map(html.escape, difference_texts(one)))}</td>"


def _heatmap(found: Mapping[str, Any]) -> str:
    top = max((v for row in found["relative"] for v in row if v is not None), default=0.0) or 1.0
    rows = [["trained on \\ asked", *map(html.escape, found["columns"])]]
    for name, values in zip(found["rows"], found["relative"], strict=True):
        rows.append([html.escape(name), *(_warm(value, top) for value in values)])
    return _table(rows)


def _warm(value: float | None, top: float) -> str:
    if value is None:
        return "–"
    return f'<td style="background:rgba(var(--heat),{0.75 * math.sqrt(value / top):.2f})">{value:.3f}</td>'


def _compute(compute: Mapping[str, Mapping[str, float]]) -> str:
    rows = [["mean over seeds", *BUDGETS]]
    rows += [[html.escape(name), *(f"{cost[budget]:,.0f}" for budget in BUDGETS)] for name, cost in compute.items()]
    return _table(rows)


def _variants(variants: Mapping[str, Sequence[str]]) -> str:
    """The commands; an argument stays on one line, where a line has room for it."""
    found = []
    for name, arguments in variants.items():
        words = ["python", "-m", "anyorder_jax.train", *map(shlex.quote, arguments)]
        command = " ".join(f"<span>{html.escape(word)}</span>" for word in words)
        found.append(f'<p class="command"><b>{html.escape(name)}</b><br><code>{command}</code></p>')
    return "".join(found)


def _band(entry: Mapping[str, Any], x: float) -> svg.Point:
    """A point of a chart, of an entry of `statistics.over_seeds`; one seed's band has no width, so none is seen."""
    mean = entry["mean"]
    return (x, mean, mean, mean) if entry["low"] is None else (x, mean, entry["low"], entry["high"])


def _curves(workdirs: Mapping[str, Sequence[Path]]) -> list[str]:
    """Validation NLL over updates, of each variant's own questions."""
    charts = []
    for measure, title in (
        ("nll/action", "validation NLL, actions"),
        ("nll/observation", "validation NLL, observations"),
    ):
        missing: dict[str, str] = {}
        series: dict[str, list[svg.Point]] = {}
        for name, runs in workdirs.items():
            by_step: dict[int, list[float]] = {}
            for run in runs:
                log = run / "metrics" / "validation.jsonl"
                for line in read_jsonl(log) if log.is_file() else []:
                    if measure in line:
                        by_step.setdefault(line["step"], []).append(line[measure])
            whole = {step: values for step, values in sorted(by_step.items()) if len(values) == len(runs)}
            series[name] = [_band(over_seeds(values), step) for step, values in whole.items()]
            missing[name] = "not every seed logged it" if by_step else "its masks never ask for them"
        charts.append(svg.line_chart(f"{title} (own masks)", series, "updates", missing=missing))
    if not any(charts):
        return []
    return ["<h2>While training</h2>", svg.key(list(workdirs)), f'<div class="charts">{"".join(charts)}</div>']


def _robustness(curves: Mapping[str, Any], variants: Sequence[str]) -> list[str]:
    """Success and action NLL over strength (`comparison.curves`), from the undisturbed point on."""
    if not curves:
        return []
    measures, charts = curves["measures"], []
    names = list(next(iter(measures["success"][CLEAN].values())))
    names = [*variants, *(name for name in names if name not in variants)]
    shown = (("success", "success", (0.0, 1.0)), ("action nll", "NLL of the next action", None))
    for disturbance in measures["success"]:
        for measure, title, limits in shown:
            if disturbance != CLEAN and disturbance in measures[measure]:
                points = _series(measures[measure][CLEAN] | measures[measure][disturbance])
                series = {name: points.get(name, []) for name in names if measure == "success" or name in variants}
                charts.append(svg.line_chart(f"{disturbance}: {title}", series, "strength", limits))
    rule = html.escape(curves["rule"])
    note = f'<p class="pale">Acting: {rule}. The bot reads the simulator, not the observation.</p>'
    return ["<h2>Robustness</h2>", note, svg.key(names), f'<div class="charts">{"".join(charts)}</div>']


def _series(by_strength: Mapping[str, Mapping[str, Any]]) -> dict[str, list[svg.Point]]:
    series: dict[str, list[svg.Point]] = {}
    for strength, point in by_strength.items():
        for name, entry in point.items():
            series.setdefault(name, []).append(_band(entry, float(strength)))
    return series


def _reliability(results: Results) -> list[str]:
    """One diagram a question; the bins of all seeds together."""
    charts = []
    shown = {name: runs for name, runs in results.items() if all(run.calibration for run in runs)}
    rows = [["ECE", *(f"{question}, {kind}" for question, kind in DIAGRAMS)]]
    for question, kind in DIAGRAMS:
        series = {}
        for name, runs in shown.items():
            diagrams = [run.calibration.get(question, {}).get(kind) for run in runs]
            series[name] = _pooled([diagram["bins"] for diagram in diagrams if diagram])
        charts.append(svg.reliability_diagram(f"{question}, {kind} tokens", series))
    for name, runs in shown.items():
        row = [html.escape(name)]
        for question, kind in DIAGRAMS:
            diagrams = [run.calibration.get(question, {}).get(kind) for run in runs]
            errors = [diagram["ece"] for diagram in diagrams if diagram]
            row.append(plus_minus(over_seeds(errors) if errors else None))
        rows.append(row)
    if not shown:
        return []
    others = [name for name in results if name not in shown]
    note = f'<p class="pale">Not asked: {html.escape(", ".join(others))}.</p>' if others else ""
    charts = [f'<div class="charts">{"".join(charts)}</div>']
    return ["<h2>Calibration</h2>", svg.key(list(shown)), note, *charts, _table(rows)]


def _pooled(diagrams: Sequence[Sequence[Mapping[str, float]]], num_bins: int = 15) -> list[dict[str, float]]:
    """The bins of several runs as one diagram."""
    sums = np.zeros((num_bins, 3))
    for bins in diagrams:
        for one in bins:
            place = min(num_bins - 1, max(0, math.ceil(one["confidence"] * num_bins) - 1))
            sums[place] += np.array([one["confidence"], one["accuracy"], 1.0]) * one["count"]
    return [
        {"confidence": confidence / count, "accuracy": accuracy / count, "count": int(count)}
        for confidence, accuracy, count in sums.tolist()
        if count
    ]


def _films(workdirs: Mapping[str, Sequence[Path]]) -> list[str]:
    """The first seed's rollout of each variant, and the bot's of the same seed."""
    found = []
    for name, runs in workdirs.items():
        for file, who in (("rollout.gif", name), ("expert.gif", f"{name}: the bot")):
            path = runs[0] / "report" / file
            if path.is_file():
                encoded = base64.b64encode(path.read_bytes()).decode()
                found.append(
                    f'<figure><img alt="{html.escape(who)}" src="data:image/gif;base64,{encoded}">'
                    f"<figcaption>{html.escape(who)}</figcaption></figure>"
                )
    return ["<h2>Rollouts</h2>", f'<div class="films">{"".join(found)}</div>'] if found else []


def _models(workdirs: Mapping[str, Sequence[Path]]) -> list[dict[str, Any]]:
    """The viewer's windows of each variant's first seed."""
    models = []
    for name, runs in workdirs.items():
        path = runs[0] / "report" / "viewer.json"
        if path.is_file():
            windows = json.loads(path.read_text(encoding="utf-8"))["windows"]
            models.append({"name": f"{name}, seed {runs[0].name}", "windows": windows})
    return models
