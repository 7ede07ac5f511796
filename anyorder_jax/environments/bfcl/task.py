"""Task: a dialogue with its answer, official or generated, and the states that the answer leads to."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bfcl_eval.constants.default_prompts import DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC

from anyorder_jax.environments import calls
from anyorder_jax.environments.bfcl import folds, tools
from anyorder_jax.environments.calls import Call, describe


class Reference(NamedTuple):
    """What a turn should lead to."""

    instances: tools.Instances
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """turns: what the user says in each; "" where functions are added and nothing else is said. truth: the calls that
    answer it, none where it cannot be answered yet. held_back: turn -> functions that are offered from it on."""

    id: str
    turns: tuple[str, ...]
    truth: tuple[tuple[Call, ...], ...]
    classes: tuple[str, ...]
    config: Mapping[str, Any]
    excluded: tuple[str, ...] = ()
    held_back: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    is_long: bool = False

    def instances(self) -> tools.Instances:
        """Instances at the start."""
        return tools.Instances.opened(self.classes, self.config, self.is_long)

    def offered(self, turn: int) -> tuple[calls.Function, ...]:
        """The functions that may be called in a turn."""
        later = [name for first, names in self.held_back.items() if first > turn for name in names]
        return tools.of_classes(self.classes, [*self.excluded, *later])

    def said(self, turn: int, with_schemas: bool) -> str:
        """What the user says at the start of a turn; functions that are offered from it on stand before it."""
        if turn not in self.held_back:
            return self.turns[turn]
        described = describe([tools.functions()[name] for name in self.held_back[turn]], with_schemas)
        return f"{described}\n{self.turns[turn] or DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC}"

    @functools.cached_property
    def references(self) -> tuple[Reference, ...]:
        """After each turn, by executing the truth. Nobody may change them."""
        instances, found = self.instances(), []
        for turn in self.truth:
            answers = tuple(map(instances.execute, turn))
            found.append(Reference(instances.copy(), answers))
        return tuple(found)


@functools.lru_cache(maxsize=64)
def official(task: str) -> Task:
    """An official task by its id. Raises ValueError for another text."""
    category = task.removeprefix("multi_turn_").rsplit("_", 1)[0]
    found = category in folds.CATEGORIES and _entries(category).get(task)
    if not found:
        raise ValueError(f"bfcl: expected a task like 'multi_turn_base_7', got {task!r}")
    entry, truth = found
    return Task(
        id=task,
        turns=tuple("\n".join(m["content"] for m in turn) for turn in entry["question"]),
        truth=tuple(tuple(calls.from_python(text, tools.functions()) for text in turn) for turn in truth),
        classes=tuple(entry["involved_classes"]),
        config=entry["initial_config"],
        excluded=tuple(entry["excluded_function"]) if "excluded_function" in entry else (),
        held_back={int(turn): tuple(names) for turn, names in entry["missed_function"].items()}
        if "missed_function" in entry
        else {},
        is_long=category == "long_context",
    )


@functools.cache
def _entries(category: str) -> Mapping[str, tuple[Mapping[str, Any], list[list[str]]]]:
    """Task -> (as published, its answer)."""
    name = f"BFCL_v4_multi_turn_{category}.json"
    lines = (tools.DATA / name).read_text(encoding="utf-8").splitlines()
    answers = (tools.DATA / "possible_answer" / name).read_text(encoding="utf-8").splitlines()
    entries = {entry["id"]: entry for entry in map(json.loads, lines)}
    truths = {entry["id"]: entry["ground_truth"] for entry in map(json.loads, answers)}
    return {task: (entry, truths[task]) for task, entry in entries.items()}
