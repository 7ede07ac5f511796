"""Experts: scripted players of MiniWoB++, by family. They see what an agent sees, the goal and the page's text.

`EXPERTS` has the kinds that they solve on at least 19 of 20 seeds; `LEFT_OUT` says why the others have none.
"""

from __future__ import annotations

from collections.abc import Sequence

from anyorder_jax.environments.miniwob.axes import CLOSE, NOTICE
from anyorder_jax.environments.miniwob.experts import buttons, dates, fields, finding, mail, moving, places
from anyorder_jax.environments.miniwob.experts.left_out import LEFT_OUT as LEFT_OUT
from anyorder_jax.environments.miniwob.experts.page import MissingError, Page
from anyorder_jax.environments.web.tree import Node

EXPERTS = {
    kind: expert
    for family in (buttons, fields, finding, mail, moving, places, dates)
    for kind, expert in family.EXPERTS.items()
}
"""Kind -> expert: from a page to an action."""

_MAX_WAITS = 3


def decide(kind: str, goal: str, nodes: Sequence[Node], done: Sequence[str]) -> str:
    """The expert's next action.

    Args:
      kind: of the task, one of `EXPERTS`.
      goal: the task's text.
      nodes: of the page, as the agent sees it.
      done: the actions so far.

    Raises:
      ExpertError: it does not find what it needs, although it waited.
    """
    page = Page(goal, nodes, done)
    if page.shows("dialog", NOTICE) or page.shows("button", CLOSE):
        return page.click("button", CLOSE)
    try:
        return EXPERTS[kind](page)
    except (MissingError, ValueError, LookupError, TypeError, AttributeError):  # of a page with lines missing
        if done and all(action == "noop()" for action in done[-_MAX_WAITS:]) and len(done) >= _MAX_WAITS:
            raise MissingError(f"the expert of {kind} does not find its way on this page") from None
        return "noop()"  # it may come yet
