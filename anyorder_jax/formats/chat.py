"""Chat: what the chat formats share once their turns are read: roles, styles of acting, tool schemas.

What a user's turn after the first is: the environment's answer (OBSERVATION) where the agent writes its actions as text
("Thought: ... Action: ...", a fenced command), else what the user says next (USER).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from anyorder_jax.formats.episode import Episode
from anyorder_jax.formats.parts import Part, dumps, loads, results_in, shown
from anyorder_jax.formats.text import agent_parts, style_of

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "ai", "bot", "chatgpt", "agent"), "agent"),
    **dict.fromkeys(("tool", "function", "tool_response", "tool_result", "ipython"), "tool"),
    **dict.fromkeys(("observation", "environment", "env"), "observation"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}
"""The role that each name in a log stands for."""

_OBSERVATION_LABEL = re.compile(r"\s*(?:Observation|OBSERVATION):[ \t]*\n?")
# Keys of a turn and the values with which it is no target.
_UNTRAINED = {"loss": (False, 0), "weight": (0,), "train": (False, 0), "trainable": (False,), "is_demo": (True,)}


class Turn(NamedTuple):
    """One turn of a log. role: "system", "user", "agent", "tool" or "observation"."""

    role: str
    parts: list[Part]
    is_expert: bool = True


def is_target(turn: Mapping[str, Any]) -> bool:
    """Whether a logged turn may be trained on: not when its own `loss`, `weight`, `train` or `is_demo` says no."""
    if _UNTRAINED.keys().isdisjoint(turn):
        return True
    return not any(
        type(turn.get(key)) in (bool, int, float) and turn[key] in values for key, values in _UNTRAINED.items()
    )


def role_of(name: object) -> str:
    """The role of a name. Raises ValueError for a name that no format uses."""
    if isinstance(name, str) and name.lower() in ROLES:
        return ROLES[name.lower()]
    raise ValueError(f"a turn has the role {shown(name)}; expected one of {', '.join(ROLES)}")


def schemas(record: Mapping[str, Any]) -> str:
    """The record's tool schemas as compact JSON; "" when it has none. A string that is no JSON stays as it is."""
    tools = record.get("tools") or record.get("functions")
    if isinstance(tools, str):
        tools = loads(tools) or tools.strip()
    return tools if isinstance(tools, str) else dumps(tools) if tools else ""


def _text(parts: Sequence[Part]) -> str:
    return "\n".join(part.text for part in parts if part.kind == "text")


def _with_schemas(turns: Sequence[Turn], text: str) -> Iterator[Turn]:
    """The turns, with the schemas behind the instructions they begin with."""
    is_open = bool(text)
    for turn in turns:
        if is_open and turn.role != "system":
            yield Turn("system", [Part("text", text)])
            is_open = False
        yield turn


def _feed_agent(episode: Episode, turn: Turn, style: str) -> None:
    parts: list[Part] = []
    for part in turn.parts:
        parts += agent_parts(part.text, style, episode.reading) if part.kind == "text" else [part]
    episode.agent([part for part in parts if part.kind != "result"], turn.is_expert)
    for part in parts:
        if part.kind == "result":  # of a tool that the model's server runs itself
            episode.result(part.text, part.name, part.id)


def _feed_seen(episode: Episode, turn: Turn, is_answer: bool, style: str) -> None:
    """A turn of the user, the environment or a tool. is_answer: the environment speaks in the user's name."""
    said = [part for part in turn.parts if part.kind == "text"]
    for part in turn.parts:
        if part.kind == "result":
            episode.result(part.text, part.name, part.id)
    if not said and turn.parts:
        return
    text = _text(said)
    is_answer = is_answer or turn.role in ("tool", "observation")
    label = _OBSERVATION_LABEL.match(text) if is_answer and style == "react" else None
    text = text[label.end() :] if label else text
    has_tags = text.lstrip().startswith("<tool_response>")
    if turn.role == "tool" or (episode.waiting and (is_answer or has_tags)):
        own = said[0] if said else Part("result", "")
        parts = results_in(text, episode.waiting) if own.id is None else [Part("result", text)]
        for part in parts:
            episode.result(part.text, part.name or own.name, part.id or own.id)
    elif is_answer:
        episode.observation(text)
    else:
        episode.user(text)


def feed(episode: Episode, turns: Sequence[Turn], tools: str = "") -> None:
    """Feeds turns to an episode.

    Args:
      episode: gets them.
      turns: in order.
      tools: the schemas as text, or "".
    """
    first = next((i for i, turn in enumerate(turns) if turn.role == "agent"), len(turns))
    has_calls = any(part.kind == "call" for turn in turns for part in turn.parts)
    texts = [] if has_calls else [_text(turn.parts) for turn in turns[first:] if turn.role == "agent"]
    style = style_of(texts, "\n".join(_text(turn.parts) for turn in turns[:first]))
    before = ""
    for turn in _with_schemas(turns, tools):
        if turn.role == "system":
            episode.system(_text(turn.parts))
        elif turn.role == "agent":
            _feed_agent(episode, turn, style)
        else:
            is_answer = style != "plain" and episode.has_goal and before == "agent" and turn.role == "user"
            _feed_seen(episode, turn, is_answer, style)
        before = turn.role
