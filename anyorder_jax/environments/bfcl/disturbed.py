"""Disturbed: a task in other words, or with something missing at first. Options behind an id, as `noise`'s.

    words=1              a greeting before, or thanks behind, what the user says
    words=2              and other words for what should be done ("show" -> "let me see")
    words=3              and one of ten longer words with two letters exchanged
    missing_function=1   a function that a turn needs is described in the turn after it, as in BFCL's miss_func
    missing_parameter=1  a value that a turn names is told in the turn after it, as in BFCL's miss_param

The last two are shares of the tasks that have it, where they can: a turn has to call a function that none before it
calls; a value has to stand in the turn's words once. Values and names of the answer keep their words. Draws are
functions of the task alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from anyorder_jax.environments.bfcl.task import Task
from anyorder_jax.environments.branching import draws

LATER = "something that I still have to tell you"

_AROUND = (
    "Hello! {}", "Good morning. {}", "I could use some help with this. {}", "Here is what I would like. {}",
    "{} Thank you in advance.", "{} That would help me a lot.",
)  # fmt: skip
_OTHER_WORDS = {
    "show": "let me see", "display": "let me see", "create": "set up", "make": "set up", "delete": "get rid of",
    "remove": "get rid of", "find": "look for", "search": "look", "locate": "look for", "list": "go through",
    "send": "pass on", "buy": "get", "purchase": "get", "check": "look at", "tell": "let", "get": "fetch",
    "move": "bring", "copy": "duplicate", "compute": "work out", "calculate": "work out", "write": "put down",
    "begin": "start", "start": "begin", "need": "want", "want": "would like", "please": "kindly", "big": "large",
    "quickly": "fast", "now": "at this point", "also": "as well", "currently": "right now",
}  # fmt: skip
_WORD = re.compile(r"(?<![\w./'\"@#$-])[a-z]+(?![\w./'\"@-])(?!\.\w)")
_LEAST_LETTERS, _TYPO_SHARE = 5, 0.1


def disturbed(task: Task, options: Mapping[str, float | str]) -> Task:
    """The task as an id's options want it.

    Args:
      task: as it is.
      options: of `options.read`; those of `noise` change nothing here.
    """
    changes: tuple[tuple[str, Callable[[Task, np.random.Generator], Task]], ...] = (
        ("missing_function", without_function), ("missing_parameter", without_parameter),
    )  # fmt: skip
    changed = task
    for name, change in changes:
        rng = draws(name, *task.id.encode())
        if rng.random() < float(options.get(name, 0)):
            changed = change(changed, rng)
    return in_other_words(changed, int(options["words"])) if "words" in options else changed


def without_function(task: Task, rng: np.random.Generator) -> Task:
    """A function that one turn needs is offered from an added turn on, in which the answer's calls then stand; the task
    itself where no turn will do."""
    held = {name for names in task.held_back.values() for name in names}
    before: set[str] = set()
    found: list[tuple[int, str]] = []
    for turn, calls in enumerate(task.truth):
        offered = {function.name for function in task.offered(turn)}
        new = [call.name for call in calls if call.name in offered - held - before]
        found += [(turn, name) for name in new[:1]]
        before |= {call.name for call in calls}
    if not found:
        return task
    turn, name = found[int(rng.integers(len(found)))]
    return _split(task, turn, task.turns[turn], "", (name,))


def without_parameter(task: Task, rng: np.random.Generator) -> Task:
    """A value of one turn's calls is told in an added turn, in which the answer's calls then stand; the task itself
    where no value will do."""
    found = [
        (turn, text)
        for turn, calls in enumerate(task.truth)
        for call in calls
        for value in call.arguments.values()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
        for text in [str(value)]
        if len(text) > 1 and len(_standing(text).findall(task.turns[turn])) == 1
    ]
    if not found:
        return task
    turn, text = found[int(rng.integers(len(found)))]
    return _split(task, turn, _standing(text).sub(LATER, task.turns[turn]), f"It is {text}.", ())


def in_other_words(task: Task, level: int) -> Task:
    """What the user says in other words; what is said in an added turn stays.

    Args:
      task: as it is.
      level: 1, 2 or 3, as the module says.
    """
    values = [value for calls in task.truth for call in calls for value in (call.name, *call.arguments.values())]
    kept = {word.lower() for word in re.findall(r"[^\W_]+", json.dumps(values))}
    return replace(
        task,
        turns=tuple(
            _reworded(said, level, kept, draws("other words", *task.id.encode(), turn)) if said else ""
            for turn, said in enumerate(task.turns)
        ),
    )


def _split(task: Task, turn: int, said: str, added: str, names: tuple[str, ...]) -> Task:
    """A turn and an added one behind it, which gets the turn's calls and offers functions that were not before it."""
    held_back = {place + (place > turn): held for place, held in task.held_back.items()}
    if names:
        held_back[turn + 1] = names
    return replace(
        task,
        turns=(*task.turns[:turn], said, added, *task.turns[turn + 1 :]),
        truth=(*task.truth[:turn], (), *task.truth[turn:]),
        held_back=held_back,
    )


def _standing(text: str) -> re.Pattern[str]:
    """A value as a word of its own, with the quotation marks around it."""
    return re.compile(rf"(?<![\w./@#-])(['\"]?){re.escape(text)}\1(?![\w/@-])(?!\.\w)")


def _reworded(said: str, level: int, kept: set[str], rng: np.random.Generator) -> str:
    def other(found: re.Match[str]) -> str:
        word = found[0]
        if word in kept:
            return word
        if level >= 2 and word in _OTHER_WORDS:
            return _OTHER_WORDS[word]
        if level >= 3 and len(word) >= _LEAST_LETTERS and rng.random() < _TYPO_SHARE:
            place = int(rng.integers(1, len(word) - 2))
            return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
        return word

    around = _AROUND[int(rng.integers(len(_AROUND)))]
    quoted = re.split(r"('[^'\n]*'|\"[^\"\n]*\")", said)
    words = "".join(part if i % 2 else _WORD.sub(other, part) for i, part in enumerate(quoted))
    return around.replace("{}", words)
