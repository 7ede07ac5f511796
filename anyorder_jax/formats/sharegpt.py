"""ShareGPT: {conversations: [{from, value}]}, with its kin: glaive's function calls, ETO, AgentGym.

| in the log | unit |
|---|---|
| `system`; a record's `system`; `tools` (a JSON string, or a list) | SYSTEM |
| first `human` | GOAL |
| other `human` | USER; OBSERVATION (without "Observation:") where the agent writes "Thought: ... Action: ..." |
| `gpt` | ACTION; "Thought: ... Action: ..." is parsed apart into THOUGHT and ACTION, <think> into THOUGHT |
| `function_call` (a JSON string of one call, or of a list) | one ACTION each: {"name":...,"arguments":...} |
| `observation`, `tool` | TOOL behind a call, else OBSERVATION |

No targets (is_expert False): a first `gpt` that only says OK to the instructions, and turns with `loss` false.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anyorder_jax.formats import chat
from anyorder_jax.formats.chat import Turn
from anyorder_jax.formats.episode import Episode, Source
from anyorder_jax.formats.messages import images, listed
from anyorder_jax.formats.parts import Part, Reading, calls_in, content_parts, plain, shown
from anyorder_jax.types import Trajectory

_KEYS = ("conversations", "conversation", "messages")


def _find(record: Any) -> tuple[str, list[Any]] | None:
    for key in _KEYS if isinstance(record, dict) else ():
        value = listed(record.get(key))
        if isinstance(value, list) and value and all(isinstance(t, dict) and "from" in t for t in value):
            return key, value
    return None


def recognise(record: Any) -> str | None:
    """Why the record is one of ShareGPT's, or None."""
    found = _find(record)
    return f"{found[0]!r} is a list of objects with from and value" if found else None


def turn(logged: Mapping[str, Any], reading: Reading) -> Turn:
    """One {from, value} as a turn. Raises ValueError for a role or a value that no rule covers."""
    role, value = chat.role_of(logged["from"]), logged.get("value")
    if role == "call":
        return Turn("agent", calls_in(plain(value), reading), chat.is_target(logged))
    if role in ("tool", "observation"):
        return Turn(role, [Part("text", plain(value), logged.get("name"))])
    return Turn(role, content_parts(value, reading), role != "agent" or chat.is_target(logged))


def read(record: Any, source: Source, reading: Reading) -> Trajectory:
    """A trajectory from a record of conversations. Arguments and errors as `messages.read`."""
    found = _find(record)
    if found is None:
        raise ValueError(f"expected 'conversations', a list of objects with from and value, got {shown(record)}")
    images(record, reading)
    turns = [turn(logged, reading) for logged in found[1]]
    if record.get("system"):
        turns.insert(0, Turn("system", content_parts(record["system"], reading)))
    episode = Episode(reading)
    chat.feed(episode, turns, chat.schemas(record))
    return episode.trajectory(record, source)
