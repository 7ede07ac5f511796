"""Call measures: what became of actions that should be calls of tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from anyorder_jax import statistics
from anyorder_jax.acting.episode import Episode
from anyorder_jax.statistics import Estimate
from anyorder_jax.types import Kind


class _Counts(NamedTuple):
    """Of an episode. well_formed: actions that are JSON of a call. right: of these, those that the world took. calls:
    those that a tool answered; repeated: of these, those made before. turns: of the user, that the agent acted in."""

    actions: int
    well_formed: int
    right: int
    calls: int
    repeated: int
    turns: int


_Count = Callable[[_Counts], int]


def is_call(text: str) -> bool:
    """Whether a text is the JSON of a call, {"name": ..., "arguments": {...}}, of whatever function."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    is_object = isinstance(found, dict) and set(found) == {"name", "arguments"}
    return is_object and isinstance(found["name"], str) and isinstance(found["arguments"], dict)


def has_calls(episodes: Sequence[Episode]) -> bool:
    """Whether any action of some episodes is a call that was taken."""
    return any(_counts(episode).right for episode in episodes)


def measures(episodes: Sequence[Episode]) -> dict[str, Estimate]:
    """What came of episodes in a world of tools.

    well_formed       share of actions that are JSON of a call
    schema_accuracy   share of these that call a function there is, with the arguments that its schema allows
    repeated_calls    share of the calls that a tool answered that had been made before in the episode, word for word
    calls_per_turn    calls that a tool answered, a turn of the user in which the agent acted
    """
    counts = [_counts(episode) for episode in episodes]

    def share(
        part: Callable[[_Counts], int], whole: Callable[[_Counts], int], is_share: bool = True
    ) -> Estimate | None:
        parts, wholes = (np.array([count(c) for c in counts], float) for count in (part, whole))
        return statistics.ratio(parts, wholes, is_proportion=is_share)

    found = {
        "well_formed": share(lambda c: c.well_formed, lambda c: c.actions),
        "schema_accuracy": share(lambda c: c.right, lambda c: c.well_formed),
        "repeated_calls": share(lambda c: c.repeated, lambda c: c.calls),
        "calls_per_turn": share(lambda c: c.calls, lambda c: c.turns, False),
    }
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def _counts(episode: Episode) -> _Counts:
    actions = [i for i, unit in enumerate(episode.units) if unit.kind is Kind.ACTION]
    texts = [episode.units[i].text or "" for i in actions]
    taken = [*episode.is_taken, *[False] * (len(actions) - len(episode.is_taken))]  # the last may have had no answer
    well_formed = [is_call(text) for text in texts]
    after = [episode.units[i + 1].kind if i + 1 < len(episode.units) else None for i in actions]
    calls = [text for text, kind in zip(texts, after, strict=True) if kind is Kind.TOOL]
    speaks = (Kind.GOAL, Kind.USER)
    spoken = [sum(unit.kind in speaks for unit in episode.units[:i]) for i in actions]
    return _Counts(
        len(actions), sum(well_formed), sum(w and t for w, t in zip(well_formed, taken, strict=True)), len(calls),
        len(calls) - len(set(calls)), len(set(spoken)),
    )  # fmt: skip
