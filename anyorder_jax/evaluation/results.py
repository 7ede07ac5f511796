"""Results: what the runs of a suite say, as one long table, and the typed keys by which columns name what they show.

A comparison writes the table as `results.jsonl`, a JSON object a line with these columns and no others; all its tables
are grouped from it:

    variant      str    of the suite
    seed         int    that the run was trained from
    question     str    what was asked; "acting": episodes were played; "decoding": played by other ways to choose
    predictor    str    "model", or a baseline; of played episodes the policy ("model/greedy", "random", "expert")
    measure      str    see `MEASURES`
    role         str    of text: of the asked units; of grids, whose measures say it, and of played episodes: empty
    level        str    of a suite's further evaluations (`Suite.levels`); empty: the run's own
    step         int    of the checkpoint (`Suite.at_steps`); 0: the last one
    disturbance  str    of `environments.disturbances`, or "clean" beside them; empty: nobody disturbed
    strength     float  of the disturbance, else 0
    value        float

The values are those of report.json and its neighbours; what they are made of, episode by episode, stands in the run's
rows.jsonl (`asking.rows`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anyorder_jax.acting.names import CHOICE_NAMES, PLAYED_MEASURES, RULES, UNTRAINED
from anyorder_jax.asking import baselines, measures, questions
from anyorder_jax.evaluation import measures as grid_measures
from anyorder_jax.evaluation import questions as grid_questions

ACTING, DECODING = "acting", "decoding"
"""Questions of episodes that were played."""

BOUNDS_ON_WINDOWS = ("chain", "elbo@unit", "elbo@token")
"""Definitions of `sequence_nll`."""

QUESTIONS = tuple(dict.fromkeys([
    *(question.name for question in (*grid_questions.QUESTIONS, *questions.QUESTIONS)), *BOUNDS_ON_WINDOWS,
]))  # fmt: skip
MEASURES = tuple(dict.fromkeys([*grid_measures.MEASURES, "nll_per_window", *measures.MEASURES]))
"""Of what is asked; `PLAYED_MEASURES` of played episodes."""

PREDICTORS = ("model", "most_frequent", "copy_previous", *baselines.BASELINES)
POLICIES = (
    "model", *(f"{who}/{rule}" for who in ("model", "no_model") for rule in RULES),
    *(f"model/{name}" for name in CHOICE_NAMES), *UNTRAINED,
)  # fmt: skip


class Key(NamedTuple):
    """What one value is of; see the module. Made by `asked` and `played`, which refuse names that there are not."""

    question: str
    predictor: str
    measure: str
    role: str = ""
    level: str = ""
    step: int = 0
    disturbance: str = ""
    strength: float = 0.0


def asked(question: str, measure: str, *, predictor: str = "model", role: str = "", level: str = "") -> Key:
    """The key of what was asked, e.g. asked("forward", "cell_accuracy").

    Args:
      question: of QUESTIONS.
      measure: of MEASURES.
      predictor: who answers.
      role: of text: of the asked units.
      level: of `Suite.levels`.

    Raises:
      ValueError: for a name that there is not, with near ones.
    """
    return checked(Key(question, predictor, measure, role, level))


def played(policy: str, measure: str, *, level: str = "") -> Key:
    """The key of episodes that were played, e.g. played("model/greedy", "success").

    Args:
      policy: who played.
      measure: of PLAYED_MEASURES.
      level: of `Suite.levels`.

    Raises:
      ValueError: for a name that there is not, with near ones.
    """
    return checked(Key(ACTING, policy, measure, level=level))


def checked(key: Key) -> Key:
    """The key; ValueError for a name that there is not, with near ones."""
    is_played = key.question in (ACTING, DECODING)
    _known("question", key.question, (*QUESTIONS, ACTING, DECODING))
    _known("measure", key.measure, PLAYED_MEASURES if is_played else MEASURES)
    if key.question != DECODING and not key.predictor.startswith("always_"):  # a plan's length, a level's word
        _known("predictor", key.predictor, POLICIES if is_played else PREDICTORS)
    return key


def _known(what: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"There is {', '.join(names)}."
        raise ValueError(f"suite: no {what} is named {name!r}. {hint}")


def key_of(path: str, levels: Iterable[str] = ()) -> Key:
    """The key of a dotted path into reports ("world_model.causal.model.action_nll", "acting.model/greedy.success",
    "levels.far.acting.random.success"), as suites were written before there were keys.

    Raises:
      ValueError: for a path that is none, or names what there is not.
    """
    level = next((name for name in levels if path.startswith(f"levels.{name}.")), "")
    group, _, rest = path.removeprefix(f"levels.{level}." if level else "").partition(".")
    if group == ACTING:
        policy, _, measure = rest.rpartition(".")
        return played(policy, measure, level=level)
    question = next((name for name in QUESTIONS if rest.startswith(f"{name}.")), "")
    predictor, _, measure = rest.removeprefix(f"{question}.").rpartition(".")
    if group not in ("world_model", "likelihood") or not question or not predictor:
        raise ValueError(
            f"suite: {path!r} names no measure. Expected a key of anyorder_jax.evaluation.results, such as "
            f"asked('causal', 'action_nll') or played('model/greedy', 'success'); questions are {', '.join(QUESTIONS)}."
        )
    return asked(question, measure, predictor=predictor, level=level)


Values = Mapping[Key, float]


class Run(NamedTuple):
    """All that was found out about one run. calibration: [question][role], as `statistics.reliability`; {} where it was
    not asked."""

    values: Values
    calibration: Mapping[str, Any]


Results = Mapping[str, Sequence[Run]]
"""variant -> the run of every seed."""


def read(workdir: Path, levels: Iterable[str] = (), at_steps: Iterable[int] = ()) -> Run:
    """What was found out about one run: its reports of the last checkpoint, of other levels, of earlier checkpoints.

    Args:
      workdir: the run.
      levels: names of further evaluations, which are there.
      at_steps: earlier checkpoints, some of which were evaluated.

    Raises:
      FileNotFoundError: without report.json.
    """
    report = workdir / "report"
    content = _read_folder(report)
    values = dict(values_of(content))
    for level in levels:
        values |= values_of(_read_folder(report / level), Key("", "", "", level=level))
    for step in at_steps:
        if (report / str(step) / "report.json").is_file():
            values |= values_of(_read_folder(report / str(step)), Key("", "", "", step=step))
    return Run(values, content.get("calibration", {}))


def _read_folder(folder: Path) -> dict[str, Any]:
    """report.json, with the content of its neighbours beside its own."""
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    for name in ("likelihood", "robustness", "decoding"):
        path = folder / f"{name}.json"
        if path.is_file():
            beside = json.loads(path.read_text(encoding="utf-8"))
            content |= {k: v for k, v in beside.items() if k != "about"}
    acting = folder / "acting.json"  # of text
    if acting.is_file():
        content["acting"] = json.loads(acting.read_text(encoding="utf-8"))["measures"]
    return content


NOWHERE = Key("", "", "")


def values_of(content: Mapping[str, Any], at: Key = NOWHERE) -> dict[Key, float]:
    """{key: value} of the reports of one folder, as they stand in files.

    Args:
      content: report.json and its neighbours, merged.
      at: level and step of the keys.
    """
    found: dict[Key, float] = {}

    def add(question: str, by_predictor: Mapping[str, Mapping[str, Any]], at: Key = at) -> None:
        for predictor, by_measure in by_predictor.items():
            for measure, estimate in by_measure.items():
                found[at._replace(question=question, predictor=predictor, measure=measure)] = float(estimate["value"])

    add(ACTING, content.get("acting", {}))
    add(DECODING, content.get("variants", {}))
    for group in ("world_model", "likelihood"):
        for question, by_predictor in content.get(group, {}).items():
            add(question, by_predictor)
    for row in content.get("summary", ()):  # of text
        names = {name: row[name] for name in ("question", "predictor", "measure", "role")}
        found[at._replace(**names)] = float(row["value"])
    for disturbance, points in content.get("curves", {}).items():
        for point in points:
            here = at._replace(disturbance=disturbance, strength=float(point["strength"]))
            add(ACTING, point["acting"], here)
            for question, by_measure in point["world_model"].items():
                add(question, {"model": by_measure}, here)
    return found


def rows_of(results: Results, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The long table, a row a value; see the module."""
    for variant, runs in results.items():
        for seed, run in zip(seeds, runs, strict=True):
            for key, value in run.values.items():
                yield {"variant": variant, "seed": seed, **key._asdict(), "value": value}


def of_each(runs: Sequence[Run], key: Key) -> list[float] | None:
    """The value of every run; None where one lacks it."""
    values = [run.values.get(key) for run in runs]
    return None if None in values else [value for value in values if value is not None]
