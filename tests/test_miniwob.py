"""MiniWoB++: an episode is a function of its task; experts see what agents see; what disturbs a page; processes."""

import importlib.metadata

import pytest

from anyorder_jax import evaluate
from anyorder_jax.acting import evaluation as acting
from anyorder_jax.data import sources
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import ExpertError, take
from anyorder_jax.environments.miniwob import axes, folds
from anyorder_jax.environments.miniwob.experts import EXPERTS, LEFT_OUT, decide
from anyorder_jax.environments.play import play_text_episode
from anyorder_jax.environments.server import Server
from anyorder_jax.environments.web.tree import Node, parse
from anyorder_jax.types import Kind, Unit
from web_pages import lines_of, needs_miniwob

LOGIN = """RootWebArea 'Login User Task', focused
\t[18] textbox ''
\t[21] textbox ''
\t[22] button 'Login'"""
GOAL = 'Enter the username "karrie" and the password "AU" into the text fields and press login.'


def do(session, text, step=0):
    return take(session, Unit(Kind.ACTION, step, text=text))


@pytest.fixture
def session_of():
    """Opens sessions, and closes them."""
    opened = []

    def open_one(environment):
        opened.append(registry.make_session(environment))
        return opened[-1]

    yield open_one
    for session in opened:
        session.close()


def test_every_kind_has_an_expert_or_a_reason():
    assert set(folds.KINDS) == {*EXPERTS, *LEFT_OUT} and not {*EXPERTS} & {*LEFT_OUT}
    assert len(EXPERTS) >= 60 and len(folds.HELD_OUT) == 12 and {*folds.HELD_OUT} <= {*EXPERTS}


def test_ids_and_tasks():
    ids = registry._find("MiniWoB-all").ids()
    assert {"MiniWoB-trained", "MiniWoB-held_out", "MiniWoB-click-button"} <= {*ids}
    lists = registry.tasks("MiniWoB-trained+popup")
    assert lists["train"][: len(EXPERTS) - 12] == [
        f"{k}/0" for k in folds.KINDS if k in EXPERTS and k not in folds.HELD_OUT
    ]
    every = [task for tasks in lists.values() for task in tasks]
    assert len({*every}) == len(every) == 1200 * (len(EXPERTS) - 12)
    assert {task.split("/")[0] for task in registry.tasks("MiniWoB-held_out")["test"]} == {*folds.HELD_OUT}
    assert folds.split_task("MiniWoB-all", "click-link/20000") == ("click-link", 20000)
    for wrong in ("click-link", "click-link/-1", "click-link/٣", "fly/1", "", "click-link/99999999999"):
        with pytest.raises(ValueError, match=r"expected KIND/SEED of .* as task, such as ascending-numbers/0"):
            folds.split_task("MiniWoB-all", wrong)
    with pytest.raises(
        ValueError, match=r"option 'fog' is unknown\. Options of MiniWoB-all: difference, distractors=3"
    ):
        registry.make_session("MiniWoB-all+fog")
    _, both = folds.split_id("MiniWoB-all+dropped=10+popup")
    assert both == folds.Options(dropped=0.1, has_popup=True)


def test_a_run_is_played_in_another_world_on_its_own_tasks_or_on_that_world_s():
    recorded = ["click-button/20000", "enter-text-2/20000", "click-link/20001"]

    def tasks_in(world):
        return acting.tasks_in(world, recorded, "test", 2)

    assert tasks_in("MiniWoB-trained+popup") == ["click-button/20000", "click-link/20001"]
    assert tasks_in("MiniWoB-enter-text-2") == ["enter-text-2/20000"]
    assert tasks_in("MiniWoB-focus-text") == ["focus-text/20000", "focus-text/20001"]


def test_what_is_missing_is_named(monkeypatch, capsys):
    def none(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", none)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'anyorder-jax\[web\]'"):
        registry.make_session("MiniWoB-all")
    assert not evaluate._can_open("MiniWoB-all")
    assert "acting is left out: environments:" in capsys.readouterr().err
    assert registry.make_codec("MiniWoB-all", "joint").levels == ("unit", "node", "word", "token")


def test_an_expert_sees_the_page_and_goes_on_from_any_state():
    page, done = parse(LOGIN), []
    assert decide("login-user", GOAL, page, done) == "fill('18', 'karrie')"
    filled = LOGIN.replace("[18] textbox ''", "[18] textbox '' value='karrie'")
    assert decide("login-user", GOAL, parse(filled), done) == "fill('21', 'AU')"
    filled = filled.replace("[21] textbox ''", "[21] textbox '' value='••'")
    assert decide("login-user", GOAL, parse(filled), done) == "click('22')"
    wrong = filled.replace("'karrie'", "'bob'")
    assert decide("login-user", GOAL, parse(wrong), done) == "fill('18', 'karrie')"


def test_an_expert_closes_the_popup_and_waits_for_what_is_not_there():
    covered = parse(f"{LOGIN}\n\t[30] dialog 'Special offer'\n\t\t[31] button 'Close offer'")
    assert decide("login-user", GOAL, covered, []) == "click('31')"
    lost = [node for node in parse(LOGIN) if node.role != "button"][:1]
    assert decide("login-user", GOAL, lost, []) == "noop()"
    assert decide("login-user", GOAL, lost, ["noop()"] * 2) == "noop()"
    with pytest.raises(ExpertError, match="does not find its way"):
        decide("login-user", GOAL, lost, ["noop()"] * 3)


def test_disturbances_are_drawn_from_the_task_alone():
    nodes = [Node(0, "", "RootWebArea", "T"), *(Node(1, str(n), "button", f"B{n}") for n in range(200))]

    def disturbed(axis, seed):
        return axes.Disturbance(folds.split_id(f"MiniWoB-click-button{axis}")[1], "click-button", seed)

    def seen(axis, seed, step=0):
        return disturbed(axis, seed).seen(nodes, step)

    assert seen("", 1) == nodes
    for percent in (5, 10, 20):
        some = seen(f"+dropped={percent}", 1)
        assert some == seen(f"+dropped={percent}", 1) and some[0] == nodes[0]
        assert some != seen(f"+dropped={percent}", 2) and some != seen(f"+dropped={percent}", 1, step=1)
        assert abs(1 - len(some) / len(nodes) - percent / 100) < 0.08
    numbering = disturbed("+renumbered", 1).numbering()
    numbers = [numbering(place) for place in range(12_000)]
    assert len({*numbers}) == len(numbers) and numbers[:3] != ["0", "1", "2"]


@needs_miniwob
def test_the_kinds_are_the_pages_of_the_package():
    from anyorder_jax.environments.miniwob.world import pages

    assert {*folds.KINDS} == {page.stem for page in pages().glob("*.html")}


@needs_miniwob
def test_experts_solve_an_unseen_seed_with_actions_that_can_be_done(session_of):
    session = session_of("MiniWoB-experts")
    for kind in list(EXPERTS)[::2]:  # benchmarks/miniwob.py plays all, on 20 seeds
        trajectory = play_text_episode(session, f"{kind}/20003")  # raises where it fails
        assert trajectory.outcome["return"] == 1 and trajectory.units[0].kind is Kind.GOAL
        told = [unit.text for unit in trajectory.units if unit.kind is Kind.OBSERVATION]
        assert all("file:" not in text and text.startswith("RootWebArea") for text in told[:-1])


@needs_miniwob
def test_two_processes_in_opposite_order_play_the_same_bytes():
    kinds = ("click-link", "use-slider", "stock-market", "drag-items", "use-autocomplete")
    tasks = [f"{kind}/{seed}" for kind in kinds for seed in (0, 10_001)]
    forwards = lines_of("MiniWoB-all", tasks)
    assert forwards == lines_of("MiniWoB-all", tasks[::-1]) and len({*forwards.values()}) == len(tasks)


@needs_miniwob
def test_experts_bear_every_disturbance_and_it_is_there(session_of):
    plain = session_of("MiniWoB-experts")
    for axis in ("+distractors=6", "+popup", "+failing_click", "+difference"):
        session, are_other = session_of(f"MiniWoB-experts{axis}"), 0
        for task in ("click-checkboxes-large/1", "login-user/1"):
            trajectory = play_text_episode(session, task)
            are_other += trajectory.units != play_text_episode(plain, task).units
        assert are_other, axis
        session.close()


@needs_miniwob
def test_an_invalid_action_is_told_the_agent_and_changes_nothing(session_of):
    session = session_of("MiniWoB-login-user")
    _, first = session.reset("login-user/0")
    valid = session.valid_actions()
    for step, text in enumerate(("", "click(18)(2)", "click('9999')", "goto('http://example.com')", "open('18')")):
        done = do(session, text, step)
        assert done.is_invalid and not done.is_done and done.units[0].step == step + 1
        assert done.units[0].text.startswith("invalid action: ")
    assert do(session, "noop()", 5).units[0].text == first.text and session.valid_actions() == valid
    field = next(node.bid for node in parse(first.text) if node.role == "textbox")
    assert "value='x'" in do(session, f"fill('{field}', 'x')", 6).units[0].text
    assert session.advice()[0].text == f"fill('{field}', 'karrie')" and session.advice()[0].step == 7


@needs_miniwob
def test_the_reward_does_not_shrink_and_wrong_ends_are_ends(session_of):
    session = session_of("MiniWoB-all")
    session.reset("click-test-2/0")
    for step in range(3):
        assert not do(session, "noop(60000)", step).is_done  # the page's own limit is 10 seconds
    assert do(session, session.advice()[0].text, 3)[1:] == (1.0, True, True, False)
    _, page = session.reset("click-test-2/0")
    two = next(node.bid for node in parse(page.text) if node.name == "TWO")
    assert do(session, f"click('{two}')")[1:] == (0.0, True, False, False)
    assert do(session, f"click('{two}')", 1).is_invalid  # over is over
    session.reset("click-test-2/0")
    assert do(session, "report_infeasible('no')")[1:] == (0.0, True, False, False)
    session.reset("click-test-2/0")
    session._tab._browser.send("Page.crash")
    crashed = do(session, "noop()")
    assert crashed.is_done and not crashed.is_success and "the page crashed" in crashed.units[0].text
    assert play_text_episode(session, "click-test-2/0").outcome["success"]  # the next one has a new browser
    with pytest.raises(ExpertError, match="no expert for click-color"):
        play_text_episode(session, "click-color/0")


@needs_miniwob
def test_a_server_plays_it_and_is_collected_from(tmp_path):
    from anyorder_jax import collect as collecting

    with Server("MiniWoB-trained", 4, num_processes=2) as server:
        tasks = ["click-button/0", "enter-text/1", "focus-text/2", "choose-list/3"]
        server.call("reset", dict(enumerate(tasks)))
        steps = server.call("step", dict.fromkeys(range(4), Unit(Kind.ACTION, 0, text="eat the moon")))
        assert all(step.is_invalid for step in steps.values())
        valid = server.call("valid_actions", dict.fromkeys(range(4)))
        assert all(set(valid[n]) > {"noop()"} for n in range(4))
    collecting.main([
        "--env=MiniWoB-focus-text", "--num_episodes=4", "--num_validation_episodes=1", "--num_test_episodes=1",
        "--noise=0.3", "--branches=1", f"--output_dir={tmp_path}",
    ])  # fmt: skip
    found = list(sources.read_trajectories(tmp_path, "train"))
    assert [t.source["task"] for t in found] == [f"focus-text/{n}" for n in range(4)]
    assert any(unit.branches for t in found for unit in t.units)
