"""Page: what an expert knows, the goal and the page's text, and the words in which it says what to do.

    return page.typed(page.one("textbox"), "Odessa") or page.click("button", "Submit")

The verbs that bring about a state (`typed`, `checked`, `chosen`) are "" where the page is in it already, so an expert
is a list of wishes, and goes on from wherever a wrong action has led.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from anyorder_jax.environments.base import ExpertError
from anyorder_jax.environments.web.tree import Node


class MissingError(ExpertError):
    """The page does not show what the expert looks for."""


class Page:
    """The goal, the nodes of the page, and the actions that were done so far in this episode."""

    def __init__(self, goal: str, nodes: Sequence[Node], done: Sequence[str]) -> None:
        self.goal, self.nodes, self.done = goal, list(nodes), list(done)

    @property
    def quoted(self) -> list[str]:
        """The texts in double quotes in the goal."""
        return re.findall(r'"([^"]*)"', self.goal)

    def goal_parts(self, pattern: str) -> tuple[str, ...]:
        """The groups of a regular expression in the goal. Raises MissingError where it does not say so."""
        found = re.search(pattern, self.goal)
        if not found:
            raise MissingError(f"the goal says nothing like {pattern!r}")
        return found.groups()

    def all(self, role: str, name: str | None = None) -> list[Node]:
        """The nodes of a role (or of several, "link|tab"), with a name where one is given."""
        roles = role.split("|")
        return [node for node in self.nodes if node.role in roles and (name is None or node.name == name)]

    def one(self, role: str, name: str | None = None, number: int = 0) -> Node:
        """One of them, the first unless another is asked for. Raises MissingError."""
        found = self.all(role, name)
        if not -len(found) <= number < len(found):
            raise MissingError(f"there is no {role} {name or ''} number {number}")
        return found[number]

    def texts(self) -> list[str]:
        """The names of all texts, in order."""
        return [node.name for node in self.all("StaticText")]

    def around(self, text: str | Callable[[str], bool]) -> Node:
        """The clickable node around a text. Raises MissingError."""
        place = self.place(text)
        depth = self.nodes[place].depth
        for node in reversed(self.nodes[:place]):
            if node.depth < depth:
                depth = node.depth
                if node.bid and node.role != "RootWebArea":
                    return node
        raise MissingError(f"there is nothing to click around {self.nodes[place].name!r}")

    def place(self, text: str | Callable[[str], bool], start: int = 0) -> int:
        """Where a text stands among the nodes. Raises MissingError."""
        for place in range(start, len(self.nodes)):
            name = self.nodes[place].name
            if self.nodes[place].role == "StaticText" and (name == text if isinstance(text, str) else text(name)):
                return place
        raise MissingError(f"there is no text {text!r}")

    def after(self, place: int, role: str, number: int = 0) -> Node:
        """The node of a role that follows a place. Raises MissingError."""
        found = [node for node in self.nodes[place + 1 :] if node.role in role.split("|")]
        if number >= len(found):
            raise MissingError(f"no {role} follows")
        return found[number]

    def shows(self, role: str, name: str | None = None) -> bool:
        """Whether there is such a node."""
        return bool(self.all(role, name))

    def click(self, role: str | Node, name: str | None = None, number: int = 0) -> str:
        """A click on a node, or on one of a role."""
        node = role if isinstance(role, Node) else self.one(role, name, number)
        return f"click({node.bid!r})"

    def typed(self, node: Node, text: str) -> str:
        """Sees to it that a field has a text."""
        has = node.value or ""
        is_hidden = bool(has) and not has.strip("•")
        is_there = len(has) == len(text) if is_hidden else has == text
        return "" if is_there else f"fill({node.bid!r}, {text!r})"

    def checked(self, node: Node, wanted: bool = True) -> str:
        """Sees to it that a box is checked, or is not."""
        return "" if node.has("checked='true'") == wanted else self.click(node)

    def chosen(self, node: Node, options: Sequence[str]) -> str:
        """Sees to it that a list has these options chosen, and no other."""
        place = self.nodes.index(node)
        below = [one for one in self.nodes[place + 1 :] if one.depth > node.depth and one.role == "option"]
        if {one.name for one in below if one.has("selected=True")} == set(options):
            return ""
        wanted = options[0] if len(options) == 1 else list(options)
        return f"select_option({node.bid!r}, {wanted!r})"

    def pressed(self, node: Node, key: str) -> str:
        """A key on a node."""
        return f"press({node.bid!r}, {key!r})"

    def dragged(self, node: Node, target: Node) -> str:
        """A node drawn onto another."""
        return f"drag_and_drop({node.bid!r}, {target.bid!r})"


def listed(text: str) -> list[str]:
    """The items of "a, b, c"."""
    return [item.strip() for item in text.split(",") if item.strip()]


def ordinal(text: str) -> int:
    """The number of "3rd", from 0."""
    return int(re.sub(r"\D", "", text)) - 1
