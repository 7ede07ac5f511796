"""Calibration: is a hidden token right as often as the model says?

    ECE = sum_b  n_b / n  |accuracy_b - confidence_b|         bins b of equal width over the confidence in (0, 1]

(Guo et al. 2017, 1706.04599, eq. 3). Confidence: the probability of the most probable token, over the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from anyorder_jax import keys
from anyorder_jax.data.units import TokenisedTrajectory
from anyorder_jax.evaluation.questions import QUESTIONS, ask
from anyorder_jax.evaluation.targets import Prediction, Targets, collect_targets
from anyorder_jax.evaluation.world_model import Predictor
from anyorder_jax.types import Kind

NUM_BINS = 15
ASKED = ("any_order@0.15", "any_order@0.5", "forward", "causal")
KINDS = (Kind.OBSERVATION, Kind.ACTION)


def reliability(targets: Targets, prediction: Prediction, kind: Kind, num_resamples: int = 500) -> dict[str, Any]:
    """The diagram of the targets of one kind of unit.

    Returns:
      {"ece", "low", "high": 95% interval over episodes, "count", "bins": [{"confidence", "accuracy", "count"}]}; empty
      bins are left out. {} when the question has no such target.

    Raises:
      ValueError: for a predictor without confidence.
    """
    if prediction.confidence_T is None:
        raise ValueError("calibration: this predictor gives no probability of its choice.")
    is_kind_T = targets.kind_T == kind
    if not is_kind_T.any():
        return {}
    confidence_T = prediction.confidence_T[is_kind_T]
    is_right_T = (prediction.chosen_T == targets.truth_T)[is_kind_T]
    bin_T = np.clip(np.ceil(confidence_T * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    cell_T = targets.episode_A[targets.ask_T[is_kind_T]] * NUM_BINS + bin_T
    shape = (targets.num_episodes, NUM_BINS)
    count_EB, right_EB, confidence_EB = (
        np.bincount(cell_T, weights=w, minlength=np.prod(shape)).reshape(shape)
        for w in (np.ones(len(cell_T)), is_right_T, confidence_T)
    )
    gap_EB = right_EB - confidence_EB
    asked_E = np.flatnonzero(count_EB.any(1))
    rng = keys.generator(0, "bootstrap calibration", len(asked_E))
    draws_RE = rng.multinomial(len(asked_E), np.full(len(asked_E), 1 / len(asked_E)), size=num_resamples)
    drawn_R = np.abs(draws_RE @ gap_EB[asked_E]).sum(1) / (draws_RE @ count_EB[asked_E].sum(1))
    low, high = np.percentile(drawn_R, [2.5, 97.5])
    count_B = count_EB.sum(0)
    ece = float(np.abs(gap_EB.sum(0)).sum() / count_B.sum())
    bins = [
        {"confidence": confidence / count, "accuracy": right / count, "count": int(count)}
        for count, right, confidence in zip(count_B, right_EB.sum(0), confidence_EB.sum(0), strict=True)
        if count
    ]
    return {
        "ece": ece, "low": min(float(low), ece), "high": max(float(high), ece),
        "count": int(count_B.sum()), "bins": bins,
    }  # fmt: skip


def evaluate(
    model: Predictor, examples: Sequence[TokenisedTrajectory], *, num_steps: int, limit: int, seed: int
) -> dict[str, dict[str, Any]]:
    """[question][observation | action]: the reliability of ASKED questions; arguments as in `world_model.evaluate`."""
    found: dict[str, dict[str, Any]] = {}
    for question in QUESTIONS:
        if question.name in ASKED:
            asks = ask(question, examples, num_steps=num_steps, limit=limit, seed=seed)
            targets = collect_targets(asks)
            prediction = model.predict(asks, targets)
            by_kind = {kind.name.lower(): reliability(targets, prediction, kind) for kind in KINDS}
            found[question.name] = {name: diagram for name, diagram in by_kind.items() if diagram}
    return found
