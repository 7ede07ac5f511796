"""Robustness: success and NLL over the strength of each disturbance of `environments.disturbances`.

The bot and the random policy stand beside the model at every strength. They do not look, so only sticky actions change
what they do; elsewhere their clean episodes count again.

NLL: the windows of the clean test episodes, their past seen through the disturbance, their answers undisturbed:
`causal` (the next action) and `forward` (the next observation).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from anyorder_jax.acting.policy import Advised, Policy, Random
from anyorder_jax.asking.questions import Ask, Question, ask
from anyorder_jax.data.units import TokenisedTrajectory
from anyorder_jax.environments import disturbances
from anyorder_jax.environments.base import Environment
from anyorder_jax.environments.disturbances import CLEAN
from anyorder_jax.evaluation import acting
from anyorder_jax.evaluation.held_out import HeldOut, tokenise
from anyorder_jax.evaluation.likelihood import Model
from anyorder_jax.evaluation.measures import measure
from anyorder_jax.evaluation.policy import ModelScorer, RulePolicy, seed_of
from anyorder_jax.evaluation.questions import Windows
from anyorder_jax.evaluation.rollout import Outcomes, play_all, summarise
from anyorder_jax.evaluation.targets import collect_targets
from anyorder_jax.statistics import Estimate

ASKED = (Question("causal", "causal"), Question("forward", "forward"))
SHOWN = ("action_nll", "action_accuracy", "nll_per_cell", "cell_accuracy", "nll_per_target")


def disturbed_asks(
    question: Question,
    clean: Sequence[TokenisedTrajectory],
    disturbed: Sequence[TokenisedTrajectory],
    *,
    num_steps: int,
    limit: int,
    seed: int,
) -> list[Ask]:
    """The windows and holes of the clean episodes; what is seen is disturbed, what is asked is not.

    Args:
      question: one whose targets stand in the last step (causal, forward).
      clean, disturbed: the same episodes, tokenised; the goal's length may differ.
      num_steps: H, steps in a window.
      limit, seed: as in `asking.questions.ask`.
    """
    both = [ask(question, whole, Windows(num_steps), limit=limit, seed=seed) for whole in (clean, disturbed)]
    asks = []
    for truth, seen in zip(*both, strict=True):
        tokens_L = seen.example.tokens_L.copy()
        tokens_L[np.flatnonzero(seen.hidden.is_target_L)] = truth.example.tokens_L[truth.hidden.is_target_L]
        asks.append(seen._replace(example=dataclasses.replace(seen.example, tokens_L=tokens_L)))
    return asks


def predict(
    held_out: HeldOut, model: Model, name: str, strength: float, *, limit: int, seed: int
) -> dict[str, dict[str, Estimate]]:
    """[question][measure] of the model that looks through one disturbance.

    Args:
      held_out: the episodes.
      model: what is asked.
      name, strength: of the disturbance.
      limit: windows an episode and question at most.
      seed: of disturbance, windows and holes.
    """
    seen = [tokenise(disturbances.disturb(t, name, strength, seed), held_out.task) for t in held_out.trajectories]
    found = {}
    for question in ASKED:
        asks = disturbed_asks(question, held_out.examples, seen, num_steps=held_out.num_steps, limit=limit, seed=seed)
        targets = collect_targets(asks)
        measured = measure(targets, model.predict(targets), held_out.cell_words)
        found[question.name] = {key: value for key, value in measured.items() if key in SHOWN}
    return found


def act(
    make_environment: Callable[[], Environment],
    seeds: Sequence[int],
    makers: Mapping[str, Callable[[], Policy]],
    expert: Outcomes | None = None,
) -> dict[str, Outcomes]:
    """What came of each policy, and of the expert (played here unless it is given).

    Args:
      make_environment: opens one environment.
      seeds: one an episode.
      makers: [policy] makes one.
      expert: what came of the expert on these seeds; None: it is played.
    """
    outcomes = {name: play_all(make_environment, seeds, make())[0] for name, make in makers.items()}
    if expert is None:
        expert = play_all(make_environment, seeds, Advised())[0]
    return {**outcomes, acting.EXPERT: expert}


def _summaries(outcomes: Mapping[str, Outcomes]) -> dict[str, dict[str, Estimate]]:
    return {name: summarise(played, outcomes[acting.EXPERT]) for name, played in outcomes.items()}


def evaluate(
    held_out: HeldOut,
    model: Model,
    *,
    rules: Sequence[str],
    limit: int,
    seed: int,
    say: Callable[[str], None],
    strengths: Mapping[str, Sequence[float]] = disturbances.STRENGTHS,
) -> dict[str, Any]:
    """The curves.

    Args:
      held_out: the episodes and seeds.
      model: what is evaluated.
      rules: how its logits become actions.
      limit: windows an episode and question.
      seed: of disturbances, holes and sampled actions.
      say: told what is being done.
      strengths: disturbance -> what it is tried at; 0 comes first by itself.

    Returns:
      {disturbance: [{"strength", "acting": [policy][measure], "world_model": [question][measure]}]}, and under
      "clean" the one undisturbed point that begins every curve.
    """
    actions = held_out.actions
    policies: dict[str, Callable[[], Policy]] = {
        acting.model_name(rule): lambda rule=rule: RulePolicy(  # type: ignore[misc]
            ModelScorer(held_out.make_framer(), model.action_logits), rule, actions, seed
        )
        for rule in rules
    }
    random: dict[str, Callable[[], Policy]] = {acting.RANDOM: lambda: Random(seed, seed_of)}

    def point(name: str, strength: float, played: Mapping[str, Outcomes]) -> dict[str, Any]:
        known = predict(held_out, model, name, strength, limit=limit, seed=seed)
        return {"strength": strength, "acting": _summaries(played), "world_model": known}

    say("robustness: undisturbed")
    undisturbed = act(held_out.make_environment, held_out.seeds, policies | random)
    curves: dict[str, Any] = {CLEAN: [point(next(iter(strengths)), 0.0, undisturbed)]}
    for name, values in strengths.items():
        curves[name] = []
        for strength in values:
            say(f"robustness: {name} {strength:g}")

            def make(name: str = name, strength: float = strength) -> Environment:
                return disturbances.Disturbed(held_out.make_environment(), name, strength, seed)

            if name in disturbances.ON_ACTIONS:
                played = act(make, held_out.seeds, policies | random)
            else:
                played = undisturbed | act(make, held_out.seeds, policies, undisturbed[acting.EXPERT])
            curves[name].append(point(name, strength, played))
    return curves
