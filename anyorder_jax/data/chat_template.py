"""A chat template, asked what it writes around contents, and how it writes tool calls."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SYSTEM, USER, ASSISTANT, TOOL = "system", "user", "assistant", "tool"
NEXT_ROLE = {SYSTEM: USER, USER: ASSISTANT, ASSISTANT: USER, TOOL: ASSISTANT}
"""What may follow a message in any template."""

JOINT = "\n"
"""Between the parts of one message of the assistant."""

Pair = tuple[str | None, str | None]
"""The roles of two messages in a row; None: the conversation begins, or ends."""


class Calls:
    """A chat template's own way to write a tool call as JSON between tags.

        {"name":"buy","arguments":{"id":3}}  <->  <tool_call>\\n{"name": "buy", ...}\\n</tool_call>

    Args:
      before, after: the tags.
      separators: of items, and of keys and values.
    """

    def __init__(self, before: str, after: str, separators: tuple[str, str]) -> None:
        self.before, self.after, self.separators = before, after, separators

    def write(self, text: str) -> str | None:
        """A record's call without the tags, as the template writes it; None for any other text."""
        try:
            call = json.loads(text)
        except (ValueError, RecursionError):
            return None
        is_call = isinstance(call, dict) and list(call) == ["name", "arguments"] and isinstance(call["arguments"], dict)
        if not is_call or _dumps(call, (",", ":")) != text:
            return None
        return _dumps(call, self.separators)

    def read(self, text: str) -> str:
        """A unit's text as records have it: the inverse of `write` with the tags; any other text as it is."""
        written = text.removesuffix(JOINT)
        if not (written.startswith(self.before) and written.endswith(self.after)):
            return text
        inner = written[len(self.before) : len(written) - len(self.after)]
        try:
            found = _dumps(json.loads(inner), (",", ":"))
        except (ValueError, RecursionError):
            return text
        return found if self.write(found) == inner else text


def _dumps(value: Any, separators: tuple[str, str]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=separators)


class ChatTemplate:
    """A chat template, asked with contents that no text has. error: what it said when it last refused."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self.error = tokenizer, ""

    def parts(self, roles: Sequence[str]) -> list[str] | None:
        """What stands before, between and after the contents of these messages; None where the template refuses them,
        or writes a content twice, never, or elsewhere."""
        contents = [f"\ue0f0{number}\ue0f1" for number in range(len(roles))]
        messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
        try:
            rest = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
        except Exception as error:  # a template may raise anything
            self.error = " ".join(str(error).split())[:200]
            return None
        found = []
        for content in contents:
            part, is_there, rest = rest.partition(content)
            if not is_there or "\ue0f0" in part:
                return None
            found.append(part)
        return None if "\ue0f0" in rest else [*found, rest]

    def has_system(self) -> bool:
        """Whether a system message may stand first, and stays there when the conversation goes on."""
        dialogue = [SYSTEM, USER, ASSISTANT, USER, ASSISTANT]
        return all(self.parts(dialogue[:num]) is not None for num in (2, 3, 5))

    def has_tool(self, has_system: bool) -> bool:
        """Whether results of tools have a message of their own: not what a role gets that nobody knows."""
        prefix = [SYSTEM] * has_system + [USER, ASSISTANT]
        found = self.parts([*prefix, TOOL, ASSISTANT])
        return found is not None and found != self.parts([*prefix, "\ue0f2", ASSISTANT])

    def calls(self, has_system: bool) -> Calls | None:
        """How it writes calls; None where it does not, or in a way that is not read back."""
        found = set()
        for name, arguments in (
            ("first", {"a": 1, "b": "x y"}),
            ("second_one", {"c": [1, {"d": None}], "e": "\u00e9"}),
        ):
            call = {"type": "function", "id": "call00000", "function": {"name": name, "arguments": arguments}}
            plain = self._with_turn(has_system, {"content": "\ue0f0"})
            written = self._with_turn(has_system, {"content": "", "tool_calls": [call]})
            before, is_there, after = (plain or "").partition("\ue0f0")
            if not (is_there and written and written.startswith(before) and written.endswith(after)):
                return None
            text = written[len(before) : len(written) - len(after)]
            start, stop = text.find("{"), text.rfind("}") + 1
            for separators in ((", ", ": "), (",", ":")):
                if start >= 0 and text[start:stop] == _dumps({"name": name, "arguments": arguments}, separators):
                    found.add((text[:start], text[stop:], separators))
        return Calls(*found.pop()) if len(found) == 1 else None

    def _with_turn(self, has_system: bool, turn: Mapping[str, Any]) -> str | None:
        """A conversation in which the assistant's turn has this content, and a tool answers."""
        messages: list[dict[str, Any]] = [{"role": SYSTEM, "content": "s"}] * has_system
        messages += [{"role": USER, "content": "u"}, {"role": ASSISTANT, **turn}, {"role": TOOL, "content": "t"}]
        try:
            return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
        except Exception as error:  # a template may raise anything
            self.error = " ".join(str(error).split())[:200]
            return None

    def between(self, pair: Pair, has_system: bool) -> set[str]:
        """Every text that the template writes between two roles, in conversations of several lengths; behind the last
        message where the second is None, before the first where the first is."""
        found = set()
        for roles, at in _conversations(pair, has_system):
            parts = self.parts(roles)
            if parts is not None:
                found.add(parts[at])
        return found


def _conversations(pair: Pair, has_system: bool) -> Iterator[tuple[list[str], int]]:
    """(roles, number of the second of the two) of conversations with these two roles in a row."""
    before, after = pair
    turns = [USER, ASSISTANT]
    is_early = before in (None, SYSTEM)
    begins: list[list[str]] = [[]] if is_early else [[], turns, turns * 3, [*turns, TOOL, ASSISTANT]]
    systems = (False, True) if has_system and not is_early else (False,)
    ways: dict[str | None, list[str]] = {None: [], SYSTEM: [SYSTEM], USER: [USER], ASSISTANT: turns}
    ways[TOOL] = [*turns, TOOL]
    for is_with_system, begin, num_more in itertools.product(systems, begins, (0, 1, 4) if after else (0,)):
        roles = [*[SYSTEM] * is_with_system, *begin, *ways[before]]
        at = len(roles)
        if after is not None:
            roles.append(after)
        for _ in range(num_more):
            roles.append(NEXT_ROLE[roles[-1]])
        yield roles, at
