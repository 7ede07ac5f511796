"""Rollouts in grids: the held-out seeds played by one policy, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from anyorder_jax import statistics
from anyorder_jax.acting.episode import Episode
from anyorder_jax.acting.names import GRID_MEASURES
from anyorder_jax.acting.policy import Policy
from anyorder_jax.acting.rollout import play
from anyorder_jax.environments.base import Environment
from anyorder_jax.environments.local import LocalServer
from anyorder_jax.evaluation.policy import seed_of
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


def play_all(make: Callable[[], Environment], seeds: Sequence[int], policy: Policy) -> tuple[Outcomes, list[Episode]]:
    """Plays one episode of each seed, up to MAX_PARALLEL at a time, in environments that are closed afterwards.

    Args:
      make: opens one environment.
      seeds: one an episode, all different (policies remember episodes by seed).
      policy: fresh, or at least one that has not met these seeds.

    Returns:
      The outcomes, and the episodes, finished; their units hold all that happened.
    """
    assert len(set(seeds)) == len(seeds)
    with LocalServer(make, min(MAX_PARALLEL, len(seeds))) as server:
        episodes = play(server, list(map(str, seeds)), policy)
    return outcomes(episodes), episodes


def outcomes(episodes: Sequence[Episode]) -> Outcomes:
    """The numbers of finished episodes."""
    return Outcomes(
        seed_E=np.array([seed_of(e) for e in episodes]),
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
    found: dict[str, Estimate | None] = {
        "success": statistics.success_rate(played.is_success_E),
        "return": statistics.mean(played.return_E),
        "steps": statistics.mean(played.steps_E),
        "steps_when_successful": statistics.ratio(played.steps_E * played.is_success_E, played.is_success_E),
        "steps_relative_to_expert": statistics.ratio(played.steps_E * both_E, expert.steps_E * both_E),
        "success_weighted_path_length": statistics.ratio(path_E * both_E, expert.is_success_E),
    }  # fmt: skip
    return {name: found[name] for name in GRID_MEASURES if found[name] is not None}  # type: ignore[misc]
