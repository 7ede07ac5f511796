"""Acting: the model as policy beside the same rules without a model, the random policy and the expert."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anyorder_jax.acting.episode import Episode
from anyorder_jax.acting.policy import Advised, Policy, Random
from anyorder_jax.environments.base import Environment
from anyorder_jax.evaluation import policy
from anyorder_jax.evaluation.policy import ActionLogits, Framer, RulePolicy, seed_of
from anyorder_jax.evaluation.rollout import Outcomes, play_all, summarise
from anyorder_jax.statistics import Estimate

EXPERT, RANDOM = "expert", "random"


@dataclass(frozen=True)
class Played:
    """summaries[policy][measure]. outcomes[policy]. episodes[policy]: with all their units."""

    summaries: dict[str, dict[str, Estimate]]
    outcomes: dict[str, Outcomes]
    episodes: dict[str, list[Episode]]


def model_name(rule: str) -> str:
    """The model's policy under a rule."""
    return f"model/{rule}"


def control_name(rule: str) -> str:
    """The same rule on the action frequencies of the training data."""
    return f"no_model/{rule}"


def evaluate(
    make_environment: Callable[[], Environment],
    seeds: Sequence[int],
    action_logits: ActionLogits,
    make_framer: Callable[[], Framer],
    log_marginals: Mapping[str, float],
    *,
    rules: Sequence[str],
    seed: int,
    say: Callable[[str], None],
) -> Played:
    """Plays the same seeds with every policy.

    Args:
      make_environment: opens one environment.
      seeds: one an episode.
      action_logits: the model's.
      make_framer: a fresh framer (it remembers episodes).
      log_marginals: of all action words, in the order of the logits, the log of their frequency in the training data.
      rules: of `policy.RULES`.
      seed: of random and sampled actions.
      say: told which policy is being played.

    Raises:
      ValueError: for an unknown rule.
    """

    actions, log_marginal_A = list(log_marginals), np.array(list(log_marginals.values()))

    def with_model(rule: str) -> Callable[[], Policy]:
        return lambda: RulePolicy(policy.ModelScorer(make_framer(), action_logits), rule, actions, seed)

    def without(rule: str) -> Callable[[], Policy]:
        return lambda: RulePolicy(policy.MarginalScorer(log_marginal_A), rule, actions, seed)

    policy.check_rules(rules)
    makers: dict[str, Callable[[], Policy]] = {model_name(rule): with_model(rule) for rule in rules}
    makers |= {control_name(rule): without(rule) for rule in rules}
    makers |= {RANDOM: lambda: Random(seed, seed_of), EXPERT: Advised}
    outcomes: dict[str, Outcomes] = {}
    episodes: dict[str, list[Episode]] = {}
    for name, make_policy in makers.items():
        say(f"acting: {name}, {len(seeds)} episodes")
        outcomes[name], episodes[name] = play_all(make_environment, seeds, make_policy())
    summaries = {name: summarise(played, outcomes[EXPERT]) for name, played in outcomes.items()}
    return Played(summaries, outcomes, episodes)
