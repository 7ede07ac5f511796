"""PageRenderer: pages as nodes, actions as arguments, so that a node of a page or an argument can be hidden and asked.

    unit    RootWebArea 'Login', focused\\n\\t[15] textbox ''\\n\\t[18] button 'OK'        fill('15', 'ann')
    node    |RootWebArea 'Login', focused\\n|\\t[15] textbox ''\\n|\\t[18] button 'OK'|    |fill(|'15'|, 'ann'|)|
    word    |RootWebArea| 'Login',| focused|\\n\\t[15]| textbox| ''| ...

What is written is the text itself, byte for byte.
"""

from __future__ import annotations

import ast
import itertools

from anyorder_jax.environments.web import calls
from anyorder_jax.rendering.text import TextRenderer, words_of
from anyorder_jax.types import Field, Kind, Slot, Unit


class PageRenderer(TextRenderer):
    """Between units of pages and their parts: nodes (or arguments of an action), and words."""

    name = "pages"
    levels = ("unit", "node", "word", "token")

    def slots(self, unit: Unit) -> list[Slot]:
        """As TextRenderer's, with an action in parts: head, each argument, end."""
        parts = self.call_parts(unit)
        if not parts:
            return super().slots(unit)
        slots: list[Slot] = []
        for number, part in enumerate(parts):
            slots += [Slot(word, Field.TEXT, number, len(slots) + i) for i, word in enumerate(words_of(part))]
        return slots

    def call_parts(self, unit: Unit) -> list[str]:
        """An action as [head, argument, ..., end]; empty for a unit that is none."""
        return parts_of(unit.text) if unit.kind is Kind.ACTION and unit.text is not None else []


def parts_of(text: str) -> list[str]:
    """An action as [head, argument, ..., end]; joined they are the text. Empty for a text that is no action."""
    try:
        calls.parse(text, hosts=None)
        call = ast.parse(text, mode="eval").body
    except (ValueError, SyntaxError):
        return []
    if not isinstance(call, ast.Call) or not text.isascii() or "\n" in text:
        return []  # places in `ast` are counted in bytes of a line
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    if not arguments:
        return [text]
    ends = sorted(argument.end_col_offset or 0 for argument in arguments)
    borders = [0, call.func.end_col_offset + 1 if call.func.end_col_offset else 0, *ends, len(text)]
    return [text[start:end] for start, end in itertools.pairwise(borders) if end > start]
