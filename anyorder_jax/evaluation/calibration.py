"""Calibration: is a hidden token right as often as the model says (`statistics.reliability`), by question and kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anyorder_jax import statistics
from anyorder_jax.data.units import TokenisedTrajectory
from anyorder_jax.evaluation.questions import QUESTIONS, ask
from anyorder_jax.evaluation.targets import Prediction, Targets, collect_targets
from anyorder_jax.evaluation.world_model import Predictor
from anyorder_jax.types import Kind

ASKED = ("any_order@0.15", "any_order@0.5", "forward", "causal")
KINDS = (Kind.OBSERVATION, Kind.ACTION)


def reliability(targets: Targets, prediction: Prediction, kind: Kind, num_resamples: int = 500) -> dict[str, Any]:
    """The diagram of the targets of one kind of unit; {} when the question has no such target.

    Args:
      targets: of one question.
      prediction: of one predictor, with its confidence.
      kind: of the units that are looked at.
      num_resamples: of the interval.

    Raises:
      ValueError: for a predictor without confidence.
    """
    if prediction.confidence_T is None:
        raise ValueError("calibration: this predictor gives no probability of its choice.")
    is_kind_T = targets.kind_T == kind
    is_right_T = (prediction.chosen_T == targets.truth_T)[is_kind_T]
    episode_T = targets.episode_A[targets.ask_T[is_kind_T]]
    return statistics.reliability(prediction.confidence_T[is_kind_T], is_right_T, episode_T, num_resamples)


def evaluate(
    model: Predictor, examples: Sequence[TokenisedTrajectory], *, num_steps: int, limit: int, seed: int
) -> dict[str, dict[str, Any]]:
    """[question][observation | action]: the reliability of ASKED questions; arguments as in `world_model.evaluate`.

    Args:
      model, examples, num_steps, limit, seed: as in `world_model.evaluate`.
    """
    found: dict[str, dict[str, Any]] = {}
    for question in QUESTIONS:
        if question.name in ASKED:
            asks = ask(question, examples, num_steps=num_steps, limit=limit, seed=seed)
            targets = collect_targets(asks)
            prediction = model.predict(asks, targets)
            by_kind = {kind.name.lower(): reliability(targets, prediction, kind) for kind in KINDS}
            found[question.name] = {name: diagram for name, diagram in by_kind.items() if diagram}
    return found
