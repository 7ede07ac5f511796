"""Tasks of WebArena-Verified: their lists and splits, where sites are, what an agent's answer becomes; no browser."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

import webarena_package
from anyorder_jax.environments import registry
from anyorder_jax.environments.web import calls
from anyorder_jax.environments.webarena import addresses, folds, package, response
from anyorder_jax.environments.webarena.response import Response

ROOT = Path(__file__).parents[1]
SHOWN = 'send_msg_to_user(\'{"task_type": "NAVIGATE", "status": "SUCCESS"}\')'


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Our own tasks in the place of the package's; two sites have an address."""
    monkeypatch.setenv(package.VARIABLE, str(webarena_package.write(tmp_path / "package")))
    monkeypatch.setenv(addresses.VARIABLE, "gitlab=http://127.0.0.1:1 shopping=http://shop.test:7770/")
    return tmp_path / "package"


def test_lists_hold_the_tasks_whose_sites_have_an_address(own, monkeypatch):
    def tests_of(name):
        return registry.tasks(f"WebArena-{name}")["test"]

    assert tests_of("all") == ["1", "4", "7"]
    assert tests_of("lite") == ["4", "7"] and registry.tasks("WebArena-lite")["train"] == ["1"]
    assert tests_of("new_gitlab") == ["1", "4"] and tests_of("new_map") == []
    monkeypatch.setenv(addresses.VARIABLE, "gitlab=http://a reddit=http://b shopping=http://c map=http://d")
    assert tests_of("new_gitlab") == ["1", "4", "9"]
    for name in folds.ids():
        lists = registry.tasks(name)
        assert sorted(itertools.chain(*lists.values()), key=int) == ["1", "4", "7", "9", "11"]
    assert folds.read(package.tasks_file(own))["9"].kind == "MUTATE"


def test_no_template_is_trained_and_tested():
    tasks = {str(n): folds.Task(str(n), ("gitlab",), "", (), n // 4, "MUTATE", 1, {}, {}) for n in range(400)}
    lists = folds.split("WebArena-templates", tasks, ["gitlab"])
    of = {split: {tasks[number].template for number in numbers} for split, numbers in lists.items()}
    assert 40 < len(lists["test"]) < 140 and 8 < len(lists["validation"]) < 40
    assert not of["test"] & (of["train"] | of["validation"])


def test_webarena_lite_is_165_tasks():
    numbers = sorted(map(int, folds.LITE))
    assert len(numbers) == 165 and (numbers[0], numbers[-1]) == (4, 811)


def test_bad_input_is_told(own, tmp_path, monkeypatch):
    for named, reason in (
        ("gitlap=http://a", "site 'gitlap' is none; did you mean gitlab"),
        ("gitlab=http://a gitlab=http://b", "stands twice"),
        ("map=http://a gitlab=127.0.0.1:8023", r"expected gitlab=http://HOST\[:PORT\]\[/PATH\] as entry 2"),
        ("gitlab=http://me:secret@a:99999999", "as entry 1.$"),
    ):
        monkeypatch.setenv(addresses.VARIABLE, named)
        with pytest.raises(ValueError, match=reason) as error:
            addresses.named()
        assert "secret" not in str(error.value)
    package.tasks_file(own).write_text('[{"task_id": 1}]', encoding="utf-8")
    folds.read.cache_clear()
    with pytest.raises(
        ValueError, match=r"expected a list of tasks with .*KeyError.*Is it webarena-verified.json, whole"
    ):
        registry.tasks("WebArena-lite")
    monkeypatch.setenv(package.VARIABLE, str(tmp_path))
    with pytest.raises(RuntimeError, match=r"ANYORDER_JAX_WEBARENA should name .*webarena\.setup"):
        registry.tasks("WebArena-lite")
    monkeypatch.delenv(package.VARIABLE)
    monkeypatch.setenv(addresses.VARIABLE, "")
    with pytest.raises(RuntimeError, match="it is not set"):
        registry.make_session("WebArena-lite")
    with pytest.raises(ValueError, match=r"expected budget=1000\.\.200000, got '1'"):
        registry.make_session("WebArena-lite+budget=1")


def test_addresses_and_marks_are_each_others_inverse(monkeypatch):
    monkeypatch.setenv(
        addresses.VARIABLE, "shopping=http://ann:p%40ss@h:7770/ shopping_admin=http://h:7770/admin map=http://h:77"
    )
    found = addresses.named()
    assert found["shopping"] == "http://h:7770" and addresses.accounts() == {"shopping": ("ann", "p@ss")}
    text = "link '__SHOPPING_ADMIN__/sales', '__SHOPPING__/a.html', '__MAP__'"
    assert addresses.placed(text, found) == "link 'http://h:7770/admin/sales', 'http://h:7770/a.html', 'http://h:77'"
    assert addresses.marked(addresses.placed(text, found), found) == text
    assert addresses.hosts(found) == ("h",)


def test_what_is_said_becomes_the_four_fields():
    for text, expected in (
        ("send_msg_to_user('a')", Response("RETRIEVE", "SUCCESS", ["a"])),
        ("send_msg_to_user('[1, \"b\"]')", Response("RETRIEVE", "SUCCESS", [1, "b"])),
        ("send_msg_to_user('[not a list')", Response("RETRIEVE", "SUCCESS", ["[not a list"])),
        ('send_msg_to_user(\'{"city": "x"}\')', Response("RETRIEVE", "SUCCESS", [{"city": "x"}])),
        (SHOWN, Response("NAVIGATE", "SUCCESS")),
        ("report_infeasible('no such order')", Response("RETRIEVE", "NOT_FOUND_ERROR", None, "no such order")),
        (
            'report_infeasible(\'{"task_type": "mutate", "status": "unknown_error", "error_details": "no"}\')',
            Response("MUTATE", "UNKNOWN_ERROR", None, "no"),
        ),
    ):
        assert response.of(calls.parse(text)) == expected
        assert response.of(calls.parse(expected.said())) == expected
    for text, reason in (
        ('{"task_type": "LOOK", "status": "SUCCESS"}', "task_type is one of RETRIEVE, MUTATE, NAVIGATE, got 'LOOK'"),
        ('{"task_type": "MUTATE"}', "status is one of .* got ''"),
        ('{"task_type": "MUTATE", "status": "SUCCESS", "data": 1}', "has the fields .* got 'data'"),
        ('{"task_type": "RETRIEVE", "status": "SUCCESS", "retrieved_data": "a"}', "a list or null"),
        ('{"task_type": "RETRIEVE", "status": "SUCCESS", "error_details": 1}', "a text or null"),
    ):
        with pytest.raises(ValueError, match=reason):
            response.of(calls.parse(f"send_msg_to_user({text!r})"))


def test_the_setup_command_says_what_is_wrong(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "anyorder_jax.environments.webarena.setup", f"--output_dir={tmp_path}/file/x"]
    done = subprocess.run(command, env=variables, capture_output=True, encoding="utf-8")
    assert done.returncode and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
