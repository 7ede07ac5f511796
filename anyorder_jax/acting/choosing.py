"""Choosing: what a model that answers any question can do before it acts, off unless asked for.

    proposed    what the world says is valid, or N decisions that the model writes
    guided      the one with the highest    log p(a | goal, past) + w (log p(a | goal, past) - log p(a | past))
                two passes, whatever their number: once with the goal seen, once with it hidden
    checked     of these in their order, the first that its own result gives back: the model writes what it would lead
                to, and then, with the action hidden, which action led there; none: the first
    planned     of decisions that the model writes, the one whose plan is likeliest to be for the goal: the model writes
                what it would lead to, the next decision, and what that leads to; then it says how probable the goal
                is, hidden, given all that. Where it proposes one action alone, that
    doubtful    what is written, without the history that the model itself finds improbable (`doubt`)
    valid       what is written is a call of the world's functions, token by token of what can follow (`constrained`)

The log-probability of an action is that of a whole hidden unit in one pass, as the order `causal` asks it in training:
the sum over its tokens and first end. A decision's passes are counted (`passes_per_action`).
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anyorder_jax.acting.decoding import Decoding
from anyorder_jax.acting.episode import Decision, Episode, answers
from anyorder_jax.acting.generator import MAX_BLOCKS, Generator, with_decoding
from anyorder_jax.acting.question import Question
from anyorder_jax.acting.scores import Hole
from anyorder_jax.data import contexts, units
from anyorder_jax.environments.server import SessionError
from anyorder_jax.types import Field, Kind, Trajectory, Unit


class Choosing(NamedTuple):
    """How an action is chosen. guidance: w; 0: the goal's own log-probability alone. is_checked: see the module.
    is_constrained: nothing of this: a call of the world's functions is written, of what can follow (`constrained`).
    num_proposals: decisions that the model writes (the likeliest, and draws); 0: what the world says is valid.
    max_checked: proposals that are checked or planned from. result: what an action leads to. seed: of the draws.
    horizon: decisions of a plan, this one and those that the model writes; 0: no plan. doubt: nats per token, of
    `Doubt`; 0: nothing is doubted; else nothing of the above: the action is written."""

    guidance: float = 0.0
    is_checked: bool = False
    num_proposals: int = 0
    max_checked: int = 3
    result: Kind = Kind.OBSERVATION
    is_constrained: bool = False
    seed: int = 0
    horizon: int = 0
    doubt: float = 0.0


CHOICES = {
    "guided": Choosing(guidance=1.0),
    "checked": Choosing(is_checked=True),
    "planned": Choosing(horizon=2, num_proposals=4, max_checked=4),
    "doubtful": Choosing(doubt=1.0),
    "valid": Choosing(is_constrained=True),
}
"""By the name with which `evaluate --choosing` asks for them."""


class Chosen:
    """A policy: the model proposes, and chooses.

    Args:
      generator: of the checkpoint.
      kinds: what a decision is made of, the action last.
      choosing: how.
    """

    def __init__(self, generator: Generator, kinds: Sequence[Kind], choosing: Choosing) -> None:
        assert kinds[-1] == Kind.ACTION, kinds
        self._generator, self._kinds, self._choosing = generator, tuple(kinds), choosing

    def act(self, episodes: Sequence[Episode]) -> list[Decision]:
        """One decision each; it depends on its episode alone."""
        valid: Sequence[Sequence[str] | SessionError] = [()] * len(episodes)
        if not self._choosing.num_proposals:
            valid = answers(episodes, "valid_actions")
        return [self._decide(episode, texts) for episode, texts in zip(episodes, valid, strict=True)]

    def _decide(self, episode: Episode, valid: Sequence[str] | SessionError) -> Decision:
        if isinstance(valid, SessionError):
            return Decision((), reason=f"no proposals: {valid}")
        seen = episode.trajectory()
        thoughts, passes, tokens = self._think(seen)
        seen = dataclasses.replace(seen, units=seen.units + thoughts)
        proposals, more, written = self._propose(seen, valid)
        scores = self.scores(seen, proposals)
        passes += more + 1 + (self._choosing.guidance != 0)
        order = np.argsort(-scores, kind="stable")
        chosen = proposals[order[0]]
        if self._choosing.is_checked:
            for i in order[: self._choosing.max_checked].tolist():
                is_given_back, more = self.check(seen, proposals[i])
                passes += more
                if is_given_back:
                    chosen = proposals[i]
                    break
        first = [proposals[i] for i in order[: self._choosing.max_checked]]
        if self._choosing.horizon and len(first) > 1:
            satisfied, more, num_written = self.plan(seen, first)
            chosen = first[int(satisfied.argmax())]
            passes, written = passes + more, written + num_written
        action = Unit(Kind.ACTION, episode.step, text=chosen)
        return Decision((*thoughts, action), passes, tokens + written)

    def _think(self, seen: Trajectory) -> tuple[tuple[Unit, ...], int, int]:
        if len(self._kinds) == 1:
            return (), 0, 0
        (written,) = self._generator.write([seen], [self._kinds[:-1]])
        return written.units, written.num_passes, sum(map(len, written.ids))

    def _propose(self, seen: Trajectory, valid: Sequence[str]) -> tuple[list[str], int, int]:
        """(texts, passes, tokens written)."""
        if not self._choosing.num_proposals:
            return list(dict.fromkeys(valid)), 0, 0
        place = zlib.crc32(repr([seen.id, len(seen.units)]).encode())
        seeds = [(place + n + 1009 * self._choosing.seed) % 2**31 for n in range(1, self._choosing.num_proposals)]
        kinds = [self._kinds[-1:]] * len(seeds)
        written = self._generator.write([seen], [self._kinds[-1:]])
        written += with_decoding(self._generator, Decoding(temperature=1.0)).write([seen] * len(seeds), kinds, seeds)
        texts = dict.fromkeys(w.units[-1].text or "" for w in written)
        return list(texts), sum(w.num_passes for w in written), sum(len(ids) for w in written for ids in w.ids)

    def scores(self, seen: Trajectory, texts: Sequence[str]) -> np.ndarray:
        """float64 [N]: of each action, as the module says. Longer than MAX_BLOCKS blocks: -inf."""
        ids = [self._ids(seen, text) for text in texts]
        block = self._generator.task.layout.blocks[Kind.ACTION]
        num_blocks = min(max(-(-len(i) // block) for i in ids), MAX_BLOCKS)
        question = self._generator.question(seen, (Kind.ACTION,), [num_blocks])
        is_goal_L = np.isin(question.example.slots_GL[0], np.flatnonzero(question.example.kind_U == Kind.GOAL))
        everything = np.ones(len(question.example), bool)
        ways = [everything] if not self._choosing.guidance else [everything, ~is_goal_L]
        log_p = [_of_each(found, ids) for found in self._generator.log_p([question] * len(ways), ways)]
        if len(log_p) == 1:
            return log_p[0]
        given, without = log_p
        w = self._choosing.guidance
        return np.where(np.isfinite(given), given + w * (given - np.where(np.isfinite(without), without, 0.0)), given)

    def _ids(self, seen: Trajectory, text: str) -> np.ndarray:
        """The tokens of an action that follows, its first end included."""
        task = self._generator.task
        unit = Trajectory("action", (Unit(Kind.ACTION, seen.units[-1].step, text=text),))
        before = [unit.kind for unit in seen.units]
        whole = units.tokenise(unit, task.codec, task.vocabulary, task.layout, before=before)
        return whole.tokens_L[whole.field_L == Field.TEXT]

    def check(self, seen: Trajectory, text: str) -> tuple[bool, int]:
        """(whether the action is what the model says led to the result that it predicts for it, passes)."""
        action = Unit(Kind.ACTION, seen.units[-1].step, text=text)
        done = dataclasses.replace(seen, units=(*seen.units, action))
        (written,) = self._generator.write([done], [(self._choosing.result,)])
        question = self._inverse(dataclasses.replace(done, units=(*done.units, *written.units)), len(written.units))
        (answer,) = self._generator.fill([question])
        ids = answer.tokens_L[question.is_hidden_L].tolist()
        return units.text_of(ids, self._generator.task.vocabulary) == text, written.num_passes + answer.num_passes

    def plan(self, seen: Trajectory, texts: Sequence[str]) -> tuple[np.ndarray, int, int]:
        """(float64 [N]: log p of the hidden goal given a plan that begins with each action, all 0 where there is no
        goal; passes; tokens written)."""
        plans = [_with(seen, (Unit(Kind.ACTION, seen.units[-1].step, text=text),)) for text in texts]
        passes = tokens = 0
        for kinds in [
            (self._choosing.result,),
            *[self._kinds, (self._choosing.result,)] * (self._choosing.horizon - 1),
        ]:
            written = self._generator.write(plans, [kinds] * len(plans))
            plans = [_with(plan, w.units) for plan, w in zip(plans, written, strict=True)]
            passes += sum(w.num_passes for w in written)
            tokens += sum(len(ids) for w in written for ids in w.ids)
        judged = self._generator.scores.judge([self._goal(plan) for plan in plans])
        return np.array([own.log_p_H.sum() for own in judged]), passes + len(plans), tokens

    def _goal(self, plan: Trajectory) -> Hole:
        """The goal of an episode, hidden."""
        task = self._generator.task
        example = units.tokenise(plan, task.codec, task.vocabulary, task.layout)
        shown = contexts.choose_for(contexts.lengths_of(example), 1, self._generator.budget)
        cut = contexts.select(example, shown)
        is_goal_L = np.isin(cut.slots_GL[0], np.flatnonzero(cut.kind_U == Kind.GOAL))
        return Hole(cut, is_goal_L, np.zeros(len(cut), bool))

    def _inverse(self, whole: Trajectory, num_results: int) -> Question:
        """The action before the last `num_results` units, hidden, with the thoughts of its decision."""
        task = self._generator.task
        example = units.tokenise(whole, task.codec, task.vocabulary, task.layout)
        num_last = num_results + len(self._kinds)
        shown = contexts.choose_for(contexts.lengths_of(example), num_last, self._generator.budget)
        first_thought = len(example.kind_U) - num_last
        shown = shown[(shown < first_thought) | (shown >= len(example.kind_U) - num_results - 1)]
        cut = contexts.select(example, shown)
        is_hidden_L = cut.slots_GL[0] == len(cut.kind_U) - num_results - 1
        return Question(cut, is_hidden_L, task.layout.blocks[Kind.ACTION])


def _with(seen: Trajectory, more: Sequence[Unit]) -> Trajectory:
    return dataclasses.replace(seen, units=(*seen.units, *more))


def _of_each(log_p_HV: np.ndarray, ids: Sequence[np.ndarray]) -> np.ndarray:
    """float64 [N]: the sum over each one's tokens; -inf for one that is longer than the hole."""
    return np.array(
        [log_p_HV[np.arange(len(i)), i].astype(np.float64).sum() if len(i) <= len(log_p_HV) else -np.inf for i in ids]
    )
