"""Tree: a page as its accessibility tree, a node a line, in BrowserGym's words.

    RootWebArea 'Click Button Task', focused
    \\t[13] textbox '' value='Odessa'
    \\t[14] button 'Cancel'
    \\tStaticText 'Ipsum'

What stands in brackets names an element for actions. Names and values are written as Python writes texts, so a node
is always one line.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_IGNORED = frozenset(("editable", "readonly", "level", "settable", "multiline", "invalid", "focusable"))
_FLAGS = frozenset(("required", "focused", "atomic"))
"""Properties that are written by their name alone, where they are true."""
MAX_NAME = 2000
"""Characters of a name or value that are shown; more are counted."""
FUNCTIONAL = frozenset((
    "button", "checkbox", "combobox", "link", "listbox", "menuitem", "menuitemcheckbox", "menuitemradio", "option",
    "radio", "searchbox", "slider", "spinbutton", "switch", "tab", "textbox", "treeitem",
))  # fmt: skip
"""Roles of nodes that something can be done with."""


class Node(NamedTuple):
    """depth: in the tree, from 0. bid: "" for one that no action can name. value: None where there is none.
    attributes: as they are written, name='value' or a flag's name."""

    depth: int
    bid: str
    role: str
    name: str
    value: str | None = None
    attributes: tuple[str, ...] = ()

    def line(self) -> str:
        """As it stands on the page, without the newline."""
        shown = self.role if self.role == "generic" and not self.name else f"{self.role} {self.name!r}"
        bid = f"[{self.bid}] " if self.bid else ""
        value = "" if self.value is None else f" value={self.value!r}"
        return "\t" * self.depth + bid + shown + value + "".join(f", {one}" for one in self.attributes)

    def has(self, attribute: str) -> bool:
        """Whether an attribute stands there, such as "focused" or "checked='true'"."""
        return attribute in self.attributes


def nodes_of(
    tree: Sequence[Mapping[str, Any]], bids: Mapping[int, str], clickable: frozenset[int] = frozenset()
) -> list[Node]:
    """The nodes that are shown of an accessibility tree, in order.

    Args:
      tree: `Accessibility.getFullAXTree`'s nodes.
      bids: element (backend id) -> its number.
      clickable: elements that listen to clicks: they are shown although they say nothing.
    """
    by_id = {node["nodeId"]: node for node in tree}
    found: list[Node] = []
    stack = [(tree[0], 0, "")] if tree else []  # with what the shown node above says
    seen = set[str]()
    while stack:
        raw, depth, said = stack.pop()
        if raw["nodeId"] in seen:
            continue
        seen.add(raw["nodeId"])
        node = _node(raw, depth, said, bids, clickable)
        if node:
            found.append(node)
            said = f"{node.name}\n{node.value or ''}" if depth else ""  # a title says nothing of the page
        below = [by_id[i] for i in raw.get("childIds", ()) if i in by_id]
        stack += [(child, depth + bool(node), said) for child in reversed(below)]
    return found


def _value(raw: Mapping[str, Any], key: str) -> Any:
    return raw[key].get("value") if key in raw else None


def _node(
    raw: Mapping[str, Any], depth: int, said: str, bids: Mapping[int, str], clickable: frozenset[int]
) -> Node | None:
    role, name = str(_value(raw, "role")), _value(raw, "name")
    if raw.get("ignored") or name is None or role in ("LineBreak", "InlineTextBox", "ListMarker"):
        return None
    element = raw.get("backendDOMNodeId", -1)
    bid = "" if role == "StaticText" else bids.get(element, "")
    attributes = ["clickable"] if bid and element in clickable and role not in FUNCTIONAL else []
    for entry in raw.get("properties", ()):
        key, content = entry["name"], entry["value"].get("value")
        if key in _IGNORED or content is None or (key == "url" and not str(content).startswith("http")):
            continue
        if key in _FLAGS:
            attributes += [key] * bool(content)
        else:
            attributes.append(f"{key}={content!r}")
    if (role in ("generic", "none") and not attributes) or (role == "StaticText" and name.strip() in said):
        return None
    value = _value(raw, "value")
    shown = None if value is None else _cut(str(value))
    return Node(depth, bid, role, _cut(name.strip()), shown, tuple(attributes))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}... ({len(text) - MAX_NAME} more characters)"


_LINE = re.compile(r"(?P<tabs>\t*)(?:\[(?P<bid>\d+)\] )?(?P<role>[\w-]+)(?P<rest>.*)", re.DOTALL)
_STRING = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_REST = re.compile(rf"(?: (?P<name>{_STRING}))?(?: value=(?P<value>{_STRING}))?(?P<attributes>(?:, .*)?)", re.DOTALL)
_ATTRIBUTE = re.compile(rf", ((?:[^,'\"]|{_STRING})+)")


def parse_line(line: str) -> Node | None:
    """The node that a line is: the inverse of `Node.line`. None for a line that is none (a mark, a notice)."""
    head = _LINE.fullmatch(line)
    rest = _REST.fullmatch(head["rest"]) if head else None
    if not head or not rest or (rest["name"] is None and head["role"] != "generic"):
        return None
    try:
        name, value = (ast.literal_eval(rest[key]) if rest[key] is not None else None for key in ("name", "value"))
    except (ValueError, SyntaxError):
        return None
    attributes = tuple(_ATTRIBUTE.findall(rest["attributes"]))
    return Node(len(head["tabs"]), head["bid"] or "", head["role"], name or "", value, attributes)


def parse(text: str) -> list[Node]:
    """The nodes of a page's text; lines that are none are left out."""
    return [node for node in map(parse_line, text.split("\n")) if node]


def page_text(nodes: Sequence[Node], budget: int = 0) -> str:
    """The text of a page.

    Args:
      nodes: in order.
      budget: characters; 0: no limit. Above it nodes are left out and `... 7 nodes left out` stands in their place:
        first those without text or function, then texts, then whatever stands last.
    """
    lines = [node.line() for node in nodes]
    text, kept, allowed = "\n".join(lines), list(range(len(lines))), budget
    while budget and len(text) > budget and len(kept) > 1:
        kept = _kept(nodes, lines, allowed)
        text = "\n".join(_with_marks(lines, kept))
        allowed -= max(len(text) - budget, budget // 20, 1)  # marks take room too
    return text


def _kept(nodes: Sequence[Node], lines: Sequence[str], budget: int) -> list[int]:
    """The numbers of the nodes that stay where their lines may have this many characters; the first always does."""
    kept = set(range(len(lines)))
    excess = sum(len(line) + 1 for line in lines) - budget
    for may_go in (_says_nothing, lambda node: node.role not in FUNCTIONAL and not node.bid, lambda node: True):
        for number in range(len(lines) - 1, 0, -1):
            if excess > 0 and number in kept and may_go(nodes[number]):
                kept.discard(number)
                excess -= len(lines[number]) + 1
    return sorted(kept)


def _says_nothing(node: Node) -> bool:
    return not node.name and not node.value and node.role not in FUNCTIONAL and "clickable" not in node.attributes


def _with_marks(lines: Sequence[str], kept: Sequence[int]) -> list[str]:
    found, before = [], -1
    for number in [*kept, len(lines)]:
        if missing := number - before - 1:
            found.append(f"... {missing} node{'s' * (missing > 1)} left out")
        if number < len(lines):
            found.append(lines[number])
        before = number
    return found


def difference(before: str, after: str) -> str:
    """What changed on a page, where that is shorter than the page: `- ` lines that are gone, `+ ` lines that are new,
    in their order, behind a line that says how many stayed."""
    old, new = before.split("\n"), after.split("\n")
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    changed = []
    for what, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        if what != "equal":
            changed += [f"- {line}" for line in old[old_start:old_end]]
            changed += [f"+ {line}" for line in new[new_start:new_end]]
    num_kept = sum(block.size for block in matcher.get_matching_blocks())
    text = "\n".join([f"{num_kept} lines as before", *changed])
    return text if len(text) < len(after) else after
