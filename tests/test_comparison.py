"""Comparison of runs: paired tests with known answers, floors and ceilings, equal budgets, every suite as it is."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from anyorder_jax import ablate
from anyorder_jax.config import freeze
from anyorder_jax.evaluation import charts, comparison, page, recompute, results
from anyorder_jax.evaluation import suite as suites
from anyorder_jax.evaluation.results import asked, played

SUITES = sorted((Path(__file__).parents[1] / "configs" / "ablations").glob("*.py"))


# -- comparison ------------------------------------------------------------------------------------


def report(value):
    """What the files of a report hold."""
    return {
        "acting": {
            name: {"success": {"value": v}}
            for name, v in (("model/sampled", value), ("random", 0.2), ("no_model/sampled", 0.3), ("expert", 1.0))
        },
        "world_model": {
            "forward": {
                "model": {"nll_per_target": {"value": 1 - value}},
                "most_frequent": {"nll_per_target": {"value": 2.0}},
            }
        },
    }


def run(value, halfway=None, **more):
    """A run, as it is read."""
    values = results.values_of(report(value) | more)
    if halfway is not None:
        values |= results.values_of(report(halfway), results.Key("", "", "", step=50))
    return results.Run(values, more.get("calibration", {}))


def disturbed(success, accuracy):
    """What `robustness` writes: clean, a view half hidden, and actions that stick."""

    def point(strength, lost):
        played = {"model/sampled": success - lost, "expert": 1.0, "random": 0.25}
        played = {name: {"success": {"value": value}} for name, value in played.items()}
        return {
            "strength": strength,
            "acting": played,
            "world_model": {"causal": {"action_accuracy": {"value": accuracy}}},
        }

    return {"clean": [point(0.0, 0.0)], "occlusion": [point(0.5, 0.5)], "sticky": [point(0.25, 0.0)]}


MEASURES = {"success": played("model/sampled", "success"), "nll": asked("forward", "nll_per_target")}


def workdir(folder, seed, speed):
    path = folder / str(seed)
    (path / "metrics").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"train": {"batch_size": 8}, "data": {"row_length": 100}}))
    lines = [{"step": s, "tokens_per_second": speed, "targets_per_second": speed / 2} for s in (50, 100)]
    (path / "metrics" / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "metrics" / "validation.jsonl").write_text(json.dumps({"step": 100, "nll/action": 0.5}) + "\n")
    return path


@pytest.fixture
def compared(tmp_path):
    suite = suites.Suite("?", {"a": ("--x",), "b": ()}, (0, 1, 2), measures=MEASURES, at_steps=(50,),
                         heatmap={"next": MEASURES["nll"]})  # fmt: skip
    reports = {
        "a": [run(0.5, 0.3) for _ in range(3)],
        "b": [run(value, 0.5) for value in (0.9, 0.95, 0.85)],
    }
    workdirs = {n: [workdir(tmp_path / n, s, speed) for s in range(3)] for n, speed in (("a", 1000), ("b", 500))}
    return suite, reports, workdirs, comparison.compare_all(suite, reports, workdirs)


def test_floor_and_ceiling_stand_beside_the_variants(compared):
    *_, found = compared
    means = {name: {title: round(e["mean"], 9) for title, e in row.items()} for name, row in found["bounds"].items()}
    assert means == {
        "random policy": {"success": 0.2}, "same rule, no model": {"success": 0.3}, "bot": {"success": 1.0},
        "most frequent": {"nll": 2.0},
    }  # fmt: skip


def test_pairs_are_tested_over_seeds(compared):
    """0.4, 0.45, 0.35: t = 0.4 / (0.05 / sqrt 3), two degrees of freedom."""
    *_, found = compared
    success, nll = found["pairs"]["success"]["b"], found["pairs"]["nll"]["b"]
    assert success["value"] == pytest.approx(0.4) and success["high"] == pytest.approx(0.4 + 4.302653 * 0.05 / 3**0.5)
    assert success["p"] == success["p_holm"] == pytest.approx(0.005168, abs=1e-6) and success["num_seeds"] == 3
    assert nll["value"] == pytest.approx(-0.4) and nll["p"] == pytest.approx(success["p"])


def test_a_suite_says_what_is_compared_with_what():
    suite = suites.Suite("?", {"a": (), "b": (), "c": ()}, (0, 1), measures=MEASURES, against={"c": "b"})
    table = suites.compare(suite, {n: [run(v), run(v + 0.1)] for n, v in (("a", 0.1), ("b", 0.2), ("c", 0.5))})
    found = comparison.pairs(table, suite.against)["success"]
    assert {name: (round(one["value"], 9), one["against"]) for name, one in found.items()} == {
        "b": (0.1, "a"), "c": (0.3, "b"),
    }  # fmt: skip
    assert [label for label, _ in comparison.pair_rows({"success": found}, "a")] == ["b", "c, against b"]
    assert list(comparison.pairs({n: table[n] for n in "ac"}, suite.against)) == []  # --only left out what c needs
    with pytest.raises(ValueError, match=r"`against` names \['nobody'\]; expected variants: a"):
        suites.Suite("?", {"a": ()}, (0,), against={"a": "nobody"})


def test_holm_counts_all_variants_of_a_measure():
    rng = np.random.default_rng(0)
    table = {n: {"m": {"values": rng.normal(size=5).tolist()}} for n in "abcd"}
    found = comparison.pairs(table, {})["m"]
    lowest = min(found.values(), key=lambda one: one["p"])
    assert lowest["p_holm"] == pytest.approx(min(1.0, 3 * lowest["p"]))


def test_compute_and_equal_budgets(compared):
    *_, found = compared
    assert found["compute"]["a"] == pytest.approx(
        {"updates": 100, "tokens": 80_000, "targets": 40_000, "seconds": 80.0}
    )
    assert found["compute"]["b"]["seconds"] == 160.0
    at = {name: one["at"] for name, one in found["equal"].items()}
    assert at == pytest.approx({"updates": 100, "tokens": 80_000, "targets": 40_000, "seconds": 80.0})
    by_seconds = found["equal"]["seconds"]["table"]
    assert by_seconds["a"]["success"]["mean"] == pytest.approx(0.5)  # its end
    assert by_seconds["b"]["success"]["mean"] == pytest.approx(0.5)  # half of its way
    assert by_seconds["b"]["success"]["num_seeds"] == 3
    assert found["equal"]["updates"]["table"]["b"]["success"]["mean"] == pytest.approx(0.9)
    assert found["equal"]["updates"]["pairs"]["success"] == found["pairs"]["success"]


def test_before_the_first_checkpoint_nothing_is_known(compared):
    suite, reports, _, found = compared
    costs = {name: [dict(one) for one in [cost] * 3] for name, cost in found["compute"].items()}
    for one in costs["a"]:
        one["targets"] = 100.0  # as many as b has after 0.25 of its 100 updates
    table = comparison.equal(suite, reports, costs)["targets"]["table"]
    assert "success" in table["a"] and "success" not in table["b"]


def test_heatmap_is_relative_to_the_best_of_a_column(compared, tmp_path):
    *_, found = compared
    assert found["heatmap"]["relative"] == [[pytest.approx(0.4)], [pytest.approx(0.0)]]
    charts.heatmap(found["heatmap"], tmp_path / "heatmap.png")
    assert (tmp_path / "heatmap.png").stat().st_size > 1000


def test_curves_pair_the_variants_at_every_strength(compared):
    suite, reports, workdirs, _ = compared
    reports = {
        name: [run(0.5, curves=disturbed(0.5 + gain + more * seed, 0.5)) for seed in range(3)]
        for name, gain, more in (("a", 0.0, 0.0), ("b", 0.25, 0.125))
    }
    found = comparison.compare_all(suite, reports, workdirs)
    measures = found["curves"]["measures"]
    success, accuracy = measures["success"], measures["action acc."]
    at = success["occlusion"]["0.5"]
    assert at["a"]["values"] == [0.0, 0.0, 0.0] and at["b"]["values"] == [0.25, 0.375, 0.5]
    assert at["b"]["difference"]["value"] == 0.375 and at["bot"]["mean"] == 1.0
    spread = 0.125 / 3**0.5  # of the three differences, over seeds
    assert at["b"]["difference"]["high"] == pytest.approx(0.375 + 4.302653 * spread)
    assert success["clean"]["0"]["random policy"]["mean"] == 0.25
    assert "difference" not in at["a"] and not {"bot", "random policy"} & set(accuracy["clean"]["0"])
    assert "sticky" in success and "sticky" not in accuracy and not measures["action nll"]["occlusion"]["0.5"]
    markdown, html = comparison.text(suite, found), page.suite_page("t", suite, found, reports, workdirs)
    # p = 0.035 before Holm, thrice that among the three points
    assert at["b"]["difference"]["p"] == pytest.approx(0.0351, abs=1e-4)
    assert "| occlusion 0.5 | 0.000 ± 0.000 | 0.375 ± 0.311, p = 0.105 |" in markdown
    assert "Disturbed, sampled: success" in markdown and "Acting: sampled." in html
    assert "occlusion: success" in html and "NLL of the next action" not in html


def test_text_and_page_hold_every_table(compared):
    suite, reports, workdirs, found = compared
    markdown = comparison.text(suite, found)
    html = page.suite_page("t", suite, found, reports, workdirs)
    for text in (markdown, html):
        for said in ("0.500 ± 0.000", "0.900 ± 0.124", "random policy", "bot", "At equal seconds (80)", "p = 0.005",
                     "3 training seeds"):  # fmt: skip
            assert said in text, said
    assert "<svg" in html and 'class="bound"' in html and "@@" not in html


def test_one_seed_has_neither_intervals_nor_tests(compared):
    """Everywhere: table, bounds, equal budgets, differences, disturbances, calibration, the bands of charts."""
    suite, reports, workdirs, _ = compared
    suite = dataclasses.replace(suite, seeds=(0,))
    workdirs = {name: found[:1] for name, found in workdirs.items()}
    bins = [{"confidence": 0.5, "accuracy": 0.4, "count": 10}]
    calibration = {q: {kind: {"ece": 0.125, "bins": bins}} for q, kind in page.DIAGRAMS}
    reports = {
        name: [run(value, value, curves=disturbed(0.5, 0.5), calibration=calibration)]
        for name, value in (("a", 0.5), ("b", 0.9))
    }
    found = comparison.compare_all(suite, reports, workdirs)
    json.dumps(found, allow_nan=False)
    missing = dict.fromkeys(("low", "high", "p", "p_holm"))
    assert found["pairs"]["success"]["b"] == missing | {"value": pytest.approx(0.4), "num_seeds": 1, "against": "a"}
    html = page.suite_page("t", suite, found, reports, workdirs)
    shown = html.split("<script")[0].split("</style>")[1]
    for text in (comparison.text(suite, found), shown):
        for said in ("One training seed: no intervals and no tests", "+0.400", "which is no test"):
            assert said in text, said
        for invented in ("±", "p = ", "p < ", "nan", "None", "1 seeds", "seeds.", "Bold"):
            assert invented not in text, invented
    assert "0.125" in shown


def test_the_same_difference_in_every_seed_is_said_in_words(compared):
    suite, reports, workdirs, _ = compared
    reports = reports | {"b": [run(0.75, 0.5) for _ in range(3)]}
    found = comparison.compare_all(suite, reports, workdirs)
    json.dumps(found, allow_nan=False)
    for text in (comparison.text(suite, found), page.suite_page("t", suite, found, reports, workdirs)):
        assert "not tested: the same in every seed" in text and "p <" not in text.split("<script")[0]


# -- what is published -----------------------------------------------------------------------------

PUBLISHED = sorted((Path(__file__).parents[1] / "experiments").glob("*.json"))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_published_intervals_and_tests_follow_from_the_published_values(path):
    assert not recompute.rewrite(path, check=True), f"python -m anyorder_jax.evaluation.recompute {path}"


def test_recompute_mends_what_does_not_follow_and_keeps_what_was_measured(compared, tmp_path):
    *_, found = compared
    path = tmp_path / "comparison.json"
    found = json.loads(json.dumps({"one": found}))
    values = found["one"]["table"]["b"]["success"]["values"]
    found["one"]["table"]["b"]["success"]["low"], found["one"]["pairs"]["success"]["b"]["p_holm"] = 0.899, 1e-6
    path.write_text(json.dumps(found, indent=1))
    assert recompute.rewrite(path, check=True) and "0.899" in path.read_text()
    assert recompute.rewrite(path) and not recompute.rewrite(path)
    again = json.loads(path.read_text())["one"]
    assert again["table"]["b"]["success"]["values"] == values
    assert again["table"]["b"]["success"]["low"] == pytest.approx(0.775793, abs=1e-6)
    assert again["pairs"]["success"]["b"]["p_holm"] == pytest.approx(0.005168, abs=1e-6)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"comparison\.json: expected a comparison"):
        recompute.rewrite(path)


# -- the suites ------------------------------------------------------------------------------------


SIZES = {"redball": [""], "text_orders": ["", "mapreader", "scienceworld", "words", "miniwob", "bfcl"]}


@pytest.mark.parametrize("path, size", [(path, size) for path in SUITES for size in SIZES.get(path.stem, ["", "full"])],
                         ids=lambda value: getattr(value, "stem", value))  # fmt: skip
def test_every_run_of_every_suite_is_a_valid_configuration(path, size, tmp_path):
    """The arguments as `train` would read them: recipe, overrides, checks."""
    suite = ablate.load_suite(str(path), size)
    assert len(suite.seeds) >= (5 if path.stem in ("orders", "conditionals", "redball") else 3)
    for name in suite.variants:
        config = config_of(suite.arguments(name, 0, tmp_path))
        saved = range(0, config.train.num_steps, config.checkpoint.save_every_steps)
        assert set(suite.at_steps) <= set(saved) and len(suite.at_steps) < config.checkpoint.keep_last
        other = suite.needs(name)
        assert bool(other) == (str(tmp_path) in config.model.path)
    flags = [argument.split("=")[0] for argument in suite.evaluate]
    assert set(flags) <= {"--num_episodes", "--rules", "--num_windows"}


@pytest.mark.parametrize("name, said", [("redball", "one size only"), ("text_orders", "expected a world: cooking")])
def test_a_size_that_a_suite_does_not_have_is_refused(name, said):
    with pytest.raises(ValueError, match=said):
        ablate.load_suite(str(SUITES[0].with_name(f"{name}.py")), "full")


def config_of(arguments):
    recipe, *overrides = arguments
    file, _, variant = recipe.removeprefix("--config=").partition(":")
    namespace: dict = {}
    exec((SUITES[0].parents[2] / file).read_text(), namespace)
    config = namespace["get_config"](variant)
    for override in overrides:
        key, _, text = override.removeprefix("--config.").partition("=")
        section, _, name = key.partition(".")
        old = config[section][name]
        config[section][name] = type(old)(text)
    return freeze(config)


def test_a_variant_may_start_from_another_one(tmp_path):
    suite = suites.Suite("?", {"a": (), "b": ("--config.model.path={run:a}",)}, (0,))
    assert suite.arguments("b", 4, tmp_path) == [f"--config.model.path={tmp_path}/a/4"]
    with pytest.raises(ValueError, match="starts from"):
        suites.Suite("?", {"b": ("--config.model.path={run:nobody}",)}, (0,))
    with pytest.raises(ValueError, match="starts from"):
        suites.Suite("?", {"a": ("{run:b}",), "b": ("{run:a}",)}, (0,))


def test_only_what_is_missing_is_done(tmp_path):
    suite = suites.Suite(
        "?", {"a": ("--config=x",)}, (0,), ("--num_episodes=3",), parts=("report", "likelihood"),
        levels={"far": ("--env=Y",)}, at_steps=(10,),
    )  # fmt: skip
    workdir = tmp_path / "a" / "0"
    assert [c[0] for c in ablate.commands(suite, "a", 0, tmp_path, workdir)] == ["anyorder_jax.train"] + [
        "anyorder_jax.evaluate"
    ] * 2
    (workdir / "report" / "far").mkdir(parents=True)
    (workdir / "checkpoints" / "10").mkdir(parents=True)
    for done in ("report.json", "far/report.json"):
        (workdir / "report" / done).write_text("{}")
    found = list(ablate.commands(suite, "a", 0, tmp_path, workdir))
    assert [c[0] for c in found] == ["anyorder_jax.evaluate"] * 2
    assert f"--checkpoint={workdir}/checkpoints/10" in found[0] and "--parts=likelihood" in found[1]
    for done in ("10/report.json", "likelihood.json"):
        (workdir / "report" / done).parent.mkdir(exist_ok=True)
        (workdir / "report" / done).write_text("{}")
    assert list(ablate.commands(suite, "a", 0, tmp_path, workdir)) == []


def test_jobs_are_numbered(tmp_path):
    suite = suites.Suite("?", {"a": (), "b": ()}, (0, 1))
    assert ablate.jobs_of(suite, ()) == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    with pytest.raises(ValueError, match="not in this suite"):
        ablate.jobs_of(suite, ("c",))
    with pytest.raises(ValueError, match=r"expected 0\.\.19, got 99"):
        ablate.ablate(str(next(p for p in SUITES if p.stem == "orders")), tmp_path, 1, job=99)
