"""Policies: what to do next in each of several episodes, from what has been seen so far. (Those that score the words
of a grid are in `evaluation.policy`.)

Generated    the model writes the decision (thought, action); an action that does not parse is hidden once more and
             written from left to right; what then does not parse either is told the agent as an outcome
Random       an action out of those that the world says are valid now
Frequent     the most frequent action of the training data, always
Repeated     the last action again; at the start the most frequent first one of the training data
Copied       of worlds of calls: the function whose name shares most words with what the user said last, with what was
             said as arguments; then, until the user speaks again, the last one that is offered (which ends)
Advised      the world's own expert
"""

from __future__ import annotations

import collections
import dataclasses
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from anyorder_jax import keys
from anyorder_jax.acting.decoding import SURE, Decoding
from anyorder_jax.acting.doubt import Doubt
from anyorder_jax.acting.episode import Decision, Episode, answers
from anyorder_jax.acting.generator import Generator, Written, with_decoding
from anyorder_jax.environments.calls import Call, Function, drawn, words_in
from anyorder_jax.environments.server import SessionError
from anyorder_jax.types import Kind, Trajectory, Unit

_NAME_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")


class Policy(Protocol):
    """Writes the next decision of each episode, in order. A decision depends on its episode alone, not on what else is
    played."""

    def act(self, episodes: Sequence[Episode]) -> Sequence[Decision]: ...


class Generated:
    """The model writes.

    Args:
      generator: of the checkpoint.
      kinds: what a decision is made of, the action last (`Task.decision`).
      doubt: finds what is hidden of the history; None: all is seen.
    """

    def __init__(self, generator: Generator, kinds: Sequence[Kind], doubt: Doubt | None = None) -> None:
        assert kinds[-1] == Kind.ACTION, kinds
        self._generator, self._kinds, self._doubt = generator, tuple(kinds), doubt
        self._carefully = with_decoding(generator, generator.decoding._replace(is_left_to_right=True))

    def act(self, episodes: Sequence[Episode]) -> list[Decision]:
        """Decisions; the actions that do not parse are repaired together."""
        seen = [episode.trajectory() for episode in episodes]
        return self.decide(seen, lambda texts: answers(episodes, "parse_error", texts))

    def decide(
        self, seen: Sequence[Trajectory], reasons_of: Callable[[Sequence[str]], Sequence[Any]]
    ) -> list[Decision]:
        """The next decision of each episode.

        Args:
          seen: each as far as it was played.
          reasons_of: told the text of each action: why it does not parse, "" where it does.
        """
        doubted = self._doubt.units(seen) if self._doubt else [(np.zeros(0, int), 0)] * len(seen)
        unseen = [numbers for numbers, _ in doubted]
        written = self._generator.write(seen, [self._kinds] * len(seen), unseen=unseen)
        passes = [w.num_passes + more for w, (_, more) in zip(written, doubted, strict=True)]
        decisions = [Decision(w.units, n, _num_tokens(w)) for w, n in zip(written, passes, strict=True)]
        reasons = reasons_of([d.units[-1].text or "" for d in decisions])
        broken = [i for i, reason in enumerate(reasons) if reason]
        thought = [dataclasses.replace(seen[i], units=seen[i].units + decisions[i].units[:-1]) for i in broken]
        kinds = [self._kinds[-1:]] * len(broken)
        again = self._carefully.write(thought, kinds, unseen=[unseen[i] for i in broken]) if broken else []
        for i, w in zip(broken, again, strict=True):
            units, num_passes, tokens, *_ = decisions[i]
            new = (*units[:-1], *w.units)
            decisions[i] = Decision(new, num_passes + w.num_passes, tokens + _num_tokens(w), num_repairs=1)
        return decisions


def _num_tokens(written: Written) -> int:
    return sum(map(len, written.ids))


class Random:
    """Uniform over the actions that the world says are valid. A draw depends on (seed, task, step) alone.

    Args:
      seed: of the draws.
      number_of: an episode's own number in them, of its task.
    """

    def __init__(self, seed: int, number_of: Callable[[Episode], int] = lambda e: zlib.crc32(e.task.encode())) -> None:
        self._seed, self._number_of = seed, number_of

    def act(self, episodes: Sequence[Episode]) -> list[Decision]:
        return [
            _gives_up(valid) if isinstance(valid, SessionError) else one_action(episode, self._draw(episode, valid))
            for episode, valid in zip(episodes, answers(episodes, "valid_actions"), strict=True)
        ]

    def _draw(self, episode: Episode, valid: Sequence[str]) -> str:
        place = self._number_of(episode), episode.num_steps
        return valid[int(keys.generator(self._seed, "random action", *place).integers(len(valid)))]


class Frequent:
    """Always the same action."""

    def __init__(self, text: str) -> None:
        self._text = text

    def act(self, episodes: Sequence[Episode]) -> list[Decision]:
        return [one_action(episode, self._text) for episode in episodes]


class Repeated:
    """The last action again."""

    def __init__(self, first: str) -> None:
        self._first = first

    def act(self, episodes: Sequence[Episode]) -> list[Decision]:
        return [one_action(episode, episode.last_action() or self._first) for episode in episodes]


class Copied:
    """A call made of the words of the request alone."""

    def act(self, episodes: Sequence[Episode]) -> list[Decision]:
        return [
            _gives_up(found) if isinstance(found, SessionError) else one_action(episode, self._call(episode, found))
            for episode, found in zip(episodes, answers(episodes, "functions"), strict=True)
        ]

    def _call(self, episode: Episode, functions: Sequence[Function]) -> str:
        newest = max(i for i, unit in enumerate(episode.units) if unit.kind in (Kind.GOAL, Kind.USER))
        has_acted = any(unit.kind is Kind.ACTION for unit in episode.units[newest:])
        request = episode.units[newest].text or ""
        said = {word.lower() for word in _NAME_PART.findall(request)}

        def num_shared(function: Function) -> int:
            return len({part.lower() for part in _NAME_PART.findall(function.name)} & said)

        function = functions[-1] if has_acted else max(functions[:-1], key=num_shared, default=functions[-1])
        words = [episode.units[-1].text or ""] if has_acted else [w for w in words_in(request) if w.lower() not in said]
        arguments = {
            p.name: p.choices[0] if p.choices else drawn(p, words or words_in(request), np.random.default_rng(0))
            for p in function.parameters
            if p.is_required or has_acted
        }
        return Call(function.name, arguments).json()


class Advised:
    """The world's expert, thoughts and all. It gives up where it does not know how to go on."""

    def act(self, episodes: Sequence[Episode]) -> list[Decision]:
        found = answers(episodes, "advice")
        return [
            _gives_up(advice)
            if isinstance(advice, SessionError)
            else Decision(tuple(dataclasses.replace(unit, step=episode.step) for unit in advice))
            for episode, advice in zip(episodes, found, strict=True)
        ]


def frequent_actions(trajectories: Iterable[Trajectory]) -> tuple[str, str]:
    """The most frequent action of all, and of the first of each episode; ties go to the first in the alphabet.

    Raises:
      ValueError: without any action.
    """
    every: collections.Counter[str] = collections.Counter()
    first: collections.Counter[str] = collections.Counter()
    for trajectory in trajectories:
        texts = [unit.text or "" for unit in trajectory.units if unit.kind == Kind.ACTION]
        every.update(texts)
        first.update(texts[:1])
    if not every:
        raise ValueError("policy: the training split has no action, so none is the most frequent.")
    return min(every, key=lambda text: (-every[text], text)), min(first, key=lambda text: (-first[text], text))


def one_action(episode: Episode, text: str) -> Decision:
    """A decision without a thought."""
    return Decision((Unit(Kind.ACTION, episode.step, text=text),))


def _gives_up(error: SessionError) -> Decision:
    return Decision((), reason=str(error))


__all__ = [
    "SURE", "Advised", "Copied", "Decision", "Decoding", "Frequent", "Generated", "Policy", "Random", "Repeated",
    "frequent_actions", "one_action",
]  # fmt: skip
