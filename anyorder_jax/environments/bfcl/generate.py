"""Generate: tasks over the eight classes, with their answers made by executing calls.

    class(es) -> initial state -> for each turn: one request, or two joined -> its words, its calls, what they answer

A task is a number, in the ranges of `sources.seed_range`: those of the test split have something that those before
never have (`Held`), of which training and validation are alike. A request that fails in the state that it meets is
drawn again; a task that is near an official one too (`is_near_official`).
"""

from __future__ import annotations

import collections
import functools
import json
import re
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from anyorder_jax.environments.bfcl import folds, tools
from anyorder_jax.environments.bfcl.disturbed import LATER
from anyorder_jax.environments.bfcl.requests import REQUESTS, Request
from anyorder_jax.environments.bfcl.scenarios import SCENARIOS, VALUES, Draw, one_of
from anyorder_jax.environments.bfcl.task import Task, official
from anyorder_jax.environments.branching import draws
from anyorder_jax.environments.calls import Call

VERSION = "1"
HELD_CLASSES = ("TicketAPI", "VehicleControlAPI")
"""Whole in the tests of `made-classes`."""

_RUN, _FIRST_TEST = 10**7, 9 * 10**6  # of sources.seed_range, where the test split begins
_OPENERS = ("{}.", "Please {}.", "Could you {}?", "I would like you to {}.", "Now {}.")
_JOINTS = ("{}, and then {}", "{}. After that, {}", "first {}, next {}")
_FAILED = re.compile(r"^Error during|\"error\"|not found|Unknown|\"00000\"|\"success\": false")
_MARK = re.compile(r"{(\w+)}")
_SHARE_JOINED, _SHARE_LACKING = 0.4, 0.1
_GRAM = 3


class _Asked(NamedTuple):
    """A request in a state: its name, its wording, the values of its marks, its calls, what they answered, and the
    state after them."""

    name: str
    words: str
    values: dict[str, Any]
    calls: tuple[Call, ...]
    answers: tuple[str, ...]
    after: tools.Instances


def held_requests() -> frozenset[str]:
    """Names of the requests that `made-templates` holds out: about one of six, the same ones for ever."""
    return frozenset(request.name for request in REQUESTS if zlib.crc32(request.name.encode()) % 6 == 0)


def held_wording(request: Request) -> str:
    """The wording of a request that `made-wordings` holds out, "" where it has one alone."""
    wordings = request.wordings
    return wordings[zlib.crc32(request.name.encode()) % len(wordings)] if len(wordings) > 1 else ""


@functools.cache
def _held_wordings() -> frozenset[str]:
    return frozenset(map(held_wording, REQUESTS)) - {""}


def _with_known_wordings(request: Request) -> Request:
    held = held_wording(request)
    return request._replace(wordings=tuple(words for words in request.wordings if words != held))


def is_held_pair(first: str, second: str) -> bool:
    """Whether `made-compositions` holds out that one request follows another within a turn: one pair of five."""
    return zlib.crc32(f"{first} + {second}".encode()) % 5 == 0


@functools.lru_cache(maxsize=64)
def task(name: str, number: str) -> Task:
    """The generated task of a number, written in digits.

    Args:
      name: of the world (`folds.MADE`).

    Raises:
      ValueError: for a text that is no number.
    """
    if not (number.isascii() and number.isdecimal()):
        raise ValueError(f"bfcl: expected a number as task of a generated world, got {number!r}")
    is_test = int(number) % _RUN >= _FIRST_TEST
    for attempt in range(1000):
        rng = draws(f"bfcl {name}", int(number), attempt)
        found = _made(rng, name, number, is_test)
        if found is not None and not is_near_official(found):
            return found
    raise RuntimeError(f"bfcl: no task for {name} {number}")


def _made(rng: Draw, name: str, number: str, is_test: bool) -> Task | None:
    """A task, or None where what was drawn does not fit."""
    held = folds.MADE[name]
    classes = [c for c in tools.CLASSES if held != "classes" or (c in HELD_CLASSES) == is_test]
    chosen = sorted(str(c) for c in rng.choice(classes, int(rng.integers(1, 3)), replace=False))
    config = {c: SCENARIOS[c](rng) for c in chosen}
    instances = tools.Instances.opened(chosen, config, False)
    requests = [r for r in REQUESTS if r.class_name in chosen]
    if held == "wordings" and not is_test:
        requests = [_with_known_wordings(r) for r in requests]
    turns: list[str] = []
    truth: list[tuple[Call, ...]] = []
    held_back: dict[int, tuple[str, ...]] = {}
    asked: list[list[_Asked]] = []
    for _ in range(int(rng.integers(2, 5))):
        parts = _turn(rng, requests, instances)
        if not parts:
            return None
        if not _are_needed(parts, [a for turn in asked for part in turn for a in part.answers], instances):
            return None
        asked.append(parts)
        calls = tuple(call for part in parts for call in part.calls)
        lack, name_called = rng.random(), calls[0].name
        if lack < _SHARE_LACKING and len(parts) == 1 and parts[0].values:
            key = one_of(rng, sorted(parts[0].values))
            turns += [_said(rng, parts, key), f"It is {_shown(parts[0].values[key])}."]
            truth.append(())
        elif lack > 1 - _SHARE_LACKING and not any(call.name == name_called for turn in truth for call in turn):
            turns += [_said(rng, parts), ""]
            truth.append(())
            held_back[len(turns) - 1] = (name_called,)
        else:
            turns.append(_said(rng, parts))
        truth.append(calls)
        instances = parts[-1].after
    if not _is_of_split(held, asked, is_test):
        return None
    named = f"{folds.PREFIX}{name}/{number}"
    return Task(named, tuple(turns), tuple(truth), tuple(chosen), config, held_back=held_back)


def _are_needed(parts: Sequence[_Asked], told: Sequence[str], before: tools.Instances) -> bool:
    """Whether the checker would notice if any call of a turn were left out: its answer is told by no other, or the
    state at the end of the turn would be another one.

    Args:
      parts: of the turn.
      told: the answers of the turns before.
      before: the state when the turn begins.
    """
    calls = [call for part in parts for call in part.calls]
    answers = [answer for part in parts for answer in part.answers]
    for place, answer in enumerate(answers):
        if answer in told or answers.count(answer) > 1:
            without = before.copy()
            for call in calls[:place] + calls[place + 1 :]:
                without.execute(call)
            if without.has_state_of(parts[-1].after):
                return False
    return True


def _is_of_split(held: str, asked: Sequence[Sequence[_Asked]], is_test: bool) -> bool:
    """A test has what is held out at least once, training never."""
    if held == "classes":
        return True
    if held == "wordings":
        return is_test == any(part.words in _held_wordings() for parts in asked for part in parts)
    if held == "templates":
        return is_test == any(part.name in held_requests() for parts in asked for part in parts)
    return is_test == any(is_held_pair(parts[0].name, parts[1].name) for parts in asked if len(parts) == 2)


def _turn(rng: Draw, requests: Sequence[Request], instances: tools.Instances) -> list[_Asked]:
    """One request or two, one after the other; none where what was drawn fails."""
    found: list[_Asked] = []
    for _ in range(1 + (rng.random() < _SHARE_JOINED)):
        part = _ask(rng, one_of(rng, requests), instances)
        if part is None:
            return []
        found.append(part)
        instances = part.after
    return found


def _ask(rng: Draw, request: Request, instances: tools.Instances) -> _Asked | None:
    """A request with values that the state has, executed; None where there are none, or it fails."""
    words = one_of(rng, request.wordings)
    values = {}
    for key in _MARK.findall(words):
        values[key] = VALUES[key](rng, instances)
        if values[key] is None:
            return None
    after = instances.copy()
    calls: list[Call] = []
    answers: list[str] = []
    for function, arguments in request.calls:
        call = Call(function, {key: _filled(value, values, answers) for key, value in arguments.items()})
        answers.append(after.execute(call))
        if _FAILED.search(answers[-1]):
            return None
        calls.append(call)
    return _Asked(request.name, words, values, tuple(calls), tuple(answers), after)


def _filled(value: Any, values: dict[str, Any], answers: Sequence[str]) -> Any:
    """An argument of a request, with what `requests` says about `$` and `@`."""
    if isinstance(value, list):
        return [_filled(item, values, answers) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, values, answers) for key, item in value.items()}
    if isinstance(value, str) and value.startswith("$"):
        return values[value[1:]]
    if isinstance(value, str) and value.startswith("@"):
        number, key = value[1:].split(".")
        return json.loads(answers[int(number)])[key]
    return value


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _said(rng: Draw, parts: Sequence[_Asked], lacking: str = "") -> str:
    """The words of a turn. lacking: the mark whose value is not told yet."""
    told = [
        part.words.format(**{k: LATER if k == lacking else _shown(v) for k, v in part.values.items()}) for part in parts
    ]
    sentence = told[0] if len(told) == 1 else one_of(rng, _JOINTS).format(*told)
    sentence = one_of(rng, _OPENERS).format(sentence)
    return sentence[0].upper() + sentence[1:]


def _grams(text: str) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return frozenset(zip(*(words[n:] for n in range(_GRAM)), strict=False))


@functools.cache
def _official() -> tuple[dict[tuple[str, ...], set[int]], frozenset[tuple[str, ...]]]:
    """(run of words -> the official turns that have it, the official answers of turns in text)."""
    turns: dict[tuple[str, ...], set[int]] = {}
    answers, count = set(), 0
    for category in folds.CATEGORIES:
        for number in range(folds.NUM_TASKS):
            known = official(f"multi_turn_{category}_{number}")
            answers.add(tuple(call.json() for turn in known.truth for call in turn))
            for said in known.turns:
                count += 1
                for gram in _grams(said):
                    turns.setdefault(gram, set()).add(count)
    return turns, frozenset(answers)


def is_near_official(made: Task) -> bool:
    """Whether a task is (nearly) an official one: the same calls, or a turn of which half the runs of three words stand
    in one official turn."""
    by_gram, answers = _official()
    if tuple(call.json() for turn in made.truth for call in turn) in answers:
        return True
    for said in made.turns:
        grams = _grams(said)
        shared = collections.Counter(turn for gram in grams if gram in by_gram for turn in by_gram[gram])
        if shared and max(shared.values()) * 2 >= len(grams):
            return True
    return False
