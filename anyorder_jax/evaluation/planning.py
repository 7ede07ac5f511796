"""Planning: other ways to take an action out of an any-order model than to fill the current hole greedily.

action_only     the current action, nothing after it (`policy.RulePolicy`, greedy)
plan_K          holes for K actions and the observations between them, all filled in one pass; the K actions are done
                before the next look at the model
goal_state      the last observation of the expert's own episode stands K steps ahead, for every K that the window
                holds; the most confident first action is done. It is told what success looks like: an oracle's hint
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from anyorder_jax.acting.episode import Decision, Episode
from anyorder_jax.acting.policy import Advised, Policy, Random, one_action
from anyorder_jax.evaluation import acting
from anyorder_jax.evaluation.held_out import HeldOut
from anyorder_jax.evaluation.likelihood import Model
from anyorder_jax.evaluation.policy import Framer, MarginalScorer, ModelScorer, RulePolicy, log_softmax, seed_of
from anyorder_jax.evaluation.rollout import play_all, summarise
from anyorder_jax.types import Kind, Unit


class Planner:
    """Fills several actions and does them all before it plans again.

    Args:
      framer: fresh.
      model: fills holes.
      word_ids: each action word's token ids.
      num_actions: K >= 1, at most H.
      is_stepwise: fills hole after hole instead of all in one pass.
      mask_id: what stands in holes.
    """

    def __init__(
        self, framer: Framer, model: Model, word_ids: Mapping[str, Sequence[int]], num_actions: int,
        is_stepwise: bool, mask_id: int,
    ) -> None:  # fmt: skip
        self._framer, self._model, self._num_actions = framer, model, num_actions
        self._word_ids = {word: tuple(ids) for word, ids in word_ids.items()}
        self._is_stepwise, self._mask_id = is_stepwise, mask_id
        self._queued: dict[str, list[str]] = {}

    def act(self, episodes: Sequence[Episode]) -> list[Decision]:
        """One action word an episode."""
        waiting = [episode for episode in episodes if not self._queued.get(episode.task)]
        if waiting:
            rows, places = zip(
                *(self._framer.plan_row(e.task, e.units, self._num_actions) for e in waiting), strict=True
            )
            filled = self._fill(rows)
            for episode, row, place in zip(waiting, filled, places, strict=True):
                self._queued[episode.task] = self._read(row, place) or [self._greedy(episode)]
        return [one_action(episode, self._queued[episode.task].pop(0)) for episode in episodes]

    def _greedy(self, episode: Episode) -> str:
        """What the current hole alone says: always an action."""
        row = self._framer.row(episode.task, episode.units)
        return list(self._word_ids)[int(self._model.action_logits([row], self._framer.first_hidden)[0].argmax())]

    def _fill(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The rows with the most probable token in every hole. Holes stand equally far from the end of each row."""
        filled = [row.copy() for row in rows]
        from_end = np.flatnonzero(rows[0] == self._mask_id) - len(rows[0])
        holes = np.split(from_end, np.flatnonzero(np.diff(from_end) > 1) + 1) if self._is_stepwise else [from_end]
        for hole in holes:
            places = [len(row) + hole for row in filled]
            for row, place_H, logits_HV in zip(filled, places, self._model.logits(filled, places), strict=True):
                row[place_H] = logits_HV.argmax(-1)
        return filled

    def _read(self, row: np.ndarray, places: Sequence[int]) -> list[str]:
        """The actions of a filled row, up to the first hole that holds no action."""
        words: list[str] = []
        for place in places:
            said = [w for w, ids in self._word_ids.items() if tuple(row[place : place + len(ids)].tolist()) == ids]
            if not said:
                break
            words.append(said[0])
        return words


class GoalPlanner:
    """Chooses the action that leads to a given observation.

    Args:
      framer: fresh.
      model: scores actions.
      actions: in the order of its logits.
      goal_states: task -> the observation to reach.
      num_steps: H.
    """

    def __init__(
        self, framer: Framer, model: Model, actions: Sequence[str], goal_states: Mapping[str, Unit], num_steps: int
    ) -> None:
        self._framer, self._model, self._actions = framer, model, tuple(actions)
        self._goal_states, self._num_steps = goal_states, num_steps

    def act(self, episodes: Sequence[Episode]) -> list[Decision]:
        """One action word an episode."""
        log_p_KNA = []
        for num_ahead in range(1, self._num_steps):
            framed = [self._framer.plan_row(e.task, e.units, num_ahead, self._goal_states[e.task]) for e in episodes]
            first = framed[0][1][0] - len(framed[0][0])  # the same for all: what follows has a fixed length
            rows = [row for row, _ in framed]
            log_p_KNA.append(log_softmax(np.asarray(self._model.action_logits(rows, first), np.float64)))
        best_NA = np.max(log_p_KNA, axis=0)
        return [one_action(e, self._actions[int(a)]) for e, a in zip(episodes, best_NA.argmax(-1), strict=True)]


def evaluate(
    held_out: HeldOut, model: Model, *, plans: Sequence[int] = (2, 3), seed: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Success of every variant on the held-out seeds, with the greedy rule without a model, random and the expert.

    Args:
      held_out, model: what is played, and by what.
      plans: the K of plan_K, those that the window holds.
      seed: of the random policy.
      say: told what is being played.

    Returns:
      [variant][measure].
    """
    task, actions = held_out.task, held_out.actions
    word_ids = {word: task.vocabulary.encode_slot(word) for word in actions}
    log_marginal_A = held_out.marginals.action_log_marginals(list(word_ids.values()))
    outcomes, played = play_all(held_out.make_environment, held_out.seeds, Advised())
    goal_states = {e.task: [u for u in e.units if u.kind == Kind.OBSERVATION][-1] for e in played}

    def planner(num_actions: int, is_stepwise: bool) -> Callable[[], Policy]:
        return lambda: Planner(
            held_out.make_framer(), model, word_ids, num_actions, is_stepwise, task.vocabulary.mask_id
        )

    makers: dict[str, Callable[[], Policy]] = {
        "action_only": lambda: RulePolicy(
            ModelScorer(held_out.make_framer(), model.action_logits), "greedy", actions, seed
        )
    }
    for num_actions in plans:
        if num_actions <= held_out.num_steps:
            makers[f"plan_{num_actions}"] = planner(num_actions, False)
            makers[f"plan_{num_actions}_stepwise"] = planner(num_actions, True)
    if held_out.num_steps > 1:
        makers["goal_state"] = lambda: GoalPlanner(
            held_out.make_framer(), model, actions, goal_states, held_out.num_steps
        )
    makers[acting.control_name("greedy")] = lambda: RulePolicy(MarginalScorer(log_marginal_A), "greedy", actions, seed)
    makers[acting.RANDOM] = lambda: Random(seed, seed_of)
    found = {}
    for name, make in makers.items():
        say(f"decoding: {name}")
        found[name] = summarise(play_all(held_out.make_environment, held_out.seeds, make())[0], outcomes)
    return {**found, acting.EXPERT: summarise(outcomes, outcomes)}
