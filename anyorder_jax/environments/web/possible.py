"""Possible: what can be done on a page, by somebody who knows nothing: the choices of a random policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anyorder_jax.environments.web.tree import FUNCTIONAL, Node


def possible_actions(nodes: Sequence[Node], words: Sequence[str], rng: Any) -> list[str]:
    """Clicks on all that can be clicked, words into fields, an option of each list; each once, "noop()" last.

    Args:
      nodes: of the page.
      words: at least one.
      rng: a generator of numpy: which word, which option.
    """
    found: list[str] = []
    for place, node in enumerate(nodes):
        if node.bid and (node.role in FUNCTIONAL or node.has("clickable")):
            found += _on(node, nodes[place + 1 :], words[int(rng.integers(len(words)))], rng)
    return [*dict.fromkeys(found), "noop()"]


def _on(node: Node, below: Sequence[Node], word: str, rng: Any) -> list[str]:
    """What can be done with an element."""
    if node.role in ("textbox", "searchbox", "spinbutton"):
        return [f"click({node.bid!r})", f"fill({node.bid!r}, {word.strip('.,')!r})"]
    if node.role == "combobox":
        options = [one.name for one in below if one.role == "option" and one.depth > node.depth]
        if options:
            return [f"select_option({node.bid!r}, {options[int(rng.integers(len(options)))]!r})"]
    return [f"click({node.bid!r})"]
