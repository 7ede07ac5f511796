"""ADP: the Agent Data Protocol, versions 1.x: {id, content: [{class_, ...}], details}.

| class_ | unit |
|---|---|
| first `text_observation` of the user | GOAL |
| other `text_observation` of the user | USER; as the environment's behind a code or api action; OBSERVATION (without
"Observation:") where the agent writes "Thought: ... Action: ..." |
| `text_observation` of the environment, `web_observation` | TOOL behind an api action, else OBSERVATION |
| `description` of an action | THOUGHT |
| `api_action` | ACTION: {"name":...,"arguments":...} |
| `code_action` | ACTION: a fenced block with its language |
| `message_action` | ACTION; "Thought: ... Action: ..." is parsed apart, <finish> stays around the action |

A `web_observation` is its URL and its accessibility tree, or its HTML where it has no tree.
"""

from __future__ import annotations

import re
from typing import Any

from anyorder_jax.formats import chat
from anyorder_jax.formats.chat import Turn
from anyorder_jax.formats.episode import Episode, Source
from anyorder_jax.formats.parts import Part, Reading, call, shown
from anyorder_jax.types import Trajectory

_OBSERVATIONS = ("text_observation", "web_observation", "image_observation")
_ACTIONS = ("api_action", "code_action", "message_action")
_FINISHED_REACT = re.compile(r"\s*<finish>\s*(.*?Action:)\s*(.*?)\s*</finish>\s*", re.DOTALL)


def recognise(record: Any) -> str | None:
    """Why the record is one of ADP, or None."""
    content = record.get("content") if isinstance(record, dict) else None
    if isinstance(content, list) and content and all(isinstance(i, dict) and "class_" in i for i in content):
        return "'content' is a list of objects with class_"
    return None


def _text(item: dict[str, Any], key: str, where: str) -> str:
    value = item.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{where}.{key}: expected text, got {shown(value)}")
    return value


def _observation(item: dict[str, Any], before: str, where: str, reading: Reading) -> Turn:
    kind = item["class_"]
    if kind == "image_observation":
        reading.image()
        return Turn("observation", [])
    if kind == "web_observation":
        if item.get("image_observation"):
            reading.image()
        tree, html, url = (_text(item, key, where) for key in ("axtree", "html", "url"))
        reading.counts["html_dropped"] += bool(tree and html)
        return Turn("observation", [Part("text", "\n".join(filter(None, (url, tree or html))))])
    is_user = item.get("source") not in ("environment", "os") and before not in ("api_action", "code_action")
    return Turn("user" if is_user else "observation", [Part("text", _text(item, "content", where))])


def _action(item: dict[str, Any], where: str, reading: Reading) -> Turn:
    description = _text(item, "description", where)
    parts = [Part("thought", description)] if description.strip() else []
    if item["class_"] == "api_action":
        parts.append(call(item.get("function"), item.get("kwargs"), None, reading))
    elif item["class_"] == "code_action":
        code, language = _text(item, "content", where), _text(item, "language", where)
        parts.append(Part("action", f"```{language}\n{code}\n```"))
    else:
        text = _FINISHED_REACT.sub(r"\1 <finish> \2 </finish>", _text(item, "content", where), count=1)
        parts.append(Part("text", text))
    return Turn("agent", parts, chat.is_target(item))


def read(record: Any, source: Source, reading: Reading) -> Trajectory:
    """A trajectory from an ADP record. Arguments and errors as `messages.read`."""
    if recognise(record) is None:
        raise ValueError(f"expected an object with 'content', a list of objects with class_, got {shown(record)}")
    turns, before = [], ""
    for i, item in enumerate(record["content"]):
        where, kind = f"content[{i}]", item["class_"]
        if kind in _ACTIONS:
            turns.append(_action(item, where, reading))
        elif kind in _OBSERVATIONS:
            turns.append(_observation(item, before, where, reading))
        else:
            raise ValueError(
                f"{where}.class_: expected one of {', '.join(_OBSERVATIONS + _ACTIONS)}, got {shown(kind)}"
            )
        before = kind
    episode = Episode(reading)
    details = record.get("details")
    tools = chat.schemas(record) or (chat.schemas(details) if isinstance(details, dict) else "")
    chat.feed(episode, turns, tools)
    return episode.trajectory(record, source)
