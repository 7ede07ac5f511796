"""Results: columns name what there is, files of every kind become one table, a column that nobody was asked is said."""

import json

import pytest

from anyorder_jax.acting import choosing, names
from anyorder_jax.evaluation import policy, results, sequence_nll
from anyorder_jax.evaluation.results import Key, asked, key_of, played
from anyorder_jax.evaluation.suite import HEATMAP, MEASURES, Suite


def value(number):
    return {"value": number, "low": None, "high": None}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: asked("casual", "action_nll"), "no question is named 'casual'. Did you mean 'causal'"),
        (lambda: asked("causal", "action_nlll"), "no measure is named 'action_nlll'. Did you mean 'action_nll'"),
        (lambda: asked("causal", "success"), "no measure is named 'success'"),
        (lambda: asked("causal", "action_nll", predictor="modle"), "no predictor is named 'modle'"),
        (lambda: played("model/gredy", "success"), "'model/greedy'"),
        (lambda: played("model/greedy", "sucess"), "Did you mean 'success'"),
        (lambda: key_of("acting.model/greedy.sucess"), "Did you mean 'success'"),
        (lambda: key_of("world_model.causal.action_nll"), "names no measure"),
        (lambda: key_of("levels.far.acting.random.success"), "names no measure"),
        (lambda: key_of("success"), "names no measure"),
    ],
)
def test_a_name_that_there_is_not_is_an_error_that_names_what_there_is(make, said):
    with pytest.raises(ValueError, match="suite: ") as found:
        make()
    assert said in str(found.value)


def test_a_suite_is_refused_before_its_runs_for_a_column_that_nothing_fills():
    for wrong in ("world_model.forwards.model.cell_accuracy", Key("forward", "model", "cell_accuracies")):
        with pytest.raises(ValueError, match="suite: "):
            Suite("?", {"a": ()}, (0,), measures={"cells": wrong})
    with pytest.raises(ValueError, match="'near' is none of its levels: far"):
        Suite("?", {"a": ()}, (0,), levels={"far": ()}, measures={"x": played("random", "success", level="near")})


def test_paths_of_older_suites_are_the_same_keys():
    old = {
        "greedy success": "acting.model/greedy.success",
        "causal action nll": "world_model.causal.model.action_nll",
        "nll/cell p=.5": "world_model.any_order@0.5.model.nll_per_cell",
    }
    suite = Suite("?", {"a": ()}, (0,), measures=old, heatmap={"goal": "world_model.goal.model.nll_per_target"})
    assert suite.measures == {title: MEASURES[title] for title in old} and suite.heatmap == {"goal": HEATMAP["goal"]}
    levels = ("go, in rooms of 8.5",)
    assert key_of(f"levels.{levels[0]}.acting.no_model/sampled.success", levels) == Key(
        "acting", "no_model/sampled", "success", level=levels[0]
    )
    assert key_of("likelihood.elbo@unit.most_frequent.nll_per_cell") == Key(
        "elbo@unit", "most_frequent", "nll_per_cell"
    )


def test_the_names_are_those_that_are_measured():
    assert names.RULES == policy.RULES and set(names.CHOICE_NAMES) == set(choosing.CHOICES)
    assert ("chain", *(f"elbo@{g}" for g in sequence_nll.GRANULARITIES)) == results.BOUNDS_ON_WINDOWS


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_files_of_every_kind_become_one_table(tmp_path):
    report = tmp_path / "report"
    grid = {
        "world_model": {"causal": {"model": {"action_nll": value(0.5)}}},
        "acting": {"random": {"success": value(0.25)}},
    }
    write(report / "report.json", {"about": {}, **grid})
    bins = {"causal": {"action": {"ece": 0.125, "bins": []}}}
    write(report / "likelihood.json", {"likelihood": {"chain": {"model": {"nll_per_window": value(9.0)}}},
                                       "calibration": bins})  # fmt: skip
    write(report / "decoding.json", {"variants": {"plan_2": {"success": value(0.75)}}})
    point = {"strength": 0.5, "acting": {"expert": {"success": value(1.0)}},
             "world_model": {"causal": {"action_nll": value(2.0)}}}  # fmt: skip
    write(report / "robustness.json", {"curves": {"noise": [point]}})
    write(report / "far" / "report.json", grid)
    write(report / "20" / "report.json", grid)
    run = results.read(tmp_path, ("far",), (10, 20))
    assert run.calibration == bins
    own = {Key("causal", "model", "action_nll"): 0.5, Key("acting", "random", "success"): 0.25}
    assert run.values == {
        **own, **{key._replace(level="far"): v for key, v in own.items()},
        **{key._replace(step=20): v for key, v in own.items()},
        Key("chain", "model", "nll_per_window"): 9.0, Key("decoding", "plan_2", "success"): 0.75,
        Key("acting", "expert", "success", disturbance="noise", strength=0.5): 1.0,
        Key("causal", "model", "action_nll", disturbance="noise", strength=0.5): 2.0,
    }  # fmt: skip
    rows = list(results.rows_of({"a": [run], "b": [run]}, (7,)))
    assert len(rows) == 2 * len(run.values) and {row["seed"] for row in rows} == {7}
    assert rows[0].keys() == {"variant", "seed", "value", *Key._fields}


def test_runs_of_text_are_compared_like_those_of_grids(tmp_path):
    row = {"question": "decision", "role": "action", "measure": "exact_unit", "predictor": "copy", **value(0.5)}
    write(tmp_path / "report" / "report.json", {"about": {}, "summary": [row], "calibration": {}})
    write(tmp_path / "report" / "acting.json", {"measures": {"model": {"success": value(0.75)}}})
    assert results.read(tmp_path).values == {
        asked("decision", "exact_unit", predictor="copy", role="action"): 0.5, played("model", "success"): 0.75,
    }  # fmt: skip
