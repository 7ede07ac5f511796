"""WebArena-Verified: episodes on a small site and on our own, and the official scorer's word on them."""

import json
import re
import time

import pytest

import webarena_package
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import ExpertError, HasExpert, take
from anyorder_jax.environments.webarena import addresses, browser, export, folds, package, scorer, world
from anyorder_jax.environments.webarena.response import Response
from anyorder_jax.types import Kind, Unit
from small_forge import Forge, running
from web_pages import needs_browser
from webarena_package import needs_scorer

MUTATED = 'send_msg_to_user(\'{"task_type": "MUTATE", "status": "SUCCESS"}\')'
SHOWN = 'send_msg_to_user(\'{"task_type": "NAVIGATE", "status": "SUCCESS"}\')'


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
    assert "link 'Starred'" in do(opened, "noop()", 1).units[0].text and time.monotonic() - begun < 60
    with running(Forge()) as other:
        opened._tab.run(f"document.querySelector('a').href = {other.url!r}")
    step = do(opened, f"click('{bid_of(page, 'link', 'Starred')}')", 2)
    assert not step.is_done and not step.is_invalid and "can’t be reached" in step.units[0].text
    do(opened, "goto('__GITLAB__/never')", 3)
    assert time.monotonic() - begun < 120


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
def test_an_oracle_advises_on_our_own_sites_until_its_path_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv(package.VARIABLE, str(webarena_package.write(tmp_path)))
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
