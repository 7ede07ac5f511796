"""Calibration: is a hidden token right as often as the model says (`statistics.reliability`), by its unit's role."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anyorder_jax import statistics
from anyorder_jax.asking.targets import Asked, Prediction
from anyorder_jax.types import ROLES, Kind


def reliability(targets: Asked, prediction: Prediction, kinds: Sequence[Kind] = tuple(Kind)) -> dict[str, Any]:
    """{role: as `statistics.reliability`} of one question's targets; roles of which nothing is asked are left out.

    Args:
      targets: of one question.
      prediction: of one predictor, with its confidence.
      kinds: the roles that are looked at.

    Raises:
      ValueError: for a predictor without confidence.
    """
    if prediction.confidence_T is None:
        raise ValueError("calibration: this predictor gives no probability of its choice.")
    found = {}
    for kind in kinds:
        chosen_T = targets.kind_T == kind
        if chosen_T.any():
            is_right_T = (prediction.chosen_T == targets.truth_T)[chosen_T]
            found[ROLES[kind]] = statistics.reliability(
                prediction.confidence_T[chosen_T], is_right_T, targets.episode_T[chosen_T]
            )
    return found
