"""Noise of tools: what fails can be done again, what is cut is told so, what is missing comes a turn later; the expert
solves all of it, and nothing depends on what was played before."""

import importlib.util
import json

import pytest

import java_worlds
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import take
from anyorder_jax.environments.noise import CUT, ERROR, Noise
from anyorder_jax.types import Kind, Unit

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in ("bfcl_eval", "mpmath")),
    reason="needs `pip install --no-deps bfcl-eval mpmath`",
)
END = '{"name":"end_turn","arguments":{}}'
TASKS = [f"multi_turn_base_{n}" for n in (0, 3, 38, 46, 65, 101, 150, 173)]


def played(world, task, drop=False):
    """(whether the expert's path solves a task, the units, the actions); drop: without its last call."""
    session = registry.make_session(world)
    seen = list(session.reset(task))
    path = list(session.path())
    if drop:
        last = max(place for place, text in enumerate(path) if text != END)
        path = path[:last] + path[last + 1 :]
    for step, text in enumerate(path):
        done = take(session, Unit(Kind.ACTION, step, text=text))
        assert not done.is_invalid
        seen += done.units
    assert done.is_done
    return done.is_success, seen, path


def said(units):
    return [unit.text for unit in units if unit.kind in (Kind.GOAL, Kind.USER)]


@pytest.mark.parametrize(
    "options",
    ["+errors=0.4", "+cut=40", "+words=3", "+missing_function=1", "+missing_parameter=1",
     "+words=2+missing_function=1+missing_parameter=1+errors=0.2+cut=100"],
)  # fmt: skip
def test_the_expert_solves_what_is_disturbed_and_not_without_a_call(options):
    num_changed = 0
    for task in TASKS:
        _, clean, _ = played("BFCL-base", task)
        is_success, seen, _ = played("BFCL-base" + options, task)
        assert is_success and not played("BFCL-base" + options, task, drop=True)[0], task
        num_changed += seen != clean
    assert num_changed >= len(TASKS) - 3  # a short result is not cut, a turn may have no value of its own


def test_calls_fail_before_anything_is_done_and_more_of_them_at_a_higher_share():
    task = max(TASKS, key=lambda task: len(played("BFCL-base", task)[2]))
    _, clean, path = played("BFCL-base", task)
    few, many = (played(f"BFCL-base+errors={share}", task) for share in (0.2, 0.6))
    for _, seen, actions in (few, many):
        tools = [unit.text for unit in seen if unit.kind is Kind.TOOL]
        answered = [text for text, told in zip([a for a in actions if a != END], tools, strict=True) if told != ERROR]
        assert answered == [text for text in path if text != END]
        assert [text for text in tools if text != ERROR] == [u.text for u in clean if u.kind is Kind.TOOL]
    assert 0 < len(few[2]) - len(path) < len(many[2]) - len(path)
    failing = [{n for n in range(200) if Noise("task", share).fails(n)} for share in (0.1, 0.3, 0.9)]
    assert failing[0] < failing[1] < failing[2] and 5 < len(failing[0]) < 40
    assert failing[2] != {n for n in range(200) if Noise("other", 0.9).fails(n)}


def test_what_is_cut_is_told_in_part_and_judged_whole():
    _, clean, _ = played("BFCL-base", TASKS[0])
    is_success, seen, _ = played("BFCL-base+cut=30", TASKS[0])
    assert is_success
    for whole, part in zip(clean, seen, strict=True):
        if whole.kind is Kind.TOOL and len(whole.text) > 30:
            assert len(part.text) == 30 and part.text == whole.text[: 30 - len(CUT)] + CUT
        else:
            assert part == whole
    assert any(unit.text.endswith(CUT) for unit in seen)


def test_other_words_keep_names_and_values():
    levels = []
    for task in TASKS:
        _, clean, path = played("BFCL-base", task)
        values = [v for text in path for v in json.loads(text)["arguments"].values() if isinstance(v, str)]
        turns = {level: said(played(f"BFCL-base+words={level}", task)[1]) for level in (1, 2, 3)}
        for found in turns.values():
            assert len(found) == len(said(clean)) and found[:-1] != said(clean)[:-1]
            for other, whole in zip(found, said(clean), strict=True):
                assert all(value in other for value in values if value in whole)
        assert all(whole in other for other, whole in zip(turns[1], said(clean), strict=True))
        levels.append(tuple(turns.values()))
    assert all(any(found[k] != found[k + 1] for found in levels) for k in (0, 1))


def test_what_is_missing_comes_in_the_turn_after_it():
    for task in TASKS:
        _, clean, path = played("BFCL-base", task)
        _, seen, other = played("BFCL-base+missing_function=1", task)
        assert sorted(other) == sorted([*path, END])  # the same calls, and one turn more
        new = [text for text in said(seen) if text not in said(clean)]
        lines = (set(clean[0].text.splitlines()), set(seen[0].text.splitlines()))
        (signature,) = lines[0] - lines[1]
        assert [text.splitlines()[0] for text in new] == [signature]
        _, seen, other = played("BFCL-base+missing_parameter=1", task)
        if other != path:
            assert sorted(other) == sorted([*path, END])
            (later,) = [text for text in said(seen) if text.startswith("It is ") and text not in said(clean)]
            (asked,) = [text for text in said(seen) if "something that I still have to tell you" in text]
            assert later.removeprefix("It is ").removesuffix(".") not in asked.split()
    half = [played("BFCL-base+missing_function=0.5", task)[2] for task in TASKS]
    assert 0 < sum(len(a) > len(played("BFCL-base", t)[2]) for a, t in zip(half, TASKS, strict=True)) < len(TASKS)


def test_disturbed_episodes_do_not_depend_on_what_was_played_before():
    world = "BFCL-made-templates-schemas+errors=0.3+cut=60+words=3+missing_function=1+missing_parameter=0.5"
    tasks = ["0", "7", "9000000", "8000003"]
    forwards = java_worlds.lines_of(world, tasks)
    assert forwards == java_worlds.lines_of(world, tasks[::-1]) and len(set(forwards.values())) == 4
    assert registry.tasks("BFCL-base+cut=30") == registry.tasks("BFCL-base")
    with pytest.raises(ValueError, match=r"expected words=1\.\.3, got 'many'"):
        registry.make_session("BFCL-base+words=many")
