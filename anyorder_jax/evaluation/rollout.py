"""Rollouts: episodes played in lockstep by one policy, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from anyorder_jax import statistics
from anyorder_jax.environments.base import Environment
from anyorder_jax.evaluation.policy import Episode, Policy
from anyorder_jax.statistics import Estimate

MAX_PARALLEL = 256
"""Environments that are open at once."""


@dataclass(frozen=True)
class Outcomes:
    """Of E episodes: seed_E int, is_success_E bool, return_E float (sum of rewards), steps_E int (actions
    taken)."""

    seed_E: np.ndarray
    is_success_E: np.ndarray
    return_E: np.ndarray
    steps_E: np.ndarray


def play(environments: Sequence[Environment], seeds: Sequence[int], policy: Policy) -> list[Episode]:
    """Plays one episode per seed, all at the same time: each round the policy acts once in every unfinished
    episode.

    Args:
      environments: at least as many as seeds; an episode depends on its seed alone, so they may be used
        again.
      seeds: one an episode, all different (policies remember episodes by seed).
      policy: fresh, or at least one that has not met these seeds.

    Returns:
      The episodes in the order of the seeds, finished; their units hold all that happened.
    """
    assert len(set(seeds)) == len(seeds) <= len(environments)
    episodes = [Episode(seed, env) for seed, env in zip(seeds, environments, strict=False)]
    while active := [episode for episode in episodes if not episode.is_done]:
        for episode, word in zip(active, policy.choose(active), strict=True):
            if word is None:
                episode.is_done = True
            else:
                episode.act(word)
    return episodes


def play_all(
    make: Callable[[], Environment], seeds: Sequence[int], make_policy: Callable[[], Policy]
) -> tuple[Outcomes, list[Episode]]:
    """`play` in groups of MAX_PARALLEL seeds, with fresh environments that are closed afterwards.

    Returns:
      The outcomes, and the episodes of which the units may be drawn (their environments are closed).
    """
    environments = [make() for _ in range(min(MAX_PARALLEL, len(seeds)))]
    episodes: list[Episode] = []
    try:
        for first in range(0, len(seeds), MAX_PARALLEL):
            episodes += play(environments, seeds[first : first + MAX_PARALLEL], make_policy())
    finally:
        for environment in environments:
            environment.close()
    return outcomes(episodes), episodes


def outcomes(episodes: Sequence[Episode]) -> Outcomes:
    """The numbers of finished episodes."""
    return Outcomes(
        seed_E=np.array([e.seed for e in episodes]),
        is_success_E=np.array([e.is_success for e in episodes], bool),
        return_E=np.array([e.total_reward for e in episodes], float),
        steps_E=np.array([e.num_steps for e in episodes]),
    )


def summarise(played: Outcomes, expert: Outcomes) -> dict[str, Estimate]:
    """Success, return and length of a policy, and its length beside the expert's on the same seeds.

        success                        share of episodes solved (Wilson's interval)
        return                         mean sum of rewards
        steps                          mean number of actions, failures included (they last to the step limit)
        steps_when_successful          the same over solved episodes
        steps_relative_to_expert       sum of steps / sum of the expert's steps, over seeds that both solved
        success_weighted_path_length   mean of  success * expert's steps / max(steps, expert's steps)   (SPL,
                                       arXiv 1807.06757), over seeds that the expert solved

    Raises:
      ValueError: when the two played different seeds.
    """
    if not np.array_equal(played.seed_E, expert.seed_E):
        raise ValueError("rollout: the policy and the expert played different seeds; they cannot be compared.")
    both_E = played.is_success_E & expert.is_success_E
    path_E = expert.steps_E / np.maximum(np.maximum(played.steps_E, expert.steps_E), 1)
    found = {
        "success": statistics.success_rate(played.is_success_E),
        "return": statistics.mean(played.return_E),
        "steps": statistics.mean(played.steps_E),
        "steps_when_successful": statistics.mean(played.steps_E[played.is_success_E]),
        "steps_relative_to_expert": statistics.ratio(played.steps_E * both_E, expert.steps_E * both_E),
        "success_weighted_path_length": statistics.ratio(path_E * both_E, expert.is_success_E),
    }  # fmt: skip
    return {name: estimate for name, estimate in found.items() if estimate is not None}
