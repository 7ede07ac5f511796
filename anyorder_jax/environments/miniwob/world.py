"""World: a session of MiniWoB++.

    goal          Select OIvA and click Submit.
    observation   RootWebArea 'Click Checkboxes Task', focused
                  \\t[18] checkbox 'OIvA', checked='false'
                  \\t[20] button 'Submit'
    action        click('18')

The page's own clock moves with the actions alone, and the reward does not shrink with time: 1 where the page's raw
reward is positive, else 0 (as BrowserGym counts).
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from anyorder_jax.environments.base import ExpertError, InvalidActionError, Text, TextStep
from anyorder_jax.environments.branching import draws
from anyorder_jax.environments.miniwob.axes import Disturbance
from anyorder_jax.environments.miniwob.experts import EXPERTS, decide
from anyorder_jax.environments.miniwob.folds import split_id, split_task
from anyorder_jax.environments.web import calls, chromium
from anyorder_jax.environments.web.calls import Action
from anyorder_jax.environments.web.possible import possible_actions
from anyorder_jax.environments.web.tab import WAIT_MS, LostError, Tab
from anyorder_jax.environments.web.tree import difference, page_text, parse
from anyorder_jax.types import Kind, Unit

MAX_STEPS = 30
BUDGET = 12_000
"""Characters of a page."""

_HIDE = (
    "#reward-display, #click-canvas, #sync-task-cover { display: none !important; }"
    "#query { visibility: hidden !important; }"  # pages count on its height
)
_BEGIN = f"""(() => {{
  const sheet = new CSSStyleSheet();
  sheet.replaceSync({_HIDE!r});
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  document.body.removeEventListener('click', core.canvasDrawClick);
  Math.seedrandom(%d);
  core.startEpisodeReal();
  clearTimeout(core.EP_TIMER);
  core.clearTimer();
  core.EP_TIMER = -1;
  const said = core.getUtterance();
  return typeof said === 'string' ? said : said.utterance;
}})()"""
_STATE = "typeof WOB_DONE_GLOBAL === 'undefined' ? null : {is_done: WOB_DONE_GLOBAL, reward: WOB_RAW_REWARD_GLOBAL}"


def pages() -> Path:
    """The folder of the package's pages; the package itself is not imported.

    Raises:
      ModuleNotFoundError: it is not installed.
    """
    return Path(str(importlib.metadata.distribution("miniwob").locate_file("miniwob"))) / "html" / "miniwob"


class Session:
    """An episode at a time, in a browser that is started with the first one and used for all."""

    expert_name = "scripted"
    actions = Text(calls.parse)
    max_steps = MAX_STEPS

    def __init__(self, environment_id: str) -> None:
        self.id = environment_id
        _, self._options = split_id(environment_id)
        self._pages = pages()
        chromium.find(environment_id)
        self.version = f"miniwob {importlib.metadata.version('miniwob')}"
        self._tab = Tab(environment_id)
        self._kind, self._goal, self._seed, self._step = "", "", 0, 0
        self._page, self._done = "", list[str]()
        self._is_over = True

    def reset(self, task: str) -> list[Unit]:
        self._kind, self._seed = split_task(self.id, task)
        self._step, self._done, self._is_over = 0, [], False
        self._disturbance = Disturbance(self._options, self._kind, self._seed)
        try:
            self._tab.open((self._pages / f"{self._kind}.html").as_uri())
            self._tab.number = self._disturbance.numbering()
            self._goal = str(self._tab.run(_BEGIN % self._seed))
            self._tab.advance(WAIT_MS)
            self._page = self._look()
        except LostError as error:
            raise RuntimeError(f"miniwob: {task}: {error}") from None
        return [Unit(Kind.GOAL, 0, text=self._goal), Unit(Kind.OBSERVATION, 0, text=self._page)]

    def _look(self) -> str:
        if script := self._disturbance.at(self._step):
            self._tab.run(script)
        return page_text(self._disturbance.seen(self._tab.look(), self._step), BUDGET)

    def step(self, action: Unit) -> TextStep:
        call = calls.parse(action.text or "")
        if self._is_over:
            raise InvalidActionError("the episode is over")
        before = self._page
        try:
            if self._disturbance.fails(call.name):
                call = Action("noop", {"wait_ms": WAIT_MS})
            self._tab.do(call)
            self._step = action.step + 1
            state = self._tab.run(_STATE)
            self._page = self._look()
        except LostError as error:
            self._is_over, self._step = True, action.step + 1
            return TextStep((self._told(f"{error}; the episode is over"),), 0.0, True, False)
        self._done.append(action.text or "")
        self._is_over = call.name == "report_infeasible" or state is None or bool(state["is_done"])
        is_success = self._is_over and state is not None and state["is_done"] and (state["reward"] or 0) > 0
        shown = difference(before, self._page) if self._options.is_difference else self._page
        notices, self._tab.notices = self._tab.notices, []
        text = "\n".join([*(f"notice: {notice}" for notice in notices), shown])
        return TextStep((self._told(text),), float(is_success), self._is_over, is_success)

    def _told(self, text: str) -> Unit:
        return Unit(Kind.OBSERVATION, self._step, text=text)

    def advice(self) -> list[Unit]:
        if self._kind not in EXPERTS:
            raise ExpertError(f"there is no expert for {self._kind}")
        action = decide(self._kind, self._goal, parse(self._page), self._done)
        return [Unit(Kind.ACTION, self._step, text=action)]

    def valid_actions(self) -> list[str]:
        """Clicks on all that can be clicked, texts out of the goal into fields, an option of each list."""
        rng = draws("valid actions", *self._kind.encode(), self._seed)
        words = self._goal.replace('"', " ").split() or ["a"]
        return possible_actions(parse(self._page), words, rng)

    def close(self) -> None:
        self._tab.close()
