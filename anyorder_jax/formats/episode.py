"""Episode: the units of one trajectory, built turn by turn, with the steps and the order that all formats share.

    log      system  user    assistant (thought, 2 calls)   tool b  tool a   user    assistant
    units    system  goal    thought action_a action_b      tool_a  tool_b   user    action
    step     0       0       0       0        0             0       0        1       1

`step` counts the agent's turns: what it saw before turn k, the turn itself and the results of its calls have step k.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anyorder_jax.formats.cuts import is_cut
from anyorder_jax.formats.parts import Part, Reading, identifier
from anyorder_jax.types import Kind, Trajectory, Unit

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Agents of ETO and AgentGym answer their instructions with one of these before the episode begins.
_ACKNOWLEDGEMENT = re.compile(
    r"\s*(ok|okay|understood|got it|i understand)\b[.!,]?(\s*i('ll| will) follow your instructions\b.*)?\s*",
    re.IGNORECASE | re.DOTALL,
)
_TASK_KEYS = ("task_id", "instance_id", "query_id", "problem_id", "question_id")
_ID_KEYS = ("id", "item_id", "episode_id", "trajectory_id", "conversation_id", "session_id", "instance_id", "uuid")
_SUCCESS_KEYS = ("success", "is_success", "resolved", "win")
_RETURN_KEYS = ("reward", "score", "return")
_HUGE = 1e300
_NESTED_KEYS = ("extra", "metadata", "meta", "info", "details", "outcome")

Source = Mapping[str, Any]
"""What `Trajectory.source` begins with: format, file, line."""


@dataclass
class _Call:
    name: str | None
    id: str | None
    results: list[str] = field(default_factory=list)
    is_answered: bool = False


class Episode:
    """Collects units. Feed turns in the order of the log, then `trajectory`."""

    def __init__(self, reading: Reading):
        self.reading = reading
        self._units: list[Unit] = []
        self._step = 0
        self._has_acted = False  # in this step
        self._has_goal = False
        self._systems: set[str] = set()
        self._calls: list[_Call] = []  # of the current turn
        self._unmatched: list[str] = []
        self._old_ids: set[str] = set()  # calls of earlier turns
        self._num_turns = 0

    def _clean(self, text: str) -> str:
        """Text that UTF-8 can hold; "" where there is nothing but space."""
        if not text or text.isspace():
            return ""
        if not text.isascii():
            text, num_broken = _LONE_SURROGATE.subn("\ufffd", text)
            if num_broken:
                self.reading.counts["broken_characters"] += num_broken
        return text

    def _put(self, kind: Kind, text: str, is_expert: bool = True) -> None:
        if kind in (Kind.OBSERVATION, Kind.TOOL) and is_cut(text):
            self.reading.counts["truncated_observations"] += 1
        self._units.append(Unit(kind, self._step, text, is_expert=is_expert))

    def _close_turn(self) -> None:
        """Writes the results of the turn's calls, in the order of the calls, and then those that belong to none."""
        for call in self._calls:
            for text in call.results:
                self._put(Kind.TOOL, text)
            if call.id is not None:
                self._old_ids.add(call.id)
        for text in self._unmatched:
            self._put(Kind.TOOL, text)
        self._calls, self._unmatched = [], []

    def _see(self, kind: Kind, text: str) -> None:
        text = self._clean(text)
        if not text:
            self.reading.counts["empty_turns"] += 1
            return
        self._close_turn()
        if self._has_acted:
            self._step, self._has_acted = self._step + 1, False
        self._put(kind, text)

    def system(self, text: str) -> None:
        """Instructions or tool schemas. A text that was there before is dropped: some logs repeat it in every turn."""
        if text in self._systems:
            self.reading.counts["repeated_system"] += 1
            return
        self._systems.add(text)
        self._see(Kind.SYSTEM, text)

    def user(self, text: str) -> None:
        """A user's turn: the first is the goal."""
        self._see(Kind.USER if self._has_goal else Kind.GOAL, text)
        self._has_goal = self._has_goal or bool(text.strip())

    def observation(self, text: str) -> None:
        """What the environment shows."""
        self._see(Kind.OBSERVATION, text)

    @property
    def has_goal(self) -> bool:
        """Whether a user's turn was there."""
        return self._has_goal

    @property
    def waiting(self) -> list[str | None]:
        """The names of the current turn's calls that have no result yet."""
        return [call.name for call in self._calls if not call.is_answered]

    def agent(self, parts: list[Part], is_expert: bool = True) -> None:
        """One turn of the agent: thoughts, what it says and what it calls, in this order. An empty one is dropped."""
        kept = [part._replace(text=text) for part in parts if (text := self._clean(part.text))]
        if not kept:
            self.reading.counts["empty_turns"] += 1
            return
        self._close_turn()
        if self._has_acted:
            self._step += 1
        self._has_acted = True
        self._num_turns += 1
        for part in kept:
            self._put(Kind.THOUGHT if part.kind == "thought" else Kind.ACTION, part.text, is_expert)
            if part.kind == "call":
                self._calls.append(_Call(part.name, part.id))
        self.reading.counts["untrained_turns"] += not is_expert

    def _call_of(self, name: str | None, call_id: str | None) -> _Call | None:
        if call_id is not None:
            same = next((call for call in self._calls if call.id == call_id), None)
            if same is not None:
                return same
        # Logs without ids at the calls, or without ids at the results: by name, then by order.
        waiting = [c for c in self._calls if not c.is_answered and (c.id is None or call_id is None)]
        return next((c for c in waiting if name is not None and c.name == name), waiting[0] if waiting else None)

    def result(self, text: str, name: str | None = None, call_id: str | None = None) -> None:
        """The result of a call, in any order; one that belongs to no call of the turn stays where it stands."""
        call = self._call_of(name, call_id)
        text = self._clean(text)
        if call is not None:
            call.is_answered = True
        if not text:
            self.reading.counts["empty_turns"] += 1
            return
        if call is not None:
            call.results.append(text)
            return
        is_late = call_id is not None and call_id in self._old_ids
        self.reading.counts["late_results" if is_late else "unmatched_results"] += 1
        if self._has_acted:
            self._unmatched.append(text)
        else:
            self._put(Kind.TOOL, text)

    def _do_not_train_acknowledgement(self) -> bool:
        """Marks a first turn that only says "OK" to the instructions as no target."""
        acts = [i for i, unit in enumerate(self._units) if unit.kind in (Kind.THOUGHT, Kind.ACTION)]
        if len(acts) < 2:
            return False
        first, text = self._units[acts[0]], self._units[acts[0]].text
        if self._units[acts[1]].step == first.step or text is None or not _ACKNOWLEDGEMENT.fullmatch(text):
            return False
        if first.is_expert:
            self._units[acts[0]] = Unit(first.kind, first.step, text, is_expert=False)
            self.reading.counts["untrained_turns"] += 1
        return True

    def trajectory(self, record: Mapping[str, Any], source: Source) -> Trajectory:
        """The finished trajectory.

        Args:
          record: the logged record, for its id (without one the hash of the units takes its place), task and outcome.
          source: goes into `source`, before the task and the counts.

        Raises:
          ValueError: the agent never speaks.
        """
        self._close_turn()
        if self._num_turns == 0 and not (self.reading.is_unfinished and self._units):
            raise ValueError("the agent has no turn in it, so there is nothing to learn")
        is_instructed = self._do_not_train_acknowledgement()
        counts = {name: number for name, number in sorted(self.reading.counts.items()) if number}
        units = tuple(self._units)
        whole = {"environment": "", **source, "task": task_of(record, units, is_instructed)}
        if counts:
            whole["counts"] = counts
        outcome = {**_outcome(record), "num_steps": self._num_turns}
        return Trajectory(name_of(record, units), units, outcome, whole)


def name_of(record: Mapping[str, Any], units: tuple[Unit, ...]) -> str:
    """The record's id, or the hash of its units."""
    name = identifier(next((record[key] for key in _ID_KEYS if record.get(key) is not None), None))
    return _LONE_SURROGATE.sub("\ufffd", name or digest_of(units))


def task_of(record: Mapping[str, Any], units: tuple[Unit, ...], is_instructed: bool = False) -> str:
    """The task's id, or the hash of its text: the goal, and where that only instructs, what comes next too."""
    given = lookup(record, _TASK_KEYS)
    if isinstance(given, (str, int)) and not isinstance(given, bool) and str(given):
        return _LONE_SURROGATE.sub("\ufffd", str(given))
    goal = next((unit for unit in units if unit.kind == Kind.GOAL), None)
    goal = goal or next((unit for unit in units if unit.kind == Kind.OBSERVATION), units[0])
    texts = [goal.text or ""]
    if is_instructed:
        texts += [unit.text or "" for unit in units if unit.kind in (Kind.OBSERVATION, Kind.USER) and unit.step == 1]
    return "text:" + digest(" ".join(" ".join(texts).split()).casefold())


def digest(text: str) -> str:
    """16 hex digits of a text."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def digest_of(units: tuple[Unit, ...]) -> str:
    """16 hex digits of units: equal for equal kinds, steps, texts and marks."""
    hasher = hashlib.blake2b(digest_size=8)
    for unit in units:
        text = (unit.text or "").encode()
        hasher.update(b"%d %d %d %d " % (unit.kind, unit.step, unit.is_expert, len(text)) + text)
    return hasher.hexdigest()


def lookup(record: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    """The first of `keys` that the record has, else that its `extra`, `metadata`, `info`, ... has; None without."""
    nested = [record[key] for key in _NESTED_KEYS if isinstance(record.get(key), dict)]
    for place in (record, *nested):
        for key in keys:
            if place.get(key) is not None:
                return place[key]
    return None


def _outcome(record: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    success, total = lookup(record, _SUCCESS_KEYS), lookup(record, _RETURN_KEYS)
    if isinstance(success, bool):
        found["success"] = success
    if isinstance(total, (int, float)) and not isinstance(total, bool) and -_HUGE < total < _HUGE:
        found["return"] = float(total)
    return found
