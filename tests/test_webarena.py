"""WebArena-Verified: its tasks and splits, an agent's answers, episodes on a small site, the official scorer's word."""

import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import webarena_package
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import ExpertError, HasExpert, take
from anyorder_jax.environments.web import calls
from anyorder_jax.environments.webarena import addresses, browser, export, folds, package, response, scorer, world
from anyorder_jax.environments.webarena.response import Response
from anyorder_jax.types import Kind, Unit
from small_forge import Forge, running
from web_pages import needs_browser
from webarena_package import needs_scorer

ROOT = Path(__file__).parents[1]
MUTATED = 'send_msg_to_user(\'{"task_type": "MUTATE", "status": "SUCCESS"}\')'
SHOWN = 'send_msg_to_user(\'{"task_type": "NAVIGATE", "status": "SUCCESS"}\')'


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Our own tasks in the place of the package's; two sites have an address."""
    monkeypatch.setenv(package.VARIABLE, str(webarena_package.write(tmp_path / "package")))
    monkeypatch.setenv(addresses.VARIABLE, "gitlab=http://127.0.0.1:1 shopping=http://shop.test:7770/")
    monkeypatch.delenv(world.OUTPUT, raising=False)
    return tmp_path / "package"


# -- tasks -----------------------------------------------------------------------------------------


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


# -- answers ---------------------------------------------------------------------------------------


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


# -- episodes --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forge():
    with running(Forge()) as one:
        yield one


@pytest.fixture(scope="module")
def opened(forge, tmp_path_factory):
    """A session on the small site with our own tasks."""
    patch = pytest.MonkeyPatch()
    folder = webarena_package.write(tmp_path_factory.mktemp("own"))
    patch.setenv(package.VARIABLE, str(folder))
    patch.setenv(addresses.VARIABLE, f"gitlab={forge.url} map=http://127.0.0.1:1")
    session = registry.make_session("WebArena-all")
    patch.undo()
    session._tab._quiet_seconds = 0.1
    yield session
    session.close()


def bid_of(text, role, name):
    return re.search(rf"\[(\d+)\] {role} '{name}'", text)[1]


def do(session, text, step=0):
    return take(session, Unit(Kind.ACTION, step, text=text))


@needs_browser
def test_an_episode_shows_marks_and_acts_with_them(opened, forge):
    system, goal, seen = opened.reset("4")
    assert "send_msg_to_user" in system.text and goal.text == "Name the starred project"
    first = seen.text
    assert first.split("\n")[:2] == ["page: __GITLAB__/", "RootWebArea 'Projects', focused, url='__GITLAB__/'"]
    assert forge.url not in first and opened.version.startswith("webarena-verified 9.9.9")
    todos = do(opened, f"click('{bid_of(first, 'link', 'To-Do List')}')").units[0].text  # it names a tab of its own
    assert todos.startswith("page: __GITLAB__/dashboard/todos\n")
    asked = len(forge.seen)
    assert do(opened, "go_back()", 1).units[0].text.startswith("page: __GITLAB__/\n")
    assert forge.seen[asked:] == [("GET", "/", "")]
    page = do(opened, "goto('__GITLAB__/repo')", 2).units[0].text
    assert '{"star_count":56}' in do(opened, f"click('{bid_of(page, 'button', 'Star')}')", 3).units[0].text
    for wrong, reason in (
        ("goto('http://example.com/')", "only pages of 127.0.0.1 can be opened"),
        ("send_msg_to_user('{\"task_type\": 1}')", "task_type is one of"),
    ):
        step = do(opened, wrong, 4)
        assert step.is_invalid and reason in step.units[0].text and not step.is_done
    assert forge.seen[-1][:2] == ("POST", "/umano/AndroidSlidingUpPanel/toggle_star.json")
    assert opened.valid_actions()[-1].startswith("send_msg_to_user(")
    assert opened.reset("4")[-1].text == first
    assert "no such page in the history" in do(opened, "go_back()").units[0].text  # of another episode


@needs_browser
def test_what_is_asked_is_recorded_as_it_was_sent(opened, forge):
    opened.reset("4")
    page = do(opened, "goto('__GITLAB__/status')").units[0].text
    do(opened, f"fill('{bid_of(page, 'textbox', 'message')}', 'Resting')", 1)
    do(opened, f"click('{bid_of(page, 'button', 'Set status')}')", 2)
    do(opened, f"click('{bid_of(page, 'button', 'Note')}')", 3)
    entries = opened._tab.recorder.entries()
    paths = [(e["request"]["method"], e["request"]["url"].removeprefix(forge.url)) for e in entries]
    paths = [path for path in paths if path[1] != "/favicon.ico"]
    assert paths == [
        ("GET", "/"),
        ("GET", "/status"),
        ("PUT", "/api/v4/user/status"),
        ("POST", "/old"),
        ("GET", "/repo"),
    ]
    by_path = {e["request"]["url"].removeprefix(forge.url): e for e in entries}
    sent = {h["name"].lower(): h["value"] for h in by_path["/status"]["request"]["headers"]}
    assert (sent["sec-fetch-dest"], sent["sec-fetch-mode"]) == ("document", "navigate")
    assert by_path["/status"]["request"]["cookies"] == [{"name": "session", "value": "1"}]
    put, old = by_path["/api/v4/user/status"], by_path["/old"]
    assert json.loads(put["request"]["postData"]["text"])["message"] == "Resting"
    assert put["request"]["postData"]["mimeType"] == "application/json"
    assert json.loads(put["response"]["content"]["text"]) == {"star_count": 56}
    assert old["request"]["postData"]["text"] == "note=a+b" and old["response"]["status"] == 302
    assert old["response"]["redirectURL"] == f"{forge.url}/repo"


@needs_browser
def test_sites_that_do_not_answer_are_told(opened, forge, monkeypatch):
    with pytest.raises(RuntimeError, match=r"task 11: http://127\.0\.0\.1:1 cannot be opened \(net::ERR_"):
        opened.reset("11")
    with pytest.raises(ValueError, match=r"task 9 is on gitlab and reddit, and reddit has no address"):
        opened.reset("9")
    with pytest.raises(ValueError, match="expected a task's number, such as 1, got 'x'"):
        opened.reset("x")
    monkeypatch.setattr(forge, "password", "another")
    with pytest.raises(RuntimeError, match="task 4: gitlab does not take the account byteblaze"):
        opened.reset("4")


@needs_browser
def test_a_site_that_stops_answering_is_an_outcome(opened, forge, monkeypatch):
    monkeypatch.setattr(browser, "SETTLE_SECONDS", 1.0)
    opened.reset("4")
    begun = time.monotonic()
    page = do(opened, "goto('__GITLAB__/slow')").units[0].text  # a script of it waits for an answer that never comes
    assert "link 'Starred'" in do(opened, "noop()", 1).units[0].text and time.monotonic() - begun < 15
    with running(Forge()) as other:
        opened._tab.run(f"document.querySelector('a').href = {other.url!r}")
    step = do(opened, f"click('{bid_of(page, 'link', 'Starred')}')", 2)
    assert not step.is_done and not step.is_invalid and "can’t be reached" in step.units[0].text
    do(opened, "goto('__GITLAB__/never')", 3)
    assert time.monotonic() - begun < 40


@needs_browser
def test_a_scorer_that_fails_ends_the_episode_with_its_words(opened, tmp_path, monkeypatch):
    monkeypatch.setenv(package.VARIABLE, str(webarena_package.write(tmp_path / "package")))
    monkeypatch.setenv(world.OUTPUT, str(tmp_path))
    opened.reset("4")  # left without an answer: 1/4 stays empty
    for again in ("2", "3"):
        opened.reset("4")
        with pytest.raises(RuntimeError, match="No module named webarena_verified"):
            do(opened, "send_msg_to_user('Repo')")
        said = json.loads((tmp_path / again / "4" / export.RESPONSE).read_text(encoding="utf-8"))
        assert said == {"task_type": "RETRIEVE", "status": "SUCCESS", "retrieved_data": ["Repo"], "error_details": None}
        network = json.loads((tmp_path / again / "4" / export.NETWORK).read_text(encoding="utf-8"))
        assert network["log"]["version"] == "1.2" and network["log"]["entries"]
        assert "the episode is over" in do(opened, "noop()").units[0].text
    assert not list((tmp_path / "1" / "4").iterdir())


@needs_browser
def test_an_oracle_advises_on_our_own_sites_until_its_path_is_left(own, monkeypatch):
    monkeypatch.delenv(addresses.VARIABLE)
    assert registry.tasks("WebArena-all+stand_ins")["test"] == ["1"]
    session = registry.make_session("WebArena-all+stand_ins")
    assert isinstance(session, HasExpert) and "stand-in sites" in session.version
    try:
        text, step = session.reset("1")[-1].text, 0
        while (action := session.advice()[-1]).text != SHOWN:
            assert action == session.advice()[-1] and action.step == step < 5
            text, step = take(session, action).units[-1].text, step + 1
        assert text.startswith("page: __GITLAB__/dashboard/todos\n") and step
        assert session.reset("1")[-1].text.startswith("page: __GITLAB__/\n")
        do(session, "noop()")
        with pytest.raises(ExpertError, match="its path was left"):
            session.advice()
    finally:
        session.close()


# -- the official scorer ---------------------------------------------------------------------------


@needs_scorer
def test_right_and_wrong_answers_are_told_apart(tmp_path):
    tasks = folds.read(package.tasks_file(package.directory()))
    assert len(tasks) == 812 and set(tasks) > folds.LITE
    right = Response("RETRIEVE", "SUCCESS", tasks["0"].expected["retrieved_data"])
    for number, said in (("0", right), ("1", right), ("44", Response("NAVIGATE", "SUCCESS"))):
        export.write(tmp_path, number, said)
    verdicts = scorer.score(tmp_path, ["0", "1", "44", "45"], {"gitlab": "http://127.0.0.1:1"})
    assert [verdicts[number].score for number in ("0", "1", "44", "45")] == [1.0, 0.0, 0.0, 0.0]
    assert verdicts["0"] == scorer.Verdict(1.0, "success")
    assert any("AgentResponseEvaluator" in reason for reason in verdicts["1"].reasons)
    assert any("NetworkEventEvaluator" in reason for reason in verdicts["44"].reasons)
    assert verdicts["45"].status == "error" and verdicts["45"].reasons


@needs_browser
@needs_scorer
def test_official_tasks_are_solved_by_what_they_ask_and_not_without(forge, monkeypatch):
    monkeypatch.setenv(addresses.VARIABLE, f"gitlab={forge.url}")
    session = registry.make_session("WebArena-all")
    session._tab._quiet_seconds = 0.1
    assert session.version.startswith("webarena-verified 1.")
    try:
        for task, name, role, button, answer in (
            ("44", "To-Do List", "", "", SHOWN),
            ("527", "Most starred", "button", "Star", MUTATED),
        ):
            for is_whole in (True, False)[: 1 + bool(button)]:
                text = session.reset(task)[-1].text
                if is_whole or button:
                    text = do(session, f"click('{bid_of(text, 'link', name)}')").units[0].text
                if is_whole and button:
                    do(session, f"click('{bid_of(text, role, button)}')", 1)
                end = do(session, answer, 2)
                assert (end.reward, end.is_success, end.is_done) == (float(is_whole), is_whole, True), (task, is_whole)
    finally:
        session.close()


def test_the_setup_command_says_what_is_wrong(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "anyorder_jax.environments.webarena.setup", f"--output_dir={tmp_path}/file/x"]
    done = subprocess.run(command, env=variables, capture_output=True, encoding="utf-8")
    assert done.returncode and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
