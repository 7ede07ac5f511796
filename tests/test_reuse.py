"""Reuse: a result of a suite stands for what is asked as long as recipe and question have the same contents."""

import dataclasses
import json

import pytest

from anyorder_jax import ablate
from anyorder_jax.config import Config, MaskingConfig, to_json, with_absolute_paths
from anyorder_jax.evaluation import reuse
from anyorder_jax.evaluation.suite import Suite


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe with this masking rate."""

    def write(rate, name="mine"):
        path = tmp_path / f"{name}.py"
        path.write_text(
            "from anyorder_jax.config import defaults\n"
            "def get_config(variant=''):\n"
            "    config = defaults(variant)\n"
            f"    config.masking.rate = {rate}\n"
            "    return config\n"
        )
        return path

    return write


def finish(run, arguments):
    """What the commands of a run would leave, as far as `ablate` looks at it."""
    (run / "report").mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(to_json(reuse.configuration(arguments)))
    (run / "report" / "report.json").write_text("{}")


def left(suite, variant, directory):
    run = ablate.place(suite, variant, 0, directory)
    return run, list(ablate.commands(suite, variant, 0, directory, run))


def test_an_edited_recipe_is_run_again_and_its_old_result_kept(tmp_path, recipe):
    path = recipe(0.5)
    suite = Suite("?", {"a": (f"--config={path}",)}, (0,))
    first, commands = left(suite, "a", tmp_path / "out")
    assert len(commands) == 2
    finish(first, suite.variants["a"])
    assert left(suite, "a", tmp_path / "out") == (first, [])
    path.write_text("# a comment changes nothing\n" + path.read_text())
    assert left(suite, "a", tmp_path / "out") == (first, [])
    recipe(0.1)
    second, commands = left(suite, "a", tmp_path / "out")
    assert second != first and len(commands) == 2 and (tmp_path / "out" / "a" / "0").resolve() == second
    finish(second, suite.variants["a"])
    assert left(suite, "a", tmp_path / "out") == (second, [])
    recipe(0.5)
    assert left(suite, "a", tmp_path / "out") == (first, [])


def test_a_run_that_starts_from_an_edited_one_is_run_again(tmp_path, recipe):
    base, then = recipe(0.5, "base"), recipe(0.3, "then")
    more = "--config.model.path={run:a}"
    suite = Suite("?", {"a": (f"--config={base}",), "b": (f"--config={then}", more)}, (0,))
    runs = {}
    for name in ("a", "b"):
        runs[name] = left(suite, name, tmp_path / "out")[0]
        finish(runs[name], suite.arguments(name, 0, tmp_path / "out"))
    assert left(suite, "b", tmp_path / "out") == (runs["b"], [])
    recipe(0.1, "base")
    again, commands = left(suite, "b", tmp_path / "out")
    assert again != runs["b"] and len(commands) == 2


def test_an_edited_question_is_asked_again(tmp_path, recipe):
    variants = {"a": (f"--config={recipe(0.5)}",)}
    suite = Suite("?", variants, (0,), levels={"far": ("--env=X",)}, parts=("report", "likelihood"))
    run = left(suite, "a", tmp_path / "out")[0]
    finish(run, variants["a"])
    for name in ("report", "far/report", "likelihood"):
        (run / "report" / name).parent.mkdir(exist_ok=True)
        (run / "report" / f"{name}.json").write_text("{}")
    assert left(suite, "a", tmp_path / "out")[1] == []  # what nobody wrote down is taken as it is
    for command in ablate.commands(suite, "a", 0, tmp_path / "out", tmp_path / "other"):
        if command[0].endswith("evaluate"):
            reuse.remember([part.replace(str(tmp_path / "other"), str(run)) for part in command])
    assert left(suite, "a", tmp_path / "out")[1] == []
    for changes, asked in (
        ({"levels": {"far": ("--env=Y",)}}, "--env=Y"),
        ({"more": {"likelihood": ("--num_windows=1",)}}, "--num_windows=1"),
    ):
        (command,) = left(dataclasses.replace(suite, **changes), "a", tmp_path / "out")[1]
        assert asked in command


def test_older_words_name_the_same_runs_and_questions(tmp_path, recipe):
    """`--modes` is `--rules` now, `--suite` of `evaluate` is `--parts`: what was trained and asked is found again."""
    variants = {"a": (f"--config={recipe(0.5)}",)}
    older, newer = (Suite("?", variants, (0,), (flag,)) for flag in ("--modes=greedy", "--rules=greedy"))
    assert ablate.place(older, "a", 0, tmp_path / "out") == ablate.place(newer, "a", 0, tmp_path / "out")
    run = left(newer, "a", tmp_path / "out")[0]
    finish(run, variants["a"])
    folder = run / "report"
    (folder / "report.json").write_text("{}")
    for asked in (["--modes=greedy"], ["--rules=greedy"]):
        (folder / reuse.ASKED).write_text(json.dumps({"report": asked}))
        assert reuse.is_answered(folder, "report", ["--rules=greedy"])
        assert not reuse.is_answered(folder, "report", ["--rules=sampled"])
    assert Suite("?", variants, (0,), suites=("report", "viewer")).parts == ("report", "viewer")


def test_a_run_that_was_moved_here_is_checked(tmp_path, recipe):
    suite = Suite("?", {"a": (f"--config={recipe(0.5)}",)}, (0,))
    moved = tmp_path / "out" / "a" / "0"
    finish(moved, [*suite.variants["a"], "--config.data.cache_dir=/another/machine"])
    assert left(suite, "a", tmp_path / "out") == (moved, [])
    recipe(0.1)
    with pytest.raises(ValueError, match=r"other settings than the recipe's \(masking\.rate: 0\.5 -> 0\.1\)"):
        ablate.place(suite, "a", 0, tmp_path / "out")
    with pytest.raises(ValueError, match="--config: "):
        reuse.configuration([f"--config={tmp_path}/nowhere.py"])
    expected = with_absolute_paths(Config(masking=MaskingConfig(rate=0.2)))
    assert reuse.configuration([f"--config={recipe(0.2)}"]) == expected
