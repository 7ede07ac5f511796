"""Policies of grids: a rule that turns scores of the action words into an action (`acting.policy` has the others).

The model as policy fills one hole: the current action, with nothing after it.

    tokens   [goal] go to .. E  [observation] o_{t-1}  [action] a_{t-1}  [observation] o_t  [action] M
    asked                                                                                           x

Three rules turn its logits over the action words into an action; `marginals` plugs the training data's action
frequencies into the same rules, which shows what a rule does without a model.

    greedy          argmax_a  l_a
    sampled         a ~ softmax(l)
    visit_penalty   argmax_a  log_softmax(l)_a - 2 n(o_t, a)   n: how often a was chosen at this observation
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from anyorder_jax import keys
from anyorder_jax.acting.episode import Decision, Episode
from anyorder_jax.acting.names import RULES
from anyorder_jax.acting.policy import one_action
from anyorder_jax.data import units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.types import Codec, Field, Kind, Trajectory, Unit

VISIT_PENALTY = 2.0  # nats a visit; not tuned


def seed_of(episode: Episode) -> int:
    """The seed that a grid's task is."""
    return int(episode.task)


class Scorer(Protocol):
    """Gives each action a logit."""

    def logits(self, episodes: Sequence[Episode]) -> np.ndarray:
        """float [num_episodes, A]; A counts action words."""
        ...


class Framer:
    """Turns what was seen into the tokens that training showed: `units.window(units.tokenise(...))`, action
    hidden.

    The layout is a concatenation of units, so each unit is tokenised once, when it is new.
    """

    def __init__(self, codec: Codec, vocabulary: Vocabulary, num_steps: int, actions: Sequence[str]) -> None:
        """num_steps: the window H, >= 1. actions: the words that may be chosen."""
        self._codec, self._vocabulary, self._num_steps = codec, vocabulary, num_steps
        hidden = self._tokenise(Unit(Kind.ACTION, 0, text=actions[0]))
        self._hole_L = self._hole_of(hidden)
        self.first_hidden = int(np.argmax(hidden.field_L != Field.FRAME)) - len(self._hole_L)
        """Where the action's word begins, counted from the end of the row (negative)."""
        self._tokens: dict[str, list[np.ndarray]] = {}

    def _hole_of(self, tokenised: units.TokenisedTrajectory) -> np.ndarray:
        """A unit's tokens, all hidden."""
        return np.where(tokenised.field_L == Field.FRAME, tokenised.tokens_L, self._vocabulary.mask_id)

    def _tokenise(self, unit: Unit) -> units.TokenisedTrajectory:
        alone = dataclasses.replace(unit, step=0)
        return units.tokenise(Trajectory("being played", (alone,)), self._codec, self._vocabulary)

    def row(self, task: str, seen: Sequence[Unit]) -> np.ndarray:
        """int32 [length]: goal and last H steps of the episode of `task`, which ends with its newest
        observation.

        Raises:
          ValueError: when a goal or an observation holds a word that the vocabulary does not know.
        """
        return self.plan_row(task, seen, 1)[0]

    def _seen_tokens(self, task: str, seen: Sequence[Unit]) -> list[np.ndarray]:
        assert seen[-1].kind == Kind.OBSERVATION, "a policy acts after an observation"
        cached = self._tokens.setdefault(task, [])
        cached += [self._tokenise(unit).tokens_L for unit in seen[len(cached) :]]
        return cached

    def plan_row(
        self, task: str, seen: Sequence[Unit], num_actions: int, goal_state: Unit | None = None
    ) -> tuple[np.ndarray, list[int]]:
        """A row with holes for `num_actions` actions and the observations between them, H steps in all.

            [goal] ..  [observation] o_t  [action] M  [observation] M .. M  [action] M      goal_state stands at the end

        Args:
          task: of the episode.
          seen: its units so far.
          num_actions: holes for actions.
          goal_state: the observation that stands at the end; None: none does.

        Returns:
          int32 [length], and where each action's word begins, from the start.
        """
        num_future = num_actions - 1 + (goal_state is not None)
        assert num_future < self._num_steps, "one step of the window at least is the past"
        cached = self._seen_tokens(task, seen)
        first_step = seen[-1].step - (self._num_steps - num_future) + 1
        shown = [t for t, u in zip(cached, seen, strict=True) if u.kind == Kind.GOAL or u.step >= first_step]
        start = np.concatenate([*shown, self._hole_L])
        places = [len(start) + self.first_hidden]
        view_L = self._hole_of(self._tokenise(seen[-1]))
        for _ in range(num_actions - 1):
            start = np.concatenate([start, view_L, self._hole_L])
            places.append(len(start) + self.first_hidden)
        if goal_state is not None:
            start = np.concatenate([start, self._tokenise(goal_state).tokens_L])
        return start.astype(np.int32), places


ActionLogits = Callable[[Sequence[np.ndarray], int], np.ndarray]
"""(rows of token ids, where the action begins from the end) -> float [rows, A];
`likelihood.Model.action_logits`."""


class ModelScorer:
    """The model's logits of the current action."""

    def __init__(self, framer: Framer, action_logits: ActionLogits) -> None:
        self._framer, self._action_logits = framer, action_logits

    def logits(self, episodes: Sequence[Episode]) -> np.ndarray:
        """float [num_episodes, A]."""
        rows = [self._framer.row(episode.task, episode.units) for episode in episodes]
        return self._action_logits(rows, self._framer.first_hidden)


class MarginalScorer:
    """The same logits at every step: the log frequencies of actions in the training data."""

    def __init__(self, log_marginal_A: np.ndarray) -> None:
        self._log_marginal_A = log_marginal_A

    def logits(self, episodes: Sequence[Episode]) -> np.ndarray:
        """float [num_episodes, A]."""
        return np.tile(self._log_marginal_A, (len(episodes), 1))


def log_softmax(logits_NA: np.ndarray) -> np.ndarray:
    """Over the last axis; -inf stays -inf."""
    shifted = logits_NA - logits_NA.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def check_rules(rules: Sequence[str]) -> None:
    """Raises ValueError for a rule that is not one of RULES, or none at all."""
    unknown = [rule for rule in rules if rule not in RULES]
    if unknown or not rules:
        raise ValueError(f"policy: expected rules out of {', '.join(RULES)}, got {unknown or 'none'}.")


class RulePolicy:
    """A rule on top of a scorer.

    A draw of `sampled` depends on (seed, the episode's seed, step) alone, not on what else is played. Visits are
    counted by episode: a fresh one for every time that seeds are played.
    """

    def __init__(self, scorer: Scorer, rule: str, actions: Sequence[str], seed: int) -> None:
        check_rules([rule])
        self._scorer, self._rule, self._actions, self._seed = scorer, rule, tuple(actions), seed
        self._visits: Counter[tuple[str, bytes, int]] = Counter()

    def act(self, episodes: Sequence[Episode]) -> list[Decision]:
        """One action word an episode."""
        log_p_NA = log_softmax(np.asarray(self._scorer.logits(episodes), np.float64))
        return [one_action(e, self._actions[self._choose(e, p_A)]) for e, p_A in zip(episodes, log_p_NA, strict=True)]

    def _choose(self, episode: Episode, log_p_A: np.ndarray) -> int:
        if self._rule == "greedy":
            return int(log_p_A.argmax())
        if self._rule == "sampled":
            rng = keys.generator(self._seed, "sample action", seed_of(episode), episode.num_steps)
            return int((log_p_A + rng.gumbel(size=len(log_p_A))).argmax())
        place = _identity(episode.units[-1])
        visits_A = [self._visits[episode.task, place, a] for a in range(len(log_p_A))]
        action = int((log_p_A - VISIT_PENALTY * np.array(visits_A)).argmax())
        self._visits[episode.task, place, action] += 1
        return action


def _identity(observation: Unit) -> bytes:
    """Bytes that are equal for equal observations, to count visits by."""
    return repr((observation.text, sorted((observation.data or {}).items()))).encode()
