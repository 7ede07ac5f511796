"""Constrained: the model writes an action from left to right, of tokens that can follow in a call alone.

    pass 1   {"name":" M M M M ..     of every hidden place the likeliest token that can follow; the first one always,
    pass 2   {"name":"mv","arg M ..   the next ones while they are surer than the threshold; then the rest again

What can follow is the names of the task's functions, their parameters, and values of their types (`grammar`). So an
action is valid by construction, unless the names alone are longer than the room there is (`MAX_BLOCKS`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from anyorder_jax.acting import generator as generators
from anyorder_jax.acting.episode import Decision, Episode, answers
from anyorder_jax.acting.generator import Generator
from anyorder_jax.acting.grammar import COMPACT, Grammar, State
from anyorder_jax.acting.question import Question
from anyorder_jax.data import units
from anyorder_jax.environments.server import SessionError
from anyorder_jax.types import Kind, Trajectory, Unit

_HALF = "\ufffd"
_CLOSING_SHARE = 0.6
"""Of the room that an action has: from there on what is begun is brought to its end."""


class Constrained:
    """A policy: thoughts are written freely, then an action that can be done.

    Args:
      generator: of the checkpoint.
      kinds: what a decision is made of, the action last.
    """

    def __init__(self, generator: Generator, kinds: Sequence[Kind]) -> None:
        assert kinds[-1] == Kind.ACTION, kinds
        self._generator, self._kinds = generator, tuple(kinds)
        vocabulary = generator.task.vocabulary
        self._calls = vocabulary.frames.calls or COMPACT
        self._end_ids = frozenset(vocabulary.frames.end_ids)

    def act(self, episodes: Sequence[Episode]) -> list[Decision]:
        """One decision each; it depends on its episode alone."""
        offered = answers(episodes, "functions")
        return [self._decide(episode, found) for episode, found in zip(episodes, offered, strict=True)]

    def _decide(self, episode: Episode, functions: object) -> Decision:
        if isinstance(functions, SessionError):
            return Decision((), reason=f"no functions: {functions}")
        assert isinstance(functions, list)
        seen, passes, tokens = episode.trajectory(), 0, 0
        thoughts: tuple[Unit, ...] = ()
        if len(self._kinds) > 1:
            (written,) = self._generator.write([seen], [self._kinds[:-1]])
            thoughts, passes, tokens = written.units, written.num_passes, sum(map(len, written.ids))
            seen = dataclasses.replace(seen, units=seen.units + thoughts)
        ids, more = self.write(seen, Grammar(functions, self._calls))
        text = units.text_of(ids, self._generator.task.vocabulary)
        action = Unit(Kind.ACTION, episode.step, text=text)
        return Decision((*thoughts, action), passes + more, tokens + len(ids))

    def write(self, seen: Trajectory, grammar: Grammar) -> tuple[list[int], int]:
        """(the tokens of the action that comes next, its end included; passes)."""
        block = self._generator.task.layout.blocks[Kind.ACTION]
        room = generators.MAX_BLOCKS * block
        ids: list[int] = []
        limit, num_passes = 10**9, 0
        while len(ids) < room:
            question = self._question(seen, ids, len(ids) // block + 1)
            (log_p_HV,) = self._generator.log_p([question], [np.ones(len(question.example), bool)])
            num_passes += 1
            for place, log_p_V in enumerate(log_p_HV):
                token = self._next(ids, log_p_V, grammar, limit)
                if token is None:
                    return ids, num_passes
                if place and np.exp(log_p_V[token]) < self._generator.decoding.threshold:
                    break
                ids.append(token)
                if token in self._end_ids:
                    return ids, num_passes
                if limit == 10**9 and len(ids) >= _CLOSING_SHARE * room:
                    limit = len(self._text(ids))
        return ids, num_passes

    def _text(self, ids: Sequence[int]) -> str:
        return self._generator.task.vocabulary.decode_text(ids)

    def _next(self, ids: list[int], log_p_V: np.ndarray, grammar: Grammar, limit: int) -> int | None:
        """The likeliest token that can follow; None where none can."""
        before = self._text(ids)
        for token in np.argsort(-log_p_V, kind="stable").tolist():
            if not np.isfinite(log_p_V[token]):
                return None
            if token in self._end_ids:
                if grammar.state(before, limit) is State.WHOLE:
                    return token
                continue
            text = self._text([*ids, token])
            has_more = text != before or before.endswith(_HALF)  # a letter may have several tokens
            if has_more and grammar.state(text, limit) is not State.DEAD:
                return token
        return None

    def _question(self, seen: Trajectory, ids: Sequence[int], num_blocks: int) -> Question:
        """The action as a hole of so many blocks, its first tokens filled."""
        question = self._generator.question(seen, (Kind.ACTION,), [num_blocks])
        places = np.flatnonzero(question.is_hidden_L)[: len(ids)]
        tokens_L, is_hidden_L = question.example.tokens_L.copy(), question.is_hidden_L.copy()
        tokens_L[places], is_hidden_L[places] = ids, False
        return question._replace(
            example=dataclasses.replace(question.example, tokens_L=tokens_L), is_hidden_L=is_hidden_L
        )
