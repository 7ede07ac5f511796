"""BrowserGym: an agent of ours reads its observations and speaks its words."""

import os
import re

import pytest

from anyorder_jax.acting.browsergym import Agent
from anyorder_jax.acting.episode import Decision
from anyorder_jax.environments.web import calls
from anyorder_jax.types import Kind, Unit

AT = {"gitlab": "http://127.0.0.1:8023"}


def node(number, role, name, bid=None, below=(), **properties):
    found = {
        "nodeId": str(number), "ignored": False, "role": {"type": "role", "value": role},
        "name": {"type": "computedString", "value": name}, "childIds": list(map(str, below)), "backendDOMNodeId": 7,
        "properties": [{"name": k, "value": {"type": "boolean", "value": v}} for k, v in properties.items()],
    }  # fmt: skip
    return found if bid is None else {**found, "browsergym_id": bid}


def observation(error="", **more):
    """As `BrowserEnv._get_obs` documents it: a button, a field in a frame, a text that can be clicked."""
    nodes = [
        node(1, "RootWebArea", "Shop", below=(2, 3, 6), focused=True),
        node(2, "button", "Buy", "12"),
        node(3, "Iframe", "", "a", below=(4,)),
        node(4, "textbox", "Name", "a13", below=(5,)),
        node(5, "InlineTextBox", "Name"),
        node(6, "generic", "", "14"),
    ]
    return {
        "goal_object": ({"type": "text", "text": "Buy it"}, {"type": "image_url", "image_url": "data:"}),
        "url": f"{AT['gitlab']}/shop", "axtree_object": {"nodes": nodes}, "last_action_error": error,
        "extra_element_properties": {"14": {"clickable": True}, "12": {"clickable": True}, "a": None}, **more,
    }  # fmt: skip


class Scripted:
    """Writes texts one after the other, and keeps what it saw."""

    def __init__(self, *texts):
        self.texts, self.seen, self.reasons = list(texts), [], []

    def decide(self, seen, reasons_of):
        self.seen.append(seen[0])
        text = self.texts.pop(0)
        self.reasons += reasons_of([text])
        step = seen[0].units[-1].step
        return [Decision((Unit(Kind.THOUGHT, step, text="so"), Unit(Kind.ACTION, step, text=text)), 3, 9)]


PAGE = "\n".join((
    "RootWebArea 'Shop', focused", "\t[12] button 'Buy'", "\t[15] Iframe ''", "\t\t[16] textbox 'Name'",
    "\t[14] generic, clickable",
))  # fmt: skip


def test_an_observation_becomes_our_page():
    found = Agent(Scripted()).obs_preprocessor(observation())
    assert found == {"goal": "Buy it", "page": PAGE, "bids": {"15": "a", "16": "a13"}, "error": ""}
    whole = Agent(Scripted(), AT).obs_preprocessor(observation())
    assert whole["page"] == f"page: __GITLAB__/shop\n{PAGE}"


def test_actions_come_back_in_its_words_and_episodes_are_ours():
    policy = Scripted("fill('16', 'Ann')", "click('12', button='right')", "goto('__GITLAB__/x')", "buy it")
    agent = Agent(policy, AT)
    asked = [agent.get_action(agent.obs_preprocessor(observation(e))) for e in ("", "", "TimeoutError: no\nlog", "")]
    assert [action for action, _ in asked] == [
        "fill('a13', 'Ann')", "click('12', 'right')", "goto('http://127.0.0.1:8023/x')", "buy it",
    ]  # fmt: skip
    assert asked[0][1] == {"think": "so", "stats": {"passes": 3, "tokens": 9, "repairs": 0}}
    assert policy.reasons[:3] == ["", "", ""] and "expected one call" in policy.reasons[3]
    roles = [unit.kind for unit in policy.seen[1].units]
    assert roles == [Kind.SYSTEM, Kind.GOAL, Kind.OBSERVATION, Kind.THOUGHT, Kind.ACTION, Kind.OBSERVATION]
    assert [unit.step for unit in policy.seen[2].units if unit.kind is Kind.OBSERVATION] == [0, 1, 2]
    assert policy.seen[2].units[-1].text.startswith("invalid action: TimeoutError: no log\npage: __GITLAB__/shop\n")
    agent.reset()
    policy.texts.append("noop()")
    agent.get_action(agent.obs_preprocessor(observation()))
    assert len(policy.seen[-1].units) == 3


def test_its_own_library_takes_our_calls():
    pytest.importorskip("browsergym.core", reason="needs browsergym-core: pip install browsergym-core")
    actions = Agent(Scripted()).action_set
    assert set(calls.FUNCTIONS) == set(actions.action_set)
    for text in ("click('a12', 'right')", "fill('3', \"it's\")", "select_option('3', ['a', 'b'])", "noop(500)",
                 "keyboard_press('Control+a')", "send_msg_to_user('{\"task_type\": \"MUTATE\"}')"):  # fmt: skip
        assert text.partition("(")[0] in actions.to_python_code(text)


@pytest.mark.filterwarnings("ignore")
def test_its_own_loop_is_played(tmp_path):
    """Its library, its browser and a page with a frame."""
    pytest.importorskip("browsergym.core", reason="needs browsergym-core: pip install browsergym-core")
    import gymnasium
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        if not os.path.exists(playwright.chromium.executable_path):
            pytest.skip("needs Playwright's browser: playwright install chromium")
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><title>T</title><button onclick=\"document.title = 'hit'\">Go</button>"
        '<iframe srcdoc="<input aria-label=name>"></iframe>',
        encoding="utf-8",
    )
    policy = Scripted()
    agent = Agent(policy)
    env = gymnasium.make(
        "browsergym/openended", task_kwargs={"start_url": page.as_uri(), "goal": "Press Go"}, disable_env_checker=True,
        action_mapping=agent.action_set.to_python_code,
    )  # fmt: skip
    obs, _ = env.reset()
    try:
        seen = agent.obs_preprocessor(obs)
        assert seen["goal"] == "Press Go" and seen["page"].startswith("RootWebArea 'T'")
        button, field = (re.search(rf"\[(\d+)\] {role}", seen["page"])[1] for role in ("button", "textbox"))
        assert seen["bids"][field].startswith("a")
        policy.texts = [f"click('{button}')", f"fill('{field}', 'Ann')", "nothing", "noop()"]
        for _ in range(4):
            action, _ = agent.get_action(agent.obs_preprocessor(obs))
            obs, *_ = env.step(action)
            assert bool(obs["last_action_error"]) == (action == "nothing")
        page_text = agent.obs_preprocessor(obs)["page"]
        assert page_text.startswith("RootWebArea 'hit'") and "textbox 'name' value='Ann'" in page_text
    finally:
        env.close()
