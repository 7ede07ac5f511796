"""ToolBench: its training records, one per step of the agent, and its answer trees.

Training records, {id: "Step k: query", conversations: [{from, value}]}, are the whole past of one step, whose last turn
is the target. Each becomes a trajectory in which only that turn is one (is_expert); `join` makes the episodes: what
begins another is part of it. "Thought: ... Action: API Action Input: {...}" is a THOUGHT and an ACTION
{"name":...,"arguments":...}; `function` turns are TOOL, and those that ToolBench cut are counted.

Answers, {answer_generation, tree or trys, win}: the last of `train_messages`; where there is none, the path of the tree
to the final answer, or to the last leaf when none was given; of answers without a tree the last chain that was tried.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from anyorder_jax.formats import chat, messages, sharegpt
from anyorder_jax.formats.chat import Turn
from anyorder_jax.formats.episode import Episode, Source, digest, digest_of
from anyorder_jax.formats.parts import Part, Reading, as_list, call, shown
from anyorder_jax.types import Kind, Trajectory, Unit

_STEP_ID = re.compile(r"\s*Step\s+\d+\s*:\s*(.*)", re.DOTALL)


def recognise(record: Any) -> str | None:
    """Why the record is one of ToolBench, or None."""
    if not isinstance(record, dict):
        return None
    if isinstance(record.get("answer_generation"), dict):
        return "it has an 'answer_generation'"
    if isinstance(record.get("id"), str) and _STEP_ID.fullmatch(record["id"]) and sharegpt.recognise(record):
        return "its id is 'Step k: query' and it has 'conversations'"
    return None


def _only_last_is_target(turns: list[Turn]) -> list[Turn]:
    last = max((i for i, turn in enumerate(turns) if turn.role == "agent"), default=-1)
    return [turn._replace(is_expert=turn.is_expert and i == last) for i, turn in enumerate(turns)]


def _key(unit: Unit) -> tuple[int, int, str | None]:
    return unit.kind, unit.step, unit.text


def join(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Episodes from trajectories that may begin one another: a unit is a target where any of them says so.

    Args:
      trajectories: of one task.

    Returns:
      Those that begin no other, longest first, with the others' targets; `source.records` counts what went in.
    """
    order = sorted(trajectories, key=lambda t: len(t.units), reverse=True)  # stable: of equals the first
    whole: list[list[Unit]] = []
    members: list[list[Trajectory]] = []
    beginnings: dict[int, int] = {}  # hash of a whole episode's first units -> the episode
    for trajectory in order:
        hashes, value = [], 0
        for unit in trajectory.units:
            value = hash((value, _key(unit)))
            hashes.append(value)
        found = beginnings.get(value)
        if found is None or [_key(u) for u in whole[found][: len(hashes)]] != [_key(u) for u in trajectory.units]:
            found = len(whole)
            whole.append(list(trajectory.units))
            members.append([])
            for beginning in hashes:
                beginnings.setdefault(beginning, found)
        for i, unit in enumerate(trajectory.units):
            if unit.is_expert and not whole[found][i].is_expert:
                whole[found][i] = unit
        members[found].append(trajectory)
    joined = []
    for units, parts in zip(whole, members, strict=True):
        first = parts[0]
        source = {**first.source, "records": len(parts)}
        counts = dict(first.source.get("counts", {}))
        num_turns = len({unit.step for unit in units if unit.kind in (Kind.THOUGHT, Kind.ACTION)})
        untrained = {unit.step for unit in units if unit.kind in (Kind.THOUGHT, Kind.ACTION) and not unit.is_expert}
        counts.pop("untrained_turns", None)
        source.pop("counts", None)
        if untrained:
            counts["untrained_turns"] = len(untrained)
        if counts:
            source["counts"] = counts
        outcome = {**first.outcome, "num_steps": num_turns}
        joined.append(Trajectory(digest_of(tuple(units)), tuple(units), outcome, source))
    return joined


def _read_step(record: dict[str, Any], source: Source, reading: Reading) -> Trajectory:
    found = _STEP_ID.fullmatch(record["id"])
    assert found is not None
    turns = _only_last_is_target([sharegpt.turn(turn, reading) for turn in record["conversations"]])
    episode = Episode(reading)
    chat.feed(episode, turns, chat.schemas(record))
    return episode.trajectory({}, {**source, "joined_by": digest(found[1].strip())})


def _leaf_path(root: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes from the root to the final answer; to the last leaf when no node gave one."""
    last: list[dict[str, Any]] = []
    stack = [[root]]
    while stack:
        path = stack.pop()
        node = path[-1]
        text = str(node.get("description", ""))
        if node.get("node_type") == "Action Input" and "give_answer" in text and "give_up" not in text:
            return path
        children = [child for child in as_list(node.get("children")) if isinstance(child, dict)]
        if not children:
            last = path
        stack += [[*path, child] for child in reversed(children)]
    return last


def _path(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes of an answer, in order. Raises ValueError where there are none."""
    tree = record.get("tree")
    root = tree.get("tree") if isinstance(tree, dict) else None
    if isinstance(root, dict):
        return _leaf_path(root)
    tried = [found for found in as_list(record.get("trys")) if isinstance(found, dict)]
    chain = [node for node in as_list(tried[-1].get("chain")) if isinstance(node, dict)] if tried else []
    if not chain:
        raise ValueError("it has neither train_messages nor a tree to walk, nor a chain in its trys")
    return chain


def _turns(path: Sequence[dict[str, Any]], reading: Reading) -> list[Turn]:
    turns: list[Turn] = []
    parts: list[Part] = []
    name = ""
    for node in path:
        kind, text = node.get("node_type"), str(node.get("description") or "")
        if kind == "Thought" and text.strip():
            parts.append(Part("thought", text.strip()))
        elif kind == "Action":
            name = text.strip()
        elif kind == "Action Input" and name:
            parts.append(call(name, text.strip(), None, reading))
            turns.append(Turn("agent", parts))
            parts, name = [], ""
            if node.get("observation"):
                turns.append(Turn("tool", [Part("text", str(node["observation"]))]))
    return [*turns, Turn("agent", parts)] if parts else turns


def _read_answer(record: dict[str, Any], source: Source, reading: Reading) -> Trajectory:
    answer = record["answer_generation"]
    tools = chat.schemas({"tools": answer.get("function")})
    paths = [path for path in as_list(answer.get("train_messages")) if isinstance(path, list) and path]
    task = {"query_id": record.get("query_id"), "success": record.get("win")}
    if not paths:
        path = _path(record)
        episode = Episode(reading)
        goal = Turn("user", [Part("text", str(answer.get("query") or ""))])
        chat.feed(episode, [goal, *_turns(path, reading)], tools)
        return episode.trajectory(task, source)
    read = []
    for i, path in enumerate(paths):
        path_reading = Reading(reading.drop_images)
        if not all(isinstance(message, dict) and "role" in message for message in path):
            raise ValueError(f"train_messages[{i}]: expected messages, each with a role, got {shown(path)}")
        turns = _only_last_is_target([messages.turn(message, path_reading) for message in path])
        episode = Episode(path_reading)
        chat.feed(episode, turns, tools)
        read.append(episode.trajectory(task, source))
        reading.counts = path_reading.counts  # the last path is the longest
    last = [_key(unit) for unit in read[-1].units]
    whole = next(t for t in join(read) if [_key(unit) for unit in t.units[: len(last)]] == last)
    return dataclasses.replace(whole, source={k: v for k, v in whole.source.items() if k != "records"})


def read(record: Any, source: Source, reading: Reading) -> Trajectory:
    """A trajectory from a training record or an answer tree. Arguments and errors as `messages.read`."""
    if recognise(record) is None:
        raise ValueError(f"expected an id 'Step k: query' with conversations, or an answer tree, got {shown(record)}")
    is_answer = isinstance(record.get("answer_generation"), dict)
    return (_read_answer if is_answer else _read_step)(record, source, reading)
