"""World: a session of WebArena-Verified: a task on live sites, until the agent gives its answer.

    system        ... End with send_msg_to_user(...) ...
    goal          Star the top one most starred repo in Gitlab
    observation   page: __GITLAB__/explore
                  RootWebArea 'Projects · Explore', focused
                  \\t[18] link 'Sign out', url='__GITLAB__/users/sign_out' ...
    action        click('131')
    ...
    action        send_msg_to_user('{"task_type": "MUTATE", "status": "SUCCESS"}')

Where a site is served is not told: its mark stands in the place of its address, in observations as in actions. The
reward is the official scorer's.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from anyorder_jax.environments import options
from anyorder_jax.environments.base import InvalidActionError, Text, TextStep
from anyorder_jax.environments.branching import draws
from anyorder_jax.environments.web import calls, chromium
from anyorder_jax.environments.web.calls import Action
from anyorder_jax.environments.web.possible import possible_actions
from anyorder_jax.environments.web.tab import LostError
from anyorder_jax.environments.web.tree import difference, page_text, parse
from anyorder_jax.environments.webarena import addresses, export, folds, login, package, response, scorer
from anyorder_jax.environments.webarena.addresses import Addresses
from anyorder_jax.environments.webarena.browser import SiteTab
from anyorder_jax.environments.webarena.prompt import SYSTEM
from anyorder_jax.types import Kind, Unit

MAX_STEPS = 30
"""As WebArena's."""
OUTPUT = "ANYORDER_JAX_WEBARENA_OUTPUT"
"""The variable that names a folder where the scored files of every episode are kept."""


class Served(Protocol):
    """Sites that are served. addresses: site -> URL. is_frozen: whether pages' time moves with actions alone. version:
    what they are."""

    addresses: Addresses
    is_frozen: bool
    version: str

    def prepare(self, tab: SiteTab, sites: Sequence[str]) -> None:
        """Before a task on these sites: puts back what can be put back, signs in. Raises LostError."""
        ...

    def close(self) -> None: ...


class Named:
    """Sites whose addresses the user names; what is in them is the user's to put back."""

    addresses: Addresses
    is_frozen = False

    def __init__(self) -> None:
        self.addresses, self._accounts = addresses.named(), addresses.accounts()
        self.version = "sites of the user"

    def prepare(self, tab: SiteTab, sites: Sequence[str]) -> None:
        login.sign_in(tab, sites, self.addresses, self._accounts)

    def close(self) -> None:
        pass


class Session:
    """An episode at a time, in a browser that is started with the first one and used for all.

    Args:
      environment_id: with options or without.
      served: the sites.

    Raises:
      RuntimeError: the package is not named, or there is no browser.
    """

    max_steps = MAX_STEPS

    def __init__(self, environment_id: str, served: Served) -> None:
        self.id, self._served = environment_id, served
        found = options.read(environment_id, folds.OPTIONS)
        self._budget, self._is_difference = int(found.get("budget", folds.BUDGET)), "difference" in found
        directory = package.directory()
        self._tasks = folds.read(package.tasks_file(directory))
        package.python(directory)
        chromium.find(environment_id)
        self.version = f"{package.version(directory)}, {served.version}"
        self.actions = Text(self._parse)
        self._hosts = addresses.hosts(served.addresses)
        self._tab = SiteTab(environment_id, self._hosts, served.is_frozen)
        self._page, self._step, self._is_over = "", 0, True

    def _parse(self, text: str) -> Action:
        """An action, with addresses in it. Raises ValueError for another text."""
        return calls.parse(addresses.placed(text, self._served.addresses), self._hosts)

    def reset(self, task: str) -> list[Unit]:
        if task not in self._tasks:
            raise ValueError(f"{self.id}: expected a task's number, such as {next(iter(self._tasks))}, got {task!r}")
        self._task = self._tasks[task]
        at = self._served.addresses
        if lacking := [site for site in self._task.sites if site not in at]:
            raise ValueError(
                f"{self.id}: task {task} is on {' and '.join(self._task.sites)}, and {lacking[0]} has no address. "
                f"Name it: {addresses.VARIABLE}={lacking[0]}=http://..."
            )
        self._step, self._is_over, self._kept = 0, False, _kept_in(task)
        try:
            self._tab.forget(list(at.values()))
            self._served.prepare(self._tab, self._task.sites)
            self._tab.recorder.clear()
            self._tab.open(addresses.placed(self._task.starts[0], at))
            self._page = self._look()
        except LostError as error:
            self._is_over = True
            raise RuntimeError(f"webarena: task {task}: {error}") from None
        others = self._task.starts[1:]
        goal = "\n".join([self._task.intent, *(f"Also open: {url}" for url in others)])
        return [
            Unit(Kind.SYSTEM, 0, text=SYSTEM),
            Unit(Kind.GOAL, 0, text=goal),
            Unit(Kind.OBSERVATION, 0, text=self._page),
        ]

    def _look(self) -> str:
        address = self._tab.address()
        self._nodes = self._tab.look()
        text = page_text(self._nodes, self._budget)
        return addresses.marked(f"page: {address}\n{text}", self._served.addresses)

    def step(self, action: Unit) -> TextStep:
        call = self._parse(action.text or "")
        if self._is_over:
            raise InvalidActionError("the episode is over")
        if call.name in response.ANSWERS:
            return self._end(call, action.step + 1)
        before, self._step = self._page, action.step + 1
        try:
            self._tab.do(call)
            self._page = self._look()
        except LostError as error:
            self._is_over = True
            return TextStep((self._told(f"{error}; the episode is over"),), 0.0, True, False)
        shown = difference(before, self._page) if self._is_difference else self._page
        notices, self._tab.notices = self._tab.notices, []
        text = "\n".join([*(f"notice: {notice}" for notice in notices), shown])
        return TextStep((self._told(text),), 0.0, False, False)

    def _end(self, call: Action, step: int) -> TextStep:
        """The verdict on what was done and said. Raises InvalidActionError for an answer that is none."""
        try:
            said = response.of(call)
        except ValueError as error:
            raise InvalidActionError(str(error)) from None
        self._step, self._is_over = step, True
        entries = self._tab.recorder.entries()
        number, at = self._task.number, self._served.addresses
        if self._kept is None:
            verdict = scorer.score_response(number, said, entries, at)
        else:
            export.write(self._kept, number, said, entries)
            verdict = scorer.score(self._kept, [number], at)[number]
        return TextStep((self._told("the answer was taken"),), verdict.score, True, verdict.is_success)

    def _told(self, text: str) -> Unit:
        return Unit(Kind.OBSERVATION, self._step, text=text)

    def valid_actions(self) -> list[str]:
        """What can be done on the page, with words of the goal, and an answer of such a word."""
        rng = draws("valid actions", int(self._task.number), self._step)
        words = re.findall(r"[\w.@-]+", self._task.intent) or ["a"]
        found = possible_actions(parse(self._page), words, rng)
        return [*found, f"send_msg_to_user({words[int(rng.integers(len(words)))]!r})"]

    def close(self) -> None:
        self._tab.close()
        self._served.close()


def _kept_in(task: str) -> Path | None:
    """The folder that an episode's files are to be kept in: 1, 2, ... for the first, the second time that a task is
    played; None where nothing is kept. One that gave no answer leaves it empty."""
    named = os.environ.get(OUTPUT)
    if not named:
        return None
    for number in itertools.count(1):
        folder = Path(named).expanduser() / str(number)
        try:
            (folder / task).mkdir(parents=True)  # one session alone makes it
        except FileExistsError:
            continue
        return folder
    raise AssertionError
