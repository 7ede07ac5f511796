"""BFCL: the official answers solve the tasks here as there, no text is executed, generated tasks are sound."""

import importlib.util
import itertools
import json
import sys

import numpy as np
import pytest

import java_worlds
from anyorder_jax import collect as collecting
from anyorder_jax.data import overlap, sources
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import ExpertError, take
from anyorder_jax.environments.bfcl import folds
from anyorder_jax.environments.play import play_text_episode
from anyorder_jax.environments.server import Server
from anyorder_jax.rendering.text import lines_of
from anyorder_jax.types import Kind, Unit

needs_world = pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in ("bfcl_eval", "mpmath")),
    reason="needs `pip install --no-deps bfcl-eval mpmath`",
)
END = '{"name":"end_turn","arguments":{}}'
# the longest turn, an answer that calls what is not described yet, an id that is text: and a few of every kind
NUMBERS = (0, 38, 46, 49, 65, 101, 150, 173, 199)
OFFICIAL = [(category, f"multi_turn_{category}_{n}") for category in folds.CATEGORIES for n in NUMBERS]
FIRST_TEST = 9_000_000


def opened(name):
    return registry.make_session(f"BFCL-{name}")


def act(session, text, step=0):
    return take(session, Unit(Kind.ACTION, step, text=text))


def call(name, /, **arguments):
    return json.dumps({"name": name, "arguments": arguments})


def played(session, task, texts):
    """The last step."""
    session.reset(task)
    return [act(session, text, step) for step, text in enumerate(texts)][-1]


def test_official_tasks_are_split_by_case_and_other_categories_are_tests():
    split = registry.tasks("BFCL-base")
    assert {name: len(tasks) for name, tasks in split.items()} == {"train": 150, "validation": 0, "test": 50}
    assert {*split["train"], *split["test"]} == {f"multi_turn_base_{n}" for n in range(200)}
    assert split == registry.tasks("BFCL-base-schemas") == registry.tasks("BFCL-base")
    for category in folds.CATEGORIES[1:]:
        assert registry.tasks(f"BFCL-{category}")["train"] == []
        assert len(set(registry.tasks(f"BFCL-{category}")["test"])) == 200
    assert registry.tasks("BFCL-made-templates") is None


def test_what_is_missing_is_named(monkeypatch):
    for name in list(sys.modules):
        if name.startswith("anyorder_jax.environments.bfcl."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "bfcl_eval", None)
    with pytest.raises(ModuleNotFoundError, match=r"'bfcl_eval'.*Run `pip install --no-deps 'bfcl-eval"):
        opened("base")
    assert registry.make_codec("BFCL-base", "joint").is_running_text  # training needs no package


@needs_world
@pytest.mark.parametrize("category", folds.CATEGORIES)
def test_answers_solve_their_tasks_and_do_not_without_their_last_call(category):
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker

    from anyorder_jax.environments.bfcl.task import official

    session = opened(category)
    for name in (task for found, task in OFFICIAL if found == category):
        session.reset(name)
        path, task = session.path(), official(name)
        last = max(place for place, text in enumerate(path) if text != END)
        entry = {"id": name, "initial_config": task.config, "involved_classes": list(task.classes)}
        truth = [[c.python() for c in turn] for turn in task.truth]
        for how, texts in (("whole", path), ("dropped", path[:last] + path[last + 1 :])):
            done = played(session, name, texts)
            verdict = multi_turn_checker(session.transcript(), truth, entry, category, f"test-{how}")["valid"]
            assert done.is_done and done.is_success is verdict is (how == "whole"), (name, how)
            assert done.reward == float(verdict)


@needs_world
def test_any_call_answers_what_the_official_executor_answers():
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils import execute_multi_turn_func_call

    from anyorder_jax.environments.bfcl.task import official
    from anyorder_jax.environments.bfcl.tools import functions
    from anyorder_jax.environments.calls import from_json

    rng = np.random.default_rng(0)
    num_calls = num_answers = 0
    for category, name in OFFICIAL[::2]:
        session, task = opened(category), official(name)
        session.reset(name)
        for step in range(20):
            actions = [text for text in session.valid_actions() if text != END]
            text = actions[int(rng.integers(len(actions)))]
            told = act(session, text, step)
            (answer,), _ = execute_multi_turn_func_call(
                [from_json(text, functions()).python()], task.config, list(task.classes), "test-any", name,
                task.is_long,
            )  # fmt: skip
            assert not told.is_invalid and told.units[0].text == answer, text
            num_calls, num_answers = num_calls + 1, num_answers + ("error" not in answer.lower())
    assert num_answers > num_calls / 4  # and not errors alone


def attacks(path):
    """200 texts and more that would do harm, or for ever, if anything evaluated them."""
    doing = f"open({str(path)!r}, 'w').close()"
    harmful = (
        doing, f"exec({doing!r})", f"eval({doing!r})", f"__import__('os').system('touch {path}')",
        "().__class__.__bases__[0].__subclasses__()", "(lambda: 0)()", f"[{doing} for _ in range(9)]", "9**9**9",
        "'a'*10**10", "while True: pass", "(yield)", "f'{9**9**9}'", "1e999", "-1e999", "9" * 5000, "(" * 500,
        "[" * 5000, "{" * 5000, "cd(folder='a')", "globals()", "self._instances", "print(1)", "*[1]", "**{'a': 1}",
        "\0", "0x" + "f" * 4000, "None.__class__", "x := 1", "import os", "...",
    )  # fmt: skip
    shapes = (
        "{}", "cd({})", "cd(folder={})", "__class__({})", "kill({})", "power(base=9, exponent={})",
        "cd(folder='a'); {}", '{{"name":{},"arguments":{{}}}}', '{{"name":"cd","arguments":{{"folder":{}}}}}',
        '{{"name":"power","arguments":{{"base":2,"exponent":{}}}}}',
    )  # fmt: skip
    yield from (shape.format(text) for shape, text in itertools.product(shapes, harmful))
    for name in ("__init__", "__class__", "_load_scenario", "_random", "root", "kill", "eval", "cd.__call__", ""):
        yield call(name)
    yield from (call("cd", folder=text) for text in (1, None, ["a"], {"a": 1}, True, "a" * 20_000))
    yield from (call("power", base=2, exponent=x) for x in (10**9, -(10**9), 10**400, "2", True))
    yield from (call("multiply", a=x, b=10**9) for x in ("a", ["a"], 10**16, None))
    yield from (call("logarithm", value=2, base=10, precision=x) for x in (10**9, 1.5, "9", None))
    yield from (call("mean", numbers=x) for x in ([1] * 10**4, [[1]], ["a"], 1, {"a": 1}))
    yield from (call("cd", folder="a", __class__="b"), call("cd"), '{"name":"cd","name":"ls","arguments":{}}')
    yield from ('{"name":"add","arguments":{"a":NaN,"b":1}}', '{"name":"add","arguments":{"a":1e999,"b":1}}')
    yield from ("", " ", "null", "[]", "\ud800", '{"name":"ls"}', '{"name":["ls"],"arguments":{}}')


@needs_world
def test_texts_that_would_do_harm_are_invalid_actions_and_nothing_is_executed(tmp_path):
    from anyorder_jax.environments import calls
    from anyorder_jax.environments.bfcl import tools

    session, alone = opened("base"), opened("base")
    task = next(t for t in registry.tasks("BFCL-base")["test"] if "MathAPI" in str(described(session, t)))
    session.reset(task), alone.reset(task)
    tried = list(dict.fromkeys(attacks(tmp_path / "harm")))
    assert len(tried) > 200
    for text in tried:
        told = act(session, text)
        assert told.is_invalid and told.units[0].text.startswith("invalid action: "), text
        assert len(told.units[0].text) < 400
        if text.strip() != "cd(folder='a')":
            with pytest.raises(ValueError):
                calls.from_python(text, tools.functions())
    assert not (tmp_path / "harm").exists()
    assert session._instances.has_state_of(alone._instances) and session.transcript() == [[]]
    told = act(session, call("echo", content=f"open({str(tmp_path / 'harm')!r}, 'w')"))  # in a text it is text
    assert not told.is_invalid and "open(" in told.units[0].text and not (tmp_path / "harm").exists()


def described(session, task):
    """Names of the classes of a task."""
    session.reset(task)
    return session._task.classes


@needs_world
def test_the_user_speaks_when_the_agent_says_that_it_is_done():
    session = opened("miss_func")
    system, goal = session.reset("multi_turn_miss_func_3")
    assert (system.kind, goal.kind) == (Kind.SYSTEM, Kind.GOAL)
    assert "\ncd(folder: string)\n" in system.text and system.text.endswith("\nend_turn()")
    assert "find(" not in system.text and "\nls(" not in system.text and "\nmv(" not in system.text
    (said,) = act(session, END).units
    assert said.kind is Kind.USER and "find(path?: string, name?: string)" in said.text
    assert said.text.endswith("What about now?")
    told = act(session, call("find", path=".", name="test"), 1)
    assert told.units[0].kind is Kind.TOOL and "test_document.txt" in told.units[0].text
    assert "backup_tests" in act(session, END, 2).units[0].text
    assert act(session, call("get_ticket", ticket_id=1), 3).is_invalid  # of a class that the task does not have
    last = act(session, END, 4)
    assert last.is_done and not last.is_success
    whole = opened("miss_func-schemas").reset("multi_turn_miss_func_3")[0].text
    assert json.loads(whole.splitlines()[0])["parameters"]["required"] == ["file_name"]


@needs_world
def test_a_copy_is_a_session_of_its_own():
    for category, name in OFFICIAL[::5]:
        session, alone = opened(category), opened(category)
        session.reset(name), alone.reset(name)
        for step, text in enumerate(session.path()):
            copied = session.copy()
            for other in copied.valid_actions()[::7]:
                take(copied, Unit(Kind.ACTION, step, text=other))
            assert act(session, text, step) == act(alone, text, step)
        assert session.transcript() == alone.transcript() != copied.transcript()


@needs_world
def test_arguments_are_spans_of_their_own_and_noise_is_refused():
    session = opened("base")
    session.reset("multi_turn_base_3")
    (advice,) = session.advice()
    assert lines_of(advice.text) == ['{"name":"find","arguments":{', '"path":".",', '"name":"test"', "}}"]
    act(session, call("ls"))
    with pytest.raises(ExpertError, match="path was left"):
        session.advice()
    with pytest.raises(ValueError, match="noise must be 0"):
        play_text_episode(session, "multi_turn_base_3", noise=0.1)
    for wrong in ("multi_turn_miss_func_3", "multi_turn_base_200", "3", ""):
        with pytest.raises(ValueError, match="expected a task like 'multi_turn_base_7'"):
            session.reset(wrong)


@needs_world
@pytest.mark.parametrize("name", folds.MADE)
def test_generated_tasks_need_all_of_their_calls_and_hold_out_what_they_say(name):
    from anyorder_jax.environments.bfcl import generate

    session = opened(name)
    for number in [*range(25), *range(FIRST_TEST, FIRST_TEST + 25)]:
        episode = play_text_episode(session, str(number))
        task = generate.task(name, str(number))
        assert episode.outcome["success"] and 2 <= len(task.turns) <= 8
        path = session.path()
        for place in (place for place, text in enumerate(path) if text != END):  # every call is needed
            assert not played(session, str(number), path[:place] + path[place + 1 :]).is_success
        has_held = bool({*task.classes} & {*generate.HELD_CLASSES})
        if name == "made-classes":
            assert has_held is (number >= FIRST_TEST)
        assert not generate.is_near_official(task)
    assert generate.held_requests() < {request.name for request in generate.REQUESTS}
    with pytest.raises(ValueError, match="expected a number as task"):
        session.reset("train/3")


@needs_world
def test_held_out_wordings_requests_and_pairs_are_in_tests_alone(monkeypatch):
    from anyorder_jax.environments.bfcl import generate

    seen = []
    real = generate._is_of_split
    monkeypatch.setattr(generate, "_is_of_split", lambda *found: seen.append(found) or real(*found))
    for held in ("wordings", "templates", "compositions"):
        name = f"made-{held}"
        for number in (*range(40, 60), *range(FIRST_TEST + 40, FIRST_TEST + 60)):
            generate.task.__wrapped__(name, str(number))
            found, asked, is_test = seen[-1]  # the draw that was taken
            requests = {part.name for turn in asked for part in turn}
            words = {part.words for turn in asked for part in turn}
            pairs = [tuple(part.name for part in turn) for turn in asked if len(turn) == 2]
            assert found == held and is_test is (number >= FIRST_TEST)
            if held == "wordings":
                assert bool(words & {generate.held_wording(request) for request in generate.REQUESTS}) is is_test
                continue
            if held == "templates":
                assert bool(requests & generate.held_requests()) is is_test
            else:
                assert any(generate.is_held_pair(*pair) for pair in pairs) is is_test


@needs_world
def test_official_tasks_and_their_like_are_refused():
    from dataclasses import replace

    from anyorder_jax.environments.bfcl import generate
    from anyorder_jax.environments.bfcl.task import official

    made = generate.task("made-templates", "1")
    for category, name in OFFICIAL[::3]:
        task = official(name)
        assert generate.is_near_official(task)
        assert generate.is_near_official(replace(made, truth=task.truth)), category  # the calls alone
        words = task.turns[0].split()
        edited = " ".join(word for n, word in enumerate(words) if n % 9)  # each ninth word left out
        assert generate.is_near_official(replace(made, turns=(*made.turns, edited)))


@needs_world
def test_two_processes_in_opposite_order_play_the_same_bytes():
    for environment, tasks in (
        ("BFCL-made-compositions", ["0", "7", str(FIRST_TEST), "8000003"]),
        ("BFCL-base", ["multi_turn_base_0", "multi_turn_base_49", "multi_turn_base_150", "multi_turn_base_101"]),
    ):
        forwards = java_worlds.lines_of(environment, tasks)
        assert forwards == java_worlds.lines_of(environment, tasks[::-1])
        assert len(set(forwards.values())) == len(tasks)


@needs_world
def test_collected_episodes_have_branches_and_a_server_plays_them(tmp_path):
    collecting.main(
        ["--env=BFCL-made-templates", "--num_episodes=8", "--num_validation_episodes=2", "--num_test_episodes=2",
         "--branches=2", "--num_workers=1", f"--output_dir={tmp_path}"]
    )  # fmt: skip
    episodes = list(sources.read_trajectories(tmp_path, "train"))
    assert len(episodes) == 8 and sources.read_manifest(tmp_path).is_complete
    assert overlap.count(tmp_path, sources.read_manifest(tmp_path)) is not None
    for unit in (unit for episode in episodes for unit in episode.units if unit.kind is Kind.ACTION):
        assert len(unit.branches) == 2 and unit.text not in {branch["action"] for branch in unit.branches}
    with Server("BFCL-base", 2, num_processes=1) as server:
        server.call("reset", dict.fromkeys(range(2), "multi_turn_base_7"))
        (advice,) = server.call("advice", {0: None})[0]
        assert advice.text != END and END in server.call("valid_actions", {0: None})[0]
        assert server.call("step", {0: advice})[0].units[0].kind is Kind.TOOL
        assert server.call("step", {1: Unit(Kind.ACTION, 0, text="rm -rf /")})[1].is_invalid
