"""Messages: lists of {role, content, ...}, as OpenAI's and others' interfaces take them.

| in the log | unit |
|---|---|
| `system`, `developer`; a record's `system` | SYSTEM |
| a record's `tools`, `functions` | SYSTEM: compact JSON, behind the first instructions |
| first `user` | GOAL |
| other `user` | USER; OBSERVATION after an action that was written as text (`text.style_of`) |
| `reasoning_content`, `reasoning`, `thinking`, a part of type reasoning, leading <think> | THOUGHT |
| what an `assistant` says | ACTION, its text |
| `tool_calls`, `function_call`, a part of type tool_call, <tool_call> | one ACTION each: {"name":...,"arguments":...} |
| `tool`, `function`, a part of type tool_result | TOOL, behind the calls of its turn, in their order |

`content` is null, a string or a list of parts (parts.py). A turn with `loss` false, `weight` 0 or `train` false is no
target (is_expert False).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anyorder_jax.formats import chat, layout, writing
from anyorder_jax.formats.chat import Turn
from anyorder_jax.formats.episode import Episode, Source
from anyorder_jax.formats.parts import Part, Reading, call_of, calls_in, content_parts, identifier, loads, plain, shown
from anyorder_jax.types import Trajectory

_KEYS = ("messages", "conversations", "conversation", "history", "trajectory", "traj", "dialog", "chat")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_CONTENTS = ("content", "parts", "text", "value", "system_prompt", "refusal")


def _is_list(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(m, dict) and "role" in m for m in value)


def listed(value: Any) -> Any:
    """A list, also where a table holds it as JSON text."""
    return loads(value) if isinstance(value, str) and value.lstrip().startswith("[") else value


def _find(record: Any) -> tuple[str, list[Any]] | None:
    if _is_list(record):
        return "the record", record
    if isinstance(record, dict):
        for key in _KEYS:
            if _is_list(value := listed(record.get(key))):
                return repr(key), value
    return None


def recognise(record: Any) -> str | None:
    """Why the record is one of messages, or None."""
    found = _find(record)
    return f"{found[0]} is a list of objects with a role" if found else None


def turn(message: Mapping[str, Any], reading: Reading) -> Turn:
    """One message as a turn. Raises ValueError for a role, content or call that no rule covers."""
    role = chat.role_of(message["role"])
    content = next((message[key] for key in _CONTENTS if message.get(key) not in (None, "")), None)
    if role == "call":
        return Turn("agent", calls_in(plain(content), reading), chat.is_target(message))
    if role == "tool":
        is_typed = isinstance(content, list) and all(isinstance(i, dict) and "type" in i for i in content)
        parts = content_parts(content if is_typed else plain(content), reading) or [Part("text", "")]
        name, call_id = message.get("name"), identifier(message.get("tool_call_id"))
        return Turn(role, [p._replace(name=p.name or name, id=p.id or call_id) for p in parts])
    parts = content_parts(content, reading)
    if role != "agent":
        return Turn(role, parts)
    thought = next((message[k] for k in _THOUGHTS if isinstance(message.get(k), str) and message[k].strip()), None)
    if thought is not None:
        parts.insert(0, Part("thought", thought))
    calls = listed(message.get("tool_calls")) or []
    if not isinstance(calls, list):
        raise ValueError(f"tool_calls: expected a list, got {shown(calls)}")
    parts += [call_of(item, reading) for item in calls]
    if isinstance(message.get("function_call"), dict):
        parts.append(call_of(message["function_call"], reading))
    return Turn(role, parts, chat.is_target(message))


def images(record: Mapping[str, Any], reading: Reading) -> None:
    """Counts, or refuses, what is listed beside the turns: images; other media are always refused."""
    for key in ("videos", "audios"):
        if record.get(key):
            raise ValueError(f"it lists {key}, and only text can be trained on")
    pictures = listed(record.get("images")) or record.get("image")
    if pictures:
        for _ in pictures if isinstance(pictures, list) else (pictures,):
            reading.image()
        reading.has_placeholders = True


def read(record: Any, source: Source, reading: Reading) -> Trajectory:
    """A trajectory from a record of messages.

    Args:
      record: the list, or an object that holds it under `messages` (or a name like it), maybe with `tools`.
      source: file and line.
      reading: gets the counts.

    Raises:
      ValueError: saying what was expected and what came.
    """
    found = _find(record)
    if found is None:
        raise ValueError(f"expected a list of messages, each with a role, got {shown(record)}")
    fields: Mapping[str, Any] = record if isinstance(record, dict) else {}
    images(fields, reading)
    exported = layout.restore(fields, lambda: writing.texts_of_messages(found[1]), source, reading)
    if exported is not None:
        return exported
    turns = [turn(message, reading) for message in found[1]]
    if fields.get("system"):
        turns.insert(0, Turn("system", content_parts(fields["system"], reading)))
    episode = Episode(reading)
    chat.feed(episode, turns, chat.schemas(fields))
    return episode.trajectory(fields, source)
