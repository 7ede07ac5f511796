"""Steps: what an oracle does on pages, elements named by what an agent sees of them, their role and name.

    [click("link", "New project"), fill("textbox", "Project name", "webagent"), click("button", "Create project")]

A plan is written from what the scorer expects of a task; it is played on pages alone. Played without its last step it
must not be a success: so that a score of 1.0 shows what was done, not what happens to stand there.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from anyorder_jax.environments.web.calls import Action
from anyorder_jax.environments.web.tree import Node
from anyorder_jax.environments.webarena.response import Response

Reader = Callable[[Sequence[Node]], Any]
"""What stands on a page."""


class OracleError(RuntimeError):
    """A page has not what a plan looks for there."""


class Step(NamedTuple):
    """call: as agents write it. role, name: of the element. value: what is filled or chosen, or what reads it off the
    page. after: the name of an earlier node; the element is the first one below it."""

    call: str
    role: str = ""
    name: str = ""
    value: str | list[str] | Reader | None = None
    after: str = ""

    def action(self, nodes: Sequence[Node]) -> Action:
        """What it is on a page. Raises OracleError."""
        value = self.value(nodes) if callable(self.value) else self.value
        if self.call == "goto":
            return Action("goto", {"url": value})
        bid = found(nodes, self.role, self.name, self.after).bid
        if self.call == "click":
            return Action("click", {"bid": bid, "button": "left", "modifiers": []})
        return Action(self.call, {"bid": bid} | ({} if value is None else {_VALUES[self.call]: value}))


_VALUES = {"fill": "value", "select_option": "options"}


class Plan(NamedTuple):
    """steps: in their order. answer: what reads the answer off the last page; None: there is none to give, and the last
    step is the last thing that is done. status: of the answer."""

    steps: list[Step]
    answer: Reader | None = None
    status: str = "SUCCESS"

    def without_last(self) -> Plan:
        """Without the last thing that is done."""
        return self._replace(answer=_nothing) if self.answer else self._replace(steps=self.steps[:-1])

    def response(self, kind: str, nodes: Sequence[Node]) -> Response:
        """What is said at the end."""
        data = self.answer(nodes) if self.answer else None
        return Response(kind, self.status, data if data is None or isinstance(data, list) else [data])


def _nothing(nodes: Sequence[Node]) -> None:
    return None


class Task(NamedTuple):
    """A task as its data file has it. number, template, kind: as the benchmark has them. words: its parameters. starts:
    its first pages. events: what the scorer expects of the network, in order."""

    number: str
    template: int
    kind: str
    sites: tuple[str, ...]
    starts: tuple[str, ...]
    words: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Task:
        return cls(
            str(entry["task_id"]),
            int(entry["intent_template_id"]),
            str(entry["eval"][0]["expected"]["task_type"]).upper(),
            tuple(entry["sites"]),
            tuple(entry["start_urls"]),
            entry["instantiation_dict"],
            tuple(one["expected"] for one in entry["eval"][1:]),
        )

    def path(self, event: int = 0) -> str:
        """Of the page that an event is expected at, after its site's mark."""
        url = self.events[event]["url"]
        return str(url if isinstance(url, str) else url[0]).split("__", 2)[-1]

    def sent(self, event: int = 0) -> Mapping[str, Any]:
        """The fields that an event is expected to send."""
        return self.events[event].get("post_data") or {}

    def asked(self, event: int = 0) -> dict[str, str]:
        """The query that an event is expected to have."""
        return {key: value[0] for key, value in (self.events[event].get("query_params") or {}).items()}


def click(role: str, name: str, after: str = "") -> Step:
    return Step("click", role, name, None, after)


def fill(name: str, value: str | Reader, after: str = "") -> Step:
    return Step("fill", "textbox", name, value, after)


def select(name: str, option: str | list[str], after: str = "") -> Step:
    """Of a list with one choice, or with several for a list of options."""
    return Step("select_option", "combobox" if isinstance(option, str) else "listbox", name, option, after)


def goto(url: str) -> Step:
    return Step("goto", value=url)


def links(*names: str) -> list[Step]:
    """Clicks on links, one after the other."""
    return [click("link", name) for name in names]


def found(nodes: Sequence[Node], role: str, name: str, after: str = "") -> Node:
    """The first node of this role and name.

    Args:
      nodes: of the page.
      role, name: of the node.
      after: the name of a node that stands above it; "": the page's first will do.

    Raises:
      OracleError: there is none; names those that are near.
    """
    start = 0
    if after:
        start = next((place for place, node in enumerate(nodes) if node.name == after), len(nodes))
    names = []
    for node in nodes[start:]:
        if node.role == role:
            if node.name == name:
                return node
            names.append(node.name)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3)
    below = f" below {after!r}" if after else ""
    raise OracleError(f"there is no {role} {name!r}{below}; near: {near}")


def texts(nodes: Sequence[Node], start: str = "") -> list[str]:
    """What nodes say, those alone that begin so, without that beginning."""
    return [node.name.removeprefix(start).strip() for node in nodes if node.name.startswith(start)]


def value_of(role: str, name: str) -> Reader:
    """Reads a field."""
    return lambda nodes: found(nodes, role, name).value or ""
