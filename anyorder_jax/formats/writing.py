"""Writing: trajectories as records of other trainers' formats, and the texts of such records in order.

| unit | messages | ATIF |
|---|---|---|
| SYSTEM | `system` | step of `system` |
| GOAL, USER | `user` | step of `user` |
| THOUGHT | `reasoning_content` of the decision's `assistant` message | of the decision's step of `agent` |
| ACTION, text | its `content` | its `message` |
| ACTION, a call whose results are TOOL units | its `tool_calls` | its `tool_calls` |
| TOOL | `tool`, with the id of its call | a result in the step of its call, with the call's id |
| OBSERVATION | `user` | a result in the step before it, or in a step of `system` |

A decision is one message, or several where its parts stand in another order (a call, then a thought). What must not be
trained on (a part is not the expert's) has `weight` 0, in ATIF `is_copied_context`. `layout` says the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from anyorder_jax.formats import layout
from anyorder_jax.formats.parts import dumps, loads
from anyorder_jax.types import DECISION, Kind, Trajectory, Unit

ATIF_VERSION = "ATIF-v1.7"


class _Call(NamedTuple):
    id: str
    name: str
    arguments: dict[str, Any]


class _Part(NamedTuple):
    """A unit, and its call, or the call that it is the result of."""

    unit: Unit
    call: _Call | None = None


def _call_of(text: str) -> tuple[str, dict[str, Any]] | None:
    """(name, arguments) of an action's text that comes back from them byte for byte."""
    found = loads(text) if text.startswith('{"name":') else None
    if not isinstance(found, dict) or list(found) != ["name", "arguments"] or dumps(found) != text:
        return None
    name, arguments = found["name"], found["arguments"]
    return (name, arguments) if isinstance(name, str) and name and isinstance(arguments, dict) else None


def _turns(units: Sequence[Unit]) -> Iterator[list[_Part]]:
    """Units in turns: a decision, or a part of one, is thought, text, calls in this order; any other unit is a turn."""
    has_tools = any(unit.kind == Kind.TOOL for unit in units)
    waiting: list[_Call] = []
    turn: list[_Part] = []
    number = stage = 0
    for before, unit in zip((None, *units), units, strict=False):
        if unit.kind not in DECISION:
            if turn:
                yield turn
                turn = []
            yield [_Part(unit, waiting.pop(0) if unit.kind == Kind.TOOL and waiting else None)]
            continue
        if before is None or before.kind not in DECISION or before.step != unit.step:
            waiting = []
        found = _call_of(unit.text or "") if unit.kind == Kind.ACTION and has_tools else None
        now = 0 if unit.kind == Kind.THOUGHT else 2 if found else 1
        if turn and not (turn[-1].unit.step == unit.step and (now > stage or now == stage == 2)):
            yield turn
            turn = []
        stage = now
        call = None
        if found:
            number += 1
            call = _Call(f"call_{number}", *found)
            waiting.append(call)
        turn.append(_Part(unit, call))
    if turn:
        yield turn


def _said(turn: Sequence[_Part]) -> tuple[str | None, str | None, list[_Call]]:
    """(thought, text, calls) of a turn of the agent."""
    thought = next((part.unit.text for part in turn if part.unit.kind == Kind.THOUGHT), None)
    text = next((part.unit.text for part in turn if part.unit.kind == Kind.ACTION and part.call is None), None)
    return thought, text, [part.call for part in turn if part.call is not None]


def _message(turn: Sequence[_Part]) -> dict[str, Any]:
    unit, call = turn[0]
    if unit.kind not in DECISION:
        if unit.kind == Kind.TOOL and call is not None:
            return {"role": "tool", "tool_call_id": call.id, "content": unit.text}
        return {"role": "system" if unit.kind == Kind.SYSTEM else "user", "content": unit.text}
    thought, text, calls = _said(turn)
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thought is not None:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": dumps(c.arguments)}}
            for c in calls
        ]
    if not all(part.unit.is_expert for part in turn):
        message["weight"] = 0
    return message


def messages(trajectory: Trajectory) -> dict[str, Any]:
    """A record of OpenAI's messages. The units have text."""
    turns = [_message(turn) for turn in _turns(trajectory.units)]
    return {"id": trajectory.id, "messages": turns, "extra": layout.describe(trajectory)}


def texts_of_messages(turns: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts of messages as `messages` writes them; KeyError or TypeError for others."""
    texts: list[str] = []
    for turn in turns:
        calls = [call["function"] for call in turn.get("tool_calls", ())]
        texts += [turn.get("reasoning_content") or "", turn["content"] or ""]
        texts += [dumps({"name": c["name"], "arguments": loads(c["arguments"])}) for c in calls]
    return [text for text in texts if text]


def atif(trajectory: Trajectory) -> dict[str, Any]:
    """A document of ATIF. The units have text."""
    steps: list[dict[str, Any]] = []

    def begin(source: str, message: str) -> dict[str, Any]:
        steps.append({"step_id": len(steps) + 1, "source": source, "message": message})
        return steps[-1]

    can_add = False  # results to the newest step
    for turn in _turns(trajectory.units):
        unit, call = turn[0]
        if unit.kind in DECISION:
            thought, text, calls = _said(turn)
            step, can_add = begin("agent", text or ""), True
            if thought is not None:
                step["reasoning_content"] = thought
            if calls:
                step["tool_calls"] = [
                    {"tool_call_id": c.id, "function_name": c.name, "arguments": c.arguments} for c in calls
                ]
            if not all(part.unit.is_expert for part in turn):
                step["is_copied_context"] = True
        elif unit.kind in (Kind.TOOL, Kind.OBSERVATION):
            step = steps[-1] if can_add else begin("system", "")
            can_add = True
            result = {"content": unit.text} if call is None else {"source_call_id": call.id, "content": unit.text}
            step.setdefault("observation", {"results": []})["results"].append(result)
        else:
            begin("system" if unit.kind == Kind.SYSTEM else "user", unit.text or "")
            can_add = False
    agent = {"name": str(trajectory.source.get("expert") or trajectory.source.get("policy") or layout.KEY)}
    agent["version"] = str(trajectory.source.get("version") or "unknown")
    return {
        "schema_version": ATIF_VERSION, "session_id": trajectory.id, "agent": agent, "steps": steps,
        "extra": layout.describe(trajectory),
    }  # fmt: skip


def texts_of_atif(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts of steps as `atif` writes them; KeyError or TypeError for others."""
    texts: list[str] = []
    for step in steps:
        texts += [step.get("reasoning_content") or "", step["message"] or ""]
        calls = step.get("tool_calls", ())
        texts += [dumps({"name": c["function_name"], "arguments": c["arguments"]}) for c in calls]
        texts += [result["content"] or "" for result in step.get("observation", {"results": ()})["results"]]
    return [text for text in texts if text]


WRITERS: Mapping[str, Callable[[Trajectory], dict[str, Any]]] = {"messages": messages, "atif": atif}
"""By the name of the format, as `registry.FORMATS` has it."""
