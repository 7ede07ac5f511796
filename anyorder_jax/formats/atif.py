"""ATIF: the Agent Trajectory Interchange Format (Harbor), versions 1.x: {schema_version, agent, steps: [...]}.

| in the log | unit |
|---|---|
| step of `system`: message; `agent.tool_definitions` (compact JSON) | SYSTEM |
| first step of `user` / another | GOAL / USER |
| step of `agent`: `reasoning_content` | THOUGHT |
| its `message` | ACTION, where it is not empty |
| its `tool_calls` | one ACTION each: {"name":...,"arguments":...} |
| `observation.results` with a `source_call_id`, or as many as the step has calls | TOOL, in the order of the calls |
| other `observation.results` | OBSERVATION |

A step with `is_copied_context` is no target (is_expert False). Results that only refer to a subagent's file are dropped
and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anyorder_jax.formats import chat, layout, writing
from anyorder_jax.formats.chat import Turn
from anyorder_jax.formats.episode import Episode, Source
from anyorder_jax.formats.parts import Part, Reading, as_list, call, content_parts, dumps, identifier, shown
from anyorder_jax.types import Trajectory

_SOURCES = ("system", "user", "agent")  # a step's, which are our roles, too


def recognise(record: Any) -> str | None:
    """Why the record is one of ATIF, or None."""
    if not isinstance(record, dict) or not isinstance(record.get("steps"), list):
        return None
    version = record.get("schema_version")
    if isinstance(version, str) and version.upper().startswith("ATIF"):
        return f"schema_version is {version}"
    if record["steps"] and all(isinstance(s, dict) and s.get("source") in _SOURCES for s in record["steps"]):
        return "'steps' is a list of objects with a source (system, user or agent)"
    return None


def _results(step: Mapping[str, Any], where: str, reading: Reading) -> list[Part]:
    observation = step.get("observation")
    results = observation.get("results") if isinstance(observation, dict) else None
    if results is None:
        return []
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise ValueError(f"{where}.observation.results: expected a list of objects, got {shown(results)}")
    parts = []
    for result in results:
        if result.get("content") is None:
            reading.counts["subagent_references"] += bool(result.get("subagent_trajectory_ref"))
        text = "\n".join(part.text for part in content_parts(result.get("content"), reading))
        parts.append(Part("result", text, None, identifier(result.get("source_call_id"))))
    return parts


def _turns(step: Any, where: str, reading: Reading) -> list[Turn]:
    if not isinstance(step, dict) or step.get("source") not in _SOURCES:
        raise ValueError(f"{where}: expected an object with source system, user or agent, got {shown(step)}")
    role = step["source"]
    parts = content_parts(step.get("message"), reading)
    results = _results(step, where, reading)
    calls = step.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(c, dict) for c in calls):
        raise ValueError(f"{where}.tool_calls: expected a list of objects, got {shown(calls)}")
    if isinstance(step.get("reasoning_content"), str):
        parts.insert(0, Part("thought", step["reasoning_content"]))
    parts += [call(c.get("function_name"), c.get("arguments"), c.get("tool_call_id"), reading) for c in calls]
    is_of_calls = 0 < len(results) <= len(calls)
    own = [result for result in results if result.id is not None or is_of_calls]
    turns = []
    if parts or not results:
        # The results of another agent's calls, copied into a step of the system, stay what they are.
        turns.append(Turn(role, parts + (own if role == "agent" else []), not step.get("is_copied_context")))
    seen = [result for result in results if role != "agent" or not parts or result not in own]
    return turns + [Turn("observation", [Part("text", result.text)]) for result in seen]


def read(record: Any, source: Source, reading: Reading) -> Trajectory:
    """A trajectory from an ATIF document. Arguments and errors as `messages.read`."""
    steps = record.get("steps") if isinstance(record, dict) else None
    if not isinstance(steps, list) or not steps:
        raise ValueError(f"expected an object with 'steps', a list, got {shown(record)}")
    exported = layout.restore(record, lambda: writing.texts_of_atif(steps), source, reading)
    if exported is not None:
        return exported
    turns = [turn for i, step in enumerate(steps) for turn in _turns(step, f"steps[{i}]", reading)]
    agent = record.get("agent")
    tools = agent.get("tool_definitions") if isinstance(agent, dict) else None
    reading.counts["subagent_references"] += len(as_list(record.get("subagent_trajectories")))
    episode = Episode(reading)
    chat.feed(episode, turns, dumps(tools) if tools else "")
    return episode.trajectory(record, source)
