"""Calibration of grids, by question and kind of unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anyorder_jax.asking.calibration import reliability
from anyorder_jax.asking.questions import ask
from anyorder_jax.data.units import TokenisedTrajectory
from anyorder_jax.evaluation.questions import QUESTIONS, Windows
from anyorder_jax.evaluation.targets import collect_targets
from anyorder_jax.evaluation.world_model import Predictor
from anyorder_jax.types import Kind

ASKED = ("any_order@0.15", "any_order@0.5", "forward", "causal")
KINDS = (Kind.OBSERVATION, Kind.ACTION)


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
            targets = collect_targets(ask(question, examples, Windows(num_steps), limit=limit, seed=seed))
            found[question.name] = reliability(targets, model.predict(targets), KINDS)
    return found
