"""World model: how well held-out trajectories are predicted, beside predictors that know nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from anyorder_jax.asking.questions import ask
from anyorder_jax.asking.targets import Asked, Prediction
from anyorder_jax.data.units import TokenisedTrajectory
from anyorder_jax.evaluation import baselines
from anyorder_jax.evaluation.baselines import SlotMarginals
from anyorder_jax.evaluation.measures import CellWords, measure
from anyorder_jax.evaluation.questions import QUESTIONS, Windows
from anyorder_jax.evaluation.targets import collect_targets
from anyorder_jax.statistics import Estimate
from anyorder_jax.types import Kind

Results = dict[str, dict[str, dict[str, Estimate]]]
"""[question][predictor][measure]."""

MODEL, MOST_FREQUENT, COPY_PREVIOUS = "model", "most_frequent", "copy_previous"


class Predictor(Protocol):
    """Anything that answers asks; `likelihood.Model` does."""

    def predict(self, targets: Asked) -> Prediction:
        """-log p and the choice of every target."""
        ...


def evaluate(
    model: Predictor,
    marginals: SlotMarginals,
    cell_words: CellWords,
    examples: Sequence[TokenisedTrajectory],
    constant_action: tuple[str, Sequence[int]],
    *,
    num_steps: int,
    limit: int,
    seed: int,
) -> Results:
    """Asks every question of the model and of its trivial baselines; the same windows and holes for all of
    them.

    Args:
      model: what is evaluated.
      marginals: counts of the training split.
      cell_words: reads grid words.
      examples: the test split, tokenised.
      constant_action: (word, ids) of the action that one baseline always takes.
      num_steps: H, steps in a window.
      limit: windows an episode and question at most.
      seed: of windows and holes.

    Returns:
      Estimates by question, predictor and measure. `copy_previous` has only the measures of observations,
      `always_<word>` only that of actions.
    """
    word, ids = constant_action
    results: Results = {}
    for question in QUESTIONS:
        asks = ask(question, examples, Windows(num_steps), limit=limit, seed=seed)
        if not asks:  # e.g. no trajectory has a second observation
            continue
        targets = collect_targets(asks)
        unigram = marginals.predict(targets)
        predictions = {
            MODEL: model.predict(targets),
            MOST_FREQUENT: unigram,
            COPY_PREVIOUS: baselines.copy_previous(targets, unigram),
            f"always_{word}": baselines.always(ids, targets, Kind.ACTION),
        }
        measured = {name: measure(targets, p, cell_words) for name, p in predictions.items()}
        for name, found in measured.items():
            if name not in (MODEL, MOST_FREQUENT):
                about = ("action_accuracy",) if name.startswith("always_") else OBSERVATION_SHARES
                measured[name] = {key: value for key, value in found.items() if key in about}
        results[question.name] = {name: found for name, found in measured.items() if found}
    return results


OBSERVATION_SHARES = (
    "attribute_accuracy",
    "cell_accuracy",
    "object_cell_accuracy",
    "changed_cell_accuracy",
    "direction_accuracy",
    "exact_observation_rate",
)
